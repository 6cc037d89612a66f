"""load: from a name or a folder to a model, strict both ways, with nothing allocated before everything is checked.

    config.json → Config → what every tensor must be called and measure → compared with the files' headers → mapped

The model is built on the meta device, where sizes cost nothing, and then given the mapped tensors. Agrees with transformers
on every layout that both read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import Config
from ..model import Transformer
from ..model.linear import Linear, Stack
from . import names
from .dialects import MODEL_TYPES, is_original, read_config
from .mxfp4 import BLOCK, LARGEST_SCALE, PackedStack, unpack
from .places import find
from .reader import CheckpointError, Shards, listed, read_json, shown

SMALL = 1_000_000_000  # bytes as float32 up to which dtype=None means float32 and every weight is looked at
FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float32}  # float16 is held as float32
LIMITS = {"layers": 1024, "experts in all": 100_000, "channels in a head": 65_536, "parameters": 10**12 - 1}


@dataclass(frozen=True)
class Plan:
    """How weights will be held: `dtype` None as stored; `packed` experts stay packed; products in `compute`."""

    dtype: torch.dtype | None
    packed: bool
    compute: torch.dtype

    def held(self, stored: str) -> torch.dtype:
        """The dtype of a weight that a file has as `stored`."""
        return FLOATS[stored] if self.dtype is None else self.dtype


def load(
    source: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    kernels: str | None = None,
    memory_limit: int | float | None = None,
) -> Transformer:
    """A model, ready to answer: eval mode, weights that need no gradient, `tokenizer` and `weights_from` set.

    source: a known name ("mini-oss", "gpt-oss-20b", "gpt2", …) or a folder with config.json and safetensors files, in the
    Hugging Face layout of gpt-oss (MXFP4 or unpacked), GPT-2 or Qwen3-MoE, or in the `original` layout of gpt-oss.
    device: "cpu", "cuda", "cuda:1", "mps".
    dtype: None: float32 where all weights take at most 1 GB so, else "stored". "stored": weights as the files have them
    (MXFP4 stays packed), products in float32. torch.float32: all weights so, unpacked. torch.bfloat16: weights and products
    so, MXFP4 stays packed.
    kernels: None or "exact", the only kind this version has.
    memory_limit: bytes; a model that would take more with one token in its cache is refused before its weights are read.

    ValueError for arguments, CheckpointError (a ValueError) for anything wrong with the files. Never uses the network.
    """
    device = usable(device)
    if kernels not in (None, "exact"):
        raise ValueError(f"kernels={kernels!r}: this version has exact kernels only; leave kernels out or say 'exact'")
    name, folder = find(source)
    said, shards = read_json(folder / "config.json"), Shards(folder)
    generation = folder / "generation_config.json"
    config = read_config(said, name, read_json(generation) if generation.exists() else None, str(folder / "config.json"))
    layout = choose_layout(said, config, shards)
    table = shards.get(names.LAYOUTS[layout][0].theirs[0])
    config = config.with_changes(stored="bfloat16" if table and table.dtype == "BF16" else "float32")
    refuse_absurd(config, folder / "config.json")
    with torch.device("meta"):
        model = Transformer(config)
    stored = as_stored(model)
    rows = names.rows(layout, config, stored)
    compare(names.to_theirs(rows, stored), names.ignored(layout, config), shards, config)
    parameters = sum(p.numel() for p in model.parameters())
    plan = make_plan(dtype, small := 4 * parameters <= SMALL)
    check_memory(memory_limit, config, rows, stored, shards, plan)
    fill(model, shape_up(read(rows, stored, shards, plan, small), plan), plan)
    if config.tied:
        check_tied(model, shards)
    model.tokenizer = tokenizer(folder, said, config)
    model.weights_from = f"{name}, {shards.fingerprint()}"
    return model.to(device).eval().requires_grad_(False)


def usable(device: str | torch.device) -> torch.device:
    """The device, if this machine has it."""
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device!r}; expected 'cpu', 'cuda', 'cuda:1' or 'mps'") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(chosen.type):
        raise ValueError(f"device={str(device)!r} is not available here; available: {', '.join(d for d in there if there[d])}")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={str(device)!r}: this machine has {torch.cuda.device_count()} (cuda:0 on)")
    return chosen


def choose_layout(said: Mapping[str, object], config: Config, shards: Shards) -> str:
    """Which table of names these files follow."""
    if is_original(said):
        return "gpt-oss original"
    if config.family == "gpt2" and not any(name.startswith("transformer.") for name in shards):
        return "gpt2 bare"
    return config.family


def refuse_absurd(config: Config, path: Path) -> None:
    """CheckpointError where a config asks for what no model has, in whole numbers alone, before anything is built.

    Within these limits building costs next to nothing (sizes are free on the meta device), and what the files do not hold
    is told by name.
    """
    c = config
    experts = c.n_experts or 1
    per_layer = 2 * c.d_model * c.n_heads * c.d_head + experts * (3 if c.gated else 2) * c.d_model * c.d_ff
    tables = c.vocab_size + (c.context if c.positions == "learned" else 0)
    asked = {"layers": c.n_layers, "experts in all": c.n_layers * experts, "channels in a head": c.d_head,
             "parameters": c.n_layers * per_layer + tables * c.d_model}  # fmt: skip
    for what, count in asked.items():
        if count > LIMITS[what]:
            raise CheckpointError(f"{path}: asks for {count} {what}; at most {LIMITS[what]} are read")


def as_stored(model: Transformer) -> dict[str, Tensor]:
    """The shapes that a checkpoint of this model has, under our names, on the meta device; packed as the config says."""
    found = dict(model.state_dict())
    if model.config.tied:
        del found["unembed.weight"]
    for name, part in model.named_modules():
        if isinstance(part, Stack) and model.config.stored_experts == "mxfp4":
            *rows, inputs = found.pop(f"{name}.weight").shape
            blocks = torch.empty(*rows, inputs // BLOCK, BLOCK // 2, dtype=torch.uint8, device="meta")
            found[f"{name}.blocks"], found[f"{name}.scales"] = blocks, blocks[..., 0]
    return found


def compare(expected: Mapping[str, Tensor], ignored: set[str], shards: Shards, config: Config) -> None:
    """CheckpointError unless the files hold exactly the expected tensors, in shape and kind."""
    optional = ignored | ({"lm_head.weight"} if config.tied else set())
    missing = [name for name in expected if name not in shards]
    extra = [name for name in shards if name not in expected and name not in optional]
    if missing or extra:
        lacks = f"{len(missing)} tensors missing: {listed(missing)}" if missing else ""
        has = f"{len(extra)} tensors that the model has no place for: {listed(extra)}" if extra else ""
        raise CheckpointError(f"{shards.folder}: {'; '.join(filter(None, (lacks, has)))}")
    for name, like in expected.items():
        found, kinds = shards[name], ("U8",) if like.dtype == torch.uint8 else tuple(FLOATS)
        if found.shape != like.shape or found.dtype not in kinds:
            raise CheckpointError(f"{found.path}: tensor {shown(name)} is {found}; config.json asks for "
                                  f"{' or '.join(kinds)} {list(like.shape)}")  # fmt: skip


def make_plan(dtype: torch.dtype | str | None, small: bool) -> Plan:
    """What `dtype` means."""
    plans = {
        "stored": Plan(None, packed=True, compute=torch.float32),
        torch.float32: Plan(torch.float32, packed=False, compute=torch.float32),
        torch.bfloat16: Plan(torch.bfloat16, packed=True, compute=torch.bfloat16),
    }
    chosen = (torch.float32 if small else "stored") if dtype is None else dtype
    if chosen not in plans:
        raise ValueError(f"dtype={dtype!r}; expected None, 'stored', torch.float32 or torch.bfloat16")
    return plans[chosen]


def held_bytes(rows: list[names.Row], stored: Mapping[str, Tensor], shards: Shards, plan: Plan) -> tuple[int, int]:
    """Bytes that experts and all other weights will take."""
    experts = rest = 0
    for row in rows:
        for name in row.ours:
            like = stored[name]
            if like.dtype != torch.uint8:
                size = like.numel() * plan.held(shards[row.theirs[0]].dtype).itemsize
            else:
                size = like.numel() if plan.packed else 8 * like.numel() * name.endswith("blocks")
            experts, rest = (experts + size, rest) if ".experts." in name else (experts, rest + size)
    return experts, rest


def check_memory(
    limit: int | float | None, config: Config, rows: list[names.Row], stored: Mapping[str, Tensor], shards: Shards, plan: Plan
) -> None:
    """ValueError, with the arithmetic, where the model does not fit into `limit` bytes."""
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        raise ValueError(f"memory_limit={limit!r}; expected bytes, as 16e9")
    experts, rest = held_bytes(rows, stored, shards, plan)
    cache = 2 * config.n_layers * config.n_kv_heads * config.d_head * 4
    if experts + rest + cache > limit:
        smallest = sum(held_bytes(rows, stored, shards, make_plan("stored", False))) + cache
        way_on = f"dtype='stored' takes {smallest / 1e9:.3g} GB" if smallest <= limit else \
            f"dtype='stored', the least, takes {smallest / 1e9:.3g} GB: choose a smaller model"  # fmt: skip
        raise ValueError(f"{config.name} takes {(experts + rest + cache) / 1e9:.3g} GB so (experts {experts / 1e9:.3g}, other "
                         f"weights {rest / 1e9:.3g}, cache of one token {cache / 1e9:.2g}); memory_limit is {limit / 1e9:.3g} GB. "
                         f"{way_on[0].upper()}{way_on[1:]}.")  # fmt: skip


def read(
    rows: list[names.Row], stored: Mapping[str, Tensor], shards: Shards, plan: Plan, small: bool
) -> Iterator[tuple[str, Tensor]]:
    """Our tensors one after another, mapped where they can stay as they are. Of a small model each is looked at:
    CheckpointError for NaN and infinity, and for scales that mean NaN."""
    for row in rows:
        theirs = []
        for name, ours in zip(row.theirs, row.ours * len(row.theirs)):
            tensor = shards.tensor(name)
            if small and tensor.is_floating_point() and not tensor.isfinite().all():
                raise CheckpointError(f"{shards[name].path}: tensor {shown(name)} holds NaN or infinity")
            if small and ours.endswith(".scales") and int(tensor.max()) > LARGEST_SCALE:
                raise CheckpointError(f"{shards[name].path}: tensor {shown(name)} holds scales up to {int(tensor.max())}; beyond "
                                      f"{LARGEST_SCALE} values are infinite, and 255 is NaN")  # fmt: skip
            theirs.append(tensor.to(plan.held(shards[name].dtype)) if tensor.is_floating_point() else tensor)
        yield from zip(row.ours, row.form.read(theirs, [tuple(stored[name].shape) for name in row.ours]))


def shape_up(tensors: Iterator[tuple[str, Tensor]], plan: Plan) -> Iterator[tuple[str, Tensor]]:
    """Packed weights unpacked where the plan says so; blocks are followed by their scales."""
    for name, tensor in tensors:
        if name.endswith(".blocks") and not plan.packed:
            scales_name, scales = next(tensors)
            assert scales_name == name.replace(".blocks", ".scales")
            yield name.replace(".blocks", ".weight"), unpack(tensor, scales)
        else:
            yield name, tensor


def fill(model: Transformer, tensors: Iterator[tuple[str, Tensor]], plan: Plan) -> None:
    """Give the model its weights; where experts stay packed, a PackedStack takes the place of the Stack."""
    for name, tensor in tensors:
        path, _, leaf = name.rpartition(".")
        if leaf == "blocks":
            parent, _, own = path.rpartition(".")
            stack = getattr(model.get_submodule(parent), own)
            setattr(model.get_submodule(parent), own, PackedStack(tensor, tensor[..., 0], stack.bias))
        part = model.get_submodule(path)
        setattr(part, leaf, tensor if leaf in ("blocks", "scales") else nn.Parameter(tensor, requires_grad=False))
    if model.config.tied:
        model.unembed.weight = model.token_embedding
    for part in model.modules():
        if isinstance(part, Linear | Stack | PackedStack) and plan.compute != torch.float32:
            part.compute = plan.compute
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


def check_tied(model: Transformer, shards: Shards) -> None:
    """CheckpointError where a read-out stands beside the embedding that it should equal."""
    if "lm_head.weight" in shards:
        table, head = model.token_embedding, shards.tensor("lm_head.weight")
        if head.shape != table.shape or not torch.equal(head.to(table.dtype), table):
            raise CheckpointError(f"{shards['lm_head.weight'].path}: lm_head.weight differs from the token embedding, with which "
                                  "config.json ties it (tie_word_embeddings)")  # fmt: skip


def tokenizer(folder: Path, said: Mapping[str, object], config: Config) -> object:
    """The tokenizer that belongs to these files, or None."""
    from ..text.tokens import encoding_of

    try:
        return encoding_of(folder, str(said.get("model_type", MODEL_TYPES[config.family])), config.vocab_size)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
