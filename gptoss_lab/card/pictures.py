"""The card's pictures, from the recorded numbers: heads, experts, positions, verses.

Each PNG holds its own words under "Description", so that a test can tell whether it is of these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import figures
from ..figures import Still
from ..files import make_folder, whole
from ..training.corpus import DOMAINS
from . import measured, of_experts, of_heads
from .attending import best
from .words import number


def source(found: Mapping[str, Any], text: str = "held-out text") -> str:
    """Where the numbers come from."""
    return f"{found['weights']} · measured {found['date'][:10]} · {text}"


def heads(name: str, found: Mapping[str, Any]) -> Still:
    """Token before, induction, first token, sink."""
    told = found["heads"]
    kind, _, _ = of_heads.induction_head(told)
    maps = {"to the token before": told["previous"]["share"],
            "after the earlier occurrence": told["copying"][kind]["score"],
            "to the first token": told["first"]["share"]}  # fmt: skip
    if "sinks" in told:
        maps["to the sink"] = told["sinks"]["share"]
    n, h = best(told["previous"]["share"])
    share, alone = told["previous"]["share"][n][h], told["previous"]["even"][n]
    title = f"{name}: layer {n} head {h} gives the token before {share:.2f}, where even is {alone:.2f}; "
    title += "an induction head" if of_heads.induction_found(told) else "no induction head"
    length = told["copying"][kind]["length"]
    text = f"held-out text; earlier occurrences: {length} random tokens, read twice"
    return figures.head_maps(maps, title, source(found, text))


def experts(name: str, found: Mapping[str, Any]) -> Still:
    """Bits told, beside shuffled labels."""
    routed = found["routed"]
    entries = {"domain": routed["experts"]["domain"], "kind of token": routed["experts"]["kind"],
               "language": routed["verses"]["told"]}  # fmt: skip
    bars = {}
    for label, told in entries.items():
        bars[label] = {key: told[key] for key in ("bits", "shuffled", "spread")}
        if "identity" in told:
            bars[label]["identity"] = told["identity"]["shuffled"]
    bits = entries["domain"]["bits"]
    n = max(range(len(bits)), key=lambda layer: bits[layer])
    title = f"{name}: an expert's number tells up to {number(bits[n], 2)} bits of the domain (layer {n})"
    return figures.told_bars(bars, title, source(found))


def positions(name: str, found: Mapping[str, Any]) -> Still:
    """Loss by position, and with other windows."""
    losses = found["losses"]
    place = losses["position"]
    loss = "nats a token"
    panels: dict[str, dict[str, Any]] = {loss: {domain: place["nats"][domain] for domain in DOMAINS}}
    names = {loss: place["spans"]}
    if "windows" in losses:
        more = "nats more than as trained"
        lines = {f"window of {key}" if key != "none" else "no windows": one["spans"]
                 for key, one in losses["windows"].items() if key != "as trained"}  # fmt: skip
        panels[more], names[more] = lines, place["spans"]
    first, last = place["nats"]["mean"][0][0], place["nats"]["mean"][-1][0]
    title = f"{name}: loss falls from {first:.2f} to {last:.2f} nats along a window of {place['context']:,}"
    return figures.curves(panels, names, "position", title, source(found),
                          zero=["nats more than as trained"])  # fmt: skip


def verses(name: str, found: Mapping[str, Any]) -> Still:
    """What a verse has in common with its translation, and with others."""
    told = found["routed"]["verses"]
    what, layers = "shares of experts in common (1: the same)", len(told["translation"])
    lines = {"another verse, same language": told["language"], "its translation": told["translation"],
             "another verse, other language": told["neither"]}  # fmt: skip
    where = {what: [str(n) for n in range(layers)]}
    again, spots = "translations found again", ["emb.", *map(str, range(layers))]
    rest = {"by mean residual": told["residual"], "chance": [[told["chance"], 0.0]] * (layers + 1)}
    title, text = f"{name}: experts go {of_experts.verdict(told)}", "pairs of held-out verses"
    panels, names = {what: lines, again: rest}, where | {again: spots}
    return figures.curves(panels, names, "layer", title, source(found, text))


def stills(name: str, found: Mapping[str, Any]) -> dict[str, Still]:
    """The pictures that a model has, by kind."""
    made = {"heads": heads(name, found), "positions": positions(name, found)}
    if "experts" in found["routed"]:
        made |= {"experts": experts(name, found), "verses": verses(name, found)}
    return made


def draw(folder: Path, results: Path = measured.RESULTS) -> list[Path]:
    """Write the pictures of both models; their paths."""
    make_folder(folder)
    paths = []
    for name in measured.MODELS:
        for kind, still in stills(name, measured.recorded(name, results)).items():
            path = folder / f"{name}_{kind}.png"
            with whole(path) as beside:
                still.savefig(beside, format="png", dpi=100, metadata={"Description": still.alt})
            paths.append(path)
    return paths
