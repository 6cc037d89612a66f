"""Checks of what a token may look at, of the sink, of rotations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import model as lab
from ..config import Yarn
from . import judging
from .judging import Answer, Own, made_up


def window(own: Own) -> Answer:
    """own(query B T, key B S, window) → B T S, True where key k is seen: k ≥ 0, k ≤ q, q − k < window."""
    query = torch.tensor([[9, 10, 11, 12, 13], [0, 1, 2, 3, 4]])
    key = torch.tensor([[12, 13, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3], [-1] * 9 + [0, 1, 2, 3, 4]])
    size = 4
    given = own(query.clone(), key.clone(), size)
    q, k, there = query[:, :, None], key[:, None, :], (key >= 0)[:, None, :]
    right = lab.visible(query, key, size)
    t, s = torch.arange(5)[None, :, None], torch.arange(14)[None, None, :]
    rules = {
        "Your window leaves out the query itself: 127 keys instead of 128. The query's own key counts.":
            (k < q) & (q - k < size),
        "Your window leaves out the query itself, and begins one too early: the 128 keys before it. "
        "The query's own key counts as one of them.": (k < q) & (q - k <= size),
        "Your window is one too wide: 129 keys instead of 128. A key at q − k = 128 is out of sight: use <.":
            (k <= q) & (q - k <= size),
        "Your window is one too narrow: 127 keys instead of 128. The farthest seen has q − k = 127.":
            (k <= q) & (q - k < size - 1),
        "Your queries see the future: k ≤ q is missing.": (q - k < size) & (k == k),
        "Your queries see the future: the window reaches ahead as far as back. k ≤ q is missing.":
            (q - k).abs() < size,
        "Your window does nothing: the queries see everything before them.": (k <= q) & (q == q),
        "You look forward instead of back: k and q have changed places.": (k >= q) & (k - q < size),
    }  # fmt: skip
    padding = "You show keys at position −1, where there is nothing: k ≥ 0 is missing."
    mistakes = {padding: (k <= q) & (q - k < size)}
    for said, seen in rules.items():
        mistakes[said] = seen & there
        if (seen & ~there).any():
            mistakes[f"{said} {padding}"] = seen
    mistakes |= {
        "You compared places in the tensors; a cache does not keep its keys in order: compare positions.":
            (s <= t) & (t - s < size) & there,
        "Your answer is True where a key is hidden; here True means seen.": ~right,
        "Queries go down and keys across, B T S: yours is turned.": right.transpose(1, 2),
    }  # fmt: skip
    given = given.bool() if isinstance(given, Tensor) else given
    return judging.judge(given, right, "gpt-oss's 128 keys, the query's own among them.", mistakes)


def sink(own: Own) -> Answer:
    """own(scores H T S, sink H) → pattern H T S: the sink joins the softmax, its column is dropped."""
    scores, logit = made_up(3, 5, 5), torch.tensor([1.5, -0.5, 0.7])
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
    column = logit[:, None, None].expand(3, 5, 1)
    both = torch.cat((scores, column), -1)
    share, weight = both.softmax(-1), scores.exp()
    total, lse = weight.sum(-1, keepdim=True), scores.logsumexp(-1, keepdim=True)
    return judging.judge(
        own(scores.clone(), logit.clone()), share[..., :-1], "each row sums to 1 less what its sink takes.",
        {
            "Your rows sum to 1: the sink took nothing. It is missing, or was added to every score (which a "
            "softmax does not notice), or you normalised again after dropping it.": scores.softmax(-1),
            "You kept the sink's column; it has no value to mix in. Drop the last column after the softmax.":
                share,
            "You put the sink in front and dropped the last column, which is a key. Drop the sink's.":
                torch.cat((column, scores), -1).softmax(-1)[..., :-1],
            "The sink is a logit: its share is exp(sink), not sink.": weight / (total + column),
            "You took the sink away from the sum; it joins it.": weight / (total - column.exp()),
            "Your sink has a logit of 0; each head has learned its own.": weight / (total + 1),
            "Your softmax runs down the queries; a query shares its attention among keys and sink: dim=-1.":
                both.softmax(-2)[..., :-1].nan_to_num(),
            "You multiplied by the sink's own share: the pattern keeps the rest, sigmoid(lse − sink).":
                scores.softmax(-1) * torch.sigmoid(column - lse),
            "All heads have the first one's sink: each has its own.":
                torch.cat((scores, column[:1].expand(3, 5, 1)), -1).softmax(-1)[..., :-1],
        },
    )  # fmt: skip


def rotate(own: Own) -> Answer:
    """own(x B T H C, positions B T, frequencies C/2) → x turned, channel i together with i + C/2."""
    x, frequencies = made_up(2, 5, 3, 8), lab.frequencies(8, 100.0)
    positions = torch.tensor([[3, 4, 5, 6, 7], [0, 1, 2, 3, 4]])
    angle = (positions[..., None] * frequencies)[..., None, :]
    cos, sin, (x1, x2) = angle.cos(), angle.sin(), x.chunk(2, -1)
    even, odd = x[..., 0::2], x[..., 1::2]
    neighbours = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
    join = lambda first, second: torch.cat((first, second), -1)
    one, two = x1 * cos - x2 * sin, x2 * cos + x1 * sin
    return judging.judge(
        own(x.clone(), positions.clone(), frequencies.clone()), lab.rotate(x, positions, frequencies),
        "every pair turned by position × frequency.",
        {
            "You rotated neighbouring channels (interleaved); gpt-oss pairs i with i + C/2.": neighbours,
            "You rotated neighbouring channels and left them apart; gpt-oss pairs i with i + C/2.":
                join(even * cos - odd * sin, odd * cos + even * sin),
            "You turned backwards: the minus belongs to the first half.":
                lab.rotate(x, -positions, frequencies),
            "You counted positions from 1; the first is 0.": lab.rotate(x, positions + 1, frequencies),
            "You counted the tokens yourself; turn by the `positions` that were given.":
                lab.rotate(x, torch.arange(5).expand(2, 5), frequencies),
            "Nothing was turned: this is x itself.": x,
            "A sign is wrong: with two minuses the lengths change. The second half is x2·cos + x1·sin.":
                join(one, x2 * cos - x1 * sin),
            "A sign is wrong: with two pluses the lengths change. The first half is x1·cos − x2·sin.":
                join(x1 * cos + x2 * sin, two),
            "The two halves have changed places.": join(two, one),
            "You divided the positions by the frequencies: multiply.":
                lab.rotate(x, positions, 1 / frequencies),
        },
    )  # fmt: skip


def yarn(own: Own) -> Answer:
    """own(d_head, theta, yarn) → C/2 frequencies: fast pairs kept, slow ones slowed, a ramp between."""
    C, theta, stretch = 64, 150000.0, Yarn()
    plain = lab.frequencies(C, theta)
    pair = torch.arange(C // 2, dtype=torch.float64)

    def turning(times: float, around: float = 2 * math.pi) -> float:
        return C / 2 * math.log(stretch.original_context / (times * around)) / math.log(theta)

    def ramped(low: float, high: float) -> Tensor:
        return ((pair - low) / (high - low)).clamp(0, 1)

    low, high = turning(stretch.beta_fast), turning(stretch.beta_slow)
    ramp, by = ramped(low, high), stretch.factor
    slow = lambda ramp: ramp * plain / by + (1 - ramp) * plain
    return judging.judge(
        own(C, theta, stretch), lab.frequencies(C, theta, stretch), "gpt-oss-20b's own 32 frequencies.",
        {
            "You rounded the ramp's ends; gpt-oss leaves them as they are (pair 17 comes out 76 % off).":
                slow(ramped(math.floor(low), math.ceil(high))),
            "That is plain RoPE: nothing is slowed.": plain,
            "You slowed every pair: the fast ones keep their frequency.": plain / by,
            "Your ramp is upside down: the slow pairs (large i) are slowed, the fast ones kept.":
                slow(1 - ramp),
            "You stretched the wavelengths along the ramp; YaRN mixes the frequencies.":
                plain / (ramp * by + 1 - ramp),
            "Your ramp runs over channels; it runs over the C/2 pairs.": slow(ramped(2 * low, 2 * high)),
            "The 2π is missing: a pair turns once in 2π / frequency tokens.":
                slow(ramped(turning(stretch.beta_fast, 1.0), turning(stretch.beta_slow, 1.0))),
            "These are wavelengths: give frequencies, radians a token.": 2 * math.pi / slow(ramp),
            "Your slow pairs turn faster: divide by the factor.": ramp * plain * by + (1 - ramp) * plain,
        },
        atol=0.0,
    )  # fmt: skip
