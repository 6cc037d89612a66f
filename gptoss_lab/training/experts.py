"""Experts for training: a mixture with a hand-written backward pass, one expert after another.

    g, u = W_gate x + b_gate, W_up x + b_up         gates are the even rows of W, ups the odd ones
    a    = activation(g, u)
    y    = W_down a + b_down

    d W_down = dy aᵀ     d a = W_downᵀ dy      d g, d u = activation's derivatives · d a
    d W_gate = dg xᵀ     d x = W_gateᵀ dg + W_upᵀ du

Rows of tokens are sorted by expert once; every product writes where its result belongs, and what happens
between two products stays in the processor's cache. Left to autograd, each expert's gradient would be made as
a block of zeros as large as all experts together, and interleaved gates and ups copied four times a layer.
Agrees with `model.experts.Experts.walk`, values and gradients (a test).

Products may be made in bfloat16 (`products`): what enters them is rounded, what they add up is not. All
between two products, and every weight and its gradient, stays float32.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Config
from ..model.experts import Experts, activate
from ..model.linear import Stack
from ..tap import SILENT, Tap
from ..weights import round_to_mxfp4


class RoundedStack(Stack):
    """A stack whose matrices are rounded to MXFP4 on their way forward, while the gradient passes as if they
    were not (straight-through, arXiv 1308.3432). It shares its weights with `stack`."""

    def __init__(self, stack: Stack) -> None:
        torch.nn.Module.__init__(self)
        self.weight, self.bias, self.compute = stack.weight, stack.bias, stack.compute

    def matrix(self, index: int | Tensor) -> Tensor:
        """The rounded matrices of the experts `index`: … O I, in `compute`."""
        return straight_through(super().matrix(index))


def straight_through(exact: Tensor) -> Tensor:
    """`exact` rounded to MXFP4, with the gradient of a plain copy."""
    return exact + (round_to_mxfp4(exact.detach()) - exact.detach())


def matrices(stack: Stack) -> Tensor:
    """All matrices of a stack, E O I: rounded where the stack rounds."""
    return straight_through(stack.weight) if isinstance(stack, RoundedStack) else stack.weight


def slopes(config: Config, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A gated activation and its two derivatives: gate, up: N F → act, d act/d gate, d act/d up, N F each.

    The derivative is zero where a clamp holds.
    """
    if config.activation == "swiglu":
        share = torch.sigmoid(gate)
        curve = gate * share
        slope = (curve - curve * share).add_(share)  # σ + g σ (1 − σ)
        return curve * up, slope.mul_(up), curve
    limit, alpha = config.swiglu_limit, config.swiglu_alpha
    held, raised = gate.clamp(max=limit), up.clamp(-limit, limit).add_(1)
    share = torch.sigmoid(held * alpha)
    curve = held * share
    slope = torch.addcmul(curve, curve, share, value=-1).mul_(alpha).add_(share)  # σ + α g σ (1 − σ)
    act = curve * raised
    return act, slope.mul_(raised).mul_(gate <= limit), curve.mul_(up.abs() <= limit)


