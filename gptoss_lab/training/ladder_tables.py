"""The tables of docs/ladder.md, from the results that are in. A dash is a number that is not."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..config import Yarn
from .corpus import DOMAINS
from .ladder import (
    ANCHORS,
    GRIDS,
    LONG,
    NUMBER,
    RATES,
    RUNGS,
    STEPS,
    TOP,
    Entry,
    ladder,
    title_of,
)  # fmt: skip
from .ladder_numbers import (
    OVERLAP,
    Difference,
    Found,
    Row,
    by_position,
    ended,
    grid,
    left_out,
    pools,
    rungs,
    signed,
)  # fmt: skip
from .lookback import bigrams, bigrams_by_position, lookback
from .outcome import EDGES
from .queue import best_rates, score
from .scatter import Runs, student

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
        cells = ["not asked" if rate not in GRIDS[anchor] else "–" if (bits := row.get(rate)) is None
                 else f"{bits:.4f}" if math.isfinite(bits) else "diverged" for rate in RATES]  # fmt: skip
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


def windows_alone(less: Difference) -> str:
    """A note for a single seed's interval, which is that over windows alone."""
    return " (windows)" if less.over_seeds is None else ""


def compared_rows(rows: list[Row]) -> list[str]:
    """Rows beside what they are compared with, in windows of 256, and of 1,024."""
    lines = []
    for row in rows:
        far = row.differs("far")
        longer = f"{signed(far.mean, 4)} ± {far.within:.4f}{windows_alone(far)}" if far else "–"
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
        each = [row.differs(domains=[name]) for name in DOMAINS]
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
    if high not in grids["swiglu"] or low not in grids["mxfp4"] or low == high:
        return dict.fromkeys(("step", "values"), "")

    def loses(anchor: str, rate: float) -> str:
        at, own = grids[anchor][rate], grids[anchor][best[anchor]]
        assert at is not None and own is not None
        return f"loses {at - own:.3f}" if math.isfinite(at) else "diverges"

    values = [found[f"swiglu.seed0.lr{rate:g}"]["activations"]["largest"][0] for rate in (low, high)
              if "diverged" not in found[f"swiglu.seed0.lr{rate:g}"]]  # fmt: skip
    grown = f" The largest after the first layer of “{title}” is " + " and ".join(
        f"{x:.0f} at {rate:g}" for x, rate in zip(values, (low, high))) + "."  # fmt: skip
    return {
        "step": f"The rate is {low:g} from “{title}” up to “sinks” and {high:g} from “experts” on, so that "
                f"the step between them changes it too: “{title}” {loses('swiglu', high)} at {high:g}, and "
                f"“{RUNGS[-1].title}” {loses('mxfp4', low)} at {low:g} (one seed). “Beside the ladder” has "
                "the rung “experts” at the lower rate, with more seeds.",
        "values": " They depend on the rate too, which changes at “experts”."
                  + (grown if len(values) > 1 else ""),
    }  # fmt: skip


def in_words(rows: list[Row]) -> list[str]:
    """What can be said of every difference, a line each."""
    return [f"- {row.title}: {said(row.less, row.runs, row.against)}." for row in rows]


def in_short(rows: list[Row]) -> str:
    """Which of these rows differ beyond chance, which cannot be told from nothing, which have no verdict."""
    each = [(row.title, row.less) for row in rows]
    sure = [f"{title} ({signed(less.mean)}{', by its pool alone' * less.borrowed})"
            for title, less in each if less and less.significant]  # fmt: skip
    unsure = [title for title, less in each if less and less.significant is False]
    waiting = [title for title, less in each if less is None or less.significant is None]
    groups = {"beyond chance": sure, "not told from nothing": unsure, "no verdict": waiting}
    return "; ".join(f"{head}: {', '.join(names)}" for head, names in groups.items() if names) + "."


def said(less: Difference | None, *models: Runs) -> str:
    """A difference in words; where there is none, why."""
    if less is not None:
        return str(less)
    lost = sum("diverged" in run for runs in models for run in runs.values())
    return f"no pair of runs ended, {lost} diverged" if lost else "not enough runs yet"


def ranges(rows: list[Row], columns: Mapping[str, Callable[[Row], float | None]], digits: int = 3) -> str:
    """How far apart the seeds of one number of such a table lie: in the median, and at most."""
    spans = []
    for row in rows:
        for name, number in columns.items():
            alone = [number(replace(row, runs={seed: run})) for seed, run in ended(row.runs).items()]
            values = [value for value in alone if value is not None]
            if len(values) > 1:
                spans.append((max(values) - min(values), row.title, name))
    if not spans:
        return ""
    most, title, name = max(spans)
    middle = statistics.median(each for each, *_ in spans)
    where = f"“{title}”, {name}" if len(columns) > 1 else f"“{title}”"
    return f"{middle:.{digits}f} in the median, {most:.{digits}f} at most ({where})"


def apart(rows: list[Row], columns: Mapping[str, Callable[[Row], float | None]], digits: int = 3,
          alike: bool = True) -> str:  # fmt: skip
    """The same as a sentence; where columns are not `alike` in kind, for each of them."""
    if alike:
        told = [ranges(rows, columns, digits)]
    else:
        each = {name: ranges(rows, {name: number}, digits) for name, number in columns.items()}
        told = [f"{name} {said}" for name, said in each.items() if said]
    head = "Between the seeds of a model one and the same entry of the table differs by"
    return f"{head}: {'; '.join(told)}." if any(told) else ""


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


