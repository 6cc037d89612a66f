"""Changes with a name, and one text before and after them."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from toys import gpt2, gpt_oss, qwen3, random_model, random_tokens

import gptoss_lab as lab
from gptoss_lab import Change
from gptoss_lab.text.tokens import encoding
from gptoss_lab.weights import save

MODEL = random_model(gpt_oss())
TOKENS = random_tokens(MODEL.config, batch=1)
LAYERS = range(3)


def watched(change: Change, keep: str = "*") -> lab.Trace:
    """The toy's trace under a change."""
    model, edit = change.applied(MODEL)
    return lab.watch(model, TOKENS, keep=keep, edit=edit)


def test_a_forbidden_expert_never_answers_and_the_others_weigh_as_if_it_were_not_there():
    plain, trace = watched(Change()), watched(Change(forbid=[3]))
    assert any((plain[f"blocks.{n}.experts.choice"] == 3).any() for n in LAYERS)
    for n in LAYERS:
        assert not (trace[f"blocks.{n}.experts.choice"] == 3).any()
    logits = plain["blocks.0.experts.logits"].clone()
    logits[..., 3] = -math.inf
    best = logits.topk(2)
    assert torch.equal(trace["blocks.0.experts.choice"], best.indices)
    assert torch.allclose(trace["blocks.0.experts.weight"], best.values.softmax(-1))


def test_an_expert_is_forbidden_in_one_layer_alone():
    plain, trace = watched(Change()), watched(Change(forbid=[(1, 3)]))
    assert torch.equal(plain["blocks.0.residual"], trace["blocks.0.residual"])
    assert not (trace["blocks.1.experts.choice"] == 3).any()
    alone = watched(Change(forbid=[(2, int(plain["blocks.2.experts.choice"][0, 0, 0]))]))
    assert torch.equal(plain["blocks.1.residual"], alone["blocks.1.residual"])


def test_a_forced_expert_takes_the_place_of_the_least_with_its_own_logit():
    plain = watched(Change())
    often = int(plain["blocks.0.experts.choice"].flatten().mode().values)
    trace = watched(Change(force=[often]))
    was, now = plain["blocks.0.experts.choice"], trace["blocks.0.experts.choice"]
    there = (was == often).any(-1)
    assert there.any() and not there.all()
    assert torch.equal(was[there], now[there])
    assert torch.equal(now[~there][:, 0], was[~there][:, 0]) and (now[~there][:, 1] == often).all()
    logits = plain["blocks.0.experts.logits"].gather(-1, now)
    assert torch.allclose(trace["blocks.0.experts.weight"], logits.softmax(-1))


def test_two_forced_experts_are_the_two_that_answer():
    trace = watched(Change(force=[5, 2]))
    for n in LAYERS:
        assert (trace[f"blocks.{n}.experts.choice"].sort(-1).values == torch.tensor([2, 5])).all()


def test_a_head_that_is_off_adds_nothing():
    plain, trace = watched(Change()), watched(Change(heads_off=[(1, 4)]))
    mixed = trace["blocks.1.attention.mixed"]
    others = [0, 1, 2, 3, 5, 6, 7]
    assert (mixed[:, :, 4] == 0).all()
    assert torch.equal(mixed[:, :, others], plain["blocks.1.attention.mixed"][:, :, others])
    assert torch.equal(plain["blocks.0.residual"], trace["blocks.0.residual"])


def test_a_sink_that_is_off_takes_nothing():
    trace = watched(Change(sinks_off=[2]))
    assert (trace["blocks.2.attention.sink"] == 0).all() and (trace["blocks.1.attention.sink"] > 0).any()
    assert torch.allclose(trace["blocks.2.attention.pattern"].sum(-1), torch.ones(()))
    everywhere = watched(Change(sinks_off=True))
    assert all((everywhere[f"blocks.{n}.attention.sink"] == 0).all() for n in LAYERS)


