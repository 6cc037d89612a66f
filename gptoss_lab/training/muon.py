"""Muon for hidden matrices, AdamW for the rest (Jordan et al. 2024; the scale is that of arXiv 2502.16982).

    m ← β m + (1 − β) g          momentum;  u = (1 − β) g + β m
    O = u (uᵀu)^(−1/2)           the nearest orthogonal matrix, by five Newton–Schulz steps
    W ← W − η λ W − η 0.2 √max(rows, columns) O

A step turns a matrix by as much in every direction, where a gradient has a few large ones. 0.2 √max(…) makes
its entries as large as AdamW's steps, so that one rate serves both. torch.optim.Muon knows single matrices;
here a stack of experts is one tensor, whose matrices go together, gates and ups apart. On single matrices the
two agree (a test).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

STEPS, FACTORS = 5, (3.4445, -4.7750, 2.0315)  # Newton–Schulz: how often, and x → a x + b x³ + c x⁵


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: singular values come to 0.7 to 1.2. … O I → … O I.

    Products are bfloat16: what matters is the direction.
    """
    x = matrices.bfloat16().reshape(-1, *matrices.shape[-2:])
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = FACTORS
    for _ in range(STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype).reshape(matrices.shape)


class Muon(torch.optim.AdamW):
    """AdamW whose groups may have `apart` set: their matrices are stepped by Muon.

    apart: 1, or 2 where even and odd rows are matrices of their own (gates and ups in turn). A matrix is the
    last two axes of a tensor. Rate and weight decay are those of the group.
    """

    MOMENTUM = 0.95

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of all groups."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"] if group.get("apart") else ():
                if weight.grad is not None:
                    self.turn(weight, group["lr"], group["weight_decay"], group["apart"])
                    weight.grad = None  # AdamW passes over it
        super().step()
        return loss

    def turn(self, weight: Tensor, rate: float, decay: float, apart: int) -> None:
        """One step of one tensor."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        gradient, momentum = weight.grad, state["momentum"]
        assert gradient is not None
        momentum.lerp_(gradient, 1 - self.MOMENTUM)
        update = gradient.lerp(momentum, self.MOMENTUM)
        weight.mul_(1 - rate * decay)
        for n in range(apart):
            part = orthogonal(update[..., n::apart, :])
            weight[..., n::apart, :].add_(part, alpha=-rate * 0.2 * max(part.shape[-2:]) ** 0.5)
