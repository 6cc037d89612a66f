"""Weight holders: how a matrix is kept, and in what precision it multiplies. `forward` of the model never
asks.

`compute` is the precision of the product: x and W are brought to it, sums are its own. float32 by default,
whatever the weights are stored in (the exact arithmetic); bfloat16 where load(dtype=torch.bfloat16) asks for
it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Module):
    """y = x Wᵀ + b. weight: O I; bias: O or None."""

    compute: torch.dtype = torch.float32

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    @property
    def shape(self) -> tuple[int, ...]:
        """O I, however the matrix is kept."""
        return tuple(self.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        """x … I → … O, in `compute`."""
        bias = None if self.bias is None else self.bias.to(self.compute)
        return F.linear(x.to(self.compute), self.weight.to(self.compute), bias)


class Stack(nn.Module):
    """One matrix per expert. weight: E O I; bias: E O or None. Packed stacks (MXFP4) answer the same call."""

    compute: torch.dtype = torch.float32

    def __init__(self, experts: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(experts, outputs)) if bias else None

    @property
    def shape(self) -> tuple[int, ...]:
        """E O I, however the matrices are kept."""
        return tuple(self.weight.shape)

    def matrix(self, index: int | Tensor) -> Tensor:
        """The matrices of the experts `index` (one number, or a tensor of any shape): … O I, in `compute`."""
        return self.weight[index].to(self.compute)

    def forward(self, x: Tensor, index: int | Tensor) -> Tensor:
        """x N I through the matrix of one expert → N O; or x … I, each row through its own of `index` … → …
        O.
        """
        if isinstance(index, int):
            bias = None if self.bias is None else self.bias[index].to(self.compute)
            return F.linear(x.to(self.compute), self.matrix(index), bias)
        y = torch.einsum("...oi,...i->...o", self.matrix(index), x.to(self.compute))
        return y if self.bias is None else y + self.bias[index].to(self.compute)
