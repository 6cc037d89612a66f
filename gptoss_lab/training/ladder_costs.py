"""Tables of docs/ladder.md on what a rung costs: from its config, and timed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cost import cache_bytes, parameters
from .ladder import NUMBER, RUNGS, ladder, multiplied
from .ladder_numbers import bytes_read, flop
from .queue import RESULTS

SPEED = RESULTS.parent / "ladder_speed.json"  # benchmarks/ladder_speed.py writes it


def costs_table() -> list[str]:
    """What every rung costs, from its config alone."""
    headings = "parameters | multiplied | FLOP a byte | bytes read | cache at 1k | at 8k | at 131k"
    lines = [f"| rung | {headings} |", "|---" * 8 + "|"]
    for step, config in zip(RUNGS, ladder()):
        cache = " | ".join(f"{cache_bytes(config, tokens):,}" for tokens in (1024, 8192, 131072))
        size = f"{parameters(config):,} | {multiplied(config):,}"
        lines.append(f"| {step.title} | {size} | {flop(config):,} | {bytes_read(config):,} | {cache} |")
    return lines


def speed(file: Path = SPEED) -> dict[str, Any] | None:
    """What `benchmarks/ladder_speed.py` measured last; None where it never did."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def ratio(ours: list[float], theirs: list[float]) -> str:
    """How many times as fast as theirs, from seconds taken in the same rounds: the median, and the middle
    half of the rounds."""
    each = sorted(b / a for a, b in zip(ours, theirs))
    low, high = each[len(each) // 4], each[-1 - len(each) // 4]
    return f"{statistics.median(each):.2f} ({low:.2f} to {high:.2f})"


def speed_table(timed: Mapping[str, Any] | None) -> list[str]:
    """Training and decoding of every rung, and how many times as fast as the first. timed: see
    `benchmarks/ladder_speed.py`."""
    headings = "training, bytes/s | times GPT-2's | decoding, bytes/s | times GPT-2's"
    lines = [f"| rung | {headings} |", "|---" * 5 + "|"]
    for step in RUNGS:
        cells = ["–"] * 4
        if timed is not None and step.name in timed["training"]:
            cells = []
            for kind in ("training", "decoding"):
                each, first = timed[kind][step.name], timed[kind][RUNGS[0].name]
                rate = timed["bytes"][kind] / statistics.median(each)
                cells += [f"{rate:,.0f}", "1" if step is RUNGS[0] else ratio(each, first)]
        lines.append(f"| {step.title} | {' | '.join(cells)} |")
    return lines


def noise(timed: Mapping[str, Any] | None) -> str:
    """How far apart rungs come that compute the very same: what the timing itself leaves open."""
    if timed is None:
        return ""
    told = []
    for kind, ours, theirs in (("decoding", "no-dropout", "gpt2"), ("training", "yarn", "rope"),
                               ("decoding", "mxfp4", "untied")):  # fmt: skip
        if {ours, theirs} <= timed[kind].keys():
            titles = [RUNGS[NUMBER[name]].title for name in (ours, theirs)]
            times = ratio(timed[kind][ours], timed[kind][theirs])
            told.append(f"{kind} by “{titles[0]}” {times} times as fast as by “{titles[1]}”")
    return f"Rungs that compute the very same tell how sure that is: {'; '.join(told)}." if told else ""
