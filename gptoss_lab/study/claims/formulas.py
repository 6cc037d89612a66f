"""What follows from definitions and configs alone: forms of GELU, two norms of three numbers, cache bytes.

    GELU(x) = x Φ(x) = x/2 · (1 + erf(x/√2))        its definition                        arXiv 1606.08415
            ≈ x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³)))    what GPT-2 computes
            ≈ x · sigmoid(1.702 x)                         the gate of gpt-oss's SwiGLU
    Swish(x) = x · sigmoid(x)                       silu                                  arXiv 1710.05941
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import Config
from ...cost import active_parameters, cache_bytes, checkpoint_bytes, flop_per_token, parameters

Curve = Callable[[Tensor], Tensor]


def gelu_erf(x: Tensor) -> Tensor:
    """GELU as it is defined: x times the normal distribution's function."""
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: Tensor) -> Tensor:
    """GPT-2's GELU."""
    return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_sigmoid(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


def swish(x: Tensor) -> Tensor:
    """x · sigmoid(x)."""
    return x * torch.sigmoid(x)


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return x.clamp(min=0)


def farthest(one: Curve, other: Curve, reach: float = 12.0, steps: int = 1_200_001) -> tuple[float, float]:
    """Where from −reach to reach two curves lie farthest apart, and how far: (x ≥ 0, difference).

    Looked for on an even grid in float64. The curves here differ by an even function, so x is told positive.
    """
    x = torch.linspace(-reach, reach, steps, dtype=torch.float64)
    apart = (one(x) - other(x)).abs()
    at = int(apart.argmax())
    return abs(float(x[at])), float(apart[at])


def by_both_norms(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """LayerNorm and RMSNorm of a few numbers, without scale, bias and eps."""
    mean = math.fsum(values) / len(values)
    centred = [value - mean for value in values]
    spread, size = (
        math.sqrt(math.fsum(value**2 for value in row) / len(row)) for row in (centred, values)
    )
    return [value / spread for value in centred], [value / size for value in values]


def multi_head(config: Config) -> Config:
    """The same model if every query head had a key/value head of its own."""
    return config.with_changes(n_kv_heads=config.n_heads)


def caches(config: Config, tokens: int) -> dict[str, int]:
    """Bytes of keys and values in bfloat16: as the model is, and with its windows, its shared heads or both
    undone.
    """
    dense = config.with_changes(window=None)
    kinds = {"as it is": config, "no windows": dense, "no shared heads": multi_head(config)}
    kinds["neither"] = multi_head(dense)
    return {name: cache_bytes(kind, tokens) for name, kind in kinds.items()}


def work_without_windows(config: Config, context: int) -> float:
    """FLOP to decode a token that sees `context` tokens, without windows over with them."""
    dense = config.with_changes(window=None)
    return flop_per_token(dense, context) / flop_per_token(config, context)


def longest(config: Config, limit: int) -> int:
    """How many tokens of bfloat16 cache fit beside the weights as published into `limit` bytes.

    0 where the weights alone do not fit; at most the model's context.
    """
    low, high = 0, config.context
    while low < high:
        middle = (low + high + 1) // 2
        fits = checkpoint_bytes(config) + cache_bytes(config, middle) <= limit
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def position_parameters(config: Config) -> int:
    """How many learned numbers say where a token stands."""
    return config.context * config.d_model if config.positions == "learned" else 0


def pairs_within_a_turn(config: Config, context: int) -> int:
    """How many of RoPE's C/2 pairs turn less than once in `context` tokens, before any stretching."""
    turns = [context / (2 * math.pi * config.rope_theta ** (2 * i / config.d_head))
             for i in range(config.d_head // 2)]  # fmt: skip
    return sum(turn < 1 for turn in turns)


@dataclass(frozen=True)
class Beside:
    """Two models' sizes as ratios, the second over the first."""

    total: float
    active: float
    stored: float


def beside(small: Config, large: Config) -> Beside:
    """`large` over `small`: parameters, parameters at work on a token, bytes as published."""
    return Beside(
        parameters(large) / parameters(small),
        active_parameters(large) / active_parameters(small),
        checkpoint_bytes(large) / checkpoint_bytes(small),
    )
