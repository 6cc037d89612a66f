"""How well held-out text is predicted: by domain, by position, without windows, without sinks.

    bits per byte = −Σ log₂ p(token) / bytes of those tokens

Every number has half a 95 % interval beside it, `within`: what the choice of windows leaves open, for these
very weights. Differences are taken window by window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tiktoken
import torch
import torch.nn.functional as F
from torch import Tensor

from ..model import Transformer
from ..study.claims.routing import difference, level
from ..study.edits import without_sinks
from ..tap import Edit, Recorder
from ..training.corpus import DOMAINS, Windows, heldout_windows
from ..training.forms import attach
from ..training.measure import EDGES, seen_twice

Texts = Mapping[str, Windows]
Edits = Mapping[str, list[Edit]]
NEAR = 256


def texts(encoding: tiktoken.Encoding, context: int, limit: int) -> dict[str, Windows]:
    """At most `limit` held-out windows of every domain."""
    return {domain: heldout_windows(encoding, domain, context, limit) for domain in DOMAINS}


@torch.no_grad()
def nats(model: Transformer, sets: Texts, edits: Edits | None = None, batch: int = 4) -> dict[str, Tensor]:
    """−log p of every target, by domain: N T."""
    found = {}
    for domain, windows in sets.items():
        rows = []
        for part in windows.tokens.split(batch):
            logits = model(part[:, :-1], tap=Recorder(edits=edits or {}))
            rows.append(F.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none"))
        found[domain] = torch.cat(rows)
    return found


def bits(found: Mapping[str, Tensor], sets: Texts) -> list[list[float]]:
    """Bits of every window over the mean bytes of its domain's windows: their mean is bits per byte."""
    return [
        (found[domain].double().sum(1) / math.log(2) / windows.bytes.double().mean()).tolist()
        for domain, windows in sets.items()
    ]


def within(values: Tensor) -> Tensor:
    """Half a 95 % interval of the mean over the first axis; nan for a single value."""
    return 1.96 * values.double().std(0) / math.sqrt(len(values))


def by_domain(found: Mapping[str, Tensor], sets: Texts) -> dict[str, dict[str, float]]:
    """Bits per byte of each domain, as a ratio of sums, and of all, each domain counted alike."""
    rows = {}
    for domain, windows in sets.items():
        each, sizes = found[domain].double().sum(1) / math.log(2), windows.bytes.double()
        ratio = each.sum() / sizes.sum()
        left = float(within((each - ratio * sizes) / sizes.mean()))
        rows[domain] = {"bits": float(ratio), "within": left, "windows": len(sizes)}
    means = [row["bits"] for row in rows.values()], [row["within"] for row in rows.values()]
    rows["mean"] = {
        "bits": sum(means[0]) / len(rows), "within": math.hypot(*means[1]) / len(means[1]),
        "windows": sum(row["windows"] for row in rows.values()),
    }  # fmt: skip
    return rows


def places(context: int) -> list[tuple[int, int]]:
    """The spans of positions that are told together."""
    return [(a, b) for a, b in zip(EDGES, EDGES[1:]) if b <= context]


def spans(context: int) -> list[str]:
    """Their names: "0–7", …"""
    return [f"{a}–{b - 1}" for a, b in places(context)]


def by_span(values: Mapping[str, Tensor]) -> dict[str, list[list[float]]]:
    """Means of values N T over each span, with `within`, by domain and over all of them: [mean, within], …"""
    found: dict[str, list[list[float]]] = {}
    for domain, rows in values.items():
        parts = [rows[:, a:b].double().mean(1) for a, b in places(rows.shape[1])]
        found[domain] = [[float(part.mean()), float(within(part))] for part in parts]
    return found | {"mean": together(found)}


def together(found: Mapping[str, Sequence[Sequence[float]]]) -> list[list[float]]:
    """Pairs of a mean and half its interval, by domain, as those over all domains, each counted alike."""
    return [
        [sum(mean for mean, _ in row) / len(row), math.hypot(*(left for _, left in row)) / len(row)]
        for row in zip(*found.values())
    ]


