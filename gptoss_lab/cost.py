"""What a model costs, from its config alone: parameters, bytes on disk, bytes and FLOP a token, memory.

One table of weights, `weights(config)`, carries all of it. Checked to the last digit against the published
sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from .config import Config

MXFP4_BYTES = Fraction(17, 32)  # 16 bytes of nibbles and one scale for 32 weights

PROGRAM_BYTES = 450_000_000  # Python with torch and numba: 0.42 GB where it was measured (Linux, torch 2.13)
SCORES = 1 << 22  # of attention's scores, what fast kernels hold at a time
GATHERED = 4  # tokens up to which the matrices of all their experts are unpacked together (Experts.few)


@dataclass(frozen=True)
class Weight:
    """One weight of one layer: its `part` of the model, its number of values, and how much of it a token
    uses.
    """

    part: str  # embedding, attention, router, experts, mlp, norm, unembedding
    count: int
    item_bytes: Fraction
    used: Fraction = Fraction(1)


def weights(config: Config) -> Iterator[Weight]:
    """Every weight of the model, in order; tied embeddings are counted once, as the unembedding."""
    D, C, F, bias = config.d_model, config.d_head, config.d_ff, int(config.bias)
    plain = Fraction({"float32": 4, "bfloat16": 2}[config.stored])
    norm = D * (2 if config.norm == "layer" else 1)
    yield Weight("embedding", 0 if config.tied else config.vocab_size * D, plain, used=Fraction(0))
    if config.positions == "learned":
        yield Weight("embedding", config.context * D, plain)
    for _ in range(config.n_layers):
        q, kv = config.n_heads * C, config.n_kv_heads * C
        yield Weight("norm", 2 * norm, plain)
        yield Weight("attention", D * (q + 2 * kv) + q * D + bias * (q + 2 * kv + D), plain)
        yield Weight("attention", config.n_heads * config.sinks + 2 * C * config.qk_norm, plain)
        into, out = F * (2 if config.gated else 1), D
        if config.n_experts:
            E, used = config.n_experts, Fraction(config.experts_per_token, config.n_experts)
            packed = MXFP4_BYTES if config.stored_experts == "mxfp4" else plain
            yield Weight("router", E * D + bias * E, plain)
            yield Weight("experts", E * (D * into + F * out), packed, used)
            yield Weight("experts", bias * E * (into + out), plain, used)
        else:
            yield Weight("mlp", D * into + F * out + bias * (into + out), plain)
    yield Weight("norm", norm, plain)
    yield Weight("unembedding", config.vocab_size * D, plain)


def parameters(config: Config) -> int:
    """How many numbers the model has learned."""
    return sum(w.count for w in weights(config))


def active_parameters(config: Config) -> int:
    """How many of them one token is multiplied with: the chosen experts alone, and no embedding table (a row
    is looked up).

    GPT-2's table is its unembedding too, so all of GPT-2 is active.
    """
    return int(sum(w.count * w.used for w in weights(config)))


def checkpoint_bytes(config: Config) -> int:
    """Bytes of the weights as published (gpt-oss: experts in MXFP4, the rest bf16); GPT-2 float32."""
    return int(sum(w.count * w.item_bytes for w in weights(config)))


def bytes_by_part(config: Config) -> dict[str, int]:
    """`checkpoint_bytes`, part by part."""
    parts: dict[str, Fraction] = {}
    for w in weights(config):
        parts[w.part] = parts.get(w.part, Fraction(0)) + w.count * w.item_bytes
    return {part: int(size) for part, size in parts.items()}


def bytes_per_token(config: Config) -> dict[str, int]:
    """Weight bytes that decoding one token reads, part by part (as stored; the cache comes on top)."""
    parts: dict[str, Fraction] = {}
    for w in weights(config):
        parts[w.part] = parts.get(w.part, Fraction(0)) + w.count * w.item_bytes * w.used
    return {part: int(size) for part, size in parts.items()}


def cache_bytes(config: Config, tokens: int, item_bytes: int = 2) -> int:
    """Bytes of keys and values after `tokens` tokens; windowed layers keep their window alone."""
    per_token = 2 * config.n_kv_heads * config.d_head * item_bytes
    return sum(min(tokens, window or tokens) * per_token for window in config.windows)


def flop_per_token(config: Config, context: int) -> int:
    """FLOP to process one token that sees `context` tokens: two per active weight, four per channel and
    visible key.
    """
    seen = sum(min(context, window or context) for window in config.windows)
    return 2 * active_parameters(config) + 4 * config.n_heads * config.d_head * seen


def work_bytes(config: Config, tokens: int, keys: int, widened: bool = False, fast: bool = False) -> int:
    """Bytes that a pass over `tokens` tokens, which see `keys`, takes at its peak, beside weights and cache.

    widened: matrices that are not stored in float32 are brought to it to multiply, as exact kernels do. fast:
    attention holds SCORES at a time, as fast kernels let it, in place of the explicit form's whole pattern.
    From the shapes, all float32, logits of the last position alone; an upper bound.
    """
    T, S, D, C, F = tokens, keys, config.d_model, config.d_head, config.d_ff
    heads, kv = config.n_heads * C, config.n_kv_heads * C
    into = F * (2 if config.gated else 1)
    projected = T * 3 * (heads + 2 * kv)  # q, k, v, before and after rotation
    if fast:  # a part's scores, one query's at least; the mask, a banded layer's distances; the answer
        part = max(min(SCORES, T * config.n_heads * S), config.n_heads * S)
        distances = 2 * T * min(S, T + (config.window or 0)) * (config.window is not None)
        attention = projected + part + part // 4 + T * S + distances + 3 * T * heads + 2 * S * kv
    else:  # k, v per head; scores, with the sink, their softmax, its mask
        attention = projected + 3 * S * heads + 5 * T * config.n_heads * (S + 1)
    rows = T * (config.experts_per_token or 1)
    feed_forward = rows * (3 * D + 5 * into)  # gate and up: together, apart, clamped, through the sigmoid
    values = 5 * T * D + max(attention, feed_forward) + 5 * config.vocab_size
    matrices = [config.vocab_size * D, D * heads]
    if config.n_experts:
        together = rows if T <= GATHERED else 1
        matrices.append(2 * together * into * D)  # values, and the indices by which they are looked up
    tile = 1000 * max(D, F, heads)  # fast kernels unpack some rows at a time
    return 4 * (values + (max(matrices) if widened else min(tile, max(matrices))))


def widens(config: Config, fast: bool) -> bool:
    """Whether matrices that are held as stored are brought to float32 to multiply."""
    packed = config.stored_experts == "mxfp4"
    if fast:  # fast kernels read MXFP4 and bfloat16, but not experts in bfloat16
        return config.stored != "float32" and bool(config.n_experts) and not packed
    return config.stored != "float32" or packed


def memory_parts(
    config: Config, held: Mapping[str, int], context: int, tokens: int, widened: bool, fast: bool = False
) -> dict[str, int]:
    """What running a model takes, in bytes: its weights as `held`, the cache of `context` tokens, the work of
    a pass over `tokens` of them, and the program. See `work_bytes`.
    """
    return {
        **held,
        f"cache of {context} token{'s' * (context > 1)}": cache_bytes(config, context, item_bytes=4),
        f"work on {tokens}": work_bytes(config, tokens, context, widened, fast),
        "the program": PROGRAM_BYTES,
    }


def require_limit(limit: object) -> float:
    """A memory limit in bytes; ValueError for what is none."""
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        raise ValueError(f"memory_limit={limit!r}; expected bytes, as 16e9")
    return limit


def require_memory(name: str, parts: Mapping[str, int], limit: float, way_on: str) -> None:
    """ValueError with the arithmetic where `parts` are more than `limit` bytes together."""
    total = sum(parts.values())
    if total > limit:
        sums = ", ".join(f"{what} {human(size)}" for what, size in parts.items())
        raise ValueError(f"{name} takes {human(total)} ({sums}); memory_limit is {human(limit)}. {way_on}")


def human(size: float, unit: str = "B") -> str:
    """A size for people: 13.8 GB, 195.0 MB, 512 B (powers of 1000)."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(size) < 1000 or prefix == "T":
            return f"{size:.0f} {unit}" if not prefix else f"{size:.1f} {prefix}{unit}"
        size /= 1000
    raise AssertionError


def table(config: Config, context: int = 8192) -> str:
    """The figures of one model as lines of text, for the command line."""
    token = bytes_per_token(config)
    parts = ", ".join(f"{part} {human(size)}" for part, size in token.items() if size)
    rows = [
        ("parameters", f"{parameters(config):,}"),
        ("active per token", f"{active_parameters(config):,}"),
        ("checkpoint", f"{checkpoint_bytes(config):,} bytes ({human(checkpoint_bytes(config))})"),
        ("read per token", f"{human(sum(token.values()))} ({parts})"),
        (
            "work per token",
            f"{human(flop_per_token(config, context), 'FLOP')} at {context:,} tokens of context",
        ),
        ("cache, bf16", f"{human(cache_bytes(config, context))} at {context:,} tokens"),
    ]
    if config.window:
        dense = cache_bytes(config.with_changes(window=None), context)
        rows.append(("", f"{human(dense)} if no layer had its window of {config.window}"))
    return "\n".join(f"{name:<18}{value}" for name, value in [("model", config.name), *rows])
