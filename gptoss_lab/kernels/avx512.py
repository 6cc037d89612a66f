"""Packed rows × vectors with AVX-512 (VNNI and VBMI): sixteen rows abreast, four weights to a lane.

A block of sixteen rows is sixteen times 16 bytes. Turned by 4 bytes it is four vectors whose lane r holds
eight weights of row r; a byte shuffle makes each nibble 12 + 2 · value, a whole number from 0 to 24.
Activations are rounded to 22 bits with one step a block, and stand as three bytes, q = 65536 · high + 256 ·
middle + low:

    sums   = Σ (12 + 2 · value) · q − 12 Σ q      24 multiply-adds of 64 bytes: 512 products, exactly
    total += sums · step · 2^(s − 126)            lane by lane: each row has its own scale s

2^(s − 126) is twice the scale, so `step` carries ¼. No whole number is beyond 32 · 24 · 2²¹ < 2³¹. An
activation is off by at most 2⁻²² of the largest in its block: no more than float32 loses in adding up.

Unpacking is shared by all vectors of a job, so that one kernel serves decoding and long prompts.

numba keeps what it compiles until this file changes, and looks at no other: touch it when `emit`, `plain`,
`single` or `decoding` changes.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .emit import BYTE, FLOAT, WHOLE, WORD, arrays, each, named, read, spread
from .plain import BLOCK, HALF, TWOFOLD, clamped_swiglu, compiled, wide
from .single import attend_one, route_one

ROWS, PARTS = 16, 3  # rows beside one another; bytes of a whole number
LARGEST = 1 << 21  # the largest whole number
TINY = (127 - 100) << 23  # 2^−100 in its bits: a block whose largest activation is no larger counts as zeros
INFINITE = 0xFF << 23  # infinity in its bits
SHIFTED = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0]  # nibble → 12 + 2 · value

PACKED, BYTES = ir.VectorType(BYTE, 16), ir.VectorType(BYTE, 64)
WHOLES, FLOATS = ir.VectorType(WHOLE, 16), ir.VectorType(FLOAT, 16)
SCALES = ir.VectorType(BYTE, 16)
LINE, WHOLE_LINE = ir.VectorType(FLOAT, BLOCK), ir.VectorType(WHOLE, BLOCK)
BYTE_LINE = ir.VectorType(BYTE, BLOCK)


def shuffled(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    """Places of two vectors, by number."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(WHOLE, len(order)), order))


def rows_at(builder: Any, row: Any, rows: Any) -> list[Any]:
    """The numbers of sixteen rows from `row` on; the last row stands for those beyond it."""
    last, found = builder.sub(rows, row.type(1)), []
    for r in range(ROWS):
        at = builder.add(row, row.type(r))
        found.append(builder.select(builder.icmp_signed("<", at, last), at, last))
    return found


