"""Checks of the walk through the blocks, and of what each part adds."""

from __future__ import annotations

import torch

from .. import model as lab
from ..config import Config
from . import judging
from .judging import Answer, Own, made_up


def small() -> lab.Transformer:
    """A gpt-oss of three layers with large random weights, so that every mistake shows."""
    config = Config(
        name="three layers", family="gpt-oss", n_layers=3, d_model=24, n_heads=4, n_kv_heads=2, d_head=6,
        d_ff=10, vocab_size=29, context=64, window=3, sinks=True, n_experts=5, experts_per_token=2,
    )  # fmt: skip
    model = lab.Transformer.random(config)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.add_(made_up(*weight.shape, seed=number), alpha=0.3)
    return model


@torch.no_grad()
def walk(own: Own) -> Answer:
    """own(model, tokens B T) → logits B T V, by embedding, every block in turn, and reading out."""
    model, tokens = small(), torch.tensor([[3, 11, 7, 28, 0, 19]])
    first, second, third = model.blocks
    start, read = model.embed(tokens), model.read_out
    one = first(start)
    end = third(second(one))
    right = read(end)
    twice = start
    for block in model.blocks:
        twice = twice + block(twice)
    return judging.judge(
        own(model, tokens.clone()), right, "the model's own logits.",
        {
            "The last norm is missing: `model.read_out` normalises, then unembeds.": model.unembed(end),
            "The last norm runs twice: `model.read_out` brings its own.": read(model.norm(end)),
            "The last block is missing.": read(second(one)),
            "The first block is missing.": read(third(second(start))),
            "No block ran: that reads out the embedding.": read(start),
            "Every block got the embedding, not what the block before it made: write `x = block(x)`.":
                read(third(start)),
            "You added the residual twice: a block returns x with its part added, so `x = block(x)`.":
                read(twice),
            "The blocks ran in reverse order.": read(first(second(third(start)))),
            "That is the last residual: read it out.": end,
            "You returned probabilities; logits come before the softmax.": right.softmax(-1),
            "That is the last position alone; give logits for all of them.": right[:, -1:],
        },
        atol=1e-5,
    )  # fmt: skip


def contributions(own: Own) -> Answer:
    """own(parts N D, scale D, eps, row D) → N: what each part of the residual adds to one token's logit."""
    parts, scale, row, eps = made_up(5, 12) * 2, made_up(12, seed=1) + 2, made_up(12, seed=2), 1e-5
    total = parts.sum(0)
    square = total.square().mean() + eps
    right = parts / square.sqrt() * scale @ row
    each = parts / (parts.square().mean(-1, keepdim=True) + eps).sqrt()
    return judging.judge(
        own(parts.clone(), scale.clone(), eps, row.clone()), right, "the parts add up to the logit.",
        {
            "You normalised every part by its own size; divide by the size of their sum, or they do not "
            "add up to the logit.": each * scale @ row,
            "The norm is missing: divide by the root mean square of the sum of the parts.":
                parts * scale @ row,
            "The norm is missing, and its scale: (part / size of the sum) · scale · row.": parts @ row,
            "The norm's scale is missing.": parts / square.sqrt() @ row,
            "You divided by the mean square; take its root.": parts / square * scale @ row,
            "You divided by the length; the norm divides by the root mean square, √D times smaller.":
                parts / total.norm() * scale @ row,
            "You subtracted the mean, as LayerNorm does; RMSNorm only divides.":
                (parts - parts.mean(-1, keepdim=True)) / (total.var(correction=0) + eps).sqrt() * scale @ row,
            "You made shares of them; contributions are parts of a logit and may be negative.":
                right / right.sum(),
            "That is their sum, the logit; give one number a part.": right.sum(),
        },
    )  # fmt: skip
