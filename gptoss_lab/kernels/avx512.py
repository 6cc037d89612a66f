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
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .emit import BYTE, FLOAT, WHOLE, arrays, each, named, read, spread
from .plain import BLOCK, HALF, TWOFOLD, as_float, clamped_swiglu, compiled, wide
from .single import attend_one, route_one

ROWS, PARTS = 16, 3  # rows beside one another; bytes of a whole number
LARGEST = 1 << 21  # the largest whole number
TINY = (127 - 100) << 23  # 2^−100 in its bits: a block whose largest activation is no larger counts as zeros
INFINITE = 0xFF << 23  # infinity in its bits
SHIFTED = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0]  # nibble → 12 + 2 · value

PACKED, BYTES = ir.VectorType(BYTE, 16), ir.VectorType(BYTE, 64)
WHOLES, FLOATS = ir.VectorType(WHOLE, 16), ir.VectorType(FLOAT, 16)
SCALES = ir.VectorType(BYTE, 16)


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


@compiled()
def quantize(x: Any, q: Any, less: Any, step: Any) -> None:
    """Round each block of 32 activations to 22 bits, in steps of its largest / 2²¹.

    x: 32n float32. q: n 96 int8: the high bytes of a block's even neighbours, then of its odd ones; then the
    middle bytes; then the low ones. less: n int32, −12 times their sum. step: n float32, times ¼; NaN where a
    block holds NaN or infinity.
    """
    whole, bits = np.empty(BLOCK, np.int32), x.view(np.int32)
    for block in range(len(step)):
        start, largest = block * BLOCK, np.int32(0)
        for i in range(BLOCK):  # as whole numbers floats keep their order, and infinity and NaN come last
            largest = max(largest, bits[start + i] & np.int32(0x7FFFFFFF))
        most, usable = as_float(np.uint32(largest)), TINY < largest < INFINITE
        times, total = np.float32(LARGEST) / most if usable else np.float32(0), np.int32(0)
        for i in range(BLOCK):
            whole[i] = np.int32(np.rint(x[start + i] * times)) if usable else np.int32(0)
        for i in range(BLOCK):
            total += whole[i]
        for part in range(PARTS - 1, -1, -1):
            at = part * BLOCK
            for i in range(HALF):
                q[block, at + i] = np.int8(whole[2 * i])
                q[block, at + HALF + i] = np.int8(whole[2 * i + 1])
            for i in range(BLOCK):  # less the low byte, as int8 reads it
                whole[i] = (whole[i] + np.int32(128)) >> np.int32(8)
        less[block] = -12 * total
        nothing = np.float32(math.nan) if largest >= INFINITE else np.float32(0)
        step[block] = most / np.float32(4 * LARGEST) if usable else nothing


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
                    for r in range(min(ROWS, height - row)):
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
                    for r in range(min(ROWS, width - row)):
                        out[place[first + vector], row + r] = total[vector, r] + wide(
                            down_bias[expert, row + r]
                        )


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


@compiled()
def blocks_of_one(
    x: Any, positions: Any, attention: Any, frequencies: Any, concentration: float, eps: float, caches: Any,
    slots: Any, filled: Any, windows: Any, routers: Any, stacks: Any, limit: Any, alpha: Any, parts: int,
    logits: Any, choice: Any, weight: Any,
) -> None:  # fmt: skip
    """One token through all L blocks, in place: x, 1 D, is the residual.

    attention: of each block norm, q, k, v, o, their biases, and sinks, as `single.attend_one` takes them;
    caches: keys, values and positions; routers: norm, router and bias; stacks: as `mixture_of_one` takes
    them. Each of these holds one tuple of L arrays for every kind. slots, filled, windows: L; logits: L E;
    choice, weight: L K.
    """
    norms, qs, ks, vs, os, q_biases, k_biases, v_biases, o_biases, sinks = attention
    keys, values, held = caches
    scales, gates, gate_biases = routers
    first, first_scales, first_bias, down, down_scales, down_bias = stacks
    added, normed = np.empty(x.shape, np.float32), np.empty(x.shape, np.float32)
    for n in range(len(slots)):
        attend_one(
            x, positions, norms[n], eps, (qs[n], ks[n], vs[n]), (q_biases[n], k_biases[n], v_biases[n]),
            os[n], o_biases[n], sinks[n], frequencies, concentration, keys[n], values[n], held[n], slots[n],
            filled[n], windows[n], added,
        )  # fmt: skip
        x += added
        here = slice(n, n + 1)
        route_one(
            x, scales[n], eps, gates[n], gate_biases[n], normed, logits[here], choice[here], weight[here]
        )
        mixture_of_one(
            normed, choice[here], weight[here], first[n], first_scales[n], first_bias[n], down[n],
            down_scales[n], down_bias[n], limit, alpha, parts, added,
        )  # fmt: skip
        x += added
