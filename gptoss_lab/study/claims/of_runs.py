"""Verdicts that training runs decide: a change with and without, by the results that are in.

    lead = bits per byte with the change − without it          seed by seed, on the same held-out windows

A place is a pair of models that differ in the change: the step up the ladder, and for some claims the
ladder's top beside the top with that change left out. A place needs two seeds of both models. What is asked
of the lead's 95 % interval is a rule for each claim, below; the interval is the wider of two, over seeds
(Student's t) and over held-out windows. "Small" is a share of the loss, one in a hundred unless another is
asked for.

Where there are two places the rule is asked at each. One verdict at both is the verdict. One that is open,
for its interval or for want of seeds, leaves the claim open. Two decided ones that differ make "holds
partly": it is so in one place, or more so; but where it holds in neither, not even partly (no effect in one,
the opposite in the other), the weaker word stands, "not seen here". The numbers of both are told in any case.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...config import Config
from ...training import shapes
from ...training.ladder import NUMBER, RUNGS, TOP, aside, plan, rung, title_of, without
from ...training.ladder_numbers import interval, over_windows, runs_of, signed
from ...training.queue import results, score
from .parts import FALSE, HOLDS, LADDER, OPEN, PARTLY, UNSEEN, Part

Found = Mapping[str, Mapping[str, Any]]
Runs = Mapping[int, Mapping[str, Any]]
SMALL, SEEDS = 0.01, 2  # of the loss; seeds that a verdict needs
STEP, LEFT_OUT = "the step up the ladder", "left out at the top"
LEFT = "without-"  # begins the name of the top with a change left out


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
    def half(self) -> float:
        """Half the interval that a rule reads: the wider of the two."""
        return max(self.within or 0.0, self.windows)

    @property
    def low(self) -> float:
        """That interval's lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """That interval's upper end."""
        return self.mean + self.half

    def told(self) -> str:
        """The numbers in words."""
        over = f"one seed; 95 % over windows alone: ±{self.windows:.4f}"
        if self.within is not None:
            wider = f"{signed(self.low, 4)} to {signed(self.high, 4)}"
            over = (f"95 % over {self.seeds} seeds: ±{self.within:.4f}, over windows alone: "
                    f"±{self.windows:.4f}; by the wider of the two: {wider}")  # fmt: skip
        return f"{signed(self.mean, 4)} bits per byte of {self.level:.3f} ({over})"


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


Rule = Callable[[Lead, float], str]


def gains(lead: Lead, small: float) -> str:
    """It is better: all of the interval below zero. Not seen: all within what is small. False: all above."""
    if lead.high < 0:
        return HOLDS
    if lead.low > 0:
        return FALSE
    return UNSEEN if max(-lead.low, lead.high) <= small else OPEN


def little(lead: Lead, small: float) -> str:
    """It is worse by little at most. False: all of the interval above what is small."""
    if lead.high <= small:
        return HOLDS
    return FALSE if lead.low > small else OPEN


def nothing(lead: Lead, small: float) -> str:
    """It is no worse: zero lies within or above an interval that ends at what is small. Partly: worse, by
    little. False: all of the interval above what is small."""
    if lead.high <= small:
        return PARTLY if lead.low > 0 else HOLDS
    return FALSE if lead.low > small else OPEN


def slightly(lead: Lead, small: float) -> str:
    """It is worse, by little. Partly: by more than that. Not seen: zero is in an interval all within what is
    small. False: it is better."""
    if lead.high < 0:
        return FALSE
    if lead.low > 0:
        return HOLDS if lead.high <= small else PARTLY if lead.low > small else OPEN
    return UNSEEN if max(-lead.low, lead.high) <= small else OPEN


CAN: dict[Rule, tuple[str, ...]] = {  # what a rule can give besides "open"
    gains: (HOLDS, UNSEEN, FALSE), little: (HOLDS, FALSE), nothing: (HOLDS, PARTLY, FALSE),
    slightly: (HOLDS, PARTLY, UNSEEN, FALSE),
}  # fmt: skip
ASKS: dict[Rule, str] = {  # the rules in words, for the page
    gains: f"is better: “{HOLDS}” where all of the interval is below zero, “{FALSE}” where all is above, "
           f"“{UNSEEN}” where zero is in it and it reaches no farther than what is small either way",
    little: f"is worse by little at most: “{HOLDS}” where the interval ends at what is small or below, "
            f"“{FALSE}” where all is above what is small",
    nothing: f"is no worse: the same, but “{PARTLY}” where all is above zero and it ends at what is small or "
             "below",
    slightly: f"is slightly worse: “{HOLDS}” where all is above zero and it ends at what is small or below, "
              f"“{PARTLY}” where all is above what is small, “{UNSEEN}” as for the first, “{FALSE}” where "
              "all is below zero",
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """What decides a statement: its number and words, the model with the change and that without it, and the
    rule; with `also`, the rung that is left out at the top, as a second place; with `beside`, a model whose
    lead over `theirs` is told and decides nothing."""

    number: str
    said: str
    ours: str
    theirs: str
    rule: Rule
    also: str | None = None
    beside: str | None = None


TRIALS = {
    trial.number: trial
    for trial in (
        Trial("1a", "Dropout costs compute for no benefit; removing it raises accuracy, over one epoch",
              "no-dropout", "gpt2", gains, also="no-dropout"),
        Trial("1b", "Dropout costs compute for no benefit over many epochs too",
              "repeated", "repeated-with-dropout", gains),
        Trial("2d", "Swish is nearly as good as GELU", "swish", "yarn", little),
        Trial("3b", "The parameters that experts add bring knowledge", "experts", "sinks", gains,
              also="experts", beside="experts-slowly"),
        Trial("4b", "Grouped queries have little impact on quality", "grouped", "swiglu", little,
              also="grouped"),
        Trial("4d", "Windows cost no quality", "windows", "grouped", nothing, also="windows"),
        Trial("5b", "RMSNorm is slightly less accurate than LayerNorm", "rmsnorm", "no-dropout", slightly,
              also="rmsnorm"),
        Trial("8b", "Qwen3's shape learns more than gpt-oss's", "qwen3-shaped", "gpt-oss-shaped", gains),
    )
}  # fmt: skip


def config_of(name: str) -> Config:
    """The config of a rung, of the top without a change ("without-…"), of a shape, or of a model aside."""
    if name in shapes.NAMES:
        return shapes.shape(name)
    if name in NUMBER:
        return rung(name)
    return without(name.removeprefix(LEFT)) if name.startswith(LEFT) else aside(name)


def runs(name: str, found: Found) -> Runs:
    """The results of such a model by seed."""
    if name in shapes.NAMES:
        return shapes.runs(name, found)
    return runs_of(config_of(name), plan(), found)


def title(name: str) -> str:
    """What such a model is called in a sentence, as in the ladder's tables."""
    if name.startswith(LEFT):
        return f"the same with {RUNGS[NUMBER[name.removeprefix(LEFT)]].undone}"
    told = title_of(config_of(name))
    return told if "“" in told else f"“{told}”"


