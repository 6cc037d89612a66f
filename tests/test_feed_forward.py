"""Activations, the router, experts and the dense MLP against their definitions, and known values."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from definitions import clamped, is_defined, noise, through
from toys import (
    FORMS,
    gpt2,
    gpt_oss,
    on_the_road,
    one_thread,
    qwen3,
    random_model,
    random_tokens,
    record,
)

from gptoss_lab.model import (
    clamped_swiglu,
    gelu,
    swiglu,
)

pytestmark = pytest.mark.usefixtures(one_thread.__name__)


@pytest.mark.parametrize(
    "gate, up, act", [(1, 0, 0.8457957659), (20, 0, 6.9999531283), (0.5, -1, 0.0), (3, -20, -17.8915721418)]
)
def test_clamped_swiglu_gives_the_known_values(gate, up, act):
    assert clamped(gate, up) == pytest.approx(act, abs=5e-10)
    assert clamped_swiglu(torch.tensor(float(gate)), torch.tensor(float(up))).item() == pytest.approx(
        act, rel=3e-7, abs=1e-9
    )


def test_clamped_swiglu_is_its_definition():
    grid = [v / 4 for v in range(-48, 49)]
    gate, up = torch.tensor(grid)[:, None].expand(-1, 97), torch.tensor(grid)[None].expand(97, -1)
    for limit, alpha in ((7.0, 1.702), (2.5, 1.0)):
        is_defined(
            clamped_swiglu(gate, up, limit, alpha),
            [[clamped(g, u, limit, alpha) for u in grid] for g in grid],
            atol=1e-5,
        )


def test_the_gate_is_clamped_from_above_alone():
    assert clamped_swiglu(torch.tensor(-9.0), torch.tensor(0.0)).item() == pytest.approx(
        -9 / (1 + math.exp(1.702 * 9)), rel=1e-5
    )
    assert clamped_swiglu(torch.tensor(9.0), torch.tensor(0.0)) == clamped_swiglu(
        torch.tensor(7.0), torch.tensor(0.0)
    )


def test_swiglu_is_its_definition():
    gate, up = noise(50, scale=4.0), noise(50, seed=1, scale=4.0)
    is_defined(
        swiglu(gate, up), [g / (1 + math.exp(-g)) * u for g, u in zip(gate.tolist(), up.tolist())], atol=1e-5
    )


def test_gelu_is_its_tanh_form():
    """The erf form differs by up to 0.00047: at 2 it would give 1.95450 for 1.95460."""
    xs = [v / 8 for v in range(-48, 49)]
    is_defined(
        gelu(torch.tensor(xs)),
        [x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) for x in xs],
    )
    assert gelu(torch.tensor(2.0)).item() == pytest.approx(1.9545977, abs=1e-6)


@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("family", [gpt_oss, qwen3])
def test_the_router_is_its_definition(family, k):
    """The k largest logits, bias included; a softmax over all, of which those are kept and renormalised."""
    model = random_model(family(experts_per_token=k))
    kept = record(model, random_tokens(model.config))
    router = model.blocks[1].experts.router
    weight, bias = router.weight.tolist(), [0.0] * 7 if router.bias is None else router.bias.tolist()
    x, logits, choice, shares = (
        kept[f"blocks.1.experts.{name}"] for name in ("norm", "logits", "choice", "weight")
    )
    for b, t in product(range(3), range(9)):
        token = x[b, t].tolist()
        defined = [sum(w * v for w, v in zip(weight[e], token)) + bias[e] for e in range(7)]
        is_defined(logits[b, t], defined, atol=1e-5)
        best = sorted(range(7), key=lambda e: -defined[e])[:k]
        assert choice[b, t].tolist() == best
        all_shares = [math.exp(logit) / sum(map(math.exp, defined)) for logit in defined]
        is_defined(shares[b, t], [all_shares[e] / sum(all_shares[i] for i in best) for e in best], atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", [gpt_oss, qwen3])
def test_every_expert_and_their_sum_are_their_definition(family, form):
    """Even rows are the gate, odd rows the up; the down bias is added before the weight."""
    model = FORMS[form](random_model(family()))
    config, experts = model.config, model.blocks[1].experts
    kept = {
        k.rsplit(".", 1)[-1]: v for k, v in record(model, random_tokens(config), "blocks.1.experts.*").items()
    }
    gate_up, down = experts.gate_up.weight.tolist(), experts.down.weight.tolist()
    gate_up_bias = experts.gate_up.bias.tolist() if config.bias else [[0.0] * 22] * 7
    down_bias = experts.down.bias.tolist() if config.bias else [[0.0] * 10] * 7
    for b, t in product((0, 2), range(9)):
        total = [0.0] * 10
        for k in range(2):
            e = kept["choice"][b, t, k].item()
            both = through(gate_up[e], gate_up_bias[e], kept["norm"][b, t].tolist())
            gates, ups = [both[2 * f] for f in range(11)], [both[2 * f + 1] for f in range(11)]
            if family is gpt_oss:
                act = [clamped(g, u) for g, u in zip(gates, ups)]
            else:
                act = [g / (1 + math.exp(-g)) * u for g, u in zip(gates, ups)]
            each = through(down[e], down_bias[e], act)
            for name, defined in (("gate", gates), ("up", ups), ("act", act), ("each", each)):
                is_defined(kept[name][b, t, k], defined, atol=5e-5 if name == "act" else 1e-5)
            total = [s + kept["weight"][b, t, k].item() * v for s, v in zip(total, each)]
        is_defined(kept["out"][b, t], total, atol=1e-5)


@pytest.mark.parametrize("family", [gpt2, on_the_road])
def test_the_dense_mlp_is_its_definition(family):
    model = random_model(family())
    mlp = model.blocks[1].mlp
    kept = {
        k.rsplit(".", 1)[-1]: v
        for k, v in record(model, random_tokens(model.config), "blocks.1.mlp.*").items()
    }
    for t in range(9):
        x = kept["norm"][1, t].tolist()
        up = through(mlp.up.weight.tolist(), mlp.up.bias.tolist(), x)
        if family is gpt2:
            act = [u / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3))) for u in up]
        else:
            act = [
                clamped(g, u)
                for g, u in zip(through(mlp.gate.weight.tolist(), mlp.gate.bias.tolist(), x), up)
            ]
        is_defined(kept["act"][1, t], act, atol=5e-5)
        is_defined(
            kept["out"][1, t], through(mlp.down.weight.tolist(), mlp.down.bias.tolist(), act), atol=1e-5
        )
