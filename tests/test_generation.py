"""Generation: the cache changes nothing but the time, sampling is what it says, and a run can be watched and
stopped."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from toys import FAMILIES, gpt2, gpt_oss, random_model, random_tokens, run

import gptoss_lab as lab
from gptoss_lab import generation, points
from gptoss_lab.generation import longest_start, pick, usable
from gptoss_lab.text.tokens import encoding


def spoken(**changes):
    """A toy gpt-oss that speaks the miniature's tokens."""
    model = random_model(gpt_oss(vocab_size=4096, **changes))
    model.tokenizer = encoding("mini")
    return model


def ids(run_):
    """The ids of a run."""
    return [token.id for token in run_]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_with_the_cache_equals_greedy_without_it_past_the_window(family):
    model = random_model(FAMILIES[family](tied=False))
    prompt = random_tokens(model.config, 1, 7)
    with_cache = ids(lab.generate(model, prompt, max_tokens=20))
    assert with_cache == ids(lab.generate(model, prompt, max_tokens=20, cache=False))
    assert len(set(with_cache)) > 2


def test_gradients_are_as_they_were_while_a_run_waits_for_its_next_token():
    steps = iter(lab.generate(random_model(gpt_oss()), [1, 2, 3], max_tokens=3))
    next(steps)
    assert torch.is_grad_enabled()
    next(steps)
    assert torch.is_grad_enabled()


def test_greedy_takes_the_likeliest_token_each_time():
    model = random_model(gpt_oss())
    text = [3, 1, 4]
    made = ids(lab.generate(model, text, max_tokens=6))
    for n, token in enumerate(made):
        assert run(model, torch.tensor([text + made[:n]]))[0, -1].argmax() == token


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 64])
def test_a_prompt_in_chunks_of_any_size_gives_the_same_run(monkeypatch, chunk):
    model = random_model(gpt_oss())
    prompt = random_tokens(model.config, 1, 23)
    whole = lab.generate(model, prompt, max_tokens=9, keep="*").trace
    monkeypatch.setattr(generation, "CHUNK", chunk)
    pieces = lab.generate(model, prompt, max_tokens=9, keep="*").trace
    assert torch.equal(whole.tokens, pieces.tokens)
    for name in whole:
        assert torch.allclose(whole[name].float(), pieces[name].float(), atol=1e-4, equal_nan=True), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trace_of_a_run_is_the_trace_of_its_text(family):
    model = random_model(FAMILIES[family]())
    run_ = lab.generate(model, random_tokens(model.config, 1, 7), max_tokens=12, keep="*")
    at_once = lab.watch(model, run_.trace.tokens, last=12)
    assert run_.trace.tokens[0, 7:].tolist() == ids(run_)[:-1]
    for name in points.names(model.config):
        assert run_.trace[name].shape == at_once[name].shape, name
        assert torch.allclose(run_.trace[name].float(), at_once[name].float(), rtol=1e-4, atol=2e-5), name


def test_an_edit_acts_on_every_token_while_decoding():
    model, positions = random_model(gpt_oss()), []

    def forbid(value, here):
        positions.extend(here.positions[0].tolist())
        value[..., 2] = float("-inf")
        return value

    trace = lab.generate(model, [1, 2, 3], 8, keep="*.choice", edit={"blocks.1.experts.logits": forbid}).trace
    assert positions == list(range(10))
    assert not (trace["blocks.1.experts.choice"] == 2).any()
    assert (trace["blocks.0.experts.choice"] == 2).any()


def test_the_same_seed_gives_the_same_text_and_another_seed_another():
    model = random_model(gpt_oss())
    text = {seed: ids(lab.generate(model, [1], 30, temperature=1.0, seed=seed)) for seed in (0, 1)}
    assert text[0] == ids(lab.generate(model, [1], 30, temperature=1.0, seed=0))
    assert text[0] != text[1]


def test_sampling_follows_the_probabilities():
    row, generator = torch.tensor([2.0, 0.0, 1.0]), torch.Generator().manual_seed(0)
    count = torch.bincount(
        torch.tensor([pick(row, 0.5, None, None, generator) for _ in range(4000)]), minlength=3
    )
    assert torch.allclose(count / 4000, (row / 0.5).softmax(-1), atol=0.02)


