"""RoPE: pair i of a head's channels turns by `position · frequency_i`, so q·k depends on the distance alone.

    (x1, x2) → (x1·cos − x2·sin, x2·cos + x1·sin)      x1, x2: the halves of the head; arXiv 2104.09864
    frequency_i = θ^(−2i/C)

YaRN (arXiv 2309.00071) stretches the slow pairs to a longer context and multiplies both cos and sin by a
concentration. Agrees with openai/gpt-oss `torch/model.py`, which does not round the ends of the ramp.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config import Yarn


def frequencies(d_head: int, theta: float, yarn: Yarn | None = None) -> Tensor:
    """Radians per position of each of the C/2 pairs, fastest first: C/2, float32 on the CPU."""
    pair = torch.arange(0, d_head, 2, dtype=torch.float32, device="cpu")
    plain = 1.0 / theta ** (pair / d_head)
    if yarn is None:
        return plain
    low, high = ramp_ends(d_head, theta, yarn)
    slowed = ((pair / 2 - low) / max(high - low, 1e-3)).clamp(0, 1)
    return slowed * plain / yarn.factor + (1 - slowed) * plain


def ramp_ends(d_head: int, theta: float, yarn: Yarn) -> tuple[float, float]:
    """The pairs, as fractional indices, that turn `beta_fast` and `beta_slow` times within the original
    context.
    """

    def pair_that_turns(times: float) -> float:
        return d_head / 2 * math.log(yarn.original_context / (times * 2 * math.pi)) / math.log(theta)

    low, high = pair_that_turns(yarn.beta_fast), pair_that_turns(yarn.beta_slow)
    low, high = (math.floor(low), math.ceil(high)) if yarn.rounded else (low, high)
    return max(low, 0.0), min(high, d_head - 1.0)  # as transformers has it; OpenAI refuses ends out there


def concentration(yarn: Yarn | None) -> float:
    """What YaRN multiplies cos and sin by, at every length; 1 without it."""
    return 1.0 if yarn is None else 0.1 * math.log(yarn.factor) + 1.0


def rotate(x: Tensor, positions: Tensor, frequencies: Tensor, concentration: float = 1.0) -> Tensor:
    """Turn every pair of every head: x B T H C (or G), positions B T, frequencies C/2 → B T H C.

    Angles are float32; a position of −1 (padding) turns backwards, which nothing sees.
    """
    angle = (positions[..., None].float() * frequencies)[..., None, :]  # B T 1 C/2
    cos, sin = angle.cos() * concentration, angle.sin() * concentration
    x1, x2 = x.float().chunk(2, dim=-1)
    return torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), dim=-1).to(x.dtype)
