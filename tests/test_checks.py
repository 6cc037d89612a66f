"""Every check of an exercise says Right to the right answer, and names each mistake that it knows."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from check_cases import CACHES, DIFFERENCES, QK_NORMS

from gptoss_lab import checks, model
from gptoss_lab.checks import judging
from gptoss_lab.terminal import COLUMNS


def route(weigh, choose=lambda logits, k: logits.topk(k).indices):
    """A router from a choice and a way to weigh what was chosen: weigh(kept T K, logits T E, choice T K)."""

    def own(logits, k):
        choice = choose(logits, k)
        return choice, weigh(logits.gather(-1, choice), logits, choice)

    return own


def paired_wrongly(logits, k):
    best = logits.topk(k)
    return best.indices.sort(-1).values, best.values.softmax(-1)


ROUTER = [
    ("Right", route(lambda kept, logits, choice: kept.softmax(-1))),
    ("Right", route(lambda kept, *_: kept.softmax(-1), lambda x, k: x.topk(k).indices.flip(-1))),
    ("over all experts before choosing", route(lambda _, x, choice: x.softmax(-1).gather(-1, choice))),
    ("smallest logits", route(lambda kept, *_: kept.softmax(-1), lambda x, k: (-x).topk(k).indices)),
    ("down the tokens", route(lambda kept, *_: kept.softmax(0))),
    ("all your weights are the same", route(lambda kept, *_: torch.ones_like(kept) / kept.shape[-1])),
    ("returned the logits", route(lambda kept, *_: kept)),
    ("divided the logits by their sum", route(lambda kept, *_: kept / kept.sum(-1, keepdim=True))),
    ("used a sigmoid", route(lambda kept, *_: kept.sigmoid())),
    ("divided sigmoids", route(lambda kept, *_: kept.sigmoid() / kept.sigmoid().sum(-1, keepdim=True))),
    ("different orders", paired_wrongly),
    ("without sign", route(lambda kept, *_: kept.softmax(-1), lambda x, k: x.abs().topk(k).indices)),
    ("two tensors", lambda logits, k: logits.topk(k).values.softmax(-1)),
    ("two tensors", lambda logits, k: None),
    ("`choice` is (7, 6)", lambda logits, k: (logits.argsort(-1), logits.softmax(-1))),
    ("`weight` is list", lambda logits, k: (logits.topk(k).indices, [1.0])),
    ("experts' numbers", lambda logits, k: logits.topk(k)),
]


def oss(g, u, alpha=1.702):
    return g * torch.sigmoid(alpha * g) * (u + 1)


SWIGLU = [
    ("Right", lambda g, u: oss(g.clamp(max=7), u.clamp(-7, 7))),
    ("plain SwiGLU", lambda g, u: torch.nn.functional.silu(g) * u),
    ("You did clamp", lambda g, u: torch.nn.functional.silu(g.clamp(max=7)) * u.clamp(-7, 7)),
    ("1.702 inside", lambda g, u: oss(g.clamp(max=7), u.clamp(-7, 7), 1.0)),
    ("+ 1 is missing", lambda g, u: oss(g.clamp(max=7), u.clamp(-7, 7) - 1)),
    ("nothing is clamped", oss),
    ("the gate is not clamped", lambda g, u: oss(g, u.clamp(-7, 7))),
    ("up is not clamped", lambda g, u: oss(g.clamp(max=7), u)),
    ("gate from below too", lambda g, u: oss(g.clamp(-7, 7), u.clamp(-7, 7))),
    ("up from above only", lambda g, u: oss(g.clamp(max=7), u.clamp(max=7))),
    ("added 1 before clamping", lambda g, u: oss(g.clamp(max=7), (u + 1).clamp(-7, 7) - 1)),
    ("changed places", lambda g, u: oss(u.clamp(max=7), g.clamp(-7, 7))),
    ("gate itself is missing", lambda g, u: torch.sigmoid(1.702 * g.clamp(max=7)) * (u.clamp(-7, 7) + 1)),
    ("returned None", lambda g, u: None),
    ("returned float", lambda g, u: 1.0),
    ("shape (3, 40)", lambda g, u: oss(g.T, u.T)),
    ("inf or nan", lambda g, u: g / 0),
    ("none of the mistakes known", lambda g, u: g + u),
]


def pairs(rule, there=True):
    """A window from a rule on q and k; `there` hides keys at −1."""

    def own(query, key, window):
        q, k = query[:, :, None], key[:, None, :]
        seen = rule(q, k, window)
        return seen & (k >= 0) if there else seen

    return own


def by_place(query, key, window):
    t, s = torch.arange(query.shape[1])[:, None], torch.arange(key.shape[1])[None]
    return (s <= t) & (t - s < window) & (key >= 0)[:, None, :]


WINDOWS = [
    ("Right", pairs(lambda q, k, w: (k <= q) & (q - k < w))),
    ("127 keys instead of 128. The query's own", pairs(lambda q, k, w: (k < q) & (q - k < w))),
    ("begins one too early", pairs(lambda q, k, w: (k < q) & (q - k <= w))),
    ("129 keys instead of 128", pairs(lambda q, k, w: (k <= q) & (q - k <= w))),
    ("one too narrow", pairs(lambda q, k, w: (k <= q) & (q - k < w - 1))),
    ("see the future: k ≤ q is missing", pairs(lambda q, k, w: q - k < w)),
    ("ahead as far as back", pairs(lambda q, k, w: (q - k).abs() < w)),
    ("does nothing", pairs(lambda q, k, w: k <= q)),
    ("look forward instead of back", pairs(lambda q, k, w: (k >= q) & (k - q < w))),
    ("position −1", pairs(lambda q, k, w: (k <= q) & (q - k < w), there=False)),
    ("129 keys instead of 128. A key at q − k = 128 is out of sight: use <. You show keys at position −1",
     pairs(lambda q, k, w: (k <= q) & (q - k <= w), there=False)),
    ("compared places", by_place),
    ("True where a key is hidden", lambda query, key, w: ~model.visible(query, key, w)),
    ("True where a key is hidden",
     lambda query, key, w: torch.zeros(2, 5, 14).masked_fill(~model.visible(query, key, w), -math.inf)),
    ("yours is turned", lambda query, key, w: model.visible(query, key, w).mT),
    ("returned None", lambda query, key, w: None),
]  # fmt: skip


def joined(scores, sink, dim=-1):
    return torch.cat((scores, sink[:, None, None].expand(*scores.shape[:2], 1)), -1).softmax(dim)


def in_front(scores, sink):
    return torch.cat((sink[:, None, None].expand(*scores.shape[:2], 1), scores), -1).softmax(-1)


def over(scores, more):
    """The exponentials of the scores over their sum and `more`."""
    return scores.exp() / (scores.exp().sum(-1, keepdim=True) + more)


def renormalised(scores, sink):
    pattern = joined(scores, sink)[..., :-1]
    return pattern / pattern.sum(-1, keepdim=True)


def gated(scores, sink, sign=1):
    rest = scores.logsumexp(-1, keepdim=True) - sink[:, None, None]
    return scores.softmax(-1) * torch.sigmoid(sign * rest)


SINKS = [
    ("Right", lambda scores, sink: joined(scores, sink)[..., :-1]),
    ("Right", lambda scores, sink: in_front(scores, sink)[..., 1:]),
    ("Right", gated),
    ("rows sum to 1", lambda scores, sink: scores.softmax(-1)),
    ("rows sum to 1", lambda scores, sink: (scores + sink[:, None, None]).softmax(-1)),
    ("rows sum to 1", renormalised),
    ("kept the sink's column", joined),
    ("put the sink in front", lambda scores, sink: in_front(scores, sink)[..., :-1]),
    ("exp(sink), not sink", lambda scores, sink: over(scores, sink[:, None, None])),
    ("took the sink away", lambda scores, sink: over(scores, -sink[:, None, None].exp())),
    ("logit of 0", lambda scores, sink: over(scores, 1)),
    ("down the queries", lambda scores, sink: joined(scores, sink, dim=-2)[..., :-1]),
    ("sink's own share", lambda scores, sink: gated(scores, sink, -1)),
    ("the first one's sink", lambda scores, sink: joined(scores, sink[:1].expand(3))[..., :-1]),
]


def turned(x, positions, frequencies, before=1, after=1):
    """The half-split rotation, with the signs of its two sines."""
    angle = (positions[..., None] * frequencies)[..., None, :]
    x1, x2 = x.chunk(2, -1)
    first, second = x1 * angle.cos() - before * x2 * angle.sin(), x2 * angle.cos() + after * x1 * angle.sin()
    return torch.cat((first, second), -1)


def interleaved(x, positions, frequencies, back=True):
    order = torch.cat((torch.arange(0, 8, 2), torch.arange(1, 8, 2)))
    apart = turned(x[..., order], positions, frequencies)
    return apart[..., order.argsort()] if back else apart


ROTATIONS = [
    ("Right", turned),
    ("interleaved", interleaved),
    ("left them apart", lambda x, p, f: interleaved(x, p, f, back=False)),
    ("turned backwards", lambda x, p, f: turned(x, p, f, -1, -1)),
    ("positions from 1", lambda x, p, f: turned(x, p + 1, f)),
    ("counted the tokens yourself", lambda x, p, f: turned(x, p - p[:, :1], f)),
    ("nothing was turned", lambda x, p, f: x),
    ("two minuses", lambda x, p, f: turned(x, p, f, 1, -1)),
    ("two pluses", lambda x, p, f: turned(x, p, f, -1, 1)),
    ("halves have changed places", lambda x, p, f: turned(x, p, f).roll(4, -1)),
    ("divided the positions", lambda x, p, f: turned(x, p, 1 / f)),
]


def stretched(C, theta, yarn, ends=lambda x, up: x, whole=2 * math.pi, pairs=1.0):
    """YaRN's ramp over the pairs, and the plain frequencies: C/2 each."""
    at = lambda turns: pairs * C / 2 * math.log(yarn.original_context / (turns * whole)) / math.log(theta)
    low, high = ends(at(yarn.beta_fast), False), ends(at(yarn.beta_slow), True)
    i = torch.arange(C // 2)
    return ((i - low) / (high - low)).clamp(0, 1), theta ** (-2 * i / C)


def mixed(ramp, plain, by=32.0):
    return ramp * plain / by + (1 - ramp) * plain


def integer(x, up):
    return math.ceil(x) if up else math.floor(x)


YARN = [
    ("Right", lambda *a: mixed(*stretched(*a))),
    ("rounded the ramp's ends", lambda *a: mixed(*stretched(*a, ends=integer))),
    ("plain RoPE", lambda *a: stretched(*a)[1]),
    ("slowed every pair", lambda *a: stretched(*a)[1] / 32),
    ("upside down", lambda *a: mixed(1 - stretched(*a)[0], stretched(*a)[1])),
    ("stretched the wavelengths", lambda *a: 1 / mixed(stretched(*a)[0], 1 / stretched(*a)[1], 1 / 32)),
    ("runs over channels", lambda *a: mixed(*stretched(*a, pairs=2.0))),
    ("2π is missing", lambda *a: mixed(*stretched(*a, whole=1.0))),
    ("these are wavelengths", lambda *a: 2 * math.pi / mixed(*stretched(*a))),
    ("turn faster", lambda *a: mixed(*stretched(*a), by=1 / 32)),
]


def steps(model, tokens, blocks=slice(None), again=0):
    x = model.embed(tokens)
    for block in list(model.blocks)[blocks]:
        x = again * x + block(x)
    return x


WALKS = [
    ("Right", lambda m, t: m(t)),
    ("Right", lambda m, t: m.read_out(steps(m, t))),
    ("last norm is missing", lambda m, t: m.unembed(steps(m, t))),
    ("last norm runs twice", lambda m, t: m.read_out(m.norm(steps(m, t)))),
    ("last block is missing", lambda m, t: m.read_out(steps(m, t, slice(None, -1)))),
    ("first block is missing", lambda m, t: m.read_out(steps(m, t, slice(1, None)))),
    ("no block ran", lambda m, t: m.read_out(steps(m, t, slice(0)))),
    ("got the embedding", lambda m, t: m.read_out([block(m.embed(t)) for block in m.blocks][-1])),
    ("residual twice", lambda m, t: m.read_out(steps(m, t, again=1))),
    ("reverse order", lambda m, t: m.read_out(steps(m, t, slice(None, None, -1)))),
    ("last residual: read it out", steps),
    ("returned probabilities", lambda m, t: m(t).softmax(-1)),
    ("last position alone", lambda m, t: m(t, last=1)),
]


def size(x, eps=0.0, correction=0.0):
    return ((x - correction).square().mean(-1, keepdim=True) + eps).sqrt()


def share(parts, scale, eps, row, by=None):
    by = size(parts.sum(0), eps) if by is None else by
    return parts / by * scale @ row


def layer_normed(parts, scale, eps, row):
    total = parts.sum(0)
    return share(parts - parts.mean(-1, keepdim=True), scale, eps, row, size(total, eps, total.mean()))


PARTS = [
    ("Right", share),
    ("by its own size", lambda parts, *a: share(parts, *a, by=size(parts))),
    ("divide by the root mean square", lambda *a: share(*a, by=1)),
    ("norm is missing, and its scale", lambda parts, scale, eps, row: parts @ row),
    ("norm's scale is missing", lambda parts, scale, eps, row: share(parts, 1, eps, row)),
    ("take its root", lambda parts, *a: share(parts, *a, by=size(parts.sum(0)) ** 2)),
    ("divided by the length", lambda parts, *a: share(parts, *a, by=parts.sum(0).norm())),
    ("as LayerNorm does", layer_normed),
    ("made shares", lambda *a: share(*a) / share(*a).sum()),
    ("that is their sum", lambda *a: share(*a).sum()),
]

def to_length(x, length=12**0.5):
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True) * length


