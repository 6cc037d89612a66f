"""What a model costs, from its config alone: parameters, bytes on disk, bytes and FLOP a token, memory.

One table of weights, `weights(config)`, carries all of it. Checked to the last digit against the published
sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from . import points
from .config import Config

MXFP4_BYTES = Fraction(17, 32)  # 16 bytes of nibbles and one scale for 32 weights

PROGRAM_BYTES = 450_000_000  # Python with torch and numba: 0.42 GB where it was measured (Linux, torch 2.13)
DRIVER_BYTES = 800_000_000  # set aside on a device for its driver, libraries and torch's spare: a guess
PASS = 512  # prompt tokens that go through the model at once
PASS_BYTES = 1_000_000_000  # of a device's memory that such a pass may work in, where fewer tokens help
UNHALVED = ("embedding", "norm", "router")  # stay as stored where products are float16
SMALL = 1_000_000_000  # bytes as float32 up to which load(dtype=None) means float32
CARDS = (6, 8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 192)  # GB that cards have
SCORES = 1 << 22  # of attention's scores, what fast kernels hold at a time
GATHERED = 4  # tokens up to which the matrices of all their experts are gathered (Experts.few)
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


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


def work_bytes(
    config: Config, tokens: int, keys: int, widened: bool = False, products: str = "float32",
    fast: bool = False,
) -> int:  # fmt: skip
    """Bytes that a pass over `tokens` tokens, which see `keys`, takes at its peak, beside weights and cache.

    widened: matrices that are not stored in the precision of products are brought to it, as exact kernels do;
    packed experts alone are where products are not float32. fast: attention holds SCORES at a time, as fast
    kernels do at most (compiled ones hold none), in place of the explicit form's whole pattern. From the
    shapes, all float32, logits of the last position alone; an upper bound.
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
    matrices = [4 * config.vocab_size * D, 4 * D * heads] if products == "float32" else [0]
    if config.n_experts:
        one_by_one = widened and config.stored_experts == "mxfp4" and T > 1
        together = rows if T <= GATHERED and not one_by_one else 1
        looked_up = ITEM_BYTES[products] + 4  # bytes of a value, and of that by which it is looked up
        matrices.append(looked_up * together * into * D)
    tile = 4000 * max(D, F, heads)  # fast kernels unpack some rows at a time
    return 4 * values + (max(matrices) if widened else min(tile, max(matrices)))


def pass_tokens(config: Config, context: int, products: str = "float32") -> int:
    """How many tokens of a prompt go through a device at once: PASS, or fewer (at least 8) where their scores
    over `context` tokens would take more than PASS_BYTES.
    """
    tokens = PASS
    while tokens > 8 and work_bytes(config, tokens, context, products=products) > PASS_BYTES:
        tokens //= 2
    return tokens


def widens(config: Config, fast: bool) -> bool:
    """Whether matrices that are held as stored are brought to float32 to multiply."""
    packed = config.stored_experts == "mxfp4"
    if fast:  # fast kernels read MXFP4 and bfloat16, but not experts in bfloat16
        return config.stored != "float32" and bool(config.n_experts) and not packed
    return config.stored != "float32" or packed


def memory_parts(
    config: Config, held: Mapping[str, int], context: int, tokens: int, widened: bool, kind: str = "cpu",
    products: str = "float32", fast: bool = False,
) -> dict[str, int]:  # fmt: skip
    """What running a model takes of a kind of device, in bytes: its weights as `held`, the cache of `context`
    tokens, the work of a pass over `tokens` of them, and the program, or the driver. See `work_bytes`.
    """
    program = {"the program": PROGRAM_BYTES} if kind == "cpu" else {"the driver, a guess": DRIVER_BYTES}
    cached = cache_bytes(config, context, 2 if products == "bfloat16" else 4)  # as they come from products
    passes = (tokens, 1)  # 1: decoding
    work = max(work_bytes(config, now, context, widened, products, fast) for now in passes)
    return {
        **held,
        f"cache of {context:,} token{'s' * (context > 1)}": cached,
        f"work on {tokens}": work,
        **program,
    }


def held_bytes(config: Config, products: str, table: bool = True) -> int:
    """Bytes of the weights as `load` holds them for these products, with the embedding `table` or without."""

    def item(w: Weight) -> Fraction:
        if 4 * parameters(config) <= SMALL:
            return Fraction(4)
        if w.item_bytes < 1 or products == "float32" or (products == "float16" and w.part in UNHALVED):
            return w.item_bytes
        return 2 + w.item_bytes * (products == "float16" and config.tied and w.part == "unembedding")

    return int(sum(w.count * item(w) for w in weights(config) if table or w.part != "embedding"))


