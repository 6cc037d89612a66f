"""Checks of norms, activations and the router."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import model as lab
from . import judging
from .judging import Answer, Own, made_up


def layer_norm(own: Own) -> Answer:
    """own(x T D) → LayerNorm without scale and bias: mean 0 and length √D over the channels of each token."""
    x = made_up(7, 12) * 3 + 2
    mean, root = x.mean(-1, keepdim=True), math.sqrt(x.shape[-1])
    brought = lambda y: y / y.norm(dim=-1, keepdim=True) * root
    centred, along = x - mean, x.sum(-1, keepdim=True)
    across = x - x.mean(0)
    return judging.judge(
        own(x.clone()), lab.layer_norm(x, torch.ones(12), torch.zeros(12), 1e-5),
        "off the all-ones direction, then onto the sphere of radius √D.",
        {
            "That is RMSNorm: the mean is still there. Take it away before you take the length.": brought(x),
            "You took the mean away and left the length as it was: bring it to √D.": centred,
            "Your vectors have length 1; their root mean square is to be 1, so their length √D.":
                centred / centred.norm(dim=-1, keepdim=True),
            "You divided by the variance; divide by its root.":
                centred / centred.square().mean(-1, keepdim=True),
            "You divided by D − 1, as for a sample; LayerNorm divides by D (var(correction=0)).":
                centred / x.std(-1, keepdim=True),
            "You divided by the size that x had before its mean was taken away.":
                centred / x.square().mean(-1, keepdim=True).sqrt(),
            "You took means over the tokens; each token is normalised by itself: dim=-1.":
                across / across.square().mean(0).sqrt(),
            "Your all-ones direction has length √D, so you took away D times too much: divide by D, or "
            "make it a unit vector.": brought(x - along),
            "You took x·u itself away; take away the vector (x·u) u.": brought(x - along / root),
            "You kept the part along the all-ones direction; that is the part to take away.":
                brought(mean.expand_as(x)),
        },
    )  # fmt: skip


def gelu(own: Own) -> Answer:
    """own(x) → GELU in the tanh form, GPT-2's."""
    x = made_up(40, 3) * 3
    cubed, c = x + 0.044715 * x**3, math.sqrt(2 / math.pi)
    tanh = torch.tanh(c * cubed)
    return judging.judge(
        own(x.clone()), lab.gelu(x), "GPT-2's form, to the last digits.",
        {
            "This is the erf form, GELU's definition; GPT-2 computes the tanh form, at most 0.0005 away.":
                x / 2 * (1 + torch.erf(x / math.sqrt(2))),
            "This is x·sigmoid(1.702 x), up to 0.02 away: the gate of gpt-oss, not GPT-2's GELU.":
                x * torch.sigmoid(1.702 * x),
            "This is Swish, x·sigmoid(x): up to 0.19 away from GELU.": x * torch.sigmoid(x),
            "This is ReLU; GELU lets small negative numbers through.": x.relu(),
            "The cube is missing: tanh(√(2/π)·(x + 0.044715 x³)).": x / 2 * (1 + torch.tanh(c * x)),
            "You squared; the small term is 0.044715 x³.":
                x / 2 * (1 + torch.tanh(c * (x + 0.044715 * x**2))),
            "The root is missing: √(2/π), not 2/π.": x / 2 * (1 + torch.tanh(2 / math.pi * cubed)),
            "√(2/π) multiplies the cube too: put x + 0.044715 x³ in brackets.":
                x / 2 * (1 + torch.tanh(c * x + 0.044715 * x**3)),
            "The half is missing: this is twice too large.": x * (1 + tanh),
            "The 1 is missing: x/2·(1 + tanh(…)).": x / 2 * tanh,
            "The x in front is missing: this is the share that passes, from 0 to 1.": (1 + tanh) / 2,
        },
    )  # fmt: skip


