"""The whole model against others, in float32, at every point that they can show: at most 2e-5 apart.

Both sides hold the same random weights, with every bias and sink, scaled so that both clamps bind and sinks
take a tenth of the attention or more. The references are in references.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from proof_common import deviation, wrong
from references import Shown, openai_shows, transformers_model, transformers_shows
from torch import Tensor
from toys import gpt2, gpt_oss, one_thread, qwen3, random_model, random_tokens, record, run, walk

from gptoss_lab import points
from gptoss_lab.config import Config, Yarn
from gptoss_lab.model import Transformer

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
BOUND = 2e-5
BATCH, TOKENS = 3, 17  # past the windows of 3 and 5, past YaRN's original eight or sixteen

GPT_OSS: dict[str, dict[str, Any]] = {
    "as published": {},
    "no YaRN": {"yarn": None},
    "window of one": {"window": 1},
    "window of three": {"window": 3},
    "all dense": {"window": None},
    "a key/value head each": {"n_heads": 4, "n_kv_heads": 4},
    "one key/value head": {"n_heads": 6, "n_kv_heads": 1},
    "two for twelve": {"n_heads": 12, "n_kv_heads": 2, "d_head": 8},
    "all experts": {"n_experts": 5, "experts_per_token": 5},
    "one expert of many": {"n_experts": 9, "experts_per_token": 1},
    "square experts": {"d_ff": 10},  # as the real one's: the wrong way round has the right shape
    "another limit": {"swiglu_limit": 4.0},
    "widths of 32": {"d_model": 32, "d_ff": 96},
}
TRANSFORMERS_ALONE = {
    "YaRN, rounded ends": {"yarn": Yarn(4.0, 8, 1.0, 0.25, rounded=True)},
    "YaRN, ends outside the pairs": {"yarn": Yarn(4.0, 8, 32.0, 0.001)},
    "odd layers slide": {"windowed_layers": "odd", "window": 3},
    "another eps": {"norm_eps": 1e-2},
}
# OpenAI's refuses a ramp that does not lie inside the pairs; these are enough pairs for one.
OPENAI = {"d_head": 12, "rope_theta": 20.0, "yarn": Yarn(4.0, 16, 1.5, 0.5)}
QWEN3: dict[str, dict[str, Any]] = {
    "as published": {},
    "a key/value head each": {"n_heads": 6, "n_kv_heads": 6},
    "one key/value head": {"n_kv_heads": 1},
    "all experts": {"experts_per_token": 7},
    "one expert": {"experts_per_token": 1},
    "square experts": {"d_ff": 10},
}
WHOLE = {"n_heads": 5, "n_kv_heads": 5, "d_head": 4, "d_model": 20}  # in GPT-2 the heads make up the width
GPT2: dict[str, dict[str, Any]] = {
    "as published": WHOLE,
    "one head": {**WHOLE, "n_heads": 1, "n_kv_heads": 1, "d_head": 20},
    "square": {**WHOLE, "d_ff": 20},
}


def compared(
    family: Callable[..., Config], changes: dict[str, Any], seed: int = 0
) -> tuple[Transformer, Tensor]:
    """A toy and the tokens that it is compared on."""
    model = random_model(family(**changes), seed)
    return model, random_tokens(model.config, BATCH, TOKENS, seed + 1)


def hold(name: str, ours: Tensor, theirs: Tensor) -> None:
    """At most 2e-5 apart, of a value beyond one relative; what is no fraction is the same."""
    apart = deviation(ours, theirs) if ours.is_floating_point() else wrong(ours, theirs)
    assert apart <= (BOUND if ours.is_floating_point() else 0), f"{name}: {apart:.1e} apart"


def agree(model: Transformer, shown: Shown, tokens: Tensor, hidden: set[str]) -> None:
    """Every point but the hidden ones is shown and is ours."""
    missing = {points.general(name) for name in points.names(model.config) if name not in shown}
    assert missing == {f"blocks.N.{name}" for name in hidden}
    ours = record(model, tokens, list(shown))
    for name in points.names(model.config):
        if name in shown:
            hold(name, ours[name], shown[name])


@pytest.mark.parametrize(
    "changes", [*GPT_OSS.values(), *TRANSFORMERS_ALONE.values()], ids=[*GPT_OSS, *TRANSFORMERS_ALONE]
)
def test_gpt_oss_is_transformers_gpt_oss(changes):
    model, tokens = compared(gpt_oss, changes)
    shown = transformers_shows(model, tokens)
    for n in range(3):
        shown[f"blocks.{n}.attention.sink"] = 1 - shown[f"blocks.{n}.attention.pattern"].sum(-1)
    agree(model, shown, tokens, hidden={"attention.scores", "attention.sink_logit", "experts.each"})


@pytest.mark.parametrize("changes", QWEN3.values(), ids=QWEN3)
def test_qwen3_is_transformers_qwen3(changes):
    model, tokens = compared(qwen3, changes)
    agree(model, transformers_shows(model, tokens), tokens, hidden={"attention.scores", "experts.each"})


@pytest.mark.parametrize("changes", GPT2.values(), ids=GPT2)
def test_gpt2_is_transformers_gpt2(changes):
    model, tokens = compared(gpt2, changes)
    agree(model, transformers_shows(model, tokens), tokens, hidden={"attention.scores"})


@pytest.mark.parametrize("changes", GPT_OSS.values(), ids=GPT_OSS)
def test_gpt_oss_is_openais_gpt_oss(changes):
    pytest.importorskip("gpt_oss.torch.model", reason="OpenAI's package: pip install --no-deps gpt-oss")
    model, tokens = compared(gpt_oss, OPENAI | changes)
    shown, ours = openai_shows(model, tokens), record(model, tokens)
    for name in shown:
        torch.testing.assert_close(ours[name], shown[name], atol=BOUND, rtol=0, msg=f"{name}: ".__add__)
    assert len(shown) == 3 + 3 * 6 and "logits" in shown


@pytest.mark.parametrize("changes", GPT_OSS.values(), ids=GPT_OSS)
@pytest.mark.parametrize("base", [{}, OPENAI], ids=["transformers", "openai"])
def test_both_clamps_bind_and_sinks_take_a_tenth_in_what_is_compared(base, changes):
    model, tokens = compared(gpt_oss, base | changes)
    kept, limit = record(model, tokens), model.config.swiglu_limit
    for n in range(3):
        gate, up, sink = (
            kept[f"blocks.{n}.{name}"] for name in ("experts.gate", "experts.up", "attention.sink")
        )
        for said, clamped in (("gate", gate > limit), ("up", up > limit), ("-up", up < -limit)):
            assert clamped.float().mean() > 0.01, f"layer {n}: {said} is clamped too seldom"
        assert (gate < -limit).any(), "a gate clamped from below as well would pass"
        assert sink.mean() > 0.1 and sink.amax() > 0.3
        assert all(
            w.abs().min() > 0 for name, w in model.blocks[n].named_parameters() if name.endswith("bias")
        )


@pytest.mark.parametrize("family", [gpt_oss, qwen3])
def test_walking_over_the_experts_agrees_with_transformers_too(family):
    model, tokens = compared(family, {}, seed=4)
    shown, ours = transformers_shows(model, tokens), record(walk(model), tokens)
    for name in shown:
        hold(name, ours[name], shown[name])


@pytest.mark.parametrize("family", [gpt_oss, qwen3, gpt2])
def test_a_padded_batch_is_transformers_padded_batch(family):
    model, tokens = compared(family, WHOLE if family is gpt2 else {})
    reference, real = transformers_model(model), torch.arange(TOKENS) >= torch.tensor([[0], [6], [14]])
    positions = real.cumsum(-1) - 1
    with torch.no_grad():
        theirs = reference(tokens, attention_mask=real.long(), position_ids=positions.clamp(min=0)).logits
    ours = run(model, tokens, positions=positions.where(real, -1))
    torch.testing.assert_close(ours[real], theirs[real], atol=BOUND, rtol=0)