def off_the_ones(x, u):
    """x less what lies along u, at the length √D."""
    return to_length(x - (x @ u)[:, None] * u)


def token_norm(x, dim=-1, correction=0):
    return (x - x.mean(dim, keepdim=True)) / x.std(dim, correction=correction, keepdim=True)


NORMS = [
    ("Right", lambda x: off_the_ones(x, torch.full((12,), 12**-0.5))),
    ("Right", token_norm),
    ("that is RMSNorm", lambda x: x / size(x)),
    ("left the length as it was", lambda x: x - x.mean(-1, keepdim=True)),
    ("length 1", lambda x: to_length(x - x.mean(-1, keepdim=True), 1)),
    ("divided by the variance", lambda x: token_norm(x) / x.std(-1, correction=0, keepdim=True)),
    ("D − 1", lambda x: token_norm(x, correction=1)),
    ("before its mean was taken away", lambda x: (x / size(x)) - (x / size(x)).mean(-1, keepdim=True)),
    ("over the tokens", lambda x: token_norm(x, dim=0)),
    ("D times too much", lambda x: off_the_ones(x, torch.ones(12))),
    ("took x·u itself away", lambda x: to_length(x - (x @ torch.full((12,), 12**-0.5))[:, None])),
    ("kept the part along", lambda x: (x @ torch.ones(12)).sign()[:, None].expand(-1, 12)),
]


