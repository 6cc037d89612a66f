"""A dial: how a number moves while something is turned, and what is then said of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .style import COLOUR, SMALL, TEXT, Still, array, begin, finish, inked

MARKS: dict[str, dict[str, Any]] = {  # told apart without colour: filled, half filled, empty, other shapes
    "holds": {"marker": "o"},
    "holds partly": {"marker": "o", "fillstyle": "left"},
    "not seen here": {"marker": "o", "markerfacecolor": "white"},
    "does not hold": {"marker": "X"},
    "misleading": {"marker": "^", "markerfacecolor": "white"},
    "cannot be tested here": {"marker": "s", "markerfacecolor": "white"},
    "open": {"marker": "D", "markerfacecolor": "white"},
}


def describe_dial(settings: Any, numbers: Any, verdicts: Sequence[str]) -> str:
    """The dial in words: where each verdict begins, and the number there."""
    x, y = array(settings, "settings", "N"), array(numbers, "numbers", "N")
    said = []
    for i, verdict in enumerate(verdicts):
        if i == 0 or verdict != verdicts[i - 1]:
            said.append(f"from {x[i]:,.4g} on ({y[i]:.3g}): {verdict}")
    return "; ".join(said) + "."


@inked
def dial(
    settings: Any,
    numbers: Any,
    verdicts: Sequence[str],
    at: float | None = None,
    here: str = "as it is",
    what: str = "setting",
    number: str = "number",
    log: str = "",
    title: str | None = None,
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """A number for each setting of a dial, marked by the verdict there; `at` is where the dial
    stands, called `here`.

    settings, numbers: N; verdicts: N of `MARKS`; log: axes in powers of ten, "x", "y" or "xy". Returns the
    figure it made, or `ax`. ValueError for a verdict that has no mark.
    """
    x = array(settings, "settings", "N").astype(float)
    y = array(numbers, "numbers", "N", x.shape).astype(float)
    unknown = sorted(set(verdicts) - set(MARKS))
    if unknown or len(verdicts) != len(x):
        raise ValueError(f"verdicts must be {len(x)} of {', '.join(MARKS)}; came {len(verdicts)}"
                         + (f" with {unknown[0]!r}" if unknown else ""))  # fmt: skip
    made, ax = begin(ax, 10.4, 4.6)
    ax.plot(x, y, color=COLOUR["hatch"], linewidth=1.5, zorder=1)
    ink: dict[str, Any] = {"color": COLOUR["ink"], "markerfacecoloralt": "white", "linestyle": "none"}
    for verdict in dict.fromkeys(verdicts):
        these = np.array([one == verdict for one in verdicts])
        ax.plot(x[these], y[these], **MARKS[verdict], **ink, markersize=10, label=verdict, zorder=2)
    if at is not None:
        ax.axvline(at, color=COLOUR["sink"], linewidth=1.5, linestyle="--", label=here, zorder=0)
    for name, axis in (("x", ax.xaxis), ("y", ax.yaxis)):
        if name in log:
            getattr(ax, f"set_{name}scale")("log")
            axis.set_minor_formatter("")
        axis.set_major_formatter("{x:,g}")
    ax.set_xlabel(what, fontsize=TEXT)
    ax.set_ylabel(number, fontsize=TEXT)
    ax.tick_params(labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=SMALL)
    told = describe_dial(x, y, verdicts)
    return finish(made, ax, title or f"{number[0].upper()}{number[1:]}, by {what}", source, told)
