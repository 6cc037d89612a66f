"""What training minimises, and what one step of it needs: the loss, its balance term, rounding with a
gradient.

    loss = mean over tokens of −log p(next token)  +  weight · mean over layers of E Σ_e f_e P_e

f_e is the share of choices that fell on expert e, P_e the router's mean probability for it (Switch
Transformer, arXiv 2101.03961): the sum is 1 where tokens are spread evenly, and grows where they crowd. It
is read from the model through a tap.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.linear import Stack
from ..model.transformer import Transformer
from ..weights import round_to_mxfp4
from .attention import attach
from .recipes import Recipe


def balance(logits: Tensor, choice: Tensor) -> Tensor:
    """E Σ f_e P_e of one layer: logits B T E, choice B T K → a number from 1 (an even spread) to E."""
    experts = logits.shape[-1]
    share = torch.bincount(choice.flatten(), minlength=experts) / choice.numel()  # f_e: no gradient
    return experts * (share * logits.softmax(-1).flatten(0, -2).mean(0)).sum()


@dataclass
class RouterTap:
    """A tap that keeps what `balance` needs, gradients and all: every router's logits and choice."""

    logits: list[Tensor] = field(default_factory=list)
    choice: list[Tensor] = field(default_factory=list)
    room: str = ""

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """The value itself; the router's are kept."""
        if self.room == "experts" and name in ("logits", "choice"):
            getattr(self, name).append(value)
        return value

    def wants(self, name: str) -> bool:
        """Never: nothing is computed for this tap alone."""
        return False

    def within(self, room: str) -> RouterTap:
        """The same tap in this room."""
        return replace(self, room=room)

    def at(self, positions: Tensor | None = None, keys: Tensor | None = None) -> RouterTap:
        """Itself: it does not ask where it is."""
        return self

    def balance(self) -> Tensor:
        """The mean over layers; 1 for a model without experts."""
        layers = [balance(logits, choice) for logits, choice in zip(self.logits, self.choice)]
        return torch.stack(layers).mean() if layers else torch.ones(())


class RoundedStack(Stack):
    """A stack whose matrices are rounded to MXFP4 on their way forward, while the gradient passes as if they
    were not (straight-through, arXiv 1308.3432). It shares its weights with `stack`."""

    def __init__(self, stack: Stack) -> None:
        torch.nn.Module.__init__(self)
        self.weight, self.bias, self.compute = stack.weight, stack.bias, stack.compute

    def matrix(self, index: int | Tensor) -> Tensor:
        """The rounded matrices of the experts `index`: … O I, in `compute`."""
        exact = super().matrix(index)
        return exact + (round_to_mxfp4(exact.detach()) - exact.detach())


def in_phase(model: Transformer, recipe: Recipe, phase: int) -> Transformer:
    """The same weights as this phase runs them: YaRN on or off, rounded or not, with attention for
    training."""
    now = recipe.phases[phase]
    phased = model.with_config(yarn=recipe.config.yarn if now.yarn else None)
    blocks: list[Any] = list(phased.blocks) if now.rounded else []
    for experts in (block.experts for block in blocks):
        experts.gate_up, experts.down = RoundedStack(experts.gate_up), RoundedStack(experts.down)
    return attach(phased)


def optimizer_for(model: Transformer, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over every weight; matrices decay, vectors (norms, biases, sinks) do not."""
    named = list(model.named_parameters())
    matrices = [weight for name, weight in named if weight.ndim > 1 and not name.endswith("bias")]
    vectors = [weight for name, weight in named if weight.ndim == 1 or name.endswith("bias")]
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak, betas=recipe.betas, eps=1e-8, fused=True)


@torch.no_grad()
def settle(optimizer: torch.optim.Optimizer, least: float = 1e-30) -> None:
    """Set AdamW's averages below `least` to zero: those of rows that no token uses fade to denormals, and a
    step over denormals is many times slower. (`torch.set_flush_denormal` would do as well, but it stays with
    the process: afterwards MXFP4's smallest values, say, would read as zeros.)"""
    for state in optimizer.state.values():
        for kind in ("exp_avg", "exp_avg_sq"):
            state[kind].masked_fill_(state[kind].abs() < least, 0.0)


def gradients(model: Transformer, windows: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """One pass forward and back over windows B T+1: the loss in nats a token and the balance, both
    detached."""
    tap = RouterTap()
    logits = model(windows[:, :-1], tap=tap)
    loss, spread = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()), tap.balance()
    (loss + weight * spread if tap.logits else loss).backward()
    return loss.detach(), spread.detach()
