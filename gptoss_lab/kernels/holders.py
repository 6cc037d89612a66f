"""Weight holders that multiply weights as they are stored, in the place of `Linear` and `PackedStack`.

They answer the same calls, so `forward` does not know. A few vectors go through a kernel of the form; many go
by tiles: some rows at a time are brought to float32, exactly, and multiplied by torch. Where gradients are
asked for, or the weights are not on the CPU, the exact holder that they stand in for answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.linear import Linear
from ..weights.mxfp4 import PackedStack
from .forms import Job, TorchForm

TILE = 480  # rows unpacked at a time: a tile of gpt-oss-20b takes 5.5 MB


def by_tiles(x: Tensor, height: int, rows: Callable[[int, int], Tensor]) -> Tensor:
    """x N I through a matrix of `height` rows, of which rows(start, end) gives some in float32 → N O."""
    if not len(x):
        return x.new_empty(0, height)
    tiles = [F.linear(x, rows(start, min(start + TILE, height))) for start in range(0, height, TILE)]
    return torch.cat(tiles, dim=-1) if len(tiles) > 1 else tiles[0]


class FastLinear(Linear):
    """y = x Wᵀ + b, W in bfloat16 and read as it is, sums in float32."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, chosen: TorchForm) -> None:
        nn.Module.__init__(self)
        if weight.dtype != torch.bfloat16:
            raise ValueError(f"weights are {weight.dtype}; FastLinear reads torch.bfloat16")
        self.weight, self.bias, self.form = weight, bias, chosen

    @property
    def arithmetic(self) -> str:
        """What a trace says of it."""
        return f"fast ({self.form.name})" if self.weight.device.type == "cpu" else "exact"

    @property
    def readable(self) -> bool:
        """Whether a kernel can read the weights: bfloat16 still, as they came."""
        return self.weight.dtype == torch.bfloat16 and bfloat16(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x … I → … O, float32."""
        if not here(x, self.weight):
            return super().forward(x)
        flat = x.reshape(-1, x.shape[-1]).float()
        if 0 < len(flat) <= self.form.few_dense and self.readable:
            return self.form.dense([self.weight], [self.bias], flat).reshape(*x.shape[:-1], -1)
        y = by_tiles(flat, len(self.weight), lambda start, end: self.weight[start:end].float())
        y = y if self.bias is None else y.add_(self.bias)
        return y.reshape(*x.shape[:-1], len(self.weight))


class FastStack(PackedStack):
    """One packed matrix per expert, multiplied as it is."""

    def __init__(self, blocks: Tensor, scales: Tensor, bias: Tensor | None, chosen: TorchForm) -> None:
        super().__init__(blocks, scales, bias)
        self.form = chosen

    @property
    def arithmetic(self) -> str:
        """What a trace says of it."""
        return f"fast ({self.form.name})" if self.blocks.device.type == "cpu" else "exact"

    def forward(self, x: Tensor, index: int | Tensor) -> Tensor:
        """x N I through the matrix of one expert → N O; or x … I, each row through its own of
        `index` → … O.
        """
        if not here(x, self.blocks):
            return super().forward(x, index)
        if isinstance(index, int):
            lead, experts = x.shape[:-1], [index] * x.shape[:-1].numel()
        else:
            lead = torch.broadcast_shapes(x.shape[:-1], index.shape)
            experts = index.expand(lead).flatten().tolist()
        flat = x.expand(*lead, x.shape[-1]).reshape(-1, x.shape[-1]).float()
        y = self.products(flat, experts).reshape(*lead, self.shape[1])
        return y if self.bias is None else y + self.bias[index].float()

    def rows(self, expert: int, start: int, end: int) -> Tensor:
        """Some rows of an expert, in float32."""
        return self.form.unpack(self.blocks[expert, start:end], self.scales[expert, start:end])

    def products(self, x: Tensor, experts: list[int]) -> Tensor:
        """x N I, row by row through the matrices of `experts` → N O."""
        count, height, _ = self.shape
        if experts and not 0 <= min(experts) <= max(experts) < count:
            asked = f"experts from {min(experts)} to {max(experts)} are asked for"
            raise IndexError(f"{asked}; there are 0 to {count - 1}")
        order = sorted(range(len(experts)), key=experts.__getitem__)
        x, jobs, many = x[order], list[Job](), list[Job]()
        for job in runs([experts[row] for row in order]):
            (jobs if job[2] <= self.form.few_packed else many).append(job)
        if jobs:
            pieces = [piece for job in jobs for piece in cut(job, self.form.together)]
            y = self.form.multiply(self.blocks, self.scales, x, pieces)
        else:
            y = x.new_empty(len(x), height)
        for expert, first, length in many:
            rows = partial(self.rows, expert)
            y[first : first + length] = by_tiles(x[first : first + length], height, rows)
        return torch.empty_like(y).index_copy_(0, torch.tensor(order, dtype=torch.int64), y)


def here(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels can answer: on the CPU, no gradient asked for."""
    asked = x.requires_grad or weight.requires_grad
    return weight.device.type == "cpu" and not (torch.is_grad_enabled() and asked)


def bfloat16(bias: Tensor | None) -> bool:
    """Whether a kernel can add it: none, or in bfloat16."""
    return bias is None or bias.dtype == torch.bfloat16


def runs(experts: list[int]) -> Iterator[Job]:
    """Equal neighbours, as jobs."""
    first = 0
    for expert, equal in groupby(experts):
        length = len(list(equal))
        yield expert, first, length
        first += length


def cut(job: Job, longest: int) -> Iterator[Job]:
    """A job in pieces of at most `longest` vectors."""
    expert, first, length = job
    for start in range(first, first + length, longest):
        yield expert, start, min(longest, first + length - start)
