"""Early read-outs: what the model would say next after each half of each block."""

from __future__ import annotations

import importlib

import pytest
import torch
from toys import FAMILIES, gpt_oss, random_model, random_tokens

from gptoss_lab.trace import watch
from gptoss_lab.views.steps import KEEP, read_out_early, residuals


def toy(family: str = "gpt-oss", **changes: object):
    """A random toy, a row of its tokens, and a trace with the residuals and the logits."""
    model = random_model(FAMILIES[family](**changes))
    tokens = random_tokens(model.config, batch=1)
    return model, tokens, watch(model, tokens, keep=[*KEEP, "logits"])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_read_out_is_the_models_own_answer(family):
    model, tokens, trace = toy(family)
    read = read_out_early(model, trace)
    want = trace["logits"][0].softmax(-1)
    assert read.ids.shape == (2 * model.config.n_layers + 1, tokens.shape[1], 5)
    torch.testing.assert_close(read.probability[-1], want.topk(5).values, rtol=1e-6, atol=1e-7)
    assert read.ids[-1].equal(want.topk(5).indices)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_step_is_read_as_if_the_model_stopped_there(layer):
    model, tokens, trace = toy()
    read = read_out_early(model, trace, count=3)
    with torch.no_grad():
        x = model.embed(tokens)
        for block in model.blocks[: layer + 1]:
            x = block(x)
        want = model.read_out(x)[0].softmax(-1)
    step = residuals(model.config).index(f"blocks.{layer}.residual")
    assert step == 2 * layer + 2
    torch.testing.assert_close(read.probability[step], want.topk(3).values, rtol=1e-6, atol=1e-7)
    following = want[:-1].gather(-1, tokens[0, 1:, None])[:, 0]
    torch.testing.assert_close(read.own[step, :-1], following, rtol=1e-6, atol=1e-7)


def test_nothing_follows_the_last_token():
    _, _, trace = toy()
    read = read_out_early(*toy()[::2])
    assert read.own[:, -1].isnan().all() and not read.own[:, :-1].isnan().any()
    assert len(trace.labels) == read.own.shape[1]


def test_reading_in_pieces_changes_nothing(monkeypatch):
    model, _, trace = toy()
    whole = read_out_early(model, trace)
    reading = importlib.import_module("gptoss_lab.views.steps")  # views.steps itself is the view
    monkeypatch.setattr(reading, "CHUNK_BYTES", 4 * model.config.vocab_size * 7)  # 7 of 63 rows
    pieces = read_out_early(model, trace)
    assert pieces.ids.equal(whole.ids)
    torch.testing.assert_close(pieces.own, whole.own, rtol=1e-6, atol=1e-7, equal_nan=True)


def test_every_id_has_a_label_and_unused_ids_are_never_named():
    model, _, trace = toy(vocab_used=4)
    read = read_out_early(model, trace, count=4)
    assert set(read.ids.flatten().tolist()) == {0, 1, 2, 3} == set(read.labels)
    with pytest.raises(ValueError, match="count=5; expected 1 to 4"):
        read_out_early(model, trace)


def test_a_trace_without_residuals_is_refused_with_what_to_keep():
    model, tokens, _ = toy()
    with pytest.raises(ValueError, match=r"lacks 'embedding' \(4 of the 7 residuals.*residual_mid"):
        read_out_early(model, watch(model, tokens, keep="blocks.*.residual"))
    with pytest.raises(ValueError, match="They differ in d_model: give the model that made the trace"):
        read_out_early(random_model(gpt_oss(d_model=12)), watch(model, tokens, keep=KEEP))
