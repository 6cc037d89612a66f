"""Traces: what is kept is what the model computed, and a request that cannot be met is refused before
anything runs."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from toys import FAMILIES, gpt2, gpt_oss, random_model, random_tokens, run

import gptoss_lab as lab
from gptoss_lab import points
from gptoss_lab.model import attend, attend_fused
from gptoss_lab.text.tokens import encoding


@pytest.fixture
def model():
    """A toy gpt-oss."""
    return random_model(gpt_oss())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trace_of_everything_has_every_point_with_its_axes(family):
    model = random_model(FAMILIES[family]())
    trace = lab.watch(model, random_tokens(model.config))
    assert list(trace) == list(points.names(model.config))
    for name, point in points.names(model.config).items():
        assert trace.axes(name) == point.axes
        assert tuple(trace[name].shape) == point.shape(model.config, 3, 9, 9)


def test_watching_does_not_change_the_logits(model):
    tokens = random_tokens(model.config)
    assert torch.equal(lab.watch(model, tokens, keep="logits")["logits"], run(model, tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_is_its_own_it_holds_no_more_than_it_shows_and_changes_no_model(family):
    model = random_model(FAMILIES[family]())
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    tokens = random_tokens(model.config)
    trace, before = lab.watch(model, tokens), run(model, tokens)
    storages = [value.untyped_storage() for value in trace.values.values()]
    assert [one.nbytes() for one in storages] == [value.nbytes for value in trace.values.values()]
    assert len({one.data_ptr() for one in storages}) == len(storages)
    for value in trace.values.values():
        value.fill_(1)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert torch.equal(run(model, tokens), before)


def test_ids_may_be_a_list_and_labels_are_then_the_ids(model):
    trace = lab.watch(model, [5, 17, 3], keep="logits")
    assert trace.tokens.tolist() == [[5, 17, 3]]
    assert trace.labels == ["5", "17", "3"]


def test_text_becomes_tokens_and_readable_labels():
    model = random_model(gpt_oss(vocab_size=4096))
    model.tokenizer = encoding("mini")
    trace = lab.watch(model, "the cat\n", keep="embedding")
    assert "".join(trace.labels) == "the·cat⏎"
    assert trace["embedding"].shape == (1, len(trace.labels), 10)


def test_last_keeps_the_logits_of_the_last_positions_alone(model):
    tokens = random_tokens(model.config)
    whole = lab.watch(model, tokens, keep="logits")["logits"]
    two = lab.watch(model, tokens, keep="logits", last=2)["logits"]
    assert two.shape == (3, 2, 29) and torch.allclose(two, whole[:, -2:], atol=1e-6)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "empty"),
        ([], "empty"),
        ("text", "no tokenizer"),
        ([1.5], "whole numbers"),
        ([True, False], r"\(2,\) torch.bool; expected T or B T whole numbers"),
        ([1 + 2j], "complex64; expected T or B T whole numbers"),
        ([[[1]]], "B T"),
        ([29], "0 to 28"),
        (None, "kind NoneType"),
        (5, "kind int"),
        (b"text", "kind bytes"),
        (["a"], "kind list"),
        ([[1, 2], [3]], "kind list"),
        ([2**70], "kind list"),
        ([1] * 33, r"33 tokens exceed the context of 32 .* model.with_config\(context=33\)"),
    ],
)
def test_a_prompt_that_cannot_be_run_is_refused(model, prompt, message):
    with pytest.raises(ValueError, match=message):
        lab.watch(model, prompt)


def test_a_text_may_be_as_long_as_the_context_and_a_wider_context_takes_more(model):
    assert lab.watch(model, [1] * 32, keep="logits")["logits"].shape == (1, 32, 29)
    assert lab.watch(model.with_config(context=33), [1] * 33, keep="logits")["logits"].shape == (1, 33, 29)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": None}, "None is no name of a point"),
        ({"keep": 5}, "5 is no name of a point"),
        ({"edit": 5}, "edit is int; expected {glob: function}"),
        ({"last": -1}, "last=-1"),
        ({"last": "1"}, "last='1'; expected how many"),
        ({"last": 1.5}, "last=1.5; expected how many"),
        ({"limit": "1e9"}, "limit='1e9'; expected bytes"),
        ({"limit": float("nan")}, "limit=nan; expected bytes"),
        ({"model": "mini-oss"}, r"model is 'mini-oss'; expected a model, as lab.load\('mini-oss'\) gives"),
        ({"model": None}, "model is NoneType; expected a model"),
    ],
)
def test_arguments_of_another_kind_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        lab.watch(**{"model": model, "prompt": [1, 2], **arguments})


def test_a_trace_keeps_its_tokens_when_the_callers_change(model):
    ids = torch.tensor([[1, 2, 3]])
    trace = lab.watch(model, ids, keep="logits")
    ids[0, 0] = 99
    assert trace.tokens.tolist() == [[1, 2, 3]]


def test_a_missing_point_says_why_and_an_unknown_one_names_the_nearest():
    model = random_model(gpt2())
    with pytest.raises(ValueError, match="no attention sinks"):
        lab.watch(model, [1], keep="blocks.1.attention.sink_logit")
    with pytest.raises(ValueError, match=r"Did you mean 'blocks\.1\.attention\.pattern'"):
        lab.watch(model, [1], keep="blocks.1.attention.patern")
    with pytest.raises(ValueError, match="its layers are 0 to 2"):
        lab.watch(model, [1], keep="blocks.7.residual")


def test_asking_for_too_much_is_refused_with_arithmetic_before_it_runs(model, monkeypatch):
    monkeypatch.setattr(type(model), "forward", lambda *a, **k: pytest.fail("it ran"))
    every_pattern = 3 * 8 * 30 * 30 * 4
    with pytest.raises(ValueError, match=rf"attention\.pattern 86\.4 kB.*raise limit={every_pattern}\."):
        lab.watch(model, [1] * 30, keep="*.pattern", limit=every_pattern - 1)


def test_the_bytes_foretold_are_the_bytes_kept(model):
    trace = lab.watch(model, random_tokens(model.config))
    foretold = points.trace_bytes(list(trace), model.config, 3, 9, 9)
    assert foretold == {name: trace[name].numel() * trace[name].element_size() for name in trace}


def test_what_was_not_kept_is_named_with_what_was(model):
    trace = lab.watch(model, [1, 2], keep="blocks.0.experts.choice")
    with pytest.raises(KeyError, match=r"the nearest that was is 'blocks\.0\.experts\.choice'"):
        trace["blocks.0.experts.choices"]


def test_a_trace_says_where_it_came_from(model):
    changed = model.with_config(window=None)
    trace = lab.watch(
        changed, [1, 2, 3], keep="logits", edit={"blocks.1.experts.logits": lambda value, here: value}
    )
    assert trace.source["model"] == "toy-oss"
    assert trace.source["changes"] == {"window": "None"}
    assert trace.source["edits"] == ["blocks.1.experts.logits"]
    assert trace.caption == "toy-oss (toy, seed 0), float32; window=None; edited blocks.1.experts.logits"


def test_the_caption_tells_products_and_arithmetic_where_they_are_not_the_plain_ones():
    exact, narrow = (lab.load("mini-oss", dtype=dtype) for dtype in ("stored", torch.bfloat16))
    captions = [lab.watch(one, [1], keep="logits").caption for one in (exact, narrow)]
    assert captions[0].endswith("mxfp4 + bfloat16")
    assert captions[1] == f"{captions[0]}, products in bfloat16"
    fast = lab.load("mini-oss", kernels="fast")
    trace = lab.watch(fast, [1], keep="logits")
    arithmetic = trace.source["forms"][0].rsplit(", ", 1)[1]
    assert arithmetic.startswith("fast (") and trace.caption == f"{captions[0]}, {arithmetic}"


def test_the_form_told_is_the_form_that_ran(model):
    for block in model.blocks:
        block.attention.attend = attend_fused
    forms = lab.watch(model, [1, 2, 3], keep="blocks.1.attention.pattern").source["forms"]
    assert [form.split()[0] for form in forms] == ["fused", "explicit", "fused"]
    assert "gathered" in forms[0]
    assert "walked" in lab.watch(model, [1] * 9, keep="logits").source["forms"][0]


@pytest.mark.parametrize("name", ["pattern", "scores"])
def test_an_edit_that_needs_the_explicit_form_is_told_with_it(model, name, monkeypatch):
    ran = []
    monkeypatch.setattr("gptoss_lab.model.attention.attend", lambda *a: ran.append(1) or attend(*a))
    for block in model.blocks:
        block.attention.attend = attend_fused
    trace = lab.watch(model, [1, 2, 3], keep="logits", edit={f"blocks.1.attention.{name}": lambda v, here: v})
    assert [form.split()[0] for form in trace.source["forms"]] == ["fused", "explicit", "fused"]
    assert len(ran) == 1


def test_a_run_tells_the_forms_of_prompt_and_decoding(model):
    told = lab.generate(model, [1] * 9, 3, keep="logits").trace.source["forms"]
    assert told == ["explicit attention, walked then gathered experts, exact"] * 3
    told = lab.generate(model, [1] * 9, 1, keep="logits").trace.source["forms"]
    assert told == ["explicit attention, walked experts, exact"] * 3


def test_an_edit_changes_what_comes_after_and_here_tells_where_it_stands(model):
    seen, plain = [], lab.watch(model, [4, 5, 6], keep="*")
    first = int(plain["blocks.0.experts.choice"][0, 0, 0])

    def forbid(value, here):
        seen.append((here.name, here.layer, here.positions.tolist(), "attention.out" in here.earlier))
        value[..., first] = float("-inf")
        return value

    edited = lab.watch(model, [4, 5, 6], keep="*", edit={"blocks.*.experts.logits": forbid})
    assert seen == [(f"blocks.{n}.experts.logits", n, [[0, 1, 2]], True) for n in range(3)]
    assert not any((edited[f"blocks.{n}.experts.choice"] == first).any() for n in range(3))
    assert torch.equal(plain["blocks.0.residual_mid"], edited["blocks.0.residual_mid"])
    assert not torch.equal(plain["logits"], edited["logits"])


def test_the_sink_is_read_only_and_its_logit_is_not(model):
    with pytest.raises(ValueError, match="sink_logit"):
        lab.watch(model, [1], edit={"blocks.0.attention.sink": lambda value, here: value})
    off = lab.watch(model, [1, 2], edit={"*.sink_logit": lambda value, here: value - float("inf")})
    assert all((off[f"blocks.{n}.attention.sink"] == 0).all() for n in range(3))
    assert torch.allclose(off["blocks.2.attention.pattern"].sum(-1), torch.ones(1, 8, 2))


def test_an_edit_may_choose_only_experts_that_there_are(model):
    with pytest.raises(ValueError, match=r"chose experts 99 to 99; there are 0 to 6"):
        lab.watch(model, [1], edit={"blocks.1.experts.choice": lambda value, here: value * 0 + 99})
    forced = lab.watch(model, [1, 2], edit={"blocks.1.experts.choice": lambda value, here: value * 0 + 6})
    assert (forced["blocks.1.experts.choice"] == 6).all()


def test_an_edit_that_is_no_function_is_refused(model):
    with pytest.raises(ValueError, match="expected a function"):
        lab.watch(model, [1], edit={"logits": 3})


def test_a_trace_saved_and_opened_is_the_same(model, tmp_path):
    trace = lab.watch(model, random_tokens(model.config))
    again = lab.open_trace(trace.save(tmp_path / "t.safetensors"))
    assert list(again) == list(trace)
    assert all(
        torch.equal(again[name], trace[name]) and again[name].dtype == trace[name].dtype for name in trace
    )
    assert (again.labels, again.source, again.caption) == (trace.labels, trace.source, trace.caption)
    assert torch.equal(again.tokens, trace.tokens)
    assert os.listdir(tmp_path) == ["t.safetensors"]


def test_every_kind_of_trace_is_opened_again(model, tmp_path):
    def fail(value, here):
        raise KeyError("an edit's own mistake")

    stopped = lab.generate(model, [1, 2], 5, keep="*", edit={"embedding": fail})
    with pytest.raises(KeyError, match="own mistake"):
        next(iter(stopped))
    narrow = lab.load("mini-oss", dtype=torch.bfloat16)
    kept = [lab.watch(model, [1, 2, 3], last=n) for n in (0, 1, 9)]
    kept += [lab.watch(random_model(family()), [1, 2]) for family in FAMILIES.values()]
    kept += [lab.watch(narrow, "Once"), lab.generate(model, [1] * 9, 3, keep="*").trace, stopped.trace]
    kept += [lab.watch(model.with_config(swiglu_limit=float("inf"), context=40), [1], edit={"logits": minus})]
    for n, trace in enumerate(kept):
        again = lab.open_trace(trace.save(tmp_path / str(n)))
        assert again.source == trace.source and list(again) == list(trace)


def minus(value, here):
    """An edit."""
    return -value


def test_a_full_disk_is_told_as_the_systems_error(model, tmp_path, monkeypatch):
    def full(*args):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="t.safetensors' could not be written.*No space left"):
        lab.watch(model, [1], keep="logits").save(tmp_path / "t.safetensors")


def test_a_failed_save_leaves_the_old_file_and_nothing_beside_it(model, tmp_path, monkeypatch):
    trace = lab.watch(model, [1, 2], keep="logits")
    path = trace.save(tmp_path / "t.safetensors")
    before = path.read_bytes()

    def fail(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        trace.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["t.safetensors"]


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 64, None])
def test_a_file_that_is_no_trace_is_refused_in_words(tmp_path, content):
    path = tmp_path / "no.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"no\.safetensors"):
        lab.open_trace(path)


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("source", "5", "facts about the source are not"),
        ("source", "{}", "facts about the source are not"),
        ("source", "[" * 100_000, "cannot be read"),
        ("labels", "5", "labels are not"),
        ("labels", "[1, 2]", "labels are not"),
        ("labels", '["one"]', "labels are not"),  # of two tokens
        ("order", "5", "cannot be read"),
        ("order", '["tokens"]', "point:tokens"),
        ("tokens", torch.ones(1, 2), "tokens are not"),
        ("tokens", torch.ones(2, dtype=torch.int64), "tokens are not"),
        ("point:logits", torch.ones(2, 29), "points are not"),
        ("point:blocks.0.nonsense", torch.ones(1, 2, 29), "points are not"),
        ("labels", '["\\ud800", "b"]', "labels and source cannot be: .*surrogates not allowed"),
        ("order", "9" * 5000, "cannot be read"),
        ("tokens", torch.ones(0, 2, dtype=torch.int64), "tokens are not"),
        ("tokens", torch.tensor([[1, 10**9]]), "tokens reach from 1 to 1000000000; there are 0 to 28"),
        ("tokens", torch.tensor([[1, -5]]), "tokens reach from -5 to 1"),
        ("point:logits", torch.ones(1, 3, 29), r"'logits' is \(1, 3, 29\) .*expected \(1, 2, 29\)"),
        ("point:logits", torch.ones(1, 2, 29, dtype=torch.int64), "'logits' is .*int64, expected .*float32"),
        ("point:blocks.0.attention.pattern", torch.ones(1, 8, 9, 9), r"expected \(1, 8, 2, 2\)"),
        ("point:blocks.0.experts.choice", torch.ones(1, 2, 2), "float32, expected .*int64"),
        ("point:blocks.0.experts.choice", torch.full((1, 2, 2), -1), "choice' reach from -1 to -1"),
        ("point:blocks.0.experts.choice", torch.full((1, 2, 2), 2**40), "there are 0 to 6"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused_in_words(model, tmp_path, part, value, said):
    path = lab.watch(model, [1, 2], keep="logits").save(tmp_path / "t")
    rewrite(path, part, value)
    with pytest.raises(ValueError, match=said):
        lab.open_trace(path)


@pytest.mark.parametrize(
    ("fact", "value", "said"),
    [
        ("config", {"n_layers": 10**9}, "asks for 1000000000 layers; at most 1024"),
        ("config", {"d_head": 2 * 10**9}, "asks for 2000000000 channels in a head"),
        ("config", {"rope_theta": 10**400}, "labels and source cannot be"),
        ("config", {"norm_eps": 10**400}, "labels and source cannot be"),
        ("config", {"n_heads": "8"}, "n_heads='8'; expected a positive whole number"),
        ("config", {"depth": 3}, "not the fields of a config"),
        ("config", {"name": "another"}, "facts about the source are not"),
        ("changes", {"window": 5}, "facts about the source are not"),
        ("edits", [5], "facts about the source are not"),
        ("forms", [5], "facts about the source are not"),
        ("weights", "\ud800", "labels and source cannot be"),
    ],
)
def test_a_file_that_claims_what_no_model_is_is_refused_in_words(model, tmp_path, fact, value, said):
    trace = lab.watch(model, [1, 2], keep="logits")
    trace.source[fact] = trace.source[fact] | value if isinstance(value, dict) else value
    path = trace.save(tmp_path / "t")
    with pytest.raises(ValueError, match=said):
        lab.open_trace(path)


def test_a_files_words_do_not_steer_a_terminal(model, tmp_path):
    trace = lab.watch(model, [1, 2], keep="logits")
    trace.source["weights"], trace.source["edits"] = "\x1b[2J", ["\x9b31m"]
    again = lab.open_trace(trace.save(tmp_path / "t"))
    assert again.caption == r"toy-oss (\x1b[2J), float32; edited \x9b31m" and again.caption in repr(again)


def rewrite(path, part, value):
    """Put another text, or another tensor, in a trace's file."""
    with safe_open(path, "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    if isinstance(value, str):
        about[part] = value
    else:
        tensors[part] = value
        about["order"] = json.dumps([name[6:] for name in tensors if name.startswith("point:")])
    save_file(tensors, path, about)


def test_another_safetensors_file_is_no_trace(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="no trace"):
        lab.open_trace(tmp_path / "model.safetensors")
