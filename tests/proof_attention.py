"""Attention and its cache against their definitions: what is seen, turned, shared out, and kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from definitions import attention, frequencies_of, noise, through
from proof_common import Pair, every, looked_at, normed, sees
from torch import Tensor
from toys import random_tokens

from gptoss_lab.config import Config
from gptoss_lab.model import Cache, Transformer
from gptoss_lab.tap import SILENT, Recorder

# ---- what is seen and turned, and the whole layer


def visible_keys(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """140 tokens, and a text of 133 beside seven of padding."""
    positions = torch.stack((torch.arange(140), torch.arange(140) - 7)).clamp(min=-1)
    x = noise(2, 140, right.config.d_model)
    for n, window in enumerate(right.config.windows):
        ours = looked_at(model.blocks[n].attention, x, positions, None)["visible"]
        yield ours, [[[sees(q, k, window) for k in row] for q in row] for row in positions.tolist()]


def frequencies(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """Of the published θ, factor and original context."""
    c = right.config
    yield model.blocks[1].attention.frequencies, frequencies_of(c.d_head, c.rope_theta, c.yarn)


def projected(x: Tensor, norm: Any, linear: Any, config: Config) -> list:
    """Norm and one projection, cut into heads: B T heads C."""
    matrix = linear.weight.tolist()
    bias = [0.0] * len(matrix) if linear.bias is None else linear.bias.tolist()
    flat = every(x, lambda row: through(matrix, bias, normed(row, norm, config.norm_eps)))
    return torch.tensor(flat, dtype=torch.float64).unflatten(-1, (-1, config.d_head)).tolist()


def turned(head: list[float], position: int, config: Config) -> list[float]:
    """One head, its pairs turned by position · frequency, longer by the concentration."""
    half, longer = len(head) // 2, 0.1 * math.log(config.yarn.factor) + 1 if config.yarn else 1.0
    found = [0.0] * len(head)
    for i, frequency in enumerate(frequencies_of(config.d_head, config.rope_theta, config.yarn)):
        c, s = longer * math.cos(position * frequency), longer * math.sin(position * frequency)
        found[i], found[i + half] = head[i] * c - head[i + half] * s, head[i + half] * c + head[i] * s
    return found


def to_heads(x: Tensor, positions: Tensor, layer: Any, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v as they meet: projected, normalised where there is QK-norm, turned where there is RoPE."""
    q, k, v = (projected(x, layer.norm, part, config) for part in (layer.q, layer.k, layer.v))
    for heads, norm in ((q, "q_norm"), (k, "k_norm")):
        for b, t in product(range(len(heads)), range(len(heads[0]))):
            for h, head in enumerate(heads[b][t]):
                if config.qk_norm:
                    head = normed(head, getattr(layer, norm), config.norm_eps)
                if config.positions == "rope":
                    head = turned(head, int(positions[b, t]), config)
                heads[b][t][h] = head
    return tuple(torch.tensor(heads, dtype=torch.float64) for heads in (q, k, v))


def rotation(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """Queries and keys as they meet, near and far."""
    x = noise(2, 5, right.config.d_model)
    positions = torch.tensor([[0, 1, 2, 3, 50], [0, 7, 8, 9, 31]])
    ours = looked_at(model.blocks[1].attention, x, positions, None)
    q, k, _ = to_heads(x, positions, right.blocks[1].attention, right.config)
    yield ours["q_rotated"], q
    yield ours["k_rotated"], k


def attention_alone(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """Made-up q, k, v and sinks; one query sees nothing."""
    c = right.config
    q = noise(2, 9, c.n_heads, 6)
    k, v = noise(2, 13, c.n_kv_heads, 6, seed=1), noise(2, 13, c.n_kv_heads, 6, seed=2)
    seen = torch.rand((2, 9, 13), generator=torch.Generator().manual_seed(0)) < 0.6
    seen[1, 4] = False
    sink = noise(2, c.n_heads, 9, seed=3) + 1
    recorder = Recorder(["pattern"])
    ours = model.blocks[1].attention.attend(q, k, v, seen, sink, recorder, 0.0)
    mixed, pattern, _ = attention(q, k, v, seen, sink)
    yield ours, mixed
    yield recorder.kept["pattern"], pattern


def attention_layer(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """From the residual to what is added to it."""
    c, layer, T = right.config, right.blocks[0].attention, 7
    x, positions = noise(2, T, c.d_model), torch.arange(T).expand(2, T)
    q, k, v = to_heads(x, positions, layer, c)
    seen = torch.tensor([[[sees(t, s, c.windows[0]) for s in range(T)] for t in range(T)]] * 2)
    sink = layer.sinks[None, :, None].expand(2, -1, T) if c.sinks else None
    mixed, _, _ = attention(q, k, v, seen, sink)
    matrix = layer.o.weight.tolist()
    bias = [0.0] * c.d_model if layer.o.bias is None else layer.o.bias.tolist()
    ours = model.blocks[0].attention(x, positions, None, SILENT)
    yield ours, every(mixed.flatten(-2), lambda row: through(matrix, bias, row))


# ---- the cache


def ring(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """Of every key that a query sees: how often the ring hands it out, as it was put in. Once."""
    c, positions = right.config, torch.arange(17)
    k, v = noise(1, 17, c.n_kv_heads, c.d_head), noise(1, 17, c.n_kv_heads, c.d_head, seed=1)
    handed_out = []
    for sizes in ((1,) * 17, (4, 9, 4), (3, 2, 1, 8, 3), (17,), (5, 5, 7)):
        layer = Cache(model.config, 17).layers[0]
        for at in positions.split(sizes):
            keys, values, there = layer.extend(k[:, at], v[:, at], at[None])
            for query, key in product(at.tolist(), range(17)):
                if sees(query, key, c.window):
                    found = (there[0] == key).nonzero().flatten()
                    same = (keys[0, found] == k[0, key]) & (values[0, found] == v[0, key])
                    handed_out.append(int(same.all(-1).all(-1).sum()))
    yield handed_out, [1] * len(handed_out)


def positions_in_chunks(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """The positions that blocks are told, when a text comes in chunks."""
    told: list[int] = []
    recorder = Recorder(["embedding"], store=lambda name, value, at, keys: told.extend(at[0].tolist()))
    kept = Cache(right.config, 17)
    for chunk in random_tokens(right.config, 1, 17).split((4, 9, 1, 1, 2), 1):
        model(chunk, cache=kept, tap=recorder)
    yield told, list(range(17))
