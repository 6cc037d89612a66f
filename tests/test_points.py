"""The catalogue: the points that a pass makes, their axes, their order; and what is said of others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toys import (
    BATCH,
    FAMILIES,
    FORMS,
    KEYS,
    QUERIES,
    every_family,
    every_form,
    gpt2,
    gpt_oss,
    on_the_road,
    one_thread,
    qwen3,
    random_model,
    random_tokens,
    record,
    run,
)

from gptoss_lab import points
from gptoss_lab.config import NAMED, Config
from gptoss_lab.model import Cache

pytestmark = pytest.mark.usefixtures(one_thread.__name__)


class Everything:
    """A tap that wants everything and writes down what comes, knowing nothing of the catalogue."""

    def __init__(self, prefix: str = "", made: dict[str, Tensor] | None = None) -> None:
        self.prefix, self.made = prefix, {} if made is None else made

    def __call__(self, name: str, value: Tensor) -> Tensor:
        assert self.prefix + name not in self.made, f"{self.prefix + name} was made twice"
        self.made[self.prefix + name] = value
        return value

    def wants(self, name: str) -> bool:
        return True

    def within(self, room: str) -> Everything:
        return Everything(f"{self.prefix}{room}.", self.made)

    def at(self, positions: Tensor | None = None, keys: Tensor | None = None) -> Everything:
        return self


def made_after(config: Config, family, form: str, earlier: int, **more: object) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    """What a pass over QUERIES tokens makes after `earlier` others are in the cache."""
    model, tap = FORMS[form](random_model(config)), Everything()
    tokens, cache = random_tokens(config, count=earlier + QUERIES), Cache(config, KEYS + 2, BATCH)
    if earlier:
        run(model, tokens[:, :earlier], cache=cache)
    run(model, tokens[:, earlier:], tap=tap, cache=cache, **more)
    return tap.made


@every_form
def test_a_pass_makes_exactly_the_catalogues_points_in_their_order(family, form):
    assert list(made_after(family(), family, form, 0)) == list(points.names(family()))


@every_form
def test_every_point_has_its_axes_and_its_dtype(family, form):
    """Thirteen keys for nine queries, and logits for two: no two axes are alike."""
    config = family()
    for name, value in made_after(config, family, form, KEYS - QUERIES, last=2).items():
        point = points.names(config)[name]
        layer = int(name.split(".")[1]) if name.startswith("blocks.") else 0
        keys = QUERIES + min(KEYS - QUERIES, config.windows[layer] or KEYS)
        assert tuple(value.shape) == point.shape(config, BATCH, QUERIES, keys, last=2), name
        assert value.dtype == getattr(torch, point.dtype), name
        assert points.axes(name) == point.axes


def test_the_letters_stand_for_different_sizes():
    config = gpt_oss()
    attention = [config.d_model, config.n_heads, config.n_kv_heads, config.d_head, config.vocab_size]
    experts = [config.n_experts, config.experts_per_token, config.d_ff]
    assert len({BATCH, QUERIES, KEYS, *attention, *experts}) == 11


def test_the_families_differ_in_the_points_that_they_should():
    have = {
        name: {points.general(point).removeprefix("blocks.N.") for point in points.names(f())}
        for name, f in FAMILIES.items()
    }
    turned, sinks = {"attention.q_rotated", "attention.k_rotated"}, {"attention.sink_logit", "attention.sink"}
    experts = {
        f"experts.{x}" for x in ("norm", "logits", "choice", "weight", "gate", "up", "act", "each", "out")
    }
    plain = {"mlp.norm", "mlp.pre", "mlp.act", "mlp.out"}
    assert have["gpt-oss"] - have["gpt2"] == turned | sinks | experts
    assert have["gpt2"] - have["gpt-oss"] == {"position_embedding"} | plain
    assert have["qwen3-moe"] - have["gpt-oss"] == {"attention.q_normed", "attention.k_normed"}
    assert have["gpt-oss"] - have["qwen3-moe"] == sinks
    assert have["on the road"] - have["gpt2"] == turned | {"mlp.gate", "mlp.up"}
    have["experts with GELU"] = {"experts.pre"}  # a step between the two; see test_ladder.py
    assert set.union(*have.values()) == {p.name.removeprefix("blocks.N.") for p in points.CATALOGUE}


@pytest.mark.parametrize(
    "name, count", [("gpt-oss-20b", 24 * 24 + 4), ("gpt2", 12 * 15 + 5), ("qwen3-30b-a3b", 48 * 24 + 4)]
)
def test_the_real_models_have_their_points(name, count):
    assert len(points.names(NAMED[name])) == count


@every_family
def test_trace_bytes_are_the_real_bytes(family):
    config = family()
    model, tokens = random_model(config), random_tokens(config)
    for last in (None, 2):
        kept = record(model, tokens, last=last)
        assert points.trace_bytes(kept, config, BATCH, QUERIES, QUERIES, last) == {
            n: v.nbytes for n, v in kept.items()
        }


def test_trace_bytes_of_the_real_model_follow_its_axes():
    config = NAMED["gpt-oss-20b"]
    names = points.match(["logits", "blocks.0.attention.pattern"], config)
    sizes = points.trace_bytes(names, config, batch=1, queries=1000, keys=1000, last=1)
    assert sizes == {"blocks.0.attention.pattern": 64 * 1000 * 1000 * 4, "logits": 201088 * 4}


# ---- asking by name


def test_a_glob_picks_in_the_order_of_the_pass_whatever_the_order_asked():
    config = gpt_oss()
    assert points.match("*", config) == list(points.names(config))
    assert points.match(["logits", "blocks.2.residual", "embedding"], config) == [
        "embedding",
        "blocks.2.residual",
        "logits",
    ]
    assert points.match("blocks.*.experts.choice", config) == [f"blocks.{n}.experts.choice" for n in range(3)]
    assert points.match(["logits", "log*"], config) == ["logits"]
    assert points.match([], config) == []


@pytest.mark.parametrize(
    "family, asked, reason",
    [
        (gpt2, "blocks.0.attention.sink", "toy-gpt2 has no attention sinks"),
        (gpt2, "blocks.*.attention.sink_logit", "toy-gpt2 has no attention sinks"),
        (gpt2, "blocks.1.experts.choice", "one dense MLP a layer, no experts; see 'blocks.*.mlp.*'"),
        (gpt2, "blocks.*.experts.*", "no experts"),
        (gpt2, "blocks.2.attention.q_rotated", "learned positions; see 'position_embedding'"),
        (gpt2, "blocks.0.mlp.gate", "no gate (gelu); see 'blocks.*.mlp.pre'"),
        (gpt2, "blocks.0.attention.q_normed", "does not normalise q and k"),
        (gpt_oss, "position_embedding", "toy-oss has no learned positions"),
        (gpt_oss, "blocks.0.mlp.out", "toy-oss has experts, no dense MLP; see 'blocks.*.experts.*'"),
        (gpt_oss, "blocks.0.mlp.pre", "no dense MLP"),
        (gpt_oss, "blocks.0.mlp.gate", "no dense MLP"),
        (gpt_oss, "blocks.0.attention.k_normed", "Qwen3 does"),
        (qwen3, "blocks.0.attention.sink", "toy-qwen3 has no attention sinks"),
        (on_the_road, "blocks.0.mlp.pre", "gated; see 'blocks.*.mlp.gate' and '.up'"),
    ],
)
def test_a_point_that_a_family_lacks_says_why(family, asked, reason):
    with pytest.raises(ValueError) as refusal:
        points.match(asked, family())
    assert reason in str(refusal.value) and repr(asked) in str(refusal.value)


@pytest.mark.parametrize(
    "asked, nearest",
    [
        ("blocks.1.attention.patern", "blocks.1.attention.pattern"),
        ("blocks.2.expert.choice", "blocks.2.experts.choice"),
        ("blocks.1.residual_middle", "blocks.1.residual_mid"),
        ("logit", "logits"),
        ("final_nrom", "final_norm"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(asked, nearest):
    with pytest.raises(ValueError) as refusal:
        points.match(["logits", asked], gpt_oss())
    assert str(refusal.value) == f"no point {asked!r}. Did you mean {nearest!r}?"


@pytest.mark.parametrize("asked", ["blocks.3.residual", "blocks.17.attention.*", "blocks.3"])
def test_a_layer_out_of_range_says_how_many_there_are(asked):
    with pytest.raises(ValueError, match=r"no layer \d+ in toy-oss: its layers are 0 to 2"):
        points.match(asked, gpt_oss())


@pytest.mark.parametrize("asked", ["", "nothing.like.it", "blocks.x.residual", "[", "blocks.-1.residual"])
def test_nonsense_is_refused_with_a_suggestion(asked):
    with pytest.raises(ValueError, match="Did you mean"):
        points.match(asked, gpt_oss())


def test_a_pattern_must_be_text():
    with pytest.raises(ValueError, match="3 is no name of a point"):
        points.match([3], gpt_oss())  # type: ignore[list-item]


def test_every_point_tells_its_meaning_and_source():
    import gptoss_lab.model.attention as attention
    import gptoss_lab.model.experts as experts
    import gptoss_lab.model.transformer as transformer

    for point in points.CATALOGUE:
        assert point.meaning
        first, *rest = point.source.split(".")
        home = next(module for module in (attention, experts, transformer) if hasattr(module, first))
        assert all(hasattr(getattr(home, first), name) for name in rest), point.source
