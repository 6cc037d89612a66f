"""What distinguishes GPT-2, gpt-oss and Qwen3-MoE: one frozen dataclass, and a value of it for every known
model.

GPT-2 (2019) and gpt-oss (2025) are two values of `Config`; the road between them is `dataclasses.replace`,
one field at a time. A config is checked once, when it is made, and says what is wrong with it.

Sources: the published config.json of each model; "Attention Is All You Need" for the words.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

CHOICES = {
    "family": ("gpt2", "gpt-oss", "qwen3-moe"),
    "norm": ("layer", "rms"),
    "positions": ("learned", "rope"),
    "activation": ("gelu", "silu", "swiglu", "clamped_swiglu"),
    "stored": ("float32", "bfloat16"),
    "stored_experts": ("same", "mxfp4"),
}
LARGEST = 2**31 - 1  # keys of a window: no position is as large, and torch can still count them


@dataclass(frozen=True)
class Yarn:
    """YaRN: RoPE stretched by `factor` beyond `original_context` (arXiv 2309.00071).

    Pairs that turn more than `beta_fast` times within the original context keep their frequency, those that
    turn less than `beta_slow` times are slowed by `factor`, and a ramp joins the two. gpt-oss does not round
    the ramp's ends.
    """

    factor: float = 32.0
    original_context: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    rounded: bool = False

    def __post_init__(self) -> None:
        if not (self.factor >= 1 and self.original_context > 0 and self.beta_fast > self.beta_slow > 0):
            raise ValueError(
                f"{self} is not a stretch: factor >= 1, original_context > 0, beta_fast > beta_slow > 0"
            )


@dataclass(frozen=True)
class Config:
    """Everything that decides what a Transformer computes, and how its checkpoint is stored. Sizes are
    counts.

    `n_experts` None means one dense MLP of width `d_ff`; otherwise each expert has width `d_ff` and
    `experts_per_token` of them answer. `window` counts the query itself (gpt-oss: 128) and holds in
    `windowed_layers`: "even", "odd", "all", or a tuple of layer numbers. `bias` stands for every bias at
    once: gpt-oss and GPT-2 have them all, Qwen3 has none (LayerNorm always has its own). `vocab_used`: ids
    from there on stand for nothing and are never sampled.

    Raises ValueError, with the field's name, where values contradict each other.
    """

    name: str
    family: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ff: int
    vocab_size: int
    context: int
    norm: str = "rms"
    norm_eps: float = 1e-5
    positions: str = "rope"
    rope_theta: float = 150000.0
    yarn: Yarn | None = None
    qk_norm: bool = False
    window: int | None = None
    windowed_layers: str | tuple[int, ...] = "even"
    sinks: bool = False
    bias: bool = True
    activation: str = "clamped_swiglu"
    swiglu_limit: float = 7.0
    swiglu_alpha: float = 1.702
    n_experts: int | None = None
    experts_per_token: int = 1
    tied: bool = False
    dropout: float = 0.0
    vocab_used: int | None = None
    stop_ids: tuple[int, ...] = ()
    stored: str = "bfloat16"
    stored_experts: str = "same"

    def __post_init__(self) -> None:
        for field, allowed in CHOICES.items():
            require(
                getattr(self, field) in allowed,
                f"{field}={getattr(self, field)!r}; expected one of {allowed}",
            )
        for field in (
            "n_layers",
            "d_model",
            "n_heads",
            "n_kv_heads",
            "d_head",
            "d_ff",
            "vocab_size",
            "context",
        ):
            size = getattr(self, field)
            require(is_whole(size) and size > 0, f"{field}={size!r}; expected a positive whole number")
        for field in ("experts_per_token", "n_experts", "window", "vocab_used"):
            size = getattr(self, field)
            unsaid = size is None and field != "experts_per_token"
            require(unsaid or is_whole(size), f"{field}={size!r}; expected a whole number")
        for field in ("norm_eps", "rope_theta", "dropout"):
            require(isinstance(getattr(self, field), int | float), f"{field}={getattr(self, field)!r}; "
                    "expected a number")  # fmt: skip
        require(
            isinstance(self.stop_ids, tuple) and all(is_whole(one) for one in self.stop_ids),
            f"stop_ids={self.stop_ids!r}; expected whole numbers in a tuple",
        )
        require(
            1 < self.rope_theta < math.inf,
            f"rope_theta={self.rope_theta}; expected above 1: RoPE's pairs turn ever slower",
        )
        require(
            self.n_heads % self.n_kv_heads == 0,
            f"n_heads={self.n_heads} is no multiple of n_kv_heads={self.n_kv_heads}; heads share evenly",
        )
        require(
            self.positions == "learned" or self.d_head % 2 == 0,
            f"d_head={self.d_head} is odd; RoPE turns channels in pairs",
        )
        require(self.yarn is None or isinstance(self.yarn, Yarn), f"yarn={self.yarn!r}; expected Yarn(...)")
        require(self.yarn is None or self.positions == "rope", "yarn stretches RoPE, but positions='learned'")
        require(
            self.window is None or 0 < self.window <= LARGEST,
            f"window={self.window}; expected at least 1 (the query itself), at most {LARGEST}",
        )
        named = self.windowed_layers in ("even", "odd", "all")
        require(
            named
            or isinstance(self.windowed_layers, tuple)
            and all(is_whole(n) and 0 <= n < self.n_layers for n in self.windowed_layers),
            f"windowed_layers={self.windowed_layers!r}; expected even, odd, all or layers in a tuple",
        )
        if self.n_experts is not None:
            require(
                1 <= self.experts_per_token <= self.n_experts,
                f"experts_per_token={self.experts_per_token}; expected 1 to n_experts={self.n_experts}",
            )
        require(
            self.stored_experts == "same" or self.n_experts is not None,
            "stored_experts='mxfp4' needs n_experts",
        )
        require(
            self.stored_experts == "same" or self.d_model % 32 == self.d_ff % 32 == 0,
            f"MXFP4 packs blocks of 32: d_model={self.d_model} and d_ff={self.d_ff} must be multiples of 32",
        )
        require(0 <= self.dropout < 1, f"dropout={self.dropout}; expected 0 <= dropout < 1")
        require(
            self.norm_eps > 0 and math.isfinite(self.norm_eps), f"norm_eps={self.norm_eps}; expected above 0"
        )
        require(
            self.vocab_used is None or 0 < self.vocab_used <= self.vocab_size,
            f"vocab_used={self.vocab_used}; expected 1 to vocab_size={self.vocab_size}",
        )

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The window of each layer, None where the layer is dense."""
        every = range(self.n_layers)
        picked = {"even": every[::2], "odd": every[1::2], "all": every}
        pattern = self.windowed_layers
        layers = picked[pattern] if isinstance(pattern, str) else pattern
        return tuple(self.window if n in layers else None for n in range(self.n_layers))

    @property
    def gated(self) -> bool:
        """Whether the feed-forward part multiplies a gate with an up projection."""
        return self.activation in ("swiglu", "clamped_swiglu")

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Config:
        """The config that JSON keeps as its fields, with lists for tuples. ValueError for what is none."""
        made: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in described.items()}
        try:
            return cls(**made | {"yarn": Yarn(**made["yarn"]) if made.get("yarn") else None})
        except TypeError as error:  # a field that there is not, or one that lacks
            raise ValueError(f"these are not the fields of a config: {error}") from error

    def with_changes(self, **changes: object) -> Config:
        """This config with fields replaced; an unknown field is refused by name."""
        known = [f.name for f in fields(self)]
        for field in changes:
            require(field in known, f"no config field {field!r}; the fields are {', '.join(known)}")
        return replace(self, **changes)  # type: ignore[arg-type]


