"""A trace's file, read and not believed: it may come from anywhere, and says itself how large everything is.

The config that it records is built and held against the limits of a checkpoint; then every tensor must have
the shape that the catalogue gives its point, and every number that names something must name what there is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import points
from .config import Config
from .model import concentration, frequencies
from .weights.checkpoint import refuse_absurd

FORMAT = "gptoss_lab trace 1"
SOURCE = {"model": str, "config": dict, "weights": str, "dtype": str, "products": str, "changes": dict,
          "edits": list, "forms": list}  # fmt: skip
FLOATS = (torch.float32, torch.bfloat16, torch.float16)  # products in bfloat16 are kept as they come
OURS = "are not as Trace.save writes them"


def read(path: Path) -> tuple[Tensor, list[str], dict[str, Any], dict[str, Tensor]]:
    """Tokens, labels, source and values of a file that `Trace.save` wrote. ValueError says what is wrong."""
    if not path.is_file():
        there = "that is a folder" if path.is_dir() else "there is no such file"
        raise ValueError(f"no trace at {str(path)!r}: {there}")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(
                    f"a safetensors file, but no trace: format {about.get('format')!r}, expected {FORMAT!r}"
                )
            order, labels, source = (json.loads(about[key]) for key in ("order", "labels", "source"))
            values = {name: file.get_tensor(f"point:{name}") for name in order}
            tokens = file.get_tensor("tokens")
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as a trace: {error}") from error
    if odd := unlike_ours(path, tokens, labels, source, values):
        raise ValueError(f"{str(path)!r} is no trace: its {odd}")
    return tokens, labels, source, values


def unlike_ours(
    path: Path, tokens: Tensor, labels: Any, source: Any, values: Mapping[str, Tensor]
) -> str | None:
    """What in an opened file is of another kind than `Trace.save` writes, or does not fit the rest, in words;
    None where all does."""
    if not isinstance(source, dict) or not all(isinstance(source.get(k), kind) for k, kind in SOURCE.items()):
        return f"facts about the source {OURS}"
    told = [*source["edits"], *source["forms"], *source["changes"].values()]
    if not all(isinstance(one, str) for one in told) or source["config"].get("name") != source["model"]:
        return f"facts about the source {OURS}"
    if tokens.ndim != 2 or tokens.dtype != torch.int64 or len(tokens) == 0 or (values and not tokens.numel()):
        return f"tokens {OURS}"
    if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
        return f"labels {OURS}"
    if len(labels) != tokens.shape[1]:
        return f"labels {OURS}"
    try:
        json.dumps([labels, source], ensure_ascii=False).encode()
        config = Config.from_json(source["config"])
        refuse_absurd(config, path)  # before anything is made of its sizes
        if config.positions == "rope":
            frequencies(config.d_head, config.rope_theta, config.yarn), concentration(config.yarn)
    except (ValueError, OverflowError) as error:  # half a character in a text; values that no config has
        return f"labels and source cannot be: {error}"
    return outside("tokens", tokens, config.vocab_size) or unlike_points(config, tokens, values)


def unlike_points(config: Config, tokens: Tensor, values: Mapping[str, Tensor]) -> str | None:
    """The first point that has not the shape, the dtype or the experts that this model gives it."""
    has, (B, T) = points.names(config), tokens.shape
    for name, value in values.items():
        if name not in has:
            return f"points {OURS}: {config.name!r} has no {name!r}"
        point, last = has[name], value.shape[1] if value.ndim == 3 else T  # logits: of the last few, or all
        shape, right = point.shape(config, B, T, T, last), getattr(torch, point.dtype)
        if tuple(value.shape) != shape or value.dtype not in (FLOATS if right in FLOATS else (right,)):
            found = f"{tuple(value.shape)} {value.dtype}"
            return f"points {OURS}: {name!r} is {found}, expected {shape} {right}"
        if name.endswith("experts.choice") and (odd := outside(repr(name), value, config.n_experts or 0)):
            return odd
    return None


def outside(what: str, numbers: Tensor, size: int) -> str | None:
    """Where numbers that should lie between 0 and `size` − 1 do not, in words."""
    if not numbers.numel() or 0 <= int(numbers.min()) and int(numbers.max()) < size:
        return None
    return f"{what} reach from {int(numbers.min())} to {int(numbers.max())}; there are 0 to {size - 1}"
