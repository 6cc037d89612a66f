"""docs/ladder.md from the results that are in: `python -m gptoss_lab.training.ladder_report docs/ladder.md`.

Two models are compared seed by seed: runs of one seed read the same bytes in the same order and are measured
on the same held-out windows. The mean of the differences stands beside its 95 % confidence interval, from
Student's t over the seeds. One seed has no such interval, and then none is told; what the choice of windows
alone leaves uncertain is told beside it.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Config
from ..cost import active_parameters, cache_bytes, flop_per_token, parameters
from ..files import whole
from .corpus import DOMAINS
from .ladder import ANCHORS, NUMBER, RATES, RUNGS, STEPS, TOP, Entry, ladder, multiplied, plan, rung, without
from .queue import RESULTS, best_rates, results, score, waiting

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % of t, by the number of values
Found = Mapping[str, Mapping[str, Any]]


def runs_of(config: Config, entries: list[Entry], found: Found) -> dict[int, Mapping[str, Any]]:
    """The results of a config at its chosen rate, by seed; runs that diverged are among them."""
    rates, runs = best_rates(entries, found), {}
    for entry in entries:
        if entry.config == config and isinstance(entry.rate, str) and entry.rate in rates:
            name = entry.id(rates)
            if name in found:
                runs[entry.seed] = found[name]
    return runs


def windows(result: Mapping[str, Any], length: str = "near") -> list[list[float]]:
    """Bits per byte of every window, domain by domain."""
    return [result["windows"][length][domain] for domain in DOMAINS]


def interval(values: list[float]) -> float | None:
    """Half the width of the 95 % confidence interval of their mean; None for one value alone."""
    if len(values) < 2:
        return None
    return STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values))


def compared(ours: Mapping[int, Any], theirs: Mapping[int, Any]) -> str:
    """Ours less theirs in bits per byte, over the seeds that both have: cells for the difference, its
    interval over seeds, and over windows."""
    seeds = [seed for seed in sorted(ours.keys() & theirs.keys())
             if "diverged" not in ours[seed] and "diverged" not in theirs[seed]]  # fmt: skip
    if not seeds:
        return "– | – | –"
    each = [score(ours[seed]) - score(theirs[seed]) for seed in seeds]
    mean, half = statistics.fmean(each), interval(each)
    over_seeds = "–" if half is None else f"{mean - half:+.4f} to {mean + half:+.4f}"
    return f"{mean:+.4f} | {over_seeds} | ±{over_windows(ours, theirs, seeds):.4f}"


def over_windows(ours: Mapping[int, Any], theirs: Mapping[int, Any], seeds: list[int]) -> float:
    """Half the 95 % interval that the choice of held-out windows leaves to the mean difference, for these
    very models: the differences window by window, averaged over seeds; domains are strata."""
    variance = 0.0
    for domain in range(len(DOMAINS)):
        pairs = [zip(windows(ours[seed])[domain], windows(theirs[seed])[domain]) for seed in seeds]
        each = [statistics.fmean(a - b for a, b in column) for column in zip(*pairs)]
        variance += statistics.variance(each) / len(each)
    return 1.96 * math.sqrt(variance) / len(DOMAINS)


def level(runs: Mapping[int, Any]) -> str:
    """Mean bits per byte over seeds, and how many: cells."""
    ended = [score(run) for run in runs.values() if "diverged" not in run]
    lost = f", {len(runs) - len(ended)} diverged" if len(ended) < len(runs) else ""
    return f"{statistics.fmean(ended):.4f} | {len(ended)}{lost}" if ended else f"– | 0{lost}"


def told(result: Mapping[str, Any]) -> str:
    """Bits per byte of one run."""
    return "diverged" if "diverged" in result else f"{score(result):.4f}"


def rates_table(entries: list[Entry], found: Found) -> list[str]:
    """The grid of learning rates: bits per byte of every anchor, and which rate is taken."""
    best = best_rates(entries, found)
    columns = " | ".join(f"{rate:g}" for rate in RATES)
    lines = [f"| | {columns} | taken |", "|---" * (len(RATES) + 2) + "|"]
    for anchor in ANCHORS:
        cells = []
        for rate in RATES:
            result = found.get(Entry(rung(anchor), 0, rate, "").id({}))
            cells.append("–" if result is None else told(result))
        taken = f"{best[anchor]:g}" if anchor in best else "–"
        edge = " (an end of the grid)" if anchor in best and best[anchor] in (RATES[0], RATES[-1]) else ""
        lines.append(f"| {RUNGS[NUMBER[anchor]].title} | {' | '.join(cells)} | {taken}{edge} |")
    return lines


def rungs_table(entries: list[Entry], found: Found) -> list[str]:
    """Every rung beside the one below it."""
    lines = ["| rung | bits per byte | seeds | less the rung below | 95 % over seeds | over windows |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    below: Mapping[int, Any] = {}
    for step, config in zip(RUNGS, ladder()):
        runs = runs_of(config, entries, found)
        lines.append(f"| {step.title} | {level(runs)} | {compared(runs, below)} |")
        below = runs
    return lines


def details_table(entries: list[Entry], found: Found, columns: dict[str, tuple[str, str, str]]) -> list[str]:
    """Numbers of every rung, means over its seeds. columns: heading → where the number lies in a result."""
    lines = ["| rung | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for step, config in zip(RUNGS, ladder()):
        runs = [run for run in runs_of(config, entries, found).values() if "diverged" not in run]
        cells = []
        for field, part, name in columns.values():
            values = [run[field][part][name] for run in runs if part in run[field]]
            cells.append(f"{statistics.fmean(values):.3f}" if values else "–")
        lines.append(f"| {step.title} | {' | '.join(cells)} |")
    return lines


DOMAIN_COLUMNS = {domain: ("bits_per_byte", "near", domain) for domain in DOMAINS}
POSITION_COLUMNS = {
    name.replace("-", "–"): ("nats_by_position", "beyond" if int(name.split("-")[0]) >= 1024 else "far", name)
    for name in ("0-7", "8-31", "32-63", "64-127", "128-255", "256-383", "512-767", "768-1023", "1024-1535",
                 "1536-2047")
}  # fmt: skip


def left_out_table(entries: list[Entry], found: Found) -> list[str]:
    """The top without each change in turn, beside the top."""
    lines = [f"| left out of “{RUNGS[NUMBER[TOP]].title}” | bits per byte | seeds | less the whole | "
             "95 % over seeds | over windows |", "|---|---|---|---|---|---|"]  # fmt: skip
    top = runs_of(rung(TOP), entries, found)
    for name in [name for name in NUMBER if 0 < NUMBER[name] <= NUMBER[TOP]]:
        runs = runs_of(without(name), entries, found)
        lines.append(f"| {RUNGS[NUMBER[name]].title} | {level(runs)} | {compared(runs, top)} |")
    return lines


def others_table(entries: list[Entry], found: Found) -> list[str]:
    """Sizes, numbers of experts, equal totals: as they are."""
    lines = ["| for | model | parameters | a token is multiplied with | bits per byte | seeds |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for purpose in ("size", "number of experts", "equal totals"):
        for config in dict.fromkeys(entry.config for entry in entries if entry.purpose == purpose):
            runs = runs_of(config, entries, found)
            size = f"{parameters(config):,} | {multiplied(config):,}"
            lines.append(f"| {purpose} | {config.name} | {size} | {level(runs)} |")
    return lines


def costs_table() -> list[str]:
    """What every rung costs, from its config alone."""
    lines = ["| rung | parameters | multiplied | FLOP a byte | cache at 1k | at 8k | at 131k |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for step, config in zip(RUNGS, ladder()):
        cache = " | ".join(f"{cache_bytes(config, tokens):,}" for tokens in (1024, 8192, 131072))
        looked_up = active_parameters(config) - multiplied(config)  # a table of positions
        work = flop_per_token(config, 1024) - 2 * looked_up
        size = f"{parameters(config):,} | {multiplied(config):,}"
        lines.append(f"| {step.title} | {size} | {work:,} | {cache} |")
    return lines


PAGE = """# The ladder: from GPT-2 to gpt-oss, one change at a time

    gptoss-lab train ladder --threads 1    # every run, resumable; --plan tells the hours
    python -m gptoss_lab.training.ladder_report docs/ladder.md # this page, from the results

