"""Verdicts that training runs decide: a change with and without, by the results that are in.

    lead = bits per byte with the change − without it          seed by seed, on the same held-out windows

A place is a pair of models that differ in the change: the step up the ladder, and for some claims the
ladder's top beside the top with that change left out. A place needs two seeds of both models. What is asked
of the lead's 95 % interval is a rule for each claim, below; the interval is that of both together, over seeds
(see `training.scatter`) and over held-out windows: √(seeds² + windows²). "Small" is a share of the loss, one
in a hundred unless another is asked for.

Where there are two places the rule is asked at each. One verdict at both is the verdict. One that is open,
for its interval, for want of seeds or for a run that diverged, leaves the claim open. Two decided ones that
differ make "holds partly" where it holds in one of them. Where it holds in neither they make "not seen here"
if one sees no effect, else "does not hold". The numbers of both are told in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ...config import Config
from ...training import shapes
from ...training.ladder import LEFT_OUT, NUMBER, TOP, aside, plan, rung, title_of, without
from ...training.ladder_numbers import Difference, Found, difference, pools, runs_of, signed
from ...training.queue import results
from ...training.scatter import Runs
from .parts import FALSE, HOLDS, LADDER, OPEN, PARTLY, UNSEEN, Part

SMALL, SEEDS = 0.01, 2  # of the loss; seeds that a verdict needs
STEP, AT_TOP = "the step up the ladder", "left out at the top"


def told(lead: Difference) -> str:
    """The numbers of a lead in words."""
    over = f"one seed; 95 % over windows alone: ±{lead.windows:.4f}"
    if lead.over_seeds is not None:
        own = f", by these seeds alone ±{lead.alone:.4f}" if lead.borrowed else ""
        over = (f"95 % over {len(lead.each)} seeds: ±{lead.over_seeds:.4f}{own}, over windows alone: "
                f"±{lead.windows:.4f}; of both together: {ends(lead)}")  # fmt: skip
    return f"{signed(lead.mean, 4)} bits per byte of {lead.level:.3f} ({over})"


def ends(lead: Difference) -> str:
    """The interval that a rule reads, from end to end."""
    return f"{signed(lead.low, 4)} to {signed(lead.high, 4)}"


Rule = Callable[[Difference, float], str]


def gains(lead: Difference, small: float) -> str:
    """It is better: all of the interval below zero. Not seen: all within what is small. False: all above."""
    if lead.high < 0:
        return HOLDS
    if lead.low > 0:
        return FALSE
    return UNSEEN if max(-lead.low, lead.high) <= small else OPEN


def little(lead: Difference, small: float) -> str:
    """It is worse by little at most. False: all of the interval above what is small."""
    if lead.high <= small:
        return HOLDS
    return FALSE if lead.low > small else OPEN


def nothing(lead: Difference, small: float) -> str:
    """It is no worse: zero lies within or above an interval that ends at what is small. Partly: worse, by
    little. False: all of the interval above what is small."""
    if lead.high <= small:
        return PARTLY if lead.low > 0 else HOLDS
    return FALSE if lead.low > small else OPEN


def slightly(lead: Difference, small: float) -> str:
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
        Trial("1a", "Removing dropout raises accuracy, over one epoch", "no-dropout", "gpt2", gains,
              also="no-dropout"),
        Trial("1b", "Dropout brings no benefit over many epochs either",
              "repeated", "repeated-with-dropout", nothing),
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
    return without(name.removeprefix(LEFT_OUT)) if name.startswith(LEFT_OUT) else aside(name)


def runs(name: str, found: Found) -> Runs:
    """The results of such a model by seed."""
    if name in shapes.NAMES:
        return shapes.runs(name, found)
    return runs_of(config_of(name), plan(), found)


def title(name: str) -> str:
    """What such a model is called in a sentence, as in the ladder's tables."""
    return f"“{title_of(config_of(name))}”"


@dataclass(frozen=True)
class Place:
    """A pair of models that differ in one change: what the place is called ("" where there is one alone), the
    model with the change and that without it, the lead (None while no seed has both runs), how many of their
    runs diverged, and what the rule says of it."""

    name: str
    ours: str
    theirs: str
    lead: Difference | None
    diverged: int = 0
    verdict: str = OPEN

    @property
    def enough(self) -> bool:
        """Whether the seeds that a verdict needs are in, and none of the runs diverged: of models that do
        not always end, those that did tell too little."""
        return self.lead is not None and len(self.lead.each) >= SEEDS and not self.diverged

    def told(self) -> str:
        """Its name, the pair, and the numbers."""
        numbers = "no seed has both runs" if self.lead is None else told(self.lead)
        numbers += f"; {self.lost}" if self.diverged else ""
        pair = f"{title(self.ours)} less {title(self.theirs)}"
        return f"{self.name}, {pair}: {numbers}" if self.name else f"{pair}: {numbers}"

    @property
    def lost(self) -> str:
        """How many runs diverged, in words."""
        return f"{self.diverged} of the runs {'have' if self.diverged > 1 else 'has'} diverged"

    def open(self) -> str:
        """Why nothing is decided here."""
        if self.diverged:
            return self.lost
        if self.lead is None or not self.enough:
            return f"{SEEDS} seeds of both models are not in"
        return f"the interval reaches from {ends(self.lead)}"


