"""Answers to the exercises: a student's function is run on made-up numbers, and told what is likely wrong.

    checks.window(my_visible)    # Your window leaves out the query itself: 127 keys instead of 128. …

A check compares with the model's own function, and where that fails with what well-known mistakes would have
given on the same numbers. It answers with an `Answer`, true when right; what the student's function raises is
left to its own traceback.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import model as lab
from .config import Config, Yarn

Own = Callable[..., Any]  # what a student wrote


@dataclass(frozen=True)
class Answer:
    """What a check says: whether it is right, and words, which are its repr so that a cell may end in it."""

    right: bool
    said: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.said


def judge(
    given: Any, right: Tensor, praise: str, mistakes: Mapping[str, Tensor], atol: float = 1e-6
) -> Answer:
    """`given` against the right numbers, then against those of each mistake, whose name is what is said."""
    if given is None:
        return Answer(False, "Your function returned None: end it with `return`.")
    if not isinstance(given, Tensor):
        return Answer(False, f"Your function returned {type(given).__name__}; expected a tensor.")
    if agree(given, right, atol):
        return Answer(True, f"Right: {praise}")
    for said, numbers in mistakes.items():
        if agree(given, numbers, atol):
            return Answer(False, said)
    if given.shape != right.shape:
        return Answer(False, f"Your answer has shape {tuple(given.shape)}; expected {tuple(right.shape)}.")
    if not given.isfinite().all():
        return Answer(False, "Your answer holds inf or nan: look for a division by 0, or a logarithm of 0.")
    apart = (given.double() - right.double()).abs()
    at = tuple(int(i) for i in (apart == apart.max()).nonzero()[0])
    return Answer(
        False,
        f"Not yet, and by none of the mistakes known here: {int((apart > atol).sum())} of "
        f"{apart.numel()} values differ, most at {list(at)}: "
        f"yours is {float(given[at]):.4g}, right is {float(right[at]):.4g}.",
    )


def agree(a: Tensor, b: Tensor, atol: float) -> bool:
    """Whether two tensors have one shape and, but for rounding, the same numbers."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=atol)


def made_up(*shape: int, seed: int = 0) -> Tensor:
    """Normal random numbers, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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
    return judge(
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


def swiglu(own: Own) -> Answer:
    """own(gate, up) → gpt-oss's activation, with its clamps at 7, its 1.702 and its + 1."""
    gate, up = made_up(40, 3) * 6, made_up(40, 3, seed=1) * 6
    g, u = gate.clamp(max=7), up.clamp(-7, 7)
    sig = lambda x: torch.sigmoid(1.702 * x)
    plain = "This is a plain SwiGLU, silu(gate) · up: hidden_act says silu, but gpt-oss does something else."
    return judge(
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
    return judge(given, right, "gpt-oss's 128 keys, the query's own among them.", mistakes)


def sink(own: Own) -> Answer:
    """own(scores H T S, sink H) → pattern H T S: the sink joins the softmax, its column is dropped."""
    scores, logit = made_up(3, 5, 5), torch.tensor([1.5, -0.5, 0.7])
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
    column = logit[:, None, None].expand(3, 5, 1)
    both = torch.cat((scores, column), -1)
    share, weight = both.softmax(-1), scores.exp()
    total, lse = weight.sum(-1, keepdim=True), scores.logsumexp(-1, keepdim=True)
    return judge(
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
    return judge(
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
    return judge(
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


def small() -> lab.Transformer:
    """A gpt-oss of three layers with large random weights, so that every mistake shows."""
    config = Config(
        name="three layers", family="gpt-oss", n_layers=3, d_model=24, n_heads=4, n_kv_heads=2, d_head=6,
        d_ff=10, vocab_size=29, context=64, window=3, sinks=True, n_experts=5, experts_per_token=2,
    )  # fmt: skip
    model = lab.Transformer.random(config)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.add_(made_up(*weight.shape, seed=number), alpha=0.3)
    return model


@torch.no_grad()
def walk(own: Own) -> Answer:
    """own(model, tokens B T) → logits B T V, by embedding, every block in turn, and reading out."""
    model, tokens = small(), torch.tensor([[3, 11, 7, 28, 0, 19]])
    first, second, third = model.blocks
    start, read = model.embed(tokens), model.read_out
    one = first(start)
    end = third(second(one))
    right = read(end)
    twice = start
    for block in model.blocks:
        twice = twice + block(twice)
    return judge(
        own(model, tokens.clone()), right, "the model's own logits.",
        {
            "The last norm is missing: `model.read_out` normalises, then unembeds.": model.unembed(end),
            "The last norm runs twice: `model.read_out` brings its own.": read(model.norm(end)),
            "The last block is missing.": read(second(one)),
            "The first block is missing.": read(third(second(start))),
            "No block ran: that reads out the embedding.": read(start),
            "Every block got the embedding, not what the block before it made: write `x = block(x)`.":
                read(third(start)),
            "You added the residual twice: a block returns x with its part added, so `x = block(x)`.":
                read(twice),
            "The blocks ran in reverse order.": read(first(second(third(start)))),
            "That is the last residual: read it out.": end,
            "You returned probabilities; logits come before the softmax.": right.softmax(-1),
            "That is the last position alone; give logits for all of them.": right[:, -1:],
        },
        atol=1e-5,
    )  # fmt: skip


def contributions(own: Own) -> Answer:
    """own(parts N D, scale D, eps, row D) → N: what each part of the residual adds to one token's logit."""
    parts, scale, row, eps = made_up(5, 12) * 2, made_up(12, seed=1) + 2, made_up(12, seed=2), 1e-5
    total = parts.sum(0)
    square = total.square().mean() + eps
    right = parts / square.sqrt() * scale @ row
    each = parts / (parts.square().mean(-1, keepdim=True) + eps).sqrt()
    return judge(
        own(parts.clone(), scale.clone(), eps, row.clone()), right, "the parts add up to the logit.",
        {
            "You normalised every part by its own size; divide by the size of their sum, or they do not "
            "add up to the logit.": each * scale @ row,
            "The norm is missing: divide by the root mean square of the sum of the parts.":
                parts * scale @ row,
            "The norm is missing, and its scale: (part / size of the sum) · scale · row.": parts @ row,
            "The norm's scale is missing.": parts / square.sqrt() @ row,
            "You divided by the mean square; take its root.": parts / square * scale @ row,
            "You divided by the length; the norm divides by the root mean square, √D times smaller.":
                parts / total.norm() * scale @ row,
            "You subtracted the mean, as LayerNorm does; RMSNorm only divides.":
                (parts - parts.mean(-1, keepdim=True)) / (total.var(correction=0) + eps).sqrt() * scale @ row,
            "You made shares of them; contributions are parts of a logit and may be negative.":
                right / right.sum(),
            "That is their sum, the logit; give one number a part.": right.sum(),
        },
    )  # fmt: skip
