"""Where a head looks: queries down, keys across, colour the probability, and the sink as a column of its own.

The points `attention.pattern` (T S), `attention.sink` (T) and `attention.visible` (T S) of one row of a batch
and one head, or means over heads. A row of the pattern and its sink sum to 1: they come out of one softmax
and share one scale of colours, by square roots, since most weights are small. A key that a query may not see
is hatched, not zero: key k is seen by query q where 0 <= q - k < window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.image import AxesImage

from .style import (
    COLOUR,
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

SCALE = "attention (probability)"


def _distance(n_queries: int, n_keys: int) -> np.ndarray:
    """T S: how many tokens each key lies behind each query, the queries being the last T of the S tokens."""
    if n_queries > n_keys:
        raise ValueError(f"pattern (T S) must have a key for every query, came {n_queries} x {n_keys}")
    return np.arange(n_keys - n_queries, n_keys)[:, None] - np.arange(n_keys)


def _read(
    pattern: Any, sink: Any, visible: Any, window: int | None
) -> tuple[np.ma.MaskedArray, np.ndarray | None]:
    """The pattern masked where nothing can be seen, and the sink; ValueError for what is no probability."""
    pattern = array(pattern, "pattern", "T S")
    if window is not None and window < 1:
        raise ValueError(f"window counts the query itself and must be at least 1, came {window}")
    back = _distance(*pattern.shape)
    if visible is None:
        seen = (back >= 0) & (back < (window or pattern.shape[1] + 1))
    else:
        seen = array(visible, "visible", "T S", pattern.shape).astype(bool)
    cells = np.ma.MaskedArray(pattern.astype(float), mask=~seen)
    if sink is not None:
        sink = array(sink, "sink", "T", pattern.shape[:1]).astype(float)
    for name, values in (("pattern", cells.compressed()), ("sink", sink)):
        if values is not None and not ((values >= -1e-6) & (values <= 1 + 1e-3)).all():
            raise ValueError(
                f"{name} must hold probabilities in 0..1 (attention.pattern and .sink, not .scores), "
                f"came from {values.min():.3g} to {values.max():.3g}"
            )
    return cells, sink


def look_back(pattern: Any, visible: Any = None, window: int | None = None) -> float:
    """How many tokens back the looks go on average, weighted by the pattern T S; the sink is nowhere."""
    cells, _ = _read(pattern, None, visible, window)
    total = float(cells.filled(0.0).sum())
    return float((cells.filled(0.0) * _distance(*cells.shape)).sum()) / total if total > 0 else 0.0


def _where(layer: int | None, head: int | str | None, window: int | None) -> str:
    """As much of "layer 2, head 5, window of 16" as is known."""
    parts = [] if layer is None else [f"layer {layer}"]
    parts += [] if head is None else [head if isinstance(head, str) else f"head {head}"]
    return ", ".join(parts + ([] if window is None else [f"window of {window}"]))


def describe_attention(
    pattern: Any,
    sink: Any = None,
    visible: Any = None,
    labels: Sequence[str] | None = None,
    key_labels: Sequence[str] | None = None,
    window: int | None = None,
    layer: int | None = None,
    head: int | str | None = None,
) -> str:
    """The figure in three lines of text: what the sink takes, how far back the looks go, the strongest."""
    cells, sink = _read(pattern, sink, visible, window)
    queries, keys = _names(cells.shape, labels, key_labels, 40)
    where = _where(layer, head, window) or "attention"
    lines = [f"{where[0].upper()}{where[1:]}: {cells.shape[0]} queries, {cells.shape[1]} keys."]
    if sink is not None:
        mean, t = percent(sink.mean()), int(sink.argmax())
        lines.append(f"The sink takes {mean} on average, most from '{queries[t]}' ({percent(sink[t])}).")
    q, k = np.unravel_index(int(cells.filled(-1.0).argmax()), cells.shape)
    strongest = f"from '{queries[q]}' to '{keys[k]}' ({percent(cells.filled(0.0)[q, k])})"
    far = look_back(cells.data, ~np.ma.getmaskarray(cells))
    return "\n".join([*lines, f"Looks go {far:.1f} tokens back on average; the strongest goes {strongest}."])


def _names(
    shape: tuple[int, ...], labels: Sequence[str] | None, key_labels: Sequence[str] | None, limit: int = 12
) -> tuple[list[str], list[str]]:
    """Names of queries and keys: where one list is given for as many keys as queries, it names both."""
    n_queries, n_keys = shape
    if key_labels is None and labels is not None and len(labels) == n_keys:
        key_labels = labels
    if labels is not None and key_labels is not None and len(labels) == n_keys:
        labels = labels[n_keys - n_queries :]  # the queries are the last of the keys
    if labels is None and key_labels is not None:
        labels = key_labels[len(key_labels) - n_queries :]
    if labels is None:
        return [str(i) for i in range(n_keys - n_queries, n_keys)], written(None, n_keys)
    return written(labels, n_queries, "labels", limit), written(key_labels, n_keys, "key_labels", limit)


def _draw(
    ax: Axes,
    cells: np.ma.MaskedArray,
    sink: np.ndarray | None,
    names: tuple[list[str], list[str]],
    window: int | None,
    norm: Normalize,
    name_queries: bool = True,
) -> AxesImage:
    """One panel: the pattern, the band's edge, and the sink at the left behind a gap."""
    n_queries, n_keys = cells.shape
    ax.set_box_aspect(float(np.clip(n_queries / n_keys, 0.12, 1.0)))
    image = heat(ax, cells, norm)
    key = ["hatched: out of sight"] if np.ma.getmaskarray(cells).any() else []
    edge = np.arange(n_keys - n_queries, n_keys) - (window or n_keys) + 0.5
    rows = np.flatnonzero(edge > 0)
    if rows.size:
        across, down = np.repeat(edge[rows], 2), np.stack([rows - 0.5, rows + 0.5], 1).ravel()
        line = ax.plot(across, down, color=COLOUR["window"], linewidth=2.2, label="edge of the window")[0]
        line.set_path_effects([patheffects.withStroke(linewidth=4.2, foreground=COLOUR["ink"])])
        key.append("line: edge of the window")
    name_ticks(ax.xaxis, names[1], "\n".join(["key token", *filter(None, [" · ".join(key)])]))
    left = ax
    if sink is not None:
        wide = min(max(1 / n_keys, 15 / room(ax.xaxis)), 0.08)
        left = ax.inset_axes((-1.6 * wide, 0, wide, 1), sharey=ax)
        heat(left, sink[:, None], norm)
        left.set_xticks([0], ["sink"], rotation=90, color=COLOUR["sink"], fontsize=TEXT, fontweight="bold")
        left.tick_params(axis="x", length=0)
        for spine in left.spines.values():
            spine.set(edgecolor=COLOUR["sink"], linewidth=2)
        ax.tick_params(axis="y", labelleft=False, length=0)
    left.set_yticks([])
    if name_queries:
        name_ticks(left.yaxis, names[0], "query token")
    return image