def bent(x, inner=lambda x: x + 0.044715 * x**3, c=(2 / math.pi) ** 0.5):
    return 0.5 * x * (1 + torch.tanh(c * inner(x)))


GELUS = [
    ("Right", bent),
    ("erf form", lambda x: x * torch.distributions.Normal(0, 1).cdf(x)),
    ("1.702 x", lambda x: x / (1 + torch.exp(-1.702 * x))),
    ("Swish", torch.nn.functional.silu),
    ("ReLU", lambda x: x.clamp(min=0)),
    ("cube is missing", lambda x: bent(x, lambda x: x)),
    ("you squared", lambda x: bent(x, lambda x: x + 0.044715 * x * x)),
    ("root is missing", lambda x: bent(x, c=2 / math.pi)),
    ("in brackets", lambda x: bent(x, lambda x: math.sqrt(2 / math.pi) * x + 0.044715 * x**3, 1.0)),
    ("half is missing", lambda x: 2 * bent(x)),
    ("the 1 is missing", lambda x: bent(x) - x / 2),
    ("x in front is missing", lambda x: bent(x) / x),
]

VALUES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def halves(blocks, order=(0, 1)):
    """The two codes of each byte as neighbours, the low one first: N n 32."""
    return torch.stack([(blocks & 15, blocks >> 4)[i] for i in order], -1).flatten(-2).long()


