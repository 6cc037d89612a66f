"""What checkpoints call their tensors: one table a layout, for reading and for writing, so that both agree.

Each row says which of their tensors make which of ours, and in what form:

    same          as it is
    turned        transposed: GPT-2's Conv1D, and the experts of an unpacked gpt-oss
    joined        q, k, v one after another along the rows (turned as well in GPT-2)
    per expert    a tensor for each expert, stacked by us
    alternating   a gate and an up tensor for each expert; our rows alternate gate 0, up 0, gate 1, up 1, …

{n} is a layer, {e} an expert. Sources: the published checkpoints; the tables of transformers and
openai/gpt-oss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import Config

Tensors = list[Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """How their tensors become ours, given our shapes, and ours theirs. Both also work on the meta device."""

    read: Callable[[Tensors, list[Shape]], Tensors]
    write: Callable[[Tensors], Tensors]


def read_alternating(theirs: Tensors, shapes: list[Shape]) -> Tensors:
    """gate 0, up 0, gate 1, up 1, … (each F D, one pair an expert) → E 2F D with alternating rows."""
    stacked = theirs[0].new_empty(shapes[0])
    for e, (gate, up) in enumerate(zip(theirs[0::2], theirs[1::2])):
        stacked[e, 0::2], stacked[e, 1::2] = gate, up
    return [stacked]


SAME = Form(lambda theirs, shapes: theirs, lambda ours: ours)
TURNED = Form(lambda theirs, shapes: [t.mT for t in theirs], lambda ours: [t.mT for t in ours])
JOINED = Form(
    lambda theirs, shapes: list(theirs[0].split([s[0] for s in shapes])), lambda ours: [torch.cat(ours)]
)
JOINED_TURNED = Form(
    lambda theirs, shapes: list(theirs[0].mT.split([s[0] for s in shapes])), lambda ours: [torch.cat(ours).mT]
)
PER_EXPERT = Form(lambda theirs, shapes: [torch.stack(theirs)], lambda ours: list(ours[0].unbind()))
ALTERNATING = Form(
    read_alternating, lambda ours: [matrix[i::2] for matrix in ours[0].unbind() for i in (0, 1)]
)


@dataclass(frozen=True)
class Row:
    """Their tensors, ours, and the form between them."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    form: Form = SAME


def row(theirs: str, ours: str, form: Form = SAME) -> Row:
    """A row from names separated by spaces."""
    return Row(tuple(theirs.split()), tuple(ours.split()), form)


def both(theirs: str, ours: str, form: Form = SAME) -> list[Row]:
    """A weight, in its form, and its bias."""
    return [row(f"{theirs}.weight", f"{ours}.weight", form), row(f"{theirs}.bias", f"{ours}.bias")]


def packed(theirs: str, ours: str) -> Row:
    """MXFP4 blocks and their scales."""
    return row(f"{theirs}blocks {theirs}scales", f"{ours}blocks {ours}scales")


def within(theirs: str, ours: str, rows: list[Row]) -> tuple[Row, ...]:
    """Rows with a prefix on either side."""
    return tuple(
        replace(r, theirs=tuple(theirs + t for t in r.theirs), ours=tuple(ours + o for o in r.ours))
        for r in rows
    )


HUB_FRAME = (
    row("model.embed_tokens.weight", "token_embedding"),
    row("model.norm.weight", "norm.scale"),
    row("lm_head.weight", "unembed.weight"),
)

GPT_OSS = HUB_FRAME + within("model.layers.{n}.", "blocks.{n}.", [
    row("input_layernorm.weight", "attention.norm.scale"),
    *both("self_attn.q_proj", "attention.q"),
    *both("self_attn.k_proj", "attention.k"),
    *both("self_attn.v_proj", "attention.v"),
    *both("self_attn.o_proj", "attention.o"),
    row("self_attn.sinks", "attention.sinks"),
    row("post_attention_layernorm.weight", "experts.norm.scale"),
    *both("mlp.router", "experts.router"),
    row("mlp.experts.gate_up_proj", "experts.gate_up.weight", TURNED),
    packed("mlp.experts.gate_up_proj_", "experts.gate_up."),
    row("mlp.experts.gate_up_proj_bias", "experts.gate_up.bias"),
    row("mlp.experts.down_proj", "experts.down.weight", TURNED),
    packed("mlp.experts.down_proj_", "experts.down."),
    row("mlp.experts.down_proj_bias", "experts.down.bias"),
])  # fmt: skip

