"""Verdicts that training runs decide: a change with and without, by the results that are in.

    lead = bits per byte with the change − without it          seed by seed, on the same held-out windows

A verdict needs two seeds of both. What is asked of the lead's 95 % interval over seeds (Student's t) is a
rule for each claim, below; "small" is a share of the loss, one in a hundred unless another is asked for.
Where the interval is too wide for its rule the claim stays open, and the numbers are told.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...training import shapes
from ...training.ladder import NUMBER, RUNGS, plan, rung
from ...training.ladder_numbers import interval, over_windows, runs_of
from ...training.queue import results, score
from .parts import HOLDS, LADDER, OPEN, PARTLY, UNSEEN, Part

Found = Mapping[str, Mapping[str, Any]]
Runs = Mapping[int, Mapping[str, Any]]
SMALL, SEEDS = 0.01, 2  # of the loss; seeds that a verdict needs


@dataclass(frozen=True)
class Lead:
    """One thing less another in bits per byte, negative is better: the mean over `seeds`, half its interval
    over them (None for one seed), half the interval over windows, and the `level` of the other."""

    mean: float
    within: float | None
    windows: float
    seeds: int
    level: float

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self.mean - (self.within or 0.0)

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return self.mean + (self.within or 0.0)

    def told(self) -> str:
        """The numbers in words."""
        number = lambda value: f"{value:+.4f}".replace("-", "−")
        over = f"one seed; over windows alone ±{self.windows:.4f}"
        if self.within is not None:
            over = (f"95 % over {self.seeds} seeds: {number(self.low)} to {number(self.high)}; over windows "
                    f"alone ±{self.windows:.4f}")  # fmt: skip
        return f"{number(self.mean)} bits per byte of {self.level:.3f} ({over})"


def lead(ours: Runs, theirs: Runs) -> Lead | None:
    """Ours less theirs over the seeds that both have ended; None where there are none."""
    seeds = [seed for seed in sorted(ours.keys() & theirs.keys())
             if "diverged" not in ours[seed] and "diverged" not in theirs[seed]]  # fmt: skip
    if not seeds:
        return None
    each = [score(ours[seed]) - score(theirs[seed]) for seed in seeds]
    level = statistics.fmean(score(theirs[seed]) for seed in seeds)
    windows = over_windows(ours, theirs, seeds)
    return Lead(statistics.fmean(each), interval(each), windows, len(seeds), level)


def gains(lead: Lead, small: float) -> str:
    """It is better: all of the interval below zero. Not seen: all above, or all within what is small."""
    if lead.high < 0:
        return HOLDS
    return UNSEEN if lead.low > 0 or max(-lead.low, lead.high) <= small else OPEN


def little(lead: Lead, small: float) -> str:
    """It is worse by little at most."""
    if lead.high <= small:
        return HOLDS
    return UNSEEN if lead.low > small else OPEN


def nothing(lead: Lead, small: float) -> str:
    """It is no worse: zero lies within or above an interval that ends at what is small."""
    if lead.high <= small:
        return PARTLY if lead.low > 0 else HOLDS
    return UNSEEN if lead.low > small else OPEN


def slightly(lead: Lead, small: float) -> str:
    """It is worse, by little. Holds partly: by more than that."""
    if lead.low > 0:
        return HOLDS if lead.high <= small else PARTLY if lead.low > small else OPEN
    return UNSEEN if lead.high <= small else OPEN


@dataclass(frozen=True)
class Trial:
    """What decides a statement: its number and words, with the change and without it, and the rule."""

    number: str
    said: str
    ours: str
    theirs: str
    rule: Callable[[Lead, float], str]


TRIALS = {
    trial.number: trial
    for trial in (
        Trial("1a", "Dropout costs compute for no benefit; removing it raises accuracy, over one epoch",
              "no-dropout", "gpt2", gains),
        Trial("3b", "Those parameters add knowledge", "experts", "sinks", gains),
        Trial("4b", "Their impact on quality is small", "grouped", "swiglu", little),
        Trial("4d", "And cost nothing", "windows", "grouped", nothing),
        Trial("5b", "It is slightly less accurate", "rmsnorm", "no-dropout", slightly),
        Trial("8b", "Qwen3's shape learns more than gpt-oss's", "qwen3-shaped", "gpt-oss-shaped", gains),
    )
}  # fmt: skip


def runs(name: str, found: Found) -> Runs:
    """The results of a rung, or of a shape, by seed."""
    if name in shapes.NAMES:
        return shapes.runs(name, found)
    return runs_of(rung(name), plan(), found)


def title(name: str) -> str:
    """What a rung or a shape is called in a sentence."""
    return RUNGS[NUMBER[name]].title if name in NUMBER else name


def decided(number: str, found: Found | None = None, small: float = SMALL) -> tuple[str, Lead | None]:
    """The verdict of a trial by its number, and the lead, None while no seed has both runs. found: results by
    id, the package's own unless given; small: a share of the loss. KeyError for a number without a trial."""
    trial, found = TRIALS[number], results() if found is None else found
    ahead = lead(runs(trial.ours, found), runs(trial.theirs, found))
    if ahead is None or ahead.seeds < SEEDS:
        return OPEN, ahead
    return trial.rule(ahead, small * ahead.level), ahead


def part(number: str, waits: str, precisely: str, found: Found | None = None) -> Part:
    """The statement with its verdict. waits: what to say besides while its runs are not in; precisely: what
    to say when they are and have decided."""
    trial, (verdict, ahead) = TRIALS[number], decided(number, found)
    if ahead is None or ahead.seeds < SEEDS:
        return Part(trial.said, OPEN, f"{LADDER} {waits}".strip())
    least = f"{SMALL:.0%}".replace("%", " %")
    told = (f"“{title(trial.ours)}” less “{title(trial.theirs)}”: {ahead.told()}. From training runs "
            f"(`docs/ladder.md`). Small is up to {least} of the loss. {waits}")  # fmt: skip
    unsure = "The seeds that are in do not decide it." if verdict == OPEN else precisely
    return Part(trial.said, verdict, told.strip(), unsure)
