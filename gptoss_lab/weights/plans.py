"""How a model's weights are to be held and multiplied, and whether that fits, before any is read."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from torch import nn

from ..config import NAMED, Config
from ..cost import PASS, human, memory_parts, pass_tokens, require_limit, require_memory, widens
from ..model import Transformer, attend
from ..model.attention import Attention
from ..model.linear import Linear, Stack
from .checkpoint import FLOATS, Checkpoint, unlike
from .devices import memory, precision, usable
from .mxfp4 import PackedStack

FAST = ("gpt-oss-20b", "gpt-oss-120b")  # models for which kernels=None means "fast"


@dataclass(frozen=True)
class Plan:
    """How weights are held: in `dtype` (None: as stored), MXFP4 packed or not, with products in `compute`."""

    dtype: torch.dtype | None
    packed: bool
    compute: torch.dtype

    def held(self, stored: str) -> torch.dtype:
        """The dtype of a weight that a file has as `stored`."""
        return FLOATS[stored] if self.dtype is None else self.dtype


PLANS: dict[torch.dtype | str, Plan] = {
    "stored": Plan(None, packed=True, compute=torch.float32),
    torch.float32: Plan(torch.float32, packed=False, compute=torch.float32),
    torch.bfloat16: Plan(torch.bfloat16, packed=True, compute=torch.bfloat16),
    torch.float16: Plan(None, packed=True, compute=torch.float16),
}


def wants_fast(
    kernels: str | None, config: Config, device: torch.device, dtype: torch.dtype | str | None
) -> bool:
    """Whether fast kernels are to multiply, by default for the models of `FAST`, wherever their files lie;
    ValueError where they are asked for and cannot."""
    if kernels not in (None, "exact", "fast"):
        raise ValueError(f"kernels={kernels!r}; expected 'exact', 'fast' or None")
    if kernels == "fast" and device.type == "cuda" and dtype != torch.float32:
        if importlib.util.find_spec("triton") is None:
            raise ValueError("kernels='fast' on a card needs triton, which torch's builds for cards bring "
                             "along on Linux; leave kernels out")  # fmt: skip
        return True
    can = device.type == "cpu" and dtype in (None, "stored")
    if kernels == "fast" and not can:
        raise ValueError(f"kernels='fast' multiplies weights as they are stored, on the CPU; device is "
                         f"{str(device)!r} and dtype {dtype!r}. Leave both out, or kernels.")  # fmt: skip
    named = any(not unlike(config, NAMED[name]) for name in FAST)
    return can and (kernels == "fast" or kernels is None and named)


def held_bytes(opened: Checkpoint, plan: Plan, table: bool = True) -> tuple[int, int]:
    """Bytes that the experts take, and that all other weights take, with the embedding `table` or without."""
    experts = rest = 0
    for row in opened.rows:
        for name in row.ours:
            like = opened.stored[name]
            if like.dtype != torch.uint8:
                size = like.numel() * plan.held(opened.shards[row.theirs[0]].dtype).itemsize
            else:  # a byte of blocks unpacks to two float32
                size = like.numel() if plan.packed else 8 * like.numel() * name.endswith("blocks")
            size = 0 if name == "token_embedding" and not table else size
            experts, rest = (experts + size, rest) if ".experts." in name else (experts, rest + size)
    return experts, rest


def needed(
    opened: Checkpoint, plan: Plan, fast: bool, kind: str = "cpu", table: bool = True
) -> dict[str, int]:
    """What one token takes on a kind of device, in bytes, part by part; `table`: the embedding lies there."""
    experts, rest = held_bytes(opened, plan, table)
    widened = plan.packed and widens(opened.config, fast and kind == "cpu")
    held = {"experts": experts, "other weights": rest}
    return memory_parts(opened.config, held, 1, 1, widened, kind, named(plan.compute), fast and kind == "cpu")


def check_fits(
    limit: int | float | None, opened: Checkpoint, plan: Plan, fast: bool, device: torch.device,
    table_on: torch.device,
) -> None:  # fmt: skip
    """ValueError, with the arithmetic, where the model does not fit into `limit` bytes of its device."""
    if limit is None:
        return
    if device.type == "cpu":
        how, least = "dtype='stored' and kernels='fast'", needed(opened, PLANS["stored"], fast=True)
    else:
        apart = not opened.config.tied
        how = "dtype=torch.bfloat16 or float16" + " and embedding_device='cpu'" * apart
        least = needed(opened, PLANS[torch.bfloat16], False, device.type, table=not apart)
    way_on = f"The least, with {how}, is {human(sum(least.values()))}"
    way_on += "." if sum(least.values()) <= require_limit(limit) else ": choose a smaller model."
    parts = needed(opened, plan, fast, device.type, table=table_on == device)
    require_memory(opened.config.name, parts, require_limit(limit), way_on)


def holders(part: nn.Module) -> list[Linear | Stack | PackedStack]:
    """The weight holders of a model, or of a part of it."""
    return [one for one in part.modules() if isinstance(one, Linear | Stack | PackedStack)]


def arithmetic(part: nn.Module) -> str:
    """How the weights of a model, or of a part of it, multiply: "exact", "fast (avx2)", or both."""
    return " and ".join(sorted({getattr(holder, "arithmetic", "exact") for holder in holders(part)}))


def named(dtype: torch.dtype) -> str:
    """A dtype's name without its package's."""
    return str(dtype).removeprefix("torch.")


def prompt_pass(model: Transformer, context: int) -> int:
    """How many tokens of a prompt go through the model at once."""
    if model.device.type == "cpu":
        return PASS
    return pass_tokens(model.config, context, named(model.unembed.compute))


def cache_dtype(model: Transformer) -> torch.dtype:
    """What keys and values come in, and are cached in: bfloat16 where products are, else float32."""
    return torch.bfloat16 if model.unembed.compute == torch.bfloat16 else torch.float32


def check_run(limit: int | float, model: Transformer, context: int, tokens: int) -> None:
    """ValueError, with the arithmetic, where a run does not fit into `limit` bytes.

    context: the most tokens that its cache will hold; tokens: the most that go through the model at once.
    limit: bytes of the device on which it computes.
    """
    there = [tensor for tensor in model.state_dict().values() if tensor.device == model.device]
    held = {tensor.data_ptr(): tensor.nbytes for tensor in there}  # tied ones once
    widened = False
    for holder in holders(model):
        stored = holder.blocks if isinstance(holder, PackedStack) else holder.weight
        exact = arithmetic(holder) == "exact" or model.device.type != "cpu"  # there prompts are unpacked
        widened |= stored.dtype != holder.compute and exact
    weights, kind = {"weights": sum(held.values())}, model.device.type
    fast = all(part.attend is not attend for part in model.modules() if isinstance(part, Attention))
    products = named(model.unembed.compute)
    parts = memory_parts(model.config, weights, context, tokens, widened, kind, products, fast)
    require_memory(model.config.name, parts, require_limit(limit), "Shorten the prompt or max_tokens.")


def products_on(kind: str, dtype: str | None) -> tuple[str, tuple[int, int] | None]:
    """The precision of products on a kind of device, and the bytes free and in all of one that is here.

    dtype: "stored", "bfloat16" or "float16"; None: as `load` chooses, or would on a card with bfloat16.
    """
    chosen: torch.dtype | str = torch.bfloat16
    here = None
    try:
        device = usable(kind)
        chosen, here = precision(device), memory(device)
    except ValueError:  # not on this machine
        pass
    said = dtype or (chosen if isinstance(chosen, str) else named(chosen))
    return "float32" if said == "stored" else said, here
