"""Fast forms for the model's seams: `project` and `attend` of attention, `answers` of experts.

Each stands on one module and takes over where it can: on the CPU, without gradients. Where a tap wants what
lies within (scores, gate, up, …), the explicit form runs in that layer.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..cost import SCORES
from ..model.attention import Attention, attend, attend_fused
from ..model.experts import Experts
from ..tap import SILENT, Tap
from .forms import TorchForm
from .holders import FastLinear, FastStack, here

INSIDE_ATTENTION = ("scores", "pattern", "sink")
INSIDE_EXPERTS = ("gate", "up", "act", "pre")


class Project:
    """q, k and v in one call."""

    def __init__(self, attention: Attention) -> None:
        self.attention = attention

    def on(self, attention: Attention) -> Project:
        """The same, for another module that holds these weights."""
        return Project(attention)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Attention.project`."""
        lines = [self.attention.q, self.attention.k, self.attention.v]
        chosen = getattr(lines[0], "form", None)
        rows, weights = x.shape[:-1].numel(), [line.weight for line in lines]
        usable = all(isinstance(line, FastLinear) and line.readable for line in lines)
        if not (chosen and usable and 0 < rows <= chosen.few_dense and all(here(x, w) for w in weights)):
            return Attention.project(self.attention, x)
        flat = x.reshape(rows, -1).float()
        y = chosen.dense([line.weight for line in lines], [line.bias for line in lines], flat)
        q, k, v = y.unflatten(0, x.shape[:-1]).split([len(line.weight) for line in lines], dim=-1)
        return q, k, v


class Attend:
    """Attention that never holds more than some scores: a kernel where there is one, else in parts."""

    def __init__(self, chosen: TorchForm) -> None:
        self.form = chosen

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        seen: Tensor,
        sink: Tensor | None = None,
        tap: Tap = SILENT,
        dropout: float = 0.0,
    ) -> Tensor:
        """As `model.attention.attend`."""
        if any(tap.wants(name) for name in INSIDE_ATTENTION):
            return attend(q, k, v, seen, sink, tap, dropout)
        asked = any(one is not None and one.requires_grad for one in (q, k, v, sink))
        if dropout or asked and torch.is_grad_enabled():
            return attend_fused(q, k, v, seen, sink, tap, dropout)
        few = q.device.type == "cpu" and q.shape[1] <= self.form.few_queries and q.shape[-1] % 16 == 0
        plain = q.dtype == k.dtype == v.dtype == torch.float32 and k.stride(-1) == v.stride(-1) == 1
        if few and plain:
            return self.form.attend(q, by_heads(k), by_heads(v), seen, sink)
        return attend_by_parts(q, k, v, seen, sink)


def by_heads(x: Tensor) -> Tensor:
    """Keys or values, B S G C, a head's lying together, as caches keep them: for each way they may lie the
    kernel is compiled anew."""
    return x.transpose(1, 2).contiguous().transpose(1, 2) if x.is_contiguous() else x


def attend_by_parts(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, sink: Tensor | None = None) -> Tensor:
    """As `model.attention.attend`, some queries at a time, k and v as they are: no more than SCORES scores.

    A key that none of these queries may see, at either end, is left out: windows cost what they show.
    """
    B, T, H, C = q.shape
    G = k.shape[2]
    k, v = k.float().permute(0, 2, 3, 1), v.float().transpose(1, 2)  # B G C S, B G S C
    parts, start = [], 0
    while start < T:
        end = min(T, start + max(1, SCORES // max(1, B * H * k.shape[-1])))
        part = seen[:, start:end]
        shown = part.flatten(0, 1).any(0).nonzero()
        low, high = (int(shown[0]), int(shown[-1]) + 1) if len(shown) else (0, min(1, k.shape[-1]))
        rows = (q[:, start:end].float() / math.sqrt(C)).unflatten(2, (G, -1)).permute(0, 2, 3, 1, 4)
        scores = (rows.flatten(2, 3) @ k[..., low:high]).unflatten(2, (-1, end - start))  # B G R T S
        scores.masked_fill_(~part[:, None, None, :, low:high], -math.inf)
        most = scores.amax(-1, keepdim=True)
        logit = None
        if sink is not None:
            logit = sink[..., start:end].float().unflatten(1, (G, -1))[..., None]
            most = torch.maximum(most, logit)
        most = most.masked_fill(most == -math.inf, 0.0)
        total = scores.sub_(most).exp_().sum(-1, keepdim=True)
        total = total if logit is None else total + (logit - most).exp()
        mixed = (scores.flatten(2, 3) @ v[:, :, low:high]).unflatten(2, (-1, end - start))
        mixed = mixed / total.masked_fill(total == 0, 1.0)
        parts.append(mixed.permute(0, 3, 1, 2, 4).flatten(2, 3))  # B T H C
        start = end
    return torch.cat(parts, dim=1).to(q.dtype) if parts else torch.zeros_like(q)


class Answers:
    """gate and up, SwiGLU and down of all chosen experts in one call, for one token or many."""

    def __init__(self, experts: Experts) -> None:
        self.experts = experts

    def on(self, experts: Experts) -> Answers | None:
        """The same, for another module that holds these weights; None where its config asks for others."""
        return Answers(experts) if fits(experts) else None

    def __call__(self, x: Tensor, choice: Tensor, tap: Tap = SILENT) -> Tensor:
        """As `Experts.answers`."""
        first, down, config = self.experts.gate_up, self.experts.down, self.experts.config
        assert isinstance(first, FastStack) and isinstance(down, FastStack)  # as `fits` saw to it
        assert first.bias is not None and down.bias is not None
        inside, ready = any(map(tap.wants, INSIDE_EXPERTS)), choice.numel() and fits(self.experts)
        if inside or not (ready and here(x, first.blocks)):
            return Experts.answers(self.experts, x, choice, tap)
        kept, experts = choice.shape[-1], choice.flatten().numpy()
        if not 0 <= experts.min() <= experts.max() < first.shape[0]:
            asked = f"experts from {experts.min()} to {experts.max()} are asked for"
            raise IndexError(f"{asked}; there are 0 to {first.shape[0] - 1}")
        place, counts = np.argsort(experts, kind="stable"), np.bincount(experts)
        y = first.form.experts(
            x.reshape(-1, x.shape[-1]).float().contiguous(),
            place // kept,
            place,
            np.stack((np.arange(len(counts)), counts.cumsum() - counts, counts), axis=1)[counts > 0],
            (first.blocks, first.scales, first.bias),
            (down.blocks, down.scales, down.bias),
            config.swiglu_limit,
            config.swiglu_alpha,
        )
        return y.unflatten(0, choice.shape)


def fits(experts: Experts) -> bool:
    """Whether the kernel can answer for them: packed, with biases in bfloat16, and gpt-oss's SwiGLU."""
    stacks = [experts.gate_up, experts.down]
    packed = all(isinstance(one, FastStack) and one.form.fused for one in stacks)
    biases = [one.bias for one in stacks]
    biased = all(b is not None and b.dtype == torch.bfloat16 and b.is_contiguous() for b in biases)
    return packed and biased and experts.config.activation == "clamped_swiglu"
