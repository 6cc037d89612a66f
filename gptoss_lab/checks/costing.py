"""Checks of what is compared: a difference and its interval, bytes of cache, QK-norm."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import model as lab
from ..config import NAMED, Config
from ..cost import cache_bytes
from . import judging
from .judging import Answer, Own, made_up

MODELS = ("gpt-oss-20b", "qwen3-30b-a3b", "gpt2")
CACHED = [(NAMED[name], tokens) for name in MODELS for tokens in (100, 1000)]


def difference(own: Own) -> Answer:
    """own(ours D W, theirs D W) → (mean, half its 95 % interval): pairs of windows, D kinds of text that
    count alike."""
    kinds = torch.tensor([[2.0], [5.0], [3.0]])  # some kinds of text are harder than others
    theirs = kinds + made_up(3, 8)
    ours = theirs + torch.tensor([[0.1], [-0.3], [0.2]]) + 0.1 * made_up(3, 8, seed=1)
    given = own(ours.clone(), theirs.clone())
    if not isinstance(given, tuple) or len(given) != 2:
        return Answer(False, f"Return two numbers, `mean, half`; yours returned {type(given).__name__}.")
    each = ours - theirs
    count, within = each.shape[1], each.var(1)
    mean, root = each.mean(), lambda variance: 1.96 * variance.sqrt()
    both = lambda middle, half: torch.stack([middle, half]).double()
    right = root((within / count).mean() / len(each))
    return judging.judge(
        torch.stack([torch.as_tensor(x).double() for x in given]), both(mean, right),
        "pairs first, then the spread within each kind of text.",
        {
            "You took theirs less ours: the sign is the wrong way round.": both(-mean, right),
            "You took the spread of both lists by themselves; the same windows were read twice, so take the "
            "differences first.": both(mean, root((ours.var(1) + theirs.var(1)).mean() / count / len(each))),
            "You took the spread over all windows together, so that the kinds of text differ by chance too; "
            "they are always these: the spread within each.":
                both(mean, root(each.flatten().var() / each.numel())),
            "That is the spread of single windows; the mean of W of them has a W-th of the variance.":
                both(mean, root(within.mean() / len(each))),
            "The variance of a mean of D kinds is the sum of theirs over D squared, not over D.":
                both(mean, root((within / count).mean())),
            "The 1.96 is missing: that is one standard error.": both(mean, right / 1.96),
            "That is the whole width; half of it is asked for.": both(mean, 2 * right),
            "You divided by W in the variance; by W − 1 it is not too small on average (var's default).":
                both(mean, right * math.sqrt((count - 1) / count)),
        },
    )  # fmt: skip


def cache(own: Own) -> Answer:
    """own(config, tokens) → bytes of its keys and values in bfloat16."""

    def table(count: Callable[[Config, int], float]) -> Tensor:
        return torch.tensor([float(count(config, tokens)) for config, tokens in CACHED], dtype=torch.float64)

    given = [own(config, tokens) for config, tokens in CACHED]
    if any(isinstance(x, bool) or not isinstance(x, int | float) for x in given):
        return Answer(False, f"Return a number of bytes; yours returned {type(given[0]).__name__}.")
    seen = lambda c, t: sum(min(t, w or t) for w in c.windows)
    row = lambda c: 4 * c.n_kv_heads * c.d_head
    layers = lambda c: c.n_layers
    return judging.judge(
        torch.tensor([float(x) for x in given], dtype=torch.float64), table(cache_bytes),
        "keys and values, for the heads that are kept, as far back as each layer looks.",
        {
            "You kept every token in every layer; a layer with a window keeps its window (config.windows, "
            "None where a layer is dense).": table(lambda c, t: layers(c) * t * row(c)),
            "You gave every layer the window; config.windows says which have one.":
                table(lambda c, t: layers(c) * min(t, c.window or t) * row(c)),
            "You counted query heads; n_kv_heads are kept.":
                table(lambda c, t: seen(c, t) * 4 * c.n_heads * c.d_head),
            "A factor of 2 is missing: keys and values are kept, and bfloat16 takes two bytes a number.":
                table(lambda c, t: seen(c, t) * row(c) / 2),
            "Two factors of 2 are missing: one for keys and values, one for bfloat16's bytes.":
                table(lambda c, t: seen(c, t) * row(c) / 4),
            "That is float32; bfloat16 takes two bytes a number.":
                table(lambda c, t: seen(c, t) * row(c) * 2),
            "You took the width of the model; keys and values have n_kv_heads · d_head channels.":
                table(lambda c, t: seen(c, t) * 4 * c.d_model),
            "That is one layer: add up all of them.": table(lambda c, t: t * row(c)),
            "A full window is kept also where there are fewer tokens: min(tokens, window).":
                table(lambda c, t: sum(w or t for w in c.windows) * row(c)),
        },
        atol=0.5,
    )  # fmt: skip


def qk_norm(own: Own) -> Answer:
    """own(q T H C, scale C) → q, each head's channels brought to a root mean square of 1, times scale."""
    q, scale, eps = made_up(5, 3, 8) * 3 + 1, 1 + made_up(8, seed=1) / 4, 1e-6
    over = lambda *axes: q / (q.square().mean(axes, keepdim=True) + eps).sqrt() * scale
    length = q / q.norm(dim=-1, keepdim=True) * scale
    return judging.judge(
        own(q.clone(), scale.clone()), lab.rms_norm(q, scale, eps),
        "each head by itself, with one scale for all of them.",
        {
            "You normalised all heads of a token together; each head by itself: dim=-1.": over(1, 2),
            "You took means over heads; over the channels of a head: dim=-1.": over(1),
            "You took means over tokens; each token is normalised by itself: dim=-1.": over(0),
            "The scale is missing.": over(2) / scale,
            "Your heads have length 1; their root mean square is to be 1, so their length √C.": length,
            "You took the mean away: that is LayerNorm. QK-norm is RMSNorm.":
                lab.layer_norm(q, scale, torch.zeros(8), eps),
            "You divided by the mean square; by its root.":
                q / (q.square().mean(-1, keepdim=True) + eps) * scale,
            "You multiplied by the scale alone.": q * scale,
        },
    )  # fmt: skip
