"""Two models side by side: what each costs as ratios, and what two training runs came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .style import COLOUR, SMALL, TEXT, Still, array, begin, finish, headline, inked, sheet, written

LOOKS = (("window", "-", "o"), ("experts", "--", "s"), ("dense", ":", "^"), ("key", "-.", "D"))


def describe_ratios(ratios: Any, labels: Sequence[str], over: str) -> str:
    """The ratios in words."""
    values = array(ratios, "ratios", "N")
    named = written(labels, len(values), limit=40)
    return f"{over}: " + "; ".join(f"{name} {value:.2f}" for name, value in zip(named, values)) + "."


@inked
def ratios(
    values: Any, labels: Sequence[str], over: str, title: str | None = None, source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:  # fmt: skip
    """Ratios on a scale of doublings about 1: one thing `over` another ("Qwen3 over gpt-oss").

    values: N, above 0; labels: N. Returns the figure it made, or `ax`. ValueError for a ratio of 0 or less.
    """
    found = array(values, "values", "N").astype(float)
    if not (found > 0).all():
        raise ValueError(f"ratios must be above 0, came {found.min():g}")
    names = written(labels, len(found), limit=40)
    made, ax = begin(ax, 10.4, float(np.clip(2.0 + 0.42 * len(found), 3.2, 7.2)))
    rows, doubled = np.arange(len(found)), np.log2(found)
    colours = [COLOUR["experts"] if value >= 1 else COLOUR["window"] for value in found]
    ax.barh(rows, doubled, 0.7, color=colours, edgecolor=COLOUR["ink"])
    for row, (value, long) in enumerate(zip(found, doubled)):
        left = long < 0
        ax.text(long, row, f" {value:.2f} ", va="center", ha="right" if left else "left", fontsize=SMALL)
    low, high = np.floor(min(doubled.min(), 0) - 0.5), np.ceil(max(doubled.max(), 0) + 0.5)
    ticks = np.arange(low, high + 0.5)
    ax.set_xticks(ticks, [f"{2.0**tick:g}" for tick in ticks], fontsize=SMALL)
    ax.set(xlim=(low, high), ylim=(len(found) - 0.4, -0.6))
    ax.set_yticks(rows, names, fontsize=SMALL)
    ax.axvline(0, color=COLOUR["ink"], linewidth=1.2)
    ax.set_xlabel(f"{over} (a step is a doubling)", fontsize=TEXT)
    ax.spines[["top", "right"]].set_visible(False)
    return finish(made, ax, title or f"{over}: what is more, and what is less", source,
                  describe_ratios(found, labels, over))  # fmt: skip


@inked
def trained(
    curves: Mapping[str, Sequence[Any]],
    evenness: Mapping[str, Sequence[Any]],
    about: Mapping[str, Sequence[Any]],
    steps: int,
    title: str | None = None,
    source: str = "",
) -> Still:
    """What training made of a few models, each with its runs: the loss on the way, and two readings of its
    routers in every layer.

    curves: name → runs, each N means of `steps` steps; evenness, about: name → runs, each L numbers. A line
    is a run. ValueError where nothing is given.
    """
    if not any(curves.values()):
        raise ValueError("no run to draw: curves is empty")
    made = sheet(12.8, 5.2)
    panels = made.subplots(1, 3, squeeze=False)
    what = (
        (curves, "step", "loss (nats a byte)", "On the way"),
        (evenness, "layer", "evenness (1: all alike)", "How evenly experts are asked"),
        (about, "layer", "bits about the kind of text", "What the choice tells"),
    )
    ends: dict[str, list[float]] = {}
    for ax, (lines, along, up, name) in zip(panels[0], what):
        for (model, runs), (colour, dash, mark) in zip(lines.items(), LOOKS):
            look: dict[str, Any] = {"color": COLOUR[colour], "linestyle": dash, "linewidth": 2}
            for n, run in enumerate(runs):
                y = array(run, name, "N").astype(float)
                x = steps * (np.arange(len(y)) + 0.5) if along == "step" else np.arange(len(y))
                marks = {} if along == "step" else {"marker": mark, "markersize": 7}
                ax.plot(x, y, label=model if n == 0 else None, **look, **marks)
                ends.setdefault(model, []).append(y[-1]) if along == "step" else None
        ax.set_title(name, loc="left", fontsize=TEXT)
        ax.set_xlabel(along, fontsize=TEXT)
        ax.set_ylabel(up, fontsize=TEXT)
        ax.tick_params(labelsize=SMALL)
        ax.spines[["top", "right"]].set_visible(False)
        if along == "layer":
            ax.set_ylim(0, max(1.05 * ax.get_ylim()[1], 0.1))
            ax.xaxis.get_major_locator().set_params(integer=True)
    panels[0, 0].legend(fontsize=SMALL)
    alt = "; ".join(f"{model} ends at {np.mean(values):.3f} nats a byte" for model, values in ends.items())
    return headline(made, panels, title or "Two shapes, trained alike", source, alt + ".")
