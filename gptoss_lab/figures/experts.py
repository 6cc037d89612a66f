"""Which experts the router chose: tokens down, experts across, colour the weight; above, the load.

The points `blocks.N.experts.choice` (T K indices) and `.weight` (T K, a softmax over the K kept) of one row
of a batch. An expert that was not chosen has no weight at all: its cell is hatched, not zero. Even routing
would give each of E experts 1/E of the choices and of the weight: that line is in the strip (Shazeer et al.,
2017, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from .style import (
    COLOUR,
    SMALL,
    TEXT,
    Still,
    array,
    begin,
    finish,
    headline,
    heat,
    inked,
    name_ticks,
    percent,
    room,
    scale,
    sheet,
    written,
)


def spread(choice: Any, weight: Any, n_experts: int) -> np.ma.MaskedArray:
    """T K choices and weights laid out as T E, masked where an expert was not chosen (repeats add up)."""
    choice = array(choice, "choice", "T K")
    weight = array(weight, "weight", "T K", choice.shape)
    if not np.issubdtype(choice.dtype, np.integer):
        raise ValueError(f"choice holds the experts' indices, came with dtype {choice.dtype}")
    if choice.min() < 0 or choice.max() >= n_experts:
        raise ValueError(f"choice must lie in 0..{n_experts - 1}, came from {choice.min()} to {choice.max()}")
    if not (weight >= 0).all() or not np.isfinite(weight).all():
        raise ValueError(
            "weight must be finite and not negative (experts.weight, not experts.logits), "
            f"came from {weight.min():.3g} to {weight.max():.3g}"
        )
    cells, chosen = np.zeros((len(choice), n_experts)), np.zeros((len(choice), n_experts), dtype=bool)
    rows = np.arange(len(choice))[:, None]
    np.add.at(cells, (rows, choice), weight)
    chosen[rows, choice] = True
    return np.ma.MaskedArray(cells, mask=~chosen)


def load(choice: Any, weight: Any, n_experts: int) -> tuple[np.ndarray, np.ndarray]:
    """Each expert's share of all choices and of all weight (E and E; each sums to 1)."""
    cells = spread(choice, weight, n_experts)
    counts = np.bincount(array(choice, "choice", "T K").ravel(), minlength=n_experts)
    carried = np.asarray(cells.filled(0.0)).sum(0)
    return counts / counts.sum(), carried / max(carried.sum(), np.finfo(float).tiny)


def describe_router(
    choice: Any, weight: Any, n_experts: int, labels: Sequence[str] | None = None, layer: int | None = None
) -> str:
    """The router's figure in three lines of text: how many choose, who is busiest, who was most decided."""
    cells = spread(choice, weight, n_experts)
    _, carried = load(choice, weight, n_experts)
    names = written(labels, len(cells), limit=40)
    kept = array(choice, "choice", "T K").shape[1]
    busiest = ", ".join(f"{e} ({percent(carried[e])})" for e in np.argsort(-carried, kind="stable")[:3])
    idle = int(cells.mask.all(0).sum())
    best = np.sort(cells.filled(0.0), axis=1)[:, ::-1]
    margin = best[:, 0] - (best[:, 1] if n_experts > 1 else 0.0)
    t = int(margin.argmax())
    return (
        f"{'' if layer is None else f'Layer {layer}: '}{len(cells)} token{'s' * (len(cells) > 1)}, {kept} of "
        f"{n_experts} experts each; an even share is {percent(1 / n_experts)}.\n"
        f"Busiest by weight: expert {busiest}; {idle} never chosen.\n"
        f"Strongest margin: '{names[t]}' gives expert {int(cells[t].argmax())} {best[t, 0]:.2f}, "
        f"{margin[t]:.2f} more than the next."
    )