def test_top_k_and_top_p_leave_only_the_likeliest():
    row, generator = torch.tensor([0.1, 0.5, 0.15, 0.25]).log(), torch.Generator().manual_seed(0)

    def drawn(top_k, top_p):
        return {pick(row, 1.0, top_k, top_p, generator) for _ in range(300)}

    assert drawn(None, None) == {0, 1, 2, 3}
    assert drawn(2, None) == {1, 3}
    assert drawn(None, 0.4) == {1}
    assert drawn(None, 0.7) == {1, 3}
    assert drawn(None, 0.8) == {1, 2, 3}
    assert drawn(1, 1.0) == {1}


def test_logprob_is_the_models_own_whatever_the_sampling():
    model = random_model(gpt_oss())
    token = next(iter(lab.generate(model, [1, 2], 1, temperature=3.0, top_k=5, seed=4)))
    assert token.logprob == pytest.approx(
        float(run(model, torch.tensor([[1, 2]]))[0, -1].log_softmax(-1)[token.id]), abs=1e-5
    )


def test_an_id_that_stands_for_nothing_is_never_sampled():
    model = random_model(gpt_oss(vocab_used=5))
    assert max(ids(lab.generate(model, [1], 30, temperature=5.0))) < 5
    assert math.isinf(usable(torch.zeros(8), 5)[5])


def test_sampling_leaves_the_logits_that_a_trace_keeps_alone():
    model = random_model(gpt_oss(vocab_used=5))
    assert lab.generate(model, [1], 3, keep="logits").trace["logits"].isfinite().all()


def test_a_stop_id_ends_the_text_without_being_part_of_it():
    model = spoken()
    plain = lab.generate(model, "Once", 8)
    third = ids(plain)[2]
    stopped = lab.generate(model, "Once", 8, stop=third)
    assert ids(stopped) == ids(plain)[:3]
    assert stopped.finish == "stop"
    assert stopped.text == encoding("mini").decode(ids(plain)[:2])
    assert plain.finish == "length"


def test_the_models_own_stop_id_ends_a_run():
    first = ids(lab.generate(spoken(), "Once", 1))[0]
    assert lab.generate(spoken(stop_ids=(first,)), "Once", 8).finish == "stop"


