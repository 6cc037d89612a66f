"""Measure everything that the proofs hold; write docs/conformance.md, with conformance.json beside it.

    python tests/conformance.py [--out FOLDER]

Half a minute on one core. Needs the packages of the extra `test`, and OpenAI's own `gpt-oss`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import proof_bf16
import torch
from conformance_page import page
from proof_chunks import TOKENS, all_chunks
from proof_common import deviation, right_model, wrong
from proof_models import BOUND, COMPARISONS
from proof_operations import OPERATIONS, toy_for
from references import openai_shows, transformers_shows
from test_reference import GPT2, GPT_OSS, OPENAI, QWEN3, TRANSFORMERS_ALONE, compared
from torch import Tensor
from toys import ROUNDING, gpt2, gpt_oss, qwen3, record

from gptoss_lab import __version__, points
from gptoss_lab.config import Config
from gptoss_lab.files import whole
from gptoss_lab.model import Transformer
from gptoss_lab.study.faults import FAULTS, planted

DOCS = Path(__file__).parent.parent / "docs"
Row = dict[str, Any]
Shapes = dict[str, tuple[Callable[..., Config], dict[str, dict[str, Any]]]]
FOR_TRANSFORMERS: Shapes = {
    "gpt-oss": (gpt_oss, GPT_OSS | TRANSFORMERS_ALONE),
    "gpt2": (gpt2, GPT2),
    "qwen3-moe": (qwen3, QWEN3),
}
FOR_OPENAI: Shapes = {"gpt-oss": (gpt_oss, {name: OPENAI | change for name, change in GPT_OSS.items()})}
AGAINST: dict[str, tuple[Callable, Shapes]] = {  # reference → what it shows, and of which shapes
    "transformers": (transformers_shows, FOR_TRANSFORMERS),
    "openai": (openai_shows, FOR_OPENAI),
}


def measured() -> dict[str, Any]:
    """Every figure of the page, as plain values."""
    shown = list(shapes())
    return {
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "operations": list(operations()),
        "models": list(models()),
        "shapes": shown,
        "hidden": hidden(shown),
        "bf16": [figures_in_bf16(toy) for toy in proof_bf16.TOYS],
        "chunks": [chunked(family) for family in (gpt_oss, gpt2, qwen3)],
        "faults": list(faults()),
    }


def versions() -> dict[str, str]:
    """Of everything that takes part."""
    others = ("torch", "transformers", "gpt-oss", "safetensors")
    there = {name: importlib.metadata.version(name) for name in others}
    return {"gptoss-lab": __version__, "python": platform.python_version()} | there


def operations() -> Iterator[Row]:
    """Each operation, on each toy."""
    for op in OPERATIONS.values():
        for toy in op.toys:
            right = right_model(toy)
            found = {"deviation": op.measure(right, right), "bound": op.bound, "unit": op.unit}
            yield {"name": op.name, "what": op.what, "toy": toy} | found


def models() -> Iterator[Row]:
    """Each way to run a model."""
    for c in COMPARISONS.values():
        yield {"name": c.name, "what": c.what, "bound": BOUND, "deviation": c.measure(c.right())}


def shapes() -> Iterator[Row]:
    """Each shape against each reference: at how many points, how far apart at most and where."""
    for reference, (show, families) in AGAINST.items():
        for family, (make, every) in families.items():
            for name, changes in every.items():
                kinds = by_point(show, *compared(make, changes))
                worst = max(kinds, key=lambda kind: kinds[kind][1])
                found = {"deviation": kinds[worst][1], "bound": BOUND, "at": worst}
                row = {"reference": reference, "family": family, "name": name}
                yield row | found | {"points": {kind: list(pair) for kind, pair in kinds.items()}}


def by_point(show: Callable, model: Transformer, tokens: Tensor) -> dict[str, tuple[int, float]]:
    """How many points of each kind a reference shows, and how far ours are from them at most."""
    shown, kinds = show(model, tokens), dict[str, tuple[int, float]]()
    for n in range(model.config.n_layers if model.config.sinks else 0):
        pattern = shown.get(f"blocks.{n}.attention.pattern")
        if pattern is not None:  # the sink's share is what it lacks
            shown[f"blocks.{n}.attention.sink"] = 1 - pattern.sum(-1)
    ours = record(model, tokens, list(shown))
    for point, theirs in shown.items():
        measure = deviation if theirs.is_floating_point() else wrong
        count, apart = kinds.get(points.general(point), (0, 0.0))
        kinds[points.general(point)] = (count + 1, max(apart, measure(ours[point], theirs)))
    return kinds


def hidden(shown: list[Row]) -> list[str]:
    """The points that no reference shows."""
    configs = [make() for make, _ in FOR_TRANSFORMERS.values()]
    there = {points.general(name): None for config in configs for name in points.names(config)}
    return [name for name in there if not any(name in row["points"] for row in shown)]


def figures_in_bf16(toy: str) -> Row:
    """One toy's figures, but for the list of what is rounded, which is in proof_bf16."""
    found = asdict(proof_bf16.figures(toy))
    del found["rounded"]
    return {"name": toy} | found


def chunked(family: Callable[..., Config]) -> Row:
    """All ways to cut a text."""
    ways, apart, _ = all_chunks(family)
    return {"name": family().family, "tokens": TOKENS, "ways": ways, "bound": ROUNDING, "deviation": apart}


def faults() -> Iterator[Row]:
    """Each fault: by how much its operation and its comparison of whole models show it."""
    for fault in FAULTS:
        op, comparison = OPERATIONS[fault.operation], COMPARISONS[fault.end]
        right = right_model(toy_for(op, fault.family))
        with planted(fault, right) as faulty:
            in_operation = op.measure(faulty, right)
        with planted(fault, comparison.right()) as faulty:
            in_model = comparison.measure(faulty)
        yield {
            "name": fault.name, "what": fault.what, "family": fault.family, "kind": fault.kind,
            "operation": fault.operation, "deviation": in_operation, "bound": op.bound, "unit": op.unit,
            "model": fault.end, "model deviation": in_model, "model bound": BOUND,
        }  # fmt: skip


def write(path: Path, text: str) -> None:
    """Write a file whole."""
    with whole(path) as beside:
        beside.write_text(text, "utf-8")


def within_bounds(found: dict[str, Any]) -> bool:
    """Whether all that is right is within its bound, and all that is wrong tenfold beyond it."""
    right = [row for kind in ("operations", "models", "shapes", "chunks") for row in found[kind]]
    return all(row["deviation"] <= row["bound"] for row in right) and all(
        row["deviation"] > 10 * row["bound"] and row["model deviation"] > 10 * row["model bound"]
        for row in found["faults"]
    )


def main() -> int:
    """Measure, write, and say where; 1 where a bound is broken (the page is written all the same)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder to write to (default: docs)")
    folder = parser.parse_args().out
    torch.set_num_threads(1)
    found = measured()
    write(folder / "conformance.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    write(folder / "conformance.md", page(found))
    good = within_bounds(found)
    print(f"wrote {folder / 'conformance.md'}: {'all within bounds' if good else 'BOUNDS ARE BROKEN'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