@intrinsic
def powers(typing: Any, scales: Any, found: Any, row: Any, block: Any) -> Any:
    """2^(s − 126) of sixteen rows in sixteen blocks; found: n 16 float32, by block and row. 255 gives NaN."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (scales, found), (shape, _) = arrays(context, builder, signature, args, 2)
        row, block = args[2:]
        rows, n = cgutils.unpack_tuple(builder, shape)
        lines = [
            read(builder, scales, builder.add(builder.mul(at, n), block), SCALES)
            for at in rows_at(builder, row, rows)
        ]
        low, high = ([place for i in half for place in (i, 16 + i)] for half in (range(8), range(8, 16)))
        for _ in range(4):  # four interleavings of the first half with the second turn the square
            lines = [
                shuffled(builder, lines[i], lines[i + 8], order) for i in range(8) for order in (low, high)
            ]
        for i, line in enumerate(lines):
            wide = builder.zext(line, WHOLES)
            bits = builder.shl(builder.add(wide, each(WHOLES, 1)), each(WHOLES, 23))
            nan = builder.icmp_unsigned("==", line, each(SCALES, 255))
            bits = builder.select(nan, each(WHOLES, 0x7FC00000), bits)
            at = builder.gep(found, [builder.mul(builder.add(block, row.type(i)), row.type(ROWS))])
            builder.store(bits, builder.bitcast(at, WHOLES.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(scales, found, row, block), emit


@intrinsic
def add(
    typing: Any, blocks: Any, powers: Any, q: Any, less: Any, step: Any, source: Any, total: Any, row: Any,
    first: Any, count: Any,
) -> Any:  # fmt: skip
    """Add the products of sixteen rows with `count` vectors, those that source[first], … name, to `total`.

    blocks: O n 16 uint8; powers: n 16; q, less, step: as `quantize` makes them; total: count 16 float32.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (blocks, powers, q, less, step, source, total), (shape, *_) = arrays(
            context, builder, signature, args, 7
        )
        row, first, count = args[7:]
        number = row.type
        rows, n, _ = cgutils.unpack_tuple(builder, shape)
        plus, times = builder.add, builder.mul
        lookup = named(builder, "llvm.x86.avx512.permvar.qi.512", BYTES, BYTES, BYTES)
        multiply_add = named(builder, "llvm.x86.avx512.vpdpbusd.512", WHOLES, WHOLES, BYTES, BYTES)
        fused = named(builder, "llvm.fma.v16f32", FLOATS, FLOATS, FLOATS, FLOATS)
        prefetch = named(builder, "llvm.prefetch.p0", ir.VoidType(), BYTE.as_pointer(), WHOLE, WHOLE, WHOLE)
        table = ir.Constant(BYTES, SHIFTED * 4)
        starts = [times(at, times(n, number(HALF))) for at in rows_at(builder, row, rows)]
        ahead = plus(starts[-1], times(n, number(HALF)))
        with cgutils.for_range(builder, n, intp=number) as loop:
            block = loop.index
            inside = times(block, number(HALF))
            for line in range(4):  # the next sixteen rows follow these
                at = plus(ahead, plus(times(block, number(16 * HALF)), number(64 * line)))
                builder.call(prefetch, [builder.gep(blocks, [at]), WHOLE(0), WHOLE(2), WHOLE(1)])
            fours = []
            for j in range(4):  # rows j, 4 + j, 8 + j, 12 + j
                pieces = [read(builder, blocks, plus(starts[4 * i + j], inside), PACKED) for i in range(4)]
                low, high = (shuffled(builder, pieces[i], pieces[i + 1], list(range(32))) for i in (0, 2))
                fours.append(builder.bitcast(shuffled(builder, low, high, list(range(64))), WHOLES))
            turned = turn(builder, fours)
            even = [builder.call(lookup, [table, builder.bitcast(one, BYTES)]) for one in turned]
            odd = [
                builder.call(lookup, [table, builder.bitcast(builder.lshr(one, each(WHOLES, 4)), BYTES)])
                for one in turned
            ]
            weights = even + odd
            power = read(builder, powers, times(block, number(ROWS)), FLOATS)
            with cgutils.for_range(builder, count, intp=number) as inner:
                vector = builder.load(builder.gep(source, [plus(first, inner.index)]))
                here = plus(times(vector, n), block)
                offset = spread(builder, builder.load(builder.gep(less, [here])), WHOLES)
                sums = [each(WHOLES, 0)] * (PARTS - 1) + [offset]
                for part in range(PARTS):
                    for i, weight in enumerate(weights):
                        at = plus(times(here, number(PARTS * BLOCK)), number(BLOCK * part + 4 * i))
                        four = spread(builder, read(builder, q, at, WHOLE), WHOLES)
                        sums[part] = builder.call(
                            multiply_add, [sums[part], weight, builder.bitcast(four, BYTES)]
                        )
                whole = sums[0]
                for lower in sums[1:]:
                    whole = plus(builder.shl(whole, each(WHOLES, 8)), lower)
                stepped = builder.fmul(  # before the power, which may be next to subnormal
                    builder.sitofp(whole, FLOATS),
                    spread(builder, builder.load(builder.gep(step, [here])), FLOATS),
                )
                at = builder.gep(total, [times(inner.index, number(ROWS))])
                at = builder.bitcast(at, FLOATS.as_pointer())
                so_far = builder.load(at, align=4)
                builder.store(builder.call(fused, [stepped, power, so_far]), at, align=4)
        return context.get_dummy_value()

    return types.void(blocks, powers, q, less, step, source, total, row, first, count), emit