Ctrl-C saves, and the same command goes on. While there is a file `pause` in the queue's folder
(`runs/ladder`) no step begins.

{state}

## What is compared

Every rung is a config that differs from the one below by one named change. So that the change is all
there is to it, the width of the MLP or of the experts is then chosen anew: on every rung a byte is
multiplied with as many parameters as on the first, within 3.5 % (a row of a table that is looked up is
not counted). From the experts on it is 3 % less than on the first: MXFP4 packs widths in steps of 32.

All runs read the same bytes in the same order: {tokens:,} of them in {steps:,} steps, nine tenths of
the steps in windows of 256, the last tenth in windows of 1,024, with YaRN and MXFP4's rounding on where
the rung has them. AdamW, 100 steps of warm-up, then in a straight line to zero. The vocabulary is 256
bytes and an end. The corpora are the package's, each drawn from as often as the others.

The learning rate is searched for at three anchors, with one seed each; a rung takes the rate of the
last anchor at or below it, and the rungs from the experts on that of the last rung. What a change would
do at a rate of its own was not asked.

Bits per byte are means over six kinds of held-out text, in windows of 256 bytes, 64 of each kind.
Differences are taken seed by seed on the same windows; negative is better. “95 % over seeds” is
Student's interval of their mean: with few seeds it is wide, and with one there is none. “Over windows”
is what the choice of windows alone leaves open for these very models: it says nothing of another seed.

