"""Attention: every token asks (q) all tokens it may see (k) and takes the average of what they hold (v).

    scores  = q·k / √C                 query head h uses key/value head h // (H/G)
    pattern = softmax(scores, sink)    the sink is one learned logit a head: it takes its share, has no value
    mixed   = Σ pattern · v            gpt-oss: a window of 128 keys in every second layer

Grouped queries: arXiv 2305.13245; sinks: arXiv 2309.17453; all of it in gpt-oss: arXiv 2508.10925. Agrees
with transformers' GptOssAttention, GPT2Attention and Qwen3MoeAttention.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Config
from ..tap import SILENT, Tap
from .cache import LayerCache
from .linear import Linear
from .norm import make_norm
from .rope import concentration, frequencies, rotate


def visible(query: Tensor, key: Tensor, window: int | None = None) -> Tensor:
    """Which keys each query may see.

    query: B T positions; key: B S positions, -1 where there is nothing. Returns B T S, True where seen.
    `window` counts the query itself: window=1 sees only its own position (gpt-oss: 128).
    """
    q, k = query[:, :, None], key[:, None, :]
    seen = (k >= 0) & (q >= k)
    return seen if window is None else seen & (q - k < window)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    sink: Tensor | None = None,
    tap: Tap = SILENT,
    dropout: float = 0.0,
) -> Tensor:
    """Attention in its explicit form, the only one that makes a pattern; float32 inside.

    q: B T H C; k, v: B S G C; seen: B T S; sink: B H T logits, or None → B T H C. A row that sees nothing
    gives zeros.
    """
    shared = q.shape[2] // k.shape[2]  # R = H/G query heads to each key/value head
    k, v = k.repeat_interleave(shared, dim=2), v.repeat_interleave(shared, dim=2)
    scores = torch.einsum("bthc,bshc->bhts", q.float(), k.float()) / math.sqrt(q.shape[-1])
    scores = tap("scores", scores.masked_fill(~seen[:, None], -math.inf))
    joint = scores
    if sink is not None:
        joint = torch.cat((scores, sink[..., None].float()), dim=-1)  # B H T S+1: the sink joins
    share = joint.softmax(-1).masked_fill(joint == -math.inf, 0.0)
    pattern = tap("pattern", share[..., : k.shape[1]])  # the sink's column is dropped: it has no value
    if sink is not None and tap.wants("sink"):
        tap("sink", share[..., -1])
    pattern = F.dropout(pattern, dropout, training=dropout > 0)
    return torch.einsum("bhts,bshc->bthc", pattern, v.float()).to(q.dtype)


def attend_fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    sink: Tensor | None = None,
    tap: Tap = SILENT,
    dropout: float = 0.0,
) -> Tensor:
    """The same through torch's fused kernel; where the tap wants scores, pattern or sink, the explicit form.

    The sink enters as one more key, of zeros, whose mask entry is its logit and whose value is zero.
    """
    if tap.wants("scores") or tap.wants("pattern") or tap.wants("sink"):
        return attend(q, k, v, seen, sink, tap, dropout)
    shared = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(shared, dim=2), v.repeat_interleave(shared, dim=2)
    mask = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill(~seen, -math.inf)[
        :, None
    ]  # B 1 T S
    if sink is not None:
        mask = torch.cat((mask.expand(-1, q.shape[2], -1, -1), sink[..., None].to(q.dtype)), dim=-1)
        k, v = F.pad(k, (0, 0, 0, 0, 0, 1)), F.pad(v, (0, 0, 0, 0, 0, 1))
    mixed = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, dropout_p=dropout
    ).transpose(1, 2)
    return mixed if sink is not None else mixed.masked_fill(~seen.any(-1)[:, :, None, None], 0.0)


class Attention(nn.Module):
    """One layer of attention with its norm. `attend` and `project` are seams, for faster forms."""

    frequencies: Tensor

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.config, self.window, self.attend = config, config.windows[layer], attend
        width, C = config.d_model, config.d_head
        self.norm = make_norm(config.norm, width, config.norm_eps)
        self.q = Linear(width, config.n_heads * C, config.bias)
        self.k = Linear(width, config.n_kv_heads * C, config.bias)
        self.v = Linear(width, config.n_kv_heads * C, config.bias)
        self.o = Linear(config.n_heads * C, width, config.bias)
        if config.qk_norm:
            self.q_norm, self.k_norm = (
                make_norm("rms", C, config.norm_eps),
                make_norm("rms", C, config.norm_eps),
            )
        if config.sinks:
            self.sinks = nn.Parameter(torch.empty(config.n_heads))
        if config.positions == "rope":
            self.concentration = concentration(config.yarn)
            self.register_buffer(
                "frequencies", frequencies(C, config.rope_theta, config.yarn), persistent=False
            )

    def forward(
        self, x: Tensor, positions: Tensor, cache: LayerCache | None = None, tap: Tap = SILENT
    ) -> Tensor:
        """x: B T D, positions: B T → B T D, what attention adds to the residual."""
        x = tap("norm", self.norm(x))
        q, k, v = (y.unflatten(-1, (-1, self.config.d_head)) for y in self.project(x))
        q, k, v = tap("q", q), tap("k", k), tap("v", v)  # B T H C, B T G C, B T G C
        if self.config.qk_norm:
            q, k = tap("q_normed", self.q_norm(q)), tap("k_normed", self.k_norm(k))
        if self.config.positions == "rope":
            heads = torch.cat((q, k), dim=2)  # both turn by the same angles
            heads = rotate(heads, positions, self.frequencies, self.concentration)
            q, k = heads.split([q.shape[2], k.shape[2]], dim=2)
            q, k = tap("q_rotated", q), tap("k_rotated", k)
        k, v, key_positions = (k, v, positions) if cache is None else cache.extend(k, v, positions)
        tap = tap.at(keys=key_positions)
        seen = tap("visible", visible(positions, key_positions, self.window))  # B T S
        sink = None
        if self.config.sinks:
            sink = tap(
                "sink_logit", self.sinks.float()[None, :, None].expand(x.shape[0], -1, x.shape[1])
            )  # B H T
        dropout = self.config.dropout if self.training else 0.0
        mixed = tap("mixed", self.attend(q, k, v, seen, sink, tap, dropout))
        return tap("out", self.o(mixed.flatten(-2)))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of the normed residual, heads side by side: B T D → B T HC, B T GC, B T GC."""
        return self.q(x), self.k(x), self.v(x)
