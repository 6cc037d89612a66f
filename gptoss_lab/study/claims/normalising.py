"""What a norm does to real residuals: what lies along the all-ones direction, and which signs change.

    x = mean(x) · 1 + (x − mean(x) · 1)       LayerNorm keeps the second part, brought to the length √D
                                              RMSNorm keeps both, brought to the length √D
    share along the all-ones direction 1/√D:  D · mean(x)² / Σ x²      1/D on average for a random direction
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...model import Transformer
from ...tap import Edit, Recorder


def along_ones(x: Tensor) -> Tensor:
    """The share of a vector's squared length along the all-ones direction: x … D → …, from 0 to 1."""
    return x.shape[-1] * x.mean(-1).square() / x.square().sum(-1)


def flipped(before: Tensor, after: Tensor) -> float:
    """The share of numbers whose sign is another one after than before."""
    return float((before.sign() != after.sign()).double().mean())


def entering(model: Transformer) -> list[str]:
    """The points whose value a norm reads, in order: the residual before every half block, and the last."""
    layers = range(model.config.n_layers)
    halves = [f"blocks.{n}.{half}" for n in layers for half in ("residual_mid", "residual")]
    return ["embedding", *halves]


def norms(model: Transformer) -> list[Any]:
    """The norms that read them, in the same order."""
    halves = [norm for block in model.blocks for norm in (block.attention.norm, feed_forward(block).norm)]
    return [*halves, model.norm]


def feed_forward(block: Any) -> Any:
    """A block's second half."""
    return block.experts if block.config.n_experts else block.mlp


@torch.no_grad()
def figures(model: Transformer, windows: Tensor) -> dict[str, Any]:
    """Shares and sign changes over all tokens of windows B T.

    along_ones: at every point that a norm reads; chance: of a random direction. centred: the share of
    channels whose sign changes when the mean is taken away; divided: when the vector is divided by its root
    mean square; own: from what the model's own norms read to what they return, scale and bias included.
    units: the share of the feed-forward half's pre-activations (the gates, where there are gates) that lie on
    the other side of zero when that half reads the residual as it is, its norm left out.
    """
    names = entering(model)
    recorder = Recorder(keep=[*names, *(f"blocks.{n}.experts.choice" for n in range(model.config.n_layers))])
    model(windows, last=1, tap=recorder)
    residuals = [recorder.kept[name] for name in names]
    mean = lambda values: sum(values) / len(values)
    units = []
    for n, block in enumerate(model.blocks):
        half, x = feed_forward(block), recorder.kept[f"blocks.{n}.residual_mid"]
        choice = recorder.kept.get(f"blocks.{n}.experts.choice")
        units.append(flipped(before_activation(half, x, choice),
                             before_activation(half, half.norm(x), choice)))  # fmt: skip
    return {
        "along_ones": {name: float(along_ones(x).double().mean()) for name, x in zip(names, residuals)},
        "chance": 1 / model.config.d_model,
        "centred": mean([flipped(x, x - x.mean(-1, keepdim=True)) for x in residuals]),
        "divided": mean([flipped(x, x * x.square().mean(-1, keepdim=True).rsqrt()) for x in residuals]),
        "own": mean([flipped(x, norm(x)) for x, norm in zip(residuals, norms(model))]),
        "negative_scales": sum(int((norm.scale < 0).sum()) for norm in norms(model)),
        "units": mean(units),
        "tokens": windows.numel(),
    }


def before_activation(half: Any, x: Tensor, choice: Tensor | None) -> Tensor:
    """What the activation is taken of, from what the half reads, x B T D: B T F, or B T K F of the chosen."""
    if choice is None:
        return half.gate(x) if half.config.gated else half.up(x)
    name = "gate" if half.config.gated else "pre"
    recorder = Recorder(keep=[name])
    half.walk(x, choice, recorder)
    return recorder.kept[name]


def centred(value: Tensor, here: object) -> Tensor:
    """An edit: the mean over D taken away."""
    return value - value.mean(-1, keepdim=True)


def without_mean(model: Transformer) -> dict[str, list[Edit]]:
    """Edits by full name after which no norm sees anything along the all-ones direction."""
    return {name: [centred] for name in entering(model)}
