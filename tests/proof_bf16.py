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
    largest distance of the K-th from the next logit at which one did. ours, theirs: rms of our logits and of
    transformers' own bfloat16 logits, where both agreed. rounded: the points that are bfloat16.
    """

    residual: float
    logits: float
    largest: float
    agreed: float
    flips: int
    margin: float
    ours: float
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
    logits, routed = transformers_in_bf16(plain, tokens)

    agreed, flips, margin, apart = torch.ones(tokens.shape, dtype=torch.bool), 0, 0.0, []
    both = agreed
    for n in range(config.n_layers):
        if config.n_experts:
            right, k = exact[f"blocks.{n}.experts.logits"], config.experts_per_token
            here = flipped(rough[f"blocks.{n}.experts.logits"], right, k) & agreed
            best = right.topk(k + 1).values
            margins = (best[..., -2] - best[..., -1])[here].tolist()  # of the last chosen from the next
            flips, margin = flips + len(margins), max([margin, *margins])
            agreed = up_to_here(agreed & ~here)
            both = up_to_here(both & ~flipped(routed[n], right, k)) & agreed
        residuals = [shown[f"blocks.{n}.residual"][agreed] for shown in (rough, exact)]
        apart.append((rms(*residuals), deviation(*residuals)))
    ours, right = rough["logits"], exact["logits"]
    return Figures(
        residual=max(mean for mean, _ in apart),
        logits=rms(ours[agreed], right[agreed]),
        largest=max(deviation(ours[agreed], right[agreed]), *(most for _, most in apart)),
        agreed=float(agreed.float().mean()),
        flips=flips,
        margin=margin,
        ours=rms(ours[both], right[both]),
        theirs=rms(logits[both], right[both]),
        rounded=frozenset(points.general(n) for n, value in rough.items() if value.dtype == torch.bfloat16),
    )


def transformers_in_bf16(model: Transformer, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """transformers' own bfloat16: its logits, and its router's of every layer, B T E."""
    more = {"output_router_logits": True} if model.config.n_experts else {}
    with torch.no_grad():
        said = transformers_model(model).bfloat16()(tokens, **more)
    routers = said.router_logits if more else ()
    return said.logits.float(), [logits.unflatten(0, tokens.shape).float() for logits in routers]


def flipped(logits: Tensor, right: Tensor, k: int) -> Tensor:
    """Where the k largest are others, in whatever order: B T."""
    return (logits.topk(k).indices.sort().values != right.topk(k).indices.sort().values).any(-1)


def up_to_here(yes: Tensor) -> Tensor:
    """Where it is so for a token and all before it: B T."""
    return yes.int().cummin(1).values.bool()
