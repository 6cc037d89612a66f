"""What training minimises, and what one step of it needs: the loss, its balance term, rounding with a
gradient.

    loss = mean over tokens of −log p(next token)  +  weight · mean over layers of E Σ_e f_e P_e

f_e is the share of choices that fell on expert e, P_e the router's mean probability for it (Switch
Transformer, arXiv 2101.03961): the sum is 1 where tokens are spread evenly, and grows where they crowd. It
is read from the model through a tap, and so is the residual that the logits are made of: the logits of all
tokens at once, and their gradients, would be the largest things in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..model.transformer import Transformer
from .experts import RoundedStack
from .forms import attach
from .muon import Muon
from .recipes import Recipe


def balance(logits: Tensor, choice: Tensor) -> Tensor:
    """E Σ f_e P_e of one layer: logits B T E, choice B T K → a number from 1 (an even spread) to E."""
    experts = logits.shape[-1]
    share = torch.bincount(choice.flatten(), minlength=experts) / choice.numel()  # f_e: no gradient
    return experts * (share * logits.softmax(-1).flatten(0, -2).mean(0)).sum()


ROWS = 256  # tokens whose logits are made at a time


class CrossEntropy(torch.autograd.Function):
    """Mean −log softmax(x Wᵀ)[target], a few rows at a time: x N D, W V D, target N → a number.

    The gradient is made on the way forward, while the logits are at hand: (softmax − one-hot) / N times W,
    and its transpose times x. Agrees with F.cross_entropy (a test). products: what these two are rounded to
    before they are multiplied; logits and loss are float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, target: Tensor, products: torch.dtype) -> Tensor:
        """The loss, in nats."""
        total, d_x, d_matrix = x.new_zeros(()), torch.empty_like(x), torch.zeros_like(matrix)
        narrow_x, narrow_matrix = x.to(products), matrix.to(products)
        for start in range(0, len(x), ROWS):
            here = slice(start, start + ROWS)
            chance, right = (x[here] @ matrix.T).log_softmax(-1), target[here, None]
            total -= chance.gather(1, right).sum()
            chance.exp_().scatter_add_(1, right, chance.new_full(right.shape, -1.0))
            chance = chance.to(products)
            d_x[here] = chance @ narrow_matrix
            d_matrix += chance.T @ narrow_x[here]
        ctx.save_for_backward(d_x, d_matrix)
        ctx.count = len(x)
        return total / len(x)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        """What was made on the way forward, scaled."""
        (d_x, d_matrix), scale = ctx.saved_tensors, given[0] / ctx.count
        return d_x * scale, d_matrix * scale, None, None


@dataclass
class RouterTap:
    """A tap that keeps what the loss needs, gradients and all: every router's logits and choice, and the last
    residual, normalised."""

    logits: list[Tensor] = field(default_factory=list)
    choice: list[Tensor] = field(default_factory=list)
    final: list[Tensor] = field(default_factory=list)
    room: str = ""

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """The value itself; the router's and the last residual are kept."""
        if name == "final_norm":
            self.final.append(value)
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


def in_phase(model: Transformer, recipe: Recipe, phase: int) -> Transformer:
    """The same weights as this phase runs them: YaRN on or off, rounded or not, with attention for
    training."""
    now = recipe.phases[phase]
    phased = model.with_config(yarn=recipe.config.yarn if now.yarn else None)
    blocks: list[Any] = list(phased.blocks) if now.rounded else []
    for experts in (block.experts for block in blocks):
        experts.gate_up, experts.down = RoundedStack(experts.gate_up), RoundedStack(experts.down)
    return attach(phased, recipe.arithmetic)


def optimizer_for(model: Transformer, recipe: Recipe) -> torch.optim.AdamW:
    """The recipe's optimizer over every weight; matrices decay, vectors (norms, biases, sinks) do not. Muon
    takes the matrices inside the blocks; routers, of few rows, and embeddings stay AdamW's."""
    named = list(model.named_parameters())
    vectors = [weight for name, weight in named if weight.ndim == 1 or name.endswith("bias")]
    matrices = [(name, weight) for name, weight in named if weight.ndim > 1 and not name.endswith("bias")]
    settings: dict[str, Any] = {"lr": recipe.peak, "betas": recipe.betas, "eps": 1e-8, "fused": True}
    still = {"params": vectors, "weight_decay": 0.0}
    if recipe.optimizer == "adamw":
        decaying = {"params": [weight for _, weight in matrices], "weight_decay": recipe.decay}
        return torch.optim.AdamW([decaying, still], **settings)

    def apart(name: str) -> int:
        if not name.startswith("blocks.") or ".router." in name:
            return 0
        return 2 if ".gate_up." in name and recipe.config.gated else 1

    groups = [{"params": [weight for name, weight in matrices if apart(name) == n],
               "weight_decay": recipe.decay, "apart": n} for n in range(3)]  # fmt: skip
    return Muon([*(group for group in groups if group["params"]), still], **settings)


@torch.no_grad()
def settle(optimizer: torch.optim.Optimizer, least: float = 1e-30) -> None:
    """Set an optimizer's averages below `least` to zero: those of rows that no token uses fade to denormals,
    and a step over denormals is many times slower. (`torch.set_flush_denormal` would do as well, but it stays
    with the process: afterwards MXFP4's smallest values, say, would read as zeros.)"""
    for state in optimizer.state.values():
        for kind in state.keys() - {"step"}:
            state[kind].masked_fill_(state[kind].abs() < least, 0.0)


def gradients(
    model: Transformer, windows: Tensor, weight: float, products: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """One pass forward and back over windows B T+1: the loss in nats a token and the balance, both
    detached. products: what the logits' gradients are made in; what the model's are, `in_phase` decides."""
    tap = RouterTap()
    model(windows[:, :-1], last=0, tap=tap)
    (final,), target = tap.final, windows[:, 1:].flatten()
    loss = CrossEntropy.apply(final.flatten(0, 1), model.unembed.weight, target, products)
    spread = tap.balance()
    (loss + weight * spread if tap.logits else loss).backward()
    return loss.detach(), spread.detach()