## Learning rates

{rates}

## The rungs

{rungs}

By domain, bits per byte:

{domains}

By position, nats a byte, in windows of 1,024, and from 1,024 on in windows of 2,048, which no run was
trained on:

{positions}

## One left out

The order of the rungs matters, so each change is also undone at the top. (The top is here the rung
before MXFP4, whose steps of 32 are too coarse to match. Without RoPE there is no YaRN to keep.)

{left_out}

## Other sizes, other numbers of experts, equal totals

The first and the last rung with 2 and 12 layers. K of E experts, with a token's work kept. And the
smaller side of a change that makes a model larger, widened until both have as many parameters in all.

{others}

## What a rung costs

From the config alone; the cache in bfloat16 bytes. GPT-2's table of positions ends at 1,024.

{costs}

## What a result holds

One JSON file a run, in `gptoss_lab/assets/results/ladder`, written by the queue and never by hand.
`curve`: the training loss, means of `steps` steps, nats a byte. `windows` and `bits_per_byte`: held-out
text in windows of 256 (`near`) and 1,024 bytes (`far`). `nats_by_position`: the same by position, and
`beyond` in windows of 2,048, longer than any that was trained on, where there is no table of positions.
`untaught`: by position before the long windows began, with plain RoPE and with YaRN. `activations`: the
residual after each layer, its largest value and its root mean square. `spikes`: steps whose loss lay
more than six median distances above the fifty before. `balance`: the balance term over the last hundred
steps. `router`: for each layer how even the experts' shares are, and how many bits an expert's number
tells of the domain. `seconds`: wall time of the training, on a machine that did other things too; it is
no benchmark.
"""


def made(entries: list[Entry], found: Found) -> set[str]:
    """The ids of the plan's runs that have a result."""
    rates = best_rates(entries, found)
    settled = [entry for entry in entries if not isinstance(entry.rate, str) or entry.rate in rates]
    return {entry.id(rates) for entry in settled} & found.keys()


def report(found: Found, entries: list[Entry] | None = None) -> str:
    """The page, from the results that are in."""
    entries = plan() if entries is None else entries
    left = len(waiting(entries, found))
    done = len(made(entries, found))
    state = (f"**{done} of {done + left} runs are in.** "
             + ("A dash is a run that is not. Nothing should be concluded from a row with one seed."
                if left else "These are all of them."))  # fmt: skip
    return PAGE.format(
        state=state, steps=STEPS, tokens=STEPS * 2048, rates="\n".join(rates_table(entries, found)),
        rungs="\n".join(rungs_table(entries, found)), left_out="\n".join(left_out_table(entries, found)),
        domains="\n".join(details_table(entries, found, DOMAIN_COLUMNS)),
        positions="\n".join(details_table(entries, found, POSITION_COLUMNS)),
        others="\n".join(others_table(entries, found)), costs="\n".join(costs_table()),
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """`python -m gptoss_lab.training.ladder_report PAGE`: write the page from the results that are in."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("page", type=Path, help="the Markdown file to write")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="the package's own")
    options = parser.parse_args(arguments)
    with whole(options.page) as beside:
        beside.write_text(report(results(options.results)), encoding="utf-8")
    print(f"wrote {options.page}")


if __name__ == "__main__":
    main()
