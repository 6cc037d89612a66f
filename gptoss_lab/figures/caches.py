"""What a cache holds, token after token: growing for dense layers, a ring for banded ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import Normalize

from .style import COLOUR, SMALL, TEXT, Still, array, headline, heat, inked, room, sheet


def describe_cache_slots(held: Mapping[str, Any]) -> str:
    """How many slots each cache has, and what lies in them at the end, as text."""
    lines = []
    for name, positions in held.items():
        found = array(positions, name, "T S")
        there = np.sort(found[-1][found[-1] >= 0])
        said = f"positions {there[0]} to {there[-1]}" if len(there) else "nothing"
        lines.append(f"{name}: {found.shape[1]} slots; after {len(found)} tokens they hold {said}.")
    return "\n".join(lines)


@inked
def cache_slots(held: Mapping[str, Any], title: str | None = None, source: str = "") -> Still:
    """Side by side, what lies in every slot after each token: the position as a number, colour how old it is.

    held: name → T S, the position that slot S holds once token T has come, −1 where there is nothing yet. All
    have the same T.
    """
    if not held:
        raise ValueError("held is empty: there is nothing to draw")
    tokens = len(array(next(iter(held.values())), next(iter(held)), "T S"))
    found = {name: array(positions, name, "T S", (tokens, None)) for name, positions in held.items()}
    made = sheet()
    grid = made.subplots(1, len(found), squeeze=False)
    for ax, (name, positions) in zip(grid[0], found.items()):
        if positions.max() >= tokens or positions.min() < -1:
            raise ValueError(f"{name} holds positions from −1 to {tokens - 1}, came {positions.min()} to "
                             f"{positions.max()}")  # fmt: skip
        age = np.arange(tokens)[:, None] - positions
        image = heat(ax, np.ma.MaskedArray(age, mask=positions < 0), Normalize(0, tokens - 1))
        wide, high = (room(axis) / n for axis, n in ((ax.xaxis, positions.shape[1]), (ax.yaxis, tokens)))
        if wide >= 1.7 * SMALL and high >= 1.1 * SMALL:  # two digits have room
            for (t, s), position in np.ndenumerate(positions):
                if position >= 0:
                    ink = COLOUR["ink"] if age[t, s] > 0.55 * tokens else "white"
                    ax.text(s, t, str(position), ha="center", va="center", fontsize=SMALL, color=ink)
        ax.set_title(f"{name}: {positions.shape[1]} slots", loc="left", fontsize=TEXT)
        ax.set_xlabel("slot (hatched: nothing yet)", fontsize=TEXT)
        ax.set_ylabel("after token", fontsize=TEXT)
    title = title or "A growing cache keeps every token, a ring writes over the oldest"
    headline(made, grid, title, source, describe_cache_slots(found), right=80)
    low = grid[0, -1].get_position()
    bar = made.add_axes((low.x1 + 0.012, low.y0, 0.012, low.height))
    made.colorbar(image, cax=bar).set_label("tokens ago", fontsize=TEXT)
    bar.tick_params(labelsize=SMALL)
    return made