@dataclass(frozen=True)
class Place:
    """A pair of models that differ in one change: what the place is called ("" where there is one alone), the
    pair in words, its lead (None while no seed has both runs), and what the rule says of it."""

    name: str
    pair: str
    lead: Lead | None
    verdict: str = OPEN

    @property
    def enough(self) -> bool:
        """Whether the seeds that a verdict needs are in."""
        return self.lead is not None and self.lead.seeds >= SEEDS

    def told(self) -> str:
        """Its name, the pair, and the numbers."""
        numbers = "no seed has both runs yet" if self.lead is None else self.lead.told()
        return f"{self.name}, {self.pair}: {numbers}" if self.name else f"{self.pair}: {numbers}"


def compared(ours: str, theirs: str, found: Found, name: str = "") -> Place:
    """Two models side by side, nothing decided."""
    said = title(ours) if title(ours).startswith("“") else f"{title(ours)},"
    pair = f"{said} less {title(theirs)}"
    return Place(name, pair, lead(runs(ours, found), runs(theirs, found)))


def together(verdicts: list[str]) -> str:
    """One verdict from those of all places."""
    if OPEN in verdicts:
        return OPEN
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return PARTLY if {HOLDS, PARTLY} & set(verdicts) else UNSEEN


def decided(number: str, found: Found | None = None, small: float = SMALL) -> tuple[str, tuple[Place, ...]]:
    """The verdict of a trial by its number, and the places that it rests on. found: results by id, the
    package's own unless given; small: a share of the loss. KeyError for a number without a trial."""
    trial, found = TRIALS[number], results() if found is None else found
    places = [compared(trial.ours, trial.theirs, found, STEP if trial.also else "")]
    if trial.also:
        places.append(compared(TOP, LEFT + trial.also, found, LEFT_OUT))
    judged = tuple(
        Place(place.name, place.pair, place.lead, trial.rule(place.lead, small * place.lead.level))
        if place.lead is not None and place.enough else place
        for place in places
    )  # fmt: skip
    return together([place.verdict for place in judged]), judged


def capital(text: str) -> str:
    """With a capital first letter; the rest as it is."""
    return text[:1].upper() + text[1:]


def instead(places: tuple[Place, ...], precisely: Mapping[str, str]) -> str:
    """What may be said instead, given the places' verdicts: a sentence for all of them where they agree, one
    for each where they do not. precisely: by verdict, with {mean} for the lead."""
    verdicts = {place.verdict for place in places}
    if verdicts == {OPEN}:
        return "The seeds that are in do not decide it."
    if OPEN in verdicts:
        said = [f"{place.name} is not decided" if place.verdict == OPEN
                else f"{place.name} alone would say “{place.verdict}”" for place in places]  # fmt: skip
        return capital("; ".join(said)) + "."
    means = [f"{signed(place.lead.mean, 4)} bits per byte" for place in places if place.lead is not None]
    if len(verdicts) == 1:
        named = [f"{mean} ({place.name})" if place.name else mean for mean, place in zip(means, places)]
        return precisely[verdicts.pop()].format(mean=" and ".join(named))
    each = [f"{capital(place.name)}: {precisely[place.verdict].format(mean=mean)}"
            for mean, place in zip(means, places)]  # fmt: skip
    return " ".join(["The two places differ.", *each])


def part(number: str, waits: str, precisely: Mapping[str, str], found: Found | None = None) -> Part:
    """The statement with its verdict. waits: what its models are, which is told besides; precisely: what may
    be said instead, a whole sentence for every verdict that the rule can give, with {mean} for the lead."""
    trial, found = TRIALS[number], results() if found is None else found
    assert set(precisely) == set(CAN[trial.rule]), number
    verdict, places = decided(number, found)
    if not any(place.enough for place in places):
        return Part(trial.said, OPEN, f"{LADDER} {waits}".strip())
    told = [f"{capital(place.told())}." for place in places]
    if trial.beside:
        aside_told = compared(trial.beside, trial.theirs, found).told()
        told.append(f"Beside it, and no part of the verdict, {aside_told}.")
    least = f"{SMALL:.0%}".replace("%", " %")
    told.append(f"From training runs (`docs/ladder.md`). Small is up to {least} of the loss. {waits}")
    return Part(trial.said, verdict, " ".join(told).strip(), instead(places, precisely))
