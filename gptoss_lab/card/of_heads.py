"""The heads in words: previous token, induction, first token, sinks. What counts as found is said first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config import Config
from .attending import best
from .words import difference, heads, listed, number, ranged, table

PREVIOUS = 0.5  # of its attention: a previous-token head
NOTABLE = 0.25  # heads that are named besides
BY_PLACE = 0.8  # of its share is left in shuffled text: it goes by place
INDUCTION, CLEARLY = 0.2, 3  # a share, and how many times that without repetition
PARKED = 0.2  # at the first token, and `CLEARLY` times the even share


def mean(share: Sequence[Sequence[float]]) -> float:
    """Over all heads."""
    return sum(map(sum, share)) / sum(map(len, share))


def previous_found(found: Mapping[str, Any]) -> bool:
    """Whether there is a previous-token head."""
    n, h = best(found["previous"]["share"])
    return bool(found["previous"]["share"][n][h] >= PREVIOUS)


def previous(found: Mapping[str, Any]) -> str:
    """The token before."""
    told = found["previous"]
    n, h = best(told["share"])
    share, left, alone = told["share"][n][h], told["within"][n][h], told["even"][n]
    mixed, there = told["shuffled"][n][h], previous_found(found)
    numbers = (
        f"gives the token before {number(share)} ± {number(left)} of its attention. An even share there "
        f"would "
        f"be {number(alone)}; the mean over all heads is {number(mean(told['share']))}"
    )
    lines = [
        f"**A previous-token head: layer {n} head {h}.** It {numbers}." if there else
        f"**No previous-token head was found.** The nearest, layer {n} head {h}, {numbers}."
    ]  # fmt: skip
    by = "goes by place, whatever stands there" if mixed >= BY_PLACE * share else (
        "goes in part by what the tokens are"
    )  # fmt: skip
    if share >= NOTABLE:
        lines.append(f"In the same text with the tokens of every window shuffled it is {number(mixed)}: the "
                     f"head {by}.")  # fmt: skip
    others = [name for name in heads(told["share"], NOTABLE) if not name.startswith(f"layer {n} head {h} ")]
    if others:
        lines.append(f"Others with {NOTABLE} or more: {listed(others)}.")
    off = found["silenced"]
    rest = [more for head, more in enumerate(off["more"]) if head != h]
    lines.append(
        f"Silencing layer {n} head {h} {difference(off['more'][h], off['within'][h], 'bits per byte', 4)}; "
        f"silencing another head of that layer alone, {ranged(rest, 4)}"
        + (": it is missed more than its neighbours." if off["more"][h] > max(rest) + off["within"][h] else
           ": it is missed no more than its neighbours." if off["more"][h] <= max(rest) else ".")
    )  # fmt: skip
    rule = (f"(Called so: a head that gives the token before at least {PREVIOUS} of its attention, over "
            f"{found['windows']} held-out windows of {found['length']} tokens, all domains.)")  # fmt: skip
    return " ".join([*lines, rule])


def induction_head(found: Mapping[str, Any]) -> tuple[str, int, int]:
    """Of the passages of random tokens, that in which a head stands out most, with the head."""
    margins = {}
    for name, told in found["copying"].items():
        if name.startswith("random"):
            apart = [[s - c for s, c in zip(*rows)] for rows in zip(told["score"], told["control"])]
            n, h = best(apart)
            margins[name] = (apart[n][h], n, h)
    name = max(margins, key=lambda one: margins[one][0])
    return name, *margins[name][1:]


def induction_found(found: Mapping[str, Any]) -> bool:
    """Whether there is an induction head."""
    name, n, h = induction_head(found)
    told = found["copying"][name]
    score, control = told["score"][n][h], told["control"][n][h]
    return bool(score >= INDUCTION and score >= CLEARLY * control)


def induction(found: Mapping[str, Any]) -> str:
    """What comes of reading a passage twice."""
    name, n, h = induction_head(found)
    told, there = found["copying"][name], induction_found(found)
    numbers = (
        f"gives {number(told['score'][n][h])} of its attention to the token after the earlier occurrence "
        f"where "
        f"{told['length']} random tokens stand twice, and {number(told['control'][n][h])} to the same place "
        f"where they were preceded by others; an even share would be {number(told['even'][n])}"
    )
    first = (f"**An induction head: layer {n} head {h}.** It {numbers}." if there else
             f"**No induction head was found.** The nearest, layer {n} head {h}, {numbers}.")  # fmt: skip
    rows, gains = [], []
    for kind, one in found["copying"].items():
        source = "random tokens" if kind.startswith("random") else "tokens of held-out text"
        what = f"{one['length']} {source}"
        rows.append([what, str(one["passages"]), number(one["other"]), number(one["copied"]),
                     f"{number(one['more'])} ± {number(one['within'])}"])  # fmt: skip
        gains.append(f"{what}: reading them before "
                     f"{difference(one['more'], one['within'], 'nats a token')}")  # fmt: skip
    head = ["passage", "passages", "after another", "read before", "difference, nats a token"]
    rule = (f"(Called so: a head that gives that token at least {INDUCTION}, and at least {CLEARLY} times "
            f"what "
            "it gives to that place without repetition.)")  # fmt: skip
    told_loss = "; ".join(gains)
    return (f"{first} {rule}\n\nWhat it is worth to have read a passage before:\n\n{table(head, rows)}\n\n"
            f"{told_loss[0].upper()}{told_loss[1:]}.")  # fmt: skip


def first_token_found(found: Mapping[str, Any]) -> bool:
    """Whether a head parks its attention at the first token."""
    n, h = best(found["first"]["share"])
    share, alone = found["first"]["share"][n][h], found["first"]["even"][n]
    return bool(share >= PARKED and share >= CLEARLY * alone)


def first_token(found: Mapping[str, Any], config: Config) -> str:
    """Whether attention is parked at the first token."""
    told = found["first"]
    n, h = best(told["share"])
    share, alone, there = told["share"][n][h], told["even"][n], first_token_found(found)
    why = (" (models without sinks are known to do so, arXiv 2309.17453)" if not config.sinks else "")
    begin = (f"**Attention is parked at the first token{why}:** layer {n} head {h} gives it" if there else
             f"**No head parks its attention at the first token{why}.** The most, layer {n} head {h}, is")
    return f"{begin} {number(share)}, where an even share is {number(alone)}."  # fmt: skip


def sinks(found: Mapping[str, Any], config: Config) -> str:
    """What the sinks take; or that there are none."""
    if "sinks" not in found:
        return f"{config.name} has no sinks. {first_token(found, config)}"
    told = found["sinks"]
    rows = []
    for n, (row, spots) in enumerate(zip(told["share"], told["by_span"])):
        band = f" (window of {config.windows[n]})" if config.windows[n] else ""
        rows.append([f"layer {n}{band}", number(sum(row) / len(row)), number(min(row)), number(max(row)),
                     *map(number, spots)])  # fmt: skip
    head = ["", "mean", "least head", "most", *(f"at {span}" for span in told["spans"])]
    some = heads(told["share"], NOTABLE)
    count = sum(value >= NOTABLE for row in told["share"] for value in row)
    every = sum(map(len, told["share"]))
    named = f": {listed(some)}" if some else ""
    return (
        f"The share of attention that the sinks take, over {found['windows']} windows of {found['length']} "
        f"tokens, and by the position of the query:\n\n{table(head, rows)}\n\n"
        f"The sinks take {number(mean(told['share']))} of all attention. {count} of {every} heads give "
        f"theirs "
        f"a quarter or more{named}. {first_token(found, config)}"
    )
