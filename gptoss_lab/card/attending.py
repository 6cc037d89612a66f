"""What the heads do, on held-out text, on the same text shuffled, and on passages read twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..model import Transformer
from ..study import heads
from ..training.corpus import DOMAINS
from ..training.forms import attach
from .losses import bits, compared, nats, places, spans, texts, within

PASSAGES = (16, 64)  # tokens: one fits twice into a window of 32, the other does not


def told(values: Tensor) -> dict[str, Any]:
    """Means over windows N L H, and half their intervals."""
    return {"share": values.mean(0).tolist(), "within": within(values).tolist()}


def best(share: Any) -> tuple[int, int]:
    """The layer and the head with the largest of L H."""
    table = torch.tensor(share)
    return divmod(int(table.argmax()), table.shape[1])


def shuffled(windows: Tensor, seed: int = 0) -> Tensor:
    """Each window's tokens in another order: N T."""
    dice = torch.rand(windows.shape, generator=torch.Generator().manual_seed(seed))
    return windows.gather(1, dice.argsort(1))


def looks(model: Transformer, windows: Tensor) -> dict[str, Any]:
    """The token before, the first token, the sink: shares of attention, with intervals over windows N T."""
    T, found = windows.shape[1], {}
    found["previous"] = told(heads.previous_token(model, windows)) | {
        "shuffled": heads.previous_token(model, shuffled(windows)).mean(0).tolist(),
        "even": [float(heads.looking_back(heads.even(T, band), 1).mean()) for band in model.config.windows],
    }
    first, alone = heads.first_token(model, windows)
    found["first"] = told(first) | {"even": alone.tolist()}
    if model.config.sinks:
        spots = places(T)

        def by_spans(sink: Tensor) -> Tensor:  # B H T → B H P
            return torch.stack([sink[..., a:b].mean(-1) for a, b in spots], dim=-1)

        found["sinks"] = told(heads.of_heads(model, windows, "sink", lambda sink: sink.mean(-1)))
        found["sinks"]["spans"] = spans(T)
        found["sinks"]["by_span"] = heads.of_heads(model, windows, "sink", by_spans).mean((0, 2)).tolist()
    return found


def copied(model: Transformer, passages: Tensor) -> dict[str, Any]:
    """Loss on what was read before, and the heads that look there."""
    found = heads.copying(model, passages)
    apart = (found.copied - found.other).double().mean(1)
    return {
        "passages": len(passages), "length": passages.shape[1],
        "copied": float(found.copied.mean()), "other": float(found.other.mean()),
        "more": float(apart.mean()), "within": float(within(apart)),
        "score": found.score.mean(0).tolist(), "control": found.control.mean(0).tolist(),
        "even": found.even.tolist(),
    }  # fmt: skip


def silenced(model: Transformer, layer: int, sets: Any) -> dict[str, Any]:
    """The loss with each head of a layer silenced alone: more bits per byte, with half its interval."""
    base = bits(nats(model, sets), sets)
    rows = [
        compared(bits(nats(model, sets, heads.silenced(layer, head)), sets), base)
        for head in range(model.config.n_heads)
    ]
    return {"layer": layer, "more": [row["more"] for row in rows], "within": [row["within"] for row in rows]}


def figures(model: Transformer, size: Any) -> dict[str, Any]:
    """All of it for one model; `size` says over how much text."""
    encoding, fast = model.tokenizer, attach(model.with_config())
    length = min(256, model.config.context)
    some = texts(encoding, length, size.heads)
    windows = torch.cat([some[domain].tokens[:, :length] for domain in DOMAINS])
    found = looks(fast, windows)
    special = {encoding.encode_single_token(name) for name in encoding.special_tokens_set}
    ids = torch.tensor([i for i in range(encoding.n_vocab) if i not in special])
    found["copying"] = {
        f"random {n}": copied(fast, heads.random_passages(ids, size.passages, n, seed=n)) for n in PASSAGES
    }
    each = max(2, size.passages // len(DOMAINS))
    read = texts(encoding, PASSAGES[-1], each)
    text = torch.cat([read[domain].tokens[:, :-1] for domain in DOMAINS])
    found["copying"][f"text {PASSAGES[-1]}"] = copied(fast, text)
    layer, _ = best(found["previous"]["share"])
    found["silenced"] = silenced(fast, layer, texts(encoding, length, size.edited))
    return {"windows": len(windows), "length": length, **found}
