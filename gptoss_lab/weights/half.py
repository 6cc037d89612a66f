"""Products in float16 that cannot overflow, for cards that have no bfloat16.

    y = s · (x/s)·Wᵀ + b        s = the largest |x| of the row; the product in float16, the rest in float32

A row so scaled has no value above 1, so no sum, and no part of one, can exceed the sum of a matrix row's
magnitudes. That is looked at once, when a model is loaded: it must be below 65504, float16's largest. Then
activations of any size pass: nothing else of the model is in float16. Matrices are held in it, or packed in
MXFP4; all other weights as they are stored.

Rounding: float16 has 11 bits where bfloat16 has 8, but nothing below 2^−24. Of a row of x that is a loss of
at most 2^−25 of its largest value; weights are rounded to multiples of 2^−24.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.linear import Linear, Stack
from .mxfp4 import BLOCK, MAGNITUDES, PackedStack
from .reader import CheckpointError

LARGEST = torch.finfo(torch.float16).max
ROWS = 4096  # rows of a matrix looked at together


def scaled(x: Tensor) -> tuple[Tensor, Tensor]:
    """A row's values in float16, none above 1, and what they are to be multiplied by: x … I → … I, … 1."""
    x = x.float()
    size = x.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (x / size).half(), size


class HalfLinear(Linear):
    """y = x Wᵀ + b. weight: O I float16; what comes out is float32."""

    compute = torch.float16

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """x … I → … O, float32."""
        x, size = scaled(x)
        y = F.linear(x, self.weight).float() * size
        return y if self.bias is None else y + self.bias.float()


def through(stack: Stack | PackedStack, x: Tensor, index: int | Tensor) -> Tensor:
    """`Stack.forward` in float16, its answer in float32."""
    x, size = scaled(x)
    if isinstance(index, int):
        y = F.linear(x, stack.matrix(index)).float() * size
    else:
        y = torch.einsum("...oi,...i->...o", stack.matrix(index), x).float() * size
    return y if stack.bias is None else y + stack.bias[index].float()


class HalfStack(Stack):
    """One matrix per expert. weight: E O I float16; what comes out is float32."""

    compute = torch.float16

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor, index: int | Tensor) -> Tensor:
        """As `Stack.forward`."""
        return through(self, x, index)


class HalfPackedStack(PackedStack):
    """One packed matrix per expert, unpacked to float16; what comes out is float32."""

    compute = torch.float16

    def forward(self, x: Tensor, index: int | Tensor) -> Tensor:
        """As `PackedStack.forward`."""
        return through(self, x, index)


@torch.no_grad()
def reach(holder: Linear | Stack | PackedStack) -> float:
    """The largest sum of a row's magnitudes, or for packed rows what it can at most be."""
    if isinstance(holder, PackedStack):
        largest = (holder.factors[one.int()].sum(-1).max() for one in holder.scales)
        return BLOCK * MAGNITUDES[-1] * float(torch.stack(list(largest)).max())
    rows = holder.weight.flatten(0, -2).split(ROWS)
    return float(torch.stack([part.float().abs().sum(-1).max() for part in rows]).max())


def halve(model: nn.Module) -> None:
    """Put such holders in the place of a model's own, but for the routers': near-ties want float32.

    CheckpointError for weights with which float16 could overflow.
    """
    for path, part in list(model.named_modules()):
        for name, child in list(part.named_children()):
            if name == "router" or type(child) not in (Linear, Stack, PackedStack):
                continue
            assert isinstance(child, Linear | Stack | PackedStack)
            if not (most := reach(child)) < LARGEST:
                raise CheckpointError(
                    f"{path}.{name}: a row's magnitudes sum to {most:.3g}; products in float16 stay below "
                    f"{LARGEST:.0f}. Load it with dtype=torch.float32 or 'stored'"
                )
            made: nn.Module
            if isinstance(child, PackedStack):
                made = HalfPackedStack(child.blocks, child.scales, child.bias)
                made.pairs, made.factors = child.pairs, child.factors
            else:
                weight = nn.Parameter(child.weight.half(), requires_grad=False)
                made = (HalfLinear if isinstance(child, Linear) else HalfStack)(weight, child.bias)
            setattr(part, name, made)
