"""Every operation of a model against its definition: loops over plain numbers in double precision.

Each compares what the operation puts out in `model` with what its definition makes of the *right* model's
weights and config, so that a model with a fault in it can be measured as well as the right one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from definitions import noise, through
from proof_attention import (
    attention_alone,
    attention_layer,
    frequencies,
    positions_in_chunks,
    ring,
    rotation,
    visible_keys,
)
from proof_common import (
    TOYS,
    Operation,
    Pair,
    activated,
    every,
    looked_at,
    normed,
    ratio,
    tanh_gelu,
    wrong,
)
from torch import Tensor
from torch.nn.functional import linear
from toys import random_tokens

from gptoss_lab.config import Config
from gptoss_lab.model import Transformer, experts
from gptoss_lab.tap import SILENT
from gptoss_lab.weights import mxfp4 as packing
from gptoss_lab.weights import names

# ---- norms, embedding, read-out


def norm(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """Of numbers of ordinary size, and so small that eps is half of it."""
    theirs = right.blocks[1].attention.norm
    for size in (3.0, 3e-3):
        x = size * (noise(3, 5, right.config.d_model) + 0.3)
        defined = every(x, lambda row: normed(row, theirs, right.config.norm_eps))
        yield model.blocks[1].attention.norm(x), defined


def norm_in_bf16(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """Heads in bfloat16: one rounding, at the end."""
    x = noise(3, 9, 8, right.config.d_head).bfloat16()
    theirs = right.blocks[1].attention.q_norm
    defined = every(x.float(), lambda row: normed(row, theirs, right.config.norm_eps))
    yield model.blocks[1].attention.q_norm(x), torch.tensor(defined, dtype=torch.float64).bfloat16()


def embedding(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """The token's row, and the position's."""
    tokens, table = random_tokens(right.config), right.token_embedding.tolist()
    if right.config.positions == "rope":
        yield model.embed(tokens), [[table[i] for i in text] for text in tokens.tolist()]
    else:
        rows = right.position_embedding.tolist()
        sums = [[[a + b for a, b in zip(table[i], rows[t])] for t, i in enumerate(text)]
                for text in tokens.tolist()]  # fmt: skip
        yield model.embed(tokens), sums


def read_out(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """The last norm and the unembedding, which is the embedding where they are tied."""
    x = noise(2, 3, right.config.d_model, scale=2.0)
    matrix = (right.token_embedding if right.config.tied else right.unembed.weight).tolist()
    yield model.read_out(x), every(x, lambda row: [
        sum(w * v for w, v in zip(line, normed(row, right.norm, right.config.norm_eps))) for line in matrix
    ])  # fmt: skip


def conv1d(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """GPT-2's stored matrices, I by O, q, k and v side by side: as the model holds them, as they are read."""
    held, layer, x = model.blocks[0].attention, right.blocks[0].attention, noise(2, 3, right.config.d_model)
    three = (layer.q, layer.k, layer.v)
    stored = {
        "c_proj": (layer.o.weight.T, layer.o.bias.tolist()),
        "c_attn": (torch.cat([p.weight for p in three]).T, [b for p in three for b in p.bias.tolist()]),
    }

    def defined(name: str) -> list:
        matrix, bias = stored[name][0].tolist(), stored[name][1]
        return every(
            x, lambda row: [sum(v * w[o] for v, w in zip(row, matrix)) + b for o, b in enumerate(bias)]
        )

    yield held.o(x), defined("c_proj")
    yield torch.cat([part(x) for part in (held.q, held.k, held.v)], -1), defined("c_attn")
    for name, form, parts in (("c_proj", names.TURNED, (layer.o,)), ("c_attn", names.JOINED_TURNED, three)):
        read = form.read([stored[name][0]], [part.shape for part in parts])
        yield torch.cat([linear(x, w, part.bias) for w, part in zip(read, parts)], -1), defined(name)


# ---- the feed-forward half


