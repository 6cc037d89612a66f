"""The Transformer: an embedding, blocks that each add to the residual twice, and a read-out.

    x = embed(tokens);   x += attention(norm(x));   x += experts(norm(x));   …   logits = unembed(norm(x))

The residual is float32 whatever the weights are: in float16 it overflows in gpt-oss's late layers.
Agrees with transformers' GPT2LMHeadModel, GptOssForCausalLM and Qwen3MoeForCausalLM.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Config
from ..tap import SILENT, Tap
from .attention import Attention
from .cache import Cache, LayerCache
from .experts import MLP, Experts
from .linear import Linear, Stack
from .norm import make_norm


class Block(nn.Module):
    """Attention, then the feed-forward half; each adds to the residual."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.config = config
        self.attention = Attention(config, layer)
        if config.n_experts:
            self.experts = Experts(config)
        else:
            self.mlp = MLP(config)

    def forward(
        self, x: Tensor, positions: Tensor | None = None, cache: LayerCache | None = None, tap: Tap = SILENT
    ) -> Tensor:
        """The residual that enters, B T D → the residual that leaves. positions: B T; None: 0 to T−1."""
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        x = tap(
            "residual_mid", x + self.dropout(self.attention(x, positions, cache, tap.within("attention")))
        )
        if self.config.n_experts:
            return tap("residual", x + self.dropout(self.experts(x, tap.within("experts"))))
        return tap("residual", x + self.dropout(self.mlp(x, tap.within("mlp"))))

    def dropout(self, x: Tensor) -> Tensor:
        """GPT-2's dropout on what joins the residual; nothing outside training."""
        return F.dropout(x, self.config.dropout, self.training)