class Mixture(torch.autograd.Function):
    """Rows N I, sorted by expert, `counts` of them for each, through their experts → N D.

    first: E 2F I with gates and ups in turn (E F I for GELU); down: E D F; biases E 2F (E F) and E D, or
    None; products: what they are rounded to before they are multiplied.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, first: Tensor, first_bias: Tensor | None, down: Tensor,
        down_bias: Tensor | None, counts: list[int], config: Config, products: torch.dtype,
    ) -> Tensor:  # fmt: skip
        """One expert after another."""
        parts = 2 if config.gated else 1  # gate and up, or the one that GELU or SiLU is taken of
        ctx.biased = (first_bias is not None, down_bias is not None)
        x, first, down = (part.to(products) for part in (x, first, down))
        first_bias, down_bias = (None if b is None else b.to(products) for b in (first_bias, down_bias))
        hidden = [x.new_empty(len(x), down.shape[2]) for _ in range(parts)]
        answer = x.new_empty(len(x), down.shape[1])
        for e, here in enumerate(stretches(counts)):
            if here.start == here.stop:
                continue
            for n, into in enumerate(hidden):
                product(x[here], first[e, n::parts].T, first_bias, (e, slice(n, None, parts)), into[here])
            wide = [h[here].float() for h in hidden]
            act = activate(config, *wide)
            product(act.to(products), down[e].T, down_bias, e, answer[here])
        ctx.save_for_backward(x, first, down, *hidden)
        ctx.counts, ctx.config = counts, config
        return answer.float()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        """The equations at the top of this file; the activation is made again, not kept."""
        (d_answer,), (x, first, down, *hidden) = given, ctx.saved_tensors
        parts, config, products = len(hidden), ctx.config, x.dtype
        d_answer, d_x = d_answer.contiguous(), torch.empty_like(x)
        narrow = d_answer.to(products)
        d_first, d_down = torch.empty_like(first), torch.empty_like(down)
        d_first_bias = d_answer.new_zeros(first.shape[:2]) if ctx.biased[0] else None
        d_down_bias = d_answer.new_zeros(down.shape[:2]) if ctx.biased[1] else None
        for e, here in enumerate(stretches(ctx.counts)):
            if here.start == here.stop:
                d_first[e], d_down[e] = 0, 0
                continue
            dy, wide = narrow[here], [h[here].float() for h in hidden]
            d_act = (dy @ down[e]).float()
            if config.gated:
                act, *d_hidden = slopes(config, *wide)
                d_hidden = [slope.mul_(d_act) for slope in d_hidden]
            else:
                act, d_hidden = activate(config, *wide), [plain_backward(config, d_act, *wide)]
            torch.mm(dy.T, act.to(products), out=d_down[e])
            if d_down_bias is not None:
                torch.sum(d_answer[here], 0, out=d_down_bias[e])
            for n, exact in enumerate(d_hidden):
                d_h = exact.to(products)
                torch.mm(d_h.T, x[here], out=d_first[e, n::parts])
                torch.addmm(d_x[here], d_h, first[e, n::parts], beta=float(n > 0), out=d_x[here])
                if d_first_bias is not None:
                    d_first_bias[e, n::parts] = exact.sum(0)
        return d_x.float(), d_first.float(), d_first_bias, d_down.float(), d_down_bias, None, None, None


def plain_backward(config: Config, d_act: Tensor, x: Tensor) -> Tensor:
    """The gradient at `x` of an activation without a gate."""
    if config.activation == "silu":
        return torch.ops.aten.silu_backward(d_act, x)
    return torch.ops.aten.gelu_backward(d_act, x, approximate="tanh")


def stretches(counts: list[int]) -> list[slice]:
    """Where each expert's rows lie."""
    return [slice(end - count, end) for end, count in zip(accumulate(counts), counts)]


def product(x: Tensor, matrix: Tensor, bias: Tensor | None, place: Any, into: Tensor) -> None:
    """Write x @ matrix, plus bias[place] where there is one, into `into`."""
    if bias is None:
        torch.mm(x, matrix, out=into)
    else:
        torch.addmm(bias[place], x, matrix, out=into)


def answers_of(experts: Experts, products: torch.dtype = torch.float32) -> Callable[..., Tensor]:
    """`experts.answers` for training; where the tap wants what lies within, the explicit form."""

    def answers(x: Tensor, choice: Tensor, tap: Tap = SILENT) -> Tensor:
        """x: B T D, choice: B T K → B T K D."""
        if any(tap.wants(name) for name in ("gate", "up", "pre", "act")):
            return experts.walk(x, choice, tap)
        order = choice.flatten().argsort(stable=True)  # sorted row → token · K + k
        counts = choice.flatten().bincount(minlength=experts.config.n_experts or 0).tolist()
        rows = F.embedding(order // choice.shape[-1], x.flatten(0, 1))
        first, down = experts.gate_up, experts.down
        found = Mixture.apply(rows, matrices(first), first.bias, matrices(down), down.bias, counts,
                              experts.config, products)  # fmt: skip
        return F.embedding(order.argsort(), found).unflatten(0, choice.shape)

    return answers
