"""Writing a model in its family's Hugging Face layout: config.json, generation_config.json and model.safetensors.

`load` reads it back, and so does transformers. Everything is written in a folder beside and then moved into place, the
config last, so that a folder with a config.json is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..model import Transformer
from . import names
from .dialects import MODEL_TYPES, write_config
from .mxfp4 import pack, unpack

STORED = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def save(
    model: Transformer,
    folder: str | Path,
    experts: str | None = None,
    dtype: torch.dtype | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a model to `folder`, which need not exist, and return its path.

    experts: "mxfp4" packs gpt-oss's experts (weights that MXFP4 can hold are kept exactly, others are rounded, see
    `mxfp4.pack`), "same" writes them like the rest; dtype: torch.float32 or torch.bfloat16, of everything that is not packed.
    None for either: as model.config says. The model's tokenizer is written beside, for `load` and for transformers;
    extra_files: name → content, written too.

    Of an existing folder the model's files are replaced and others stay. ValueError for what the layout cannot say.
    """
    config = model.config
    experts = config.stored_experts if experts is None else experts
    dtype = getattr(torch, config.stored) if dtype is None else dtype
    if experts not in ("same", "mxfp4") or experts == "mxfp4" and config.family != "gpt-oss":
        raise ValueError(f"experts={experts!r}; expected 'same', or for gpt-oss 'mxfp4'")
    if dtype not in STORED:
        raise ValueError(f"dtype={dtype}; expected torch.float32 or torch.bfloat16")
    if experts == "mxfp4" and (config.d_model % 32 or config.d_ff % 32):
        raise ValueError(f"MXFP4 packs blocks of 32: d_model={config.d_model} and d_ff={config.d_ff} must be multiples of 32")
    said = write_config(config, experts == "mxfp4", STORED[dtype])
    ours = to_store(model, experts == "mxfp4", dtype)
    theirs = names.to_theirs(names.rows(config.family, config, ours), ours)
    stops = {"eos_token_id": said["eos_token_id"]}
    texts = {"generation_config.json": as_json(stops), **(extra_files or {}), "config.json": as_json(said)}
    for name in texts:
        if Path(name).name != name:
            raise ValueError(f"extra file {name!r}; expected a plain name")
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        whole = Path(beside) / "whole"
        whole.mkdir()
        separate = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in theirs.items()}
        save_file(separate, whole / "model.safetensors", metadata={"format": "pt"})
        write_tokenizer(model, whole)
        for name, text in texts.items():
            (whole / name).write_bytes(text)
        put(whole, folder, last="config.json")
    return folder


def write_tokenizer(model: Transformer, folder: Path) -> None:
    """Write the model's tokenizer, unless it is one that its family and vocabulary already name."""
    from ..text.tokenizer_json import write_tokenizer as write
    from ..text.tokens import encoding_of

    if model.tokenizer is not None:
        if encoding_of(None, MODEL_TYPES[model.config.family], model.config.vocab_size) is None:
            write(folder, model.tokenizer, model.config.context)


def to_store(model: Transformer, packed: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """The model's tensors as they are to be written, under our names, on the CPU; a tied read-out is left out."""
    found = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if model.config.tied:
        del found["unembed.weight"]
    for stack in [name.removesuffix(".blocks") for name in found if name.endswith(".blocks")]:
        if not packed:
            found[f"{stack}.weight"] = unpack(found.pop(f"{stack}.blocks"), found.pop(f"{stack}.scales"))
    for stack in [name.removesuffix(".weight") for name in found if name.endswith(("gate_up.weight", "experts.down.weight"))]:
        if packed:
            found[f"{stack}.blocks"], found[f"{stack}.scales"] = pack(found.pop(f"{stack}.weight"))
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in found.items()}


def as_json(value: object) -> bytes:
    """Readable JSON, ending with a line break."""
    return (json.dumps(value, indent=2) + "\n").encode()


def put(whole: Path, folder: Path, last: str) -> None:
    """Move a finished folder into place: at once where nothing is there, else file by file with `last` missing meanwhile."""
    if not folder.exists():
        whole.chmod(0o755)
        os.replace(whole, folder)
        return
    (folder / last).unlink(missing_ok=True)
    for stale in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
        stale.unlink()
    for name in sorted(path.name for path in whole.iterdir() if path.name != last):
        shutil.move(whole / name, folder / name)
    os.replace(whole / last, folder / last)
