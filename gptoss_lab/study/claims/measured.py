"""What the claims need measured, gathered in one JSON file of the package, which is never edited by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ...config import require
from ...files import whole
from ...model import Transformer
from ...training.corpus import DOMAINS, heldout_windows
from ...training.forms import attach
from ...weights import load
from ..findings import machine, now, versions
from . import normalising, routing, timing

RESULTS = Path(__file__).resolve().parents[2] / "assets" / "results" / "claims.json"
COMMAND = "python -m gptoss_lab.study.claims docs/claims.md --measure"
MODELS = ("mini-gpt2", "mini-oss")
WINDOWS = 8  # held-out windows a domain, where loss is measured


def some_text(model: Transformer) -> torch.Tensor:
    """Two held-out windows of 255 tokens of every domain: 12 × 255."""
    return torch.cat([heldout_windows(model.tokenizer, name, 255, 2).tokens[:, :255] for name in DOMAINS])


def compared(model: Transformer, edits: routing.Edits) -> dict[str, float]:
    """Bits per byte under edits, less those without."""
    model = attach(model.with_config())
    usual, edited = routing.bits(model, WINDOWS), routing.bits(model, WINDOWS, edits)
    more, within = routing.difference(edited, usual)
    return {"bits": routing.level(usual), "more": more, "within": within}


def measure() -> dict[str, Any]:
    """Everything, on one thread: about a minute and a half of one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        models = {name: load(name) for name in MODELS}
        gpt2, oss = models["mini-gpt2"], models["mini-oss"]
        erf = routing.everywhere(gpt2, "mlp.act", lambda act, here: F.gelu(here["mlp.pre"]))
        return {
            "command": COMMAND,
            "date": now(),
            "machine": machine(torch.device("cpu")),
            "versions": versions(),
            "weights": {name: model.weights_from for name, model in models.items()},
            "windows": WINDOWS,
            "normalising": {
                name: normalising.figures(model, some_text(model)) for name, model in models.items()
            },
            "without_mean": {
                name: compared(model, normalising.without_mean(model)) for name, model in models.items()
            },
            "erf_for_tanh": compared(gpt2, erf),
            "routing": routing.figures(oss, WINDOWS),
            "times": timing.figures(),
        }
    finally:
        torch.set_num_threads(threads)


def record(path: Path = RESULTS) -> dict[str, Any]:
    """Measure, and write what was found."""
    found = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as beside:
        beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def recorded(path: Path = RESULTS) -> dict[str, Any]:
    """What was measured last. ValueError where the file is missing or none of ours."""
    require(path.is_file(), f"no recorded measurements at {str(path)!r}; measure with --measure")
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no JSON ({error}); measure anew with --measure") from error
    missing = {"date", "machine", "versions", "weights", "normalising", "without_mean", "erf_for_tanh",
               "routing", "times", "windows"} - set(found if isinstance(found, dict) else ())  # fmt: skip
    require(not missing, f"{str(path)!r} lacks {', '.join(sorted(missing))}; measure anew with --measure")
    return found
