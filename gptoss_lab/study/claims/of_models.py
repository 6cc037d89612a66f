"""Claims 7 to 10: what a model takes, and how it stands beside others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...config import NAMED, Config
from ...cost import active_parameters, bytes_per_token, cache_bytes, checkpoint_bytes, human, parameters
from ...training import shapes
from ...training.ladder import READ, multiplied
from . import formulas
from .of_runs import part
from .parts import FALSE, HOLDS, PARTLY, UNSEEN, UNTESTABLE, Claim, Part, table

OSS, LARGE = NAMED["gpt-oss-20b"], NAMED["gpt-oss-120b"]
QWEN, QWEN_LARGE = NAMED["qwen3-30b-a3b"], NAMED["qwen3-235b-a22b"]
GB = 10**9


def claims(runs: Mapping[str, Any]) -> tuple[Claim, ...]:
    """The four, from configs; what a shape learns from the results of training runs."""
    return (
        Claim(7, "20.9 G parameters in 16 GB, 116.8 G in 80 GB", (fits(OSS, 16), fits(LARGE, 80))),
        Claim(8, "Qwen3-30B-A3B beside gpt-oss-20b", qwen(runs)),
        Claim(9, "Qwen3-235B beside gpt-oss-20b", (ten_times(),)),
        Claim(10, "Benchmarks", (benchmarks(),)),
    )


def fits(config: Config, gigabytes: int) -> Part:
    """Whether a model fits."""
    plain = config.with_changes(stored_experts="same")
    size, limit = checkpoint_bytes(config), gigabytes * GB
    most, whole_context = formulas.longest(config, limit), size + cache_bytes(config, config.context)
    rows = [
        ["parameters", f"{parameters(config):,}"],
        ["bytes of the weights as published (experts in MXFP4, the rest bfloat16)", f"{size:,}"],
        ["bytes of the weights, all in bfloat16", f"{checkpoint_bytes(plain):,}"],
        [f"bytes of the published weights and the cache of {config.context:,} tokens", f"{whole_context:,}"],
        [f"tokens whose cache fits beside the weights in {gigabytes} · 10⁹ bytes", f"{most:,}"],
    ]
    room = "with the whole context" if most == config.context else f"with {most:,} tokens of context"
    units = "" if most == config.context else (
        f" In {gigabytes} GiB it would be {formulas.longest(config, gigabytes * 2**30):,}."
    )
    return Part(
        f"{config.name}'s {parameters(config) / 1e9:.1f} G parameters fit in {gigabytes} GB",
        HOLDS if most == config.context else PARTLY,
        f"{table(['', config.name], rows)}\n\nFrom the config; the cache in bfloat16. The size of the "
        "published 20b checkpoint is met to the byte by the same table. What a program needs besides "
        "(activations, its own buffers, the system) was not measured: the published weights were not at "
        "hand. “Holds” asks that the cache of the whole context fits beside the weights.",
        f"The weights fit in MXFP4 ({human(size)}), {room}, and in bfloat16 they do not.{units}",
    )  # fmt: skip


def qwen(runs: Mapping[str, Any]) -> tuple[Part, ...]:
    """Claim 8."""
    small, large = (shapes.shape(name) for name in shapes.NAMES)
    lines: dict[str, Callable[[Config], object]] = {
        "layers, width": lambda c: f"{c.n_layers}, {c.d_model:,}",
        "query / key-value heads, channels": lambda c: f"{c.n_heads} / {c.n_kv_heads}, {c.d_head}",
        "experts, of which answer": lambda c: f"{c.n_experts}, {c.experts_per_token}",
        "an expert's width": lambda c: f"{c.d_ff:,}",
        "parameters": lambda c: f"{parameters(c):,}",
        "active a token": lambda c: f"{active_parameters(c):,}",
        "checkpoint, bytes": lambda c: f"{checkpoint_bytes(c):,}",
        "weights read to decode a token, bytes": lambda c: f"{sum(bytes_per_token(c).values()):,}",
        "cache at 1,024 tokens, bytes": lambda c: f"{cache_bytes(c, 1024):,}",
        "cache at 32,768 tokens, bytes": lambda c: f"{cache_bytes(c, 32768):,}",
    }
    rows = [[name, str(line(QWEN)), str(line(OSS))] for name, line in lines.items()]
    at = formulas.beside(OSS, QWEN)
    miniatures = ("Both are ten thousand times smaller than the published models, over bytes, both "
                  "with six layers: this says nothing about Qwen3 or gpt-oss, which also read other text, "
                  "and more of it.")  # fmt: skip
    return (
        Part(
            "Qwen3-30B-A3B has 128 experts and 32 / 4 heads, gpt-oss-20b 32 experts and 64 / 8", HOLDS,
            f"{table(['', QWEN.name, OSS.name], rows)}\n\nFrom the configs; the cache in bfloat16.",
            f"Many small experts (8 of 128, each {QWEN.d_ff} wide) against fewer large ones (4 of 32, each "
            f"{OSS.d_ff:,} wide). Qwen3 has {at.total:.2f} times the parameters and works with "
            f"{at.active:.2f} times as many on a token; it keeps fewer key/value heads of twice the channels "
            "in twice the layers, and no windows.",
        ),
        part(
            "8b",
            f"A miniature of each shape, trained alike on {READ:,} bytes at a rate of "
            f"{shapes.RATE:g}: six layers of width {small.d_model}; {small.experts_per_token} of "
            f"{small.n_experts} experts of width {small.d_ff} answer, against {large.experts_per_token} of "
            f"{large.n_experts} of width {large.d_ff}; {multiplied(small):,} and {multiplied(large):,} "
            f"parameters are multiplied with a byte, of {parameters(small):,} and {parameters(large):,}.",
            {HOLDS: "Qwen3's shape less gpt-oss's is {mean}: it foresees text better.",
             UNSEEN: "Qwen3's shape less gpt-oss's is {mean}, at most 1 % of the loss either way: no "
                     "difference was seen.",
             FALSE: "Qwen3's shape less gpt-oss's is {mean}: it foresees text worse."},
            runs, miniatures,
        ),
    )  # fmt: skip


def ten_times() -> Part:
    """Claim 9."""
    at = formulas.beside(OSS, QWEN_LARGE)
    rows = [
        ["parameters", f"{parameters(QWEN_LARGE):,}", f"{parameters(OSS):,}", f"{at.total:.2f}"],
        ["active a token", f"{active_parameters(QWEN_LARGE):,}", f"{active_parameters(OSS):,}",
         f"{at.active:.2f}"],
        ["checkpoint, bytes", f"{checkpoint_bytes(QWEN_LARGE):,}", f"{checkpoint_bytes(OSS):,}",
         f"{at.stored:.2f}"],
    ]  # fmt: skip
    return Part(
        "gpt-oss-20b is ten times smaller than Qwen3-235B", PARTLY,
        f"{table(['', QWEN_LARGE.name, OSS.name, 'ratio'], rows)}\n\nFrom the configs; Qwen3 in bfloat16, "
        "gpt-oss with its experts in MXFP4.",
        f"It has {at.total:.1f} times fewer parameters and takes {at.stored:.0f} times fewer bytes as "
        f"published, but works with only {at.active:.1f} times fewer on a token.",
    )  # fmt: skip


def benchmarks() -> Part:
    """Claim 10."""
    return Part(
        "gpt-oss stands near o3-mini and o4-mini, and beside Qwen3, on benchmarks", UNTESTABLE,
        "The weights of o3-mini and o4-mini are not published, so nobody can run them but their owner. The "
        "published weights of gpt-oss and Qwen3 were not at hand, and the benchmarks (AIME, GPQA, MMLU, "
        "Codeforces) need long reasoning from the full models. A miniature says nothing about them.",
        "These are reports by the models' makers (for gpt-oss: arXiv 2508.10925). They depend on the "
        "reasoning effort, the tools and the number of tries, which have to be named with the number.",
    )
