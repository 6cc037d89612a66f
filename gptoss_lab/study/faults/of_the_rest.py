"""Faults of norms, embeddings, activations, the router, experts, and of how weights are stored."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import Config
from ...model import Transformer, experts, norm
from ...weights import mxfp4
from .planting import Function, altering, attentions, config, function, mixtures, weights

RMS_NORM, LAYER_NORM = (norm, "rms_norm"), (norm, "layer_norm")
EXPERTS, HALVES, UNPACK = (experts.Experts, "forward"), (experts, "halves"), (mxfp4, "unpack")

# ---- norms


@config("gpt-oss", "norm", "gpt-oss, small embeddings")
def eps_of_a_millionth(config: Config) -> Config:
    """RMSNorm's eps is 1e-6, as in Qwen3, not 1e-5."""
    return config.with_changes(norm_eps=1e-6)


@function(RMS_NORM, "qwen3-moe", "norm in bf16", "qwen3-moe, q and k in bf16")
def scale_after_the_cast(rms_norm: Function) -> Function:
    """RMSNorm casts down first and multiplies by its scale then: two roundings."""
    return lambda x, scale, eps: rms_norm(x, torch.ones_like(scale), eps) * scale.to(x.dtype)


@function(RMS_NORM, "gpt-oss", "norm")
def mean_taken_away(rms_norm: Function) -> Function:
    """RMSNorm centres its input, as LayerNorm does."""
    return lambda x, scale, eps: rms_norm(x - x.mean(-1, keepdim=True), scale, eps)


@function(RMS_NORM, "qwen3-moe", "rotation")
def heads_normalised_together(rms_norm: Function) -> Function:
    """QK-norm takes one mean square over all heads of a token."""

    def wrong(x: Tensor, scale: Tensor, eps: float) -> Tensor:
        if x.ndim < 4:
            return rms_norm(x, scale, eps)
        return rms_norm(x.flatten(-2), scale.repeat(x.shape[-2]), eps).unflatten(-1, x.shape[-2:])

    return wrong


@function(LAYER_NORM, "gpt2", "norm")
def variance_unbiased(layer_norm: Function) -> Function:
    """LayerNorm divides the sum of squares by D − 1."""

    def wrong(x: Tensor, scale: Tensor, bias: Tensor, eps: float) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.var(-1, keepdim=True) + eps) * scale + bias

    return wrong


@weights("gpt2", "norm")
def bias_of_layer_norm_dropped(model: Transformer) -> None:
    """LayerNorm has a scale alone."""
    for part in model.modules():
        if isinstance(part, norm.LayerNorm):
            part.bias.zero_()


@weights("gpt-oss", "read-out")
def final_norm_left_out(model: Transformer) -> None:
    """The unembedding reads the residual as it is."""
    model.norm = nn.Identity()  # type: ignore[assignment]


# ---- embeddings and stored matrices


@weights("gpt2", "embedding")
def positions_one_off(model: Transformer) -> None:
    """Position p has the row of p + 1, as where padding took row 0."""
    model.position_embedding.copy_(model.position_embedding.roll(-1, dims=0))


@weights("gpt2", "read-out")
def embedding_not_tied(model: Transformer) -> None:
    """The unembedding is a matrix of its own that was never loaded."""
    fresh = torch.randn(model.unembed.shape, generator=torch.Generator().manual_seed(0))
    model.unembed.weight = nn.Parameter(0.02 * fresh)


@weights("gpt-oss", "embedding")
def embedding_scaled(model: Transformer) -> None:
    """Embeddings are multiplied by √D, as the first Transformer did."""
    model.token_embedding.mul_(math.sqrt(model.config.d_model))


@weights("gpt2", "Conv1D")
def conv1d_not_transposed(model: Transformer) -> None:
    """A square Conv1D matrix is taken as it is stored."""
    for layer in attentions(model):
        layer.o.weight.copy_(layer.o.weight.T.clone())


@weights("gpt2", "Conv1D")
def qkv_cut_head_by_head(model: Transformer) -> None:
    """The packed rows are read as q, k, v of head 0, then of head 1; they are all q, all k, all v."""
    heads = model.config.n_heads
    for layer in attentions(model):
        three = (layer.q, layer.k, layer.v)
        for kind in ("weight", "bias"):
            packed = torch.cat([getattr(part, kind) for part in three]).unflatten(0, (heads, 3, -1))
            for i, part in enumerate(three):
                getattr(part, kind).copy_(packed[:, i].flatten(0, 1))


# ---- activations


@function((experts, "gelu"), "gpt2", "activation")
def gelu_of_erf(gelu: Function) -> Function:
    """GELU in its exact form, which GPT-2 does not use."""
    return F.gelu


@function((experts, "clamped_swiglu"), "gpt-oss", "activation")
def no_plus_one(clamped_swiglu: Function) -> Function:
    """up is not shifted by one."""
    return lambda gate, up, *more: clamped_swiglu(gate, up, *more) - clamped_swiglu(gate, 0 * up, *more)


