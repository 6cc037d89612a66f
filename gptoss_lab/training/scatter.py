"""How far runs scatter that differ in their seed alone.

Two or three runs of a model tell little of it: Student's t is 12.7 for two and 4.3 for three. Models that are
much alike are therefore taken to scatter alike, and all of them tell it together, in a randomized block
design (Fisher 1935) whose blocks are seeds, which read the same bytes in the same order:

    bits of a run = its model's + its seed's + chance
    interval of a difference = ± t(df) · sd of chance · √(2 / seeds)

Least squares find the first two parts; what they leave over is the chance. A seed that is good at one rate
may be bad at another, so that a pool is of one rate. Two models that differ in the long phase alone (`LATE`)
are one and the same run until then: they scatter less, and tell it themselves.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .queue import score

STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}  # 97.5 % of t, by degrees of freedom
LATE = ("name", "family", "yarn", "stored_experts")  # what acts in the long phase alone, or never
Runs = Mapping[int, Mapping[str, Any]]  # results of one config, by seed


def student(df: int) -> float:
    """97.5 % of Student's t. Beyond the table by its expansion in 1/df (Abramowitz and Stegun, 26.7.5), which
    is off by less than one in a thousand there."""
    z = 1.959964
    more = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)  # fmt: skip
    return STUDENT.get(df, z + sum(term / df**n for n, term in enumerate(more, start=1)))


def interval(values: list[float]) -> float | None:
    """Half the width of the 95 % confidence interval of their mean; None for one value alone."""
    if len(values) < 2:
        return None
    return student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True)
class Pool:
    """Models whose runs are taken to scatter alike, by name: their runs that ended, two seeds or more. also:
    models that one of these is until the long phase, which would tell the same chance twice."""

    runs: Mapping[str, Runs] = field(default_factory=dict)
    also: frozenset[str] = frozenset()

    def tells(self, ours: Runs, theirs: Runs) -> bool:
        """Whether it tells how two models' differences scatter: both are in it, at one rate, and they are not
        one and the same run until the long phase, who share most of their chance."""
        configs = [recorded(each) for each in (ours, theirs)]
        inside = all(config.get("name") in self.runs.keys() | self.also for config in configs)
        told = (ours, theirs, *self.runs.values())
        rates = {run["rate"] for each in told for run in each.values()} if inside else set()
        return len(rates) == 1 and early(configs[0]) != early(configs[1])

    def chance(self, windows: str = "near", domains: Sequence[str] | None = None) -> dict[str, list[float]]:
        """By model, what is left of its runs' bits per byte beyond the model's and the seed's part."""
        rows = [(name, seed, score(run, windows, domains))
                for name, runs in self.runs.items() for seed, run in runs.items()]  # fmt: skip
        parts = [*self.runs, *sorted({seed for _, seed, _ in rows})]
        design = torch.zeros(len(rows), len(parts), dtype=torch.float64)
        for n, (name, seed, _) in enumerate(rows):
            design[n, parts.index(name)] = design[n, parts.index(seed)] = 1
        bits = torch.tensor([bits for *_, bits in rows], dtype=torch.float64)
        left = bits - design @ torch.linalg.lstsq(design, bits[:, None], driver="gelsd").solution[:, 0]
        told: dict[str, list[float]] = {name: [] for name in self.runs}
        for (name, *_), one in zip(rows, left.tolist()):
            told[name].append(one)
        return told

    def scatter(
        self, windows: str = "near", domains: Sequence[str] | None = None
    ) -> tuple[float, int] | None:
        """The standard deviation of that chance and its degrees of freedom; None while there are none."""
        seeds = {seed for runs in self.runs.values() for seed in runs}
        df = sum(map(len, self.runs.values())) - len(self.runs) - len(seeds) + 1
        if not self.runs or df < 1:
            return None
        left = [one for each in self.chance(windows, domains).values() for one in each]
        return math.sqrt(sum(one * one for one in left) / df), df


def recorded(runs: Runs) -> Mapping[str, Any]:
    """The config of some runs of a model, as their results have it."""
    found: Mapping[str, Any] = next(iter(runs.values()), {}).get("config", {})
    return found


def early(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config acts before the long phase."""
    return {key: value for key, value in config.items() if key not in LATE}