def powers(scales, bias=127):
    return 2.0 ** (scales[..., None].float() - bias)


def gguf(b, s):
    return (VALUES[torch.cat((b & 15, b >> 4), -1).long()] * powers(s)).flatten(-2)


def whole_numbers(b, s):
    return ((halves(b) ^ 8) - 8) * powers(s)


UNPACKED = [
    ("Right", lambda b, s: (VALUES[halves(b)] * powers(s)).flatten(-2)),
    ("high four bits first", lambda b, s: (VALUES[halves(b, (1, 0))] * powers(s)).flatten(-2)),
    ("all low halves", gguf),
    ("never negative", lambda b, s: (VALUES[halves(b)].abs() * powers(s)).flatten(-2)),
    ("numbers 0 to 15", lambda b, s: (halves(b) * powers(s)).flatten(-2)),
    ("from −8 to 7", lambda b, s: whole_numbers(b, s).flatten(-2)),
    ("scale is missing", lambda b, s: VALUES[halves(b)].flatten(-2)),
    ("scale byte itself", lambda b, s: (VALUES[halves(b)] * s[..., None]).flatten(-2)),
    ("with scale − 127", lambda b, s: (VALUES[halves(b)] * (s[..., None].int() - 127)).flatten(-2)),
    ("127 is missing", lambda b, s: (VALUES[halves(b)] * powers(s, 0)).flatten(-2)),
    ("not 128", lambda b, s: (VALUES[halves(b)] * powers(s, 128)).flatten(-2)),
    ("divided by the scale", lambda b, s: (VALUES[halves(b)] / powers(s)).flatten(-2)),
    ("first scale of each row", lambda b, s: (VALUES[halves(b)] * powers(s)[:, :1]).flatten(-2)),
    ("shape (5, 3, 32)", lambda b, s: VALUES[halves(b)] * powers(s)),
]


