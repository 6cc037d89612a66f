"""How fast this machine multiplies weights, way by way, and the tokens a second that follow for a model.

Each way of holding weights is tried on a matrix of gpt-oss's sizes, with the holder that a model would have:
once with one vector, as decoding does, once with many, as a prompt does. A token's time is then a sum over
the weights that it is multiplied with, bytes or FLOP by their rates. Attention over the context comes on
top; but each call here wakes its threads anew, and decoding may go through all blocks in one. So this is an
estimate, and may err to either side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import Config
from .cost import human, parameters, weights
from .kernels import FastLinear, FastStack, form
from .machine import BUFFER, median_time
from .model.linear import Linear
from .weights.loading import SMALL
from .weights.mxfp4 import BLOCK, PackedStack
from .weights.plans import FAST

WIDTH, HEIGHT = 2880, 5760  # a matrix of an expert of gpt-oss: gate and up
EXPERTS, CHOSEN = 32, 4
MANY, MANY_PACKED = 128, 16  # tokens of a prompt, and those of them that fall on an expert
SECONDS = 0.15  # for each measurement


@dataclass(frozen=True)
class Way:
    """A way of holding weights: bytes a second of the stored weights with one vector, FLOP a second with
    many.
    """

    name: str
    vector: float
    many: float


def measure(ways: Iterable[str]) -> dict[str, Way]:
    """The rates of some of WAYS, each by its holder, on torch's threads."""
    return {name: WAYS[name](name) for name in ways}


def float32(name: str) -> Way:
    """Weights in float32."""
    return plain(name, torch.float32)


def widened(name: str) -> Way:
    """bfloat16 weights that are brought to float32 to multiply (exact kernels)."""
    return plain(name, torch.bfloat16)


def bfloat16(name: str) -> Way:
    """bfloat16 weights as they lie (fast kernels)."""
    return plain(name, torch.bfloat16, fast=True)


def plain(name: str, dtype: torch.dtype, fast: bool = False) -> Way:
    """Rates of a tall matrix with one vector, and of a matrix of an expert's size with many.

    The tall one is half of machine.BUFFER: caches cannot hold it.
    """
    tall = Linear(WIDTH, BUFFER // 2 // dtype.itemsize // WIDTH, bias=False)
    tall.weight = nn.Parameter(torch.ones(tall.shape, dtype=dtype), requires_grad=False)
    holder = FastLinear(tall.weight, None, form()) if fast else tall
    with torch.no_grad():
        vector = tall.weight.nbytes / median_time(lambda: holder(torch.ones(1, WIDTH)), SECONDS)
        part = nn.Parameter(tall.weight[:HEIGHT], requires_grad=False)
        tall.weight = part
        holder = FastLinear(part, None, form()) if fast else tall
        many = median_time(lambda: holder(torch.ones(MANY, WIDTH)), SECONDS)
    return Way(name, vector, 2 * MANY * WIDTH * HEIGHT / many)


def mxfp4(name: str) -> Way:
    """Experts in MXFP4 as they lie (fast kernels): four of 32 with a vector each, and one with many."""
    return packed(name, lambda blocks, scales: FastStack(blocks, scales, None, form()))


def unpacked(name: str) -> Way:
    """Experts in MXFP4 that are unpacked to float32 to multiply (exact kernels)."""
    return packed(name, lambda blocks, scales: PackedStack(blocks, scales, None))


def packed(name: str, make: Callable[[Tensor, Tensor], nn.Module]) -> Way:
    """Rates of a stack of packed experts, of which other ones are asked for each time."""
    blocks = torch.full((EXPERTS, HEIGHT, WIDTH // BLOCK, BLOCK // 2), 0x42, dtype=torch.uint8)
    scales = torch.full(blocks.shape[:3], 120, dtype=torch.uint8)
    stack, turn = make(blocks, scales), iter(range(10**9))

    def decode() -> Tensor:
        index = (CHOSEN * next(turn) + torch.arange(CHOSEN)) % EXPERTS
        return stack(torch.ones(CHOSEN, WIDTH), index)

    def prompt() -> Tensor:
        return stack(torch.ones(MANY_PACKED, WIDTH), next(turn) % EXPERTS)

    with torch.no_grad():
        vector = CHOSEN * (blocks[0].nbytes + scales[0].nbytes) / median_time(decode, SECONDS)
        many = 2 * MANY_PACKED * WIDTH * HEIGHT / median_time(prompt, SECONDS)
    return Way(name, vector, many)


WAYS: dict[str, Callable[[str], Way]] = {
    "MXFP4": mxfp4,
    "MXFP4, unpacked": unpacked,
    "bfloat16": bfloat16,
    "bfloat16, widened": widened,
    "float32": float32,
}


@dataclass(frozen=True)
class Load:
    """What one token asks of one way: bytes that decoding reads, FLOP that a prompt's token costs."""

    way: str
    bytes: int
    flop: int


def loads(config: Config) -> list[Load]:
    """What a token asks of each way, as `load(name)` on the CPU holds the model.

    A prompt's tokens are not multiplied with the unembedding, of which only the last position is asked.
    """
    fast, small = config.name in FAST, 4 * parameters(config) <= SMALL
    read: dict[str, list[float]] = {}
    for weight in weights(config):
        packed = weight.part == "experts" and weight.item_bytes < 2
        if small or config.stored == "float32" and not packed:
            way, item = "float32", 4.0
        elif packed:
            way, item = "MXFP4" if fast else "MXFP4, unpacked", float(weight.item_bytes)
        else:
            way, item = "bfloat16" if fast else "bfloat16, widened", 2.0
        used = weight.count * float(weight.used)
        sums = read.setdefault(way, [0.0, 0.0])
        sums[0] += used * item
        sums[1] += 0 if weight.part == "unembedding" else 2 * used
    return [Load(way, int(size), int(flop)) for way, (size, flop) in read.items() if size]


def decode_seconds(asked: Iterable[Load], found: dict[str, Way]) -> float:
    """How long the weights of one decoded token take."""
    return sum(load.bytes / found[load.way].vector for load in asked)


def prompt_seconds(asked: Iterable[Load], found: dict[str, Way]) -> float:
    """How long the weights of one token of a prompt take."""
    return sum(load.flop / found[load.way].many for load in asked)


def arithmetic(asked: Iterable[Load], found: dict[str, Way]) -> tuple[str, str]:
    """Both sums in words, for decoding and for a prompt."""
    decode = " + ".join(
        f"{human(one.bytes)} of {one.way} / {human(found[one.way].vector)}/s" for one in asked
    )
    prompt = " + ".join(
        f"{human(one.flop, 'FLOP')} with {one.way} / {human(found[one.way].many, 'FLOP')}/s"
        for one in asked
        if one.flop
    )
    return decode, prompt
