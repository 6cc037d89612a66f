"""The ladder's comparisons: differences with their intervals, rates, cost against loss.

Lists of numbers in, by model; None or an empty list where there is no run yet, which the picture then says. A
difference that is significant is drawn full and dark, any other hollow and grey.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .style import COLOUR, SMALL, TEXT, Still, begin, finish, headline, inked, printable, sheet

MISSING = "no runs yet"
BITS = "bits per byte"
LOOKS = (  # of several lines in one picture: told apart by colour, by dash and by mark
    ("dense", "-", "o"), ("sink", "--", "s"), ("value", "-.", "^"), ("key", ":", "D"), ("experts", "-", "v"),
    ("query", "--", "P"), ("position", "-.", "X"), ("muted", ":", "<"), ("window", "-", ">"),
    ("ink", "--", "*"), ("dense", ":", "h"), ("value", "-", "d"),
)  # fmt: skip
Maybe = Sequence["float | None"]


def missing(ax: Axes, words: str = MISSING) -> None:
    """Says in the middle of an empty panel that there is nothing to draw."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", fontsize=TEXT,
            color=COLOUR["muted"], bbox={"facecolor": "white", "edgecolor": "none"})  # fmt: skip


def look(n: int) -> dict[str, Any]:
    """How the n-th line is drawn."""
    colour, dash, mark = LOOKS[n % len(LOOKS)]
    return {"color": COLOUR[colour], "linestyle": dash, "marker": mark, "linewidth": 2, "markersize": 7}


def told(x: float) -> str:
    """A difference, in thousandths, with a real minus; nothing has no sign."""
    said = f"{x:+.3f}"
    return said[1:] if not float(said) else said.replace("-", "−")


def _verdict(mean: float, seeds: float | None, windows: float, significant: bool | None) -> str:
    if seeds is None:
        return f"{told(mean)}, one seed"
    wide = f"{told(mean)} ± {math.hypot(seeds, windows):.3f}"
    return wide if significant else f"{wide}: not significant"


def _symmetric(ax: Axes, most: float) -> None:
    """A scale that is straight around zero and logarithmic beyond a hundredth, with ticks on both sides."""
    ax.set_xscale("symlog", linthresh=0.01, linscale=0.7)
    end = 1.3 * most
    least = -2 if end < 1 else -1  # none touch
    ticks = [10.0**e for e in range(least, math.floor(math.log10(end)) + 1)]
    ax.set_xticks([*(-t for t in reversed(ticks)), 0, *ticks],
                  [*(f"−{t:g}" for t in reversed(ticks)), "0", *(f"{t:g}" for t in ticks)])  # fmt: skip
    ax.set_xticks([], minor=True)
    ax.set_xlim(-end, end)


def _levels(ax: Axes, levels: Sequence[Sequence[float]], whole: float | None) -> None:
    """One mark a seed; a line through the means, which is the ladder, or one at the `whole`."""
    for row, seeds in enumerate(levels):
        ax.plot(seeds, [row] * len(seeds), "o", color=COLOUR["dense"], markersize=6, fillstyle="none")
    means = [float(np.mean(seeds)) if len(seeds) else math.nan for seeds in levels]
    if not any(map(math.isfinite, means)):
        missing(ax)
    elif whole is None:  # nothing is drawn through a row that is missing
        ax.plot(means, range(len(means)), color=COLOUR["dense"], linewidth=1.5)
    if whole is not None:
        ax.axvline(whole, color=COLOUR["ink"], linestyle="--", linewidth=1.2)
    said = f"{BITS}, a ring a seed" if whole is None else f"{BITS}, a ring a seed\n(dashed: the whole)"
    ax.set_xlabel(said, fontsize=TEXT)
    ax.grid(axis="x", color=COLOUR["masked"])


