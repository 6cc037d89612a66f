"""Writing a model in its family's Hugging Face layout: config.json, model.safetensors, and its tokenizer.

`load` reads it back, and so does transformers. Everything is written in a folder beside and then moved into
place, the config last: a folder with a config.json is whole. Where that fails, the model that was there comes
back; its files are removed only when the new ones are in their place.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import Config, require
from ..files import make_folder, require_folder, save_tensors
from ..model import Transformer
from . import keys, names
from .dialects import read_config
from .mxfp4 import BLOCK, pack, unpack
from .reader import CheckpointError, listed
from .shards import files_like, find_index, find_single, read_index

STORED = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", ".safetensors.index.json"
WRITTEN = (CONFIG, WEIGHTS, "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def save(
    model: Transformer,
    folder: str | Path,
    experts: str | None = None,
    dtype: torch.dtype | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a model to `folder`, which need not exist, and return its path.

    experts: "mxfp4" packs gpt-oss's experts (what MXFP4 can hold is kept exactly, the rest is rounded, see
    `mxfp4.pack`); "same" writes them like the other weights.
    dtype: torch.float32 or torch.bfloat16, for all that is not packed.
    None for either: as model.config says.
    extra_files: name → content, written too. The model's tokenizer is written in any case.

    In a folder that exists the model's files make way (its weights, or its index and the shards that this
    names, its configs and its tokenizer) and others stay. Before anything is written, ValueError for what the
    layout cannot say, and for a folder that cannot take it: something else is in its place, or in that of a
    file, or safetensors files lie there that belong to no model. OSError where writing fails; where not even
    the old files can be put back, it names the folder beside in which they are.
    """
    config, folder = model.config, Path(folder)
    experts = config.stored_experts if experts is None else experts
    dtype = getattr(torch, config.stored) if dtype is None else dtype
    if experts not in ("same", "mxfp4") or experts == "mxfp4" and config.family != "gpt-oss":
        raise ValueError(f"experts={experts!r}; expected 'same', or for gpt-oss 'mxfp4'")
    if experts == "mxfp4" and (config.d_model % BLOCK or config.d_ff % BLOCK):
        sizes = f"d_model={config.d_model} and d_ff={config.d_ff}"
        raise ValueError(f"MXFP4 packs blocks of {BLOCK}, but {sizes} are not both multiples")
    if dtype not in STORED:
        raise ValueError(f"dtype={dtype}; expected torch.float32 or torch.bfloat16")
    for name in extra_files or ():
        if Path(name).name != name:
            raise ValueError(f"extra file {name!r}; expected a plain name")
    said = write_config(config, experts == "mxfp4", STORED[dtype])
    old = files_there(folder, {*WRITTEN, *(extra_files or ())})
    ours = to_store(model, experts == "mxfp4", dtype)
    theirs = names.to_theirs(names.rows(config.family, config, ours), ours)
    place = folder.resolve()
    make_folder(place.parent)
    beside = Path(tempfile.mkdtemp(prefix=f".{place.name[:40]}-", dir=place.parent))
    whole, before = beside / "whole", beside / "before"
    try:
        whole.mkdir()
        apart = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in theirs.items()}
        save_tensors(apart, whole / WEIGHTS, {"format": "pt"})
        write_tokenizer(model, whole)
        (whole / "generation_config.json").write_bytes(as_json({"eos_token_id": said["eos_token_id"]}))
        for name, content in (extra_files or {}).items():
            (whole / name).write_bytes(content)
        (whole / CONFIG).write_bytes(as_json(said))
        move(whole, place, old, before)
    except BaseException as error:
        if before.is_dir() and os.listdir(before):
            kind, why = OSError if isinstance(error, Exception) else type(error), str(error) or repr(error)
            told = f"the old model of {folder} could not be put back ({why}); its files are in {before}"
            raise kind(told) from error
        shutil.rmtree(beside, ignore_errors=True)
        raise
    shutil.rmtree(beside)
    return folder


def to_store(model: Transformer, packed: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """The model's tensors as they are to be written, under our names, on the CPU; a tied read-out is left
    out."""
    found = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if model.config.tied:
        del found["unembed.weight"]
    layers = range(model.config.n_layers)
    for stack in [f"blocks.{n}.experts.{own}." for n in layers for own in ("gate_up", "down")]:
        if packed and f"{stack}weight" in found:
            found[f"{stack}blocks"], found[f"{stack}scales"] = pack(found.pop(f"{stack}weight"))
        elif not packed and f"{stack}blocks" in found:
            found[f"{stack}weight"] = unpack(found.pop(f"{stack}blocks"), found.pop(f"{stack}scales"))
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in found.items()}


