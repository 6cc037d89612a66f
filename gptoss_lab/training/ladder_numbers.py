"""What the ladder's results say: levels, differences and how sure they are, from the results that are in.

Two models are compared seed by seed: runs of one seed read the same bytes in the same order and are measured
on the same held-out windows. The mean of the differences stands beside its 95 % confidence interval over
seeds; one seed has none. What the choice of windows leaves uncertain, for these very models, is the other
part; both together are √(seeds² + windows²). A difference is called significant if it is larger than that.

How far seeds scatter models that are alike tell together (`scatter.Pool`); where two are not in one pool the
interval is Student's, from their own differences alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import Config
from ..cost import active_parameters, bytes_per_token, flop_per_token, parameters
from . import shapes
from .corpus import DOMAINS
from .ladder import LAYERS, LONG, NUMBER, RUNGS, TOP, Entry, ladder, multiplied, rung, title_of, without
from .outcome import EDGES
from .queue import best_rates, score, waiting
from .scatter import Pool, Runs, early, interval, recorded, student

OVERLAP = max(edge for edge in EDGES if edge < LONG)    # where the longest windows are told from
Found = Mapping[str, Mapping[str, Any]]
VERDICTS = "differs by", "not significant"  # how a difference that is judged is told; see `Difference`


def runs_of(config: Config, entries: list[Entry], found: Found) -> dict[int, Mapping[str, Any]]:
    """The results of a config at its chosen rate, by seed; runs that diverged are among them."""
    rates, runs = best_rates(entries, found), {}
    for entry in entries:
        if entry.config == config and isinstance(entry.rate, str) and entry.rate in rates:
            name = entry.id(rates)
            if name in found:
                runs[entry.seed] = found[name]
    return runs


def ended(runs: Runs) -> dict[int, Mapping[str, Any]]:
    """Those that did not diverge."""
    return {seed: run for seed, run in runs.items() if "diverged" not in run}


def pools(entries: list[Entry], found: Found) -> dict[tuple[bool, float], Pool]:
    """The models with RoPE and six layers that read all of the text, at the rate that they are judged at, in
    pools by (whether they have experts, rate). Of models that are one until the long phase the first one with
    YaRN is in, or else the first."""
    kept: dict[tuple[bool, float], dict[str, Runs]] = {}
    also: dict[tuple[bool, float], set[str]] = {}
    for entry in entries:
        config = entry.config
        if config.positions != "rope" or config.n_layers != LAYERS or entry.read is not None:
            continue
        if entry.purpose == "learning rate":  # its models are among the rungs, in their order
            continue
        shaped = entry.purpose == "shape"
        runs = ended(shapes.runs(config.name, found) if shaped else runs_of(config, entries, found))
        if len(runs) < 2 or not recorded(runs):
            continue
        key = config.n_experts is not None, next(iter(runs.values()))["rate"]
        pool, twins = kept.setdefault(key, {}), also.setdefault(key, set())
        mine = recorded(runs)
        twin = next((name for name, each in pool.items() if early(recorded(each)) == early(mine)), None)
        if twin is None:
            pool[config.name] = runs
        elif mine["yarn"] and not recorded(pool[twin])["yarn"]:  # most of the pool have it
            twins.add(twin)
            del pool[twin]
            pool[config.name] = runs
        elif twin != config.name:
            twins.add(config.name)
    return {key: Pool(kept[key], frozenset(also[key])) for key in sorted(kept)}


def over_windows(
    ours: Runs, theirs: Runs, seeds: list[int], windows: str = "near", domains: Sequence[str] | None = None
) -> float:
    """Half the 95 % interval that the choice of held-out windows leaves to the mean difference, for these
    very models: the differences window by window, averaged over seeds; domains are strata."""
    variance, names = 0.0, DOMAINS if domains is None else domains
    for name in names:
        pairs = [zip(ours[seed]["windows"][windows][name], theirs[seed]["windows"][windows][name])
                 for seed in seeds]  # fmt: skip
        each = [statistics.fmean(a - b for a, b in column) for column in zip(*pairs)]
        variance += statistics.variance(each) / len(each)
    return 1.96 * math.sqrt(variance) / len(names)


@dataclass(frozen=True)
class Difference:
    """Ours less theirs in bits per byte, negative is better: `each` seed's, half the interval that `windows`
    leave open, the `level` of theirs, and the `scatter` of a pool that both are in: sd and df."""

    each: tuple[float, ...]
    windows: float
    level: float = math.nan
    scatter: tuple[float, int] | None = None

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.each)

    @property
    def over_seeds(self) -> float | None:
        """Half the 95 % interval over seeds; None for one seed."""
        if len(self.each) < 2 or self.scatter is None:
            return self.alone
        sd, df = self.scatter
        return student(df) * sd * math.sqrt(2 / len(self.each))

    @property
    def alone(self) -> float | None:
        """Half the 95 % interval over seeds that these seeds' own scatter leaves; None for one seed."""
        return interval(list(self.each))

    @property
    def within(self) -> float:
        """Half the interval of both together: other seeds *and* other windows."""
        return math.hypot(self.over_seeds or 0.0, self.windows)

    @property
    def within_alone(self) -> float:
        """The same by these seeds' own scatter."""
        return math.hypot(self.alone or 0.0, self.windows)

    @property
    def borrowed(self) -> bool:
        """Whether it is significant by its pool, and by its own seeds alone would not be."""
        return bool(self.significant) and abs(self.mean) <= self.within_alone

    @property
    def low(self) -> float:
        """That interval's lower end."""
        return self.mean - self.within

    @property
    def high(self) -> float:
        """That interval's upper end."""
        return self.mean + self.within

    @property
    def agree(self) -> bool:
        """Whether every seed has the same sign."""
        return all(x > 0 for x in self.each) or all(x < 0 for x in self.each)

    @property
    def significant(self) -> bool | None:
        """Whether it is larger than the interval of both; None while there is one seed."""
        return None if self.over_seeds is None else abs(self.mean) > self.within

    def __str__(self) -> str:
        """A sentence without its subject."""
        if self.over_seeds is None:
            return f"{signed(self.mean)} with one seed (±{self.windows:.3f} over windows): no verdict"
        told = f"{signed(self.mean)} ± {self.within:.3f} with {len(self.each)} seeds"
        if self.significant:
            own = f"; ±{self.within_alone:.3f} by these seeds alone"
            return f"{VERDICTS[0]} {told}" + "; all seeds agree" * self.agree + own * self.borrowed
        return f"{VERDICTS[1]}: {told}" + (", though all have one sign" if self.agree else "")


