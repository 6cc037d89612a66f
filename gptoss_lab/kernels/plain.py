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
    """numba.njit, its result kept on disk where there is a folder that can be written."""

    def decorate(function: Any) -> Any:
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return numba.njit(nogil=True, **options)(function)

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


@compiled(parallel=True, fastmath={"reassoc", "contract"})
def dense(weight: Any, x: Any, out: Any) -> None:
    """bfloat16 rows times float32 vectors: weight O I, its bits as uint16; x: N I; out: N O."""
    height = len(weight)
    for chunk in prange((height + ROWS - 1) // ROWS):
        for row in range(chunk * ROWS, min(chunk * ROWS + ROWS, height)):
            for vector in range(len(x)):
                total = np.float32(0)
                for i in range(weight.shape[1]):
                    total += as_float(np.uint32(weight[row, i]) << np.uint32(16)) * x[vector, i]
                out[vector, row] = total
