"""MXFP4 in pictures: one block from its bytes to its values, and what rounding to sixteen values costs.

A block is 16 bytes, two codes of four bits in each, the low one first, and a scale byte s: a weight is the
value of its code times 2^(s − 127) (OCP Microscaling Formats v1.0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .style import COLOUR, SMALL, TEXT, Still, array, begin, finish, headline, inked, percent, sheet

BLOCK = 32
BIAS = 127
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(scale: int) -> str:
    """What a scale byte stands for, as "2⁻⁷"; ValueError for none."""
    if not 0 <= scale < 255:
        raise ValueError(f"scale must be a byte from 0 to 254 (255 is NaN), came {scale}")
    return f"2{str(scale - BIAS).translate(RAISED)}"


def codes(block: Any) -> np.ndarray:
    """The 32 codes of a block of 16 bytes: the low four bits of a byte first, then the high four."""
    found = array(block, "block", "bytes", (BLOCK // 2,))
    if not np.issubdtype(found.dtype, np.integer) or found.min() < 0 or found.max() > 255:
        raise ValueError(f"block holds bytes, 0 to 255; came {found.dtype}, {found.min()} to {found.max()}")
    return np.stack([found & 15, found >> 4], -1).ravel()


def describe_packed_block(block: Any, scale: int, values: Any) -> str:
    """The block in two lines of text: its bytes and scale, and its largest weight."""
    codes(block)
    found = array(values, "values", "32", (BLOCK,)).astype(float)
    said = " ".join(f"{byte:02X}" for byte in array(block, "block", "bytes"))
    at = int(np.abs(found).argmax())
    return (
        f"16 bytes {said}, scale byte {scale}: {power(scale)}.\n"
        f"32 weights from {found.min():.4g} to {found.max():.4g}; the largest is number {at}: {found[at]:.4g}"
    )


@inked
def packed_block(block: Any, scale: int, values: Any, title: str | None = None, source: str = "") -> Still:
    """A block from bytes to weights: its 16 bytes in hex, their 32 codes in the weights' order, the weights.

    block: 16 bytes; scale: the byte of the block's scale; values: the 32 weights that they stand for.
    """
    nibbles, found = codes(block), array(values, "values", "32", (BLOCK,)).astype(float)
    title = title or f"16 bytes and one scale, {power(scale)}, are 32 weights"
    made = sheet()
    grid = made.subplots(2, 1, squeeze=False)
    _cells(grid[0, 0], nibbles)
    below = grid[1, 0]
    below.bar(np.arange(BLOCK) + 0.5, found, 0.8, color=COLOUR["experts"], edgecolor=COLOUR["ink"])
    below.axhline(0, color=COLOUR["ink"], linewidth=0.8)
    below.set(xlim=(0, BLOCK))
    below.set_xticks(np.arange(0, BLOCK, 4) + 0.5, [str(e) for e in range(0, BLOCK, 4)])
    below.set_xlabel("weight in the block", fontsize=TEXT)
    below.set_ylabel(f"weight: code × {power(scale)}", fontsize=TEXT)
    below.tick_params(labelsize=SMALL)
    below.spines[["top", "right"]].set_visible(False)
    return headline(made, grid, title, source, describe_packed_block(block, scale, values))


def _cells(ax: Axes, nibbles: np.ndarray) -> None:
    """Bytes as hex is written, high digit first; below them the codes in order, each tied to its digit."""
    ax.set(xlim=(0, BLOCK), ylim=(0, 3))
    for j in range(BLOCK // 2):
        edge: dict[str, Any] = {"edgecolor": COLOUR["ink"], "linewidth": 1.0, "align": "edge"}
        ax.bar(2 * j, 0.6, 2, 2.4, color="white", **edge)
        for part, colour in (("low", COLOUR["masked"]), ("high", "white")):
            element = 2 * j + (part == "high")
            written = 2 * j + (part == "low")  # hex puts the high digit first
            digit = f"{nibbles[element]:X}"
            ax.bar(element, 0.6, 1, 0, color=colour, label=f"{part} four bits", **edge)
            ax.plot([written + 0.5, element + 0.5], [2.4, 0.6], color=COLOUR["muted"], linewidth=1.2)
            for x, y in ((written, 2.7), (element, 0.3)):
                ax.text(x + 0.5, y, digit, ha="center", va="center", fontsize=TEXT)
    ax.set_yticks([2.7, 0.3], ["bytes, as\nhex is written", "codes, in\norder"], fontsize=SMALL)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[:2], labels[:2], loc="center", bbox_to_anchor=(0.5, 1.08), ncols=2, fontsize=SMALL)


@inked
def rounding(
    values: Any, x: Any, rounded: Any, title: str | None = None, source: str = "", ax: Axes | None = None
) -> Still | Axes:
    """The values that a code can have as ticks of a line, and how far off rounding to them is, in per cent.

    values: the code's values, N; x: T positive numbers (scaled as a block's are); rounded: T, what becomes of
    them. Returns the figure it made, or `ax`.
    """
    known = np.unique(np.abs(array(values, "values", "N").astype(float)))
    at = array(x, "x", "T").astype(float)
    became = array(rounded, "rounded", "T", at.shape).astype(float)
    if not (at > 0).all():
        raise ValueError(f"x must be above 0: an error in per cent is asked for; the least is {at.min():g}")
    off = 100 * np.abs(became - at) / at
    made, ax = begin(ax)
    ax.plot(at, off, color=COLOUR["ink"], linewidth=2)
    ax.set_ylim(0, 1.05 * off.max())
    ends = [v for v in known if v <= at.max()]
    ax.vlines(ends, 0, ax.get_ylim()[1], color=COLOUR["experts"], linewidth=2.2, linestyle="--")
    ax.set_xticks(ends, [f"{v:g}" for v in ends])
    ax.set_xlim(0, at.max())
    ax.set_xlabel("size of a weight, in units of its block's scale (dashed: values of a code)", fontsize=TEXT)
    ax.set_ylabel("off by (% of the weight)", fontsize=TEXT)
    ax.tick_params(labelsize=SMALL)
    upper, lost = off[at >= 1], at[became == 0]
    found = f"A weight from 1 on is off by at most {percent(upper.max() / 100)}" if len(upper) else "Rounding"
    found += f"; one below {lost.max():.2g} becomes 0" if len(lost) else ""
    return finish(made, ax, title or found, source, f"{found}. Values: {', '.join(f'{v:g}' for v in ends)}.")
