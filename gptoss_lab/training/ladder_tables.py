"""The tables of docs/ladder.md, from the results that are in. A dash is a number that is not."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import Yarn
from ..cost import cache_bytes, parameters
from .corpus import DOMAINS
from .ladder import ANCHORS, GRIDS, LONG, NUMBER, RATES, RUNGS, STEPS, TOP, Entry, ladder, multiplied
from .ladder_numbers import (
    OVERLAP,
    Difference,
    Found,
    Row,
    Runs,
    bytes_read,
    difference,
    ended,
    flop,
    grid,
    left_out,
    others,
    rungs,
    signed,
)  # fmt: skip
from .lookback import bigrams, lookback
from .outcome import EDGES
from .queue import RESULTS, best_rates

SPEED = RESULTS.parent / "ladder_speed.json"  # benchmarks/ladder_speed.py writes it
ROUTED = NUMBER["experts"]
SWITCH, SETTLED = round(0.9 * STEPS), 25  # the step where windows become longer; how long spikes come of it


def compared(less: Difference | None) -> str:
    """Cells for a difference, its interval over seeds, and over windows."""
    if less is None:
        return "– | – | –"
    half = less.over_seeds
    over = "–" if half is None else f"{signed(less.mean - half, 4)} to {signed(less.mean + half, 4)}"
    return f"{signed(less.mean, 4)} | {over} | ±{less.windows:.4f}"


def level(runs: Runs) -> str:
    """Mean bits per byte over seeds, and how many: cells."""
    row = Row("", "", ladder()[0], runs)
    lost = f", {len(runs) - len(row.levels)} diverged" if len(row.levels) < len(runs) else ""
    return f"{row.level:.4f} | {len(row.levels)}{lost}" if row.levels else f"– | 0{lost}"


def rates_table(entries: list[Entry], found: Found) -> list[str]:
    """The grid of learning rates: bits per byte of every anchor, and which rate is taken."""
    best, told = best_rates(entries, found), grid(entries, found)
    lines = [f"| | {' | '.join(f'{rate:g}' for rate in RATES)} | taken |", "|---" * (len(RATES) + 2) + "|"]
    for anchor in ANCHORS:
        row = told.get(anchor, {})
        cells = ["–" if bits is None else f"{bits:.4f}" if math.isfinite(bits) else "diverged"
                 for bits in map(row.get, RATES)]  # fmt: skip
        taken = f"{best[anchor]:g}" if anchor in best else "–"
        ends = (GRIDS[anchor][0], GRIDS[anchor][-1])
        edge = " (an end of the grid)" if best.get(anchor) in ends else ""
        lines.append(f"| {RUNGS[NUMBER[anchor]].title} | {' | '.join(cells)} | {taken}{edge} |")
    return lines


def changes_table() -> list[str]:
    """What every rung sets, and the width that follows."""
    def told(value: object) -> str:
        return f"× {value.factor:g}" if isinstance(value, Yarn) else f"`{value}`"

    lines = ["| rung | field: on the row before → here | width of MLP or expert |", "|---" * 3 + "|"]
    for n, (step, config) in enumerate(zip(RUNGS, ladder())):
        below = ladder()[max(0, n - 1)]
        fields = [f"`{name}`: {told(getattr(below, name))} → {told(value)}"
                  for name, value in step.changes.items()]  # fmt: skip
        lines.append(f"| {step.title} | {'; '.join(fields) or '–'} | {config.d_ff} |")
    return lines


HEADINGS = "bits per byte | seeds | {} | 95 % over seeds | over windows | at 1,024, ± both |"


def compared_rows(rows: list[Row]) -> list[str]:
    """Rows beside what they are compared with, in windows of 256, and of 1,024."""
    lines = []
    for row in rows:
        far = difference(row.runs, row.against, "far")
        longer = f"{signed(far.mean, 4)} ± {far.within:.4f}" if far else "–"
        lines.append(f"| {row.title} | {level(row.runs)} | {compared(row.less)} | {longer} |")
    return lines


def rungs_table(entries: list[Entry], found: Found) -> list[str]:
    """Every rung beside the one below it."""
    lines = ["| rung | " + HEADINGS.format("less the row before"), "|---" * 7 + "|"]
    return lines + compared_rows(rungs(entries, found))


def left_out_table(entries: list[Entry], found: Found) -> list[str]:
    """The top without each change in turn, beside the top."""
    first = f"| “{RUNGS[NUMBER[TOP]].title}”, but | "
    lines = [first + HEADINGS.format("less the whole"), "|---" * 7 + "|"]
    return lines + compared_rows(left_out(entries, found))


def domains_table(rows: list[Row]) -> list[str]:
    """Each rung less the one before, domain by domain, with the interval of seeds and windows together."""
    lines = [f"| less the row before | {' | '.join(DOMAINS)} |", "|---" * (len(DOMAINS) + 1) + "|"]
    for row in rows:
        each = [difference(row.runs, row.against, domain=name) for name in DOMAINS]
        cells = [f"{signed(less.mean)} ± {less.within:.3f}" if less else "–" for less in each]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines


def by_rate(entries: list[Entry], found: Found) -> dict[str, str]:
    """What changes with the rate alone, in sentences; all "" while the grid is not in. step: at the anchors
    on either side of the step at the experts, with one seed; values: the residual's."""
    grids, best = grid(entries, found), best_rates(entries, found)
    if best.keys() < GRIDS.keys():
        return dict.fromkeys(("step", "values"), "")
    low, high, title = best["swiglu"], best["mxfp4"], RUNGS[NUMBER["swiglu"]].title

    def loses(anchor: str, rate: float) -> str:
        at, own = grids[anchor][rate], grids[anchor][best[anchor]]
        assert at is not None and own is not None
        return f"loses {at - own:.3f}" if math.isfinite(at) else "diverges"

    values = [found[f"swiglu.seed0.lr{rate:g}"]["activations"]["largest"][0] for rate in (low, high)
              if "diverged" not in found[f"swiglu.seed0.lr{rate:g}"]]  # fmt: skip
    grown = (f" The largest after the first layer of “{title}” is {' and '.join(f'{x:.0f}' for x in values)} "
             "at the two.")  # fmt: skip
    return {
        "step": f"The rate is {low:g} up to “sinks” and {high:g} from “experts” on, which is part of the "
                f"step between them: “{title}” {loses('swiglu', high)} at {high:g}, and "
                f"“{RUNGS[-1].title}” {loses('mxfp4', low)} at {low:g} (one seed). “Beside the ladder” has "
                "the rung “experts” at the lower rate.",
        "values": " They depend on the rate too, which changes at “experts”."
                  + (grown if len(values) > 1 else ""),
    }  # fmt: skip


