"""Packed rows × vectors with AVX2: 32 weights in a dozen instructions, written out in LLVM's language.

A block is 16 bytes and a scale s; on the other side stand 32 activations, rounded to int16 with one step:

    16 bytes → 16 words; each nibble moves into a word's high byte; a byte shuffle looks up 2 · value there
    pairs    = multiply-add of words and activations: 32 products, added to 8 whole numbers, exactly
    sum     += pairs · step · 2^(s − 126)

A word is 512 times the value, and 2^(s − 126) twice the scale, so `step` carries 2⁻¹⁰. No whole number is
beyond 4 · 3072 · 32767 < 2³¹. Rounding to int16 is the only error that counts: an activation is off by at
most 1/65534 of the largest in its block. A single large one therefore coarsens its 31 neighbours.

numba keeps what it compiles until this file changes, and looks at no other: from `plain` come sizes alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from .plain import BLOCK, HALF, ROWS, compiled

TINY = np.float32(2.0**-100)  # a block whose largest activation is no larger counts as zeros
TWICE = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]  # nibble → 2 · value
POWERS = [2.0 ** (scale - 126) for scale in range(254)] + [math.inf, math.nan]  # none subnormal; 255 is NaN

BYTE, WORD, WHOLE, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()
PACKED, BYTES, WORDS = ir.VectorType(BYTE, 16), ir.VectorType(BYTE, 32), ir.VectorType(WORD, 16)
WHOLES, FLOATS = ir.VectorType(WHOLE, 8), ir.VectorType(FLOAT, 8)
UNDEFINED = ir.Constant(FLOATS, ir.Undefined)


def each(vector: ir.VectorType, value: int) -> ir.Constant:
    """A vector of one constant."""
    return ir.Constant(vector, [value] * vector.count)


def read(builder: Any, base: Any, offset: Any, kind: ir.Type) -> Any:
    """What lies `offset` items after an address, which need not be aligned."""
    return builder.load(builder.bitcast(builder.gep(base, [offset]), kind.as_pointer()), align=1)


def spread(builder: Any, value: Any) -> Any:
    """One float32 in all eight places."""
    return builder.shuffle_vector(
        builder.insert_element(UNDEFINED, value, WHOLE(0)), UNDEFINED, each(WHOLES, 0)
    )


def named(builder: Any, name: str, result: ir.Type, *kinds: ir.Type) -> Any:
    """An instruction by LLVM's name for it, to be called."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)


def words(builder: Any, packed: Any) -> list[Any]:
    """16 bytes → 512 · value of their low nibbles, and of their high ones, as 16 words each."""
    shuffle = named(builder, "llvm.x86.avx2.pshuf.b", BYTES, BYTES, BYTES)
    table = ir.Constant(BYTES, [value & 255 for value in TWICE] * 2)
    wide, found = builder.zext(packed, WORDS), []
    for shift in (8, 4):
        nibbles = builder.and_(builder.shl(wide, each(WORDS, shift)), each(WORDS, 0x0F00))
        asked = builder.or_(nibbles, each(WORDS, 0x0080))  # 80: a zero in the low byte
        found.append(builder.bitcast(builder.call(shuffle, [table, builder.bitcast(asked, BYTES)]), WORDS))
    return found


