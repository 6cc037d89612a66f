"""Norms, rotation, visibility and attention against their definitions, and values known in advance."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from definitions import attention, frequencies_of, is_defined, noise
from torch import Tensor
from toys import (
    gpt_oss,
    on_the_road,
    one_thread,
    qwen3,
    random_model,
    random_tokens,
    record,
)

from gptoss_lab.config import NAMED, Yarn
from gptoss_lab.model import (
    attend,
    attend_fused,
    concentration,
    frequencies,
    layer_norm,
    rms_norm,
    rotate,
    visible,
)
from gptoss_lab.model.rope import ramp_ends

pytestmark = pytest.mark.usefixtures(one_thread.__name__)

YARN = Yarn(factor=32.0, original_context=4096, beta_fast=32.0, beta_slow=1.0)


# ---- norms


def test_rms_norm_is_its_definition():
    x, scale, eps = noise(4, 10, scale=3.0), noise(10, seed=1) + 1, 0.7
    defined = []
    for row in x.tolist():
        mean_square = sum(v * v for v in row) / len(row)
        defined.append([v / math.sqrt(mean_square + eps) * s for v, s in zip(row, scale.tolist())])
    is_defined(rms_norm(x, scale, eps), defined)


def test_layer_norm_is_its_definition():
    x, scale, bias, eps = noise(4, 10, scale=3.0) + 2, noise(10, seed=1) + 1, noise(10, seed=2), 0.7
    defined = []
    for row in x.tolist():
        mean = sum(row) / len(row)
        variance = sum((v - mean) ** 2 for v in row) / len(row)
        unit = [(v - mean) / math.sqrt(variance + eps) for v in row]
        defined.append([u * s + b for u, s, b in zip(unit, scale.tolist(), bias.tolist())])
    is_defined(layer_norm(x, scale, bias, eps), defined)


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
def test_eps_is_felt_where_the_numbers_are_small(eps):
    """A residual of 0.001: the two families' eps give answers 38 % apart."""
    x = torch.full((1, 4), 1e-3)
    is_defined(rms_norm(x, torch.ones(4), eps), [[1e-3 / math.sqrt(1e-6 + eps)] * 4])


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_the_scale_is_applied_before_the_cast(norm):
    x, scale, bias = noise(64, 10).bfloat16(), noise(10, seed=1) + 1, noise(10, seed=2)

    def normed(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return rms_norm(x, scale, 1e-5) if norm == "rms" else layer_norm(x, scale, bias, 1e-5)

    ours = normed(x, scale, bias)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, normed(x.float(), scale, bias).bfloat16())
    unit = normed(x.float(), torch.ones(10), torch.zeros(10)).bfloat16()
    cast_first = (unit.float() * scale + (bias if norm == "layer" else 0)).bfloat16()
    assert not torch.equal(ours, cast_first)


# ---- rotation and YaRN


# ---- rotation and YaRN


def test_the_frequencies_of_gpt_oss_are_the_known_ones():
    golden = {
        0: 1.0,
        8: 0.0508132748,
        9: 0.0317056962,
        12: 0.0067949595,
        17: 1.2931870e-4,
        18: 3.8308812e-5,
        31: 3.0235114e-7,
    }
    ours = frequencies(64, 150000.0, YARN)
    assert ours.shape == (32,) and ours.dtype == torch.float32
    for i, value in golden.items():
        assert ours[i].item() == pytest.approx(value, rel=5e-7), i
    model = NAMED["gpt-oss-20b"]
    assert torch.equal(frequencies(model.d_head, model.rope_theta, model.yarn), ours)


def test_the_ends_of_yarns_ramp_are_not_rounded():
    assert ramp_ends(64, 150000.0, YARN) == pytest.approx((8.092779115512402, 17.39802450158856), abs=1e-12)
    rounded = Yarn(rounded=True)
    assert ramp_ends(64, 150000.0, rounded) == (8, 18)
    wrong = frequencies(64, 150000.0, rounded)[17] / frequencies(64, 150000.0, YARN)[17]
    assert wrong.item() == pytest.approx(1.76, abs=0.01), "rounding makes pair 17 turn 76 % too fast"


@pytest.mark.parametrize(
    "yarn", [None, YARN, Yarn(rounded=True), gpt_oss().yarn, Yarn(4.0, 8, 1.0, 0.25, rounded=True)], ids=str
)
@pytest.mark.parametrize("d_head, theta", [(64, 150000.0), (6, 50.0), (128, 1e6)])
def test_frequencies_are_their_definition(d_head, theta, yarn):
    defined = torch.tensor(frequencies_of(d_head, theta, yarn), dtype=torch.float64)
    torch.testing.assert_close(frequencies(d_head, theta, yarn).double(), defined, rtol=3e-6, atol=0)


