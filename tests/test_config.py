"""Every known model's sizes to the last digit, and configs that contradict themselves."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from toys import FAMILIES, gpt2, gpt_oss, mxfp4, on_the_road, one_thread, qwen3

from gptoss_lab import cost
from gptoss_lab.config import NAMED, Config, Yarn
from gptoss_lab.model import Transformer

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
GIB, MIB, KIB = 2**30, 2**20, 2**10
PARAMETERS = {
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
}
ACTIVE = {
    **{name: PARAMETERS[name] for name in PARAMETERS if name.startswith("gpt2")},
    "gpt-oss-20b": 3_608_307_264,
    "gpt-oss-120b": 5_132_849_472,
    "qwen3-30b-a3b": 3_041_867_776,
    "qwen3-235b-a22b": 21_568_433_664,
}


def gpt_oss_checkpoint(n_layers: int, n_experts: int) -> int:
    """Bytes of the published tensors, added up from their shapes: bf16; experts as nibbles and scales."""
    D, V, H, E = 2880, 201088, 64, n_experts
    once = 2 * (V * D + D + V * D)  # embedding, final norm, unembedding
    attention = 2 * (D + 4096 * D + 4096 + 2 * (512 * D + 512) + H + D * 4096 + D)
    router = 2 * (D + E * D + E)
    gate_up = E * 5760 * 90 * 16 + E * 5760 * 90 + 2 * E * 5760
    down = E * D * 90 * 16 + E * D * 90 + 2 * E * D
    return once + n_layers * (attention + router + gate_up + down)


def test_the_known_models_are_those_of_the_catalogue():
    assert set(NAMED) == set(PARAMETERS)
    assert all(NAMED[name].name == name for name in NAMED)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_to_the_last_digit(name):
    assert cost.parameters(NAMED[name]) == PARAMETERS[name]


@pytest.mark.parametrize("name", ACTIVE)
def test_active_parameters_to_the_last_digit(name):
    assert cost.active_parameters(NAMED[name]) == ACTIVE[name]


@pytest.mark.parametrize(
    "config", [*NAMED.values(), *(f() for f in FAMILIES.values()), mxfp4()], ids=lambda c: c.name
)
def test_a_model_has_as_many_parameters_as_its_config_says(config):
    with torch.device("meta"):
        model = Transformer(config)
    assert sum(weight.numel() for weight in model.parameters()) == cost.parameters(config)


def test_checkpoint_bytes_of_gpt_oss_are_the_published_ones():
    assert cost.checkpoint_bytes(NAMED["gpt-oss-20b"]) == 13_761_264_768 == gpt_oss_checkpoint(24, 32)
    assert cost.checkpoint_bytes(NAMED["gpt-oss-120b"]) == gpt_oss_checkpoint(36, 128)
    assert [
        round(cost.checkpoint_bytes(NAMED[name]) / GIB, 2) for name in ("gpt-oss-20b", "gpt-oss-120b")
    ] == [12.82, 60.77]


@pytest.mark.parametrize(
    "name, item", [(name, 4 if name.startswith("gpt2") else 2) for name in PARAMETERS if "oss" not in name]
)
def test_checkpoint_bytes_of_the_others_are_parameters_times_their_width(name, item):
    assert cost.checkpoint_bytes(NAMED[name]) == item * PARAMETERS[name]


def test_mxfp4_costs_four_and_a_quarter_bits_a_weight():
    small, large = mxfp4(), mxfp4(stored_experts="same")
    weights = 3 * 7 * 3 * 32 * 96  # layers, experts, gate and up and down
    assert cost.checkpoint_bytes(large) - cost.checkpoint_bytes(small) == weights * 2 - weights * 17 // 32


def test_gpt_oss_in_bf16_would_be_three_times_as_large():
    sizes = [
        cost.checkpoint_bytes(NAMED[name].with_changes(stored_experts="same"))
        for name in ("gpt-oss-20b", "gpt-oss-120b")
    ]
    assert sizes == [2 * PARAMETERS["gpt-oss-20b"], 2 * PARAMETERS["gpt-oss-120b"]]
    assert [f"{size / GIB:.4g}" for size in sizes] == ["38.96", "217.6"]


def test_the_cache_takes_two_kib_a_token_a_layer_and_windows_are_trimmed():
    config = NAMED["gpt-oss-20b"]
    assert cost.cache_bytes(config, 1) == 24 * 2 * KIB
    assert cost.cache_bytes(config, 8192) == 195 * MIB
    assert cost.cache_bytes(NAMED["gpt-oss-120b"], 8192) == 195 * MIB * 3 // 2
    assert cost.cache_bytes(config.with_changes(window=None), 8192) == 24 * 8192 * 2 * KIB
    assert cost.cache_bytes(config, 129) - cost.cache_bytes(config, 128) == 12 * 2 * KIB
    assert cost.cache_bytes(config, 100, item_bytes=4) == 2 * cost.cache_bytes(config, 100)
    assert cost.cache_bytes(NAMED["gpt2"], 1) == 12 * 2 * 768 * 2


def test_the_cache_that_a_model_makes_is_that_large():
    from gptoss_lab.model import Cache

    config = gpt_oss()
    layers = Cache(config, length=13).layers
    assert sum(layer.k.nbytes + layer.v.nbytes for layer in layers) == cost.cache_bytes(
        config, 13, item_bytes=4
    )


def test_gpt_oss_slides_on_even_layers():
    assert NAMED["gpt-oss-20b"].windows == (128, None) * 12
    assert NAMED["gpt-oss-120b"].windows == (128, None) * 18
    assert NAMED["gpt2"].windows == (None,) * 12
    assert gpt_oss(windowed_layers="odd").windows == (None, 5, None)
    assert gpt_oss(windowed_layers="all").windows == (5, 5, 5)
    assert gpt_oss(windowed_layers=(2,)).windows == (None, None, 5)
    assert gpt_oss(windowed_layers=()).windows == (None, None, None)


CONTRADICTIONS = [
    (gpt_oss, "family", "gpt-5"),
    (gpt_oss, "norm", "batch"),
    (gpt_oss, "positions", "alibi"),
    (gpt_oss, "activation", "relu"),
    (gpt_oss, "stored", "float16"),
    (gpt_oss, "stored_experts", "int4"),
    (gpt2, "stored_experts", "mxfp4"),  # no experts
    (gpt_oss, "n_layers", 0),
    (gpt_oss, "d_model", -8),
    (gpt_oss, "d_ff", 2.5),
    (gpt_oss, "vocab_size", "29"),
    (gpt_oss, "context", 0),
    (gpt_oss, "n_kv_heads", 3),
    (gpt_oss, "d_head", 7),
    (gpt_oss, "positions", "learned"),  # yarn stretches RoPE alone
    (gpt_oss, "window", 0),
    (gpt_oss, "windowed_layers", "first"),
    (gpt_oss, "windowed_layers", (0, 3)),
    (gpt_oss, "windowed_layers", (-1,)),
    (gpt_oss, "experts_per_token", 0),
    (gpt_oss, "experts_per_token", 8),
    (gpt_oss, "n_experts", 0),
    (gpt2, "dropout", 1.0),
    (gpt2, "dropout", -0.1),
    (qwen3, "norm_eps", 0.0),
    (qwen3, "norm_eps", math.inf),
    (gpt_oss, "vocab_used", 30),
    (gpt_oss, "vocab_used", 0),
    (gpt_oss, "context", True),
    (gpt_oss, "window", 5.5),
    (gpt_oss, "window", "five"),
    (gpt_oss, "windowed_layers", (0.5,)),
    (gpt_oss, "windowed_layers", ("0",)),
    (gpt_oss, "experts_per_token", 1.5),
    (gpt_oss, "experts_per_token", None),
    (gpt_oss, "n_experts", 7.0),
    (gpt_oss, "vocab_used", 2.5),
    (gpt_oss, "rope_theta", 0),
    (gpt_oss, "rope_theta", -50.0),
    (gpt_oss, "rope_theta", 1.0),  # the logarithm of one is zero, and the ramp's ends are divided by it
    (gpt_oss, "rope_theta", math.inf),
    (gpt_oss, "rope_theta", "50"),
    (gpt_oss, "norm_eps", "small"),
    (gpt2, "dropout", None),
    (gpt_oss, "yarn", 4.0),
    (gpt_oss, "stop_ids", 5),
    (gpt_oss, "stop_ids", [5]),
    (gpt_oss, "stop_ids", (5.0,)),
    (gpt_oss, "window", 10**26),
]


@pytest.mark.parametrize(
    "family, field, value", CONTRADICTIONS, ids=lambda v: getattr(v, "__name__", repr(v))
)
def test_a_contradiction_is_refused_by_name(family, field, value):
    with pytest.raises(ValueError) as refusal:
        family(**{field: value})
    assert field in str(refusal.value)


def test_mxfp4_needs_widths_that_make_whole_blocks():
    with pytest.raises(ValueError, match="d_model=10 and d_ff=11 must be multiples of 32"):
        gpt_oss(stored_experts="mxfp4")
    with pytest.raises(ValueError, match="d_ff=48"):
        mxfp4(d_ff=48)


def test_an_unknown_field_is_refused_and_the_known_ones_are_told():
    with pytest.raises(ValueError, match="'n_head'.*n_heads"):
        gpt_oss().with_changes(n_head=4)


@pytest.mark.parametrize(
    "values",
    [{"factor": 0.5}, {"original_context": 0}, {"beta_slow": 40.0}, {"beta_slow": 0.0}, {"factor": math.nan}],
)
def test_a_stretch_that_is_none_is_refused(values):
    (field,) = values
    with pytest.raises(ValueError, match=field):
        Yarn(**values)


def test_a_config_survives_json():
    config = gpt_oss(windowed_layers=(1, 2), stop_ids=(3,))
    described = json.loads(json.dumps(dataclasses.asdict(config)))
    assert Config.from_json(described) == config and Config.from_json(dataclasses.asdict(gpt2())) == gpt2()
    for odd in (described | {"colour": "red"}, {"name": "x"}, described | {"yarn": {"factor": 2.0, "x": 1}}):
        with pytest.raises(ValueError, match="these are not the fields of a config: .*(colour|missing|'x')"):
            Config.from_json(odd)


def test_a_config_cannot_be_changed_after_it_was_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        gpt2().d_model = 0


def test_gpt2_becomes_gpt_oss_one_field_at_a_time():
    """Every step between the two is a model too: it is made, and answers."""
    start, end = gpt2(), gpt_oss()
    config: Config = start
    first = "activation norm positions n_experts experts_per_token n_kv_heads window sinks tied rope_theta"
    for field in [*first.split(), "yarn", "context", "family", "name"]:
        config = config.with_changes(**{field: getattr(end, field)})
        logits = Transformer.random(config)(torch.tensor([[1, 2, 3, 4]]))
        assert logits.shape == (1, 4, 29) and logits.isfinite().all()
    assert config == end
    assert on_the_road().activation == end.activation


def test_unused_rows_of_the_vocabulary_are_told():
    assert NAMED["gpt-oss-20b"].vocab_used == 200019
    assert set(NAMED["gpt-oss-20b"].stop_ids) == {199999, 200002, 200012}
    assert NAMED["gpt2"].stop_ids == (50256,)