def activation(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """On a grid from −12 to 12, and the known values."""
    grid = [v / 4 for v in range(-48, 49)]
    if not right.config.gated:
        yield experts.gelu(torch.tensor(grid)), [tanh_gelu(x) for x in grid]
        return
    gate, up = torch.tensor(grid)[:, None].expand(-1, 97), torch.tensor(grid)[None].expand(97, -1)
    defined = [[activated(g, u, right.config) for u in grid] for g in grid]
    yield experts.activate(model.config, gate, up), defined
    if right.config.family == "gpt-oss":
        known = {(1, 0): 0.8457957659, (20, 0): 6.9999531283, (0.5, -1): 0.0, (3, -20): -17.8915721428}
        gate, up = torch.tensor([*known], dtype=torch.float32).T
        yield experts.activate(model.config, gate, up), [*known.values()]


def routed(x: list[float], layer: Any, config: Config) -> list[tuple[int, float]]:
    """The experts of one (normalised) token and their weights: shares among all, kept, renormalised."""
    bias = [0.0] * config.n_experts if layer.router.bias is None else layer.router.bias.tolist()
    logits = through(layer.router.weight.tolist(), bias, x)
    best = sorted(range(len(logits)), key=lambda e: -logits[e])[: config.experts_per_token]
    share = [math.exp(logit) / sum(map(math.exp, logits)) for logit in logits]
    return [(e, share[e] / sum(share[i] for i in best)) for e in best]


def router(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """Every expert's weight, zero where it is not chosen."""
    c, layer, x = right.config, right.blocks[1].experts, noise(3, 9, right.config.d_model)
    ours = looked_at(model.blocks[1].experts, x)
    spread = torch.zeros(3, 9, c.n_experts).scatter(-1, ours["choice"], ours["weight"])

    def shares(row: list[float]) -> list[float]:
        chosen = dict(routed(normed(row, layer.norm, c.norm_eps), layer, c))
        return [chosen.get(e, 0.0) for e in range(c.n_experts)]

    yield spread, every(x, shares)


def answered(x: list[float], layer: Any, config: Config) -> list[float]:
    """What the experts add to one token's residual: even rows are gates, odd rows ups."""
    x, total = normed(x, layer.norm, config.norm_eps), [0.0] * config.d_model
    for e, weight in routed(x, layer, config):
        none = (torch.zeros(2 * config.d_ff), torch.zeros(config.d_model))
        biases = (layer.gate_up.bias[e], layer.down.bias[e]) if config.bias else none
        both = through(layer.gate_up.weight[e].tolist(), biases[0].tolist(), x)
        act = [activated(both[2 * f], both[2 * f + 1], config) for f in range(config.d_ff)]
        each = through(layer.down.weight[e].tolist(), biases[1].tolist(), act)
        total = [s + weight * v for s, v in zip(total, each)]
    return total


def mixture(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """Nine tokens walk over the experts, one alone gathers its own."""
    layer, x = right.blocks[1].experts, noise(1, 9, right.config.d_model)
    defined = every(x, lambda row: answered(row, layer, right.config))
    yield model.blocks[1].experts(x, SILENT), defined
    yield model.blocks[1].experts(x[:, :1], SILENT), [defined[0][:1]]


def dense_mlp(model: Transformer, right: Transformer) -> Iterator[Pair]:
    """GPT-2's: up, GELU, down."""
    c, mlp, x = right.config, right.blocks[1].mlp, noise(2, 4, right.config.d_model)

    def added(row: list[float]) -> list[float]:
        up = through(mlp.up.weight.tolist(), mlp.up.bias.tolist(), normed(row, mlp.norm, c.norm_eps))
        return through(mlp.down.weight.tolist(), mlp.down.bias.tolist(), [tanh_gelu(u) for u in up])

    yield model.blocks[1].mlp(x, SILENT), every(x, added)


NIBBLES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


@cache
def every_byte_and_scale() -> tuple[Tensor, Tensor, Tensor]:
    """256 rows of 16 blocks that hold all bytes; each meets every scale, its neighbours another."""
    blocks = torch.arange(256, dtype=torch.uint8).repeat(256, 1).unflatten(-1, (16, 16))
    scales = [[(row + 37 * block) % 256 for block in range(16)] for row in range(256)]
    factor = [2.0 ** (scale - 127) for scale in range(255)] + [math.nan]
    nibbles = [(byte // 16, nibble) for byte in range(256) for nibble in (byte & 15, byte >> 4)]  # low first
    meant = [[NIBBLES[nibble] * factor[row[block]] for block, nibble in nibbles] for row in scales]
    return blocks, torch.tensor(scales, dtype=torch.uint8), torch.tensor(meant, dtype=torch.float64)


def unpacking(model: Transformer, right: Transformer, dtype: torch.dtype = torch.float32) -> Iterator[Pair]:
    """All 256 bytes under all 256 scales; what is beyond the largest number of `dtype` is infinite."""
    blocks, scales, defined = every_byte_and_scale()
    too_large = defined.abs() > torch.finfo(dtype).max
    yield packing.unpack(blocks, scales, dtype), torch.where(too_large, defined.sign() * math.inf, defined)


OSS, GPT2, QWEN3 = "gpt-oss", "gpt2", "qwen3-moe"
ALL, PACKED = (OSS, GPT2, QWEN3), ("gpt-oss, packed",)
in_bf16 = partial(unpacking, dtype=torch.bfloat16)
OPERATIONS = {op.name: op for op in (
    Operation("norm", "RMSNorm, LayerNorm; also where eps is half", norm, ALL, 2e-6),
    Operation("norm in bf16", "heads in bfloat16, rounded once", norm_in_bf16, (QWEN3,), 0, wrong, "numbers"),
    Operation("embedding", "a token's row and a position's", embedding, ALL, 2e-6),
    Operation("read-out", "last norm and unembedding", read_out, ALL, 2e-6),
    Operation("visible keys", "mask rows: a window of 128, dense, padding", visible_keys,
              ("gpt-oss, window of 128",), 0, wrong, "pairs"),
    Operation("frequencies", "RoPE and YaRN as published, relative", frequencies,
              ("gpt-oss, published RoPE",), 2e-6, ratio),
    Operation("rotation", "q and k as they meet: projected, (normalised,) turned", rotation,
              (OSS, QWEN3), 5e-6),
    Operation("attention", "grouped heads and sinks", attention_alone, (OSS,), 2e-6),
    Operation("attention layer", "from the residual to what is added to it", attention_layer, ALL, 2e-6),
    Operation("Conv1D", "GPT-2's stored matrices, as held and as read", conv1d, (GPT2,), 2e-6),
    Operation("ring", "every key that a window needs, once", ring, (OSS,), 0, wrong, "keys"),
    Operation("positions", "of a text that comes in chunks", positions_in_chunks, ALL, 0, wrong, "tokens"),
    Operation("activation", "clamped SwiGLU, GELU, SwiGLU", activation, ALL, 2e-6),
    Operation("router", "the choice and its weights", router, (OSS, QWEN3), 2e-6),
    Operation("experts", "the mixture, walked and gathered", mixture, (OSS, QWEN3), 2e-6),
    Operation("dense MLP", "up, GELU, down", dense_mlp, (GPT2,), 2e-6),
    Operation("MXFP4", "256 bytes × 256 scales: 131,072 numbers in float32", unpacking, PACKED, 0, wrong,
              "numbers"),
    Operation("MXFP4 in bf16", "the same in bfloat16", in_bf16, PACKED, 0, wrong, "numbers"),
)}  # fmt: skip


def toy_for(operation: Operation, family: str) -> str:
    """The toy on which a fault of the family is looked for."""
    return next(toy for toy in operation.toys if TOYS[toy]().family == family)