def differing(config: Config, other: Config, aside: Collection[str] = ()) -> list[str]:
    """The fields, without those `aside`, in which two configs differ, in the order of `Config`."""
    names = [f.name for f in fields(Config) if f.name not in aside]
    return [name for name in names if getattr(config, name) != getattr(other, name)]


def is_whole(value: object) -> bool:
    """Whether this is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def require(true: bool, message: str) -> None:
    """Raise ValueError(message) unless `true`."""
    if not true:
        raise ValueError(message)


def gpt2(name: str, n_layers: int, d_model: int) -> Config:
    """GPT-2 at one of its four sizes (Radford et al. 2019): heads of 64, MLP four times the width."""
    return Config(
        name=name, family="gpt2", n_layers=n_layers, d_model=d_model, n_heads=d_model // 64,
        n_kv_heads=d_model // 64, d_head=64, d_ff=4 * d_model, vocab_size=50257, context=1024, norm="layer",
        positions="learned", activation="gelu", tied=True, dropout=0.1, stop_ids=(50256,), stored="float32",
    )  # fmt: skip


def gpt_oss(name: str, n_layers: int, n_experts: int) -> Config:
    """gpt-oss at one of its two sizes (arXiv 2508.10925): they differ in layers and experts alone."""
    return Config(
        name=name, family="gpt-oss", n_layers=n_layers, d_model=2880, n_heads=64, n_kv_heads=8, d_head=64,
        d_ff=2880, vocab_size=201088, context=131072, rope_theta=150000.0, yarn=Yarn(), window=128,
        sinks=True, n_experts=n_experts, experts_per_token=4, vocab_used=200019,
        stop_ids=(200002, 199999, 200012), stored_experts="mxfp4",
    )  # fmt: skip


def qwen3_moe(name: str, n_layers: int, d_model: int, n_heads: int, d_ff: int) -> Config:
    """Qwen3's mixtures of experts (arXiv 2505.09388): QK-norm, 128 experts, no windows, no biases."""
    return Config(
        name=name, family="qwen3-moe", n_layers=n_layers, d_model=d_model, n_heads=n_heads, n_kv_heads=4,
        d_head=128, d_ff=d_ff, vocab_size=151936, context=40960, norm_eps=1e-6, rope_theta=1e6, qk_norm=True,
        bias=False, activation="swiglu", n_experts=128, experts_per_token=8, vocab_used=151669,
        stop_ids=(151645, 151643),
    )  # fmt: skip


NAMED: dict[str, Config] = {
    config.name: config
    for config in (
        gpt_oss("gpt-oss-20b", n_layers=24, n_experts=32),
        gpt_oss("gpt-oss-120b", n_layers=36, n_experts=128),
        gpt2("gpt2", n_layers=12, d_model=768),
        gpt2("gpt2-medium", n_layers=24, d_model=1024),
        gpt2("gpt2-large", n_layers=36, d_model=1280),
        gpt2("gpt2-xl", n_layers=48, d_model=1600),
        qwen3_moe("qwen3-30b-a3b", n_layers=48, d_model=2048, n_heads=32, d_ff=768),
        qwen3_moe("qwen3-235b-a22b", n_layers=94, d_model=4096, n_heads=64, d_ff=1536),
    )
}
