"""What may come next: the most probable next tokens as bars, and what an edit changed about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .style import COLOUR, SMALL, TEXT, Still, array, begin, finish, inked, percent, written


def _top(
    probabilities: Any, labels: Sequence[str], before: Any, top: int
) -> tuple[np.ndarray, np.ndarray | None, list[str], float]:
    """The `top` tokens by their larger probability, now and before; their names; what is left over."""
    now = array(probabilities, "probabilities", "N").astype(float)
    was = None if before is None else array(before, "before", "N", now.shape).astype(float)
    for name, values in (("probabilities", now), ("before", was)):
        if values is not None and (not ((values >= 0) & (values <= 1)).all() or values.sum() > 1 + 1e-3):
            raise ValueError(
                f"{name} must be probabilities in 0..1 that sum to at most 1 (a softmax, not logits), "
                f"came from {values.min():.3g} to {values.max():.3g} with sum {values.sum():.3g}"
            )
    if len(labels) != len(now):
        raise ValueError(f"labels must name {len(now)} tokens, came with {len(labels)}")
    if top < 1:
        raise ValueError(f"top must be at least 1, came {top}")
    best = np.argsort(-(now if was is None else np.maximum(now, was)), kind="stable")[:top]
    best = best[np.argsort(-now[best], kind="stable")]
    names = written([labels[i] for i in best], len(best), limit=20)
    return now[best], None if was is None else was[best], names, max(0.0, 1 - float(now[best].sum()))


def describe_next_tokens(probabilities: Any, labels: Sequence[str], before: Any = None, top: int = 5) -> str:
    """The bars as text: the likeliest tokens with their probabilities, and before, where there is one."""
    now, was, names, rest = _top(probabilities, labels, before, top)
    said = [
        f"'{name}' {percent(p)}" + ("" if was is None else f" (before {percent(was[i])})")
        for i, (name, p) in enumerate(zip(names, now))
    ]
    return f"Most likely next: {', '.join(said)}; all others {percent(rest)}."


@inked
def next_tokens(
    probabilities: Any,
    labels: Sequence[str],
    before: Any = None,
    top: int = 12,
    title: str | None = None,
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """The `top` most probable next tokens as bars; with `before`, how probable they were before an edit.

    probabilities, before: N, for the same N tokens (the whole vocabulary or a part of it); labels: N. With
    `before` a token is shown that was likely then or is now. Returns the figure it made, or `ax`.
    """
    now, was, names, rest = _top(probabilities, labels, before, top)
    made, ax = begin(ax, 10.4, float(np.clip(2.4 + 0.4 * len(now), 3.6, 7.2)))
    rows = np.arange(len(now))
    high, up = (0.75, 0.0) if was is None else (0.38, 0.2)
    ax.barh(rows - up, now, high, color=COLOUR["output"], edgecolor=COLOUR["ink"], label="now")
    if was is not None:
        ghost: dict[str, Any] = {"color": "white", "edgecolor": COLOUR["muted"], "hatch": "////"}
        ax.barh(rows + up, was, high, label="before the edit", **ghost)
        ax.legend(loc="lower right", fontsize=SMALL, ncols=2)
    for row, p in zip(rows, now):
        ax.text(p, row - up, f" {percent(p)}", va="center", fontsize=SMALL)
    ax.set_yticks(rows, names, fontsize=TEXT, parse_math=False)
    ax.set_ylim(len(now) + (-0.4 if was is None else 0.4), -0.6)  # the legend has a row of its own
    ax.set_xlim(0, 1.16 * max(now.max(), 0 if was is None else was.max(), 1e-9))
    ax.set_ylabel("next token", fontsize=TEXT)
    ax.set_xlabel(f"probability (all other tokens together: {percent(rest)})", fontsize=TEXT)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    found = f"Most likely next: '{names[0]}', with {percent(now[0])}"
    if was is not None:
        most = int(np.abs(now - was).argmax())
        found = f"The edit takes '{names[most]}' from {percent(was[most])} to {percent(now[most])}"
    return finish(made, ax, title or found, source, describe_next_tokens(probabilities, labels, before, top))
