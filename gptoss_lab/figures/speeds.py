"""Speeds side by side: what several programs reached at several things, and what the machine allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .style import COLOUR, SMALL, TEXT, Still, begin, finish, inked, percent, printable

Rates = Mapping[str, Mapping[str, float]]
LOOKS: list[dict[str, Any]] = [  # of the sides, in order
    {"color": COLOUR["dense"]},
    {"color": COLOUR["window"], "hatch": "////"},
    {"color": "white", "hatch": ".."},
    {"color": COLOUR["masked"], "hatch": "xx"},
]


def describe_speeds(rates: Rates, ceilings: Mapping[str, float] | None = None) -> str:
    """The bars as text, a line for each thing done."""
    lines = []
    for what, reached in rates.items():
        said = ", ".join(f"{side} {rate:.3g}" for side, rate in reached.items())
        limit = (ceilings or {}).get(what)
        lines.append(f"{what}: {said}{f'; at most {limit:.3g} here' if limit else ''} (tokens a second).")
    return "\n".join(lines)


@inked
def speeds(
    rates: Rates,
    ceilings: Mapping[str, float] | None = None,
    title: str | None = None,
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """Tokens a second as bars, one group for each thing done, and where known a line for the machine's limit.

    rates: what was done → side → tokens a second, at most four sides, which need not all have done
    everything; ceilings: what was done → tokens a second. Returns the figure it made, or `ax`.
    """
    sides = list(dict.fromkeys(side for reached in rates.values() for side in reached))
    if not 1 <= len(sides) <= len(LOOKS):
        raise ValueError(f"rates must have 1 to {len(LOOKS)} sides, came with {len(sides)}")
    every = [rate for reached in rates.values() for rate in reached.values()]
    if not all(np.isfinite(rate) and rate > 0 for rate in [*every, *(ceilings or {}).values()]):
        raise ValueError("rates and ceilings are tokens a second, above 0")
    made, ax = begin(ax, height=float(np.clip(2.6 + 0.4 * len(every), 3.6, 7.2)))
    high = 0.8 / len(sides)
    for n, side in enumerate(sides):
        there = [(row, reached[side]) for row, reached in enumerate(rates.values()) if side in reached]
        rows, reach = zip(*there)
        at = np.array(rows) - 0.4 + (n + 0.5) * high
        ax.barh(at, reach, high, label=printable(side, 24), edgecolor=COLOUR["ink"], **LOOKS[n])
        for y, rate in zip(at, reach):
            number = ax.annotate(f"{rate:.3g}", (rate, y), (4, 0), textcoords="offset points", va="center")
            number.set(fontsize=SMALL, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8}, zorder=4)
    limits = [(row, ceilings[what]) for row, what in enumerate(rates) if ceilings and what in ceilings]
    for n, (row, limit) in enumerate(limits):
        label = "" if n else "what the machine allows"
        look: dict[str, Any] = {"color": COLOUR["sink"], "linewidth": 2.4, "linestyle": "--", "label": label}
        ax.plot([limit] * 2, [row - 0.46, row + 0.46], **look)
    ax.set_yticks(range(len(rates)), [printable(what, 24) for what in rates], fontsize=TEXT, parse_math=False)
    ax.set(xlim=(0, 1.12 * max([*every, *(limit for _, limit in limits)])), ylim=(len(rates) + 0.2, -0.6))
    ax.set_xlabel("tokens a second", fontsize=TEXT)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower right", ncols=len(sides) + bool(limits), fontsize=SMALL)
    what, reached = next(iter(rates.items()))
    found = f"{what}: {sides[0]} {reached.get(sides[0], 0):.3g} tokens a second"
    if limits and limits[0][0] == 0 and sides[0] in reached:
        found += f", {percent(reached[sides[0]] / limits[0][1])} of what the machine allows"
    return finish(made, ax, title or found, source, describe_speeds(rates, ceilings))
