"""Tables and sentences of docs/ladder.md on what stands beside the rungs: sizes, numbers of experts, equal
totals, single questions, the two shapes."""

from __future__ import annotations

from collections.abc import Sequence

from ..cost import parameters
from .ladder import TOP, Entry, multiplied
from .ladder_numbers import Found, Row, difference, others, pools, rungs
from .ladder_tables import level, said
from .shapes import NAMES, OTHER, RATE, runs, shape

PAIRS = {
    "size": (("mxfp4-2-layers", "gpt2-2-layers"), ("mxfp4", "gpt2"), ("mxfp4-12-layers", "gpt2-12-layers")),
    "number of experts": (
        ("experts-1-of-4", TOP), *((f"experts-2-of-{n}", TOP) for n in (4, 16, 32, 64)),
        ("experts-4-of-16", TOP), ("experts-4-of-16", "experts-2-of-16"),
    ),
    "equal totals": (("rope-as-large-as-rmsnorm", "rmsnorm"), ("experts", "sinks-as-large-as-experts")),
    "the experts' rate": (("experts-slowly", "sinks"), ("experts", "experts-slowly")),
    "Swish": (("swish", "yarn"),),
    "many epochs": (("repeated", "repeated-with-dropout"),),
}  # fmt: skip
SIZES, ASIDE = ("size", "number of experts", "equal totals"), ("the experts' rate", "Swish", "many epochs")


def others_table(purposes: Sequence[str], entries: list[Entry], found: Found) -> list[str]:
    """The models of some purposes: as they are."""
    lines = ["| for | model | parameters | a token is multiplied with | bits per byte | seeds |",
             "|---" * 6 + "|"]  # fmt: skip
    for purpose in purposes:
        for row in others(purpose, entries, found):
            size = f"{parameters(row.config):,} | {multiplied(row.config):,}"
            lines.append(f"| {purpose} | {row.title} | {size} | {level(row.runs)} |")
    return lines


def pairs_in_words(purposes: Sequence[str], entries: list[Entry], found: Found) -> list[str]:
    """The comparisons that those models are for, a line each."""
    named = {row.name: row for row in rungs(entries, found)}
    named |= {row.name: row for purpose in PAIRS for row in others(purpose, entries, found)}
    lines, alike = [], pools(entries, found).values()
    for purpose in purposes:
        for ours, theirs in PAIRS[purpose]:
            told = [f"“{named[name].title}”" for name in (ours, theirs)]
            if theirs == TOP and purpose == "number of experts":
                told[1] += f" ({named[TOP].config.experts_per_token} of {named[TOP].config.n_experts})"
            both = named[ours].runs, named[theirs].runs
            lines.append(f"- {told[0]} less {told[1]}: {said(difference(*both, alike), *both)}.")
    return lines


def shapes_table(found: Found) -> list[str]:
    """The two shapes, at both of their rates."""
    lines = ["| model | peak rate | parameters | a token is multiplied with | bits per byte | seeds |",
             "|---" * 6 + "|"]  # fmt: skip
    for rate in (RATE, OTHER):
        for name in NAMES:
            config = shape(name)
            size = f"{parameters(config):,} | {multiplied(config):,}"
            lines.append(f"| {name} | {rate:g} | {size} | {level(runs(name, found, rate))} |")
    return lines


def shapes_in_words(entries: list[Entry], found: Found) -> list[str]:
    """How they differ, a line for each rate."""
    lines = []
    for rate in (RATE, OTHER):
        theirs, ours = (runs(name, found, rate) for name in NAMES)
        less = said(difference(ours, theirs, pools(entries, found).values()), ours, theirs)
        lines.append(f"- “{NAMES[1]}” less “{NAMES[0]}” at {rate:g}: {less}.")
    same = [Row(name, "", shape(name), {seed: run for seed, run in runs(name, found, RATE).items()
                                        if seed in runs(name, found, OTHER)}) for name in NAMES]  # fmt: skip
    told = [f"“{row.name}” {row.level:.4f}" for row in same if row.level is not None]
    if told:
        lines.append(f"- At {RATE:g} with the seeds that there are at {OTHER:g}: {', '.join(told)}.")
    return lines
