"""The command line: what it prints, and that a user's mistake is one clear line, never a traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toys
from toy_checkpoints import CONFIGS

import gptoss_lab as lab
from gptoss_lab import cli, generation, points
from gptoss_lab.model import Cache
from gptoss_lab.model.transformer import Block
from gptoss_lab.weights import save
from gptoss_lab.weights.saving import as_json, write_config

PUBLISHED = Path(__file__).parent / "data" / "published"


def answer(capsys, *arguments):
    """Exit status, standard output and standard error of one command."""
    status = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


SPEED = r"prompt: \d+ tokens in [\d.]+ s \([\d.]+ tokens/s\)"
DECODING = r"; decoding: {} tokens in [\d.]+ s \([\d.]+ tokens/s\); peak memory [\d.]+ [MG]B\n"


def test_generate_prints_the_continuation_and_beside_it_how_fast_it_was(capsys):
    status, out, err = answer(capsys, "generate", "--prompt", "Once upon a time", "--max-tokens", "8")
    assert status == 0 and re.fullmatch(SPEED + DECODING.format(7), err), err
    assert out == lab.generate(lab.load("mini-oss"), "Once upon a time", max_tokens=8).text + "\n"


def test_generate_as_json_holds_ids_and_logprobs_that_join_to_the_text(capsys):
    arguments = ["--max-tokens", "6", "--temperature", "1", "--seed", "3", "--json"]
    status, out, _ = answer(capsys, "generate", "--prompt", "¡Hola!", *arguments)
    said = json.loads(out)
    assert status == 0
    assert "".join(token["text"] for token in said["tokens"]) == said["text"]
    assert (said["prompt"], said["finish"], len(said["tokens"])) == ("¡Hola!", "length", 6)
    assert all(token["logprob"] <= 0 for token in said["tokens"])
    told = said["statistics"]
    assert told["prompt_tokens"] == len(lab.load("mini-oss").tokenizer.encode("¡Hola!"))
    assert told["decode_tokens"] == 5 and told["decode_tokens_per_second"] > 0
    assert told["peak_memory_bytes"] > 1e7


def test_a_model_without_a_tokenizer_is_asked_in_ids(capsys, tmp_path):
    config = toys.gpt_oss()
    folder = str(save(toys.random_model(config), tmp_path / "toy"))
    asked = ["--model", folder, "--prompt", "5, 17 3", "--max-tokens", "4", "--json"]
    status, out, _ = answer(capsys, "generate", *asked)
    run = lab.generate(lab.load(folder), [5, 17, 3], 4)
    assert status == 0 and [one["id"] for one in json.loads(out)["tokens"]] == [one.id for one in run]
    page, trace = tmp_path / "page.html", tmp_path / "trace.safetensors"
    assert answer(capsys, "trace", "[5, 17, 3]", "--model", folder, "--out", str(trace))[0] == 0
    assert lab.open_trace(trace).tokens.tolist() == [[5, 17, 3]]
    assert answer(capsys, "explore", "5 17 3", "--model", folder, "--out", str(page))[0] == 0
    assert page.is_file()
    status, _, err = answer(capsys, "trace", "five", "--model", folder)
    assert status == 2 and "give ids, as in [5, 17, 3]" in err


def test_explore_tells_what_a_page_has_no_room_for_and_takes_another_limit(capsys, tmp_path):
    page = str(tmp_path / "page.html")
    text = "Once upon a time there was a king. " * 5
    small = answer(capsys, "explore", text, "--out", page, "--limit", "500000")
    told = r"^left out, to stay within 500.0 kB: .*pattern.* of layers .*--limit 2e\+06"
    assert small[0] == 0 and re.search(told, small[1])
    assert "left out" not in answer(capsys, "explore", text, "--out", page)[1]
    assert "limit" in answer(capsys, "explore", text, "--out", page, "--limit", "10")[2]


def test_generate_stops_before_a_text(capsys):
    whole = answer(capsys, "generate", "--prompt", "Once", "--max-tokens", "20")[1]
    stop = whole.split()[2]
    assert (
        answer(capsys, "generate", "--prompt", "Once", "--max-tokens", "20", "--stop", stop)[1]
        == whole.split(stop)[0] + "\n"
    )


def test_ctrl_c_keeps_what_was_said(capsys, monkeypatch):
    pick, made = generation.pick, []

    def interrupted(*arguments):
        made.append(pick(*arguments))
        if len(made) == 4:
            raise KeyboardInterrupt
        return made[-1]

    monkeypatch.setattr(generation, "pick", interrupted)
    status, out, err = answer(capsys, "generate", "--prompt", "Once upon", "--max-tokens", "9")
    assert status == 130
    assert re.fullmatch("stopped; " + SPEED + DECODING.format(2), err), err
    assert out.rstrip("\n") == lab.load("mini-oss").tokenizer.decode(made[:3])


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_while_torch_is_imported_is_taken_afterwards(capsys, monkeypatch):
    run, imported = [], __import__

    def slowly(name, *given):
        if given[2:3] == (("machine",),) and not run:  # `from . import machine`, which imports torch
            run.append(name)
            os.kill(os.getpid(), signal.SIGINT)
            run.append("torch is there")
        return imported(name, *given)

    monkeypatch.setattr("builtins.__import__", slowly)
    assert answer(capsys, "points") == (130, "", "\ngptoss-lab: stopped\n") and run[1:] == ["torch is there"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert answer(capsys, "points")[0] == 0


def test_ctrl_c_in_the_prompt_tells_how_far_it_came(capsys, monkeypatch):
    passes, forward = [], Block.forward

    def interrupted(self, *arguments):
        passes.append(self)
        if len(passes) == 9:  # the third layer of the second chunk
            raise KeyboardInterrupt
        return forward(self, *arguments)

    monkeypatch.setattr(Block, "forward", interrupted)
    monkeypatch.setattr(generation, "CHUNK", 4)
    status, out, err = answer(capsys, "generate", "--prompt", "Once upon a time there was a house", "--json")
    assert status == 130 and err == ""
    said = json.loads(out)
    assert (said["text"], said["finish"], said["tokens"]) == ("", "interrupted", [])
    assert said["statistics"]["prompt_tokens"] == 4 + 2 * 4 // 6
    passes.clear()
    status, out, err = answer(capsys, "generate", "--prompt", "Once upon a time there was a house")
    assert (status, out) == (130, "\n") and re.match(r"stopped; prompt: 5 of \d+ tokens in ", err), err


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_from_a_keyboard_keeps_the_text_and_leaves_no_traceback():
    command = [sys.executable, "-m", "gptoss_lab", "generate", "--prompt", "Once", "--max-tokens", "1000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    start = process.stdout.read(8)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    whole = (start + out).decode()
    assert whole.endswith("\n") and len(whole) > 8
    said = lab.generate(lab.load("mini-oss"), "Once", max_tokens=1000)
    for _ in said:
        if len(said.so_far) >= len(whole) - 1:
            break
    assert said.so_far.startswith(whole[:-1])
    assert re.match(r"stopped; prompt: ", err.decode()) and b"Traceback" not in err


def test_what_a_model_says_does_not_steer_a_terminal(capsys, monkeypatch):
    ids = iter(lab.load("mini-oss").tokenizer.encode("a\x1b[2Jb") * 2)
    monkeypatch.setattr(generation, "pick", lambda *arguments: next(ids))
    count = str(len(lab.load("mini-oss").tokenizer.encode("a\x1b[2Jb")))
    piped = answer(capsys, "generate", "--prompt", "Once", "--max-tokens", count)[1]
    assert piped == "a\x1b[2Jb\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert answer(capsys, "generate", "--prompt", "Once", "--max-tokens", count)[1] == "a\\x1b[2Jb\n"
    monkeypatch.undo()
    told = answer(capsys, "generate", "--prompt", "é\x9b[2J", "--max-tokens", "1", "--json")[1]
    assert "\x9b" not in told and json.loads(told)["prompt"] == "é\x9b[2J" and "é" in told


def test_trace_saves_what_was_asked_and_lists_it(capsys, tmp_path):
    path = tmp_path / "t.safetensors"
    status, out, _ = answer(
        capsys, "trace", "the king", "--keep", "blocks.0.experts.choice", "--out", str(path)
    )
    assert status == 0
    assert "B T K" in out and "the ·king" in out
    trace = lab.open_trace(path)
    assert list(trace) == ["blocks.0.experts.choice"]


def test_a_trace_that_the_disk_cannot_hold_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    status, _, err = answer(capsys, "trace", "the cat", "--out", str(tmp_path / "t.safetensors"))
    assert status == 2
    assert "has 1.0 kB free" in err
    assert not list(tmp_path.iterdir())


def test_points_lists_what_a_model_has_and_no_more(capsys):
    assert "sink_logit" in answer(capsys, "points", "--model", "gpt-oss-20b")[1]
    assert "sink_logit" not in answer(capsys, "points", "--model", "gpt2")[1]
    assert answer(capsys, "points", "*.experts.choice")[1].count("\n") == 2


def test_cost_tells_the_published_sizes(capsys):
    out = answer(capsys, "cost", "gpt-oss-20b", "--context", "8192")[1]
    assert "20,914,757,184" in out and "3,608,307,264" in out and "13,761,264,768" in out
    assert "116,829,156,672" in answer(capsys, "cost")[1]


def test_cost_says_how_large_caches_and_traces_get(capsys):
    status, out, _ = answer(capsys, "cost", "mini-oss", "gpt2", "--context", "9000", "--json")
    ours, gpt2 = json.loads(out)
    assert (status, ours["model"], ours["context"], gpt2["context"]) == (0, "mini-oss", 1024, 1024)
    model = lab.load("mini-oss")
    config = model.config
    assert ours["parameters"] == sum(p.numel() for p in model.parameters())
    cache = Cache(config, 40)
    held = sum(layer.k.nbytes + layer.v.nbytes for layer in cache.layers)
    few = json.loads(answer(capsys, "cost", "mini-oss", "--context", "40", "--json")[1])[0]
    assert few["cache_bytes"]["float32"] == 2 * few["cache_bytes"]["bfloat16"] == held
    trace = lab.watch(model, [1] * 40)
    size = {name: trace[name].nbytes for name in trace}
    assert few["trace_bytes"]["everything"] == sum(size.values())
    patterns = sum(n for name, n in size.items() if name.endswith("attention.pattern"))
    assert few["trace_bytes"]["attention patterns"] == patterns
    residuals = sum(n for name, n in size.items() if "residual" in name) + size["embedding"]
    assert few["trace_bytes"]["residuals"] == residuals
    routers = [n for name, n in size.items() if name.endswith((".choice", ".weight", "experts.logits"))]
    assert few["trace_bytes"]["routers"] == sum(routers) and few["trace_bytes"]["logits"] == size["logits"]
    assert "routers" not in gpt2["trace_bytes"]


@pytest.mark.parametrize("layout", ["config.json", "original/config.json"])
def test_cost_and_points_need_no_more_of_a_folder_than_its_config(capsys, tmp_path, layout):
    shutil.copy(PUBLISHED / layout, tmp_path)
    for command, *option in (["cost"], ["points", "--model"]):
        status, out, err = answer(capsys, command, *option, str(tmp_path))
        assert (status, err) == (0, "")
        assert out.replace(tmp_path.name, "gpt-oss-20b") == answer(capsys, command, *option, "gpt-oss-20b")[1]


@pytest.mark.parametrize("toy", CONFIGS)
def test_cost_and_points_of_a_toy_s_config_are_those_of_the_toy(capsys, tmp_path, toy):
    config = CONFIGS[toy].with_changes(name=tmp_path.name)
    said = write_config(config, config.stored_experts == "mxfp4", config.stored)
    (tmp_path / "config.json").write_bytes(as_json(said))
    assert answer(capsys, "cost", str(tmp_path)) == (0, lab.cost.table(config) + "\n", "")
    listed = answer(capsys, "points", "--model", str(tmp_path))[1]
    assert f"{len(points.names(config))} points in {config.n_layers} layers" in listed


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"n_layer": 10**9}, "asks for 1000000000 layers; at most 1024"),
        ({"n_layer": None}, "n_layer is None; expected a whole number"),
        ({"speed": 3}, "unknown keys 'speed'"),
        ({"model_type": "bert"}, "model_type 'bert'; this package reads"),
        ({"dtype": "float8"}, "dtype is 'float8'; expected float32, bfloat16, float16"),
    ],
)
@pytest.mark.parametrize("command", [["cost"], ["points", "--model"]])
def test_a_bad_config_is_refused_without_weights(capsys, tmp_path, command, said, message):
    made = write_config(CONFIGS["gpt2"], False, "float32")
    (tmp_path / "config.json").write_bytes(as_json(made | said))
    status, out, err = answer(capsys, *command, str(tmp_path))
    assert (status, out) == (2, "")
    assert err.startswith(f"gptoss-lab: {tmp_path / 'config.json'}: {message}") and err.count("\n") == 1


@pytest.mark.parametrize("recipe", ["mini-oss", "ladder"])
@pytest.mark.parametrize("out", ["file", "file/inside", "file/further/inside", "link"])
def test_training_into_a_file_is_told_before_anything_is_made(capsys, tmp_path, monkeypatch, recipe, out):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("link").symlink_to("nowhere")
    status, said, err = answer(capsys, "train", recipe, "--out", out)
    assert (status, said) == (2, "")
    assert err.startswith(f"gptoss-lab: '{out.split('/')[0]}' is not a folder") and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--prompt", "hi", "--model", "gpt-oss-21b"], "gpt-oss-21b"),
        (["generate", "--prompt", ""], "empty"),
        (["generate", "--prompt", "hi", "--max-tokens", "5000"], "exceed the context of 1024"),
        (["generate", "--prompt", "hi", "--temperature", "-1"], "temperature=-1.0"),
        (["trace", "hi", "--keep", "blocks.0.experts.choise"], "Did you mean 'blocks.0.experts.choice'"),
        (["trace", "hi", "--out", "no/such/folder/t"], "no/such/folder"),
        (["trace", "hi", "--keep", "logits", "--out", "."], "'.' is a folder; name a file in it"),
        (["trace", "hi " * 1100, "--keep", "logits"], "exceed the context of 1024"),
        (["explore", "hi " * 1100], "exceed the context of 1024"),
        (["explore", "hi", "--out", "no/page.html"], "no folder 'no'"),
        (["explore", "hi", "--out", "."], "'.' is a folder"),
        (["explore", "hi", "--window", "9" * 26], "window=99999"),
        (["explore", "hi", "--window", "²"], "--window '²'; expected a number of keys, or none"),
        (["explore", "hi", "--window", ""], "--window ''; expected a number of keys, or none"),
        (["explore", "hi", "--beside", ""], "the model's name is empty"),
        (["cost", ""], "the model's name is empty"),
        (["points", "--model", "a\x1b[2J"], "no model 'a\\x1b[2J'"),
        (["train", "mini-oss", "--threads", "0"], "threads=0; expected 1 to 1024"),
        (["train", "mini-oss", "--threads", "-1"], "threads=-1; expected 1 to 1024"),
        (["train", "ladder", "--threads", "9" * 20], "expected 1 to 1024"),
        (["train", "mini-oss", "--minutes", "inf"], "minutes=inf; expected more than 0"),
        (["train", "mini-oss", "--minutes", "nan"], "minutes=nan; expected more than 0"),
        (["train", "mini-oss", "--steps", "9" * 20], "expected 1 to 1,000,000,000"),
        (["train", "mini-oss", "--seed", "9" * 20], "expected a whole number from 0 to 2^63 - 1"),
        (["generate", "--prompt", "hi", "--seed", "9" * 30], "seed=9999"),
        (["points", "--model", "no-such-folder"], "no-such-folder"),
        (["cost", "no-such-model"], "no-such-model"),
        (["cost", "gpt2", "--context", "0"], "--context 0"),
        (["train", "no-such-recipe", "--out", "x"], "no-such-recipe"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = answer(capsys, *arguments)
    assert status == 2
    assert err.startswith("gptoss-lab: ") and message in err
    assert "Traceback" not in err
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_an_unreadable_folder_is_told(capsys, tmp_path):
    (tmp_path / "config.json").write_text("{")
    status, _, err = answer(capsys, "generate", "--prompt", "hi", "--model", str(tmp_path))
    assert status == 2 and "config.json" in err


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["generate"], ["generate", "--prompt", "x", "--seed", "one"]]
)
def test_a_wrong_call_shows_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    assert "usage: gptoss-lab" in capsys.readouterr().err


def test_a_text_that_is_too_long_is_told_before_the_disk_is_asked(capsys, tmp_path):
    where = tmp_path / "trace.safetensors"
    status, _, err = answer(capsys, "trace", "no " * 60_000, "--out", str(where))
    assert status == 2 and "tokens exceed the context of 1024 tokens of mini-oss" in err
    assert not where.exists()


def test_a_reader_that_closes_early_gets_no_traceback_and_a_status_that_tells():
    command = [sys.executable, "-m", "gptoss_lab", "cost"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    assert process.wait() == 141


@pytest.mark.parametrize(("arguments", "way_on"), [
    (["generate", "--prompt", "-hi"], "argument --prompt: expected one argument (one that begins with - is "
                                      "written behind --prompt=)"),
    (["generate", "--prompt", "x", "--memory-limit", "16GB"], "'16GB'; expected a number of bytes, as 16e9"),
    (["bench", "--limit", "10 GB"], "'10 GB'; expected a number of bytes, as 16e9"),
])  # fmt: skip
def test_a_wrong_value_is_told_with_a_way_on(capsys, arguments, way_on):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2 and capsys.readouterr().err.endswith(f"{way_on}\n")


@pytest.mark.parametrize(("arguments", "way_on"), [
    (["points", "gpt2"], "'gpt2' is a model and no point; on the command line name it with --model gpt2"),
    (["train", "lader", "--plan"], "no recipe 'lader'; there are mini-oss, mini-gpt2, and ladder"),
    (["bench", "--gguf", "x.gguf"], "--gguf is the file that llama.cpp reads: add --beside llama.cpp, or "
                                    "leave it out"),
])  # fmt: skip
def test_what_was_meant_is_told(capsys, arguments, way_on):
    assert answer(capsys, *arguments) == (2, "", f"gptoss-lab: {way_on}\n")


def test_a_miniature_continues_a_text_on_one_thread(capsys, monkeypatch):
    before, seen = torch.get_num_threads(), set()
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(Block, "forward", spied(Block.forward, lambda: seen.add(torch.get_num_threads())))
        assert answer(capsys, "generate", "--prompt", "Once", "--max-tokens", "3")[0] == 0
        assert seen == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def spied(method, look):
    """A method that looks first."""
    def looking(*arguments, **named):
        look()
        return method(*arguments, **named)

    return looking


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_terminal_that_lacks_a_character_gets_its_number(encoding, tmp_path):
    def said(*arguments):
        command = [sys.executable, "-m", "gptoss_lab", *arguments]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, env=environment, timeout=240)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode(encoding)

    root = "√" if encoding == "utf-8" else "\\u221a"
    assert f"k/{root}C" in said("points", "*.scores")
    file = str(tmp_path / "t.safetensors")
    mark = "⏎" if encoding == "utf-8" else "\\u23ce"
    assert mark in said("trace", "a\nb", "--keep", "logits", "--out", file)
    found = json.loads(said("generate", "--prompt", "¡日本", "--max-tokens", "2", "--json"))
    assert found["prompt"] == "¡日本"