def above_last(values: Mapping[str, Tensor]) -> list[list[float]]:
    """How far the mean of each span lies above that of the last, window by window, over all domains."""
    found = {}
    for domain, rows in values.items():
        *parts, last = [rows[:, a:b].double().mean(1) for a, b in places(rows.shape[1])]
        found[domain] = [[float((part - last).mean()), float(within(part - last))] for part in parts]
    return together(found)


def compared(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> dict[str, float]:
    """Bits per byte, and how many more than the others', with half the interval of that."""
    more, left = difference(ours, theirs)
    return {"bits": level(ours), "more": more, "within": left}


def far_context(model: Transformer, found: Mapping[str, Tensor], sets: Texts) -> dict[str, Any]:
    """The same targets seen from 128 to 256 tokens and from all of a window; nats a token by domain.

    more: from afar less from near, with half its interval over windows; the mean counts domains alike.
    """
    rows, each = {}, {}
    for domain, windows in sets.items():
        near, far = seen_twice(model, windows.tokens, NEAR, found[domain])
        apart = (far - near).double().mean((1, 2))
        each[domain] = apart
        rows[domain] = {"near": float(near.mean()), "far": float(far.mean()),
                        "more": float(apart.mean()), "within": float(within(apart))}  # fmt: skip
    lefts = [row["within"] for row in rows.values()]
    mean = {key: sum(row[key] for row in rows.values()) / len(rows) for key in ("near", "far", "more")}
    rows["mean"] = mean | {"within": math.hypot(*lefts) / len(lefts)}
    return rows


def other_windows(model: Transformer, windows: Sequence[int | None], sets: Texts) -> dict[str, Any]:
    """The loss with other windows than those trained with (None: none), over long held-out text.

    Each has bits per byte, how many more than as trained, and by span how many nats more, with intervals.
    """
    trained = nats(attach(model.with_config()), sets)
    base = bits(trained, sets)
    found: dict[str, Any] = {"as trained": {"window": model.config.window, "bits": level(base)}}
    for window in windows:
        other = nats(attach(model.with_config(window=window)), sets)
        apart = by_span({domain: other[domain] - trained[domain] for domain in sets})["mean"]
        name = "none" if window is None else str(window)
        found[name] = {"window": window, **compared(bits(other, sets), base), "spans": apart}
    return found


def no_sinks(model: Transformer, sets: Texts) -> dict[str, Any]:
    """The loss with the sinks taken away, in every layer and in each alone."""
    fast = attach(model.with_config())
    every = range(model.config.n_layers)
    base, found = bits(nats(fast, sets), sets), {}
    for name, layers in {"every layer": tuple(every), **{f"layer {n}": (n,) for n in every}}.items():
        edits = {f"blocks.{n}.attention.sink_logit": [without_sinks(layers)] for n in layers}
        found[name] = compared(bits(nats(fast, sets, edits), sets), base)
    return {"as trained": {"bits": level(base)}, **found}


def figures(model: Transformer, size: Any) -> dict[str, Any]:
    """All of it for one model; `size` says over how many windows."""
    config, encoding, fast = model.config, model.tokenizer, attach(model.with_config())
    contexts = sorted({min(NEAR, config.context), config.context})
    found: dict[str, Any] = {"bits": {}}
    sets: dict[str, Windows] = {}
    for context in contexts:
        sets = texts(encoding, context, size.near if context == contexts[0] else size.far)
        each = nats(fast, sets)
        found["bits"][str(context)] = by_domain(each, sets)
    found["position"] = {"context": config.context, "spans": spans(config.context), "nats": by_span(each),
                         "above_last": above_last(each)}  # fmt: skip
    if config.context >= 2 * NEAR:
        found["far"] = far_context(fast, each, sets)
    if config.window is not None:
        few = texts(encoding, config.context, size.edited_far)
        half, four = config.window // 4, config.window * 4
        found["windows"] = other_windows(model, [max(1, half), config.window * 2, four, None], few)
    if config.sinks:
        found["without_sinks"] = no_sinks(model, texts(encoding, contexts[0], size.edited))
    return found
