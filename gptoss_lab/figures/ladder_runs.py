"""How the ladder's runs went: training loss, loss by position, spikes and largest values, the router.

Lists of numbers in, by model; what has no run yet is said in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .ladder import MISSING, amounts, look, missing
from .style import COLOUR, SMALL, TEXT, Still, begin, finish, headline, inked, printable, sheet

Curve = tuple[Sequence[float], Sequence[float]]  # steps, nats a byte


def _spread(ax: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Writes names right of the ends of lines, moved apart so that none covers another: (x, y, name,
    colour)."""
    low, high = ax.get_ylim()
    apart, last = (high - low) / 24, -math.inf
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        last = max(y, last + apart)
        ax.annotate(name, (x, y), (1.015, last), textcoords=ax.get_yaxis_transform(), va="center",
                    color=colour, fontsize=SMALL,
                    arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0,
                                "relpos": (0, 0.5)})  # fmt: skip


@inked
def curves(
    series: Mapping[str, Curve],
    live: Curve | None = None,
    levels: Mapping[str, float] | None = None,
    title: str = "",
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """Training loss over steps, a line a model named at its end; live: a run that is being trained now, in
    thick rings; levels: other numbers to draw as dotted lines, by name."""
    made, ax = begin(ax, 11, 6)
    ends: list[tuple[float, float, str, str]] = []
    for n, (name, (steps, nats)) in enumerate(series.items()):
        style = look(n) | {"marker": ""}
        ax.plot(steps, nats, **style)
        if len(nats):
            ends.append((float(steps[-1]), float(nats[-1]), name, style["color"]))
    for name, level in (levels or {}).items():
        ax.axhline(level, color=COLOUR["ink"], linestyle=(0, (1, 2)), linewidth=1.5)
        ends.append((ax.get_xlim()[1], level, name, COLOUR["ink"]))
    if live is not None and len(live[0]):
        ax.plot(*live, "o", color=COLOUR["ink"], markersize=9, fillstyle="none", markeredgewidth=2)
        ends.append((float(live[0][-1]), float(live[1][-1]), "now (rings)", COLOUR["ink"]))
    shown = [nats for _, nats in series.values() if len(nats)]
    if shown:
        ax.set_ylim(min(min(nats) for nats in shown) - 0.1, min(max(max(nats) for nats in shown) + 0.15, 5.7))
    elif live is None or not len(live[0]):
        missing(ax)
    _spread(ax, ends)
    ax.set_xlabel("step of 2,048 bytes", fontsize=TEXT)
    ax.set_ylabel("training loss (nats a byte)", fontsize=TEXT)
    alt = "; ".join(f"{name} ends at {y:.2f}" for _, y, name, _ in ends)
    return finish(made, ax, title, source, alt or MISSING)


@inked
def positions(
    edges: Sequence[tuple[int, int]],
    series: Mapping[str, Sequence[float | None]],
    trained: Mapping[int, str],
    title: str = "",
    source: str = "",
    ax: Axes | None = None,
    longer: Mapping[str, Sequence[float | None]] | None = None,
) -> Still | Axes:
    """Loss by position in a window: nats a byte between the edges, a line a model named at its end.

    edges: first position and the one after the last, of each stretch; series: a number for each stretch,
    None where there is none (and no run where all are); trained: one or two lengths to mark, with what to
    write there; longer: the same in other, longer windows, as lines of their own.
    """
    made, ax = begin(ax, 12, 6.4)
    middles = [math.sqrt(max(a, 1) * b) for a, b in edges]
    ends: list[tuple[float, float, str, str]] = []
    for n, (name, nats) in enumerate(series.items()):
        style = look(n)
        for line in (nats, (longer or {}).get(name, ())):
            known = [(x, y) for x, y in zip(middles, line) if y is not None]
            if known:
                ax.plot(*zip(*known), **style)
                end = (*known[-1], name, style["color"])
                ends = [other for other in ends if other[2] != name] + [end]
    ax.set_xscale("log", base=2)
    ax.set_xlim(1, edges[-1][1])
    for n, (length, words) in enumerate(trained.items()):
        ax.axvline(length, color=COLOUR["ink"], linewidth=1, linestyle="--")
        ax.text(length, 1.015, words, transform=ax.get_xaxis_transform(), fontsize=SMALL,
                ha="left" if n else "right")  # fmt: skip
    if not ends:
        missing(ax)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    _spread(ax, ends)
    ax.set_xlabel("position in the window (bytes)", fontsize=TEXT)
    ax.set_ylabel("nats a byte", fontsize=TEXT)
    alt = "; ".join(f"{name}: {y:.2f} at the end" for _, y, name, _ in ends)
    return finish(made, ax, title, source, alt or MISSING)


@inked
def stability(
    names: Sequence[str],
    spikes: Sequence[Sequence[float]],
    largest: Sequence[Sequence[Sequence[float]]],
    title: str = "",
    source: str = "",
) -> Still:
    """Left the spikes of every run, right the largest value of the residual after each layer.

    names: a row each; spikes: their number, seed by seed; largest: seed by seed, layer by layer.
    """
    made = sheet(height=max(4.4, 2.0 + 0.42 * len(names)))
    left, right = made.subplots(1, 2, sharey=True)
    left.set_xlim(-0.5, 5)
    for row, (counts, values) in enumerate(zip(spikes, largest)):
        shifts = np.linspace(-0.15, 0.15, len(counts)) if len(counts) > 1 else [0.0]
        left.plot(counts, [row + shift for shift in shifts[: len(counts)]], "o", color=COLOUR["dense"],
                  fillstyle="none", markersize=8)  # fmt: skip
        for shift, layers in zip(shifts, values):
            depth = np.linspace(0.15, 1, len(layers))
            for value, alpha in zip(layers, depth):
                right.plot(value, row + shift, "s", color=COLOUR["dense"], alpha=alpha, markersize=6)
        if not len(counts):
            for ax in (left, right):
                ax.text(0.01, row, MISSING, transform=ax.get_yaxis_transform(), va="center",
                        color=COLOUR["muted"])  # fmt: skip
    most = max((max(counts) for counts in spikes if len(counts)), default=0)
    left.set_xlim(-0.5, max(5, most + 1))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    if any(len(values) for values in largest):
        right.set_xscale("log")
        amounts(right.xaxis)
    left.set_xlabel("spikes of the training loss, a ring a seed", fontsize=TEXT)
    right.set_xlabel("largest value of the residual (pale: layer 0)", fontsize=TEXT)
    left.set_yticks(range(len(names)), [printable(name, 40) for name in names], fontsize=SMALL)
    left.set_ylim(len(names) - 0.4, -0.6)
    for ax in (left, right):
        ax.grid(axis="x", color=COLOUR["masked"])
        ax.tick_params(axis="y", length=0)
    lines = [f"{name}: {sum(counts) / len(counts):.1f} spikes a run" if len(counts) else f"{name}: {MISSING}"
             for name, counts in zip(names, spikes)]  # fmt: skip
    return headline(made, np.array([[left, right]]), title, source, "\n".join(lines))


@inked
def router(
    series: Mapping[str, tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]]],
    most: float,
    title: str = "",
    source: str = "",
) -> Still:
    """Left how evenly the experts are used, right what an expert's number tells of the domain, by layer.

    series: by model, evenness and bits about the domain, each seed by seed, layer by layer; most: the bits
    that could be told.
    """
    made = sheet(height=5.6)
    panels = made.subplots(1, 2)
    alt = []
    for which, ax in enumerate(panels):
        there = False
        for n, (name, pair) in enumerate(series.items()):
            values = np.array(pair[which], dtype=float)
            if not values.size:
                continue
            there, style = True, look(n)
            at = np.arange(values.shape[1]) + 0.08 * (n - (len(series) - 1) / 2)
            ax.plot(at, values.mean(0), **style, label=f"{name} ({len(values)} seeds)"
                    if len(values) > 1 else f"{name} (1 seed)")  # fmt: skip
            ax.vlines(at, values.min(0), values.max(0), color=style["color"], linewidth=2)
            if which == 1:
                alt.append(f"{name}: {values.mean():.2f} bits about the domain, mean over layers")
            ax.set_xticks(range(values.shape[1]))
        if not there:
            missing(ax)
        elif which == 0:  # for both: on the right bars may reach anywhere
            ax.legend(fontsize=SMALL, loc="lower left")
        ax.set_xlabel("layer (bar: from the lowest to the highest seed)", fontsize=TEXT)
    even, about = panels
    even.set_ylim(0, 1.03)
    even.axhline(1, color=COLOUR["ink"], linestyle="--", linewidth=1)
    even.set_ylabel("evenness (1: all alike)", fontsize=TEXT)
    about.set_ylim(0, None)
    about.set_ylabel(f"bits about the domain (of {most:.2f})", fontsize=TEXT)
    return headline(made, np.array([panels]), title, source, "; ".join(alt) or MISSING)