def amounts(axis: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5, written out: 200 k, 1 M."""
    def written(x: float, _: object) -> str:
        for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if x >= unit:
                return f"{x / unit:g} {letter}"
        return f"{x:g}"

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(written))
    axis.set_minor_formatter(NullFormatter())


@inked
def differences(
    names: Sequence[str],
    levels: Sequence[Sequence[float]],
    each: Sequence[Sequence[float]],
    over_seeds: Maybe,
    over_windows: Maybe,
    significant: Sequence[bool | None],
    less: str = "less the row before",
    whole: float | None = None,
    title: str = "",
    source: str = "",
) -> Still:
    """Left what each model comes to, right what it differs by, with its 95 % intervals: thick over seeds,
    thin over windows.

    names: one a row, the first on top; levels and each: bits per byte, and differences, seed by seed;
    over_seeds, over_windows: half the widths of the intervals, None where there is none; whole: the level of
    the model that all are compared with, where it is one.
    """
    made = sheet(height=max(4.6, 2.2 + 0.42 * len(names)))
    left, right = made.subplots(1, 2, sharey=True)
    _levels(left, levels, whole)
    right.axvline(0, color=COLOUR["ink"], linewidth=1)
    reach, beside = [0.02], right.get_yaxis_transform()
    for row, (seeds, half, windows, sure) in enumerate(zip(each, over_seeds, over_windows, significant)):
        if not len(seeds):
            said = MISSING if not len(levels[row]) else ""
            right.text(1.02, row, said, transform=beside, va="center", color=COLOUR["muted"])
            continue
        mean, windows = float(np.mean(seeds)), windows or 0.0
        colour = COLOUR["dense"] if sure else COLOUR["muted"]
        if half is not None:
            right.plot([mean - half, mean + half], [row] * 2, color=COLOUR["window"] if sure
                       else COLOUR["masked"], linewidth=9, solid_capstyle="butt")  # fmt: skip
        right.plot([mean - windows, mean + windows], [row] * 2, color=colour, linewidth=1.5)
        right.plot(seeds, [row] * len(seeds), "|", color=colour, markersize=9)
        right.plot(mean, row, "o", color=colour, markersize=8, fillstyle="full" if sure else "none")
        reach.append(abs(mean) + min(max(half or 0.0, windows), max(1.0, abs(mean))))
        right.text(1.02, row, _verdict(mean, half, windows, sure), transform=beside, va="center",
                   color=COLOUR["ink"] if sure else COLOUR["muted"])  # fmt: skip
    _symmetric(right, max(reach))
    right.set_xlabel(f"{BITS}, {less} (left is better;\nlogarithmic beyond ±0.01)", fontsize=TEXT)
    left.set_yticks(range(len(names)), [printable(name, 40) for name in names], fontsize=SMALL)
    left.set_ylim(len(names) - 0.4, -0.6)
    for ax in (left, right):
        ax.tick_params(axis="y", length=0)
    key = [Line2D([], [], color=COLOUR["window"], linewidth=9, label="95 % over seeds"),
           Line2D([], [], color=COLOUR["dense"], linewidth=1.5, label="95 % over windows"),
           Line2D([], [], color=COLOUR["dense"], marker="|", linestyle="", label="one seed"),
           Line2D([], [], color=COLOUR["dense"], marker="o", linestyle="", label="mean, significant"),
           Line2D([], [], color=COLOUR["muted"], marker="o", linestyle="", fillstyle="none",
                  label="mean, not significant or one seed alone")]  # fmt: skip
    made.legend(handles=key, loc="upper left", ncols=5, fontsize=SMALL, handlelength=1.4, columnspacing=1.2)
    alt = describe(names, levels, each, over_seeds, over_windows, significant, less)
    return headline(made, np.array([[left, right]]), title, source, alt)


def describe(
    names: Sequence[str], levels: Sequence[Sequence[float]], each: Sequence[Sequence[float]],
    over_seeds: Maybe, over_windows: Maybe, significant: Sequence[bool | None],
    less: str = "less the row before",
) -> str:  # fmt: skip
    """The differences in words, a line each; the level of what nothing is compared with."""
    lines = [f"Bits per byte, {less}; ± is 95 %."]
    for name, own, seeds, half, windows, sure in zip(names, levels, each, over_seeds, over_windows,
                                                     significant):  # fmt: skip
        words = f"{float(np.mean(own)):.3f}, not compared" if len(own) else MISSING
        if len(seeds):
            words = _verdict(float(np.mean(seeds)), half, windows or 0.0, sure)
        lines.append(f"{name}: {words}.")
    return "\n".join(lines)


@inked
def rates(
    found: Mapping[str, Mapping[float, float | None]],
    title: str = "",
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """The grid of learning rates: bits per byte over the peak rate, a line a model; ringed is the best of a
    whole grid.

    found: by model, then by rate; None for a run that is not in, inf for one that diverged.
    """
    made, ax = begin(ax, 10, 5.6)
    alt, finite, lost = [], False, []
    for n, (name, grid) in enumerate(found.items()):
        points = [(rate, bits) for rate, bits in sorted(grid.items()) if bits is not None]
        ends = [(rate, bits) for rate, bits in points if math.isfinite(bits)]
        lost += [(rate, n) for rate, bits in points if not math.isfinite(bits)]
        partial = "" if len(points) == len(grid) else f" ({len(points)} of {len(grid)} in)"
        ax.plot(*(zip(*ends) if ends else ([], [])), **look(n), label=name + partial)
        if ends:
            finite, best = True, min(ends, key=lambda point: point[1])
            if not partial:
                ax.plot(*best, "o", color=COLOUR["ink"], fillstyle="none", markersize=15)
            alt.append(f"{name}: best {best[1]:.3f} at {best[0]:g}{partial}.")
    for rate, n in lost:
        ax.plot(rate, 0.97, transform=ax.get_xaxis_transform(), **look(n) | {"marker": "x"})
    if not finite:
        missing(ax)
    ax.set_xscale("log")
    every = sorted({rate for grid in found.values() for rate in grid})
    ax.set_xticks(every, [f"{rate:g}" for rate in every])
    ax.set_xticks([], minor=True)
    ends_said = "; × diverged" if lost else ""
    ax.set_xlabel(f"peak learning rate (ringed: the best{ends_said})", fontsize=TEXT)
    ax.set_ylabel(BITS, fontsize=TEXT)
    ax.legend(fontsize=SMALL)
    return finish(made, ax, title, source, "\n".join(alt) or MISSING)


@inked
def cost(
    series: Mapping[str, Sequence[tuple[float, Sequence[float], str]]],
    xlabel: str,
    title: str = "",
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """Loss over cost, on a logarithmic scale: a line through the means of each series, a mark a seed.

    series: by name, (cost, bits per byte seed by seed, what to write beside the point). A point without runs
    is left out, and its number is said in the legend.
    """
    made, ax = begin(ax, 11, 6)
    there, alt = False, []
    for n, (name, points) in enumerate(series.items()):
        known = [(x, bits, word) for x, bits, word in points if len(bits)]
        partial = "" if len(known) == len(points) else f" ({len(known)} of {len(points)} in)"
        means = [(x, float(np.mean(bits))) for x, bits, _ in known]
        ax.plot(*(zip(*means) if means else ([], [])), **look(n), label=name + partial)
        for (x, bits, word), (_, mean) in zip(known, means):
            there = True
            ax.plot([x] * len(bits), bits, "_", color=look(n)["color"], markersize=12)
            beside: Any = {"xytext": (-8, -18), "ha": "right"} if n % 2 else {"xytext": (8, 7), "ha": "left"}
            ax.annotate(word, (x, mean), textcoords="offset points", fontsize=SMALL,
                        color=look(n)["color"], **beside)  # fmt: skip
            alt.append(f"{name}, {word}: {mean:.3f} at {x:,.0f}.")
    if there:
        ax.set_xscale("log")
        ax.margins(0.15, 0.12)
        amounts(ax.xaxis)
    else:
        missing(ax)
    ax.set_xlabel(xlabel, fontsize=TEXT)
    ax.set_ylabel(f"{BITS}, a dash a seed", fontsize=TEXT)
    ax.legend(fontsize=SMALL)
    return finish(made, ax, title, source, "\n".join(alt) or MISSING)
