"""bfloat16: what is rounded in our models, and how far it takes them from transformers in float32.

Ours, with dtype=torch.bfloat16: every product (projections, router, experts, unembedding) takes bfloat16 and
gives bfloat16, and so do QK-norm, the turn of q and k, what attention mixes and the experts' activation, each
computed in float32 (the activation in bfloat16) and rounded once. The residual, the norms of the residual,
scores, both softmaxes, the sum over experts and the logits are float32.

One rounding can flip an expert where two router logits all but tie, and everything after it differs. So a
token counts as agreed while it and all before it in its text chose the same experts, in every layer so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from proof_common import deviation, right_model
from proof_models import copied, packed, rms
from references import transformers_model, transformers_shows
from torch import Tensor
from toys import random_tokens, record

from gptoss_lab import points
from gptoss_lab.model import Transformer
from gptoss_lab.model.linear import Linear, Stack
from gptoss_lab.weights import PackedStack

TOYS = ("gpt-oss", "gpt-oss, packed", "gpt2", "qwen3-moe")
RMS, LARGEST, MARGIN, AGREED = 0.01, 0.1, 0.05, 0.8  # at most; the share of agreed tokens, at least
ROUNDED = frozenset(
    """attention.q attention.k attention.v attention.q_normed attention.k_normed attention.q_rotated
    attention.k_rotated attention.mixed attention.out experts.gate experts.up experts.act experts.each
    mlp.pre mlp.act mlp.out""".split()
)


@dataclass(frozen=True)
class Figures:
    """residual, logits: rms of the difference over that of the value, at agreed tokens (of the residual, the
    layer where it is largest). largest: the largest difference there, of a value beyond one relative.
    agreed: the share of tokens. flips: chosen experts that differ at tokens agreed until then; margin: the
    largest distance of the K-th from the next logit at which one did. theirs: transformers' own bfloat16
    logits at the same tokens, by rms. rounded: the points that are bfloat16.
    """

    residual: float
    logits: float
    largest: float
    agreed: float
    flips: int
    margin: float
    theirs: float
    rounded: frozenset[str]


def in_bf16(model: Transformer) -> Transformer:
    """The model as load(dtype=torch.bfloat16) would have it."""
    for part in model.modules():
        if isinstance(part, Linear | Stack | PackedStack):
            part.compute = torch.bfloat16
    return model


@cache
def figures(toy: str) -> Figures:
    """One toy, 408 tokens, with weights that bfloat16 holds exactly, so that the arithmetic alone differs."""
    plain = copied(right_model(toy))
    for weight in plain.parameters():
        weight.copy_(weight.bfloat16())
    config, tokens = plain.config, random_tokens(plain.config, 24, 17)
    exact = transformers_shows(plain, tokens)
    rough = record(in_bf16(packed(plain) if config.stored_experts == "mxfp4" else copied(plain)), tokens)
    with torch.no_grad():
        theirs = transformers_model(plain).bfloat16()(tokens).logits.float()
    agreed, flips, margin, apart = torch.ones(tokens.shape, dtype=torch.bool), 0, 0.0, []
    for n in range(config.n_layers):
        if config.n_experts:
            here = flipped(f"blocks.{n}.experts.", exact, rough) & agreed
            best = exact[f"blocks.{n}.experts.logits"].topk(config.experts_per_token + 1).values
            margins = (best[..., -2] - best[..., -1])[here].tolist()  # of the last chosen from the next
            flips, margin = flips + len(margins), max([margin, *margins])
            agreed = (agreed & ~here).int().cummin(1).values.bool()
        residuals = [shown[f"blocks.{n}.residual"][agreed] for shown in (rough, exact)]
        apart.append((rms(*residuals), deviation(*residuals)))
    ours, right = rough["logits"][agreed], exact["logits"][agreed]
    return Figures(
        residual=max(mean for mean, _ in apart),
        logits=rms(ours, right),
        largest=max(deviation(ours, right), *(most for _, most in apart)),
        agreed=float(agreed.float().mean()),
        flips=flips,
        margin=margin,
        theirs=rms(theirs[agreed], right),
        rounded=frozenset(points.general(n) for n, value in rough.items() if value.dtype == torch.bfloat16),
    )


def flipped(room: str, exact: dict[str, Tensor], rough: dict[str, Tensor]) -> Tensor:
    """Where other experts were chosen, in whatever order: B T."""
    return (exact[room + "choice"].sort().values != rough[room + "choice"].sort().values).any(-1)
