"""A folder opened as a checkpoint: its config and its headers, compared in full before any weight is read.

    config.json → Config → what tensors there must be, of what shape and kind → compared with the headers

Strict both ways: every parameter has its tensor, every tensor its place. Shapes come from a model built on
the meta device, where sizes cost nothing, and pass through the same table of names that writes checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import NAMED, Config, differing
from ..model import Transformer
from ..model.linear import Stack
from . import keys, names
from .dialects import is_original, read_config, stored_in
from .mxfp4 import BLOCK
from .reader import CheckpointError, listed, read_json, shown
from .shards import Shards

FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float32}  # float16 is held as float32
LIMITS = {"layers": 1024, "experts in all": 100_000, "channels in a head": 65_536, "parameters": 10**12 - 1}

MOST = 6  # fields named in one message

# What files may say otherwise under a published name: the same weights give the same numbers. Dropout acts in
# training alone. Where a text stops and which ids are unused concern sampling, and revisions of a repository
# differ in them. Weights may be stored in another dtype, and experts packed or not.
FREE = ("name", "dropout", "stop_ids", "vocab_used", "stored", "stored_experts")


@dataclass(frozen=True)
class Checkpoint:
    """A checked folder: `model` on the meta device; `stored`, what the files hold, under our names, there
    too; `rows`, which of their tensors make which of ours."""

    folder: Path
    config: Config
    shards: Shards
    model: Transformer
    stored: dict[str, Tensor]
    rows: list[names.Row]

    @property
    def model_type(self) -> str:
        """What config.json calls, or would call, the family."""
        return keys.MODEL_TYPES[self.config.family]


def open_checkpoint(folder: Path, name: str) -> Checkpoint:
    """Open and compare; CheckpointError says what does not fit."""
    said, config = read_folder(folder, name)
    shards = Shards(folder)
    layout = config.family
    if is_original(said):
        layout = "gpt-oss original"
    elif config.family == "gpt2" and not any(name.startswith("transformer.") for name in shards):
        layout = "gpt2 bare"
    table = shards.get(names.LAYOUTS[layout][0].theirs[0])
    config = config.with_changes(stored="bfloat16" if table and table.dtype == "BF16" else "float32")
    with torch.device("meta"):
        model = Transformer(config)
    stored = what_is_stored(model)
    rows = names.rows(layout, config, stored)
    optional = names.ignored(layout, config) | ({"lm_head.weight"} if config.tied else set())
    compare(names.to_theirs(rows, stored), optional, shards)
    return Checkpoint(folder, config, shards, model, stored, rows)


def read_folder(folder: Path, name: str) -> tuple[dict[str, Any], Config]:
    """A folder's config.json, as it is and as a Config; the weights are not looked at."""
    path, generation = folder / "config.json", folder / "generation_config.json"
    said = read_json(path)
    config = read_config(said, name, read_json(generation) if generation.exists() else None, str(path))
    refuse_absurd(config, path)
    return said, config


def config_of(folder: Path, name: str) -> Config:
    """The Config of a folder from its config.json alone: no weights are needed.

    `stored` is the dtype that config.json names, or the published one of its family where it names none.
    CheckpointError as from `load` for what cannot be, and for a dtype of which no size is known.
    """
    said, config = read_folder(folder, name)
    try:
        return config.with_changes(stored=stored_in(said, config.family))
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error


def unlike(config: Config, other: Config) -> list[str]:
    """The fields in which two configs differ, of those that decide what is computed or what shapes there
    are."""
    # learned positions have a row for each token of context; with RoPE it is a limit and no more, which files
    # may set otherwise (YaRN's original context, on which frequencies depend, is compared within `yarn`)
    return differing(config, other, FREE if other.positions == "learned" else (*FREE, "context"))


def check_named(opened: Checkpoint) -> None:
    """CheckpointError unless the model that was read under a published name is that model, by its config."""
    config, named = opened.config, NAMED[opened.config.name]
    if odd := unlike(config, named):
        pairs = ((field, shown(getattr(config, field)), shown(getattr(named, field))) for field in odd[:MOST])
        said = "; ".join(f"{field} is {found}, expected {expected}" for field, found, expected in pairs)
        more = f"; and {len(odd) - MOST} more" if len(odd) > MOST else ""
        raise CheckpointError(
            f"{opened.folder.absolute()}: the model here is not {named.name}: {said}{more}. "
            "Load the folder by its path instead, or put the right files there"
        )


def refuse_absurd(config: Config, path: Path) -> None:
    """CheckpointError for what no model has, from whole numbers alone, before anything is built.

    Within these limits building costs next to nothing, and what the files do not hold is told by name.
    """
    c, experts = config, config.n_experts or 1
    per_layer = 2 * c.d_model * c.n_heads * c.d_head + experts * (3 if c.gated else 2) * c.d_model * c.d_ff
    tables = c.vocab_size + (c.context if c.positions == "learned" else 0)
    asked = {
        "layers": c.n_layers,
        "experts in all": c.n_layers * experts,
        "channels in a head": c.d_head,
        "parameters": c.n_layers * per_layer + tables * c.d_model,
    }
    for what, count in asked.items():
        if count > LIMITS[what]:
            raise CheckpointError(f"{path}: asks for {count} {what}; at most {LIMITS[what]} are read")


def what_is_stored(model: Transformer) -> dict[str, Tensor]:
    """What a checkpoint of this meta model holds, under our names; experts packed if its config says so."""
    found = dict(model.state_dict())
    if model.config.tied:
        del found["unembed.weight"]
    for name, part in model.named_modules():
        if isinstance(part, Stack) and model.config.stored_experts == "mxfp4":
            *rows, inputs = found.pop(f"{name}.weight").shape
            blocks = torch.empty(*rows, inputs // BLOCK, BLOCK // 2, dtype=torch.uint8, device="meta")
            found[f"{name}.blocks"], found[f"{name}.scales"] = blocks, blocks[..., 0]
    return found


def compare(expected: Mapping[str, Tensor], optional: set[str], shards: Shards) -> None:
    """CheckpointError unless the files hold exactly the expected tensors, in shape and kind."""
    missing = [name for name in expected if name not in shards]
    extra = [name for name in shards if name not in expected and name not in optional]
    lacks = [f"{len(missing)} tensors missing: {listed(missing)}"] if missing else []
    has = [f"{len(extra)} tensors that the model has no place for: {listed(extra)}"] if extra else []
    if lacks or has:
        raise CheckpointError(f"{shards.folder}: {'; '.join(lacks + has)}")
    for name, like in expected.items():
        found, kinds = shards[name], ("U8",) if like.dtype == torch.uint8 else tuple(FLOATS)
        if found.shape != like.shape or found.dtype not in kinds:
            asked = f"config.json asks for {' or '.join(kinds)} {list(like.shape)}"
            raise CheckpointError(f"{found.path}: tensor {shown(name)} is {found}; {asked}")
