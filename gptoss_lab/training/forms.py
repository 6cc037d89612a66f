"""The model's parts in their forms for training: the same mathematics, fewer passes over memory.

The model writes every equation out; autograd then keeps what each operation made and passes over it once more
on the way back. Here norms and gated activations bring their own backward pass:

    RMSNorm     y = u · s, u = x r, r = 1/√(mean x² + ε)      dx = r (dy s − u · mean(dy s u)),  ds = Σ dy u
    activation  a = f(g, u)                                    dg = da ∂f/∂g,  du = da ∂f/∂u

`attach` puts them, `attention` and `experts` onto a model that keeps its weights and their names. Values and
gradients agree with the explicit model's (a test).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Config
from ..model.experts import MLP, Experts, activate
from ..model.linear import Linear, Stack
from ..model.norm import LayerNorm, RMSNorm
from ..model.transformer import Transformer
from ..tap import SILENT, Tap
from .attention import attend_banded, attend_causal
from .experts import answers_of, slopes


class UnitSquare(torch.autograd.Function):
    """RMSNorm. x: … D, scale: D → … D."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        """The equation at the top of this file."""
        size = (x * x).mean(-1, keepdim=True).add_(eps).rsqrt_()
        unit = x * size
        ctx.save_for_backward(unit, size, scale)
        return unit * scale

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        """Its gradient."""
        (d_y,), (unit, size, scale) = given, ctx.saved_tensors
        along = d_y * unit
        mean = (along @ scale)[..., None].div_(unit.shape[-1])
        return (d_y * scale).addcmul_(unit, mean, value=-1).mul_(size), along.flatten(0, -2).sum(0), None


class TrainedRMSNorm(RMSNorm):
    """`RMSNorm` for training, over the same scale."""

    def __init__(self, norm: RMSNorm) -> None:
        torch.nn.Module.__init__(self)
        self.eps, self.scale = norm.eps, norm.scale

    def forward(self, x: Tensor) -> Tensor:
        """x … D float32 → … D."""
        return UnitSquare.apply(x, self.scale, self.eps)


class TrainedLayerNorm(LayerNorm):
    """`LayerNorm` for training, over the same scale and bias: torch's own kernel."""

    def __init__(self, norm: LayerNorm) -> None:
        torch.nn.Module.__init__(self)
        self.eps, self.scale, self.bias = norm.eps, norm.scale, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """x … D float32 → … D."""
        return F.layer_norm(x, x.shape[-1:], self.scale, self.bias, self.eps)


class Gated(torch.autograd.Function):
    """A config's gated activation: gate, up … F → … F."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, config: Config) -> Tensor:
        """As the model computes it."""
        ctx.save_for_backward(gate, up)
        ctx.config = config
        return activate(config, gate, up)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        """Its gradient."""
        _, d_gate, d_up = slopes(ctx.config, *ctx.saved_tensors)
        return d_gate.mul_(given[0]), d_up.mul_(given[0]), None


class TrainedMLP(MLP):
    """A gated `MLP` for training, over the same weights."""

    def __init__(self, mlp: MLP) -> None:
        torch.nn.Module.__init__(self)
        self.config, self.norm = mlp.config, mlp.norm
        self.gate, self.up, self.down = mlp.gate, mlp.up, mlp.down

    def forward(self, x: Tensor, tap: Tap = SILENT) -> Tensor:
        """x: B T D → B T D; where the tap wants what lies within, the explicit form."""
        if any(tap.wants(name) for name in ("gate", "up", "act")):
            return super().forward(x, tap)
        x = tap("norm", self.norm(x))
        return tap("out", self.down(Gated.apply(self.gate(x), self.up(x), self.config)))


class Narrow(torch.autograd.Function):
    """x Wᵀ + b with what is multiplied rounded to bfloat16, on the way forward and on the way back. x: … I,
    weight: O I, bias: O or None → … O, float32 as all of its gradients are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Sums are float32, and rounded once."""
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return F.linear(x, weight, None if bias is None else bias.bfloat16()).float()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        """Two products more."""
        (d_y,), (x, weight) = given, ctx.saved_tensors
        flat = d_y.flatten(0, -2)
        narrow = flat.bfloat16()
        d_x, d_weight = (narrow @ weight).float().view_as(x), (narrow.T @ x.flatten(0, -2)).float()
        return d_x, d_weight, flat.sum(0) if ctx.biased else None


class NarrowLinear(Linear):
    """`Linear` for training with bfloat16 products, over the same weight and bias."""

    def __init__(self, linear: Linear) -> None:
        torch.nn.Module.__init__(self)
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """x … I → … O."""
        return Narrow.apply(x, self.weight, self.bias)


def narrow(part: torch.nn.Module) -> None:
    """Put `NarrowLinear`s in place of a part's own `Linear`s."""
    for name, holder in list(part.named_children()):
        if isinstance(holder, Linear):
            setattr(part, name, NarrowLinear(holder))


def norm_of(norm: Any) -> Any:
    """A norm's form for training."""
    return TrainedRMSNorm(norm) if isinstance(norm, RMSNorm) else TrainedLayerNorm(norm)


def attach(model: Transformer, products: torch.dtype = torch.float32) -> Transformer:
    """Give every part of `model` its form for training, and return the model. Weights and names stay.

    products: float32, or bfloat16 for what attention, MLPs and experts multiply; the router stays float32.
    Experts that are packed, or that multiply in bfloat16 by themselves, keep the model's own form.
    """
    blocks: list[Any] = list(model.blocks)
    for block in blocks:
        if products == torch.bfloat16:
            narrow(block.attention)
            if not model.config.n_experts:
                narrow(block.mlp)
        window = block.attention.window
        block.attention.attend = attend_banded(window) if window else attend_causal
        block.attention.norm = norm_of(block.attention.norm)
        half: Experts | MLP = block.experts if model.config.n_experts else block.mlp
        half.norm = norm_of(half.norm)
        if isinstance(half, MLP):
            block.mlp = TrainedMLP(half) if model.config.gated else half
        elif all(isinstance(s, Stack) and s.compute == torch.float32 for s in (half.gate_up, half.down)):
            half.answers = answers_of(half, products)  # type: ignore[method-assign]
    model.norm = norm_of(model.norm)
    return model
