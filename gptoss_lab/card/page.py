"""docs/models.md: the card of both miniatures, from the recorded numbers, with its pictures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Config
from ..files import whole
from ..mistakes import told_by
from ..weights import load
from . import (
    measured,
    notes,
    of_experts,
    of_heads,
    of_losses,
    of_models,
    of_writing,
    overview,
    pictures,
)
from .overview import Found

PAGE = """# The miniatures

    python -m gptoss_lab.card docs/models.md                      # this page, from the recorded numbers
    python -m gptoss_lab.card docs/models.md --measure            # measures the miniatures anew first
    python -m gptoss_lab.card docs/models.md --measure mini-oss   # one of them

What the shipped models are, how well they do, what can be taught with them, and what has not been shown.
Every number was measured by the command above or comes from the training's own log, and the sentences around
the numbers are chosen by them; the rest, by hand, is in `gptoss_lab/card/notes.py`. With more digits:
`gptoss_lab/assets/results/models/NAME.json`, which `gptoss_lab.card.measured.recorded(NAME)` reads.

{made}

## What can be taught with them

{lists}

{overview}

{sections}

## Side by side

{beside}
"""

SECTION = """## {name}

{what}

{architecture}

### How it was made

{making}

### Bits per byte of held-out text

{domains}

{storing}

### Loss by position

{positions}

### Windows

{windows}

### Heads

{picture_heads}

{previous}

{induction}

### Sinks

{sinks}

{experts}

### The parallel verses: language or topic?

{verses}

### What it writes

{samples}

### Sums

{sums}

### What is not established

{unknown}"""

EXPERTS = """### Experts

{shares}

### What an expert's number tells

{picture}

{information}"""


def picture(name: str, kind: str, alt: str) -> str:
    """A link to a picture of docs/pictures."""
    return f"![{alt}](pictures/{name}_{kind}.png)"


def section(name: str, config: Config, found: Mapping[str, Any], log: Mapping[str, Any]) -> str:
    """One model in full."""
    losses, heads, routed, written = (found[part] for part in ("losses", "heads", "routed", "written"))
    experts = "### Experts\n\nIt has none: every token passes the same MLP."
    if "experts" in routed:
        experts = EXPERTS.format(
            shares=of_experts.shares(routed["experts"]),
            picture=picture(name, "experts", "What an expert's number tells, layer by layer"),
            information=of_experts.information(routed["experts"], routed["verses"]["told"]),
        )
    far, absent = of_losses.far(losses), overview.missing(found)
    said = f"Looked for in this model and not found: {'; '.join(absent)}."
    unknown = [*notes.UNKNOWN[name], *([said] if absent else [])]
    positions = [picture(name, "positions", "Loss by position"), of_losses.by_position(losses), far]
    verses = [of_experts.verses(routed["verses"])]
    if "translation" in routed["verses"]:
        verses.insert(0, picture(name, "verses", "What verses have in common, layer by layer"))
    return SECTION.format(
        name=name, what=notes.INTRODUCTION[name], architecture=of_models.architecture(config),
        making=of_models.making(log), domains=of_losses.by_domain(losses),
        storing=of_models.storing(log, config), positions="\n\n".join(filter(None, positions)),
        windows=of_losses.windows(losses), picture_heads=picture(name, "heads", "What the heads look at"),
        previous=of_heads.previous(heads), induction=of_heads.induction(heads),
        sinks="\n\n".join(filter(None, (of_heads.sinks(heads, config), of_losses.sinks(losses)))),
        experts=experts, verses="\n\n".join(verses), samples=of_writing.samples(written, name),
        sums=of_writing.sums(written), unknown="\n".join(f"- {one}" for one in unknown),
    )  # fmt: skip


def report(found: Found, configs: Mapping[str, Config], logs: Mapping[str, Mapping[str, Any]]) -> str:
    """The page."""
    sections = [section(name, configs[name], one, logs[name]) for name, one in found.items()]
    return PAGE.format(
        made=overview.made(found), lists=overview.lists(found), overview=overview.table_of(found),
        sections="\n\n".join(sections), beside=overview.beside(found),
    )  # fmt: skip


def current(folder: Path = measured.RESULTS) -> str:
    """The page of the shipped models, from what was measured last."""
    found = {name: measured.recorded(name, folder) for name in measured.MODELS}
    return report(found, configs(), {name: of_models.log_of(name) for name in found})


def configs() -> dict[str, Config]:
    """The shipped models' configs."""
    return {name: load(name).config for name in measured.MODELS}


def main(arguments: list[str] | None = None) -> None:
    """`python -m gptoss_lab.card PAGE`: write the page and its pictures; with --measure, measure first."""
    parser = argparse.ArgumentParser(prog="python -m gptoss_lab.card", description=main.__doc__)
    parser.add_argument("page", type=Path, help="the Markdown file to write; pictures go beside it")
    parser.add_argument("--measure", nargs="*", metavar="NAME", choices=measured.MODELS,
                        help="measure anew: both models (minutes on one thread), or these")  # fmt: skip
    parser.add_argument("--results", type=Path, default=measured.RESULTS, metavar="FOLDER",
                        help="where the measurements are; the package's own")  # fmt: skip
    options = parser.parse_args(arguments)
    anew = () if options.measure is None else options.measure or measured.MODELS
    with told_by(parser.prog):
        with whole(options.page) as beside:  # a page that cannot be written is refused before minutes go by
            for name in anew:
                measured.record(name, options.results)
            beside.write_text(current(options.results), encoding="utf-8")
        for path in pictures.draw(options.page.parent / "pictures", options.results):
            print(f"wrote {path}")
    print(f"wrote {options.page}")