def turn(builder: Any, fours: list[Any]) -> list[Any]:
    """Turn squares of 4 × 4 words: vector c, place 4l + j takes what vector j has at 4l + c."""

    def woven(a: Any, b: Any, width: int, high: int) -> Any:
        order = []
        for lane in range(0, 16, 4):
            for place in range(lane + 2 * high, lane + 2 * high + 2, width):
                order += [*range(place, place + width), *range(16 + place, 16 + place + width)]
        return shuffled(builder, a, b, order)

    first = [woven(fours[0], fours[1], 1, high) for high in (0, 1)]
    second = [woven(fours[2], fours[3], 1, high) for high in (0, 1)]
    return [woven(a, b, 2, high) for a, b in zip(first, second) for high in (0, 1)]


def put(builder: Any, value: Any, into: Any, at: Any) -> None:
    """Write a vector from into[at] on."""
    builder.store(value, builder.bitcast(builder.gep(into, [at]), value.type.as_pointer()), align=1)


@intrinsic
def quantize_block(typing: Any, x: Any, q: Any, less: Any, step: Any, block: Any) -> Any:
    """Round one block of 32 activations, as `quantize` says."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (x, q, less, step), _ = arrays(context, builder, signature, args, 4)
        block = args[4]
        number = block.type
        values = read(builder, x, builder.mul(block, number(BLOCK)), LINE)
        # as whole numbers floats keep their order, and infinity and NaN come last
        sizes = builder.and_(builder.bitcast(values, WHOLE_LINE), each(WHOLE_LINE, 0x7FFFFFFF))
        largest = builder.call(
            named(builder, "llvm.vector.reduce.umax.v32i32", WHOLE, WHOLE_LINE), [sizes]
        )
        finite = builder.icmp_unsigned("<", largest, WHOLE(INFINITE))
        usable = builder.and_(finite, builder.icmp_unsigned(">", largest, WHOLE(TINY)))
        most = builder.select(usable, builder.bitcast(largest, FLOAT), FLOAT(1.0))
        values = builder.select(usable, values, each(LINE, 0.0))
        values = builder.fmul(values, spread(builder, builder.fdiv(FLOAT(LARGEST), most), LINE))
        whole = builder.call(named(builder, "llvm.rint.v32f32", LINE, LINE), [values])
        whole = builder.fptosi(whole, WHOLE_LINE)
        total = builder.call(named(builder, "llvm.vector.reduce.add.v32i32", WHOLE, WHOLE_LINE), [whole])
        left = shuffled(builder, whole, whole, [*range(0, BLOCK, 2), *range(1, BLOCK, 2)])
        for part in range(PARTS - 1, -1, -1):
            at = builder.add(builder.mul(block, number(PARTS * BLOCK)), number(part * BLOCK))
            low = builder.trunc(left, BYTE_LINE)
            put(builder, low, q, at)
            left = builder.ashr(builder.add(left, each(WHOLE_LINE, 128)), each(WHOLE_LINE, 8))
        builder.store(builder.mul(total, WHOLE(-12)), builder.gep(less, [block]))
        nothing = builder.select(finite, FLOAT(0.0), FLOAT(math.nan))
        found = builder.select(usable, builder.fdiv(most, FLOAT(4.0 * LARGEST)), nothing)
        builder.store(found, builder.gep(step, [block]))
        return context.get_dummy_value()

    return types.void(x, q, less, step, block), emit


@compiled()
def quantize(x: Any, q: Any, less: Any, step: Any) -> None:
    """Round each block of 32 activations to 22 bits, in steps of its largest / 2²¹.

    x: 32n float32. q: n 96 int8: the high bytes of a block's even neighbours, then of its odd ones; then the
    middle bytes; then the low ones. less: n int32, −12 times their sum. step: n float32, times ¼; NaN where a
    block holds NaN or infinity.
    """
    for block in range(len(step)):
        quantize_block(x, q, less, step, block)


@compiled(inline="always")
def sixteen(
    blocks: Any, scales: Any, q: Any, less: Any, step: Any, source: Any, row: Any, first: Any, count: Any
) -> Any:
    """Sixteen rows times `count` vectors → count 16 float32."""
    n = scales.shape[1]
    found, total = np.empty((n, ROWS), np.float32), np.zeros((count, ROWS), np.float32)
    if n >= ROWS:
        for block in range(0, n, ROWS):
            powers(scales, found, row, min(block, n - ROWS))
    else:
        for block in range(n):
            for r in range(ROWS):
                found[block, r] = TWOFOLD[scales[min(row + r, len(scales) - 1), block]]
    add(blocks, found, q, less, step, source, total, row, first, count)
    return total


def biased(context: Any, builder: Any, signature: Any, args: Any) -> tuple[Any, Any, Any]:
    """Sixteen sums, total[vector], with the bfloat16 biases of their rows, which begin at `start`; the
    address of the array that they go to, and its shape. args: total, vector, bias, start, that array, …
    """
    total, bias, into = (
        arrays(context, builder, signature.replace(args=(signature.args[n],)), (args[n],), 1)
        for n in (0, 2, 4)
    )
    vector, start = args[1], args[3]
    sums = read(builder, total[0][0], builder.mul(vector, vector.type(ROWS)), FLOATS)
    bits = builder.zext(read(builder, bias[0][0], start, ir.VectorType(WORD, ROWS)), WHOLES)
    found = builder.fadd(sums, builder.bitcast(builder.shl(bits, each(WHOLES, 16)), FLOATS))
    return found, into[0][0], cgutils.unpack_tuple(builder, into[1][0])


@intrinsic
def put_hidden(
    typing: Any, total: Any, vector: Any, bias: Any, start: Any, hidden: Any, at: Any, row: Any
) -> Any:
    """Gates, the even ones of sixteen sums, to hidden[0, at, row / 2 …]; ups to hidden[1, at, row / 2 …]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found, hidden, (_, rows, width) = biased(context, builder, signature, args)
        at, row = args[5:]
        for part in range(2):
            half = shuffled(builder, found, found, list(range(part, ROWS, 2)))
            line = builder.mul(builder.add(at, builder.mul(rows, at.type(part))), width)
            put(builder, half, hidden, builder.add(line, builder.ashr(row, row.type(1))))
        return context.get_dummy_value()

    return types.void(total, vector, bias, start, hidden, at, row), emit