def tile(height: int, width: int) -> Any:
    """The product of `height` rows with `width` vectors, as a function for compiled code:

    add(blocks, scales, q, step, out, row, first, count) writes out[first + t, row + r]. Where the matrix has
    no such row, or t is not below `count`, the last row or the first vector is done once more.
    """

    @intrinsic
    def add(
        typing: Any, blocks: Any, scales: Any, q: Any, step: Any, out: Any, row: Any, first: Any, count: Any
    ) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            arrays = [make_array(kind)(context, builder, arg) for kind, arg in zip(kinds[:5], args)]
            blocks, scales, q, step, out = (array.data for array in arrays)
            rows, n, _ = cgutils.unpack_tuple(builder, arrays[0].shape)
            row, first, count = args[5:]
            number = row.type
            add, times, less = builder.add, builder.mul, builder.icmp_signed

            last, at_rows, at_vectors = builder.sub(rows, number(1)), [], []
            for r in range(height):
                at = add(row, number(r))
                at_rows.append(builder.select(less("<", at, last), at, last))
            for t in range(width):
                at = add(first, number(t))
                at_vectors.append(builder.select(less("<", number(t), count), at, first))

            multiply_add = named(builder, "llvm.x86.avx2.pmadd.wd", WHOLES, WORDS, WORDS)
            fused = named(builder, "llvm.fma.v8f32", FLOATS, FLOATS, FLOATS, FLOATS)
            powers = ir.Constant(ir.ArrayType(FLOAT, 256), POWERS)
            powers = builder.bitcast(cgutils.global_constant(builder, "powers", powers), FLOAT.as_pointer())
            sums = [
                [cgutils.alloca_once_value(builder, each(FLOATS, 0)) for _ in at_vectors] for _ in at_rows
            ]
            with cgutils.for_range(builder, n, intp=number) as loop:
                for at_row, row_sums in zip(at_rows, sums):
                    block = add(times(at_row, n), loop.index)
                    low, high = words(builder, read(builder, blocks, times(block, number(HALF)), PACKED))
                    scale = builder.zext(read(builder, scales, block, BYTE), number)
                    power = spread(builder, read(builder, powers, scale, FLOAT))
                    for at_vector, total in zip(at_vectors, row_sums):
                        block = add(times(at_vector, n), loop.index)
                        even = times(block, number(BLOCK))
                        odd = add(even, number(HALF))
                        pairs = add(
                            builder.call(multiply_add, [low, read(builder, q, even, WORDS)]),
                            builder.call(multiply_add, [high, read(builder, q, odd, WORDS)]),
                        )
                        stepped = builder.fmul(
                            builder.sitofp(pairs, FLOATS),
                            spread(builder, read(builder, step, block, FLOAT)),
                        )
                        builder.store(builder.call(fused, [stepped, power, builder.load(total)]), total)

            sum_of = named(builder, "llvm.vector.reduce.fadd.v8f32", FLOAT, FLOAT, FLOATS)
            for at_row, row_sums in zip(at_rows, sums):
                for at_vector, total in zip(at_vectors, row_sums):
                    y = builder.call(sum_of, [FLOAT(0), builder.load(total)], fastmath=("reassoc",))
                    builder.store(y, builder.gep(out, [add(times(at_vector, rows), at_row)]))
            return context.get_dummy_value()

        return types.void(blocks, scales, q, step, out, row, first, count), emit

    return add


one_vector, four_vectors = tile(4, 1), tile(1, 4)


@compiled()
def quantize(x: Any, q: Any, step: Any) -> None:
    """Round each block of 32 activations to int16, in steps of its largest / 32767.

    x: N 32n float32. q: N n 32 int16, a block's even neighbours first, then its odd ones, as nibbles lie in a
    byte. step: N n float32, times 2⁻¹⁰; NaN where a block holds NaN or infinity.
    """
    for row in range(x.shape[0]):
        for block in range(step.shape[1]):
            largest, finite = np.float32(0), np.float32(0)
            for i in range(BLOCK):
                value = abs(x[row, block * BLOCK + i])
                largest = max(largest, value)
                finite += value * np.float32(0)  # NaN from the first NaN or infinity on
            usable = largest > TINY and finite == 0
            times = np.float32(32767) / largest if usable else np.float32(0)
            for i in range(HALF):
                for odd in range(2):
                    value = x[row, block * BLOCK + 2 * i + odd]
                    q[row, block, odd * HALF + i] = np.int16(np.rint(value * times)) if usable else 0
            step[row, block] = (largest / np.float32(32767 * 1024) if usable else np.float32(0)) + finite


@compiled(parallel=True)
def multiply_quantized(blocks: Any, scales: Any, q: Any, step: Any, jobs: Any, out: Any) -> None:
    """Packed rows times quantized vectors; jobs of at most four vectors. Otherwise as `plain.multiply`."""
    chunks = (blocks.shape[1] + ROWS - 1) // ROWS
    for chunk in prange(len(jobs) * chunks):
        expert, first, count = jobs[chunk // chunks]
        start = chunk % chunks * ROWS
        end = min(start + ROWS, blocks.shape[1])
        if count == 1:
            for row in range(start, end, 4):
                one_vector(blocks[expert], scales[expert], q, step, out, row, first, count)
        else:
            for row in range(start, end):
                four_vectors(blocks[expert], scales[expert], q, step, out, row, first, count)


def multiply(blocks: Any, scales: Any, x: Any, jobs: Any, out: Any) -> None:
    """Packed rows times float32 vectors, which are quantized first; jobs of at most four vectors.

    Otherwise as `plain.multiply`.
    """
    q = np.empty((len(x), scales.shape[2], BLOCK), np.int16)
    step = np.empty(q.shape[:2], np.float32)
    quantize(x, q, step)
    multiply_quantized(blocks, scales, q, step, jobs, out)
