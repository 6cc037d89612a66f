"""The kernels in plain numba: loops that LLVM turns into whatever vectors a processor has.

    unpack     packed rows → float32, for products with many vectors
    multiply   packed rows × float32 vectors: the form for processors without AVX2 (`avx2` has the other)
    dense      bfloat16 rows × float32 vectors

Sums are float32. A row is always summed by one thread in one order, so the bits depend neither on how many
threads there are nor on which vectors are multiplied together. No number passes through subnormal float32,
which torch.set_flush_denormal(True) would make zero.

Importing this file imports numba: only `forms` does, when a kernel is first wanted. What is compiled is kept:
beside this file, or in the user's cache folder where that cannot be written, and for this process alone where
neither can.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

BLOCK, HALF = 32, 16
ROWS = 64  # rows that a thread takes at a time
# A scale byte → 2^(scale − 126), twice what it means, so that none is subnormal; 255 is NaN
TWOFOLD = np.array([2.0 ** (scale - 126) for scale in range(254)] + [math.inf, math.nan], np.float32)


def compiled(**options: Any) -> Callable[[Any], Any]:
    """numba.njit, its result kept on disk where there is a folder that can be written. Division by zero gives
    infinity or NaN: where it might raise, no loop becomes vectors."""
    options = {"nogil": True, "error_model": "numpy"} | options

    def decorate(function: Any) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return numba.njit(**options)(function)

    return decorate


@intrinsic
def as_float(typing: Any, bits: Any) -> Any:
    """The float32 that 32 bits spell."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), emit


@compiled(inline="always")
def half(nibble: Any) -> Any:
    """Half the value of a nibble, −0 included. Comparisons in place of a table: these become vectors."""
    m = np.int32(nibble & 7)  # 0 1 2 3 4 5 6 7 → 0 1 2 3 4 6 8 12, four times what is asked for
    four = np.float32(m) + np.float32(m > 4) + np.float32(m > 5) + np.float32(3 * (m > 6))
    return np.float32(-0.25) * four if nibble & 8 else np.float32(0.25) * four


@compiled(inline="always")
def unpack_row(blocks: Any, scales: Any, out: Any) -> None:
    """One row: blocks n 16 and scales n uint8 → out 32n float32. A byte's low nibble comes first."""
    for block in range(len(scales)):
        scale = TWOFOLD[scales[block]]
        for i in range(HALF):
            byte = blocks[block, i]
            out[block * BLOCK + 2 * i] = half(byte & 15) * scale
            out[block * BLOCK + 2 * i + 1] = half(byte >> 4) * scale


@compiled(parallel=True)
def unpack(blocks: Any, scales: Any, out: Any) -> None:
    """Packed rows to float32, exactly: blocks O n 16 and scales O n uint8 → out O 32n."""
    for row in prange(len(scales)):
        unpack_row(blocks[row], scales[row], out[row])


@compiled(inline="always", fastmath={"reassoc", "contract"})
def dot(row: Any, x: Any) -> Any:
    """The sum of products, in float32."""
    total = np.float32(0)
    for i in range(len(row)):
        total += row[i] * x[i]
    return total


@compiled(parallel=True, fastmath={"reassoc", "contract"})
def multiply(blocks: Any, scales: Any, x: Any, jobs: Any, out: Any) -> None:
    """Packed rows times float32 vectors.

    blocks: E O n 16 and scales: E O n, uint8; x: N 32n; out: N O; jobs: J 3, each an expert, the first of its
    vectors, and how many they are.
    """
    height, n = scales.shape[1:]
    chunks = (height + ROWS - 1) // ROWS
    for chunk in prange(len(jobs) * chunks):
        expert, first, count = jobs[chunk // chunks]
        start = chunk % chunks * ROWS
        weight = np.empty(n * BLOCK, np.float32)
        for row in range(start, min(start + ROWS, height)):
            unpack_row(blocks[expert, row], scales[expert, row], weight)
            for vector in range(first, first + count):
                out[vector, row] = dot(weight, x[vector])


@compiled(inline="always")
def wide(bits: Any) -> Any:
    """The float32 that bfloat16 bits spell."""
    return as_float(np.uint32(bits) << np.uint32(16))


@compiled()
def place_of(chunk: int, weights: Any) -> tuple[int, int, int]:
    """The matrix of a chunk of ROWS rows, how many rows stand before it, and the chunk's first row in it."""
    matrix = before = 0
    while chunk >= (len(weights[matrix]) + ROWS - 1) // ROWS:
        chunk -= (len(weights[matrix]) + ROWS - 1) // ROWS
        before += len(weights[matrix])
        matrix += 1
    return matrix, before, chunk * ROWS


@compiled(parallel=True, fastmath={"reassoc", "contract"})
def dense(weights: Any, biases: Any, x: Any, out: Any) -> None:
    """bfloat16 rows times float32 vectors, one matrix after another.

    weights: matrices O I, and biases: vectors O, or of length 0, all as their bits in uint16; x: N I; out: N,
    all O together.
    """
    chunks = 0
    for weight in weights:
        chunks += (len(weight) + ROWS - 1) // ROWS
    for chunk in prange(chunks):
        matrix, before, start = place_of(chunk, weights)
        weight, bias = weights[matrix], biases[matrix]
        for row in range(start, min(start + ROWS, len(weight))):
            for vector in range(len(x)):
                total = np.float32(0)
                for i in range(weight.shape[1]):
                    total += wide(weight[row, i]) * x[vector, i]
                out[vector, before + row] = total + (wide(bias[row]) if len(bias) else np.float32(0))


@compiled(inline="always")
def exponential(x: Any) -> Any:
    """e^x to two units in the last place, without a branch or a call, so that loops become vectors.

    2^n · e^r with |r| ≤ ln 2 / 2, and e^r by its Taylor polynomial. Below −87 it stays e^−87, above 88 e^88.
    """
    x = np.float32(-87) if x < np.float32(-87) else x
    x = np.float32(88) if x > np.float32(88) else x
    n = np.rint(x * np.float32(1.4426950408889634))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)  # ln 2 in two pieces
    e = np.float32(1 / 5040) * r + np.float32(1 / 720)
    e = e * r + np.float32(1 / 120)
    e = e * r + np.float32(1 / 24)
    e = e * r + np.float32(1 / 6)
    e = e * r + np.float32(1 / 2)
    e = (e * r + np.float32(1)) * r + np.float32(1)
    return e * as_float(np.uint32(np.int32(n) + np.int32(127)) << np.uint32(23))


@compiled(inline="always")
def clamped_swiglu(gate: Any, up: Any, limit: Any, alpha: Any) -> Any:
    """As `model.experts.clamped_swiglu`; NaN stays NaN."""
    gate = limit if gate > limit else gate
    up = limit if up > limit else -limit if up < -limit else up
    return gate / (np.float32(1) + exponential(-alpha * gate)) * (up + np.float32(1))
