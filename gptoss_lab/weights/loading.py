"""load: from a name or a folder to a model, its weights mapped from the files where they can stay.

Nothing is allocated before everything is checked (`checkpoint`). Agrees with transformers on every layout
that both read: to 2e-5 in float32, the products being summed in another order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..config import NAMED
from ..cost import SMALL
from ..model import Transformer
from ..model.experts import Experts
from ..model.linear import Linear, Stack
from .checkpoint import Checkpoint, check_named, open_checkpoint
from .devices import precision, usable
from .half import halve
from .mxfp4 import LARGEST_SCALE, PackedStack, unpack
from .places import find
from .plans import PLANS, Plan, check_fits, wants_fast
from .reader import CheckpointError, shown, size_of

TOKENIZER_LIMIT = 100_000_000


def load(
    source: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    kernels: str | None = None,
    memory_limit: int | float | None = None,
    embedding_device: str | torch.device | None = None,
) -> Transformer:
    """A model, ready to answer: in eval mode, without gradients, its `tokenizer` and `weights_from` set.

    source: a known name ("mini-oss", "gpt-oss-20b", "gpt2", …), or a folder with config.json and safetensors
        files: gpt-oss (experts in MXFP4 or unpacked), GPT-2 or Qwen3-MoE in the Hugging Face layout, or
        gpt-oss's own `original`. A name wins over a folder of that name: write ./gpt2. Under a published
        name only a model of that config is loaded, whatever lies at its place.
    device: "cpu", "cuda", "cuda:1" or "mps".
    dtype: how weights are held, and the precision of products.
        None              float32 where all weights take at most 1 GB so; else as "stored" on the CPU, and
                          bfloat16 on other devices, or float16 on those without it
        "stored"          as the files have them, MXFP4 packed; products in float32
        torch.float32     float32, MXFP4 unpacked; products in float32
        torch.bfloat16    bfloat16, MXFP4 packed; products in bfloat16
        torch.float16     matrices in float16 or packed in MXFP4, the rest as stored; products in float16, of
                          rows scaled so that none overflows, and all else in float32 (see `half`);
                          CheckpointError for weights that could overflow even so
    kernels: "exact" (sums as torch makes them), or "fast": weights multiply as they are stored, an operation
        within a relative 1e-4 (see the room `kernels`); on a card MXFP4 alone does, through Triton. None:
        "fast" for what has the config of gpt-oss-20b or gpt-oss-120b, on the CPU, with dtype None or
        "stored"; else "exact".
    memory_limit: bytes of the device. What takes more is refused before weights are read, with the
        arithmetic: the weights as held, the cache of one token, the work on it, and the program itself (see
        `cost.memory_parts`).
    embedding_device: where the embedding table lies, if not on `device`: "cpu" leaves 1.2 GB of gpt-oss-20b
        out of a card's memory, from which a few rows are fetched. Not for models whose table is tied to the
        read-out.

    ValueError for arguments, CheckpointError (a ValueError) for anything wrong with the files. Where all
    weights take at most 1 GB as float32 each is looked at, and NaN, infinity and scales that mean them are
    refused; larger models are mapped unseen. Nothing is fetched from the network.
    """
    device = usable(device)
    table_on = device if embedding_device is None else usable(embedding_device)
    if dtype is not None and (not isinstance(dtype, str | torch.dtype) or dtype not in PLANS):
        raise ValueError(f"dtype={dtype!r}; expected None, 'stored', torch.float32, bfloat16 or float16")
    name, folder = find(source)
    opened = open_checkpoint(folder, name)
    fast = wants_fast(kernels, opened.config, device, dtype)
    if isinstance(source, str) and source in NAMED:
        check_named(opened)
    model = opened.model
    small = 4 * sum(weight.numel() for weight in model.parameters()) <= SMALL
    if dtype is None:
        dtype = torch.float32 if small and not fast else precision(device)
    plan = PLANS[dtype]
    if opened.config.tied and table_on != device:
        raise ValueError(f"embedding_device={str(table_on)!r}: the embedding of {name} is its read-out too, "
                         f"which multiplies on {str(device)!r}. Leave it out.")  # fmt: skip
    check_fits(memory_limit, opened, plan, fast, device, table_on)
    fill(model, unpacked(read(opened, plan, small, device, table_on), plan))
    if opened.config.tied:
        model.unembed.weight = model.token_embedding
        check_tied(opened)
    for part in model.modules():
        for leaf, buffer in part.named_buffers(recurse=False):
            setattr(part, leaf, buffer.to(device))
        if isinstance(part, Linear | Stack | PackedStack) and plan.compute == torch.bfloat16:
            part.compute = plan.compute
        if isinstance(part, Experts) and isinstance(part.gate_up, PackedStack) and not fast:
            part.few = 1  # unpacked together, all experts of four tokens take 2 GB of gpt-oss-20b
    if plan.compute == torch.float16:
        halve(model)
    if fast and device.type == "cpu":
        from ..kernels import quicken

        quicken(model)
    elif fast:
        from ..kernels.triton import quicken as quicken_on_a_card

        quicken_on_a_card(model)
    model.tokenizer = tokenizer_of(opened)
    model.weights_from = f"{name}, {opened.shards.fingerprint()}"
    return model.eval().requires_grad_(False)


def read(
    opened: Checkpoint, plan: Plan, look: bool, device: torch.device, table_on: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """Our tensors, one after another: brought to their device as the files have them, on the CPU mapped where
    they can stay so. table_on: the embedding table's device.

    look: refuse NaN, infinity, and scales that mean them (CheckpointError).
    """
    for row in opened.rows:
        theirs = []
        for name in row.theirs:
            tensor, where = opened.shards.tensor(name), opened.shards[name]
            tensor = tensor.to(table_on if row.ours == ("token_embedding",) else device)
            if tensor.is_floating_point():
                if look and not tensor.isfinite().all():
                    raise CheckpointError(f"{where.path}: tensor {shown(name)} holds NaN or infinity")
                tensor = tensor.to(plan.held(where.dtype))
            elif look and name.endswith("scales") and int(tensor.max()) > LARGEST_SCALE:
                scale = f"a scale of {int(tensor.max())}; 255 is NaN, {LARGEST_SCALE + 1} is beyond float32"
                raise CheckpointError(f"{where.path}: tensor {shown(name)} holds {scale}")
            theirs.append(tensor)
        shapes = [tuple(opened.stored[ours].shape) for ours in row.ours]
        yield from zip(row.ours, row.form.read(theirs, shapes))


def unpacked(tensors: Iterator[tuple[str, Tensor]], plan: Plan) -> Iterator[tuple[str, Tensor]]:
    """The same, with packed weights unpacked where the plan says so. Scales come right after their blocks."""
    for name, tensor in tensors:
        if name.endswith(".blocks") and not plan.packed:
            scales_name, scales = next(tensors)
            assert scales_name == f"{name.removesuffix('blocks')}scales"
            yield f"{name.removesuffix('blocks')}weight", unpack(tensor, scales)
        else:
            yield name, tensor


def fill(model: Transformer, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Give the model its weights; where they are packed, a PackedStack takes the place of the Stack."""
    for name, tensor in tensors:
        path, _, leaf = name.rpartition(".")
        if leaf == "blocks":
            room, _, own = path.rpartition(".")
            packed = PackedStack(tensor, tensor[..., 0], getattr(model.get_submodule(path), "bias", None))
            setattr(model.get_submodule(room), own, packed)
        elif leaf == "scales":
            model.get_submodule(path).scales = tensor
        else:
            setattr(model.get_submodule(path), leaf, nn.Parameter(tensor, requires_grad=False))


def check_tied(opened: Checkpoint) -> None:
    """CheckpointError where a read-out stands beside the embedding that it should equal."""
    if entry := opened.shards.get("lm_head.weight"):
        table = opened.model.token_embedding
        head = opened.shards.tensor("lm_head.weight")
        if head.shape != table.shape or not torch.equal(head.to(table.device, table.dtype), table):
            raise CheckpointError(f"{entry.path}: lm_head.weight differs from the token embedding, with "
                                  "which config.json ties it (tie_word_embeddings)")  # fmt: skip


def tokenizer_of(opened: Checkpoint) -> object:
    """The tokenizer that belongs to these files, or None."""
    from ..text.tokens import encoding_of

    file = opened.folder / "tokenizer.json"
    if file.exists() and size_of(file) > TOKENIZER_LIMIT:
        raise CheckpointError(f"{file}: {size_of(file)} bytes; at most {TOKENIZER_LIMIT} are read")
    try:
        return encoding_of(opened.folder, opened.model_type, opened.config.vocab_size)
    except RecursionError:
        raise CheckpointError(f"{file}: nested too deeply") from None
    except ValueError as error:
        raise CheckpointError(str(error)) from error
