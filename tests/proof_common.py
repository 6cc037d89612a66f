"""What the proofs share: the toys, how far two things are apart, loops that several definitions use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from definitions import clamped
from torch import Tensor
from toys import gpt2, gpt_oss, mxfp4, qwen3, random_model

from gptoss_lab.config import Config, Yarn
from gptoss_lab.model import Transformer
from gptoss_lab.tap import Recorder
from gptoss_lab.weights import round_to_mxfp4

WHOLE = {"n_heads": 5, "n_kv_heads": 5, "d_head": 4, "d_model": 20}  # in GPT-2 the heads make up the width
TOYS: dict[str, Callable[[], Config]] = {
    "gpt-oss": lambda: gpt_oss(d_ff=10),  # square experts, as the real ones
    "gpt2": lambda: gpt2(**WHOLE),
    "qwen3-moe": qwen3,
    "gpt-oss, window of 128": lambda: gpt_oss(window=128, n_layers=2, context=256),
    "gpt-oss, published RoPE": lambda: gpt_oss(d_head=64, rope_theta=150000.0, yarn=Yarn(), n_layers=2),
    "gpt-oss, limit of two": lambda: gpt_oss(swiglu_limit=2.0),
    "gpt-oss, packed": mxfp4,
}
Pair = tuple[Any, Any]  # ours, and what it should be


@cache
def right_model(toy: str) -> Transformer:
    """The toy with random weights, on MXFP4's grid where they are to be packed."""
    model = random_model(TOYS[toy]())
    if model.config.stored_experts == "mxfp4":
        for block in model.blocks:
            for stack in (block.experts.gate_up, block.experts.down):
                stack.weight.copy_(round_to_mxfp4(stack.weight))
    return model


def deviation(ours: Any, defined: Any) -> float:
    """The largest difference; of a value beyond one, relative. Infinite where one alone is NaN."""
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (ours, defined))
    if a.shape != b.shape or not torch.equal(a.isnan(), b.isnan()):
        return math.inf
    same, both = (a == b) | a.isnan(), a.isfinite() & b.isfinite()
    apart = torch.where(both, (a - b).abs() / b.abs().clamp(min=1), math.inf)
    return float(torch.where(same, 0.0, apart).max())


def wrong(ours: Any, defined: Any) -> float:
    """How many numbers are not what they should be, to the last bit and sign."""
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (ours, defined))
    if a.shape != b.shape:
        return math.inf
    same = (a == b) & (a.signbit() == b.signbit()) | a.isnan() & b.isnan()
    return float((~same).sum())


def ratio(ours: Any, defined: Any) -> float:
    """The largest relative difference."""
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (ours, defined))
    return float((a / b - 1).abs().max())


@dataclass(frozen=True)
class Operation:
    """pairs(model, right) yields what is compared; toys: on which of them; unit: what `apart` counts, if it
    counts.
    """

    name: str
    what: str
    pairs: Callable[[Transformer, Transformer], Iterator[Pair]]
    toys: tuple[str, ...]
    bound: float
    apart: Callable[[Any, Any], float] = deviation
    unit: str = ""

    def measure(self, model: Transformer, right: Transformer) -> float:
        """The largest difference between the model's operation and its definition."""
        with torch.no_grad():
            return max(self.apart(*pair) for pair in self.pairs(model, right))


# ---- loops that several definitions use


def normed(x: list[float], norm: Any, eps: float) -> list[float]:
    """RMSNorm of one vector; LayerNorm where the norm has a bias."""
    scale, bias = norm.scale.tolist(), getattr(norm, "bias", None)
    mean = 0.0 if bias is None else sum(x) / len(x)
    size = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + eps)
    shift = [0.0] * len(x) if bias is None else bias.tolist()
    return [(v - mean) / size * s + b for v, s, b in zip(x, scale, shift)]


def every(x: Tensor, of: Callable[[list[float]], list[float]]) -> list:
    """of(vector) for every vector along the last axis, in nested lists."""
    return of(x.tolist()) if x.ndim == 1 else [every(part, of) for part in x]


def looked_at(layer: Any, *given: Any) -> dict[str, Tensor]:
    """What a layer shows of itself."""
    names = "q k v q_rotated k_rotated visible mixed out logits choice weight gate up act each".split()
    recorder = Recorder(names)
    layer(*given, recorder)
    return recorder.kept


def sees(query: int, key: int, window: int | None) -> bool:
    """Whether the token at `query` sees the one at `key`."""
    return 0 <= key <= query and (window is None or key in range(query - window + 1, query + 1))


def activated(gate: float, up: float, config: Config) -> float:
    """One gate and one up, as the family joins them."""
    if config.activation == "clamped_swiglu":
        return clamped(gate, up, config.swiglu_limit, config.swiglu_alpha)
    return gate / (1 + math.exp(-gate)) * up


def tanh_gelu(x: float) -> float:
    """GELU as GPT-2 has it."""
    return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