@config("gpt-oss", "activation")
def nothing_clamped(config: Config) -> Config:
    """Neither gate nor up has a limit."""
    return config.with_changes(swiglu_limit=math.inf)


@function((experts, "clamped_swiglu"), "gpt-oss", "activation", "gpt-oss, limit of two")
def gate_clamped_below(clamped_swiglu: Function) -> Function:
    """The gate is clamped on both sides, as up is."""
    return lambda gate, up, limit, alpha: clamped_swiglu(gate.clamp(min=-limit), up, limit, alpha)


@config("gpt-oss", "activation")
def alpha_one(config: Config) -> Config:
    """The gate goes through silu, as config.json's hidden_act misleads one to think."""
    return config.with_changes(swiglu_alpha=1.0)


@function(HALVES, "qwen3-moe", "experts")
def gate_and_up_swapped(halves: Function) -> Function:
    """silu is taken of up."""
    return lambda gate_up: halves(gate_up).flip(0)


# ---- the router and the experts


@weights("gpt-oss", "router")
def bias_of_the_router_dropped(model: Transformer) -> None:
    """Router logits lack their bias."""
    for layer in mixtures(model):
        layer.router.bias.zero_()


@function(EXPERTS, "gpt-oss", "router")
def softmax_before_top_k(forward: Function) -> Function:
    """Weights are shares among all experts: those of the chosen do not sum to one."""
    return altering(forward, weight=lambda layer, weight, before: shares(before))


@function(EXPERTS, "qwen3-moe", "router")
def shares_not_renormalised(forward: Function) -> Function:
    """Qwen3's shares among all experts are kept as they are (norm_topk_prob is false)."""
    return altering(forward, weight=lambda layer, weight, before: shares(before))


def shares(before: dict[str, Tensor]) -> Tensor:
    """The chosen experts' shares of a softmax over all of them: B T K."""
    return before["logits"].softmax(-1).gather(-1, before["choice"])


@config("gpt-oss", "router")
def one_expert_too_few(config: Config) -> Config:
    """The K-th expert is not asked."""
    return config.with_changes(experts_per_token=config.experts_per_token - 1)


@function(EXPERTS, "gpt-oss", "experts")
def down_bias_after_the_weight(forward: Function) -> Function:
    """Each chosen expert's down bias is added whole, whatever the expert's weight."""

    def out(layer: Any, out: Tensor, before: dict[str, Tensor]) -> Tensor:
        rest = (1 - before["weight"])[..., None] * layer.down.bias[before["choice"]]
        return out + rest.sum(-2)

    return altering(forward, out=out)


@weights("gpt-oss", "experts")
def down_transposed(model: Transformer) -> None:
    """The down projection, which is square, is the wrong way round."""
    for layer in mixtures(model):
        layer.down.weight.copy_(layer.down.weight.transpose(1, 2).clone())


@function(HALVES, "gpt-oss", "experts")
def gate_and_up_as_halves(halves: Function) -> Function:
    """The first half of the rows is the gate, the second up; they alternate."""
    return lambda gate_up: gate_up.unflatten(-1, (2, -1)).movedim(-2, 0).contiguous()


@weights("gpt-oss", "experts")
def bias_of_gate_and_up_as_halves(model: Transformer) -> None:
    """The rows alternate, but their bias is read as all gates, then all ups."""
    for layer in mixtures(model):
        bias = layer.gate_up.bias
        bias.copy_(bias.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2).clone())


# ---- MXFP4


@function(UNPACK, "gpt-oss", "MXFP4", "gpt-oss, packed")
def high_nibble_first(unpack: Function) -> Function:
    """The high nibble is element 2j, the low one 2j + 1."""
    return lambda *given: unpack(*given).unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


@function(UNPACK, "gpt-oss", "MXFP4", "gpt-oss, packed")
def sign_lost(unpack: Function) -> Function:
    """The sign bit of a nibble is ignored."""
    return lambda *given: unpack(*given).abs()


@function(UNPACK, "gpt-oss", "MXFP4", "gpt-oss, packed")
def scale_bias_128(unpack: Function) -> Function:
    """A scale byte means 2^(byte − 128)."""
    return lambda *given: unpack(*given) / 2


@function(UNPACK, "gpt-oss", "MXFP4", "gpt-oss, packed")
def pairs_sixteen_apart(unpack: Function) -> Function:
    """A byte holds elements j and j + 16, as in GGUF files."""
    return lambda *given: unpack(*given).unflatten(-1, (-1, 16, 2)).transpose(-1, -2).flatten(-3)


@function(UNPACK, "gpt-oss", "MXFP4", "gpt-oss, packed")
def scale_for_sixteen(unpack: Function) -> Function:
    """Each scale byte is given to 16 values, so that the scales run through a row twice."""

    def wrong(blocks: Tensor, scales: Tensor, *more: Any) -> Tensor:
        unscaled = unpack(blocks, torch.full_like(scales, mxfp4.BIAS), *more)
        factors = unpack(torch.full_like(blocks, 0x22), scales, *more)  # … 32n: nibble 2 is 1
        return unscaled * torch.cat((factors[..., ::2], factors[..., ::2]), -1)

    return wrong
