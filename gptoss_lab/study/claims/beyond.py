"""Whether RoPE lengthens the context: the loss at positions that a model was never trained on.

The ladder measures it just before its long windows begin: models that know windows of 256 bytes alone read
1,024, once with plain RoPE and once stretched by YaRN, without a step of training with it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from ...training.ladder import SHORT
from .parts import LADDER, OPEN, PARTLY, Part, table

SAID = "RoPE lengthens the context"
RUNG = "swiglu"  # the first of the anchors with RoPE: five rates, one seed
Found = Mapping[str, Mapping[str, Any]]


def told(found: Found) -> list[Mapping[str, Any]]:
    """What the anchor's runs of the first seed found before their long windows: one for each rate."""
    names = sorted(name for name in found if name.startswith(f"{RUNG}.seed0."))
    return [found[name]["untaught"] for name in names if found[name].get("untaught")]


def outside(bins: Mapping[str, float]) -> float:
    """The mean over the positions that lie beyond what was trained on: bins by their widths."""
    ends = [(*map(int, name.split("-")), value) for name, value in bins.items()]
    far = [(last - first + 1, value) for first, last, value in ends if first >= SHORT]
    return sum(width * value for width, value in far) / sum(width for width, _ in far)


def steps(early: Mapping[str, Any]) -> tuple[float, float, float]:
    """Nats a byte just within the trained length, and beyond it with plain RoPE and with YaRN."""
    within = early["plain"][f"{SHORT // 2}-{SHORT - 1}"]
    return within, outside(early["plain"]), outside(early["yarn"])


def part(found: Found, pairs: str) -> Part:
    """The statement with its verdict; pairs: what the configs say."""
    every = [steps(early) for early in told(found)]
    if not every:
        return Part(SAID, OPEN, f"{pairs} What the loss is at positions never trained on: {LADDER}")
    runs = len(every)
    columns = list(zip(*every))
    names = (f"just within: {SHORT // 2} to {SHORT - 1}, plain RoPE", f"from {SHORT} to 1,023, plain RoPE",
             f"from {SHORT} to 1,023, YaRN put on")  # fmt: skip
    rows = [[name, f"{statistics.median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"]
            for name, values in zip(names, columns)]  # fmt: skip
    shown = table(["nats a byte at positions", "median", f"least to most of {runs} runs"], rows)
    worse = min(plain - within for within, plain, _ in every)
    better = min(plain - yarn for _, plain, yarn in every)
    verdict = PARTLY if worse > 0 and better > 0 else OPEN
    return Part(
        SAID, verdict,
        f"{pairs}\n\n{shown}\n\nThe ladder's rung with RoPE and clamped SwiGLU, after nine tenths of its "
        "training, in windows of 256 alone; the runs differ in their learning rate, and all have one seed.",
        f"By itself RoPE does not: beyond the trained length every run is worse by {worse:.2f} nats a byte "
        f"or more. It lets a model be stretched, which a table of positions does not: YaRN, without any "
        f"training, takes back at least {better:.2f}.",
    )  # fmt: skip