def of_experts(c, experts=None, matrices=3, bits=4.25, layers=None):
    experts = c.experts_per_token if experts is None else experts
    return (layers or c.n_layers) * experts * matrices * c.d_model * c.d_ff * bits / 8


READ = [
    ("Right", of_experts),
    ("counted all experts", lambda c: of_experts(c, c.n_experts)),
    ("one expert a layer", lambda c: of_experts(c, 1)),
    ("scales are missing", lambda c: of_experts(c, bits=4)),
    ("these are bits", lambda c: of_experts(c) * 8),
    ("that is bfloat16", lambda c: of_experts(c, bits=16)),
    ("one layer", lambda c: of_experts(c, layers=1)),
    ("two matrices an expert", lambda c: of_experts(c, matrices=2)),
    ("one matrix an expert", lambda c: of_experts(c, matrices=1)),
    ("returned None", lambda c: None),
]


def circling(tokens, size, first=0, nothing=-1):
    """By rule, not by writing: slot s holds the last position p with p % size == s."""
    ends = [[p for p in range(tokens) if (p + first) % size == s] for s in range(size)]
    return torch.tensor([found[-1] if found else nothing for found in ends])


def last_ones(tokens, size):
    return torch.arange(tokens)[-size:]


def padded(kept, size):
    return torch.cat((kept, torch.full((size - len(kept),), -1)))


