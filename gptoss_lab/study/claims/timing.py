"""How long norms and activations take beside one another: ratios within a run, one thread, eager CPU kernels.

Each round runs everything a few times, in a shuffled order, so that what else the machine does meets all
alike; a ratio is taken within its round, and what is told are the quartiles over the rounds. Time is this
thread's own processor time. They are ratios of these kernels on this machine: a GPU, or a compiler that fuses
a norm with what stands beside it, has others.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from ...model import clamped_swiglu, gelu, layer_norm, rms_norm, swiglu

TOKENS, WIDTH = 256, 768  # GPT-2's width, and four times as much inside its MLP
AT_ONCE = 4  # runs of one piece of work in a round


def everything(width: int = WIDTH) -> dict[str, Callable[[], object]]:
    """What is timed, by name: norms of TOKENS × width, activations that return TOKENS × 4 width, and the
    product from one to the other.
    """
    dice = torch.Generator().manual_seed(0)
    made = lambda *shape: torch.randn(shape, generator=dice)
    x, one, zero = made(TOKENS, width), torch.ones(width), torch.zeros(width)
    wide, gate, matrix = made(TOKENS, 4 * width), made(TOKENS, 4 * width), made(4 * width, width)
    return {
        "RMSNorm": lambda: rms_norm(x, one, 1e-5),
        "LayerNorm": lambda: layer_norm(x, one, zero, 1e-5),
        "RMSNorm, torch's": lambda: F.rms_norm(x, (width,), one, 1e-5),
        "LayerNorm, torch's": lambda: F.layer_norm(x, (width,), one, zero, 1e-5),
        "Swish": lambda: F.silu(wide),
        "GELU, tanh": lambda: gelu(wide),
        "GELU, erf": lambda: F.gelu(wide),
        "SwiGLU": lambda: swiglu(gate, wide),
        "clamped SwiGLU": lambda: clamped_swiglu(gate, wide),
        "product": lambda: F.linear(x, matrix),
    }


def rounds(
    work: Mapping[str, Callable[[], object]], count: int, clock: Callable[[], float] = time.thread_time
) -> dict[str, list[float]]:
    """Seconds of every piece of work in `count` rounds, on one thread; the first round is thrown away."""
    names, threads = list(work), torch.get_num_threads()
    dice, taken = random.Random(0), {name: list[float]() for name in work}
    torch.set_num_threads(1)
    try:
        for _ in range(count + 1):
            for name in dice.sample(names, len(names)):
                begun = clock()
                for _ in range(AT_ONCE):
                    work[name]()
                taken[name].append(clock() - begun)
    finally:
        torch.set_num_threads(threads)
    return {name: seconds[1:] for name, seconds in taken.items()}


def quartiles(over: list[float], under: list[float]) -> list[float]:
    """The quartiles of the ratios, round by round."""
    return statistics.quantiles([a / b for a, b in zip(over, under)], n=4)


RATIOS = (
    ("LayerNorm", "RMSNorm"), ("LayerNorm, torch's", "RMSNorm, torch's"), ("GELU, tanh", "Swish"),
    ("GELU, erf", "Swish"), ("SwiGLU", "Swish"), ("clamped SwiGLU", "SwiGLU"), ("product", "Swish"),
    ("product", "GELU, tanh"), ("product", "RMSNorm"),
)  # fmt: skip


@torch.no_grad()
def figures(count: int = 60, width: int = WIDTH) -> dict[str, Any]:
    """The quartiles of every ratio in RATIOS, as "LayerNorm / RMSNorm" → three numbers."""
    taken = rounds(everything(width), count)
    ratios = {f"{over} / {under}": quartiles(taken[over], taken[under]) for over, under in RATIOS}
    return {"tokens": TOKENS, "width": width, "rounds": count, "ratios": ratios}