def scatter_in_words(entries: list[Entry], found: Found) -> list[str]:
    """How far runs scatter that differ in their seed alone, a line for each pool that can tell."""
    titles, lines = {entry.config.name: title_of(entry.config) for entry in entries}, []
    for (routed, rate), pool in pools(entries, found).items():
        if (known := pool.scatter()) is None:
            continue
        sd, df = known
        squares = {name: sum(one * one for one in each) for name, each in pool.chance().items()}
        most, of_all = max(squares, key=squares.__getitem__), sum(squares.values())
        part = squares[most] / of_all if of_all else 0.0
        half = {n: student(df) * sd * math.sqrt(2 / n) for n in (2, 3)}
        kind = "models with experts" if routed else "dense models"
        lines.append(
            f"- {kind}, at {rate:g}: a standard deviation of {sd:.4f} bits per byte ({len(squares)} models, "
            f"{df} degrees of freedom; “{titles[most]}” makes {100 * part:.0f} % of the sum of squares). To "
            f"be told apart, two must lie {half[3]:.3f} from one another with three seeds, {half[2]:.3f} "
            "with two, and a little more for the windows."
        )
    return lines


def beside_bigrams(rows: list[Row]) -> str:
    """In how many domains each rung without RoPE is better than the table of bigrams."""
    table, told = bigrams(), []
    for row in rows[: NUMBER["rope"]]:
        bits = {name: row.mean("bits_per_byte", "near", name) for name in DOMAINS}
        better = [name for name, x in bits.items() if x is not None and x < table[name]]
        if None not in bits.values():
            told.append(f"“{row.title}” {len(better)}")
    head = f"Kinds of text, of {len(DOMAINS)}, in which a rung is better than the table"
    return f"{head}: {', '.join(told)}." if told else ""


STARTS, END_AT = ((8, 32), (32, 64)), (128, 256)  # places between which the loss of the first rungs falls


def falls(rows: list[Row]) -> tuple[list[str], str]:
    """How much the loss of the first rungs falls along windows of 1,024, beside the table of bigrams; and in
    words, which of them fall further than the table from wherever one starts."""
    places = [n for n, edges in enumerate(zip(EDGES, EDGES[1:])) if edges in (*STARTS, END_AT)]
    spans = [f"{EDGES[n]}–{EDGES[n + 1] - 1}" for n in places]
    heads = [*spans, *(f"{span} to {spans[-1]}" for span in spans[:-1])]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    steeper: list[str] = []
    table: list[float] = []
    rungs = [(f"rung “{row.title}”", by_position(row)) for row in rows[: NUMBER["rope"] + 1]]
    for title, curve in [("table of bigrams", bigrams_by_position()), *rungs]:
        values = [value for n in places if (value := curve[n]) is not None]
        if len(values) < len(places):
            lines.append(f"| {title} |{' – |' * len(heads)}")
            continue
        fallen = [values[-1] - value for value in values[:-1]]
        table = table or fallen
        cells = [f"{value:.3f}" for value in values] + [signed(x) for x in fallen]
        lines.append(f"| {title} | {' | '.join(cells)} |")
        if all(x < y for x, y in zip(fallen, table)):
            steeper.append(title)
    return lines, f"Further than the table, from both places, falls: {', '.join(steeper) or 'none'}."


def bigrams_table(rows: list[Row]) -> list[str]:
    """GPT-2's rung and its neighbours beside the table of bigrams, by domain."""
    table = bigrams()
    lines = [f"| | mean | {' | '.join(DOMAINS)} |", "|---" * (len(DOMAINS) + 2) + "|"]
    values: list[tuple[str, list[float | None]]] = [("table of bigrams", [table[name] for name in DOMAINS])]
    for row in rows[: NUMBER["rope"] + 1]:
        bits = [row.mean("bits_per_byte", "near", name) for name in DOMAINS]
        values.append((f"rung “{row.title}”", bits))
    for title, each in values:
        known = [x for x in each if x is not None]
        cells = [f"{x:.2f}" for x in (statistics.fmean(known), *known)] if known else ["–"] * (1 + len(each))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def lookback_tables(rows: list[Row]) -> tuple[list[str], list[str]]:
    """What was measured of the order of bytes, a line each rung that was trained anew; and what the shuffle
    costs it, by domain."""
    heads = ["rung, trained anew", "bits per byte (as recorded)", "whole", "shuffled", "alone",
             "most to the byte before"]  # fmt: skip
    lines, measured = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"], lookback()
    costs = [f"| the shuffle costs | mean | {' | '.join(DOMAINS)} |", "|---" * (len(DOMAINS) + 2) + "|"]
    for row in rows:
        if row.name not in measured:
            continue
        told = measured[row.name]
        run, part = row.runs.get(told["seed"]), told["done"] < told["steps"]
        title = row.title + (f", after {told['done']:,} of {told['steps']:,} steps" if part else "")
        stored = f"{score(run):.4f}" if run and not part else "–"
        cells = [f"{told[name]:.3f}" for name in ("whole", "shuffled", "alone")]
        most = max(map(max, told["before"]))
        cells = [f"{told['bits_per_byte']:.4f} ({stored})", *cells, f"{100 * most:.1f} %"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
        each = [told, *(told["by_domain"][name] for name in DOMAINS)]
        cells = [signed(bits["shuffled"] - bits["whole"], 2) for bits in each]
        costs.append(f"| {title} | {' | '.join(cells)} |")
    return lines, costs
