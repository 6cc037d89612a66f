"""Two small models over bytes, in the shapes of gpt-oss-20b and of Qwen3-30B-A3B, to be trained alike.

What is taken over as published: the numbers of experts and how many answer (32 and 4; 128 and 8), eight
query heads to a key/value head, half as many heads of twice the channels in Qwen3, and everything that one
has and the other lacks: sinks, windows in every second layer, biases and the clamped SwiGLU here, QK-norm
and the plain SwiGLU there. Both leave their embeddings untied.

What is alike, though the published models differ in it: six layers of width 64 (24 of 2,880 and 48 of
2,048), how they come to long texts (RoPE's base, and YaRN in the long phase: Qwen3 takes a larger base in its
place), the eps of norms, no MXFP4. The width of an expert is then chosen so that a byte is
multiplied with as many parameters as on the ladder's first rung. With twice as many experts for each that
answers, Qwen3's shape has more parameters in all: that is part of the shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ..config import Config
from .ladder import Entry, first_rung, fit, rung

RATE, OTHER = 1.6e-2, 8e-3  # of both shapes: the best of the ladder's anchor with experts; and one beside it
SEEDS = (0, 1, 2)
NAMES = ("gpt-oss-shaped", "qwen3-shaped")


@cache
def shape(name: str) -> Config:
    """The config of one of the two, by its name. ValueError for another name."""
    if name not in NAMES:
        raise ValueError(f"no shape {name!r}; there are {', '.join(NAMES)}")
    oss = rung("untied").with_changes(
        name=NAMES[0], n_heads=16, n_kv_heads=2, d_head=8, n_experts=32, experts_per_token=4
    )
    if name == NAMES[0]:
        return fit(oss, first_rung(), step=1)
    qwen = oss.with_changes(
        name=NAMES[1], family="qwen3-moe", n_heads=8, n_kv_heads=1, d_head=16, qk_norm=True, sinks=False,
        window=None, bias=False, activation="swiglu", n_experts=128, experts_per_token=8,
    )  # fmt: skip
    return fit(qwen, first_rung(), step=1)


def entries() -> list[Entry]:
    """Their runs: three seeds at the one rate, and the first seed at the other."""
    alike = [Entry(shape(name), seed, RATE, "shape") for seed in SEEDS for name in NAMES]
    return alike + [Entry(shape(name), SEEDS[0], OTHER, "shape") for name in NAMES]


def runs(
    name: str, found: Mapping[str, Mapping[str, Any]], rate: float = RATE
) -> dict[int, Mapping[str, Any]]:
    """The results that are in of a shape at one rate, by seed."""
    ids = {seed: Entry(shape(name), seed, rate, "shape").id({}) for seed in SEEDS}
    return {seed: found[one] for seed, one in ids.items() if one in found}
