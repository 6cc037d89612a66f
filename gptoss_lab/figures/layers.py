"""What is known of every layer and head: shares of attention as maps, bits told as bars, curves over layers.

Arrays are means: L H for a map, L for a bar or a curve. What chance gives is in the same panel: an even
share, the shuffled labels, the other verse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm

from .style import COLOUR, SMALL, TEXT, Still, array, headline, heat, inked, name_ticks, sheet

CELLS = 96  # up to so many a number is written into each


def _maps(maps: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The maps as arrays of one shape; ValueError for what is no share."""
    if not maps:
        raise ValueError("maps is empty: there is nothing to draw")
    found: dict[str, np.ndarray] = {}
    for name, values in maps.items():
        shape = next(iter(found.values())).shape if found else ()
        found[name] = array(values, name, "L H", shape).astype(float)
        if not ((found[name] >= -1e-6) & (found[name] <= 1 + 1e-3)).all():
            low, high = found[name].min(), found[name].max()
            raise ValueError(f"{name} must hold shares in 0..1, came from {low:.3g} to {high:.3g}")
    return found


def describe_head_maps(maps: Mapping[str, Any]) -> str:
    """For each map the head with the largest share, and the mean."""
    lines = []
    for name, values in _maps(maps).items():
        n, h = np.unravel_index(int(values.argmax()), values.shape)
        lines.append(f"{name}: most in layer {n} head {h} ({values[n, h]:.2f}), mean {values.mean():.2f}.")
    return "\n".join(lines)


@inked
def head_maps(maps: Mapping[str, Any], title: str | None = None, source: str = "") -> Still:
    """Shares of attention that every head gives to something, a panel each, on one scale by square roots.

    maps: what it is given to → L H. ValueError for other values than shares, or maps of several shapes.
    """
    found = _maps(maps)
    L, H = next(iter(found.values())).shape
    made = sheet(height=float(np.clip(3.4 + 0.34 * L, 4.4, 7.2)))
    grid = made.subplots(1, len(found), squeeze=False)
    norm = PowerNorm(0.5, 0.0, 1.0)  # the same for every model
    for panel, (name, values) in zip(grid[0], found.items()):
        image = heat(panel, values, norm)
        panel.set_title(name, fontsize=SMALL)
        name_ticks(panel.xaxis, [str(h) for h in range(H)], "head", upright=True)
        if L * H * len(found) <= 3 * CELLS and H <= 12:
            for (n, h), value in np.ndenumerate(values):
                ink = "white" if norm(value) < 0.55 else COLOUR["ink"]
                shown = f"{value:.2f}".removeprefix("0")
                panel.text(h, n, shown, ha="center", va="center", fontsize=SMALL, color=ink)
    name_ticks(grid[0, 0].yaxis, [str(n) for n in range(L)], "layer")
    for panel in grid[0, 1:]:
        panel.set_yticks([])
    alt = describe_head_maps(found)
    headline(made, grid, title or alt.split("\n")[0].removesuffix("."), source, alt, right=80)
    high, low = grid[0, -1].get_position(), grid[0, 0].get_position()
    bar = made.add_axes((high.x1 + 0.012, low.y0, 0.012, high.y1 - low.y0))
    made.colorbar(image, cax=bar).set_label("share of attention", fontsize=TEXT)
    bar.tick_params(labelsize=SMALL)
    return made