def signed(x: float, digits: int = 3) -> str:
    """With its sign, and a real minus: −0.031; what rounds to nothing has none."""
    said = f"{x:+.{digits}f}"
    return said[1:] if not float(said) else said.replace("-", "−")


def difference(
    ours: Runs, theirs: Runs, alike: Iterable[Pool], windows: str = "near",
    domains: Sequence[str] | None = None,
) -> Difference | None:
    """Ours less theirs, over the seeds that both have and that did not diverge; None where there is none.
    alike: pools; windows: `near` or `far`; domains: the mean of these alone."""
    ours, theirs = ended(ours), ended(theirs)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    scores = [[score(runs[seed], windows, domains) for seed in seeds] for runs in (ours, theirs)]
    each = tuple(a - b for a, b in zip(*scores))
    tells = (pool for pool in alike if pool.tells(ours, theirs))
    scatter = next((pool.scatter(windows, domains) for pool in tells), None)
    left_open = over_windows(ours, theirs, seeds, windows, domains)
    return Difference(each, left_open, statistics.fmean(scores[1]), scatter)


@dataclass(frozen=True)
class Row:
    """A model of the ladder, its runs by seed, those of what it is compared with, if anything, and the pools.
    """

    name: str
    title: str
    config: Config
    runs: Runs
    against: Runs = field(default_factory=dict)
    pools: Iterable[Pool] = ()

    def differs(self, windows: str = "near", domains: Sequence[str] | None = None) -> Difference | None:
        """How it differs, in windows of 256 (`near`) or 1,024 (`far`), or in some domains."""
        return difference(self.runs, self.against, self.pools, windows, domains)

    @property
    def less(self) -> Difference | None:
        """How it differs, in windows of 256."""
        return self.differs()

    @property
    def levels(self) -> list[float]:
        """Bits per byte of every run that ended."""
        return [score(run) for run in ended(self.runs).values()]

    @property
    def level(self) -> float | None:
        """Their mean."""
        return statistics.fmean(self.levels) if self.levels else None

    def mean(self, *path: str) -> float | None:
        """The mean over seeds of a number of the results, by its keys; None where none has it."""
        values: list[Any] = [run for run in ended(self.runs).values()]
        for key in path:
            values = [value[key] for value in values if value is not None and key in value]
        return statistics.fmean(values) if values else None


