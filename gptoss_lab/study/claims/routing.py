"""Other experts than the router's: the k-th best, or any, in the place of those chosen, and what is lost.

    bits per byte of held-out windows; the weights follow the choice: a softmax over the logits of who answers

A difference is taken window by window; its interval says what the choice of windows alone leaves open, for
these very weights. A model that had learned with a random router would be another: that is not asked here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...model import Transformer
from ...tap import Edit, Here, Recorder
from ...training.corpus import DOMAINS, heldout_windows
from ...training.forms import attach

SEEDS = (0, 1, 2)
AT_ONCE = 8  # windows in a forward pass; random choices depend on it
Edits = Mapping[str, list[Edit]]


def ranks(*kept: int) -> Edit:
    """An edit of `experts.choice`: the experts of these ranks by logit, 0 the best."""

    def edit(choice: Tensor, here: Here) -> Tensor:
        return here["experts.logits"].argsort(-1, descending=True)[..., list(kept)]

    return edit


def at_random(seed: int, keep: int = 0) -> Edit:
    """An edit of `experts.choice`: different experts, every one as likely, but for the `keep` best."""
    dice = torch.Generator().manual_seed(seed)

    def edit(choice: Tensor, here: Here) -> Tensor:
        drawn = torch.rand(here["experts.logits"].shape, generator=dice)
        best = torch.arange(keep, 0, -1.0).expand(*choice.shape[:-1], keep)  # above every draw, in order
        return drawn.scatter(-1, choice[..., :keep], best + 1).topk(choice.shape[-1]).indices

    return edit


def nothing(out: Tensor, here: Here) -> Tensor:
    """An edit of `experts.out`: no expert answers."""
    return torch.zeros_like(out)


def everywhere(model: Transformer, point: str, edit: Edit) -> dict[str, list[Edit]]:
    """The edit at this point of every block."""
    return {f"blocks.{n}.{point}": [edit] for n in range(model.config.n_layers)}


@torch.no_grad()
def bits(model: Transformer, limit: int, edits: Edits | None = None, context: int = 256) -> list[list[float]]:
    """Bits per byte of `limit` held-out windows of each domain: domains × windows."""
    found = []
    for domain in DOMAINS:
        windows, sizes = heldout_windows(model.tokenizer, domain, context, limit)
        nats: list[Tensor] = []
        for part in windows.split(AT_ONCE):
            logits = model(part[:, :-1], tap=Recorder(edits=edits or {}))
            nats.append(F.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none").sum(1))
        found.append((torch.cat(nats).double() / math.log(2) / sizes).tolist())
    return found


@torch.no_grad()
def best_weight(model: Transformer, limit: int, context: int = 256) -> float:
    """The mean weight of a token's best expert, over layers and `limit` held-out windows of each domain."""
    names, means = [f"blocks.{n}.experts.weight" for n in range(model.config.n_layers)], []
    for domain in DOMAINS:
        windows = heldout_windows(model.tokenizer, domain, context, limit).tokens
        recorder = Recorder(keep=names)
        model(windows[:, :-1], last=1, tap=recorder)
        means += [float(recorder.kept[name].amax(-1).mean()) for name in names]
    return statistics.fmean(means)


def level(windows: Sequence[Sequence[float]]) -> float:
    """The mean over domains of the mean over windows."""
    return statistics.fmean(statistics.fmean(domain) for domain in windows)


def difference(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Ours less theirs, and half its 95 % interval over windows: pairs of windows, domains as strata."""
    each = [[a - b for a, b in zip(*rows)] for rows in zip(ours, theirs)]
    variance = sum(statistics.variance(row) / len(row) for row in each) / len(each) ** 2
    return level(each), 1.96 * math.sqrt(variance)


def averaged(runs: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """Window by window the mean over several runs."""
    return [[statistics.fmean(values) for values in zip(*domain)] for domain in zip(*runs)]


def figures(model: Transformer, limit: int = 8) -> dict[str, Any]:
    """The loss of mini-oss under other choices than its router's, over `limit` windows a domain.

    Every entry has `bits`, and where it is compared `more` and `within`: how many more than as trained, or
    than with the best expert alone, and half the interval. Random choices are means over `seeds`, whose own
    levels stand beside them.
    """
    model, one = attach(model.with_config()), attach(model.with_config(experts_per_token=1))
    choice = "experts.choice"
    fixed = {
        "third instead of the second": (model, ranks(0, 2)),
        "third instead of the best": (model, ranks(1, 2)),
        "third and fourth": (model, ranks(2, 3)),
        "the two worst": (model, ranks(-2, -1)),
        "second-best alone": (one, ranks(1)),
        "third alone": (one, ranks(2)),
        "the worst alone": (one, ranks(-1)),
    }
    drawn = {
        "the best and one at random": (model, 1),
        "two at random": (model, 0),
        "one at random alone": (one, 0),
    }  # fmt: skip
    trained, alone = bits(model, limit), bits(one, limit)
    found: dict[str, Any] = {"as trained": {"bits": level(trained)}}

    def told(windows: list[list[float]], base: list[list[float]]) -> dict[str, float]:
        more, within = difference(windows, base)
        return {"bits": level(windows), "more": more, "within": within}

    found["the best alone"] = told(alone, trained)
    for name, (which, edit) in fixed.items():
        windows = bits(which, limit, everywhere(model, choice, edit))
        found[name] = told(windows, trained if which is model else alone)
    for name, (which, keep) in drawn.items():
        runs = [bits(which, limit, everywhere(model, choice, at_random(seed, keep))) for seed in SEEDS]
        found[name] = told(averaged(runs), trained if which is model else alone)
        found[name]["seeds"] = [level(run) for run in runs]
    found["no expert at all"] = told(bits(model, limit, everywhere(model, "experts.out", nothing)), trained)
    for n in range(model.config.n_layers):
        windows = bits(model, limit, {f"blocks.{n}.{choice}": [at_random(0)]})
        found[f"two at random in layer {n} alone"] = told(windows, trained)
    about = {"windows": limit, "context": 256, "domains": list(DOMAINS)}
    return {**about, "best_weight": best_weight(model, limit), "choices": found}