def _colours(vmax: float | None, *arrays: np.ndarray | None) -> tuple[Normalize, bool]:
    """From 0 to vmax or the largest value shown, by square roots; and whether values lie above."""
    most = max([float(np.ma.max(a)) for a in arrays if a is not None and np.ma.count(a)], default=0) or 1.0
    return PowerNorm(0.5, 0.0, vmax or most, clip=True), most > (vmax or most)


@inked
def attention(
    pattern: Any,
    sink: Any = None,
    visible: Any = None,
    labels: Sequence[str] | None = None,
    key_labels: Sequence[str] | None = None,
    window: int | None = None,
    layer: int | None = None,
    head: int | str | None = None,
    vmax: float | None = None,
    title: str | None = None,
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """One attention pattern with its sink. Returns the figure it made, or `ax`.

    pattern: T S probabilities; sink: T, what the sink takes; visible: T S, True where seen, by default every
    key up to the query and inside `window`, the queries being the last T of the S tokens. labels: T (or S,
    for both axes); key_labels: S. head: a number, or words such as "mean of 8 heads". vmax: the top of the
    colours, by default the largest probability shown.
    """
    cells, sink = _read(pattern, sink, visible, window)
    names = _names(cells.shape, labels, key_labels)
    made, ax = begin(ax, 10.4, float(np.clip(3.4 + 8 * cells.shape[0] / cells.shape[1], 4.4, 7.2)))
    norm, over = _colours(vmax, cells, sink)
    scale(_draw(ax, cells, sink, names, window, norm), ax, SCALE, over)
    seen = ~np.ma.getmaskarray(cells)
    found = "the looks go" if sink is None else f"the sink takes {percent(sink.mean())}"
    found += f" {look_back(cells.data, seen):.1f} tokens back" if sink is None else ""
    found += " on average" if len(cells) > 1 else ""
    found = ": ".join(filter(None, [_where(layer, head, window), found]))
    alt = describe_attention(cells.data, sink, seen, labels, key_labels, window, layer, head)
    return finish(made, ax, title or found[0].upper() + found[1:], source, alt)


@inked
def attention_pair(
    window_pattern: Any,
    dense_pattern: Any,
    window: int,
    window_sink: Any = None,
    dense_sink: Any = None,
    window_visible: Any = None,
    dense_visible: Any = None,
    labels: Sequence[str] | None = None,
    key_labels: Sequence[str] | None = None,
    window_layer: int | None = None,
    dense_layer: int | None = None,
    head: int | str | None = None,
    vmax: float | None = None,
    title: str | None = None,
    source: str = "",
) -> Still:
    """A windowed layer beside a dense one: the same text, the same colours; arguments as in `attention`."""
    banded, band_sink = _read(window_pattern, window_sink, window_visible, window)
    dense, full_sink = _read(dense_pattern, dense_sink, dense_visible, None)
    if banded.shape != dense.shape:
        raise ValueError(f"both patterns must have the same T S, came with {banded.shape} and {dense.shape}")
    names = _names(banded.shape, labels, key_labels)
    norm, over = _colours(vmax, banded, band_sink, dense, full_sink)
    made = sheet()
    first, second = made.subplots(1, 2)
    _draw(first, banded, band_sink, names, window, norm)
    image = _draw(second, dense, full_sink, names, None, norm, name_queries=False)
    first.set_title(_where(window_layer, head, window), fontsize=TEXT, color=COLOUR["ink"])
    second.set_title(", ".join(filter(None, [_where(dense_layer, head, None), "dense"])), fontsize=TEXT)
    scale(image, second, SCALE, over)
    near, far = (look_back(cells.data, ~cells.mask) for cells in (banded, dense))
    found = f"The window layer looks {near:.1f} tokens back on average, the dense layer {far:.1f}"
    named = labels, key_labels
    left = describe_attention(banded.data, band_sink, ~banded.mask, *named, window, window_layer, head)
    right = describe_attention(dense.data, full_sink, ~dense.mask, *named, None, dense_layer, head)
    return headline(made, np.array([[first, second]]), title or found, source, f"{left}\n{right}")