def rungs(entries: list[Entry], found: Found) -> list[Row]:
    """Every rung, less the one below."""
    rows: list[Row] = []
    alike = pools(entries, found).values()
    for step, config in zip(RUNGS, ladder()):
        runs = runs_of(config, entries, found)
        rows.append(Row(step.name, step.title, config, runs, rows[-1].runs if rows else {}, alike))
    return rows


def left_out(entries: list[Entry], found: Found) -> list[Row]:
    """The top without each change in turn, less the top."""
    top, rows, alike = runs_of(rung(TOP), entries, found), [], pools(entries, found).values()
    for step in RUNGS[1 : NUMBER[TOP] + 1]:
        runs = runs_of(without(step.name), entries, found)
        rows.append(Row(step.name, step.undone, without(step.name), runs, top, alike))
    return rows


def others(purpose: str, entries: list[Entry], found: Found) -> list[Row]:
    """The models that the plan has for a purpose: "size", "number of experts", "equal totals", …"""
    configs = dict.fromkeys(entry.config for entry in entries if entry.purpose == purpose)
    return [Row(config.name, title_of(config), config, runs_of(config, entries, found)) for config in configs]


def whole(rows: list[Row]) -> float | None:
    """The level of what `rows` are compared with, over the seeds that any of them has."""
    seeds = {seed for row in rows for seed in ended(row.runs)}
    against = [score(run) for row in rows[:1] for seed, run in ended(row.against).items() if seed in seeds]
    return statistics.fmean(against) if against else None


def drawn(rows: list[Row]) -> dict[str, list[Any]]:
    """Rows as the lists that `figures.ladder.differences` takes."""
    kept = [row.less for row in rows]
    return {
        "names": [row.title for row in rows],
        "levels": [row.levels for row in rows],
        "each": [list(less.each) if less else [] for less in kept],
        "over_seeds": [less.over_seeds if less else None for less in kept],
        "over_windows": [less.windows if less else None for less in kept],
        "significant": [less.significant if less else None for less in kept],
    }


def grid(entries: list[Entry], found: Found) -> dict[str, dict[float, float | None]]:
    """The grid of rates: bits per byte by anchor and rate; None for a run that is not in."""
    told: dict[str, dict[float, float | None]] = {}
    for entry in entries:
        if not isinstance(entry.rate, str) and entry.purpose == "learning rate":
            result = found.get(entry.id({}))
            told.setdefault(entry.config.name, {})[entry.rate] = None if result is None else score(result)
    return told


def looked_up(config: Config) -> int:
    """Parameters of a table of positions, of which a token meets one row alone."""
    return active_parameters(config) - multiplied(config)


def flop(config: Config, context: int = 1024) -> int:
    """FLOP a byte with `context` bytes in view; a table of positions is looked up, not multiplied."""
    return flop_per_token(config, context) - 2 * looked_up(config)


def bytes_read(config: Config) -> int:
    """Weight bytes that decoding one byte reads, as they would be stored; of a table of positions one row,
    and of an embedding that is not the read-out too."""
    width = {"float32": 4, "bfloat16": 2}[config.stored]
    table, row = looked_up(config) * width, config.d_model * width
    return sum(bytes_per_token(config).values()) - table + table // config.context + row * (not config.tied)


def size_of(row: Row) -> int:
    """Parameters in all."""
    return parameters(row.config)


def by_position(row: Row, windows: str = "far") -> list[float | None]:
    """Mean nats a byte between the `EDGES`, in windows of 1,024 (`far`), or, from the last stretch of those
    on, in windows of 2,048 (`beyond`), which are fewer and other text."""
    first = 0 if windows == "far" else OVERLAP
    return [row.mean("nats_by_position", windows, f"{a}-{b - 1}") if a >= first else None
            for a, b in zip(EDGES, EDGES[1:])]  # fmt: skip


def progress(entries: list[Entry], found: Found) -> tuple[int, int]:
    """How many of the plan's runs are in, and how many there are."""
    rates = best_rates(entries, found)
    settled = [entry for entry in entries if not isinstance(entry.rate, str) or entry.rate in rates]
    done = len({entry.id(rates) for entry in settled} & found.keys())
    return done, done + len(waiting(entries, found))