def test_windows_and_experts_per_token_are_changes_of_the_config():
    model, edit = Change(window=None, experts_per_token=3).applied(MODEL)
    assert not edit and model.config.windows == (None,) * 3 and model.config.experts_per_token == 3
    assert model.token_embedding is MODEL.token_embedding
    assert Change(window=2).applied(MODEL)[0].config.windows == (2, None, 2)
    assert Change().applied(MODEL) == (MODEL, {})


def test_a_change_survives_json_and_is_told_in_words():
    change = Change(forbid=[5, (2, 1)], force=3, heads_off=[(0, 7)], sinks_off=[1, 0], window=None,
                    experts_per_token=1)  # fmt: skip
    assert Change.from_json(json.loads(json.dumps(change.to_json()))) == change
    assert change.words().split("; ") == [
        "expert 5 forbidden", "expert 1 of layer 2 forbidden", "expert 3 forced", "head 7 of layer 0 off",
        "sinks of layers 0, 1 off", "no windows", "1 expert a token",
    ]  # fmt: skip
    assert Change(window=4, sinks_off=True).words() == "sinks off; window of 4"
    assert change and not Change() and not Change(sinks_off=False) and Change().words() == ""


@pytest.mark.parametrize(("fields", "told"), [
    ({"forbid": "x"}, "forbid='x'; expected numbers, or pairs of a layer and a number"),
    ({"forbid": [(1, 2, 3)]}, "expected numbers, or pairs"),
    ({"heads_off": [True]}, "expected numbers, or pairs"),
    ({"sinks_off": "all"}, "sinks_off='all'; expected layers, or True for all"),
    ({"window": "none"}, "window='none'; expected a number of keys, None for all, or 'same'"),
    ({"experts_per_token": 1.5}, "experts_per_token=1.5; expected a number, or None"),
])  # fmt: skip
def test_what_is_no_change_is_refused(fields, told):
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        Change(**fields)


@pytest.mark.parametrize(("change", "told"), [
    (Change(forbid=[7]), "there is no expert 7; toy-oss has 0 to 6"),
    (Change(heads_off=[8]), "there is no head 8; toy-oss has 0 to 7"),
    (Change(forbid=[(3, 1)]), "there is no layer 3; toy-oss has 0 to 2"),
    (Change(sinks_off=[4]), "there is no layer 4"),
    (Change(forbid=range(6)), "layer 0: 6 of 7 experts are forbidden, so 1 could answer; 2 are needed"),
    (Change(force=[1, 2, 3]), "layer 0: 3 experts are forced, 2 answer a token"),
    (Change(force=[1], forbid=[(2, 1)]), "expert 1 is both forbidden and forced in layer 2"),
    (Change(experts_per_token=8), "experts_per_token=8; expected 1 to 7, the experts of toy-oss"),
    (Change(experts_per_token=0), "experts_per_token=0; expected 1 to 7"),
    (Change(window=0), "window=0; expected at least 1"),
    (Change(window=10**30), f"window={10**30}; expected at least 1 .*, at most"),
])  # fmt: skip
def test_what_does_not_fit_the_model_is_refused_before_anything_runs(change, told):
    with pytest.raises(ValueError, match=told):
        lab.compare(MODEL, TOKENS, change)


def test_families_that_lack_a_part_say_so():
    with pytest.raises(ValueError, match="toy-gpt2 has no experts to forbid, force or count"):
        Change(forbid=[1]).applied(random_model(gpt2()))
    with pytest.raises(ValueError, match="toy-gpt2 has no experts to forbid, force or count"):
        Change(experts_per_token=0).applied(random_model(gpt2()))
    with pytest.raises(ValueError, match="toy-qwen3 has no sinks to switch off"):
        Change(sinks_off=True).applied(random_model(qwen3()))
    with pytest.raises(ValueError, match="no change 'forbidden'; there are forbid, force"):
        Change.from_json({"forbidden": [1]})
    with pytest.raises(ValueError, match="a change is int; expected a mapping"):
        Change.from_json(5)