GPT_OSS_ORIGINAL = (
    row("embedding.weight", "token_embedding"),
    row("norm.scale", "norm.scale"),
    row("unembedding.weight", "unembed.weight"),
) + within("block.{n}.", "blocks.{n}.", [
    row("attn.norm.scale", "attention.norm.scale"),
    row("attn.qkv.weight", "attention.q.weight attention.k.weight attention.v.weight", JOINED),
    row("attn.qkv.bias", "attention.q.bias attention.k.bias attention.v.bias", JOINED),
    *both("attn.out", "attention.o"),
    row("attn.sinks", "attention.sinks"),
    row("mlp.norm.scale", "experts.norm.scale"),
    *both("mlp.gate", "experts.router"),
    packed("mlp.mlp1_weight.", "experts.gate_up."),
    row("mlp.mlp1_bias", "experts.gate_up.bias"),
    packed("mlp.mlp2_weight.", "experts.down."),
    row("mlp.mlp2_bias", "experts.down.bias"),
])  # fmt: skip

EXPERT = "mlp.experts.{e}."
QWEN3_MOE = HUB_FRAME + within("model.layers.{n}.", "blocks.{n}.", [
    row("input_layernorm.weight", "attention.norm.scale"),
    row("self_attn.q_proj.weight", "attention.q.weight"),
    row("self_attn.k_proj.weight", "attention.k.weight"),
    row("self_attn.v_proj.weight", "attention.v.weight"),
    row("self_attn.o_proj.weight", "attention.o.weight"),
    row("self_attn.q_norm.weight", "attention.q_norm.scale"),
    row("self_attn.k_norm.weight", "attention.k_norm.scale"),
    row("post_attention_layernorm.weight", "experts.norm.scale"),
    row("mlp.gate.weight", "experts.router.weight"),
    row(f"{EXPERT}gate_proj.weight {EXPERT}up_proj.weight", "experts.gate_up.weight", ALTERNATING),
    row(f"{EXPERT}down_proj.weight", "experts.down.weight", PER_EXPERT),
])  # fmt: skip

GPT2_BARE = (
    row("wte.weight", "token_embedding"),
    row("wpe.weight", "position_embedding"),
    row("ln_f.weight", "norm.scale"),
    row("ln_f.bias", "norm.bias"),
) + within("h.{n}.", "blocks.{n}.", [
    row("ln_1.weight", "attention.norm.scale"),
    row("ln_1.bias", "attention.norm.bias"),
    row("attn.c_attn.weight", "attention.q.weight attention.k.weight attention.v.weight", JOINED_TURNED),
    row("attn.c_attn.bias", "attention.q.bias attention.k.bias attention.v.bias", JOINED),
    *both("attn.c_proj", "attention.o", TURNED),
    row("ln_2.weight", "mlp.norm.scale"),
    row("ln_2.bias", "mlp.norm.bias"),
    *both("mlp.c_fc", "mlp.up", TURNED),
    *both("mlp.c_proj", "mlp.down", TURNED),
])  # fmt: skip

LM_HEAD = (row("lm_head.weight", "unembed.weight"),)
GPT2 = within("transformer.", "", list(GPT2_BARE)) + LM_HEAD
GPT2_BARE = GPT2_BARE + LM_HEAD

LAYOUTS: dict[str, tuple[Row, ...]] = {
    "gpt-oss": GPT_OSS,
    "gpt-oss original": GPT_OSS_ORIGINAL,
    "qwen3-moe": QWEN3_MOE,
    "gpt2": GPT2,
    "gpt2 bare": GPT2_BARE,
}

# GPT-2's causal mask and the −10000 under it, which older exports keep as buffers
IGNORED: dict[str, tuple[str, ...]] = {
    "gpt2": ("transformer.h.{n}.attn.bias", "transformer.h.{n}.attn.masked_bias"),
    "gpt2 bare": ("h.{n}.attn.bias", "h.{n}.attn.masked_bias"),
}


def expand(layout: str, config: Config) -> Iterator[Row]:
    """The layout's rows with every layer and expert written out."""
    for r in LAYOUTS[layout]:
        for n in range(config.n_layers) if "{n}" in r.ours[0] else (0,):
            theirs = tuple(
                name.format(n=n, e=e)
                for e in (range(config.n_experts or 0) if "{e}" in r.theirs[0] else (0,))
                for name in r.theirs
            )
            yield Row(theirs, tuple(name.format(n=n) for name in r.ours), r.form)


def rows(layout: str, config: Config, ours: Mapping[str, object]) -> list[Row]:
    """The rows that make `ours`; ValueError where the layout has no word for one of them."""
    found = [r for r in expand(layout, config) if all(name in ours for name in r.ours)]
    said = {name for r in found for name in r.ours}
    if unsaid := sorted(ours.keys() - said):
        raise ValueError(
            f"the layout {layout!r} has no names for {', '.join(unsaid[:4])} ({len(unsaid)} in all)"
        )
    return found


def ignored(layout: str, config: Config) -> set[str]:
    """Tensors that may be there and are not read."""
    return {name.format(n=n) for name in IGNORED.get(layout, ()) for n in range(config.n_layers)}


def to_theirs(found: list[Row], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under their names and in their form; on the meta device, what a checkpoint must hold."""
    return {name: t for r in found for name, t in zip(r.theirs, r.form.write([ours[o] for o in r.ours]))}
