"""What an expert's number tells: of the domain, the kind of token, the language; and the pairs of verses."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ..model import Transformer
from ..study import verses
from ..study.information import Information, bias, entropy, equal, information, tokens, whole
from ..study.token_classes import CLASSES, classes
from ..tap import Recorder
from ..training.corpus import DOMAINS, parallel_pairs
from ..training.forms import attach
from .losses import texts, within


@torch.no_grad()
def choices(model: Transformer, windows: Tensor) -> Tensor:
    """The chosen experts: windows N T → N T L K."""
    names, found = [f"blocks.{n}.experts.choice" for n in range(model.config.n_layers)], []
    for part in windows.split(8):
        recorder = Recorder(keep=names)
        model(part, last=0, tap=recorder)
        found.append(torch.stack([recorder.kept[name] for name in names], dim=2))
    return torch.cat(found)


def kept(found: list[Information]) -> dict[str, list[float]]:
    """Layer by layer: bits, the mean and the spread over shuffles."""
    rows = [asdict(one) for one in found]
    return {key: [row[key] for row in rows] for key in ("bits", "shuffled", "spread")}


def of_label(
    choice: Tensor, label: Tensor, ids: Tensor, experts: int, lengths: Tensor | None = None
) -> dict[str, Any]:
    """What the experts of N tokens, N L K, tell of their labels: beside shuffled labels, and, for pieces of
    text of these lengths that have one label each, beside labels shuffled among equal tokens."""
    L, draws = choice.shape[1], choice[:, 0].numel()
    shuffle = tokens if lengths is None else whole(lengths)
    labels = int(label.unique().numel())
    found: dict[str, Any] = {
        "labels": labels, "label_bits": entropy(label.bincount()), "tokens": len(label),
        "bias": bias(experts, labels, draws),
        "expert_bits": [entropy(choice[:, n].flatten().bincount()) for n in range(L)],
    }  # fmt: skip
    found |= kept([information(choice[:, n], label, shuffle) for n in range(L)])
    if lengths is not None:
        found["identity"] = kept([information(choice[:, n], label, equal(ids)) for n in range(L)])
    return found


def of_experts(model: Transformer, size: Any) -> dict[str, Any]:
    """Domains and kinds of tokens, over held-out windows; and each expert's share by domain."""
    E, length = model.config.n_experts or 0, min(256, model.config.context)
    sets = texts(model.tokenizer, length, size.experts)
    windows = {domain: sets[domain].tokens[:, :length] for domain in DOMAINS}
    each = {domain: choices(model, rows) for domain, rows in windows.items()}
    choice = torch.cat([rows.flatten(0, 1) for rows in each.values()])  # N L K
    ids = torch.cat([rows.flatten() for rows in windows.values()])
    counts = torch.tensor([len(rows) for rows in windows.values()])
    domain = torch.arange(len(DOMAINS)).repeat_interleave(counts * length)
    kind = classes(model.tokenizer, ids)
    shares = {
        name: [row.flatten().bincount(minlength=E).double().div(row.numel()).tolist()
               for row in rows.flatten(0, 1).unbind(1)]
        for name, rows in each.items()
    }  # fmt: skip
    lengths = torch.full((int(counts.sum()),), length)
    return {
        "windows": int(counts.sum()), "length": length, "share": shares,
        "domain": of_label(choice, domain, ids, E, lengths),
        "kind": of_label(choice, kind, ids, E) | {
            "counts": dict(zip(CLASSES, kind.bincount(minlength=len(CLASSES)).tolist()))
        },
    }  # fmt: skip


def of_verses(model: Transformer, size: Any) -> dict[str, Any]:
    """Language or topic: overlaps of experts' shares, what experts tell of the language, translations found
    again by the mean residual (layer by layer, the embedding first) and by the experts' shares."""
    every = parallel_pairs()
    pairs = every[:: max(1, len(every) // size.verses)]
    rows = [verses.verse_ids(model.tokenizer, [getattr(pair, language) for pair in pairs])
            for language in ("english", "spanish")]  # fmt: skip
    one, other = (verses.read(model, ids) for ids in rows)
    stacked = zip(one.residual.unbind(1), other.residual.unbind(1))
    residual = [verses.retrieved(a, b) for a, b in stacked]
    found: dict[str, Any] = {
        "pairs": len(pairs), "first": pairs[0].key, "last": pairs[-1].key, "chance": 1 / len(pairs),
        "tokens": [float(one.lengths.double().mean()), float(other.lengths.double().mean())],
        "residual": [[float(hit.mean()), float(within(hit))] for hit in residual],
    }  # fmt: skip
    if one.shares is None or other.shares is None:
        return found
    kin = verses.kinship(one.shares, other.shares, one.lengths)
    for name in ("translation", "language", "neither", "by_topic", "by_language"):
        values = getattr(kin, name)  # N L
        found[name] = [list(row) for row in zip(values.mean(0).tolist(), within(values).tolist())]
    hits = [verses.retrieved(a, b) for a, b in zip(one.shares.unbind(1), other.shares.unbind(1))]
    found["by_experts"] = [[float(hit.mean()), float(within(hit))] for hit in hits]
    lengths = torch.cat((one.lengths, other.lengths))
    label = torch.tensor([0, 1]).repeat_interleave(len(pairs)).repeat_interleave(lengths)
    ids = torch.tensor([i for half in rows for row in half for i in row[1:]])
    choice = torch.cat([*one.choices, *other.choices])
    found["told"] = of_label(choice, label, ids, model.config.n_experts or 0, lengths)
    return found


def figures(model: Transformer, size: Any) -> dict[str, Any]:
    """All of it for one model: verses always, experts where there are any."""
    fast = attach(model.with_config())
    experts = {"experts": of_experts(fast, size)} if model.config.n_experts else {}
    return experts | {"verses": of_verses(fast, size)}