@pytest.mark.parametrize("at_once", [1, 64 * 2**20])
def test_a_comparison_holds_the_likeliest_of_both_and_how_far_apart_they_are(at_once, monkeypatch):
    monkeypatch.setattr("gptoss_lab.study.compare.AT_ONCE", at_once)
    change = Change(forbid=[3], window=None)
    found = lab.compare(MODEL, TOKENS, change, keep=["blocks.*.experts.choice", "logits"], likeliest=6)
    model, edit = change.applied(MODEL)
    with torch.no_grad():
        before = MODEL(TOKENS)[0].double().softmax(-1)
    after = lab.watch(model, TOKENS, keep="logits", edit=edit)["logits"][0].double().softmax(-1)
    T = TOKENS.shape[1]
    assert found.ids.shape == (T, 6) and found.probability.shape == (2, T, 6)
    for t in range(T):
        bits = sum(float(p) * math.log2(float(p) / float(q)) for p, q in zip(before[t], after[t]))
        assert float(found.divergence[t]) == pytest.approx(bits, abs=1e-5)
        largest = sorted(range(29), key=lambda n: -max(float(before[t, n]), float(after[t, n])))[:6]
        assert found.ids[t].tolist() == largest
        for side, share in enumerate((before, after)):
            assert torch.allclose(found.probability[side, t].double(), share[t, found.ids[t]], atol=1e-6)
    assert not (found.after["blocks.1.experts.choice"] == 3).any() and "logits" in found.before
    assert found.words == "expert 3 forbidden; no windows" and found.beside is None


def test_nothing_changed_moves_nothing():
    found = lab.compare(MODEL, TOKENS)
    assert torch.equal(found.probability[0], found.probability[1]) and (found.divergence == 0).all()
    assert found.texts[0] == found.texts[1] and found.words == "nothing changed"


def test_both_texts_go_on_as_generate_would_and_not_beyond_the_context():
    model = random_model(gpt_oss(vocab_size=4096))
    model.tokenizer = encoding("mini")
    change = Change(force=[1])
    changed, edit = change.applied(model)
    found = lab.compare(model, "Once upon", change, max_tokens=5)
    assert found.texts == (lab.generate(model, "Once upon", max_tokens=5).text,
                           lab.generate(changed, "Once upon", max_tokens=5, edit=edit).text)  # fmt: skip
    ids = torch.arange(32)[None]
    assert lab.compare(model, ids, change).texts == ("", "")
    given = lab.watch(model, "Once upon", keep="*")
    again = lab.compare(model, "Once upon", change, before=given)
    assert again.before is given and torch.equal(again.divergence, found.divergence)


def test_a_trace_that_is_there_already_is_of_this_prompt_and_is_made_again_where_it_holds_too_little():
    change = Change(force=[1])
    found = lab.compare(MODEL, TOKENS, change)
    little = lab.watch(MODEL, TOKENS, keep="logits")
    again = lab.compare(MODEL, TOKENS, change, before=little)
    assert again.before is not little and torch.equal(again.divergence, found.divergence)
    for other in (TOKENS[:, 1:], TOKENS.flip(1)):
        with pytest.raises(ValueError, match="`before` is a trace of another prompt"):
            lab.compare(MODEL, TOKENS, change, before=lab.watch(MODEL, other, keep="*"))
    with pytest.raises(ValueError, match="likeliest=0; expected at least 1"):
        lab.compare(MODEL, TOKENS, likeliest=0)


@pytest.mark.parametrize(("maker", "edit", "apart"), [
    (random_model(gpt2()), None, "family, n_kv_heads, norm, positions: "),
    (random_model(gpt_oss(), seed=9), None, "weights: "),
    (MODEL.with_config(window=2), None, "window: "),
    (MODEL, {"blocks.1.residual": lambda value, here: value * 0}, "edits: "),
])  # fmt: skip
def test_a_trace_of_another_model_or_of_an_edited_run_is_refused(maker, edit, apart):
    given = lab.watch(maker, TOKENS, keep="*", edit=edit)
    told = f"the trace is of {re.escape(given.caption)}; the model is .*They differ in {apart}"
    with pytest.raises(ValueError, match=told):
        lab.compare(MODEL, TOKENS, Change(forbid=[5]), before=given)