RINGS = [
    ("Right", circling),
    ("but in order", lambda n, size: padded(last_ones(n, size), size)),
    ("one slot late", lambda n, size: circling(n, size, first=1)),
    ("hold the first tokens", lambda n, size: padded(torch.arange(n)[:size], size)),
    ("yours say position 0", lambda n, size: circling(n, size, nothing=0)),
    ("newest first", lambda n, size: padded(last_ones(n, size).flip(0), size)),
    ("left out the last", lambda n, size: circling(n - 1, size)),
    ("returned None", lambda n, size: None),
    ("has shape", lambda n, size: torch.arange(n)),
]


def summing_to_one(row):
    return row / max(float(row.sum()), 1e-9)


def nucleus(row, p, crossing=True, likeliest=True):
    """A token is kept if those likelier than it (or, wrongly, with itself) have not reached p."""
    ahead = row[None, :] > row[:, None] if likeliest else row[None, :] < row[:, None]
    before = (ahead * row).sum(-1)
    kept = before < p if crossing else before + row < p
    return torch.where(kept, row, 0.0)


TOP_P = [
    ("Right", lambda row, p: summing_to_one(nucleus(row, p))),
    ("crosses p is missing", lambda row, p: summing_to_one(nucleus(row, p, crossing=False))),
    ("nothing was cut", lambda row, p: row),
    ("does not sum to 1", nucleus),
    ("unlikeliest", lambda row, p: summing_to_one(nucleus(row, p, likeliest=False))),
    ("are sorted", lambda row, p: summing_to_one(nucleus(row, p)).sort(descending=True).values),
    ("with p; compare their running sum, from", lambda row, p: torch.where(row >= p, row, 0.0)),
    ("divide by the sum kept", lambda row, p: summing_to_one(torch.where(row >= p, row, 0.0))),
    ("min-p", lambda row, p: summing_to_one(torch.where(row >= p * row.max(), row, 0.0))),
    ("returned None", lambda row, p: None),
]

T3 = 4.303 / 3**0.5


def alone(t):
    """Two groups, each with its own spread."""
    return lambda a, b: ((a - b).mean(), t * ((a.var() + b.var()) / 3).sqrt())


PAIRED = [
    ("Right", lambda a, b: ((a - b).mean(), T3 * (a - b).std())),
    ("Right", lambda a, b: (float((a - b).mean()), float(T3 * (a - b).std()))),
    ("the sign", lambda a, b: ((b - a).mean(), T3 * (a - b).std())),
    ("standard deviation of the differences", alone(4.303)),
    ("two groups, with 1.96", alone(1.96)),
    ("1.96 is for many", lambda a, b: ((a - b).mean(), 1.96 / 3**0.5 * (a - b).std())),
    ("t for four values", lambda a, b: ((a - b).mean(), 3.182 / 3**0.5 * (a - b).std())),
    ("spread of one seed", lambda a, b: ((a - b).mean(), 4.303 * (a - b).std())),
    ("not by n", lambda a, b: ((a - b).mean(), 4.303 / 3 * (a - b).std())),
    ("standard error", lambda a, b: ((a - b).mean(), (a - b).std() / 3**0.5)),
    ("it is n − 1", lambda a, b: ((a - b).mean(), T3 * (a - b).std(correction=0))),
    ("half the width", lambda a, b: ((a - b).mean(), 2 * T3 * (a - b).std())),
    ("variance", lambda a, b: ((a - b).mean(), T3 * (a - b).var())),
    ("two numbers", lambda a, b: (a - b).mean()),
]