@intrinsic
def put_answer(
    typing: Any, total: Any, vector: Any, bias: Any, start: Any, out: Any, at: Any, row: Any
) -> Any:
    """Sixteen sums to out[at, row …]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found, out, (_, width) = biased(context, builder, signature, args)
        put(builder, found, out, builder.add(builder.mul(args[5], width), args[6]))
        return context.get_dummy_value()

    return types.void(total, vector, bias, start, out, at, row), emit


@compiled(parallel=True)
def multiply_in_parts(blocks: Any, scales: Any, x: Any, jobs: Any, parts: int, out: Any) -> None:
    """Packed rows times float32 vectors, which are quantized first. Otherwise as `plain.multiply`.

    parts: how many threads share each job's rows.
    """
    height, n = scales.shape[1:]
    q, less = np.empty((len(x), n, PARTS * BLOCK), np.int8), np.empty((len(x), n), np.int32)
    step, source = np.empty((len(x), n), np.float32), np.arange(len(x))
    for row in prange(len(x)):
        quantize(x[row], q[row], less[row], step[row])
    chunks = (height + ROWS - 1) // ROWS
    for part in prange(parts):  # jobs differ in size: each thread takes its share of every one
        for expert, first, count in jobs:
            for chunk in range(chunks * part // parts, chunks * (part + 1) // parts):
                row = chunk * ROWS
                total = sixteen(blocks[expert], scales[expert], q, less, step, source, row, first, count)
                for vector in range(count):
                    for r in range(min(ROWS, height - row)):
                        out[first + vector, row + r] = total[vector, r]


def multiply(blocks: Any, scales: Any, x: Any, jobs: Any, out: Any) -> None:
    """The same, in as many parts as numba has threads."""
    multiply_in_parts(blocks, scales, x, jobs, numba.get_num_threads(), out)


@compiled(parallel=True)
def experts(
    x: Any, source: Any, place: Any, jobs: Any, blocks: Any, scales: Any, bias: Any, down_blocks: Any,
    down_scales: Any, down_bias: Any, limit: Any, alpha: Any, parts: int, out: Any,
) -> None:  # fmt: skip
    """gate and up, clamped SwiGLU and down of gpt-oss's experts, in one call.

    x: T D float32. Row i of the work is token source[i] through an expert; rows of one expert lie together,
    and a job is an expert, its first row, and how many they are. The answer goes to out[place[i]], N D.
    Biases: E O, bfloat16 as their bits.
    """
    (height, n), (width, m) = scales.shape[1:], down_scales.shape[1:]
    q, less = np.empty((len(x), n, PARTS * BLOCK), np.int8), np.empty((len(x), n), np.int32)
    step, hidden = np.empty((len(x), n), np.float32), np.empty((2, len(source), m * BLOCK), np.float32)
    for row in prange(len(x)):
        quantize(x[row], q[row], less[row], step[row])
    limit, alpha = np.float32(limit), np.float32(alpha)
    chunks = (height + ROWS - 1) // ROWS
    for part in prange(parts):
        for expert, first, count in jobs:
            for chunk in range(chunks * part // parts, chunks * (part + 1) // parts):
                row = chunk * ROWS
                total = sixteen(blocks[expert], scales[expert], q, less, step, source, row, first, count)
                for vector in range(count):
                    if height - row >= ROWS:
                        put_hidden(total, vector, bias, expert * height + row, hidden, first + vector, row)
                        continue
                    for r in range(height - row):
                        here = total[vector, r] + wide(bias[expert, row + r])
                        hidden[r % 2, first + vector, (row + r) // 2] = here
    q2, less2 = np.empty((len(source), m, PARTS * BLOCK), np.int8), np.empty((len(source), m), np.int32)
    step2, own = np.empty((len(source), m), np.float32), np.arange(len(source))
    for row in prange(len(source)):
        gates, ups = hidden[0, row], hidden[1, row]
        for i in range(m * BLOCK):
            gates[i] = clamped_swiglu(gates[i], ups[i], limit, alpha)
        quantize(gates, q2[row], less2[row], step2[row])
    chunks2 = (width + ROWS - 1) // ROWS
    for part in prange(parts):
        for expert, first, count in jobs:
            for chunk in range(chunks2 * part // parts, chunks2 * (part + 1) // parts):
                row = chunk * ROWS
                total = sixteen(
                    down_blocks[expert], down_scales[expert], q2, less2, step2, own, row, first, count
                )
                for vector in range(count):
                    at = place[first + vector]
                    if width - row >= ROWS:
                        put_answer(total, vector, down_bias, expert * width + row, out, at, row)
                        continue
                    for r in range(width - row):
                        out[at, row + r] = total[vector, r] + wide(down_bias[expert, row + r])


@compiled()
def mixture_of_one(
    x: Any, choice: Any, weight: Any, blocks: Any, scales: Any, bias: Any, down_blocks: Any, down_scales: Any,
    down_bias: Any, limit: Any, alpha: Any, parts: int, out: Any,
) -> None:  # fmt: skip
    """One token through its experts, and their sum by weight. x, out: 1 D; choice, weight: 1 K; else as
    `experts`."""
    kept = choice.shape[1]
    source, place = np.zeros(kept, np.int64), np.arange(kept)
    jobs, each = np.ones((kept, 3), np.int64), np.empty((kept, out.shape[1]), np.float32)
    for k in range(kept):
        jobs[k, 0], jobs[k, 1] = choice[0, k], k
    experts(
        x, source, place, jobs, blocks, scales, bias, down_blocks, down_scales, down_bias, limit, alpha,
        parts, each,
    )  # fmt: skip
    for i in range(out.shape[1]):
        total = np.float32(0)
        for k in range(kept):
            total += weight[0, k] * each[k, i]
        out[0, i] = total


@intrinsic
def pointer(typing: Any, place: Any) -> Any:
    """An address, given as a whole number."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(place), emit


