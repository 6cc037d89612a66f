"""`gptoss-lab bench`: sides that answer alike, parts that are kept, groups that hold, tables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_checkpoints import model_of
from toys import one_thread  # noqa: F401

from gptoss_lab import cli
from gptoss_lab.bench import groups, page, report, running
from gptoss_lab.bench.asking import asked_for
from gptoss_lab.bench.blocks import Ended
from gptoss_lab.bench.blocks import running as running_side
from gptoss_lab.bench.ours import Ours
from gptoss_lab.bench.parts import Asked, parts
from gptoss_lab.bench.side import prompt_of
from gptoss_lab.config import NAMED
from gptoss_lab.weights import load, save

ROOT = Path(__file__).parent.parent
SMALL = NAMED["gpt-oss-20b"].with_changes(
    name="small", n_layers=2, d_model=96, n_heads=4, n_kv_heads=2, d_ff=64, n_experts=6, vocab_size=64,
    vocab_used=None, stop_ids=(0,), context=256,
)  # fmt: skip
SPEED = {"bandwidth": 2e10, "products": 1e11}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small packed gpt-oss."""
    return save(model_of(SMALL), tmp_path_factory.mktemp("bench") / "small")


def setup(kind: str, folder: Path | str, vocabulary: int = 64, **more: object) -> dict[str, object]:
    """What a side's process is told."""
    told = {"kind": kind, "model": str(folder), "device": "cpu", "threads": 1, "vocabulary": vocabulary}
    return {**told, "context": 256, **more}


@pytest.fixture(scope="module")
def measured(folder, tmp_path_factory) -> tuple[Asked, Path, list[str]]:
    """A benchmark of two rounds, done in two goes."""
    out, said = tmp_path_factory.mktemp("results") / "found.json", []
    asked = asked_for(str(folder), [], [], rounds=2, threads=1)
    command = ["gptoss-lab", "bench", str(folder)]
    first = running.bench(asked, out, command, minutes=1e-9, say=said.append)
    assert first["left"] == ["first token: ours", "round 1", "round 2"]
    assert list(json.loads(out.read_text())["parts"]) == ["machine"]
    running.bench(asked, out, command, say=said.append)
    return asked, out, said


def test_a_run_that_was_stopped_is_gone_on_with_and_says_what_it_does(measured) -> None:
    _, out, said = measured
    found = json.loads(out.read_text())
    assert list(found["parts"]) == ["machine", "first token: ours", "round 1", "round 2"]
    text = "\n".join(said)
    assert text.count("measuring the machine") == 1
    assert "3 of 3 parts to do, about" in text and "[2/3] round 1, about" in text
    assert "decode, tokens/s" in said[-1]


def test_what_is_kept_says_what_was_measured_and_no_path(measured, folder) -> None:
    asked, out, _ = measured
    found = json.loads(out.read_text())
    assert found["command"] == "gptoss-lab bench small" and str(folder.parent) not in out.read_text()
    assert found["machine"]["cores"] == os.cpu_count() and found["versions"]["torch"]
    for number in (1, 2):
        block = found["parts"][f"round {number}"]["ours"]
        assert len(block["decode"]["each"]) == 63 and all(took > 0 for took in block["decode"]["each"])
        assert set(block["prompts"]) == {"128"}  # 512 and the rest exceed its context
        assert block["about"]["arithmetic"] == "exact" and block["about"]["threads"] == 1
        assert report.peak(block) > 1e7
    first = found["parts"]["first token: ours"]
    assert set(first) == {"at", "lasted", "cold", "warm"}
    assert first["warm"]["all"] > first["warm"]["ready"] + first["warm"]["load"] > 0


def test_results_of_another_question_or_other_code_are_not_mixed(measured, monkeypatch) -> None:
    asked, out, _ = measured
    before = out.read_bytes()
    with pytest.raises(ValueError, match="holds results of another asked; --fresh starts again"):
        running.bench(replace(asked, rounds=3), out, [], say=str)
    monkeypatch.setattr(running, "code", lambda: "other")
    with pytest.raises(ValueError, match="another code"):
        running.bench(asked, out, [], say=str)
    assert out.read_bytes() == before


