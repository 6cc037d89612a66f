"""docs/claims.md: every claim, part by part, with its verdict, our numbers and the precise statement."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files import whole
from ...mistakes import told_by
from ...training.queue import results
from . import measured, of_experts, of_models, of_parts
from .of_runs import ASKS, SEEDS, SMALL, TRIALS
from .parts import FALSE, OPEN, PARTLY, UNSEEN, VERDICTS, Claim, table


def section(claim: Claim) -> str:
    """A claim in full."""
    lines = [f"## {claim.number}. {claim.about}"]
    for letter, part in zip("abcdefgh", claim.parts):
        lines += [f"**{claim.number}{letter}. “{part.said}” — {part.verdict}.**", part.found]
        if part.precisely:
            lines.append(f"*Precisely:* {part.precisely}")
    return "\n\n".join(lines)


def overview(claims: tuple[Claim, ...]) -> str:
    """One line a part."""
    rows = [[f"{claim.number}{letter}", part.said, part.verdict]
            for claim in claims for letter, part in zip("abcdefgh", claim.parts)]  # fmt: skip
    return table(["", "what is said", "here"], rows)


PAGE = """# The claims on trial

    python -m gptoss_lab.study.claims docs/claims.md             # this page, from the recorded numbers
    python -m gptoss_lab.study.claims docs/claims.md --measure   # measures the miniatures anew first

What is often said of GPT-2, gpt-oss and their parts, taken apart into statements that can be true or
false. Each has a verdict, the numbers behind it, and what may be said instead. Numbers come from three
places, and each says from which: from definitions and published configs (arithmetic, exact; tested
against formulas written a second time), from the shipped miniatures (measured; small models, so a
verdict is about them), and from training runs (`docs/ladder.md`).

{about}

{overview}

A verdict is one of: {verdicts}.
“{false}” is said where a statement is arithmetic or a definition and comes out otherwise, or where training
runs show otherwise; “{unseen}” where it was looked for, in runs, in a miniature or in published configs, and
no such effect was found; “{open}” where the training runs that decide it are not in, or do not decide it.

Training runs decide {decided} by rules. A lead is the loss with the change
less that without it, over the same held-out windows, seed by seed; it needs {seeds} seeds. Its 95 % interval
is that of both together, √(seeds² + windows²): over seeds (`docs/ladder.md` says how) and over windows.
Small is {small} of the loss. A run that diverged leaves a claim open. Accuracy, quality and knowledge are
read as the loss on held-out text, and nothing else was asked. What is said is that the change

{rules}
- any other interval leaves it open. Where the change is also left out at the ladder's top
  ({twice}), both places must say the same: two that differ make “{partly}” where it
  holds in one; where it holds in neither, “{unseen}” if one sees no effect, else “{false}”; and one
  that is open leaves it open.

Each is judged by itself: of twenty changes that do nothing, about one would pass for one that does
something.

(“Windows of 256 bytes” are pieces of text; a layer's window is how far back it sees.)

Claim 6b has a rule of its own, asked of every run of every dense rung, {seeds} seeds or more of each: “holds”
where plain RoPE is no worse beyond the trained length, “{partly}” where it is worse and YaRN takes back
more than half of that, “{unseen}” where it takes back no more; runs that differ leave it open. A run reads 4
windows of each kind of text for it.

{sections}
"""


def rules() -> str:
    """What each rule asks, a line each, with the claims that it is asked of."""
    asked = {rule: ", ".join(t.number for t in TRIALS.values() if t.rule is rule) for rule in ASKS}
    return "\n".join(f"- {asked[rule]}: {says};" for rule, says in ASKS.items())


def every_claim(found: Mapping[str, Any], runs: Mapping[str, Any] | None = None) -> tuple[Claim, ...]:
    """All claims in order, from what was measured and from the results of training runs (the package's)."""
    runs = results() if runs is None else runs
    made = (*of_parts.claims(found, runs), of_experts.claim(found, runs), *of_models.claims(runs))
    return tuple(sorted(made, key=lambda claim: claim.number))


def report(found: Mapping[str, Any], runs: Mapping[str, Any] | None = None) -> str:
    """The page, from what was measured and from the results of training runs (the package's)."""
    runs = results() if runs is None else runs
    every = every_claim(found, runs)
    machine, versions = found["machine"], found["versions"]
    weights = "; ".join(found["weights"].values())
    about = (
        f"Measured on {found['date'][:10]} on one thread of {machine['processor']} ({machine['system']}),\n"
        f"torch {versions['torch']}, Python {versions['python']}, gptoss_lab {versions['gptoss_lab']}.\n"
        f"Models: {weights}.\nAll of it, with more digits: `gptoss_lab/assets/results/claims.json`."
    )
    return PAGE.format(
        about=about, overview=overview(every), verdicts=", ".join(VERDICTS), false=FALSE, open=OPEN,
        unseen=UNSEEN, partly=PARTLY, decided=", ".join(TRIALS), seeds=SEEDS, rules=rules(),
        small=f"{SMALL:.0%}".replace("%", " %"),
        twice=", ".join(trial.number for trial in TRIALS.values() if trial.also),
        sections="\n\n".join(section(claim) for claim in every),
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """`python -m gptoss_lab.study.claims PAGE`: write the page; with --measure, measure first."""
    parser = argparse.ArgumentParser(prog="python -m gptoss_lab.study.claims", description=main.__doc__)
    parser.add_argument("page", type=Path, help="the Markdown file to write")
    parser.add_argument("--measure", action="store_true", help="measure anew (minutes on one thread)")
    parser.add_argument("--results", type=Path, default=measured.RESULTS, metavar="FILE",
                        help="where the measurements are; the package's own")  # fmt: skip
    options = parser.parse_args(arguments)
    # a page that cannot be written is refused before minutes go by
    with told_by(parser.prog), whole(options.page) as beside:
        find = measured.record if options.measure else measured.recorded
        beside.write_text(report(find(options.results)), encoding="utf-8")
    print(f"wrote {options.page}")