@inked
def told_bars(
    labels: Mapping[str, Mapping[str, Any]], title: str | None = None, source: str = ""
) -> Still:  # fmt: skip
    """Bits that an expert's number tells of a label, layer by layer, a panel for each label, one scale.

    labels: name → `bits`, `shuffled` and `spread` (the same from shuffled labels, mean and standard
    deviation), perhaps `identity` (from labels shuffled among equal tokens); L each.
    """
    if not labels:
        raise ValueError("labels is empty: there is nothing to draw")
    made = sheet(height=5.6)
    grid = made.subplots(1, len(labels), squeeze=False, sharey=True)
    lines, top = [], 0.0
    for panel, (name, told) in zip(grid[0], labels.items()):
        bits = array(told["bits"], f"{name}: bits", "L").astype(float)
        L = len(bits)
        rest = {key: array(told[key], f"{name}: {key}", "L", (L,)).astype(float)
                for key in ("shuffled", "spread", "identity") if key in told}  # fmt: skip
        kinds = ["bits", *(["identity"] if "identity" in rest else []), "shuffled"]
        wide, at = 0.8 / 3, np.arange(L)
        look: dict[str, dict[str, Any]] = {
            "bits": {"color": COLOUR["experts"], "label": "told"},
            "identity": {"color": "white", "hatch": "////", "label": "by which token it is"},
            "shuffled": {"color": COLOUR["muted"], "label": "shuffled labels", "yerr": rest["spread"],
                         "error_kw": {"elinewidth": 1.6, "capsize": 3}},
        }  # fmt: skip
        for i, kind in enumerate(kinds):
            values = bits if kind == "bits" else rest[kind]
            edge = COLOUR["muted"] if kind == "shuffled" else COLOUR["experts"]
            panel.bar(at + (i - (len(kinds) - 1) / 2) * wide, values, wide, edgecolor=edge, **look[kind])
        panel.set_title(name, fontsize=TEXT)
        name_ticks(panel.xaxis, [str(n) for n in at], "layer", upright=True)
        top, n = max(top, float(bits.max())), int(bits.argmax())
        lines.append(f"{name}: most in layer {n}, {bits[n]:.2f} bits; shuffled {rest['shuffled'][n]:.2f}.")
    grid[0, 0].set_ylim(0, 1.08 * top or 1.0)
    grid[0, 0].set_ylabel("bits told by an expert's number", fontsize=TEXT)
    handles = {label: handle for panel in grid[0]
               for handle, label in zip(*panel.get_legend_handles_labels())}  # fmt: skip
    made.legend(handles.values(), handles.keys(), loc="upper left", ncols=3, borderaxespad=0.3)
    return headline(made, grid, title or lines[0].removesuffix("."), source, "\n".join(lines))


STYLES = (("experts", "o", "-"), ("query", "s", "-"), ("muted", "^", "--"), ("position", "D", "-."),
          ("value", "v", "-"), ("key", "P", "--"), ("dense", "X", ":"))  # fmt: skip


@inked
def curves(
    panels: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, Sequence[str]],
    across: str,
    title: str,
    source: str = "",
    zero: Sequence[str] = (),
) -> Still:
    """Means with half their intervals, as lines: a panel for each of `panels`, named by its vertical axis.

    panels: what is measured → {name of a line: P 2, means and half intervals}; names: of the P places, for
    each panel; across: what the places are; zero: the panels with a line at zero.
    """
    if not panels or not all(panels.values()):
        raise ValueError("panels is empty: there is nothing to draw")
    made = sheet(height=5.8)
    grid = made.subplots(1, len(panels), squeeze=False)
    said = []
    for panel, (what, lines) in zip(grid[0], panels.items()):
        if what in zero:
            panel.axhline(0, color=COLOUR["muted"], linewidth=1.0)
        for (name, values), (colour, marker, dash) in zip(lines.items(), STYLES * len(lines)):
            line = array(values, name, "P 2", (len(names[what]), 2)).astype(float)
            at = np.arange(len(line))
            panel.errorbar(at, line[:, 0], line[:, 1], color=COLOUR[colour], marker=marker, linestyle=dash,
                           linewidth=1.8, markersize=6, capsize=3, elinewidth=1.2, label=name)  # fmt: skip
            said.append(f"{what}, {name}: {line[0, 0]:.3g} at {names[what][0]}, {line[-1, 0]:.3g} at "
                        f"{names[what][-1]}.")  # fmt: skip
        panel.set_ylabel(what, fontsize=TEXT)
        panel.set_xlim(-0.4, len(names[what]) - 0.6)
        name_ticks(panel.xaxis, list(names[what]), across, upright=max(map(len, names[what])) < 3)
        columns = 2 if max(map(len, lines)) <= 20 else 1
        low, high = panel.get_ylim()
        panel.set_ylim(low, high + (high - low) * 0.09 * -(-len(lines) // columns))  # room for the legend
        panel.legend(fontsize=SMALL, loc="upper center", ncols=columns)
    return headline(made, grid, title, source, "\n".join(said))
