"""What a machine itself does: bytes read from its memory a second, and products.

A decoded token reads every weight that it uses once, so that tokens/s ≤ bandwidth / bytes a token; a prompt
multiplies, so that its tokens/s ≤ products / FLOP a token. Best of several forms, medians of several runs:
the ceiling should not be one form's own limit.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

BYTES = 1 << 28  # more than a cache holds
TOKENS, INPUTS, OUTPUTS = 512, 2880, 4096  # gpt-oss-20b's projection onto queries


def seconds(work: Callable[[], object], device: torch.device, runs: int = 5) -> float:
    """The median of some runs, the first thrown away."""
    taken = []
    for _ in range(runs + 1):
        begun = time.perf_counter()
        work()
        wait_for(device)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@torch.no_grad()
def bandwidth(device: torch.device) -> float:
    """Bytes a second that reductions read, on as many threads as torch has."""
    x = torch.ones(BYTES // 4, device=device)
    first, second = x.chunk(2)
    forms = (x.sum, x.max, lambda: torch.dot(first, second))
    return BYTES / min(seconds(form, device) for form in forms)


@torch.no_grad()
def products(device: torch.device) -> dict[str, float]:
    """FLOP a second of a product of 512 tokens with a matrix of gpt-oss-20b, by dtype."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(TOKENS, INPUTS, dtype=dtype, device=device)
        weight = torch.ones(OUTPUTS, INPUTS, dtype=dtype, device=device)
        taken = seconds(lambda x=x, weight=weight: F.linear(x, weight), device)  # type: ignore[misc]
        found[str(dtype).removeprefix("torch.")] = 2 * TOKENS * INPUTS * OUTPUTS / taken
    return found
