"""Other settings of the same weights."""

from __future__ import annotations

import pytest
import torch
from toys import (
    KEYS,
    close,
    every_family,
    gpt2,
    gpt_oss,
    in_chunks,
    one_thread,
    qwen3,
    random_model,
    random_tokens,
    record,
    run,
)

from gptoss_lab.model import (
    Cache,
    attend,
    attend_fused,
)

pytestmark = pytest.mark.usefixtures(one_thread.__name__)


@every_family
def test_with_config_shares_the_weights_and_keeps_the_original(family):
    model = random_model(family())
    tokens, before = random_tokens(model.config), model.config
    plain = run(model, tokens)
    other = model.with_config(norm_eps=0.1, name="other")
    assert dict(other.named_parameters()).keys() == dict(model.named_parameters()).keys()
    mine = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    assert {name: weight.data_ptr() for name, weight in other.named_parameters()} == mine
    assert not any(weight.is_meta for weight in [*other.parameters(), *other.buffers()])
    assert (run(other, tokens) - plain).abs().max() > 1e-3
    assert model.config is before and torch.equal(run(model, tokens), plain)
    assert torch.equal(run(other.with_config(norm_eps=before.norm_eps), tokens), plain)
    assert not other.training and model.train().with_config(norm_eps=0.1).training


CHANGES = [  # what is changed → the first point of block 0 or 1 that must change, and one that must not
    ({"window": None}, "blocks.0.attention.visible", "blocks.0.attention.q_rotated"),
    ({"window": 2}, "blocks.0.attention.visible", "blocks.0.attention.q_rotated"),
    ({"windowed_layers": "odd"}, "blocks.1.attention.visible", "blocks.0.attention.q_rotated"),
    ({"yarn": None}, "blocks.0.attention.q_rotated", "blocks.0.attention.q"),
    ({"rope_theta": 1000.0}, "blocks.0.attention.q_rotated", "blocks.0.attention.q"),
    ({"sinks": False}, "blocks.0.attention.pattern", "blocks.0.attention.scores"),
    ({"experts_per_token": 1}, "blocks.0.experts.choice", "blocks.0.experts.logits"),
    ({"swiglu_limit": 1.0}, "blocks.0.experts.act", "blocks.0.experts.gate"),
    ({"swiglu_alpha": 1.0}, "blocks.0.experts.act", "blocks.0.experts.gate"),
    ({"norm_eps": 1.0}, "blocks.0.attention.norm", "embedding"),
    ({"activation": "swiglu"}, "blocks.0.experts.act", "blocks.0.experts.gate"),
]


@pytest.mark.parametrize(
    "changes, changed, kept", CHANGES, ids=lambda v: str(v) if isinstance(v, dict) else ""
)
def test_with_config_changes_what_it_says(changes, changed, kept):
    model = random_model(gpt_oss())
    tokens, other = random_tokens(model.config), model.with_config(**changes)
    assert all(getattr(other.config, field) == value for field, value in changes.items())
    before, after = record(model, tokens), record(other, tokens)
    assert torch.equal(before[kept], after[kept])
    same_shape = before[changed].shape == after[changed].shape
    assert not same_shape or not torch.equal(before[changed], after[changed])
    assert not torch.equal(before["logits"], after["logits"])


def test_with_config_has_its_own_cache():
    model = random_model(gpt_oss())
    other, tokens = model.with_config(window=None), random_tokens(model.config, count=KEYS)
    close(in_chunks(other, tokens, (1,) * 13), run(other, tokens))
    assert [layer.size for layer in Cache(other.config, KEYS).layers] == [13, 13, 13]


@pytest.mark.parametrize(
    "family, changes",
    [
        (gpt_oss, {"n_experts": 8}),
        (gpt_oss, {"n_experts": None, "activation": "gelu"}),
        (gpt_oss, {"d_ff": 12}),
        (gpt_oss, {"d_model": 12}),
        (gpt_oss, {"n_heads": 4}),
        (gpt_oss, {"n_kv_heads": 2}),
        (gpt_oss, {"d_head": 8}),
        (gpt_oss, {"vocab_size": 30}),
        (gpt_oss, {"n_layers": 4}),
        (gpt_oss, {"qk_norm": True}),
        (gpt_oss, {"norm": "layer"}),
        (gpt_oss, {"positions": "learned", "yarn": None}),
        (gpt_oss, {"bias": False}),
        (gpt_oss, {"tied": True}),
        (gpt2, {"tied": False}),
        (gpt2, {"context": 32}),
        (gpt2, {"n_experts": 7, "activation": "swiglu"}),
        (gpt2, {"sinks": True}),
        (qwen3, {"bias": True}),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else v.__name__,
)
def test_with_config_refuses_what_needs_other_weights(family, changes):
    model = random_model(family())
    with pytest.raises(ValueError) as refusal:
        model.with_config(**changes)
    assert all(f"{field}=" in str(refusal.value) for field in changes)


def test_with_config_names_the_weights_in_full():
    model = random_model(gpt_oss())
    with pytest.raises(ValueError, match=r"needs 'blocks\.3'; this model has no such weights"):
        model.with_config(n_layers=4)
    with pytest.raises(ValueError, match=r"needs 'blocks\.0\.attention\.q' of shape"):
        model.with_config(d_head=8)


def test_with_config_refuses_unknown_fields():
    with pytest.raises(ValueError, match="'windows'.*window"):
        random_model(gpt_oss()).with_config(windows=3)


def test_with_config_keeps_the_seams():
    model = random_model(gpt_oss())
    model.blocks[1].attention.attend = attend_fused
    other = model.with_config(window=3)
    assert [block.attention.attend for block in other.blocks] == [attend, attend_fused, attend]
