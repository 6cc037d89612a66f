"""The operations written from their equations: loops over plain numbers in double precision.

Nothing here shares a line with the package; tests hold the package to it.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from gptoss_lab.config import Yarn


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal numbers, float32."""
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def is_defined(ours: Tensor, defined: list, atol: float = 2e-6) -> None:
    """Assert that ours is what loops in double precision gave, as nested lists of numbers."""
    torch.testing.assert_close(
        ours.double(), torch.tensor(defined, dtype=torch.float64), atol=atol, rtol=1e-6
    )


def frequencies_of(d_head: int, theta: float, yarn: Yarn | None) -> list[float]:
    """theta^(-2i/C), and YaRN's ramp between that and the same divided by the factor."""
    found = []
    for i in range(d_head // 2):
        f = theta ** (2 * i / d_head)
        if yarn is None:
            found.append(1 / f)
            continue
        ends = []
        for turns in (yarn.beta_fast, yarn.beta_slow):
            ends.append(
                (d_head / 2) * math.log(yarn.original_context / (turns * 2 * math.pi)) / math.log(theta)
            )
        low, high = (math.floor(ends[0]), math.ceil(ends[1])) if yarn.rounded else ends
        low, high = max(low, 0), min(high, d_head - 1)
        ramp = min(max((i - low) / (high - low), 0.0), 1.0)
        found.append(ramp / (yarn.factor * f) + (1 - ramp) / f)
    return found


def attention(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, sink: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """mixed B T H C, pattern B H T S and the sink's share B H T, one number at a time."""
    (B, T, H, C), (S, G) = q.shape, k.shape[1:3]
    mixed, pattern = torch.zeros(B, T, H, C).double(), torch.zeros(B, H, T, S).double()
    share = torch.zeros(B, H, T).double()
    queries, keys, values, sees = q.tolist(), k.tolist(), v.tolist(), seen.tolist()
    for b, h, t in product(range(B), range(H), range(T)):
        g = h // (H // G)
        weights = {}
        for s in range(S):
            if sees[b][t][s]:
                dot = sum(x * y for x, y in zip(queries[b][t][h], keys[b][s][g]))
                weights[s] = math.exp(dot / math.sqrt(C))
        of_sink = 0.0 if sink is None else math.exp(sink[b, h, t].item())
        total = sum(weights.values()) + of_sink
        for s, weight in weights.items():
            pattern[b, h, t, s] = weight / total
            for c in range(C):
                mixed[b, t, h, c] += weight / total * values[b][s][g][c]
        share[b, h, t] = of_sink / total if total else 0.0
    return mixed, pattern, share


def clamped(gate: float, up: float, limit: float = 7.0, alpha: float = 1.702) -> float:
    """gpt-oss's activation of one gate and one up."""
    gate, up = min(gate, limit), max(-limit, min(up, limit))
    return gate / (1 + math.exp(-alpha * gate)) * (up + 1)


def through(matrix: list[list[float]], bias: list[float], x: list[float]) -> list[float]:
    """Wx + b."""
    return [sum(w * v for w, v in zip(row, x)) + b for row, b in zip(matrix, bias)]