def test_the_concentration_is_the_known_one():
    assert concentration(YARN) == pytest.approx(1.3465735902799727, abs=1e-15)
    assert concentration(None) == 1.0
    assert concentration(Yarn(factor=1.0)) == 1.0


@pytest.mark.parametrize("stretch", [1.0, 1.3465735902799727])
def test_rotation_is_its_definition(stretch):
    x, freq = noise(2, 5, 3, 6), [1.0, 0.3, 0.02]
    positions = torch.tensor([[0, 1, 2, 3, 50], [-1, -1, 0, 1, 2]])
    defined = x.double().clone()
    for b, t, h, i in product(range(2), range(5), range(3), range(3)):
        angle = positions[b, t].item() * freq[i]
        x1, x2 = x[b, t, h, i].item(), x[b, t, h, i + 3].item()  # a pair is one number of each half
        defined[b, t, h, i] = stretch * (x1 * math.cos(angle) - x2 * math.sin(angle))
        defined[b, t, h, i + 3] = stretch * (x2 * math.cos(angle) + x1 * math.sin(angle))
    is_defined(rotate(x, positions, torch.tensor(freq), stretch), defined.tolist(), atol=1e-5)


def test_the_concentration_multiplies_at_every_position():
    """q and k are both longer by it, position 0 included, so scores grow by its square: 1.8132604."""
    x, positions, freq = noise(1, 9, 2, 64), torch.arange(9)[None] * 1000, frequencies(64, 150000.0, YARN)
    turned = rotate(x, positions, freq, concentration(YARN))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1) * 1.3465735902799727, rtol=1e-5, atol=0)
    torch.testing.assert_close(turned[:, 0], x[:, 0] * 1.3465735902799727)


def test_the_models_turn_by_their_own_frequencies_and_concentration():
    for family in (gpt_oss, qwen3, on_the_road):
        config = family()
        model = random_model(config)
        kept = record(model, random_tokens(config))
        before = kept["blocks.1.attention.k_normed" if config.qk_norm else "blocks.1.attention.k"]
        freq = torch.tensor(frequencies_of(config.d_head, config.rope_theta, config.yarn))
        positions = torch.arange(9).expand(3, -1)
        expected = rotate(before, positions, freq, 0.1 * math.log(4.0) + 1 if config.yarn else 1.0)
        torch.testing.assert_close(kept["blocks.1.attention.k_rotated"], expected, atol=1e-5, rtol=1e-5)


# ---- which keys are seen


def seen_keys(query: list[int], key: list[int], window: int | None = None) -> list[list[int]]:
    """The positions of the keys that each query sees."""
    rows = visible(torch.tensor([query]), torch.tensor([key]), window)[0]
    return [[k for k, yes in zip(key, row.tolist()) if yes] for row in rows]


def test_a_query_sees_itself_and_what_came_before():
    assert seen_keys([0, 1, 2, 3], [0, 1, 2, 3]) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]


def test_a_window_counts_the_query_itself():
    assert seen_keys([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], 1) == [[0], [1], [2], [3], [4]]
    assert seen_keys([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], 3) == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_gpt_oss_sees_128_keys():
    rows = seen_keys(list(range(200)), list(range(200)), 128)
    assert [len(rows[q]) for q in (0, 126, 127, 128, 199)] == [1, 127, 128, 128, 128]
    assert [rows[q][0] for q in (127, 128, 199)] == [0, 1, 72]
    assert all(row[-1] == q for q, row in enumerate(rows))


def test_padding_is_never_seen_and_sees_nothing():
    assert seen_keys([-1, -1, 0, 1], [-1, -1, 0, 1]) == [[], [], [0], [0, 1]]
    assert seen_keys([-1, 0], [-1, 0], 5) == [[], [0]]


def test_keys_may_lie_in_any_order():
    """As they do in a ring that has come round."""
    assert seen_keys([7, 8], [6, 7, 8, 3, 4, 5], 3) == [[6, 7, 5], [6, 7, 8]]


def test_every_row_of_a_batch_has_its_own_positions():
    seen = visible(torch.tensor([[0, 1], [4, 5]]), torch.tensor([[0, 1, 2], [3, -1, 5]]), 2)
    assert seen.tolist() == [
        [[True, False, False], [True, True, False]],
        [[True, False, False], [False, False, True]],
    ]


# ---- attention with sinks

B, T, S, H, G, C = 3, 9, 13, 8, 4, 6


