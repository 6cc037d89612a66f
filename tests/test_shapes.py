"""The two small shapes: what they take over from the published configs, and what they have alike."""

from __future__ import annotations

import pytest
import torch
from references import transformers_model
from toys import random_model, random_tokens, run

from gptoss_lab.config import NAMED, differing
from gptoss_lab.training import shapes
from gptoss_lab.training.ladder import first_rung, multiplied, plan, recipe_for

PUBLISHED = dict(zip(shapes.NAMES, (NAMED["gpt-oss-20b"], NAMED["qwen3-30b-a3b"])))


@pytest.mark.parametrize("name", shapes.NAMES)
def test_a_shape_takes_over_the_numbers_that_make_it(name):
    ours, theirs = shapes.shape(name), PUBLISHED[name]
    same = ("n_experts", "experts_per_token", "qk_norm", "sinks", "bias", "activation", "tied", "norm",
            "positions", "family", "windowed_layers")  # fmt: skip
    assert [getattr(ours, field) for field in same] == [getattr(theirs, field) for field in same]
    assert (ours.window is None) == (theirs.window is None)
    assert ours.n_heads / ours.n_kv_heads == theirs.n_heads / theirs.n_kv_heads == 8


def test_the_two_shapes_stand_to_one_another_as_the_published_ones_do():
    (oss, qwen), (large_oss, large_qwen) = map(shapes.shape, shapes.NAMES), PUBLISHED.values()
    for field in ("n_heads", "n_kv_heads", "d_head", "n_experts", "experts_per_token"):
        ours = getattr(qwen, field) / getattr(oss, field)
        assert ours == getattr(large_qwen, field) / getattr(large_oss, field), field
    assert oss.n_heads * oss.d_head == qwen.n_heads * qwen.d_head


def test_what_is_alike_is_alike():
    oss, qwen = map(shapes.shape, shapes.NAMES)
    assert set(differing(oss, qwen, aside=("name", "family"))) == {
        "n_heads", "n_kv_heads", "d_head", "d_ff", "qk_norm", "window", "sinks", "bias", "activation",
        "n_experts", "experts_per_token",
    }  # fmt: skip
    for config in (oss, qwen):
        assert abs(multiplied(config) / multiplied(first_rung()) - 1) < 0.01
    phases = [recipe_for(config, 1e-3).phases for config in (oss, qwen)]
    assert [[(p.share, p.context, p.batch, p.rounded) for p in each] for each in phases[:1]] == [
        [(p.share, p.context, p.batch, p.rounded) for p in each] for each in phases[1:]
    ]


@pytest.mark.parametrize("name", shapes.NAMES)
def test_a_shape_is_the_model_of_transformers(name):
    model = random_model(shapes.shape(name))
    tokens = random_tokens(model.config, batch=2, count=150)
    with torch.no_grad():
        theirs = transformers_model(model)(tokens).logits
    assert float(theirs.std()) > 0.5
    torch.testing.assert_close(run(model, tokens), theirs, atol=5e-5, rtol=5e-5)


def test_the_plan_has_their_runs_at_rates_that_are_known():
    entries, planned = shapes.entries(), plan()
    first = planned.index(entries[0])
    assert planned[first : first + len(entries)] == entries
    at = [(e.config.name, e.seed, e.rate) for e in entries]
    expected = {(name, seed, 1.6e-2) for name in shapes.NAMES for seed in (0, 1, 2)}
    expected |= {(name, 0, 8e-3) for name in shapes.NAMES}
    assert set(at) == expected and len(at) == len(expected)


def test_runs_are_found_by_rate_and_seed():
    found = {"qwen3-shaped.seed1.lr0.016": {"a": 1}, "qwen3-shaped.seed0.lr0.008": {"b": 2}, "x": {}}
    assert shapes.runs("qwen3-shaped", found) == {1: {"a": 1}}
    assert shapes.runs("qwen3-shaped", found, shapes.OTHER) == {0: {"b": 2}}
    assert shapes.runs("gpt-oss-shaped", found) == {}
    with pytest.raises(ValueError, match="no shape 'qwen'; there are gpt-oss-shaped, qwen3-shaped"):
        shapes.shape("qwen")
