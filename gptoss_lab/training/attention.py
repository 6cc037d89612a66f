"""Attention for training: torch's flash kernel on the CPU, with sinks, and bands for the windowed layers.

A sink takes a share of the softmax and holds no value. Where `plain` is ordinary attention, lse = log Σ
exp(scores) and joint = log(exp(lse) + exp(sink)):

    mixed     = plain · sigmoid(lse − sink)
    pattern_s = exp(score_s − joint)
    d score_s = pattern_s (d mixed · v_s − d mixed · mixed)
    d sink    = −exp(sink − joint) d mixed · mixed              one more score, whose value is zero

so the flash kernel's own backward pass, handed `joint` for lse and `mixed` for its output, gives dq, dk and
dv.

A layer with a window of w is cut into blocks of w queries; a block sees itself and the one before: 2w keys,
not T. Where the pattern is to lose parts (dropout), it is made explicitly, a block of queries at a time.
Agrees with `model.attention.attend`, values and gradients (a test), in a fraction of its time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.attention import attend, attend_fused
from ..tap import SILENT, Tap

ROWS = 64  # queries at a time, where the pattern is made
KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class Sunk(torch.autograd.Function):
    """Flash attention with a sink. q: B H T C; k, v: B H S C; sink: B H T; mask: B 1 T S, added; None:
    causal."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sink: Tensor, mask: Tensor | None) -> Tensor:
        """→ B H T C."""
        plain, lse = KERNEL(q, k, v, 0.0, mask is None, attn_mask=mask)
        mixed = plain * torch.sigmoid(lse - sink)[..., None]
        ctx.save_for_backward(q, k, v, mixed, torch.logaddexp(lse, sink), sink)
        ctx.mask = mask
        return mixed

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        """The equations at the top of this file."""
        (d_mixed,), (q, k, v, mixed, joint, sink) = given, ctx.saved_tensors
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        d_q, d_k, d_v = backward(d_mixed, q, k, v, mixed, joint, 0.0, ctx.mask is None, attn_mask=ctx.mask)
        return d_q, d_k, d_v, -(d_mixed * mixed).sum(-1) * (sink - joint).exp(), None


def attend_in_blocks(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, sink: Tensor | None, dropout: float, window: int | None
) -> Tensor:  # fmt: skip
    """The explicit form for `ROWS` queries at a time and the keys that they may see: the only one here that
    drops parts of the pattern."""
    found = []
    for start in range(0, q.shape[1], ROWS):
        rows, first = slice(start, start + ROWS), 0 if window is None else max(0, start - window + 1)
        keys = slice(first, start + ROWS)
        here = None if sink is None else sink[:, :, rows]
        found.append(attend(q[:, rows], k[:, keys], v[:, keys], seen[:, rows, keys], here, dropout=dropout))
    return torch.cat(found, dim=1)


def attend_causal(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, sink: Tensor | None = None, tap: Tap = SILENT,
    dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """`attend` for rows that begin at position 0, without window, cache or padding: `seen` is read for
    dropout alone."""
    if any(tap.wants(name) for name in ("scores", "pattern", "sink")):
        return attend(q, k, v, seen, sink, tap, dropout)
    if dropout:
        return attend_in_blocks(q, k, v, seen, sink, dropout, None)
    if sink is not None and q.device.type != "cpu":
        return attend_fused(q, k, v, seen, sink, tap, dropout)
    shared = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(shared, dim=2), v.repeat_interleave(shared, dim=2)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if sink is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    return Sunk.apply(q, k, v, sink, None).transpose(1, 2)


def attend_banded(window: int) -> Callable[..., Tensor]:
    """`attend_causal` for a layer with this window, of which each query's own key is one."""
    query, key = torch.arange(window)[:, None], torch.arange(2 * window) - window
    inside = (key <= query) & (query - key < window)

    def band(
        q: Tensor, k: Tensor, v: Tensor, seen: Tensor, sink: Tensor | None = None, tap: Tap = SILENT,
        dropout: float = 0.0,
    ) -> Tensor:  # fmt: skip
        wanted = any(tap.wants(name) for name in ("scores", "pattern", "sink"))
        if dropout and not wanted:
            return attend_in_blocks(q, k, v, seen, sink, dropout, window)
        if wanted or sink is None or q.device.type != "cpu":
            return attend_fused(q, k, v, seen, sink, tap, dropout)
        (B, T, H, C), R = q.shape, q.shape[2] // k.shape[2]
        fill = -T % window
        n = (T + fill) // window

        def blocks(x: Tensor) -> Tensor:  # B T G C → B n G w C
            return F.pad(x, (0, 0, 0, 0, 0, fill)).unflatten(1, (n, window)).transpose(2, 3)

        def with_previous(x: Tensor) -> Tensor:  # B T G C → Bn H 2w C
            own = blocks(x)
            both = torch.cat((F.pad(own, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1], own), dim=3)
            return both.repeat_interleave(R, dim=2).flatten(0, 1)

        allowed = inside.expand(n, -1, -1).clone()
        allowed[0] &= key >= 0  # before the first block there is nothing
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, -math.inf).repeat(B, 1, 1)[:, None]
        sinks = F.pad(sink, (0, fill)).unflatten(2, (n, window)).transpose(1, 2).flatten(0, 1)  # Bn H w
        mixed = Sunk.apply(blocks(q).flatten(0, 1), with_previous(k), with_previous(v), sinks, mask)
        return mixed.unflatten(0, (B, n)).transpose(2, 3).reshape(B, T + fill, H, C)[:, :T]

    return band