def question(seed: int = 0) -> tuple[Tensor, ...]:
    """Made-up q, k, v, visible and sink; one query sees nothing."""
    seen = torch.rand((B, T, S), generator=torch.Generator().manual_seed(seed)) < 0.6
    seen[1, 4] = False
    return (
        noise(B, T, H, C),
        noise(B, S, G, C, seed=1),
        noise(B, S, G, C, seed=2),
        seen,
        noise(B, H, T, seed=3),
    )


class Look:
    """A tap that keeps what attend shows."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def __call__(self, name: str, value: Tensor) -> Tensor:
        self.kept[name] = value
        return value

    def wants(self, name: str) -> bool:
        return True


@pytest.mark.parametrize("with_sink", [True, False], ids=["sinks", "no sinks"])
def test_attention_is_its_definition(with_sink):
    q, k, v, seen, sink = question()
    sink, look = sink if with_sink else None, Look()
    mixed, pattern, share = attention(q, k, v, seen, sink)
    is_defined(attend(q, k, v, seen, sink, look), mixed.tolist())
    is_defined(look.kept["pattern"], pattern.tolist())
    assert ("sink" in look.kept) == with_sink
    if with_sink:
        is_defined(look.kept["sink"], share.tolist())
    assert torch.equal(look.kept["scores"] == -math.inf, ~seen[:, None].expand(-1, H, -1, -1))


@pytest.mark.parametrize("with_sink", [True, False], ids=["sinks", "no sinks"])
def test_fused_attention_is_the_same(with_sink):
    q, k, v, seen, sink = question()
    sink = sink if with_sink else None
    torch.testing.assert_close(
        attend_fused(q, k, v, seen, sink), attend(q, k, v, seen, sink), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("form", [attend, attend_fused], ids=["explicit", "fused"])
def test_a_sink_is_ordinary_attention_times_a_sigmoid(form):
    """softmax over keys and a sink = softmax over keys, times sigmoid(lse - sink)."""
    q, k, v, seen, sink = question()
    seen[1, 4] = True
    scores = torch.einsum("bthc,bshc->bhts", q, k.repeat_interleave(H // G, 2)) / math.sqrt(C)
    lse = scores.masked_fill(~seen[:, None], -math.inf).logsumexp(-1)
    gate = torch.sigmoid(lse - sink).transpose(1, 2)[..., None]  # B T H 1
    torch.testing.assert_close(form(q, k, v, seen, sink), form(q, k, v, seen) * gate, atol=2e-6, rtol=0)


@pytest.mark.parametrize("form", [attend, attend_fused], ids=["explicit", "fused"])
@pytest.mark.parametrize("with_sink", [True, False], ids=["sinks", "no sinks"])
def test_a_row_that_sees_nothing_gives_zeros(form, with_sink):
    q, k, v, seen, sink = question()
    mixed = form(q, k, v, seen, sink if with_sink else None)
    assert mixed.isfinite().all()
    assert mixed[1, 4].abs().max() == 0 and mixed[1, 3].abs().max() > 0


def test_neighbouring_query_heads_share_a_key_value_head():
    """Heads 0 and 1 ask key/value head 0, heads 2 and 3 ask 1: not 0 and 4, as interleaving would have it."""
    q, k, v, seen, sink = question()
    alone = v.clone()
    alone[:, :, 1:] = 0
    answering = attend(q, k, alone, seen, sink).abs().amax((0, 1, 3)) > 0
    assert answering.tolist() == [True, True] + [False] * 6


def test_the_sinks_logit_is_not_scaled():
    """One key with score 0 and a sink of ln 3: the key keeps a quarter, whatever C."""
    q, k, v = torch.zeros(1, 1, 1, 64), torch.zeros(1, 1, 1, 64), torch.ones(1, 1, 1, 64)
    seen, sink = torch.ones(1, 1, 1, dtype=torch.bool), torch.full((1, 1, 1), math.log(3))
    for form in (attend, attend_fused):
        torch.testing.assert_close(form(q, k, v, seen, sink), torch.full((1, 1, 1, 64), 0.25))


def test_queries_and_keys_are_normalised_head_by_head():
    model = random_model(qwen3())
    kept = record(model, random_tokens(model.config))
    for name, norm in (("q", model.blocks[1].attention.q_norm), ("k", model.blocks[1].attention.k_norm)):
        heads = kept[f"blocks.1.attention.{name}"][2, 5].tolist()
        defined = [
            [
                v / math.sqrt(sum(u * u for u in head) / 6 + 1e-6) * s
                for v, s in zip(head, norm.scale.tolist())
            ]
            for head in heads
        ]
        is_defined(kept[f"blocks.1.attention.{name}_normed"][2, 5], defined)
