"""How a model's weights are to be held and multiplied, and whether that fits, before any is read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..cost import human, memory_parts, require_limit, require_memory, widens
from ..model import Transformer, attend
from ..model.attention import Attention
from ..model.linear import Linear, Stack
from .checkpoint import FLOATS, Checkpoint
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
}


def wants_fast(
    kernels: str | None, name: str, device: torch.device, dtype: torch.dtype | str | None
) -> bool:
    """Whether fast kernels are to multiply; ValueError where they are asked for and cannot."""
    if kernels not in (None, "exact", "fast"):
        raise ValueError(f"kernels={kernels!r}; expected 'exact', 'fast' or None")
    can = device.type == "cpu" and dtype in (None, "stored")
    if kernels == "fast" and not can:
        raise ValueError(f"kernels='fast' multiplies weights as they are stored, on the CPU; device is "
                         f"{str(device)!r} and dtype {dtype!r}. Leave both out, or kernels.")  # fmt: skip
    return can and (kernels == "fast" or kernels is None and name in FAST)


def held_bytes(opened: Checkpoint, plan: Plan) -> tuple[int, int]:
    """Bytes that the experts take, and that all other weights take."""
    experts = rest = 0
    for row in opened.rows:
        for name in row.ours:
            like = opened.stored[name]
            if like.dtype != torch.uint8:
                size = like.numel() * plan.held(opened.shards[row.theirs[0]].dtype).itemsize
            else:  # a byte of blocks unpacks to two float32
                size = like.numel() if plan.packed else 8 * like.numel() * name.endswith("blocks")
            experts, rest = (experts + size, rest) if ".experts." in name else (experts, rest + size)
    return experts, rest


def needed(opened: Checkpoint, plan: Plan, fast: bool) -> dict[str, int]:
    """What one token takes, in bytes, part by part."""
    experts, rest = held_bytes(opened, plan)
    widened = plan.packed and widens(opened.config, fast)
    held = {"experts": experts, "other weights": rest}
    return memory_parts(opened.config, held, context=1, tokens=1, widened=widened, fast=fast)


def check_fits(limit: int | float | None, opened: Checkpoint, plan: Plan, fast: bool) -> None:
    """ValueError, with the arithmetic, where the model does not fit into `limit` bytes."""
    if limit is None:
        return
    least = sum(needed(opened, PLANS["stored"], fast=True).values())
    way_on = f"The least, with dtype='stored' and kernels='fast', is {human(least)}"
    way_on += "." if least <= require_limit(limit) else ": choose a smaller model."
    require_memory(opened.config.name, needed(opened, plan, fast), require_limit(limit), way_on)


def holders(part: nn.Module) -> list[Linear | Stack | PackedStack]:
    """The weight holders of a model, or of a part of it."""
    return [one for one in part.modules() if isinstance(one, Linear | Stack | PackedStack)]


def arithmetic(part: nn.Module) -> str:
    """How the weights of a model, or of a part of it, multiply: "exact", "fast (avx2)", or both."""
    return " and ".join(sorted({getattr(holder, "arithmetic", "exact") for holder in holders(part)}))


def check_run(limit: int | float, model: Transformer, context: int, tokens: int) -> None:
    """ValueError, with the arithmetic, where a run does not fit into `limit` bytes.

    context: the most tokens that its cache will hold; tokens: the most that go through the model at once.
    """
    held = {tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}  # tied ones once
    widened = False
    for holder in holders(model):
        stored = holder.blocks if isinstance(holder, PackedStack) else holder.weight
        widened |= stored.dtype != holder.compute and arithmetic(holder) == "exact"
    fast = all(part.attend is not attend for part in model.modules() if isinstance(part, Attention))
    parts = memory_parts(model.config, {"weights": sum(held.values())}, context, tokens, widened, fast)
    require_memory(model.config.name, parts, require_limit(limit), "Shorten the prompt or max_tokens.")
