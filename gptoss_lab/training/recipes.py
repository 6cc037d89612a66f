"""Recipes: what a miniature is and how it is trained. A recipe, a seed and a number of steps decide every
weight.

`mini-oss` is gpt-oss in small, made in two phases: most of its training on short texts; then longer ones
with YaRN switched on, while the experts' matrices pass through MXFP4 on every forward pass, so that storing
them that way costs little. `mini-gpt2` is GPT-2 in small, to set beside it: the same tokenizer, the same
text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..config import Config, Yarn, require


@dataclass(frozen=True)
class Phase:
    """A stretch of training: its `share` of the steps; `batch` windows of `context` tokens a step; whether
    YaRN is on; whether the experts' matrices are rounded to MXFP4 on their way forward."""

    share: float
    context: int
    batch: int
    yarn: bool = False
    rounded: bool = False


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW (arXiv 1711.05101), or Muon for the matrices inside the blocks and AdamW
    for the rest; the learning rate rising over `warmup` steps to `peak`, then falling in a straight line to
    zero.

    `decay` is the weight decay of matrices alone; `clip` the longest gradient; `balance` the weight of the
    loss that spreads tokens over the experts; `minutes` the length of a run where none is asked for.
    `products`, float32 or bfloat16: what matrices and what they are multiplied with are rounded to; weights,
    their averages, norms, softmaxes and logits are float32 in either case. `optimizer`: adamw or muon.
    ValueError where the shares of the phases are not 1 in all, for other products, or another optimizer.
    """

    config: Config
    phases: tuple[Phase, ...]
    peak: float
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    decay: float = 0.1
    clip: float = 1.0
    balance: float = 0.01
    minutes: float = 30.0
    encoding: str = "mini"
    products: str = "float32"
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        total = sum(phase.share for phase in self.phases)
        require(abs(total - 1) < 1e-9, f"{self.config.name}'s phases have shares of {total:g} in all, not 1")
        require(self.products in ("float32", "bfloat16"),
                f"{self.config.name}: products={self.products!r}; expected float32 or bfloat16")  # fmt: skip
        require(self.optimizer in ("adamw", "muon"),
                f"{self.config.name}: optimizer={self.optimizer!r}; expected adamw or muon")  # fmt: skip

    @property
    def arithmetic(self) -> torch.dtype:
        """`products` as torch calls it."""
        return torch.bfloat16 if self.products == "bfloat16" else torch.float32

    @property
    def stepped_by(self) -> str:
        """The optimizer in words."""
        muon = "Muon for the matrices in the blocks, AdamW elsewhere"
        return muon if self.optimizer == "muon" else "AdamW"

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.name

    def starts(self, steps: int) -> list[int]:
        """The step at which each phase begins, of `steps` in all; the last entry is `steps`."""
        shares = [sum(phase.share for phase in self.phases[:n]) for n in range(len(self.phases))]
        return [round(share * steps) for share in shares] + [steps]

    def phase_at(self, step: int, steps: int) -> int:
        """The number of the phase that `step` (from 0) belongs to."""
        return max(n for n, start in enumerate(self.starts(steps)[:-1]) if start <= step)

    def tokens(self, steps: int, done: int = 0) -> int:
        """The tokens that the steps from `done` to `steps`, of `steps` in all, are trained on."""
        starts = self.starts(steps)
        return sum(max(0, end - max(start, done)) * phase.batch * phase.context
                   for phase, start, end in zip(self.phases, starts, starts[1:]))  # fmt: skip

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of `step` (from 0): peak·(step+1)/warmup, then peak·(steps − step)/(steps −
        warmup).

        A run shorter than ten warm-ups warms up over a tenth of its steps.
        """
        warmup = max(1, min(self.warmup, steps // 10))
        return self.peak * min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


MINI_OSS = Config(
    name="mini-oss", family="gpt-oss", n_layers=6, d_model=192, n_heads=6, n_kv_heads=2, d_head=32, d_ff=192,
    vocab_size=4096, context=1024, rope_theta=10000.0, yarn=Yarn(factor=4.0, original_context=256), window=32,
    sinks=True, n_experts=8, experts_per_token=2, stop_ids=(4095,), stored_experts="mxfp4",
)  # fmt: skip

MINI_GPT2 = Config(
    name="mini-gpt2", family="gpt2", n_layers=6, d_model=168, n_heads=6, n_kv_heads=6, d_head=28, d_ff=672,
    vocab_size=4096, context=256, norm="layer", positions="learned", activation="gelu", tied=True,
    stop_ids=(4095,), stored="bfloat16",
)  # fmt: skip

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(MINI_OSS, (Phase(0.88, 256, 8), Phase(0.12, 1024, 2, yarn=True, rounded=True)), peak=4e-3,
               products="bfloat16", optimizer="muon"),
        Recipe(MINI_GPT2, (Phase(1.0, 256, 8),), peak=8e-3, products="bfloat16", optimizer="muon"),
    )
}  # fmt: skip


def recipe_of(recipe: str | Recipe) -> Recipe:
    """A recipe by its name; ValueError for a name that there is none of."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"no recipe {recipe!r}; there are {', '.join(RECIPES)}")
    return RECIPES[recipe]
