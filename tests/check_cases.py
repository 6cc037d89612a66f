"""Answers, right and wrong, to the exercises about costs and differences, for test_checks."""

from __future__ import annotations

import torch


def spread_of(each, over):
    """A check's answer from differences D W and a function of them for the half."""
    return lambda ours, theirs: (each(ours, theirs).mean(), 1.96 * over(each(ours, theirs)).sqrt())


less = lambda ours, theirs: ours - theirs
strata = lambda each: (each.var(1) / each.shape[1]).sum() / each.shape[0] ** 2


def by_themselves(ours, theirs):
    both = (ours.var(1) + theirs.var(1)) / ours.shape[1]
    return (ours - theirs).mean(), 1.96 * (both.sum() / 9).sqrt()


DIFFERENCES = [
    ("Right", spread_of(less, strata)),
    ("the sign is the wrong way", spread_of(lambda ours, theirs: theirs - ours, strata)),
    ("by themselves", by_themselves),
    ("over all windows together", spread_of(less, lambda each: each.var() / each.numel())),
    ("single windows", spread_of(less, lambda each: each.var(1).sum() / 9)),
    ("D squared", spread_of(less, lambda each: (each.var(1) / 8).mean())),
    ("1.96 is missing", lambda ours, theirs: ((ours - theirs).mean(), strata(ours - theirs).sqrt())),
    ("whole width", spread_of(less, lambda each: 4 * strata(each))),
    ("by W − 1", spread_of(less, lambda each: (each.var(1, correction=0) / 8).sum() / 9)),
    ("two numbers", lambda ours, theirs: 1.0),
]


def kept(layer=lambda c, t, w: min(t, w or t), channels=lambda c: c.n_kv_heads * c.d_head, size=4):
    """A cache's bytes, from what a layer keeps of t tokens, in how many channels, times `size`."""
    seen = lambda config, tokens: sum(layer(config, tokens, window) for window in config.windows)
    return lambda config, tokens: size * channels(config) * seen(config, tokens)


CACHES = [
    ("Right", kept()),
    ("every token in every layer", kept(lambda c, t, w: t)),
    ("every layer the window", kept(lambda c, t, w: min(t, c.window or t))),
    ("query heads", kept(channels=lambda c: c.n_heads * c.d_head)),
    ("a factor of 2", kept(size=2)),
    ("two factors of 2", kept(size=1)),
    ("float32", kept(size=8)),
    ("width of the model", kept(channels=lambda c: c.d_model)),
    ("one layer", lambda c, t: 4 * c.n_kv_heads * c.d_head * t),
    ("where there are fewer", kept(lambda c, t, w: w or t)),
    ("returned NoneType", lambda c, t: None),
]


def unit(q, axes, power=0.5):
    return q / (q.square().mean(axes, keepdim=True) + 1e-6) ** power


QK_NORMS = [
    ("Right", lambda q, scale: unit(q, -1) * scale),
    ("all heads of a token", lambda q, scale: unit(q, (1, 2)) * scale),
    ("means over heads", lambda q, scale: unit(q, 1) * scale),
    ("means over tokens", lambda q, scale: unit(q, 0) * scale),
    ("scale is missing", lambda q, scale: unit(q, -1)),
    ("length √C", lambda q, scale: torch.nn.functional.normalize(q, dim=-1) * scale),
    ("that is LayerNorm", lambda q, scale: torch.nn.functional.layer_norm(q, (8,), scale, eps=1e-6)),
    ("by its root", lambda q, scale: unit(q, -1, 1) * scale),
    ("the scale alone", lambda q, scale: q * scale),
]