def swiglu(own: Own) -> Answer:
    """own(gate, up) → gpt-oss's activation, with its clamps at 7, its 1.702 and its + 1."""
    gate, up = made_up(40, 3) * 6, made_up(40, 3, seed=1) * 6
    g, u = gate.clamp(max=7), up.clamp(-7, 7)
    sig = lambda x: torch.sigmoid(1.702 * x)
    plain = "This is a plain SwiGLU, silu(gate) · up: hidden_act says silu, but gpt-oss does something else."
    return judging.judge(
        own(gate.clone(), up.clone()), lab.clamped_swiglu(gate, up),
        "clamps, 1.702 and + 1 are all in place.",
        {
            plain: lab.swiglu(gate, up),
            plain + " (You did clamp.)": lab.swiglu(g, u),
            "The 1.702 inside the sigmoid is missing.": g * torch.sigmoid(g) * (u + 1),
            "The + 1 is missing: the gate's part passes through also where up is 0.": g * sig(g) * u,
            "Nothing is clamped: large values must stop at 7.": gate * sig(gate) * (up + 1),
            "The gate is not clamped: at most 7.": gate * sig(gate) * (u + 1),
            "up is not clamped: −7 to 7.": g * sig(g) * (up + 1),
            "You clamped the gate from below too; only from above.":
                g.clamp(min=-7) * sig(g.clamp(min=-7)) * (u + 1),
            "You clamped up from above only; on both sides.": g * sig(g) * (up.clamp(max=7) + 1),
            "You added 1 before clamping: clamp up to −7 … 7 first, then add 1.":
                g * sig(g) * (up + 1).clamp(-7, 7),
            "Gate and up have changed places.": lab.clamped_swiglu(up, gate),
            "The gate itself is missing: gate · sigmoid(1.702 · gate), not the sigmoid alone.":
                sig(g) * (u + 1),
        },
    )  # fmt: skip


def router_weights(own: Own) -> Answer:
    """own(logits T E, k) → (choice T K, weight T K): the k best experts, a softmax over those k."""
    logits, k = made_up(7, 6) * 2, 3
    given = own(logits.clone(), k)
    if not isinstance(given, tuple) or len(given) != 2:
        return Answer(False, f"Return two tensors, `choice, weight`; yours returned {type(given).__name__}.")
    choice, weight = given
    for name, value in (("choice", choice), ("weight", weight)):
        if not isinstance(value, Tensor) or value.shape != (7, k):
            came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            return Answer(False, f"`{name}` is {came}; expected T K = (7, {k}), a row a token.")
    if choice.is_floating_point() or not ((choice >= 0) & (choice < 6)).all():
        return Answer(False, "`choice` holds experts' numbers, 0 to 5: `topk` gives them as `.indices`.")
    best, least = logits.topk(k), logits.topk(k, largest=False)
    kept = best.values.softmax(-1)

    def spread(choice: Tensor, weight: Tensor) -> Tensor:  # T E, so that the order of the K does not matter
        return torch.zeros(7, 6).scatter(-1, choice, weight.float())

    sigmoid, own_sum = best.values.sigmoid(), best.values.sum(-1, keepdim=True)
    strongest = logits.abs().topk(k).indices
    return judging.judge(
        spread(choice, weight), spread(best.indices, kept), "the k best, and their weights sum to 1.",
        {
            "You took the softmax over all experts before choosing; the kept weights do not sum to 1. "
            "Choose first, or divide by what was kept.":
                spread(best.indices, logits.softmax(-1).gather(-1, best.indices)),
            "You kept the smallest logits: the router wants the largest.":
                spread(least.indices, least.values.softmax(-1)),
            "Your softmax runs down the tokens; each token's weights must sum to 1: dim=-1.":
                spread(best.indices, best.values.softmax(0)),
            "All your weights are the same: the kept logits decide how much each expert counts.":
                spread(best.indices, torch.full((7, k), 1 / k)),
            "You returned the logits: take the softmax of the kept ones.": spread(best.indices, best.values),
            "You divided the logits by their sum; weights are a softmax: exp first.":
                spread(best.indices, best.values / own_sum),
            "You used a sigmoid, as some other mixtures do; gpt-oss takes a softmax over the kept logits.":
                spread(best.indices, sigmoid),
            "You divided sigmoids by their sum; gpt-oss takes a softmax over the kept logits.":
                spread(best.indices, sigmoid / sigmoid.sum(-1, keepdim=True)),
            "Choice and weight are in different orders: the right weights, each for another expert. "
            "Sort both together.": spread(best.indices.sort(-1).values, kept),
            "You chose by size without sign; a very negative logit is a strong no.":
                spread(strongest, logits.gather(-1, strongest).softmax(-1)),
        },
    )  # fmt: skip