def compared(ours: str, theirs: str, found: Found, name: str = "") -> Place:
    """Two models side by side, nothing decided."""
    both = runs(ours, found), runs(theirs, found)
    diverged = sum("diverged" in run for side in both for run in side.values())
    return Place(name, ours, theirs, difference(*both, pools(plan(), found).values()), diverged)


def together(verdicts: list[str]) -> str:
    """One verdict from those of all places."""
    if OPEN in verdicts:
        return OPEN
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return PARTLY if HOLDS in verdicts else UNSEEN if UNSEEN in verdicts else FALSE


def decided(number: str, found: Found | None = None, small: float = SMALL) -> tuple[str, tuple[Place, ...]]:
    """The verdict of a trial by its number, and the places that it rests on. found: results by id, the
    package's own unless given; small: a share of the loss. KeyError for a number without a trial."""
    trial, found = TRIALS[number], results() if found is None else found
    places = [compared(trial.ours, trial.theirs, found, STEP if trial.also else "")]
    if trial.also:
        places.append(compared(TOP, LEFT_OUT + trial.also, found, AT_TOP))
    judged = tuple(
        replace(place, verdict=trial.rule(place.lead, small * place.lead.level))
        if place.lead is not None and place.enough else place
        for place in places
    )  # fmt: skip
    return together([place.verdict for place in judged]), judged


def capital(text: str) -> str:
    """With a capital first letter; the rest as it is."""
    return text[:1].upper() + text[1:]


def gained(places: tuple[Place, ...]) -> str:
    """Where the change was of use, for rules that ask for no more than that it does no harm; "" where not."""
    where = [place.name for place in places if place.lead is not None and place.lead.high < 0]
    if not where:
        return ""
    return "The change is for the better, by more than chance." if where == [""] else (
        f"By more than chance the change is for the better: {'; '.join(where)}.")  # fmt: skip


def instead(places: tuple[Place, ...], precisely: Mapping[str, str]) -> str:
    """What may be said instead, given the places' verdicts: a sentence for all of them where they agree, one
    for each where they do not. precisely: by verdict, with {mean} for the lead."""
    verdicts = {place.verdict for place in places}
    if verdicts == {OPEN}:
        why = [f"{place.open()} ({place.name})" if place.name else place.open() for place in places]
        return f"These runs do not decide it: {'; '.join(why)}."
    if OPEN in verdicts:
        said = [f"{place.name} is not decided ({place.open()})" if place.verdict == OPEN
                else f"{place.name} alone would say “{place.verdict}”" for place in places]  # fmt: skip
        return capital("; ".join(said)) + "."
    means = [f"{signed(place.lead.mean, 4)} bits per byte" for place in places if place.lead is not None]
    if len(verdicts) == 1:
        named = [f"{mean} ({place.name})" if place.name else mean for mean, place in zip(means, places)]
        return precisely[verdicts.pop()].format(mean=" and ".join(named))
    each = [f"{capital(place.name)}: {precisely[place.verdict].format(mean=mean)}"
            for mean, place in zip(means, places)]  # fmt: skip
    return " ".join(["The two places differ.", *each])


def part(
    number: str, waits: str, precisely: Mapping[str, str], found: Found | None = None, after: str = ""
) -> Part:
    """The statement with its verdict. waits: what its models are, which is told besides; precisely: what may
    be said instead, a whole sentence for every verdict that the rule can give, with {mean} for the lead;
    after: what is said after it, whichever it is, unless a place is open."""
    trial, found = TRIALS[number], results() if found is None else found
    assert set(precisely) == set(CAN[trial.rule]), number
    verdict, places = decided(number, found)
    if not any(place.enough or place.diverged for place in places):
        return Part(trial.said, OPEN, f"{LADDER} {waits}".strip())
    numbers = [f"{capital(place.told())}." for place in places]
    if trial.beside:
        aside_told = compared(trial.beside, trial.theirs, found).told()
        numbers.append(f"Beside it, and no part of the verdict, {aside_told}.")
    least = f"{SMALL:.0%}".replace("%", " %")
    numbers.append(f"From training runs (`docs/ladder.md`). Small is up to {least} of the loss. {waits}")
    said = [instead(places, precisely)]
    if verdict != OPEN:
        said += [gained(places) if trial.rule in (little, nothing) else "", after]
    return Part(trial.said, verdict, " ".join(numbers).strip(), " ".join(filter(None, said)))
