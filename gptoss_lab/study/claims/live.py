"""Dials that run a miniature or a clock when they are turned: see `dials` for those that only count."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config import require
from ...model import Transformer
from ...tap import Recorder
from ...training.corpus import DOMAINS
from ...training.forms import attach
from ...training.scatter import student
from . import formulas, measured, normalising, routing, timing
from .dials import Reading
from .of_experts import NEAR, nearly
from .parts import HOLDS, MISLEADING, PARTLY, UNSEEN

FORMS: dict[str, Any] = {"erf": F.gelu, "Swish": F.silu, "1.702": formulas.gelu_sigmoid, "ReLU": F.relu}


def other_form(model: Transformer, form: str = "erf", windows: int = 2) -> tuple[float, float]:
    """Bits per byte that a GPT-2 loses with another activation in every layer, without having learned with
    it, and half the interval over `windows` held-out windows a domain: "erf", "Swish", "1.702" or "ReLU"."""
    require(form in FORMS, f"no form {form!r}; there are {', '.join(FORMS)}")
    edits = routing.everywhere(model, "mlp.act", lambda act, here: FORMS[form](here["mlp.pre"]))
    return lost(attach(model.with_config()), edits, windows)


def lost(model: Transformer, edits: routing.Edits, windows: int) -> tuple[float, float]:
    """Bits per byte that edits cost, and half the interval over windows, which are few: with Student's t, as
    if domains scattered alike. ValueError for a single window."""
    require(windows > 1, f"windows={windows}; an interval takes two windows of every domain")
    more, within = routing.difference(routing.bits(model, windows, edits), routing.bits(model, windows))
    return more, within * student((windows - 1) * len(DOMAINS)) / student(10**9)


def ranked(model: Transformer, rank: int = 1, near: float = NEAR, windows: int = 2) -> Reading:
    """3d. One expert alone answers: the one of this rank by logit (0: the best), instead of the best. `near`:
    bits per byte below which it counts as nearly as good."""
    one = attach(model.with_config(experts_per_token=1))
    edits = routing.everywhere(one, "experts.choice", routing.ranks(rank))
    more, within = lost(one, edits, windows)
    told = (f"rank {rank} alone, where 0 is the best: {more:+.3f} ± {within:.3f} bits per byte (± over "
            f"{windows} windows a kind of text)")  # fmt: skip
    return Reading("3d", "Choosing the second-best expert is nearly as good", more, told,
                   nearly(more, within, near))  # fmt: skip


def dealt(model: Transformer, keep: int = 0, near: float = NEAR, windows: int = 2, seed: int = 0) -> Reading:
    """3e. Experts at random in every layer, but for the `keep` best of each token."""
    two = attach(model.with_config())
    edits = routing.everywhere(two, "experts.choice", routing.at_random(seed, keep))
    more, within = lost(two, edits, windows)
    told = (f"the {keep} best, the rest at random: {more:+.3f} ± {within:.3f} bits per byte (± over "
            f"{windows} windows a kind of text)")  # fmt: skip
    return Reading("3e", "Choosing a random expert is nearly as good", more, told,
                   nearly(more, within, near))  # fmt: skip


@torch.no_grad()
def residuals(model: Transformer) -> list[Tensor]:
    """What every norm of a model reads, in order, on 12 × 255 held-out tokens: B T D each."""
    recorder = Recorder(keep=normalising.entering(model))
    model(measured.some_text(model), last=1, tap=recorder)
    return [recorder.kept[name] for name in normalising.entering(model)]


def signs(read: Sequence[Tensor], shift: float = 0.0) -> Reading:
    """5d. The share of the signs of `residuals` that taking the mean away changes, after `shift` root mean
    squares of each token are added to every channel; the mean over what all norms read."""
    shares = []
    for x in read:
        x = x + shift * x.square().mean(-1, keepdim=True).sqrt()
        shares.append(normalising.flipped(x, x - x.mean(-1, keepdim=True)))
    share = statistics.fmean(shares)
    told = f"{share:.2%} of the signs change when the mean is taken away, none when it stays (RMSNorm)"
    return Reading("5d", "Normalising does not change which neurons are active", share, told,
                   PARTLY if share > 0 else HOLDS)  # fmt: skip


def clock(width: int = timing.WIDTH, count: int = 9) -> dict[str, Any]:
    """The ratios of times of `timing.figures` at another width, over fewer rounds."""
    ratios: dict[str, Any] = timing.figures(count, width)["ratios"]
    return ratios


def cheaper_swish(ratios: dict[str, Any], felt: float = 0.1) -> Reading:
    """2c. What Swish saves beside GPT-2's GELU, as a share of the product before it; `felt`: what counts."""
    middle = {name: quartiles[1] for name, quartiles in ratios.items()}
    saved = (middle["GELU, tanh / Swish"] - 1) / middle["product / Swish"]
    told = (f"GELU, GPT-2's tanh form, takes {middle['GELU, tanh / Swish']:.1f} times as long as Swish; what "
            f"that saves is {saved:.1%} of one product")  # fmt: skip
    verdict = UNSEEN if saved <= 0 else HOLDS if saved >= felt else MISLEADING
    return Reading("2c", "Swish is significantly cheaper than GELU", saved, told, verdict)


def cheaper_norm(ratios: dict[str, Any], felt: float = 0.05) -> Reading:
    """5a. LayerNorm over RMSNorm, written alike and by torch's kernels; `felt`: the share that counts."""
    alike, kernels = (ratios[f"LayerNorm{by} / RMSNorm{by}"][1] for by in ("", ", torch's"))
    told = f"LayerNorm over RMSNorm: {alike:.2f} written alike, {kernels:.2f} by torch's kernels"
    cheap = (alike >= 1 + felt) + (kernels >= 1 + felt)
    verdict = {2: HOLDS, 1: PARTLY, 0: UNSEEN}[cheap]
    return Reading("5a", "RMSNorm is cheaper than LayerNorm", alike, told, verdict)
