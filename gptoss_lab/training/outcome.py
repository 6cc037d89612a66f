"""What one run of the ladder came to: everything that is measured when it ends, as one small JSON value.

Text is measured in bits per byte, window by window, so that two runs can be compared on the same windows:

    near    windows of 256 bytes, the length of nine tenths of the training
    far     windows of 1,024 bytes, the length of the last tenth

Loss by position is measured over `far` windows, and over windows of 2,048 bytes for models that can go
there: those without a table of positions. `untaught` tells of the model as it was before its last tenth, at
lengths that it had not seen, with YaRN off and on.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import Yarn
from ..cost import parameters
from ..model.transformer import Transformer
from ..tap import Recorder
from .corpus import DOMAINS, heldout_windows
from .ladder import LONG, SHORT, Entry, byte_encoding, multiplied
from .measure import expert_share, losses
from .objective import in_phase
from .runs import Run, read_checkpoint

NEAR, FAR, BEYOND = (SHORT, 64), (LONG, 16), (2 * LONG, 4)  # bytes a window, windows a domain
UNTAUGHT = (LONG, 4)
EDGES = (0, 8, 32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048)  # of positions that are told together
POINTS = 100            # of a loss curve


def measured(run: Run, folder: Path, entry: Entry, early: dict[str, Any] | None) -> dict[str, Any]:
    """The outcome of a finished run whose checkpoint lies in `folder`; docs/ladder.md tells its fields.

    early: what `untaught` found before the last phase.
    """
    model = Transformer(run.recipe.config)
    read_checkpoint(folder, model)
    model = in_phase(model, run.recipe, len(run.recipe.phases) - 1).eval()  # as its last phase ran it
    lengths = {"near": NEAR, "far": FAR} | ({"beyond": BEYOND} if model.config.positions == "rope" else {})
    told = {name: on_heldout(model, *size) for name, size in lengths.items()}
    windows = {name: told[name][0] for name in ("near", "far")}
    means = {name: {domain: round(statistics.fmean(bits), 4) for domain, bits in domains.items()}
             for name, domains in windows.items()}  # fmt: skip
    found = described(run, entry) | {"windows": windows, "bits_per_byte": means}
    found["nats_by_position"] = {name: by_edges(curve) for name, (_, curve) in told.items()}
    found |= {"untaught": early, "activations": largest(model)}
    if model.config.n_experts:
        found["router"] = routing(model)
    return found


def described(run: Run, entry: Entry) -> dict[str, Any]:
    """What was run, and how its training went."""
    config, size = run.recipe.config, math.ceil(len(run.loss) / POINTS)
    pieces = [run.loss[start : start + size] for start in range(0, len(run.loss), size)]
    return {
        "purpose": entry.purpose, "matching": entry.matching, "read": entry.read, "seed": run.seed,
        "rate": run.recipe.peak,
        "config": asdict(config), "recipe": asdict(run.recipe) | {"config": config.name},
        "parameters": parameters(config), "multiplied": multiplied(config),
        "steps": run.steps, "done": run.done, "tokens": run.tokens,
        "curve": {"steps": size, "nats": [round(statistics.fmean(piece), 4) for piece in pieces]},
        "spikes": spikes(run.loss), "balance": round(statistics.fmean(run.balance[-100:] or [1.0]), 3),
        "seconds": round(run.seconds, 1), "made_with": run.made_with,
    }  # fmt: skip


def spikes(loss: list[float], before: int = 50, high: float = 6.0) -> list[int]:
    """The steps whose loss lies above the median of the `before` steps before by more than `high` times their
    median distance from it (about four standard deviations of normal noise)."""
    found = []
    for step in range(before, len(loss)):
        middle = statistics.median(loss[step - before : step])
        distance = statistics.median(abs(x - middle) for x in loss[step - before : step])
        if loss[step] > middle + high * distance:
            found.append(step)
    return found


def on_heldout(model: Transformer, context: int, limit: int) -> tuple[dict[str, list[float]], Tensor]:
    """Over up to `limit` held-out windows of each domain: bits per byte of every window, by domain; and mean
    nats a byte at each position, each domain counted alike: `context`."""
    bits, curves = {}, []
    for domain in DOMAINS:
        windows = heldout_windows(byte_encoding(), domain, context, limit)
        nats = losses(model, windows.tokens, batch=max(1, 16 * SHORT // context))
        each = nats.double().sum(1) / math.log(2) / windows.bytes
        bits[domain] = [round(x, 4) for x in each.tolist()]
        curves.append(nats.mean(0))
    return bits, torch.stack(curves).mean(0)


def by_edges(curve: Tensor) -> dict[str, float]:
    """The means of a curve between `EDGES`: "0-7": 3.1, …"""
    pairs = [(a, b) for a, b in zip(EDGES, EDGES[1:]) if b <= len(curve)]
    return {f"{a}-{b - 1}": round(float(curve[a:b].double().mean()), 4) for a, b in pairs}


def untaught(run: Run, folder: Path) -> dict[str, Any] | None:
    """Loss by position in windows longer than any so far, at the end of the first phase: with plain RoPE, and
    stretched by YaRN without having been trained with it. None for a table of positions."""
    config = run.recipe.config
    if config.positions != "rope":
        return None
    model, stretched = Transformer(config), Yarn(factor=LONG / SHORT, original_context=SHORT)
    read_checkpoint(folder, model)
    plain = in_phase(model, run.recipe, 0).eval()
    ways = {"plain": plain, "yarn": plain.with_config(yarn=stretched)}
    return {way: by_edges(on_heldout(model, *UNTAUGHT)[1]) for way, model in ways.items()}


@torch.no_grad()
def largest(model: Transformer) -> dict[str, list[float]]:
    """The residual of each layer on held-out text: its largest absolute value, and its root mean square."""
    names = [f"blocks.{n}.residual" for n in range(model.config.n_layers)]
    recorder = Recorder(keep=names)
    windows = torch.cat([heldout_windows(byte_encoding(), domain, SHORT, 2).tokens for domain in DOMAINS])
    model(windows, last=0, tap=recorder)
    kept = [recorder.kept[name] for name in names]
    return {"largest": [round(float(x.abs().max()), 2) for x in kept],
            "rms": [round(float(x.square().mean().sqrt()), 3) for x in kept]}  # fmt: skip


def routing(model: Transformer) -> dict[str, list[float]]:
    """For each layer, how evenly held-out text falls on the experts, and what the choice tells of the domain.

    `evenness`: the entropy of the experts' shares over that of an even spread, 1 at most. `about_domain`: the
    mutual information of expert and domain, in bits, every domain counted alike; at most log₂ 6 = 2.58.
    """
    shares = torch.stack([
        expert_share(model, heldout_windows(byte_encoding(), domain, SHORT, 8).tokens) for domain in DOMAINS
    ]).double()  # domains L E
    together = entropy(shares.mean(0))
    experts = model.config.n_experts or 1
    return {"evenness": [round(x / math.log2(experts), 4) for x in together.tolist()],
            "about_domain": [round(x, 4) for x in (together - entropy(shares).mean(0)).tolist()]}  # fmt: skip


def entropy(shares: Tensor) -> Tensor:
    """−Σ p log₂ p over the last axis."""
    return -(shares * shares.clamp(min=1e-30).log2()).sum(-1)
