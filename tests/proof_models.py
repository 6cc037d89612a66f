"""Whole models against transformers': how logits are compared where a fault may hide.

Each comparison runs a model in one way (whole, past 128 tokens, through a cache, padded, packed, with heads
in bfloat16) and holds its logits against those of transformers with the right model's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from proof_common import deviation, right_model
from references import transformers_model
from torch import Tensor, nn
from toys import in_chunks, left_padded, random_tokens, run

from gptoss_lab.model import Transformer
from gptoss_lab.weights import PackedStack
from gptoss_lab.weights.mxfp4 import pack

BOUND = 2e-5
Run = Callable[[Transformer, Tensor], Tensor]


def rms(ours: Tensor, theirs: Tensor) -> float:
    """The root of the mean square of the difference, over that of theirs."""
    return float((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())


@dataclass(frozen=True)
class Comparison:
    """Logits of a toy run in one way, and transformers' for the same tokens.

    tokens: batch and count. prepared: what is made of the right model before faults are planted. reference:
    what transformers' model makes of the tokens; where it is left out, a plain pass.
    """

    name: str
    what: str
    toy: str
    tokens: tuple[int, int] = (3, 17)  # past the window of five and YaRN's original eight
    run: Run = run
    prepared: Callable[[Transformer], Transformer] = lambda model: model
    reference: Callable[[nn.Module, Tensor], Tensor] = lambda reference, tokens: reference(tokens).logits
    apart: Callable[[Tensor, Tensor], float] = deviation

    def right(self) -> Transformer:
        """The right model."""
        return prepared(self)[0]

    def measure(self, model: Transformer) -> float:
        """How far the model's logits are from transformers'."""
        right, tokens, theirs = prepared(self)
        ours = self.run(model, tokens)
        return self.apart(ours, theirs) if ours.isfinite().all() else float("inf")


@cache
def prepared(comparison: Comparison) -> tuple[Transformer, Tensor, Tensor]:
    """The right model, the tokens, and transformers' logits: made once."""
    plain = right_model(comparison.toy)
    tokens = random_tokens(plain.config, *comparison.tokens)
    right = comparison.prepared(plain)
    with torch.no_grad():
        same = plain if right.config.stored_experts == "mxfp4" else right
        theirs = comparison.reference(transformers_model(same), tokens)
    return right, tokens, theirs


# ---- ways to prepare and to run


def copied(model: Transformer) -> Transformer:
    """Another model with the same weights."""
    other = Transformer(model.config)
    other.load_state_dict(model.state_dict())
    return other.eval().requires_grad_(False)


def small_embeddings(model: Transformer) -> Transformer:
    """Embeddings of 0.003: their mean square is about eps, as it is in no toy otherwise."""
    other = copied(model)
    other.token_embedding.mul_(0.003)
    return other


def packed(model: Transformer) -> Transformer:
    """The experts' matrices in MXFP4, which holds them exactly."""
    other = copied(model)
    for block in other.blocks:
        for name in ("gate_up", "down"):
            stack = getattr(block.experts, name)
            setattr(block.experts, name, PackedStack(*pack(stack.weight), stack.bias))
    return other


def chunks_of(*sizes: int) -> Run:
    """Run in chunks of these sizes through one cache."""
    return lambda model, tokens: in_chunks(model, tokens, sizes)


LENGTHS = [17, 9, 2]


def padded(model: Transformer, tokens: Tensor) -> Tensor:
    """The first 17, 9 and 2 tokens of each text, pushed right in one batch: the logits of real tokens."""
    batch, positions = left_padded(tokens, LENGTHS)
    return run(model, batch, positions=positions)[positions >= 0]


def each_alone(reference: nn.Module, tokens: Tensor) -> Tensor:
    """The same texts one by one, without padding."""
    return torch.cat([reference(row[None, :length]).logits[0] for row, length in zip(tokens, LENGTHS)])


