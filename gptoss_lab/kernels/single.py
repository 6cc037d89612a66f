"""One token through half a block in one call: what lies between the large products costs no call of its own.

    attend_one   norm, q, k and v, RoPE, a row of the cache, attention, o
    route_one    norm, the router, the K largest logits, their softmax

A small operation of torch takes little more than it takes to call it; but sixty of them a layer, each finding
the processor's caches full of weights, take a fifth of a token of gpt-oss-20b. The products are those of
`plain` and `decoding`; norms, angles and the router are float32, as in the model.

numba keeps what it compiles until this file changes, and looks at no other: touch it when `plain`, `decoding`
or `emit` changes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .decoding import attend
from .plain import compiled, dense, wide


@compiled(fastmath={"reassoc", "contract"})
def normalize(x: Any, scale: Any, eps: Any, out: Any) -> None:
    """RMSNorm of one vector, as `model.norm.rms_norm`: x, out: D; scale: D, bfloat16 as its bits."""
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i] * x[i]
    size = np.float32(1) / np.sqrt(total / np.float32(len(x)) + np.float32(eps))
    for i in range(len(x)):
        out[i] = x[i] * size * wide(scale[i])


@compiled()
def turn(head: Any, cos: Any, sin: Any, out: Any) -> None:
    """RoPE of one head, as `model.rope.rotate`: head, out: C; cos, sin: C/2."""
    half = len(cos)
    for i in range(half):
        first, second = head[i], head[half + i]
        out[i] = first * cos[i] - second * sin[i]
        out[half + i] = second * cos[i] + first * sin[i]


@compiled()
def attend_one(
    x: Any, positions: Any, scale: Any, eps: float, weights: Any, biases: Any, o: Any, o_bias: Any,
    sinks: Any, frequencies: Any, concentration: float, k: Any, v: Any, held: Any, slot: int, filled: int,
    window: int, out: Any,
) -> None:  # fmt: skip
    """A token through attention, as `model.attention.Attention`, and into the cache.

    x, out: 1 D; positions: 1 1; scale: D; weights, biases: of q, k and v; sinks: H, or of length 0;
    frequencies: C/2; k, v: 1 G S C and held: 1 S, the cache with the positions of its keys, of which
    `filled` count when `slot` has been written; window: 0 for none. Weights are bfloat16, as their bits.
    """
    groups, width = k.shape[1], k.shape[3]
    heads = o.shape[1] // width
    normed, joined = np.empty(x.shape, np.float32), np.empty((1, (heads + 2 * groups) * width), np.float32)
    normalize(x[0], scale, eps, normed[0])
    dense(weights, biases, normed, joined)
    position, many = positions[0, 0], np.float32(concentration)
    cos, sin = np.empty(width // 2, np.float32), np.empty(width // 2, np.float32)
    for i in range(width // 2):
        angle = np.float32(position) * frequencies[i]
        cos[i], sin[i] = np.float32(math.cos(angle)) * many, np.float32(math.sin(angle)) * many
    q = np.empty((1, 1, heads, width), np.float32)
    for head in range(heads):
        turn(joined[0, head * width : (head + 1) * width], cos, sin, q[0, 0, head])
    for group in range(groups):
        start = (heads + group) * width
        turn(joined[0, start : start + width], cos, sin, k[0, group, slot])
        start += groups * width
        for i in range(width):
            v[0, group, slot, i] = joined[0, start + i]
    held[0, slot] = position
    seen, sink = np.empty((1, 1, filled), np.bool_), np.empty((min(1, len(sinks)), len(sinks), 1), np.float32)
    for key in range(filled):
        apart = position - held[0, key]
        seen[0, 0, key] = held[0, key] >= 0 and apart >= 0 and (window == 0 or apart < window)
    for head in range(len(sinks)):
        sink[0, head, 0] = wide(sinks[head])
    mixed = np.empty((1, 1, heads, width), np.float32)
    shown = slice(0, filled)
    attend(q, k.transpose(0, 2, 1, 3)[:, shown], v.transpose(0, 2, 1, 3)[:, shown], seen, sink, mixed)
    dense((o,), (o_bias,), mixed.reshape((1, heads * width)), out)


@compiled()
def route_one(
    x: Any, scale: Any, eps: float, router: Any, bias: Any, normed: Any, logits: Any, choice: Any, weight: Any
) -> None:
    """A token's experts, as `model.experts.Experts` chooses them.

    x, normed: 1 D; scale: D; router: E D; bias: E; logits: 1 E; choice, weight: 1 K. Of equal logits the
    first is taken, and NaN before all others.
    """
    normalize(x[0], scale, eps, normed[0])
    dense((router,), (bias,), normed, logits)
    for k in range(choice.shape[1]):
        best = -1
        for e in range(logits.shape[1]):
            taken = False
            for before in range(k):
                taken |= choice[0, before] == e
            if taken:
                continue
            if best < 0 or not (math.isnan(logits[0, best]) or logits[0, e] <= logits[0, best]):
                best = e
        choice[0, k] = best
        weight[0, k] = logits[0, best]
    largest, total = weight[0, 0], np.float32(0)
    for k in range(choice.shape[1]):
        weight[0, k] = np.exp(weight[0, k] - largest)
        total += weight[0, k]
    for k in range(choice.shape[1]):
        weight[0, k] /= total
