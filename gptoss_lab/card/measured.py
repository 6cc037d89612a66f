"""Everything that the page needs measured, in one JSON file for each model, never edited by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import require
from ..files import make_folder, whole
from ..model import Transformer
from ..study.findings import machine, now, versions
from ..weights import load
from . import attending, losses, routed, writing

MODELS = ("mini-oss", "mini-gpt2")
RESULTS = Path(__file__).resolve().parents[1] / "assets" / "results" / "models"
COMMAND = "python -m gptoss_lab.card docs/models.md --measure"
NEEDED = {"date", "machine", "versions", "weights", "losses", "heads", "routed", "written"}


@dataclass(frozen=True)
class Size:
    """Over how much is measured: held-out windows a domain (`near`: short ones; `far`: as long as the
    context; `edited`, `edited_far`: where the model is changed), passages, pairs of verses, samples."""

    near: int = 24
    far: int = 12
    edited: int = 6
    edited_far: int = 4
    heads: int = 4
    passages: int = 48
    experts: int = 16
    verses: int = 500
    seeds: int = writing.SEEDS
    written: int = 40  # tokens of a sample


FULL = Size()
QUICK = Size(2, 2, 2, 2, 2, 12, 2, 20, 2, 8)  # for tests


def measure(model: Transformer, size: Size = FULL, say: Callable[[str], object] = print) -> dict[str, Any]:
    """Everything about one model, on one thread."""
    require(model.tokenizer is not None, f"{model.config.name} has no tokenizer, so no text can be measured")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found: dict[str, Any] = {
            "command": COMMAND, "date": now(), "machine": machine(torch.device("cpu")),
            "versions": versions(), "weights": model.weights_from, "size": size.__dict__,
        }  # fmt: skip
        parts = {"losses": losses.figures, "heads": attending.figures, "routed": routed.figures,
                 "written": writing.figures}  # fmt: skip
        for name, figures in parts.items():
            say(f"{model.config.name}: {name}")
            found[name] = figures(model, size)
        return dict(rounded(found))
    finally:
        torch.set_num_threads(threads)


def rounded(value: Any, digits: int = 5) -> Any:
    """The same with numbers of so many digits after the point; what is not finite becomes None."""
    if isinstance(value, dict):
        return {name: rounded(one, digits) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one, digits) for one in value]
    if isinstance(value, float):
        return round(value, digits) if math.isfinite(value) else None
    return value


def record(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Measure a shipped model, and write what was found."""
    model = load(name)
    make_folder(folder)
    with whole(folder / f"{name}.json") as beside:  # a place that cannot be written is refused at once
        found = measure(model)
        beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def recorded(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """What was measured last of a shipped model. ValueError where there is none, or none of ours."""
    path = folder / f"{name}.json"
    require(path.is_file(), f"no recorded measurements at {str(path)!r}; measure with --measure {name}")
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no JSON ({error}); measure with --measure {name}") from error
    missing = NEEDED - set(found if isinstance(found, dict) else ())
    require(not missing, f"{str(path)!r} lacks {', '.join(sorted(missing))}; measure with --measure {name}")
    return dict(found)
