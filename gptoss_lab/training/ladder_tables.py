"""The tables of docs/ladder.md, from the results that are in. A dash is a number that is not."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..cost import cache_bytes, parameters
from .corpus import DOMAINS
from .ladder import ANCHORS, GRIDS, NUMBER, RATES, RUNGS, TOP, Entry, ladder, multiplied
from .ladder_numbers import (
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


def compared(less: Difference | None) -> str:
    """Cells for a difference, its interval over seeds, and over windows."""
    if less is None:
        return "– | – | –"
    half = less.seeds
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


HEADINGS = "bits per byte | seeds | {} | 95 % over seeds | over windows |"


def rungs_table(entries: list[Entry], found: Found) -> list[str]:
    """Every rung beside the one below it."""
    rows = rungs(entries, found)
    lines = ["| rung | " + HEADINGS.format("less the rung below"), "|---" * 6 + "|"]
    return lines + [f"| {row.title} | {level(row.runs)} | {compared(row.less)} |" for row in rows]


def left_out_table(entries: list[Entry], found: Found) -> list[str]:
    """The top without each change in turn, beside the top."""
    rows, first = left_out(entries, found), f"| left out of “{RUNGS[NUMBER[TOP]].title}” | "
    lines = [first + HEADINGS.format("less the whole"), "|---" * 6 + "|"]
    return lines + [f"| {row.title} | {level(row.runs)} | {compared(row.less)} |" for row in rows]


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
POSITION_COLUMNS = {
    f"{a}–{b - 1}": from_result("nats_by_position", "beyond" if a >= 1024 else "far", f"{a}-{b - 1}")
    for a, b in zip(EDGES, EDGES[1:])
}


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


TRAINING_COLUMNS = {
    "spikes": over_seeds(lambda run: len(run["spikes"])),
    "largest value, first layer": over_seeds(lambda run: run["activations"]["largest"][0]),
    "last layer": over_seeds(lambda run: run["activations"]["largest"][-1]),
    "root mean square, last layer": over_seeds(lambda run: run["activations"]["rms"][-1]),
}
ROUTER_COLUMNS = {
    "balance (1: even)": from_result("balance"),
    "evenness, mean": over_seeds(lambda run: statistics.fmean(run["router"]["evenness"])),
    "least even layer": over_seeds(lambda run: min(run["router"]["evenness"])),
    "bits about the domain, mean": over_seeds(lambda run: statistics.fmean(run["router"]["about_domain"])),
    "most telling layer": over_seeds(lambda run: max(run["router"]["about_domain"])),
}


def others_table(entries: list[Entry], found: Found) -> list[str]:
    """Sizes, numbers of experts, equal totals: as they are."""
    lines = ["| for | model | parameters | a token is multiplied with | bits per byte | seeds |",
             "|---" * 6 + "|"]  # fmt: skip
    for purpose in ("size", "number of experts", "equal totals"):
        for row in others(purpose, entries, found):
            size = f"{parameters(row.config):,} | {multiplied(row.config):,}"
            lines.append(f"| {purpose} | {row.name} | {size} | {level(row.runs)} |")
    return lines


def pairs_in_words(entries: list[Entry], found: Found) -> list[str]:
    """The comparisons that those models are for, a line each."""
    named = {row.name: row for row in rungs(entries, found)}
    for purpose in ("size", "number of experts", "equal totals"):
        named |= {row.name: row for row in others(purpose, entries, found)}
    pairs = [("mxfp4-2-layers", "gpt2-2-layers"), ("mxfp4", "gpt2"), ("mxfp4-12-layers", "gpt2-12-layers"),
             ("experts-1-of-4", TOP), ("experts-4-of-16", TOP),
             *((f"experts-2-of-{n}", TOP) for n in (4, 16, 32, 64)),
             ("rmsnorm", "rope-as-large-as-rmsnorm"), ("experts", "sinks-as-large-as-experts")]  # fmt: skip
    lines = []
    for ours, theirs in pairs:
        less = difference(named[ours].runs, named[theirs].runs)
        lines.append(f"- {ours}, less {theirs}: {less or 'not enough runs yet'}.")
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