def units(d, f):
    """Parameters of GPT-2's MLP, less the bias of its answer, over those of one gated unit."""
    return (2 * d * f + f) / (3 * d + 2)


WIDTHS = [
    ("Right", lambda d, f: round(units(d, f))),
    ("kept the width", lambda d, f: f),
    ("halved", lambda d, f: round(f / 2)),
    ("but for the biases", lambda d, f: round(f * 2 / 3)),
    ("upside down", lambda d, f: round(f * 3 / 2)),
    ("rounded down", lambda d, f: math.floor(units(d, f))),
    ("not 3D + 1", lambda d, f: round(f * (2 * d + 1) / (3 * d + 1))),
    ("whole number: round it", units),
    ("returned NoneType", lambda d, f: None),
]

ALL = {
    checks.unpack: UNPACKED, checks.expert_bytes: READ, checks.ring: RINGS, checks.top_p: TOP_P,
    checks.paired: PAIRED, checks.width: WIDTHS,
    checks.layer_norm: NORMS, checks.gelu: GELUS,
    checks.router_weights: ROUTER, checks.swiglu: SWIGLU, checks.window: WINDOWS, checks.sink: SINKS,
    checks.rotate: ROTATIONS, checks.yarn: YARN, checks.walk: WALKS, checks.contributions: PARTS,
    checks.difference: DIFFERENCES, checks.cache: CACHES, checks.qk_norm: QK_NORMS,
}  # fmt: skip
CASES = [(check, phrase, own) for check, cases in ALL.items() for phrase, own in cases]


@pytest.mark.parametrize(("check", "phrase", "own"), CASES, ids=[f"{c.__name__}: {p}" for c, p, _ in CASES])
def test_a_check_says_what_is_likely_wrong(check, phrase, own):
    answer = check(own)
    assert phrase.lower() in answer.said.lower(), answer
    assert bool(answer) is answer.right is (phrase == "Right")
    lines = repr(answer).splitlines()
    assert " ".join(lines) == answer.said and max(map(len, lines)) <= COLUMNS


@pytest.mark.parametrize("check", ALL, ids=[check.__name__ for check in ALL])
def test_every_mistake_a_check_knows_is_made_here(check):
    """Each mistake in the dictionaries of `judge` is reached by a wrong answer above, and by one alone."""
    known = []

    def spy(given, right, praise, mistakes, atol=1e-6):
        known.extend(mistakes.items())
        return checks.Answer(False, "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "judge", spy)
        check(ALL[check][0][1])
    said = {check(own).said for _, own in ALL[check]}
    padded = "You show keys at position −1"  # each rule of a window has this second form; one is tried above
    unmade = [name for name, _ in known if name not in said and padded not in name]
    assert not unmade
    same = [(a, b) for i, (a, x) in enumerate(known) for b, y in known[:i] if judging.agree(x, y, 1e-9)]
    assert not same


def test_every_public_check_is_tried():
    """A check is a function whose first argument is `own`."""
    functions = [f for f in vars(checks).values() if inspect.isfunction(f)]
    assert {f for f in functions if "own" in inspect.signature(f).parameters} == set(ALL)


def test_what_a_students_function_raises_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        checks.swiglu(lambda gate, up: 1 / 0)


def test_a_check_gives_copies():
    """A function that writes into what it was given spoils nothing."""
    assert not checks.rotate(lambda x, positions, frequencies: x.zero_())
    assert checks.rotate(turned)