@compiled(inline="always")
def words(place: Any, shape: Any) -> Any:
    """bfloat16 numbers that lie at an address, as their bits."""
    return carray(pointer(place), shape, np.uint16)


@compiled(inline="always")
def packed(place: Any, shape: Any) -> Any:
    """Bytes that lie at an address."""
    return carray(pointer(place), shape, np.uint8)


@compiled()
def blocks_of_one(
    x: Any, positions: Any, table: Any, sizes: Any, numbers: Any, slots: Any, filled: Any, rings: Any,
    windows: Any, limit: Any, alpha: Any, parts: int, logits: Any, choice: Any, weight: Any,
) -> None:  # fmt: skip
    """One token through all L blocks, in place: x, 1 D, is the residual.

    table: L 23, the addresses of each block's norm, q, k, v, o, their biases, sinks; norm, router, its bias;
    gate and up, their scales and bias; down, its scales and bias; its cache's keys, values and positions; its
    frequencies. (As arrays they would be hundreds, and code to receive each.) A bias or sink that a model
    lacks has address 0. sizes: D, H, G, C, F. numbers: L 3, the concentration and both norms' eps. slots,
    filled, rings, windows: L, where this token goes, how many slots hold something then, how many there are,
    and the window. logits: L E; choice, weight: L K.
    """
    D, H, G, C, F = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    E, n, m = logits.shape[1], D // BLOCK, F // BLOCK
    added, normed = np.empty(x.shape, np.float32), np.empty(x.shape, np.float32)
    for layer in range(len(table)):
        at = table[layer]
        biased = at[5] != 0
        q_bias, kv_bias, o_bias = H * C * biased, G * C * biased, D * biased
        ring, here = (1, G, rings[layer], C), slice(layer, layer + 1)
        attend_one(
            x, positions, words(at[0], (D,)), numbers[layer, 1],
            (words(at[1], (H * C, D)), words(at[2], (G * C, D)), words(at[3], (G * C, D))),
            (words(at[5], (q_bias,)), words(at[6], (kv_bias,)), words(at[7], (kv_bias,))),
            words(at[4], (D, H * C)), words(at[8], (o_bias,)), words(at[9], (H * (at[9] != 0),)),
            carray(pointer(at[22]), (C // 2,), np.float32), numbers[layer, 0],
            carray(pointer(at[19]), ring, np.float32), carray(pointer(at[20]), ring, np.float32),
            carray(pointer(at[21]), (1, ring[2]), np.int64), slots[layer], filled[layer], windows[layer],
            added,
        )  # fmt: skip
        x += added
        route_one(
            x, words(at[10], (D,)), numbers[layer, 2], words(at[11], (E, D)),
            words(at[12], (E * (at[12] != 0),)), normed, logits[here], choice[here], weight[here],
        )  # fmt: skip
        mixture_of_one(
            normed, choice[here], weight[here], packed(at[13], (E, 2 * F, n, HALF)),
            packed(at[14], (E, 2 * F, n)), words(at[15], (E, 2 * F)), packed(at[16], (E, D, m, HALF)),
            packed(at[17], (E, D, m)), words(at[18], (E, D)), limit, alpha, parts, added,
        )  # fmt: skip
        x += added