def in_words(rows: list[Row]) -> list[str]:
    """What can be said of every difference, a line each."""
    return [f"- {row.title}: {row.less or 'not enough runs yet'}." for row in rows]


def details_table(rows: list[Row], columns: Mapping[str, Callable[[Row], float | None]],
                  digits: int = 3) -> list[str]:  # fmt: skip
    """Numbers of every rung, means over its seeds. columns: heading → the number."""
    lines = ["| rung | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        values = [number(row) for number in columns.values()]
        cells = ["–" if value is None else f"{value:.{digits}f}" for value in values]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines


def from_result(*path: str) -> Callable[[Row], float | None]:
    """A column: the mean over seeds of a number in a result."""
    return lambda row: row.mean(*path)


DOMAIN_COLUMNS = {domain: from_result("bits_per_byte", "near", domain) for domain in DOMAINS}
POSITION_COLUMNS, BEYOND_COLUMNS = (
    {f"{a}–{b - 1}": from_result("nats_by_position", windows, f"{a}-{b - 1}")
     for a, b in zip(EDGES, EDGES[1:]) if first <= a and b <= last}
    for windows, first, last in (("far", 0, LONG), ("beyond", OVERLAP, 2 * LONG))
)  # fmt: skip


def untaught_columns() -> dict[str, Callable[[Row], float | None]]:
    """The same before the long phase, with plain RoPE and with YaRN."""
    places = [("0-7", "0–7"), ("128-255", "128–255"), ("256-383", "256–383"), ("768-1023", "768–1023")]
    return {f"{title}, {way}": from_result("untaught", key, name)
            for key, way in (("plain", "RoPE"), ("yarn", "YaRN")) for name, title in places}  # fmt: skip


def over_seeds(number: Callable[[Mapping[str, Any]], float]) -> Callable[[Row], float | None]:
    """A column: the mean over seeds of what `number` makes of a result."""
    def mean(row: Row) -> float | None:
        values = [number(run) for run in ended(row.runs).values()]
        return statistics.fmean(values) if values else None

    return mean


def spikes(run: Mapping[str, Any]) -> tuple[int, int]:
    """How many spikes a run had, and how many just after its windows became longer."""
    at_switch = sum(SWITCH <= step < SWITCH + SETTLED for step in run["spikes"])
    return len(run["spikes"]) - at_switch, at_switch


TRAINING_COLUMNS = {
    "spikes": over_seeds(lambda run: spikes(run)[0]),
    "at the switch": over_seeds(lambda run: spikes(run)[1]),
    "largest value, first layer": over_seeds(lambda run: run["activations"]["largest"][0]),
    "last layer": over_seeds(lambda run: run["activations"]["largest"][-1]),
    "root mean square, last layer": over_seeds(lambda run: run["activations"]["rms"][-1]),
}
ROUTER_COLUMNS = {
    "balance (1: even)": from_result("balance"),
    "evenness, mean": over_seeds(lambda run: statistics.fmean(run["router"]["evenness"])),
    "of the least even layer": over_seeds(lambda run: min(run["router"]["evenness"])),
    "bits about the domain, mean": over_seeds(lambda run: statistics.fmean(run["router"]["about_domain"])),
    "of the most telling layer": over_seeds(lambda run: max(run["router"]["about_domain"])),
}


PAIRS = {
    "size": (("mxfp4-2-layers", "gpt2-2-layers"), ("mxfp4", "gpt2"), ("mxfp4-12-layers", "gpt2-12-layers")),
    "number of experts": (
        ("experts-1-of-4", TOP), *((f"experts-2-of-{n}", TOP) for n in (4, 16, 32, 64)),
        ("experts-4-of-16", TOP), ("experts-4-of-16", "experts-2-of-16"),
    ),
    "equal totals": (("rmsnorm", "rope-as-large-as-rmsnorm"), ("experts", "sinks-as-large-as-experts")),
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
    lines = []
    for purpose in purposes:
        for ours, theirs in PAIRS[purpose]:
            told = [f"“{named[name].title}”" for name in (ours, theirs)]
            if theirs == TOP and purpose == "number of experts":
                told[1] += f" ({named[TOP].config.experts_per_token} of {named[TOP].config.n_experts})"
            less = difference(named[ours].runs, named[theirs].runs)
            lines.append(f"- {told[0]} less {told[1]}: {less or 'not enough runs yet'}.")
    return lines


def costs_table() -> list[str]:
    """What every rung costs, from its config alone."""
    headings = "parameters | multiplied | FLOP a byte | bytes read | cache at 1k | at 8k | at 131k"
    lines = [f"| rung | {headings} |", "|---" * 8 + "|"]
    for step, config in zip(RUNGS, ladder()):
        cache = " | ".join(f"{cache_bytes(config, tokens):,}" for tokens in (1024, 8192, 131072))
        size = f"{parameters(config):,} | {multiplied(config):,}"
        lines.append(f"| {step.title} | {size} | {flop(config):,} | {bytes_read(config):,} | {cache} |")
    return lines


def speed(file: Path = SPEED) -> dict[str, Any] | None:
    """What `benchmarks/ladder_speed.py` measured last; None where it never did."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def ratio(ours: list[float], theirs: list[float]) -> str:
    """How many times as fast as theirs, from seconds taken in the same rounds: the median, and the middle
    half of the rounds."""
    each = sorted(b / a for a, b in zip(ours, theirs))
    low, high = each[len(each) // 4], each[-1 - len(each) // 4]
    return f"{statistics.median(each):.2f} ({low:.2f} to {high:.2f})"


def speed_table(timed: Mapping[str, Any] | None) -> list[str]:
    """Training and decoding of every rung, and how many times as fast as the first. timed: see
    `benchmarks/ladder_speed.py`."""
    headings = "training, bytes/s | times GPT-2's | decoding, bytes/s | times GPT-2's"
    lines = [f"| rung | {headings} |", "|---" * 5 + "|"]
    for step in RUNGS:
        cells = ["–"] * 4
        if timed is not None and step.name in timed["training"]:
            cells = []
            for kind in ("training", "decoding"):
                each, first = timed[kind][step.name], timed[kind][RUNGS[0].name]
                rate = timed["bytes"][kind] / statistics.median(each)
                cells += [f"{rate:,.0f}", "1" if step is RUNGS[0] else ratio(each, first)]
        lines.append(f"| {step.title} | {' | '.join(cells)} |")
    return lines


def lookback_tables(rows: list[Row]) -> tuple[list[str], list[str]]:
    """GPT-2's rung and its neighbours beside the table of bigrams, by domain; and what was measured of the
    order of bytes."""
    table = bigrams()
    lines = [f"| | mean | {' | '.join(DOMAINS)} |", "|---" * (len(DOMAINS) + 2) + "|"]
    values: list[tuple[str, list[float | None]]] = [("table of bigrams", [table[name] for name in DOMAINS])]
    for row in rows[: NUMBER["rope"] + 1]:
        bits = [row.mean("bits_per_byte", "near", name) for name in DOMAINS]
        values.append((f"rung “{row.title}”", bits))
    for title, each in values:
        known = [x for x in each if x is not None]
        cells = [f"{x:.2f}" for x in (statistics.fmean(known), *known)] if known else ["–"] * 7
        lines.append(f"| {title} | {' | '.join(cells)} |")
    said = ["| rung, trained anew | whole | shuffled | alone | most to the byte before |", "|---" * 5 + "|"]
    measured = lookback()
    for step in RUNGS:
        if step.name in measured:
            told = measured[step.name]
            cells = [f"{told[name]:.3f}" for name in ("whole", "shuffled", "alone")]
            title = step.title
            if told["done"] < told["steps"]:
                title += f", after {told['done']:,} of {told['steps']:,} steps"
            said.append(f"| {title} | {' | '.join(cells)} | {max(map(max, told['before'])):.1%} |")
    return lines, said