def write_config(config: Config, packed: bool, dtype: str) -> dict[str, Any]:
    """The config.json of a Config, in the Hugging Face layout; dtype: "float32" or "bfloat16".

    It is read again before it is returned: ValueError where the family's config.json cannot say this config,
    with the fields.
    """
    family, yarn = config.family, config.yarn
    kind = keys.MODEL_TYPES[family]
    said: dict[str, Any] = {"architectures": [keys.CLASSES[family]], "model_type": kind, "dtype": dtype}
    for field, (spellings, default) in keys.SPELLINGS[family].items():
        if field not in keys.ONLY_IF_SET or getattr(config, field) != default:
            written = spellings if field == "dropout" else spellings[:1]
            said |= dict.fromkeys(written, getattr(config, field))
    said |= {key: allowed[0] for key, allowed in keys.FIXED[family].items()}
    if family != "gpt2":
        said |= {"rope_theta": config.rope_theta, "rope_scaling": {"rope_type": "default"}}
    if yarn is not None:
        said["rope_scaling"] = {
            "rope_type": "yarn",
            "factor": yarn.factor,
            "beta_fast": yarn.beta_fast,
            "beta_slow": yarn.beta_slow,
            "original_max_position_embeddings": yarn.original_context,
            "truncate": yarn.rounded,
        }
    if family == "gpt-oss":
        kinds = ["full_attention" if window is None else "sliding_attention" for window in config.windows]
        said |= {"sliding_window": config.window, "layer_types": kinds}
    if packed:
        plain = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
        said["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": plain}
    stops = list(config.stop_ids)
    said |= {"eos_token_id": stops[0] if len(stops) == 1 else stops or None, "bos_token_id": None}
    try:
        back = read_config(said, config.name)
    except CheckpointError as error:
        raise ValueError(f"a {kind} config.json cannot say this model: {error}") from error
    said_otherwise = ("windowed_layers", "window", "stored", "stored_experts")
    compared = [f.name for f in fields(Config) if f.name not in said_otherwise] + ["windows"]
    lost = [field for field in compared if getattr(back, field) != getattr(config, field)]
    if lost:
        values = ", ".join(f"{field}={getattr(config, field)!r}" for field in lost)
        raise ValueError(f"a {kind} config.json cannot say this model's {values}")
    return said


def write_tokenizer(model: Transformer, folder: Path) -> None:
    """Write the model's tokenizer, unless it is one that its family and vocabulary already name."""
    from ..text.tokenizer_json import write_tokenizer as write
    from ..text.tokens import encoding_of

    if model.tokenizer is not None:
        if encoding_of(None, keys.MODEL_TYPES[model.config.family], model.config.vocab_size) is None:
            write(folder, model.tokenizer, model.config.context)


def as_json(value: object) -> bytes:
    """Readable JSON, ending with a line break."""
    return (json.dumps(value, indent=2) + "\n").encode()


def files_there(folder: Path, written: Iterable[str]) -> list[str]:
    """The names of a model's files in `folder` (weights and their index, configs, tokenizer), which make way
    for another model's.

    ValueError where the folder cannot take a model whose files are `written`.
    """
    require_folder(folder)
    if not folder.is_dir():
        return []
    for name in written:
        require(not (folder / name).is_dir(), f"{folder / name} is a folder, in the place of a file of the "
                "model; move it away, or save to another folder")  # fmt: skip
    files = [path.name for path in files_like(folder, ".safetensors")]
    try:
        index = find_index(folder)
        known = set(read_index(index)) if index else {find_single(folder).name}
    except CheckpointError:  # nothing that could be loaded
        known = set()
    known = known | {WEIGHTS} if (folder / CONFIG).exists() else {WEIGHTS}
    foreign = [name for name in files if name not in known]
    require(not foreign, f"{folder} holds {listed(foreign)}, which is not of a model there; move it away, or "
            "save to another folder")  # fmt: skip
    others = [name for name in WRITTEN if os.path.lexists(folder / name)]
    return files + [path.name for path in files_like(folder, INDEX)] + others


def move(whole: Path, folder: Path, old: Iterable[str], before: Path) -> None:
    """Move a finished folder into place: in one step where nothing is there, else by files, the config last.

    The `old` files, and others whose names are taken, are put in the folder `before`, from where they come
    back if that fails.
    """
    if not folder.exists():
        os.replace(whole, folder)
        return
    new = sorted((path.name for path in whole.iterdir()), key=lambda name: (name == CONFIG, name))
    leaving = sorted({*old, *(name for name in new if os.path.lexists(folder / name))})
    placed: list[str] = []
    before.mkdir()
    try:
        for name in sorted(leaving, key=lambda name: name != CONFIG):
            os.replace(folder / name, before / name)
        for name in new:
            placed.append(name)  # first: an interruption may come between a move and what follows it
            os.replace(whole / name, folder / name)
    except BaseException:
        for name in reversed(placed):
            (folder / name).unlink(missing_ok=True)
        for name in sorted(os.listdir(before), key=lambda name: name == CONFIG):
            os.replace(before / name, folder / name)
        raise
