"""Attention in one call, for one query or many: keys and values are read as they lie, and no scores are kept.

Eight rows that share a key/value head go together: the query heads of a token, then those of the next.
Vectors of 16 float32 are written out in LLVM's language, which splits them where a processor has shorter
ones, so that this runs everywhere.

numba keeps what it compiles until this file changes, and looks at no other: touch it when `emit` or `plain`
changes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .emit import FLOAT, WHOLE, arrays, each, named, read, spread
from .plain import compiled

HEADS, LANES = 8, 16
FLOATS = ir.VectorType(FLOAT, LANES)


@intrinsic
def match(typing: Any, q: Any, k: Any, key: Any, apart: Any, keys: Any, scores: Any) -> Any:
    """q · k of eight heads with the keys `key` and key + 1 → scores[key] and scores[key + 1], 8 each.

    q: 8 C; k: the first key's vector, the others `apart` numbers further on each; keys: how many there are.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        q, k, key, apart, keys, scores = args
        (q, k), (shape, _) = arrays(context, builder, signature, (q, k), 2)
        (scores,), _ = arrays(context, builder, signature.replace(args=signature.args[5:]), (scores,), 1)
        number = key.type
        width = cgutils.unpack_tuple(builder, shape)[1]
        fused = named(builder, "llvm.fma.v16f32", FLOATS, FLOATS, FLOATS, FLOATS)
        sums = [cgutils.alloca_once_value(builder, each(FLOATS, 0)) for _ in range(2 * HEADS)]
        second = builder.add(key, number(1))
        second = builder.select(builder.icmp_signed("<", second, keys), second, key)
        starts = [builder.mul(at, apart) for at in (key, second)]
        with cgutils.for_range_slice(builder, number(0), width, number(LANES), intp=number) as (c, _):
            at = [builder.add(builder.mul(number(r), width), c) for r in range(HEADS)]
            heads = [read(builder, q, one, FLOATS) for one in at]
            for n, start in enumerate(starts):
                line = read(builder, k, builder.add(start, c), FLOATS)
                for head, total in zip(heads, sums[n * HEADS :]):
                    builder.store(builder.call(fused, [head, line, builder.load(total)]), total)
        rows = [builder.load(total) for total in sums]
        while len(rows) > 1:  # neighbours are added, of two vectors together
            rows = [
                builder.fadd(*(builder.shuffle_vector(a, b, places(start)) for start in (0, 1)))
                for a, b in zip(rows[::2], rows[1::2])
            ]
        at = builder.gep(scores, [builder.mul(key, number(HEADS))])
        builder.store(rows[0], builder.bitcast(at, FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(q, k, key, apart, keys, scores), emit


def places(start: int) -> ir.Constant:
    """Every second place of two vectors."""
    return ir.Constant(ir.VectorType(WHOLE, LANES), list(range(start, 2 * LANES, 2)))


@intrinsic
def mix(typing: Any, shares: Any, v: Any, channel: Any, apart: Any, keys: Any, mixed: Any) -> Any:
    """Σ share · v of eight heads over all keys, 16 channels from `channel` on; mixed: 8 C."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shares, v, channel, apart, keys, mixed = args
        (shares, v), _ = arrays(context, builder, signature, (shares, v), 2)
        (mixed,), (shape,) = arrays(context, builder, signature.replace(args=signature.args[5:]), (mixed,), 1)
        number = channel.type
        width = cgutils.unpack_tuple(builder, shape)[1]
        fused = named(builder, "llvm.fma.v16f32", FLOATS, FLOATS, FLOATS, FLOATS)
        sums = [cgutils.alloca_once_value(builder, each(FLOATS, 0)) for _ in range(HEADS)]
        with cgutils.for_range(builder, keys, intp=number) as loop:
            line = read(builder, v, builder.add(builder.mul(loop.index, apart), channel), FLOATS)
            for r, total in enumerate(sums):
                at = builder.add(builder.mul(loop.index, number(HEADS)), number(r))
                share = spread(builder, builder.load(builder.gep(shares, [at])), FLOATS)
                builder.store(builder.call(fused, [share, line, builder.load(total)]), total)
        for r, total in enumerate(sums):
            at = builder.gep(mixed, [builder.add(builder.mul(number(r), width), channel)])
            builder.store(builder.load(total), builder.bitcast(at, FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(shares, v, channel, apart, keys, mixed), emit


def exponentials(builder: Any, x: Any) -> Any:
    """`plain.exponential` of 16 numbers; NaN stays NaN."""
    fused = named(builder, "llvm.fma.v16f32", FLOATS, FLOATS, FLOATS, FLOATS)
    rounded = named(builder, "llvm.rint.v16f32", FLOATS, FLOATS)
    low = each(FLOATS, -87.0)
    x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
    n = builder.call(rounded, [builder.fmul(x, each(FLOATS, 1.4426950408889634))])
    r = builder.call(fused, [n, each(FLOATS, -0.693359375), x])
    r = builder.call(fused, [n, each(FLOATS, 2.12194440e-4), r])
    e = each(FLOATS, 1 / 5040)
    for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        e = builder.call(fused, [e, r, each(FLOATS, factor)])
    wholes = ir.VectorType(WHOLE, LANES)
    bits = builder.shl(builder.add(builder.fptosi(n, wholes), each(wholes, 127)), each(wholes, 23))
    return builder.fmul(e, builder.bitcast(bits, FLOATS))


@intrinsic
def weigh(typing: Any, scores: Any, pairs: Any, sink: Any, total: Any) -> Any:
    """Softmax over keys and sink: scores, in place, become what is to be divided by `total`, 8 float32.

    scores: 2 · pairs, 8; sink: 8 logits; −infinity where a key is not seen, or there is no sink.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scores, pairs, sink, total = args
        (scores,), _ = arrays(context, builder, signature, (scores,), 1)
        rest = signature.replace(args=signature.args[2:])
        (sink, total), _ = arrays(context, builder, rest, (sink, total), 2)
        eight = ir.VectorType(FLOAT, HEADS)
        nothing, zero = each(FLOATS, -math.inf), each(FLOATS, 0.0)
        twice = ir.Constant(ir.VectorType(WHOLE, LANES), list(range(HEADS)) * 2)
        swapped = ir.Constant(ir.VectorType(WHOLE, LANES), [*range(HEADS, LANES), *range(HEADS)])
        first = read(builder, sink, pairs.type(0), eight)
        first = builder.shuffle_vector(first, first, twice)
        most = cgutils.alloca_once_value(builder, first)

        def larger(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def line(loop: Any) -> Any:
            at = builder.gep(scores, [builder.mul(loop.index, pairs.type(LANES))])
            return builder.bitcast(at, FLOATS.as_pointer())

        with cgutils.for_range(builder, pairs, intp=pairs.type) as loop:
            builder.store(larger(builder.load(line(loop), align=4), builder.load(most)), most)
        both = builder.load(most)
        both = larger(both, builder.shuffle_vector(both, both, swapped))
        both = builder.select(builder.fcmp_ordered("==", both, nothing), zero, both)
        gone = builder.fcmp_ordered("==", first, nothing)
        sums = cgutils.alloca_once_value(
            builder, builder.select(gone, zero, exponentials(builder, builder.fsub(first, both)))
        )
        once = ir.Constant(ir.VectorType(WHOLE, LANES), [*range(HEADS)] + HEADS * [LANES])
        builder.store(builder.shuffle_vector(builder.load(sums), zero, once), sums)
        with cgutils.for_range(builder, pairs, intp=pairs.type) as loop:
            score = builder.load(line(loop), align=4)
            share = exponentials(builder, builder.fsub(score, both))
            share = builder.select(builder.fcmp_ordered("==", score, nothing), zero, share)
            builder.store(share, line(loop), align=4)
            builder.store(builder.fadd(builder.load(sums), share), sums)
        both = builder.load(sums)
        both = builder.fadd(both, builder.shuffle_vector(both, both, swapped))
        half = ir.Constant(ir.VectorType(WHOLE, HEADS), list(range(HEADS)))
        at = builder.bitcast(total, eight.as_pointer())
        builder.store(builder.shuffle_vector(both, both, half), at, align=4)
        return context.get_dummy_value()

    return types.void(scores, pairs, sink, total), emit


@compiled()
def span(seen: Any) -> tuple[int, int]:
    """The first key that is seen, and one past the last; 0 and 0 where none is."""
    low, high = 0, len(seen)
    while low < high and not seen[low]:
        low += 1
    while high > low and not seen[high - 1]:
        high -= 1
    return (low, high) if low < high else (0, 0)


@compiled()
def hide(scores: Any, seen: Any, shared: int, start: int, low: int) -> None:
    """Where a row's query does not see a key, its score becomes −infinity.

    scores: keys 8, from the key `low` on, of the rows from `start` on, `shared` to a token; seen: T S.
    """
    nothing, row, keys = np.float32(-math.inf), 0, len(scores)
    while row < HEADS:
        token = (start + row) // shared
        end = min(HEADS, (token + 1) * shared - start)
        if token < len(seen):
            mine, count = seen[token, low : low + keys], 0
            one, other = span(mine)
            for key in range(one, other):
                count += mine[key]
            gaps = count < other - one
            for key in range(keys if gaps else one):
                if not mine[key]:
                    for r in range(row, end):
                        scores[key, r] = nothing
            for key in range(keys if gaps else other, keys):
                for r in range(row, end):
                    scores[key, r] = nothing
        row = end


@compiled(parallel=True)
def attend(q: Any, k: Any, v: Any, seen: Any, sinks: Any, out: Any) -> None:
    """As `model.attention.attend`. C is a multiple of 16.

    q: B T H C; k, v: B S G C, the C of a head lying together; seen: B T S; sinks: B H T, or of length 0;
    out: B T H C. Keys that none of eight rows sees, at either end, are left out.
    """
    batch, tokens, heads, width = q.shape
    groups = k.shape[2]
    shared = heads // groups
    scale, nothing = np.float32(1 / math.sqrt(width)), np.float32(-math.inf)
    eights = (tokens * shared + HEADS - 1) // HEADS  # rows of a group: the heads of a token, then the next's
    for job in prange(batch * groups * eights):
        b, g, start = job // (groups * eights), job // eights % groups, job % eights * HEADS
        count = min(HEADS, tokens * shared - start)
        mine, sink = np.empty((HEADS, width), np.float32), np.full(HEADS, nothing)
        token, first, last = np.empty(HEADS, np.int64), start // shared, (start + count - 1) // shared
        for r in range(HEADS):
            row = start + min(r, count - 1)
            token[r], head = row // shared, g * shared + row % shared
            for c in range(width):
                mine[r, c] = q[b, token[r], head, c] * scale
            if len(sinks):
                sink[r] = sinks[b, head, token[r]]
        low, high = span(seen[b, first])
        for t in range(first + 1, last + 1):
            one, other = span(seen[b, t])
            if one < other:
                low, high = (min(low, one), max(high, other)) if low < high else (one, other)
        keys, pairs = high - low, (high - low + 1) // 2
        scores, mixed = np.empty((2 * pairs, HEADS), np.float32), np.zeros((HEADS, width), np.float32)
        total = np.zeros(HEADS, np.float32)
        if keys:
            for key in range(0, keys, 2):
                match(mine, k[b, low, g], key, k.strides[1] // 4, keys, scores)
            scores[keys:] = nothing
            hide(scores[:keys], seen[b], shared, start, low)
            weigh(scores, pairs, sink, total)
            for channel in range(0, width, LANES):
                mix(scores, v[b, low, g], channel, v.strides[1] // 4, keys, mixed)
        for r in range(count):
            for c in range(width):
                share = mixed[r, c] / total[r] if total[r] != 0 else np.float32(0)
                out[b, token[r], g * shared + (start + r) % shared, c] = share
