"""Faults of attention: what is seen, how heads share, sinks, scale, rotation, YaRN, QK-norm, the cache."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...config import Config
from ...model import Transformer, attention, cache
from ...tap import SILENT, Tap
from .planting import Altered, Function, altering, attentions, config, function, weights

ATTEND, VISIBLE = (attention, "attend"), (attention, "visible")
ROTATE, FREQUENCIES = (attention, "rotate"), (attention, "frequencies")

# ---- which keys are seen


@config("gpt-oss", "visible keys", "gpt-oss, past 128 tokens")
def window_127(config: Config) -> Config:
    """The window does not count the query itself: one key too few."""
    assert config.window
    return config.with_changes(window=config.window - 1)


@config("gpt-oss", "visible keys", "gpt-oss, past 128 tokens")
def window_129(config: Config) -> Config:
    """The key at the window's distance is still seen: one too many."""
    assert config.window
    return config.with_changes(window=config.window + 1)


@config("gpt-oss", "visible keys")
def even_and_odd_layers_swapped(config: Config) -> Config:
    """The odd layers slide, the even ones are dense."""
    return config.with_changes(windowed_layers="odd")


@config("gpt-oss", "visible keys")
def windows_left_out(config: Config) -> Config:
    """Every layer is dense."""
    return config.with_changes(window=None)


@function(VISIBLE, "gpt-oss", "visible keys")
def the_query_itself_not_seen(visible: Function) -> Function:
    """The mask is strict: a token sees what came before it alone."""
    return lambda query, key, window=None: visible(query, key, window) & (query[..., None] != key[:, None])


@function(VISIBLE, "gpt-oss", "visible keys", "gpt-oss, padded")
def padding_seen(visible: Function) -> Function:
    """Padding counts as a token at position 0."""
    return lambda query, key, window=None: visible(query, key.clamp(min=0), window)


# ---- sinks, scale and heads


@function(ATTEND, "gpt-oss", "attention")
def sink_dropped(attend: Function) -> Function:
    """No sink joins the softmax: rows of the pattern sum to one."""
    return lambda q, k, v, seen, sink, *more: attend(q, k, v, seen, None, *more)


@function(ATTEND, "gpt-oss", "attention")
def sink_scaled(attend: Function) -> Function:
    """The sink's logit is multiplied by 1/√C, as scores are."""
    return lambda q, k, v, seen, sink, *more: attend(q, k, v, seen, sink / math.sqrt(q.shape[-1]), *more)


@function(ATTEND, "gpt-oss", "attention")
def wrong_column_dropped(attend: Function) -> Function:
    """The first column is dropped for the sink's: each key gets its right neighbour's share."""

    def shifted(pattern: Tensor, before: dict[str, Tensor]) -> Tensor:
        return torch.cat((pattern[..., 1:], 1 - pattern.sum(-1, keepdim=True)), dim=-1)

    def wrong(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, sink: Tensor, tap: Tap, *more: Any) -> Any:
        return attend(q, k, v, seen, sink, Altered(tap, {"pattern": shifted}), *more)

    return wrong


@function(ATTEND, "gpt-oss", "attention")
def heads_interleaved(attend: Function) -> Function:
    """Query head h asks key/value head h mod G: neighbours do not share."""

    def wrong(q: Tensor, k: Tensor, v: Tensor, *more: Any) -> Any:
        shared = q.shape[2] // k.shape[2]
        return attend(q, k.repeat(1, 1, shared, 1), v.repeat(1, 1, shared, 1), *more)

    return wrong


@function(ATTEND, "gpt-oss", "attention")
def scores_not_scaled(attend: Function) -> Function:
    """q·k is not divided by √C."""
    return lambda q, *more: attend(q * math.sqrt(q.shape[-1]), *more)


@function(ATTEND, "gpt-oss", "attention")
def scores_divided_by_C(attend: Function) -> Function:
    """q·k is divided by C, not by its root."""
    return lambda q, *more: attend(q / math.sqrt(q.shape[-1]), *more)


@weights("gpt-oss", "attention layer")
def bias_of_the_projection_dropped(model: Transformer) -> None:
    """What attention adds to the residual lacks its bias."""
    for layer in attentions(model):
        layer.o.bias.zero_()


# ---- rotation and YaRN


@function(ROTATE, "gpt-oss", "rotation")
def neighbours_paired(rotate: Function) -> Function:
    """Pairs are channels 2i and 2i + 1, not one of each half."""

    def wrong(x: Tensor, *more: Any) -> Tensor:
        halves = x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
        return rotate(halves, *more).unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)

    return wrong