def test_ctrl_c_keeps_the_parts_that_are_done_and_ends_the_side(tmp_path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-u", "-m", "gptoss_lab", "bench", "--threads", "1", "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as bench:
        for line in bench.stdout:
            if line.startswith("[2/2] round 1"):
                side = wait_for_child(bench.pid)
                bench.send_signal(signal.SIGINT)
                break
        assert bench.wait(timeout=60) == 130 and "stopped" in bench.stderr.read()
    assert list(json.loads(out.read_text())["parts"]) == ["machine", "first token: ours"]
    assert gone(side) and [path.name for path in tmp_path.iterdir()] == ["found.json"]


def gone(process: int) -> bool:
    """Whether a process ends within ten seconds: the system takes in what its parent left behind."""
    for _ in range(200):
        if not Path(f"/proc/{process}").exists():
            return True
        time.sleep(0.05)
    return False


def wait_for_child(parent: int) -> int:
    """The number of a process's child, once it has one."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    if not children.exists():
        pytest.skip("this system does not list a process's children")
    for _ in range(600):
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.05)
    raise AssertionError("no side was started")


def test_a_side_that_is_killed_says_so() -> None:
    with running_side(setup("ours", "mini-oss"), None) as side:
        side.ask("ready")
        side.process.kill()
        with pytest.raises(Ended, match="ours was killed by the system.* while it was asked to load"):
            side.ask("load")


def test_a_side_that_fails_says_why(tmp_path) -> None:
    with running_side(setup("ours", tmp_path), None) as side:
        with pytest.raises(Ended, match="ours cannot load: CheckpointError.*no config.json here"):
            side.ask("load")


def test_the_plan_runs_nothing_and_writes_nothing(folder, tmp_path) -> None:
    asked, said = asked_for(str(folder), [], [], whole=True, threads=1), []
    running.bench(asked, tmp_path / "plan.json", [], plan_only=True, say=said.append)
    assert len(said) == 2 + 1 + 5 + 1 and not list(tmp_path.iterdir())  # first, rounds, accuracy


def test_the_whole_of_a_large_model_has_every_part(folder) -> None:
    asked = asked_for(str(folder), [], [], threads=1)
    whole = replace(asked, beside=("llama.cpp",), limits=(16e9, 12e9), rounds=2, long_prompts=(2048,),
                    context=4096, accuracy=32)  # fmt: skip
    assert [part.name for part in parts(whole, SPEED)] == [
        "first token: ours", "first token: llama.cpp", "round 1", "round 2", "long prompts", "long context",
        "within 1.2e+10 bytes: ours", "within 1.2e+10 bytes: llama.cpp", "accuracy",
    ]  # fmt: skip


def test_every_side_is_asked_the_same_prompt() -> None:
    assert prompt_of(128, 64) == prompt_of(128, 64) != prompt_of(129, 64)[:128]
    assert set(prompt_of(999, 7)) == set(range(7))


def test_ours_and_transformers_say_the_same_and_stamp_every_token() -> None:
    pytest.importorskip("transformers")
    from gptoss_lab.bench.reference import Reference

    prompt = load("mini-oss").tokenizer.encode("Once upon a time")
    said = []
    for kind, side in (("ours", Ours), ("transformers", Reference), ("transformers-loop", Reference)):
        one = side(setup(kind, "mini-oss"))
        one.load()
        ids, stamps = one.tokens(prompt, 6)
        assert len(stamps) == 6 and stamps == sorted(stamps)
        said.append(ids)
    assert said[0] == said[1] == said[2]


def test_a_full_cache_decodes_as_after_a_prompt(folder) -> None:
    side = Ours(setup("ours", folder))
    side.load()
    took = side.context(long=200, short=20, count=2)
    assert len(took["long"]) == len(took["short"]) == 5 and took["ratio"] > 0
    cache = side.filled(200, 10)
    assert cache.tokens == 200 and [layer.seen for layer in cache.layers] == [200] * SMALL.n_layers
    assert cache.layers[1].positions.tolist()[0][:200] == list(range(200))


def test_accuracy_compares_fast_kernels_with_exact_ones(folder) -> None:
    side = Ours(setup("ours", folder))
    found = side.accuracy(40)
    assert found["positions"] == 40 and found["choices"] == 40 * SMALL.n_layers * SMALL.experts_per_token
    assert found["texts"] == 2
    assert 0 < found["worst agreed"] < 1e-3 and found["flipped"] < 0.05


def test_accuracy_leaves_out_what_comes_after_another_choice_in_the_same_text(folder, monkeypatch) -> None:
    exact, choice = torch.ones(2, 16, 4), torch.tensor([0, 1]).expand(2, 16, 2)
    fast, other = exact.clone(), choice.clone()
    other[0, 5] = torch.tensor([0, 2])
    fast[0, 5], fast[0, 9], fast[0, 4], fast[1, 9] = 3.0, 2.0, 1.001, 1.002
    made = {"fast": (fast, [choice, other]), "exact": (exact, [choice, choice.flip(-1)])}
    monkeypatch.setattr(Ours, "routed", lambda self, kernels, ids: made[kernels])
    found = Ours(setup("ours", folder)).accuracy(32)
    assert found["agreed"] == 5 + 16 and found["flipped"] == 1 / 128
    assert found["worst agreed"] == pytest.approx(2e-3, rel=1e-3) and found["worst"] == pytest.approx(2.0)


def test_ours_takes_the_kernels_that_were_asked_for() -> None:
    for kernels, said in ((None, "exact"), ("exact", "exact"), ("fast", "fast")):
        side = Ours(setup("ours", "mini-oss", kernels=kernels))
        side.load()
        assert said in side.about()["arithmetic"]


def test_a_gguf_holds_every_weight_to_the_bit(folder, tmp_path) -> None:
    gguf = pytest.importorskip("gguf")
    import numpy as np

    from gptoss_lab.bench.gguf_file import mark_of, write
    from gptoss_lab.weights import unpack

    path = write(str(folder), tmp_path / "small.gguf", say=str)
    model = load(folder, dtype="stored")
    tensors = gguf.GGUFReader(path).tensors
    read = {one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in tensors}
    for layer, block in enumerate(model.blocks):
        experts, here = block.experts, f"blk.{layer}."
        for name, stack, rows in (("gate", experts.gate_up, slice(0, None, 2)),
                                  ("up", experts.gate_up, slice(1, None, 2)),
                                  ("down", experts.down, slice(None))):  # fmt: skip
            whole = unpack(stack.blocks, stack.scales)[:, rows].numpy()
            assert np.array_equal(read[f"{here}ffn_{name}_exps.weight"], whole), name
            assert np.array_equal(read[f"{here}ffn_{name}_exps.bias"], stack.bias[:, rows].float().numpy())
        for name, part in (("q", block.attention.q), ("output", block.attention.o)):
            assert np.array_equal(read[f"{here}attn_{name}.weight"], part.weight.float().numpy())
        assert np.array_equal(read[f"{here}attn_sinks.weight"], block.attention.sinks.float().numpy())
        assert np.array_equal(read[f"{here}ffn_gate_inp.weight"], experts.router.weight.float().numpy())
    assert np.array_equal(read["output.weight"], model.unembed.weight.float().numpy())
    assert len(read) == 3 + 19 * SMALL.n_layers
    assert write(str(folder), path, say=pytest.fail) == path and mark_of(path) in model.weights_from
    other = save(model_of(SMALL, seed=1), tmp_path / "other")
    with pytest.raises(ValueError, match="was not written from other"):
        write(str(other), path, say=str)
    with pytest.raises(ValueError, match="not a gpt-oss with experts in MXFP4"):
        write("mini-gpt2", tmp_path / "gpt2.gguf", say=str)
    assert not (tmp_path / "gpt2.gguf").exists()


def test_llama_cpp_answers_from_the_gguf_as_we_do(folder, tmp_path) -> None:
    """It rounds activations to eight bits before MXFP4, so that it agrees to about a hundredth."""
    pytest.importorskip("llama_cpp")
    import torch

    from gptoss_lab.bench.gguf_file import write
    from gptoss_lab.bench.llama import Llama

    gguf = write(str(folder), tmp_path / "small.gguf", say=str)
    prompt = prompt_of(24, 64)
    ours = load(folder, dtype="stored", kernels="exact")(torch.tensor([prompt]), last=1)[0, -1]
    for kind in ("llama.cpp", "llama.cpp-mapped"):
        side = Llama(setup(kind, folder, gguf=str(gguf)))
        side.load()
        theirs = torch.from_numpy(side.logits(prompt).copy())
        assert float((ours - theirs).norm() / ours.norm()) < 0.03, kind
        ids, stamps = side.tokens(prompt, 3)
        assert ids[0] == int(theirs.argmax()) and len(stamps) == 3


def tree(tmp_path: Path, line: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A made-up /sys/fs/cgroup and /proc/self/cgroup."""
    own = tmp_path / "own"
    own.write_text(line)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path, own


def test_the_group_of_either_kernel_is_found(tmp_path) -> None:
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
    one = tree(tmp_path / "v1", "4:cpu,memory:/a/b\n0::/\n", {"memory/a/b/tasks": ""})
    assert groups.find(*one) == (tmp_path / "v1" / "memory/a/b", groups.V1)
    two = tree(tmp_path / "v2", "0::/user\n", {"user/cgroup.controllers": "cpu memory",
                                                 "user/cgroup.subtree_control": "memory"})  # fmt: skip
    assert groups.find(*two) == (tmp_path / "v2" / "user", groups.V2)
    (tmp_path / "v2" / "user" / "cgroup.subtree_control").write_text("cpu")
    with pytest.raises(groups.Unavailable, match="hands no memory control down.*systemd-run"):
        groups.find(*two)
    with pytest.raises(groups.Unavailable, match="no memory groups"):
        groups.find(tmp_path, tmp_path / "missing")


def test_a_folder_that_counts_no_memory_is_no_group(tmp_path) -> None:
    where = tree(tmp_path, "4:memory:/\n", {"memory/tasks": ""})
    with pytest.raises(groups.Unavailable, match="takes no limit"):
        groups.make(None, *where)


GREEDY = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
held = bytearray(os.urandom(1)) * int(sys.argv[2])
print(len(held))
"""


def test_a_process_that_takes_more_than_its_group_may_is_killed() -> None:
    try:
        group = groups.make(100e6)
    except groups.Unavailable as error:
        pytest.skip(str(error))
    try:
        command = [sys.executable, "-c", GREEDY, str(group.entry)]
        modest = subprocess.run([*command, "20000000"], capture_output=True, text=True, timeout=60)
        assert modest.stdout == "20000000\n" and 20e6 < group.peak() < 100e6
        greedy = subprocess.run([*command, "200000000"], capture_output=True, text=True, timeout=60)
        assert greedy.returncode == -9 and group.peak() <= 100e6
    finally:
        group.remove()
    assert not group.folder.exists()


def test_a_file_can_be_put_out_of_memory(tmp_path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(8_000_000))
    before = groups.resident([path])
    if before is None or not hasattr(os, "posix_fadvise"):
        pytest.skip("this system does not say what lies in memory")
    assert before >= 8_000_000
    groups.forget([path])
    if groups.resident([path]) == before:
        pytest.skip("this folder lies in memory itself")
    assert groups.resident([path]) < 1_000_000


def block(seconds: float, **more: object) -> dict[str, object]:
    """What a side might have taken: `seconds` a token, decoding."""
    return {"bandwidths": [12.0, 8.0, 99.0], "decode": {"each": [seconds] * 4}, "disk": {"128": 8},
            "prompts": {"128": 64.0}, "peak": {"group": 5}, "limit": 16e9, **more}  # fmt: skip


def found_of(rounds: list[dict[str, object]], **more: object) -> dict[str, object]:
    """Results, made up."""
    asked = {"sides": ["ours", "llama.cpp"], "limits": [16e9, 12e9], "prompts": [128], "long prompts": []}
    return {
        "model": "m", "weights": "random, seed 0", "checkpoint": 2e9, "a token": {"bytes": 4, "FLOP": 1},
        "asked": {**asked, "context": 4096}, "machine": {"processor": "p", "cores": 2, "memory": 24e9},
        "versions": {"torch": "2"}, "command": "c",
        "parts": {"machine": {"at": "2026-01-01", "bandwidth": 10.0, "products": 4.0}}
        | {f"round {n}": {"at": "2026-01-01", **one} for n, one in enumerate(rounds, 1)} | more,
    }  # fmt: skip


def test_a_ratio_above_one_means_that_ours_is_faster() -> None:
    took = [(1.0, 2.0), (1.0, 4.0), (2.0, 1.0)]
    found = found_of([{"ours": block(ours), "llama.cpp": block(theirs)} for ours, theirs in took])
    lines = report.compared(found).splitlines()
    decode = next(line for line in lines if line.startswith("| decode, tokens/s"))
    cells = [cell.strip() for cell in decode.split("|")][1:-1]
    assert cells == ["decode, tokens/s", "1 (0.5 to 1)", "0.5 (0.25 to 1)", "2.00 (0.50 to 4.00)"]
    share = next(line for line in lines if "of what memory allows" in line)
    assert "0.40 (0.20 to 0.40)" in share  # 4 bytes a token, 10 a second: 2.5 tokens
    share = next(line for line in lines if "of what products allow" in line)
    # 128 tokens in 64 seconds; one FLOP a token, four a second
    assert "| 0.50 (0.50 to 0.50) | 0.50 (0.50 to 0.50) |" in share
    assert page.beside("decode", 1.0, found, report.decode) == ["decode", "≥ 1.00", "2.00", "yes"]


def test_a_goal_that_rests_on_one_round_of_several_says_so() -> None:
    rounds = [{"ours": block(1.0), "b": block(3.0), "c": block(2.0)}, {"ours": block(1.0), "b": block(5.0)}]
    found = found_of(rounds)
    found["asked"]["sides"] = ["ours", "b", "c"]
    told = ["decode", "≥ 1.00", "2.00", "yes, in its one round"]
    assert page.beside("decode", 1.0, found, report.decode) == told
    assert page.beside("decode", 1.0, found_of([]), report.decode)[2:] == ["–", "–"]


def test_a_side_that_was_killed_is_told_and_not_counted() -> None:
    dead = {"disk": {}, "limit": 12e9, "ended": "it was killed by the system", "peak": {"group": 12e9}}
    less = {"within 1.2e+10 bytes: llama.cpp": {"at": "2026-01-01", "llama.cpp": dead}}
    found = found_of([{"ours": block(1.0), "llama.cpp": dead}], **less)
    assert report.ratios(report.rounds(found), "llama.cpp", report.decode) == []
    assert "killed by the system" in report.less_memory(found) and " 8 B" in report.less_memory(found)
    rows = {row[0]: row for row in page.of_large(found)}
    assert rows["decode, ours / llama.cpp"][2:] == ["–", "–"]
    assert rows["peak"] == ["peak", "≤ 14.3 GB", "5 B", "yes"]
    assert rows["decode, of what memory allows"][2:] == ["0.40", "no"]


def test_the_page_is_what_the_results_say() -> None:
    assert (ROOT / "docs" / "performance.md").read_text("utf-8") == page.page(page.results())


@pytest.mark.parametrize(("text", "said"), [
    ("[]", "holds a list, expected a JSON object"), ('{"model": "m', "is no JSON"),
    ("{}", "holds results of another"),
])  # fmt: skip
def test_results_that_are_damaged_are_named_with_a_way_on(capsys, tmp_path, text, said) -> None:
    (tmp_path / "r.json").write_text(text)
    assert cli.main(["bench", "--plan", "--out", str(tmp_path / "r.json")]) == 2
    err = capsys.readouterr().err
    assert f"r.json {said}" in err and "--fresh starts again" in err and err.count("\n") == 1


@pytest.mark.parametrize("parts", [[], None, {"machine": 5}])
def test_parts_that_are_damaged_are_not_gone_on_with(tmp_path, parts) -> None:
    new = {name: name for name in ("model", "weights", *running.SAME)}
    with pytest.raises(ValueError, match="holds no parts, or damaged ones; --fresh"):
        running.merged(new | {"parts": parts}, new, tmp_path / "r.json")


def test_a_page_without_results_says_so() -> None:
    assert "Not measured yet." in page.page({})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--beside", "nobody"], "--beside nobody; expected llama.cpp"),
        (["--limit", "-1"], "--limit -1; expected bytes"),
        (["--rounds", "0"], "--rounds 0; expected 1 to 1000"),
        (["--rounds", "9" * 20], "expected 1 to 1000"),
        (["--threads", "9" * 20], "expected 1 to 1024"),
        (["--threads", "0"], "threads=0; expected 1 to 1024"),
        (["--limit", "inf"], "--limit inf; expected bytes"),
        (["--minutes", "nan", "--out", "r.json"], "--minutes nan; expected 0 or more"),
        (["--minutes", "inf", "--out", "r.json"], "--minutes inf; expected 0 or more"),
        (["--minutes", "1"], "name a file for the results with --out"),
        (["no-such-model"], "no model 'no-such-model'"),
        (["--device", "tpu"], "device='tpu'"),
        (["--out", "no/such/folder.json"], "no folder 'no/such'"),
    ],
)
def test_a_mistake_is_one_line(capsys, tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("gptoss-lab: ") and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