def q_and_k_in_bf16(model: Transformer, tokens: Tensor) -> Tensor:
    """Queries and keys are computed and normalised in bfloat16, all else in float32."""
    parts = [part for block in model.blocks for part in (block.attention.q, block.attention.k)]
    for part in parts:
        part.compute = torch.bfloat16
    try:
        return run(model, tokens)
    finally:
        for part in parts:
            del part.compute


def q_and_k_rounded(reference: nn.Module, tokens: Tensor) -> Tensor:
    """The same from transformers' float32 model: projections of rounded numbers, and norms, rounded once.

    What is turned and what is mixed is rounded too, as both keep the dtype that they are given.
    """
    import transformers.models.qwen3_moe.modeling_qwen3_moe as module

    def rounded(x: Tensor) -> Tensor:
        return x.bfloat16().float()

    for layer in reference.model.layers:
        attention = layer.self_attn
        for part in (attention.q_proj, attention.k_proj):
            part.weight.copy_(rounded(part.weight))
        for part in (attention.q_proj, attention.k_proj, attention.o_proj):
            part.register_forward_pre_hook(lambda part, given: (rounded(given[0]),))
        for part in (attention.q_proj, attention.k_proj, attention.q_norm, attention.k_norm):
            part.register_forward_hook(lambda part, given, output: rounded(output))
    turn = module.apply_rotary_pos_emb
    module.apply_rotary_pos_emb = lambda *given, **named: tuple(map(rounded, turn(*given, **named)))
    try:
        return reference(tokens).logits
    finally:
        module.apply_rotary_pos_emb = turn


TOGETHER = "17, 9 and 2 tokens in one batch; each alone in transformers"
SLIDING = "gpt-oss, window of 128"
STEPS, CHUNKS = chunks_of(*[1] * 17), chunks_of(4, 9, 4)
COMPARISONS = {c.name: c for c in (
    Comparison("gpt-oss", "a plain pass, past the window and YaRN's original context", "gpt-oss"),
    Comparison("gpt2", "a plain pass", "gpt2"),
    Comparison("qwen3-moe", "a plain pass", "qwen3-moe"),
    Comparison("gpt-oss, past 128 tokens", "a window of 128 under 140 tokens", SLIDING, (2, 140)),
    Comparison("gpt-oss, past 128 tokens in chunks", "the same in chunks of 100, 1, 1, 30 and 8", SLIDING,
               (2, 140), run=chunks_of(100, 1, 1, 30, 8)),
    Comparison("gpt-oss, small embeddings", "so small that eps is felt", "gpt-oss",
               prepared=small_embeddings),
    Comparison("gpt-oss, limit of two", "gates and ups clamped at 2", "gpt-oss, limit of two"),
    Comparison("gpt-oss, packed", "experts in MXFP4", "gpt-oss, packed", prepared=packed),
    Comparison("gpt-oss, token by token", "17 steps through the cache", "gpt-oss", run=STEPS),
    Comparison("gpt-oss, in chunks", "4, 9 and 4 tokens through the cache", "gpt-oss", run=CHUNKS),
    Comparison("gpt-oss, padded", TOGETHER, "gpt-oss", run=padded, reference=each_alone),
    Comparison("gpt2, token by token", "17 steps through the cache", "gpt2", run=STEPS),
    Comparison("gpt2, in chunks", "4, 9 and 4 tokens through the cache", "gpt2", run=CHUNKS),
    Comparison("gpt2, padded", TOGETHER, "gpt2", run=padded, reference=each_alone),
    Comparison("qwen3-moe, token by token", "17 steps through the cache", "qwen3-moe", run=STEPS),
    Comparison("qwen3-moe, in chunks", "4, 9 and 4 tokens through the cache", "qwen3-moe", run=CHUNKS),
    Comparison("qwen3-moe, padded", TOGETHER, "qwen3-moe", run=padded, reference=each_alone),
    Comparison("qwen3-moe, q and k in bf16", "transformers' rounded at the same places; by rms", "qwen3-moe",
               run=q_and_k_in_bf16, reference=q_and_k_rounded, apart=rms),
)}  # fmt: skip