class Transformer(nn.Module):
    """A language model: tokens B T → logits B T V.

    Public: `config`, `tokenizer` (tiktoken's interface, or None), `blocks`, `embed`, `read_out`,
    `weights_from` (where the numbers come from). Stepping by hand gives the same bits as calling the model:

        x = model.embed(tokens)
        for block in model.blocks:
            x = block(x)
        logits = model.read_out(x)
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.tokenizer: Any = None
        self.weights_from = "not loaded"
        self.changes: dict[str, object] = {}
        self.token_embedding = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        if config.positions == "learned":
            self.position_embedding = nn.Parameter(torch.empty(config.context, config.d_model))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = make_norm(config.norm, config.d_model, config.norm_eps)
        self.unembed = Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied:
            self.unembed.weight = self.token_embedding

    @property
    def device(self) -> torch.device:
        """Where it computes. The embedding table may lie elsewhere, and tokens may come from anywhere."""
        return self.unembed.weight.device

    def forward(
        self,
        tokens: Tensor,
        last: int | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        tap: Tap = SILENT,
    ) -> Tensor:
        """Logits for the next token at every position, or at the `last` few alone: B T → B T V.

        positions: B T, −1 for padding (on the left); by default they follow what the cache has seen.
        ValueError for tokens outside the vocabulary, positions past a learned table or the cache, last < 0.
        """
        if not torch.compiler.is_compiling():
            check(tokens, self.config, last)
        if positions is None:
            start = 0 if cache is None else cache.tokens
            positions = (torch.arange(tokens.shape[1], device=self.device) + start).expand(tokens.shape)
        tap = tap.at(positions=positions)
        x = self.embed(tokens, positions, tap)
        if cache is not None:
            cache.reserve(tokens.shape[1])
        for n, block in enumerate(self.blocks):
            x = block(x, positions, cache.layers[n] if cache is not None else None, tap.within(f"blocks.{n}"))
        return self.read_out(x, last, tap)

    def embed(self, tokens: Tensor, positions: Tensor | None = None, tap: Tap = SILENT) -> Tensor:
        """The residual that enters block 0: tokens B T → B T D, float32."""
        rows = F.embedding(tokens.to(self.token_embedding.device), self.token_embedding)
        x = tap("token_embedding", rows.to(self.device).float())
        if self.config.positions == "learned":
            if positions is None:
                positions = torch.arange(tokens.shape[1], device=self.device).expand(tokens.shape)
            if not torch.compiler.is_compiling():
                check_learned(positions, self.config)
            rows = F.embedding(positions.clamp(min=0), self.position_embedding).float()
            if tap.wants("position_embedding"):
                if (positions != positions[0]).any():
                    raise ValueError("'position_embedding' is T D: trace prompts of one length, or alone")
                rows = tap("position_embedding", rows[0])
            x = x + rows
        return tap("embedding", F.dropout(x, self.config.dropout, self.training))

    def read_out(self, x: Tensor, last: int | None = None, tap: Tap = SILENT) -> Tensor:
        """Logits of the last residual: B T D → B T′ V, float32; T′ the `last` positions (0: none), or all."""
        x = tap("final_norm", self.norm(x))
        return tap("logits", self.unembed(x if last is None else x[:, max(x.shape[1] - last, 0) :]).float())

    @classmethod
    def random(cls, config: Config, seed: int = 0) -> Transformer:
        """A model with seeded random weights: normal(0, 0.02), the two projections onto the residual scaled
        by 1/√(2L) (Radford et al. 2019); biases and sinks zero, norms one.
        """
        model, generator = cls(config), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 1 or name.endswith("bias"):
                    weight.fill_(1.0 if name.endswith("scale") else 0.0)
                else:
                    onto_residual = name.endswith(("o.weight", "down.weight"))
                    spread = 0.02 / (math.sqrt(2 * config.n_layers) if onto_residual else 1.0)
                    weight.normal_(0.0, spread, generator=generator)
        model.weights_from = f"random, seed {seed}"
        return model.eval()

    def with_config(self, **changes: object) -> Transformer:
        """The same weights under another config, as with_config(window=None) or
        with_config(experts_per_token=1).

        Nothing is copied: both models share their weights. ValueError where the change asks for weights that
        this model lacks or that have another shape.
        """
        with torch.device("meta"):
            other = Transformer(self.config.with_changes(**changes))
        asked = f"with_config({', '.join(f'{k}={v!r}' for k, v in changes.items())})"
        for field in ("bias", "tied"):
            if getattr(other.config, field) != getattr(self.config, field):
                raise ValueError(
                    f"{asked}: {field!r} is settled by the weights. Only changes that keep them can be made."
                )
        adopt(other, self, asked)
        other.tokenizer, other.weights_from = self.tokenizer, self.weights_from
        other.changes = {**self.changes, **changes}
        return other.train(self.training)


def adopt(new: nn.Module, old: nn.Module, asked: str, within: str = "") -> None:
    """Let `new` hold the weights, weight holders and seams of `old`, in place of its own."""

    def same(name: str, mine: Any, theirs: Any) -> Any:
        if theirs is None or getattr(mine, "shape", None) != getattr(theirs, "shape", None):
            need = "" if theirs is None else f" of shape {tuple(mine.shape)}"
            have = "no such weights" if theirs is None else f"it with shape {tuple(theirs.shape)}"
            raise ValueError(
                f"{asked} needs {within + name!r}{need}; this model has {have}. Only changes that keep the "
                "weights as they are can be made."
            )
        return theirs

    for name, child in new.named_children():
        theirs = getattr(old, name, None)
        if isinstance(child, Linear | Stack) or theirs is None:
            setattr(new, name, same(name, child, theirs))
        else:
            adopt(child, theirs, asked, f"{within}{name}.")
    for name, weight in new.named_parameters(recurse=False):
        setattr(new, name, same(name, weight, getattr(old, name, None)))
    for name, buffer in new.named_buffers(recurse=False):
        setattr(new, name, buffer.to(next(old.parameters()).device))
    for seam in vars(old).keys() & {"attend", "answers", "project", "few", "forward"}:
        form = vars(old)[seam]  # one that knows its module has another for the new one, or None
        if (form := form.on(new) if hasattr(form, "on") else form) is not None:
            setattr(new, seam, form)


def check(tokens: Tensor, config: Config, last: int | None) -> None:
    """ValueError for tokens that the embedding table does not have, or a `last` below 0."""
    if last is not None and last < 0:
        raise ValueError(f"last={last}; expected how many of the last positions, or None for all")
    if tokens.ndim != 2 or tokens.dtype != torch.int64:
        raise ValueError(f"tokens are {tuple(tokens.shape)} {tokens.dtype}; expected B T int64")
    if tokens.numel() and not (0 <= int(tokens.min()) and int(tokens.max()) < config.vocab_size):
        raise ValueError(f"tokens reach from {int(tokens.min())} to {int(tokens.max())}; "
                         f"{config.name} knows 0 to {config.vocab_size - 1}")  # fmt: skip


def check_learned(positions: Tensor, config: Config) -> None:
    """ValueError for positions that were not learned."""
    if positions.numel() and int(positions.max()) >= config.context:
        raise ValueError(f"position {int(positions.max())} is past the {config.context} positions that "
                         f"{config.name} learned; shorten the text")  # fmt: skip