def test_a_stop_text_ends_the_text_before_it_even_across_tokens():
    model = spoken()
    whole = lab.generate(model, "Once", 12, temperature=1.0, seed=2).text
    middle = whole[len(whole) // 2 - 2 : len(whole) // 2 + 3]
    assert "\ufffd" not in middle
    stopped = lab.generate(model, "Once", 12, temperature=1.0, seed=2, stop=["never said", middle])
    assert stopped.text == whole[: whole.index(middle)]
    assert stopped.finish == "stop"


def test_text_that_may_begin_a_stop_text_is_held_back():
    assert longest_start("to be or", ["or not"]) == 2
    assert longest_start("to be", ["or not"]) == 0
    assert longest_start("aab", ["abc", "b-"]) == 2


def test_the_texts_of_the_tokens_join_to_the_text_and_are_never_half_a_character():
    model = spoken(context=64)
    run_ = lab.generate(model, "año", 60, temperature=2.0, seed=1)
    assert (
        "".join(token.text for token in run_)
        == run_.text
        == encoding("mini").decode(ids(run_), errors="replace")
    )


def test_iterating_again_begins_with_what_was_made():
    run_ = lab.generate(random_model(gpt_oss()), [1], 6)
    first = [next(iter(run_))]
    assert run_.tokens == first
    assert [*run_][:1] == first
    assert len(run_.tokens) == 6


def test_a_run_s_trace_is_made_once():
    run_ = lab.generate(random_model(gpt_oss()), [1, 2], 4, keep="*")
    assert run_.trace is run_.trace
    assert run_.trace.tokens.shape == (1, 5)


def test_the_order_of_arguments_is_that_of_the_documents():
    order = ["model", "prompt", "max_tokens", "temperature", "seed", "stop", "keep", "edit"]
    assert list(inspect.signature(lab.generate).parameters)[:8] == order


def test_an_interrupted_run_keeps_what_was_made():
    model, passes = random_model(gpt_oss()), []

    def interrupt(value, here):
        passes.append(here.positions)
        if len(passes) == 4:
            raise KeyboardInterrupt
        return value

    run_ = lab.generate(model, [1, 2], 10, keep="*", edit={"blocks.2.attention.q": interrupt})
    with pytest.raises(KeyboardInterrupt):
        list(run_)
    assert (len(run_.tokens), run_.finish) == (3, "interrupted")
    assert run_.trace.tokens.shape == (1, 4)
    assert run_.trace["blocks.0.attention.pattern"].shape == (1, 8, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(prompt=[]), "empty"),
        (dict(prompt="Once"), "no tokenizer"),
        (dict(prompt=[[1], [2]]), "one at a time"),
        (dict(max_tokens=0), "max_tokens=0"),
        (dict(temperature=-1.0), "temperature"),
        (dict(temperature=math.nan), "temperature"),
        (dict(top_k=0), "top_k"),
        (dict(top_p=0.0), "top_p"),
        (dict(top_p=1.5), "top_p"),
        (dict(stop=""), "stop"),
        (dict(max_tokens=64), "exceed the context of 32"),
        (dict(keep="*", limit=10), "more than the limit of 10 B"),
        (dict(keep="*", cache=False), "keep needs the cache"),
        (dict(keep="nonsense"), "Did you mean"),
        (dict(prompt=None), "kind NoneType"),
        (dict(max_tokens=2.5), "max_tokens=2.5; expected a whole number"),
        (dict(max_tokens="3"), "max_tokens='3'"),
        (dict(temperature="hot"), "temperature='hot'; expected a number"),
        (dict(temperature=None), "temperature=None"),
        (dict(top_k=2.5), "top_k=2.5"),
        (dict(top_p="much"), "top_p='much'"),
        (dict(seed=None), "seed=None"),
        (dict(seed=2**64), "seed=18446744073709551616; expected a whole number from"),
        (dict(stop=None), r"stop=\[None\]"),
        (dict(stop=b"end"), "stop="),
        (dict(edit=5), "expected {glob: function}"),
        (dict(keep=5), "5 is no name of a point"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_runs(monkeypatch, arguments, message):
    model = random_model(gpt_oss())
    monkeypatch.setattr(type(model), "forward", lambda *a, **k: pytest.fail("it ran"))
    with pytest.raises(ValueError, match=message):
        lab.generate(model, **{"prompt": [1, 2], "max_tokens": 3, **arguments})


@pytest.mark.parametrize(("arguments", "told"), [
    ({"prompt": [29]}, "tokens reach from 29 to 29; toy-oss knows 0 to 28"),
    ({"model": "mini-oss"}, "model is 'mini-oss'; expected a model"),
    ({"keep": "logits", "limit": "1e9"}, "limit='1e9'; expected bytes"),
])  # fmt: skip
def test_what_cannot_run_is_refused_before_the_first_token_is_asked_for(arguments, told):
    with pytest.raises(ValueError, match=told):
        lab.generate(**{"model": random_model(gpt_oss()), "prompt": [1], "max_tokens": 3, **arguments})


def test_a_seed_may_be_a_whole_number_of_any_kind():
    model = random_model(gpt_oss())
    both = [ids(lab.generate(model, [1], 5, temperature=1.0, seed=seed)) for seed in (3, np.int64(3))]
    assert both[0] == both[1]


def test_nan_logits_are_told_and_not_sampled():
    run_ = lab.generate(
        random_model(gpt_oss()), [1], 3, edit={"final_norm": lambda value, here: value * math.nan}
    )
    with pytest.raises(ValueError, match="NaN"):
        list(run_)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_infinite_logits_are_told_and_not_sampled(temperature, sign):
    """All of them lowest, or one of them highest: neither leaves probabilities."""

    def to_infinity(value, here):
        value[..., 7 if sign > 0 else slice(None)] = sign * math.inf
        return value

    edit = {"logits": to_infinity}
    run_ = lab.generate(random_model(gpt_oss()), [1], 3, temperature=temperature, edit=edit)
    with pytest.raises(ValueError, match="largest logit is -?inf"):
        list(run_)


@pytest.mark.parametrize("temperature", [1e-30, 1e-45, 5e-324])
def test_the_smallest_temperature_takes_the_likeliest_token(temperature):
    model = random_model(gpt_oss())
    coldest, likeliest = (lab.generate(model, [1, 2], 5, temperature=t) for t in (temperature, 0.0))
    assert ids(coldest) == ids(likeliest)


def test_gpt2_refuses_to_go_past_the_positions_that_it_learned():
    model = random_model(gpt2())
    with pytest.raises(ValueError, match="context of 31"):
        lab.generate(model, [1] * 30, 2)
    with pytest.raises(ValueError, match="past the 31 positions"):
        run(model, torch.ones(1, 32, dtype=torch.int64))