def test_the_same_weights_under_another_name_or_context_are_the_same_model(tmp_path):
    (tmp_path / "one").mkdir()
    save(MODEL, tmp_path / "one" / "old")
    given = lab.watch(lab.load(tmp_path / "one" / "old"), TOKENS, keep="*")
    (tmp_path / "one" / "old").rename(tmp_path / "new")
    model = lab.load(tmp_path / "new")
    assert given.source["model"] == "old" and model.config.name == "new"
    for same in (model, model.with_config(context=64), model.with_config(stop_ids=(3,))):
        assert lab.compare(same, TOKENS, Change(forbid=[5]), before=given).before is given
    learned = random_model(gpt2())
    given = lab.watch(learned, TOKENS, keep="*")
    learned.config = learned.config.with_changes(context=30)
    with pytest.raises(ValueError, match="They differ in context: "):
        lab.compare(learned, TOKENS, before=given)


def test_a_trace_of_other_products_is_no_first_run_and_may_be_looked_at():
    given = lab.watch(model := random_model(gpt_oss()), TOKENS, keep="*")
    model.unembed.compute = torch.bfloat16
    with pytest.raises(ValueError, match="They differ in products: "):
        lab.compare(model, TOKENS, Change(forbid=[5]), before=given)
    assert lab.views.shown(given, model, "experts").header["source"] == given.caption


@pytest.mark.parametrize(("arguments", "told"), [
    ({"model": "mini-oss"}, "model is 'mini-oss'; expected a model, as lab.load"),
    ({"beside": "mini-gpt2"}, "beside is 'mini-gpt2'; expected a model"),
    ({"change": {"forbid": [5]}}, "change is dict; expected a Change, as lab.Change"),
    ({"change": {}}, "change is dict"),
])  # fmt: skip
def test_arguments_of_another_kind_are_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        lab.compare(**{"model": MODEL, "prompt": TOKENS, **arguments})


def test_another_model_stands_beside_with_the_points_that_it_has():
    other = random_model(gpt2())
    found = lab.compare(MODEL, TOKENS, beside=other, keep=["blocks.*.experts.choice", "blocks.*.mlp.act"])
    assert "blocks.0.experts.choice" in found.before and "blocks.0.mlp.act" not in found.before
    assert "blocks.0.experts.choice" not in found.after and "blocks.0.mlp.act" in found.after
    assert found.words == "toy-gpt2" and found.beside is other
    with pytest.raises(ValueError, match="no point 'blocks.*.mlp.gate'"):
        lab.compare(MODEL, TOKENS, beside=other, keep="blocks.*.mlp.gate")
    with pytest.raises(ValueError, match="toy-oss and toy-gpt2 cut text into different tokens"):
        lab.compare(MODEL, TOKENS, beside=random_model(gpt2(vocab_size=31)))
    namesake = random_model(gpt_oss(), seed=9)
    found = lab.compare(MODEL, TOKENS, Change(window=2), beside=namesake)
    assert found.words == "another toy-oss; window of 2" and found.beside is namesake
    assert found.other.config.window == 2 and lab.compare(MODEL, TOKENS, beside=MODEL).beside is None
    with pytest.raises(ValueError, match="exceed the context of 4 tokens of toy-gpt2"):
        lab.compare(MODEL, TOKENS, beside=random_model(gpt2(context=4)))
    with pytest.raises(ValueError, match="2 prompts; compare takes one"):
        lab.compare(MODEL, TOKENS.expand(2, -1))


def test_the_miniatures_stand_beside_each_other():
    found = lab.compare(lab.load("mini-oss"), "Había una vez un rey", beside=lab.load("mini-gpt2"))
    assert found.before.labels == found.after.labels and found.words == "mini-gpt2"
    assert all(found.texts) and float(found.divergence.min()) > 0
    renamed = random_model(gpt_oss(vocab_size=4096))
    renamed.tokenizer = encoding("gpt2")
    with pytest.raises(ValueError, match="cut text into different tokens"):
        lab.compare(lab.load("mini-oss"), "Once", beside=renamed)