@function(ROTATE, "gpt-oss", "rotation")
def turned_backwards(rotate: Function) -> Function:
    """The sine has the other sign."""
    return lambda x, positions, *more: rotate(x, -positions, *more)


@config("gpt-oss", "rotation")
def theta_10000(config: Config) -> Config:
    """θ of the first RoPE models."""
    return config.with_changes(rope_theta=10000.0)


@function(FREQUENCIES, "gpt-oss", "frequencies")
def half_of_the_head_turned(frequencies: Function) -> Function:
    """The second half of the pairs stands still."""

    def wrong(d_head: int, *more: Any) -> Tensor:
        turning = torch.arange(d_head // 2) < d_head // 4
        return frequencies(d_head, *more) * turning

    return wrong


@config("gpt-oss", "frequencies")
def ends_of_the_ramp_rounded(config: Config) -> Config:
    """YaRN's ramp begins and ends at whole pairs."""
    assert config.yarn
    return config.with_changes(yarn=replace(config.yarn, rounded=True))


@function(FREQUENCIES, "gpt-oss", "frequencies")
def nothing_stretched(frequencies: Function) -> Function:
    """YaRN's frequencies are left out; its concentration stays."""
    return lambda d_head, theta, yarn: frequencies(d_head, theta)


@function((attention, "concentration"), "gpt-oss", "rotation")
def concentration_left_out(concentration: Function) -> Function:
    """cos and sin are not multiplied by YaRN's concentration."""
    return lambda yarn: 1.0


@weights("gpt-oss", "rotation")
def concentration_in_q_alone(model: Transformer) -> None:
    """Queries are longer by the concentration, keys are not."""
    for layer in attentions(model):
        layer.k.weight /= layer.concentration
        layer.k.bias /= layer.concentration


@function(ROTATE, "gpt-oss", "rotation")
def concentration_in_the_cosine_alone(rotate: Function) -> Function:
    """The sine is not multiplied by the concentration."""

    def wrong(x: Tensor, positions: Tensor, frequencies: Tensor, concentration: float) -> Tensor:
        there, back = rotate(x, positions, frequencies), rotate(x, -positions, frequencies)
        return concentration * (there + back) / 2 + (there - back) / 2  # x·cos is half of their sum

    return wrong


# ---- QK-norm


@config("qwen3-moe", "rotation")
def qk_norm_left_out(config: Config) -> Config:
    """Queries and keys are not normalised."""
    return config.with_changes(qk_norm=False)


@weights("qwen3-moe", "rotation")
def scales_of_q_and_k_swapped(model: Transformer) -> None:
    """Queries have the scale of the keys' norm, keys that of the queries'."""
    for layer in attentions(model):
        layer.q_norm, layer.k_norm = layer.k_norm, layer.q_norm


@function((attention.Attention, "forward"), "qwen3-moe", "rotation")
def qk_norm_after_the_rotation(forward: Function) -> Function:
    """Heads are normalised when they have turned. A turn leaves lengths, so only the scale comes late."""
    return altering(
        forward,
        q_normed=lambda layer, q, before: q / layer.q_norm.scale,
        k_normed=lambda layer, k, before: k / layer.k_norm.scale,
        q_rotated=lambda layer, q, before: q * layer.q_norm.scale,
        k_rotated=lambda layer, k, before: k * layer.k_norm.scale,
    )


# ---- the cache


@function((cache, "LayerCache"), "gpt-oss", "ring", "gpt-oss, token by token")
def ring_one_slot_short(LayerCache: Function) -> Function:
    """A ring holds one key fewer than its window."""

    def wrong(size: int, batch: int, config: Config, *more: Any) -> Any:
        return LayerCache(size - (size == config.window), batch, config, *more)

    return wrong


@function((cache.LayerCache, "extend"), "gpt-oss", "ring", "gpt-oss, in chunks")
def chunk_cut_to_the_ring(extend: Function) -> Function:
    """A chunk sees what the ring holds after it, not what its first tokens still need."""
    return lambda ring, *new: tuple(part[:, -ring.size :] for part in extend(ring, *new))


@function((Transformer, "forward"), "gpt-oss", "positions", "gpt-oss, in chunks")
def positions_restart(forward: Function) -> Function:
    """Every chunk begins at position 0."""

    def wrong(
        model: Transformer,
        tokens: Tensor,
        last: int | None = None,
        positions: Tensor | None = None,
        cache: cache.Cache | None = None,
        tap: Tap = SILENT,
    ) -> Tensor:
        restarted = torch.arange(tokens.shape[1]).expand(tokens.shape) if positions is None else positions
        return forward(model, tokens, last, restarted, cache, tap)

    return wrong
