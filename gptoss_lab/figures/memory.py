"""Memory in pictures: sizes of models beside a limit, and one sum of bytes by its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .style import COLOUR, SMALL, TEXT, Still, array, begin, finish, inked, percent, printable, written

GB = 1e9
LOOKS: list[dict[str, Any]] = [  # of the ways to hold weights, in order; told apart in grey too
    {"color": COLOUR["dense"]},
    {"color": COLOUR["window"], "hatch": "////"},
    {"color": "white", "hatch": ".."},
]
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # a number on a bar or a line
GREYS = (COLOUR["hatch"], COLOUR["masked"])
PARTS = {  # the colour of a part of a model; others are grey
    "experts": "experts", "attention": "query", "unembedding": "output", "embedding": "value",
    "mlp": "window", "cache": "key", "weights": "dense",
}  # fmt: skip


def gigabytes(size: float) -> str:
    """Bytes as "13.8 GB", "0.25 GB": three digits, and no more than two behind the point."""
    scaled = size / GB
    return f"{scaled:,.0f} GB" if scaled >= 99.95 else f"{scaled:.{1 if scaled >= 9.95 else 2}f} GB"


def _sizes(values: Any, name: str, n: int) -> np.ndarray:
    found = array(values, name, "N", (n,)).astype(float)
    if not (np.isfinite(found).all() and (found >= 0).all()):
        raise ValueError(f"{name} must be bytes, 0 or more; came from {found.min():g} to {found.max():g}")
    return found


def describe_budgets(names: Sequence[str], sizes: Mapping[str, Any], limit: float) -> str:
    """Which models fit, way by way, as text."""
    lines = []
    for way, values in sizes.items():
        found = _sizes(values, way, len(names))
        fit = [name for name, size in zip(names, found) if size <= limit]
        lines.append(f"{way}: {', '.join(fit) or 'none'} within {gigabytes(limit)}.")
    return "\n".join(lines)


@inked
def budgets(
    names: Sequence[str],
    sizes: Mapping[str, Any],
    limit: float,
    title: str | None = None,
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """What each model takes, in up to three ways to hold it, beside a limit; what is far over it is cut off.

    names: N models; sizes: way → N bytes; limit: bytes. Returns the figure it made, or `ax`.
    """
    if not 1 <= len(sizes) <= len(LOOKS):
        raise ValueError(f"sizes must have 1 to {len(LOOKS)} ways, came with {len(sizes)}")
    labels = written(names, len(names), "names", limit=20)
    made, ax = begin(ax)
    rows, high, end = np.arange(len(names)), 0.84 / len(sizes), 3 * limit / GB
    for i, (way, values) in enumerate(sizes.items()):
        found = _sizes(values, way, len(names)) / GB
        at = rows - 0.42 + (i + 0.5) * high
        ax.barh(at, np.minimum(found, end), high, label=way, edgecolor=COLOUR["ink"], **LOOKS[i])
        for y, size in zip(at, found):
            far = size > end * 0.86  # its number would run out of the picture: it stands on the bar
            beside: dict[str, Any] = {"ha": "right" if far else "left", "va": "center", "fontsize": SMALL}
            said = gigabytes(size * GB) + (" →" if size > end else "")
            ax.text(end * (0.99 if far else 0.006) + (0 if far else size), y, said, bbox=BEHIND, **beside)
    line = f"{limit / GB:g} GB"
    ax.axvline(limit / GB, color=COLOUR["sink"], linewidth=2.4, linestyle="--", label=line, zorder=0)
    ax.set_yticks(rows, labels, fontsize=TEXT, parse_math=False)
    ax.set(xlim=(0, end), ylim=(len(names) + 0.1, -0.6))
    ax.set_xlabel(f"gigabytes (10⁹ bytes; cut off at {end:g})", fontsize=TEXT)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower right", ncols=len(sizes) + 1, fontsize=SMALL)
    counts = [int((_sizes(values, way, len(names)) <= limit).sum()) for way, values in sizes.items()]
    found_ = f"Within {line}: " + ", ".join(f"{n} of {len(names)} {way}" for n, way in zip(counts, sizes))
    return finish(made, ax, title or found_, source, describe_budgets(names, sizes, limit))


def describe_parts(rows: Mapping[str, Mapping[str, float]], limit: float | None = None) -> str:
    """Each row's sum and its parts, as text."""
    lines = []
    for name, parts in rows.items():
        total = sum(parts.values())
        said = ", ".join(f"{part} {gigabytes(size)}" for part, size in parts.items())
        over = "" if limit is None else f", {'over' if total > limit else 'within'} {gigabytes(limit)}"
        lines.append(f"{name}: {gigabytes(total)}{over} ({said}).")
    return "\n".join(lines)


