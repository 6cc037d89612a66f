"""The catalogue of points: every value that a tap can show, with its axes, its meaning, and which models have
it.

Letters: B batch, T query tokens, S key tokens, D model width, V vocabulary, H query heads, G key/value heads,
C channels per head, E experts, K experts kept, F feed-forward width; T' the positions whose logits were asked
for. A test runs every family and requires exactly these names and axes.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .config import NAMED, Config


@dataclass(frozen=True)
class Point:
    """A named value: `name` with `blocks.N.` before what every block has; `axes` as letters; `missing` says
    why a model lacks it (None where it has it); `source` names the function in `model/` that makes it.
    """

    name: str
    axes: str
    meaning: str
    source: str
    missing: Callable[[Config], str | None] = lambda config: None
    dtype: str = "float32"

    def shape(
        self, config: Config, batch: int, queries: int, keys: int, last: int | None = None
    ) -> tuple[int, ...]:
        """The sizes of the axes, for a pass over `queries` tokens that see up to `keys` keys."""
        size = {"B": batch, "T": queries, "S": keys, "T'": queries if last is None else min(last, queries),
                "D": config.d_model, "V": config.vocab_size, "H": config.n_heads, "G": config.n_kv_heads,
                "C": config.d_head, "E": config.n_experts or 0, "K": config.experts_per_token,
                "F": config.d_ff}  # fmt: skip
        return tuple(size[axis] for axis in self.axes.split())


def learned(config: Config) -> str | None:
    """Only learned positions are an embedding of their own."""
    return (
        None
        if config.positions == "learned"
        else f"{config.name} has no learned positions; it turns q and k (RoPE)"
    )


def rope(config: Config) -> str | None:
    """Only RoPE turns q and k."""
    return (
        None
        if config.positions == "rope"
        else f"{config.name} has learned positions; see 'position_embedding'"
    )


def qk_norm(config: Config) -> str | None:
    """Only Qwen3 normalises q and k."""
    return None if config.qk_norm else f"{config.name} does not normalise q and k (Qwen3 does)"


def sinks(config: Config) -> str | None:
    """Only gpt-oss has sinks."""
    return None if config.sinks else f"{config.name} has no attention sinks"


def experts(config: Config) -> str | None:
    """A mixture of experts."""
    return (
        None
        if config.n_experts
        else f"{config.name} has one dense MLP a layer, no experts; see 'blocks.*.mlp.*'"
    )


def gated_experts(config: Config) -> str | None:
    """Experts with a gate."""
    no_gate = f"{config.name}'s experts have no gate ({config.activation}); see 'blocks.*.experts.pre'"
    return experts(config) or (None if config.gated else no_gate)


def plain_experts(config: Config) -> str | None:
    """Experts without a gate."""
    gated = f"{config.name}'s experts are gated; see 'blocks.*.experts.gate' and '.up'"
    return experts(config) or (gated if config.gated else None)


def mlp(config: Config) -> str | None:
    """A dense MLP."""
    return f"{config.name} has experts, no dense MLP; see 'blocks.*.experts.*'" if config.n_experts else None


def mlp_gated(config: Config) -> str | None:
    """A dense MLP with a gate."""
    no_gate = f"{config.name}'s MLP has no gate ({config.activation}); see 'blocks.*.mlp.pre'"
    return mlp(config) or (None if config.gated else no_gate)


def mlp_plain(config: Config) -> str | None:
    """A dense MLP without a gate."""
    gated = f"{config.name}'s MLP is gated; see 'blocks.*.mlp.gate' and '.up'" if config.gated else None
    return mlp(config) or gated


CATALOGUE: tuple[Point, ...] = (
    Point("token_embedding", "B T D", "each token's row of the embedding table", "Transformer.embed"),
    Point("position_embedding", "T D", "each position's learned row", "Transformer.embed", learned),
    Point("embedding", "B T D", "the residual that enters block 0", "Transformer.embed"),
    Point("blocks.N.attention.norm", "B T D", "the residual, normalised", "Attention"),
    Point("blocks.N.attention.q", "B T H C", "queries", "Attention"),
    Point("blocks.N.attention.k", "B T G C", "keys; H/G query heads share each", "Attention"),
    Point("blocks.N.attention.v", "B T G C", "values", "Attention"),
    Point("blocks.N.attention.q_normed", "B T H C", "queries after QK-norm", "Attention", qk_norm),
    Point("blocks.N.attention.k_normed", "B T G C", "keys after QK-norm", "Attention", qk_norm),
    Point("blocks.N.attention.q_rotated", "B T H C", "queries turned by their positions", "Attention", rope),
    Point("blocks.N.attention.k_rotated", "B T G C", "keys turned by their positions", "Attention", rope),
    Point("blocks.N.attention.visible", "B T S", "which keys a query may see", "Attention", dtype="bool"),
    Point("blocks.N.attention.sink_logit", "B H T", "the logit that joins the softmax", "Attention", sinks),
    Point("blocks.N.attention.scores", "B H T S", "q·k/√C, -inf where not visible", "attend"),
    Point("blocks.N.attention.pattern", "B H T S", "attention; rows sum to 1 - sink", "attend"),
    Point("blocks.N.attention.sink", "B H T", "the share that the sink takes (read-only)", "attend", sinks),
    Point("blocks.N.attention.mixed", "B T H C", "values averaged by the pattern", "Attention"),
    Point("blocks.N.attention.out", "B T D", "what attention adds to the residual", "Attention"),
    Point("blocks.N.residual_mid", "B T D", "the residual after attention", "Block"),
    Point("blocks.N.experts.norm", "B T D", "the residual, normalised", "Experts", experts),
    Point("blocks.N.experts.logits", "B T E", "the router's logits, before top-k", "Experts", experts),
    Point("blocks.N.experts.choice", "B T K", "the chosen experts, best first", "Experts", experts, "int64"),
    Point("blocks.N.experts.weight", "B T K", "softmax over the chosen logits", "Experts", experts),
    Point("blocks.N.experts.pre", "B T K F", "before the activation", "Experts.activated", plain_experts),
    Point("blocks.N.experts.gate", "B T K F", "gate, before the clamp", "Experts.activated", gated_experts),
    Point("blocks.N.experts.up", "B T K F", "up, before the clamp", "Experts.activated", gated_experts),
    Point("blocks.N.experts.act", "B T K F", "after the activation", "Experts.activated", experts),
    Point("blocks.N.experts.each", "B T K D", "each expert's answer, before its weight", "Experts", experts),
    Point("blocks.N.experts.out", "B T D", "what the experts add to the residual", "Experts", experts),
    Point("blocks.N.mlp.norm", "B T D", "the residual, normalised", "MLP", mlp),
    Point("blocks.N.mlp.pre", "B T F", "before the activation", "MLP", mlp_plain),
    Point("blocks.N.mlp.gate", "B T F", "the gate, before any clamp", "MLP", mlp_gated),
    Point("blocks.N.mlp.up", "B T F", "the up projection, before any clamp", "MLP", mlp_gated),
    Point("blocks.N.mlp.act", "B T F", "after the activation", "MLP", mlp),
    Point("blocks.N.mlp.out", "B T D", "what the MLP adds to the residual", "MLP", mlp),
    Point("blocks.N.residual", "B T D", "the residual that leaves the block", "Block"),
    Point("final_norm", "B T D", "the last residual, normalised", "Transformer.read_out"),
    Point("logits", "B T' V", "a score for every possible next token", "Transformer.read_out"),
)  # fmt: skip

READ_ONLY = ("attention.sink",)


def names(config: Config) -> dict[str, Point]:
    """Every full name that this model has, in the order in which a forward pass makes them."""
    has = [point for point in CATALOGUE if point.missing(config) is None]
    before = [p for p in has if p.name.endswith("embedding")]
    blocks = [p for p in has if p.name.startswith("blocks.N.")]
    after = [p for p in has if p.name in ("final_norm", "logits")]
    found = {p.name: p for p in before}
    for n in range(config.n_layers):
        found |= {p.name.replace("N", str(n), 1): p for p in blocks}
    return found | {p.name: p for p in after}


def match(patterns: str | Iterable[str], config: Config) -> list[str]:
    """The full names that a glob, or any of several, picks: "blocks.*.experts.*", "logits", "*" for all.

    ValueError for a pattern that picks nothing: why this model lacks the point, or the nearest name.
    """
    available = names(config)
    picked: set[str] = set()
    several = isinstance(patterns, Iterable) and not isinstance(patterns, str)
    for pattern in patterns if several else [patterns]:
        if not isinstance(pattern, str):
            raise ValueError(
                f"{pattern!r} is no name of a point; expected text such as 'blocks.*.experts.choice'"
            )
        found = fnmatch.filter(available, pattern)
        if not found:
            raise ValueError(why_nothing(pattern, config))
        picked.update(found)
    return [name for name in available if name in picked]


def why_nothing(pattern: str, config: Config) -> str:
    """Why `pattern` picks no point of this model: a layer too high, a point its family lacks, or a
    misspelling.
    """
    layer = re.match(r"blocks\.(\d+)(\.|$)", pattern)
    if layer and int(layer[1]) >= config.n_layers:
        top = config.n_layers - 1
        return f"no layer {layer[1]} in {config.name}: its layers are 0 to {top} (in {pattern!r})"
    for point in CATALOGUE:
        if fnmatch.fnmatchcase(point.name, general(pattern)) and point.missing(config):
            return f"no point {pattern!r}: {point.missing(config)}"
    if pattern in NAMED:
        return f"{pattern!r} is a model and no point; on the command line name it with --model {pattern}"
    return f"no point {pattern!r}. Did you mean {nearest(pattern, names(config))!r}?"


def general(name: str) -> str:
    """A full name or pattern with `blocks.N.` in place of its layer, as the catalogue writes it."""
    return re.sub(r"^blocks\.[^.]+\.", "blocks.N.", name)


def nearest(name: str, among: Iterable[str]) -> str | None:
    """The name that is spelled most like `name`, or None where there are none."""
    near = difflib.get_close_matches(name, list(among), n=1, cutoff=0.0)
    return near[0] if near else None


def axes(name: str) -> str:
    """The letters of a full name's axes."""
    return next(point.axes for point in CATALOGUE if point.name == general(name))


ITEM_BYTES = {"float32": 4, "int64": 8, "bool": 1}


def trace_bytes(
    kept: Iterable[str], config: Config, batch: int, queries: int, keys: int, last: int | None = None
) -> dict[str, int]:
    """Bytes that each of `kept` (full names) takes in a trace, computed from the axes alone."""
    available = names(config)
    sizes = {}
    for name in kept:
        point, items = available[name], 1
        for size in point.shape(config, batch, queries, keys, last):
            items *= size
        sizes[name] = items * ITEM_BYTES[point.dtype]
    return sizes
