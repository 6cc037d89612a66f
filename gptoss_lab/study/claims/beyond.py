"""Whether RoPE lengthens the context: the loss at positions that a model was never trained on.

The ladder measures it just before its long windows begin: models that know windows of 256 bytes alone read
1,024, once with plain RoPE and once stretched by YaRN, without a step of training with it. Every rung with
RoPE is read, at its own rate. The verdict rests on the rungs that are dense in every layer; where every
second layer sees a window alone, RoPE is asked less. Each needs as many seeds as any claim, and every run
must say the same: what is lost beyond is not the same even where one model is trained twice.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...training.ladder import LONG, NUMBER, RUNGS, SHORT, TOP, plan, rung
from ...training.ladder_numbers import Found, runs_of, signed
from .of_runs import SEEDS
from .parts import HOLDS, LADDER, OPEN, PARTLY, UNSEEN, Part, table

SAID = "RoPE lengthens the context"
TWINS = {"yarn": "rope", "mxfp4": TOP}  # one model with the other until windows become longer
NAMES = tuple(step.name for step in RUNGS[NUMBER["rope"] :] if step.name not in TWINS)  # rungs with RoPE
INSIDE = f"{SHORT // 2}-{SHORT - 1}"  # the last positions that were trained on
Early = Mapping[str, Mapping[str, float]]


def told(found: Found, name: str) -> list[Early]:
    """What the runs of a rung found before their long windows, a seed each: nats a byte by bins of positions,
    "plain" and with "yarn"."""
    return [run["untaught"] for run in runs_of(rung(name), plan(), found).values() if run.get("untaught")]


def outside(bins: Mapping[str, float]) -> float:
    """The mean over the positions that lie beyond what was trained on: bins by their widths."""
    ends = [(*map(int, name.split("-")), value) for name, value in bins.items()]
    far = [(last - first + 1, value) for first, last, value in ends if first >= SHORT]
    return sum(width * value for width, value in far) / sum(width for width, _ in far)


@dataclass(frozen=True)
class Seen:
    """One run's nats a byte: just within the trained length and beyond it, each with plain RoPE and with YaRN
    put on."""

    within: float
    beyond: float
    stretched: float
    within_stretched: float

    @property
    def worse(self) -> float:
        """What plain RoPE loses beyond the trained length."""
        return self.beyond - self.within

    @property
    def back(self) -> float:
        """What YaRN takes back of the loss beyond; negative where it adds to it."""
        return self.beyond - self.stretched

    @property
    def costs(self) -> float:
        """What YaRN, put on without training, costs within the trained length."""
        return self.within_stretched - self.within


@dataclass(frozen=True)
class Reach(Seen):
    """A rung: means over its `runs`, a seed each."""

    name: str
    runs: tuple[Seen, ...]

    @property
    def seeds(self) -> int:
        """How many runs are in."""
        return len(self.runs)

    @property
    def title(self) -> str:
        """What the rung is called."""
        return RUNGS[NUMBER[self.name]].title

    @property
    def dense(self) -> bool:
        """Whether every layer sees all that came before."""
        return rung(self.name).window is None


def reach(found: Found, name: str) -> Reach | None:
    """What is in of a rung; None where nothing is."""
    early = told(found, name)
    if not early:
        return None
    each = [(run["plain"][INSIDE], outside(run["plain"]), outside(run["yarn"]), run["yarn"][INSIDE])
            for run in early]  # fmt: skip
    within, beyond, stretched, within_stretched = (statistics.fmean(column) for column in zip(*each))
    runs = tuple(Seen(*numbers) for numbers in each)
    return Reach(within, beyond, stretched, within_stretched, name, runs)


def reaches(found: Found) -> list[Reach]:
    """Every rung with RoPE of which something is in, in order."""
    every = [reach(found, name) for name in NAMES]
    return [one for one in every if one is not None]


def verdict(run: Seen, counts: float = 0.0) -> str:
    """What one run says: it holds where plain RoPE is worse beyond by no more than `counts` nats a byte,
    partly where it is worse and YaRN takes back more than half of that, else not."""
    return HOLDS if run.worse <= counts else PARTLY if run.back > run.worse / 2 else UNSEEN


def judged(rungs: Sequence[Reach], counts: float = 0.0) -> str:
    """The verdict by all runs of these rungs; runs that differ, or none, leave it open."""
    verdicts = {verdict(run, counts) for rung in rungs for run in rung.runs}
    return verdicts.pop() if len(verdicts) == 1 else OPEN


def enough(rungs: Sequence[Reach]) -> bool:
    """Whether every dense rung is among them with the seeds that a verdict needs."""
    there = {one.name for one in rungs if one.seeds >= SEEDS}
    return all(name in there for name in NAMES if rung(name).window is None)


def decided(found: Found) -> str:
    """The verdict of the page, on the dense rungs."""
    dense = [one for one in reaches(found) if one.dense]
    return judged(dense) if enough(dense) else OPEN


def spread(values: Sequence[float]) -> str:
    """The least and the most of some numbers, signed; one number where they print alike."""
    ends = [signed(value, 2) for value in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def in_words(rungs: Sequence[Reach]) -> str:
    """What is lost beyond the trained length, for dense rungs and for those with windows apart."""
    said, harmed = [], [one for one in rungs if round(one.back, 2) < 0]
    for before, after, dense in (("dense ", "", True), ("", " with windows", False)):
        some = [one for one in rungs if one.dense is dense]
        if some:
            plain, yarn = [one.worse for one in some], [one.stretched - one.within for one in some]
            rungs_s = f"{before}rung{'s' * (len(some) > 1)}{after}"
            said.append(f"on {len(some)} {rungs_s} {spread(plain)} with plain RoPE and {spread(yarn)} with "
                        "YaRN put on")  # fmt: skip
    told = ("The loss beyond the trained length less the loss within it, in nats a byte: "
            f"{'; '.join(said)}.")  # fmt: skip
    if harmed:
        each = ", ".join(f"“{one.title}” (by {-one.back:.2f})" for one in harmed)
        told += f" On {each} YaRN makes what lies beyond worse, not better."
    return told


def part(found: Found, pairs: str) -> Part:
    """The statement with its verdict; pairs: what the configs say."""
    rungs = reaches(found)
    if not rungs:
        return Part(SAID, OPEN, f"{pairs} What the loss is at positions never trained on: {LADDER}")
    near, far = f"{SHORT // 2} to {SHORT - 1}", f"{SHORT} to {LONG - 1:,}"
    head = ["nats a byte at positions", "layers", "seeds",
            f"{near}, plain", f"{far}, plain", f"{far}, YaRN", f"{near}, YaRN"]  # fmt: skip
    rows = [
        [one.title, "dense" if one.dense else "windows", str(one.seeds)]
        + [f"{value:.2f}" for value in (one.within, one.beyond, one.stretched, one.within_stretched)]
        for one in rungs
    ]
    said = decided(found)
    lead = {
        HOLDS: "On every dense rung RoPE alone is no worse beyond the trained length, in every run.",
        PARTLY: "By itself RoPE does not: it is worse beyond the trained length in every run of every dense "
                "rung. It lets "
                "a model be stretched, which a table of positions does not: YaRN, without any training, "
                "takes back more than half of that loss there.",
        UNSEEN: "By itself RoPE does not: it is worse beyond the trained length in every run of every dense "
                "rung, and YaRN without training takes back no more than half of that.",
        OPEN: "The runs of the dense rungs do not agree.",
    }[said]  # fmt: skip
    if not enough(rungs):
        lead = f"It is not decided: {SEEDS} seeds of every dense rung are not in."
    runs = sum(one.seeds for one in rungs)
    twins = " and ".join(f"“{RUNGS[NUMBER[name]].title}” with “{RUNGS[NUMBER[other]].title}”"
                         for name, other in TWINS.items())  # fmt: skip
    return Part(
        SAID, said,
        f"{pairs}\n\n{table(head, rows)}\n\nThe ladder's rungs with RoPE, each at its own rate, after nine "
        f"tenths of its training, in windows of {SHORT} alone: {runs} run{'s' * (runs > 1)}. YaRN "
        f"is put on without a step of training with it. {twins} are one model each until then, and counted "
        "once.",
        f"{lead} {in_words(rungs)} Put on in this way, YaRN changes the loss within the trained length by "
        f"{spread([one.costs for one in rungs])}.",
    )  # fmt: skip