@inked
def parts(
    rows: Mapping[str, Mapping[str, float]],
    limit: float | None = None,
    end: float | None = None,
    what: str = "gigabytes (10⁹ bytes)",
    title: str | None = None,
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """Sums of bytes as bars of their parts, one row each, with a limit to measure them by.

    rows: name → part → bytes; a part's first word chooses its colour; end: bytes at which the axis ends, so
    that a bar can be watched to grow. Returns the figure it made, or `ax`.
    """
    if not rows or not all(rows.values()):
        raise ValueError("rows is empty, or has a row without parts: there is nothing to draw")
    sums = [float(_sizes(list(one.values()), name, len(one)).sum()) for name, one in rows.items()]
    made, ax = begin(ax, height=float(np.clip(2.8 + 0.7 * len(rows), 3.5, 7.2)))
    reach = (end or 1.18 * max([*sums, limit or 0.0])) / GB or 1.0
    seen: dict[str, Any] = {}
    for row, one in enumerate(rows.values()):
        left = 0.0
        for part, size in one.items():
            kind = part.split()[0] if part.split()[0] in PARTS else part
            others = [name for name in seen if name not in PARTS and name != kind]
            colour = COLOUR[PARTS[kind]] if kind in PARTS else GREYS[len(others) % 2]
            if kind in seen:
                colour = seen[kind].patches[0].get_facecolor()
            bar = ax.barh(row, size / GB, 0.62, left=left, color=colour, edgecolor=COLOUR["ink"])
            seen.setdefault(kind, bar)
            if size / GB > 0.05 * reach and left + size / GB / 2 < 0.82 * reach:  # clear of the sum
                centred: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL}
                ax.text(left + size / GB / 2, row, f"{size / GB:.2f}", bbox=BEHIND, **centred)
            left += size / GB
        outside = left > 0.86 * reach
        beside: dict[str, Any] = {"ha": "right" if outside else "left", "va": "center", "fontsize": TEXT}
        ax.text((0.99 if outside else 0.01) * reach + (0 if outside else left), row, gigabytes(left * GB),
                bbox=BEHIND, **beside)  # fmt: skip
    lines = 1 + (len(seen) + (limit is not None)) // 7  # of the legend, below the bars
    if limit is not None:
        at = [limit / GB] * 2
        (line,) = ax.plot(at, [-0.6, len(rows) - 0.5], color=COLOUR["sink"], linewidth=2.4, linestyle="--")
        seen[f"{limit / GB:g} GB"] = line
    names = [printable(name, 30) for name in rows]
    ax.set_yticks(range(len(rows)), names, fontsize=TEXT, parse_math=False)
    ax.set(xlim=(0, reach), ylim=(len(rows) - 0.35 + 0.42 * lines, -0.6))
    ax.set_xlabel(what, fontsize=TEXT)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    across = -(-len(seen) // lines)
    ax.legend(list(seen.values()), list(seen), loc="lower right", ncols=across, fontsize=SMALL)
    most = max(rows, key=lambda name: sum(rows[name].values()))
    part = max(rows[most], key=lambda name: rows[most][name])
    share = percent(rows[most][part] / max(sum(rows[most].values()), 1.0))
    found = f"{most}: {gigabytes(max(sums))}, of which {part} {share}"
    return finish(made, ax, title or found, source, describe_parts(rows, limit))