def device_figures(
    config: Config, kind: str, context: int, products: str, table: bool, fast: bool
) -> dict[str, Any]:
    """What a model takes of a kind of device, in bytes, part by part and together.

    products: the precision; table: the embedding lies there too; fast: kernels multiply weights as stored.
    """
    small = 4 * parameters(config) <= SMALL
    products = "float32" if small else products
    widened = not small and widens(config, fast)
    tokens = min(context, PASS if kind == "cpu" else pass_tokens(config, context, products))
    held = {"weights" if table else "weights but the embedding": held_bytes(config, products, table)}
    parts = memory_parts(config, held, context, tokens, widened, kind, products, fast and kind == "cpu")
    told = {"products": products, "tokens_a_pass": tokens, "bytes": parts}
    return told | {"bytes_together": sum(parts.values())}


def device_table(kind: str, told: Mapping[str, Any]) -> str:
    """`device_figures` as lines of text."""
    total = told["bytes_together"]
    rows = [(f"on {kind}", f"products in {told['products']}, prompts {told['tokens_a_pass']} tokens a pass")]
    rows += [(f"  {what}", human(size)) for what, size in told["bytes"].items()]
    rows.append(("  together", f"{total:,} bytes at most ({human(total)})"))
    if kind == "cuda":
        fits = next((f"from {size} GB on, {human(size * 1e9 - total)} to spare there" for size in CARDS
                     if size * 10**9 >= total), "none")  # fmt: skip
        rows.append(("  cards", fits))
    width = max(18, *(len(name) + 2 for name, _ in rows))
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows)


def require_limit(limit: object, name: str = "memory_limit") -> float:
    """A limit in bytes; ValueError, with its name, for what is none."""
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        raise ValueError(f"{name}={limit!r}; expected bytes, as 16e9")
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


SHARES = {  # of a trace: what is often kept, by name
    "attention patterns": ("attention.pattern",),
    "residuals": ("embedding", "residual_mid", "residual"),
    "routers": ("experts.logits", "experts.choice", "experts.weight"),
    "logits": ("logits",),
}


def trace_shares(config: Config, tokens: int) -> dict[str, int]:
    """Bytes of a trace of every point over `tokens` tokens of one text, and of what is often kept of it."""
    sizes = points.trace_bytes(points.names(config), config, 1, tokens, tokens)
    shares = {"everything": sum(sizes.values())}
    for share, names in SHARES.items():
        size = sum(size for point, size in sizes.items() if point.split(".", 2)[-1] in names)
        shares |= {share: size} if size else {}
    return shares


def figures(config: Config, context: int = 8192) -> dict[str, Any]:
    """The figures of one model as JSON has them, sizes in bytes; for the model's own context where that is
    less.
    """
    context = min(context, config.context)
    told = {
        "model": config.name,
        "context": context,
        "parameters": parameters(config),
        "active_parameters": active_parameters(config),
        "checkpoint_bytes": checkpoint_bytes(config),
        "checkpoint_bytes_by_part": bytes_by_part(config),
        "bytes_per_token": sum(bytes_per_token(config).values()),
        "bytes_per_token_by_part": bytes_per_token(config),
        "flop_per_token": flop_per_token(config, context),
        "cache_bytes": {"bfloat16": cache_bytes(config, context), "float32": cache_bytes(config, context, 4)},
        "cache_bytes_without_windows": cache_bytes(config.with_changes(window=None), context),
        "trace_bytes": trace_shares(config, context),
    }
    return told


def table(config: Config, context: int = 8192) -> str:
    """The figures of one model as lines of text, for the command line."""
    told = figures(config, context)
    at, cache = f"at {told['context']:,} tokens", told["cache_bytes"]
    token = told["bytes_per_token_by_part"]
    parts = ", ".join(f"{part} {human(size)}" for part, size in token.items() if size)
    everything, *shares = told["trace_bytes"].items()
    rows = [
        ("parameters", f"{told['parameters']:,}"),
        ("active per token", f"{told['active_parameters']:,}"),
        ("checkpoint", f"{told['checkpoint_bytes']:,} bytes ({human(told['checkpoint_bytes'])})"),
        ("read per token", f"{human(told['bytes_per_token'])} ({parts})"),
        ("work per token", f"{human(told['flop_per_token'], 'FLOP')} {at} of context"),
        ("cache, bf16", f"{human(cache['bfloat16'])} {at}; in float32 {human(cache['float32'])}"),
    ]
    if config.window:
        dense = told["cache_bytes_without_windows"]
        rows.append(("", f"{human(dense)} in bf16 if no layer had its window of {config.window}"))
    rows.append(("trace, all points", f"{human(everything[1])} {at}"))
    rows.append(("", ", ".join(f"{share} {human(size)}" for share, size in shares)))
    return "\n".join(f"{name:<18}{value}" for name, value in [("model", config.name), *rows])
