"""The ladder: what its rungs are, that they are models, and that its two ends are GPT-2 and gpt-oss."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from references import transformers_model
from toys import gather, gpt_oss, one_thread, random_model, random_tokens, record, run, walk

from gptoss_lab import points
from gptoss_lab.config import NAMED, Config
from gptoss_lab.cost import active_parameters, parameters
from gptoss_lab.model import Transformer
from gptoss_lab.model.experts import gelu
from gptoss_lab.training import train as training
from gptoss_lab.training.corpus import training_text, training_tokens
from gptoss_lab.training.forms import attach
from gptoss_lab.training.ladder import (
    ANCHORS,
    BATCH,
    GRIDS,
    LONG,
    NUMBER,
    RUNGS,
    SHORT,
    STEPS,
    TOP,
    as_large,
    aside,
    byte_encoding,
    ladder,
    multiplied,
    of_depth,
    plan,
    recipe_for,
    rung,
    spread,
    without,
)  # fmt: skip
from gptoss_lab.training.objective import gradients, in_phase
from gptoss_lab.weights import round_to_mxfp4

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
TOLD = ("no-dropout", "rmsnorm", "grouped", "windows", "experts")  # claims ask for them
THRICE = ("shape", "Swish", "the experts' rate", "many epochs")
CHANGES = [name for name in NUMBER if 0 < NUMBER[name] <= NUMBER[TOP]]


def changed(one: Config, other: Config) -> set[str]:
    """The fields that differ, but for the name, the layout on disk, and the width that the matching sets."""
    ours, theirs = asdict(one), asdict(other)
    return {field for field in ours if ours[field] != theirs[field]} - {"name", "family", "d_ff"}


def test_every_rung_is_one_named_change():
    for below, above, step in zip(ladder(), ladder()[1:], RUNGS[1:]):
        assert changed(below, above) == set(step.changes), step.name
        assert all(getattr(above, field) == value for field, value in step.changes.items())
    assert [len(step.changes) for step in RUNGS] == [0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1]  # experts: E and K


def test_the_ends_have_every_feature_of_gpt2_and_of_gpt_oss():
    features = "norm positions activation tied sinks bias stored_experts windowed_layers".split()
    for ours, theirs in ((ladder()[0], NAMED["gpt2"]), (ladder()[-1], NAMED["gpt-oss-20b"])):
        assert all(getattr(ours, field) == getattr(theirs, field) for field in features)
        assert (ours.dropout, ours.family) == (theirs.dropout, theirs.family)
        kinds = [(c.window is None, c.yarn is None, c.n_experts is None, c.n_heads == c.n_kv_heads)
                 for c in (ours, theirs)]  # fmt: skip
        assert kinds[0] == kinds[1]
    assert ladder()[0].d_ff == 4 * ladder()[0].d_model


@pytest.mark.parametrize("layers", [2, 6, 12])
def test_a_token_is_multiplied_with_as_many_parameters_on_every_rung(layers):
    first, *others = [multiplied(config) for config in ladder(layers)]
    assert all(abs(count / first - 1) < 0.035 for count in others)
    assert first == active_parameters(ladder(layers)[0]) - 1024 * 64


@pytest.mark.parametrize("name", CHANGES)
def test_leaving_one_out_undoes_that_change_alone(name):
    left, top = without(name), rung(TOP)
    gone_too = {"yarn"} if name == "rope" else set()
    assert changed(left, top) == set(RUNGS[NUMBER[name]].changes) | gone_too
    assert abs(multiplied(left) / multiplied(top) - 1) < 0.01


def test_more_and_finer_experts_cost_a_token_the_same():
    top = rung(TOP)
    for experts, chosen in ((4, 1), (16, 4), (4, 2), (16, 2), (32, 2), (64, 2)):
        config = spread(experts, chosen)
        assert (config.n_experts, config.experts_per_token) == (experts, chosen)
        assert changed(config, top) == {"n_experts"} | ({"experts_per_token"} if chosen != 2 else set())
        assert abs(multiplied(config) / multiplied(top) - 1) < 0.015
    for config in (spread(4, 1), spread(16, 4)):  # other numbers of experts, as many parameters in all
        assert abs(parameters(config) / parameters(top) - 1) < 0.01


def test_equal_totals_are_equal_within_a_hundredth():
    for small, large in (("rope", "rmsnorm"), ("sinks", "experts")):
        config = as_large(small, large)
        assert changed(config, rung(small)) == set()
        assert abs(parameters(config) / parameters(rung(large)) - 1) < 0.01


def test_a_model_aside_differs_from_its_rung_by_what_it_asks():
    named = {"experts-slowly": ("experts", []), "swish": ("yarn", ["activation"]), "repeated": (TOP, []),
             "repeated-with-dropout": (TOP, ["dropout"])}  # fmt: skip
    for name, (like, changes) in named.items():
        assert changed(aside(name), rung(like)) == set(changes), name
    with pytest.raises(ValueError, match="no model 'swoosh'; there are experts-slowly, swish"):
        aside("swoosh")


def test_what_is_left_out_is_trained_at_the_rate_of_its_kind():
    rates = {entry.config.name: entry.rate for entry in plan() if entry.purpose == "leave one out"}
    assert rates.pop("without-experts") == "swiglu" and set(rates.values()) == {"mxfp4"}


def test_other_depths_are_the_same_rung():
    for layers in (2, 12):
        for name in ("gpt2", "mxfp4"):
            assert changed(of_depth(name, layers), rung(name)) == {"n_layers"}


@pytest.mark.parametrize("name", ["gpt2", "mxfp4"])
def test_the_first_rung_is_gpt2_and_the_last_is_gpt_oss_of_transformers(name):
    """Shared random weights, float32; experts hold values that MXFP4 can."""
    model = random_model(rung(name))
    if model.config.n_experts:
        with torch.no_grad():
            for block in model.blocks:
                for stack in (block.experts.gate_up, block.experts.down):
                    stack.weight.copy_(round_to_mxfp4(stack.weight))
    tokens = random_tokens(model.config, batch=2, count=150)  # more than two windows of 64
    with torch.no_grad():
        theirs = transformers_model(model)(tokens).logits
    assert float(theirs.std()) > 0.5
    torch.testing.assert_close(run(model, tokens), theirs, atol=2e-5, rtol=2e-5)
    last = in_phase(model, recipe_for(model.config, 1e-3), 1)  # as the long phase runs it
    torch.testing.assert_close(run(last, tokens), theirs, atol=1e-4, rtol=1e-4)


def every_config() -> list[Config]:
    """Every config of the plan, once."""
    return list({entry.config.name: entry.config for entry in plan()}.values())


@pytest.mark.parametrize("config", every_config(), ids=lambda config: config.name)
def test_every_config_of_the_plan_can_be_trained(config):
    recipe, model = recipe_for(config, 1e-3), Transformer.random(config).train()
    for number in (0, 1):
        windows = torch.randint(257, (1, 66), generator=torch.Generator().manual_seed(number))
        loss, _ = gradients(in_phase(model, recipe, number), windows, recipe.balance)
        assert loss.item() == pytest.approx(5.55, rel=0.05)  # log 257
    assert all(weight.grad is not None for weight in model.parameters())


def test_all_runs_of_a_seed_read_the_same_bytes_in_the_same_order(tmp_path, monkeypatch):
    recipes = [recipe_for(entry.config, 1e-3) for entry in plan()]
    assert {recipe.tokens(STEPS) for recipe in recipes} == {3_072_000}
    assert {tuple((p.share, p.context, p.batch) for p in recipe.phases) for recipe in recipes} == {
        ((0.9, SHORT, BATCH), (0.1, LONG, BATCH * SHORT // LONG))
    }
    assert {entry.purpose for entry in plan() if entry.read is not None} == {"many epochs"}
    texts = {name: torch.arange(3000, dtype=torch.int32) % 257 for name in "ab"}
    monkeypatch.setattr(training, "seconds_a_step", lambda *given: [1.0, 1.0])

    def read(config: Config, seed: int) -> list[list[list[int]]]:
        def note(model, windows, *rest):
            seen.append(windows.tolist())
            return torch.ones(()), torch.ones(())

        seen: list[list[list[int]]] = []
        monkeypatch.setattr(training, "gradients", note)
        folder = tmp_path / f"{config.name}-{seed}"
        training.train(recipe_for(config, 1e-3), folder, steps=10, seed=seed, texts=texts, quiet=True)
        return seen

    first = read(rung("gpt2"), 1)
    assert len(first) == 10 and len(first[0]) == BATCH and len(first[-1][0]) == LONG + 1
    assert first == read(rung("mxfp4"), 1) == read(without("sinks"), 1) != read(rung("gpt2"), 2)


def test_a_phase_has_yarn_and_rounding_where_the_rung_has_them():
    long = {name: recipe_for(rung(name), 1e-3).phases[1] for name in NUMBER}
    assert [name for name in NUMBER if long[name].yarn] == list(NUMBER)[NUMBER["yarn"] :]
    assert [name for name in NUMBER if long[name].rounded] == ["mxfp4"]
    assert not any(recipe_for(rung(name), 1e-3).phases[0].yarn for name in NUMBER)


def test_bytes_are_bytes():
    ids = training_tokens(byte_encoding(), "arithmetic")
    assert bytes(ids.tolist()) == training_text("arithmetic").encode()
    assert byte_encoding().encode("¿a\n<|endoftext|>", allowed_special="all") == [0xC2, 0xBF, 97, 10, 256]
    assert byte_encoding().n_vocab == 257


def test_the_plan_begins_with_the_grid_and_goes_on_with_every_rung():
    entries = plan()
    assert [(e.config.name, e.rate) for e in entries[:16]] == [(a, r) for a in ANCHORS for r in GRIDS[a]]
    assert [e.config.name for e in entries[16:28]] == list(NUMBER)
    assert {e.rate for e in entries[16:] if e.purpose != "shape"} == set(ANCHORS)
    seeds: dict[str, set[int]] = {}
    for entry in entries:
        seeds.setdefault(entry.config.name, set()).add(entry.seed)
    thrice = {*NUMBER, *(f"without-{name}" for name in TOLD)}
    thrice |= {e.config.name for e in entries if e.purpose in THRICE}
    assert all(told == ({0, 1, 2} if name in thrice else {0, 1}) for name, told in seeds.items())


def test_an_unknown_rung_is_refused():
    with pytest.raises(ValueError, match="no rung 'yarm'; there are gpt2, no-dropout"):
        rung("yarm")


# Experts without a gate, which leaving SwiGLU out needs


UNGATED = pytest.mark.parametrize("activation, form", [("gelu", gelu), ("silu", torch.nn.functional.silu)])


@UNGATED
def test_experts_without_a_gate_are_their_definition(activation, form):
    model = random_model(gpt_oss(activation=activation))
    experts = model.blocks[0].experts
    assert tuple(experts.gate_up.weight.shape) == (7, 11, 10)
    x, choice = torch.randn(2, 5, 10), torch.randint(7, (2, 5, 2))
    expected = torch.empty(2, 5, 2, 10)
    for b in range(2):
        for t in range(5):
            for k in range(2):
                e = int(choice[b, t, k])
                act = form(experts.gate_up.weight[e] @ x[b, t] + experts.gate_up.bias[e])
                expected[b, t, k] = experts.down.weight[e] @ act + experts.down.bias[e]
    for way in (gather, walk):
        way(model)
        torch.testing.assert_close(experts.answers(x, choice), expected, atol=2e-5, rtol=2e-5)


@UNGATED
def test_experts_without_a_gate_show_what_they_have(activation, form):
    config = gpt_oss(activation=activation)
    kept = record(random_model(config), random_tokens(config))
    assert kept.keys() == points.names(config).keys()
    assert kept["blocks.1.experts.pre"].shape == (3, 9, 2, 11)
    torch.testing.assert_close(form(kept["blocks.1.experts.pre"]), kept["blocks.1.experts.act"])
    with pytest.raises(ValueError, match=rf"no gate \({activation}\); see 'blocks.\*.experts.pre'"):
        points.match("blocks.0.experts.gate", config)
    with pytest.raises(ValueError, match="experts are gated; see 'blocks.*.experts.gate' and '.up'"):
        points.match("blocks.0.experts.pre", gpt_oss())


@UNGATED
def test_experts_without_a_gate_train_as_the_explicit_model_does(activation, form):
    config = gpt_oss(activation=activation, yarn=None)
    windows = random_tokens(config, batch=3, count=20)
    found = []
    for way in (lambda model: model, attach):
        model = way(random_model(config).requires_grad_(True))
        gradients(model, windows, 0.1)
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=2e-5, rtol=1e-4)