@inked
def router(
    choice: Any,
    weight: Any,
    n_experts: int,
    labels: Sequence[str] | None = None,
    layer: int | None = None,
    title: str | None = None,
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """One layer's routing, tokens x experts, and above it each expert's share of choices and of weight.

    choice: T K indices; weight: T K; labels: T. Returns the figure it made, or `ax`.
    """
    cells = spread(choice, weight, n_experts)
    chosen, carried = load(choice, weight, n_experts)
    names = written(labels, len(cells))
    made, ax = begin(ax, height=float(np.clip(3.6 + 0.3 * len(cells), 4.6, 7.2)))
    image = heat(ax, cells, Normalize(0.0, float(cells.max()) or 1.0))
    if 1 < len(cells) <= 64:  # neighbours of one weight would run together
        ax.hlines(np.arange(1, len(cells)) - 0.5, -0.5, n_experts - 0.5, colors="white", linewidth=0.8)
    name_ticks(ax.yaxis, names, "token")
    name_ticks(ax.xaxis, [str(e) for e in range(n_experts)], "expert\nhatched: not chosen", upright=True)
    scale(image, ax, "routing weight")

    tall = 62 / room(ax.yaxis)  # points
    strip = ax.inset_axes((0, 1 + 0.2 * tall, 1, tall), sharex=ax)
    at = np.arange(n_experts)
    ink = COLOUR["experts"]
    strip.bar(at - 0.2, 100 * chosen, 0.4, color="white", edgecolor=ink, label="of choices")
    strip.bar(at + 0.2, 100 * carried, 0.4, color=ink, edgecolor=ink, label="of weight")
    strip.axhline(100 / n_experts, color=COLOUR["ink"], linestyle="--", linewidth=1.2, label="even share")
    strip.tick_params(labelbottom=False, labelsize=SMALL)
    strip.set_ylabel("share (%)", fontsize=TEXT)
    strip.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=SMALL, borderaxespad=0.3)

    found = "" if layer is None else f"layer {layer}: "
    found += f"expert {carried.argmax()} takes {percent(carried.max())} of the weight, "
    found += f"where an even share is {percent(1 / n_experts)}"
    alt = describe_router(choice, weight, n_experts, labels, layer)
    return finish(made, ax, title or found[0].upper() + found[1:], source, alt)


def _columns(n: int) -> int:
    """Columns for n panels on a wide sheet: the next divisor above the square root, or its ceiling."""
    root = math.ceil(n**0.5)
    return next((c for c in range(root, int(1.5 * n**0.5) + 1) if n % c == 0), root)


@inked
def router_layers(
    choices: Any,
    weights: Any,
    n_experts: int,
    labels: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    title: str | None = None,
    source: str = "",
) -> Still:
    """Every layer's routing as small multiples with one colour scale; each panel names its busiest expert.

    choices, weights: L T K (or a list of L arrays T K); labels: T; layers: the L layers' numbers, by default
    0...
    """
    choices = array(choices, "choices", "L T K")
    weights = array(weights, "weights", "L T K", choices.shape)
    numbers = list(range(len(choices))) if layers is None else list(layers)
    if len(numbers) != len(choices):
        raise ValueError(f"layers must number {len(choices)} layers, came with {len(numbers)}")
    cells = [spread(c, w, n_experts) for c, w in zip(choices, weights)]
    names = written(labels, choices.shape[1], limit=10)
    columns = _columns(len(cells))
    rows = -(-len(cells) // columns)
    made = sheet()
    grid = made.subplots(rows, columns, squeeze=False)
    norm = Normalize(0.0, max(float(c.max()) for c in cells) or 1.0)
    busiest = []
    for i, panel in enumerate(grid.flat):
        if i >= len(cells):
            panel.set_axis_off()
            continue
        image = heat(panel, cells[i], norm)
        panel.set(xticks=[], yticks=[])
        carried = load(choices[i], weights[i], n_experts)[1]
        busiest.append((float(carried.max()), numbers[i], int(carried.argmax())))
        most = f": expert {carried.argmax()} takes {percent(carried.max())}" if columns <= 4 else ""
        panel.set_title(f"layer {numbers[i]}{most}", fontsize=SMALL)
    for panel in grid[:, 0]:
        name_ticks(panel.yaxis, names, "token" if rows <= 2 else "")  # room to say how many are named
        if rows > 2:
            panel.set_ylabel("token", fontsize=TEXT)
    for i in range(columns):  # the lowest panel of each column names the experts
        lowest = grid[(len(cells) - 1 - i) // columns, i]
        name_ticks(lowest.xaxis, [str(e) for e in range(n_experts)], "", upright=True)
        lowest.set_xlabel("expert", fontsize=TEXT)
    share, layer, e = max(busiest)
    even = percent(1 / n_experts)
    found = f"The most uneven layer is {layer}: expert {e} takes {percent(share)}, an even share is {even}"
    alt = "\n".join(describe_router(c, w, n_experts, labels, n) for c, w, n in zip(choices, weights, numbers))
    headline(made, grid, title or found, source, alt, right=80)
    high, low = grid[0, -1].get_position(), grid[-1, 0].get_position()
    bar = made.add_axes((high.x1 + 0.012, low.y0, 0.012, high.y1 - low.y0))
    made.colorbar(image, cax=bar).set_label("routing weight · hatched: not chosen", fontsize=TEXT)
    bar.tick_params(labelsize=SMALL)
    return made
