"""Verifying: what is right passes, every kind of fault is told by its check, and the report names no one."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
import toys
from safetensors.torch import load_file, save_file
from toys import one_thread, random_model  # noqa: F401

from gptoss_lab import cli
from gptoss_lab.config import NAMED, Config
from gptoss_lab.study import verify as room
from gptoss_lab.study.verify import verify
from gptoss_lab.text.tokens import encoding
from gptoss_lab.weights import load, save
from gptoss_lab.weights.hub import PUBLISHED

OSS = toys.mxfp4(vocab_size=4096)
GPT2 = toys.gpt2(d_model=24, n_heads=4, n_kv_heads=4, vocab_size=4096, context=64)


def write(folder: Path, config: Config, speaks: bool = True) -> Path:
    """A random model in a folder, with the miniature's tokenizer or none."""
    model = random_model(config)
    model.tokenizer = encoding("mini") if speaks else None
    return save(model, folder)


@pytest.fixture
def asked(tmp_path: Path) -> Any:
    """Verifies; returns the report as written, the results by what was checked, and what was said."""

    def ask(source: str | Path, **more: Any) -> dict[str, Any]:
        said: list[str] = []
        returned = verify(source, tmp_path / "report.json", say=said.append, **({"windows": 1} | more))
        written = json.loads((tmp_path / "report.json").read_text("utf-8"))
        assert written == json.loads(json.dumps(returned))
        results = {check["what"]: (check["result"], check["detail"]) for check in written["checks"]}
        assert len(results) == len(written["checks"])
        return written | {"results": results, "said": said}

    return ask


@pytest.fixture
def named_gpt2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model under the name gpt2, whose known config is this one's."""
    monkeypatch.setenv("GPTOSS_LAB_HOME", str(tmp_path / "home"))
    folder = write(tmp_path / "home" / "gpt2", GPT2)
    monkeypatch.setitem(NAMED, "gpt2", load(folder).config)
    monkeypatch.setattr(room, "REPORTS", tmp_path / "reports")
    (tmp_path / "reports").mkdir()
    return folder


def sha256(path: Path) -> str:
    """The sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def change(folder: Path, name: str, value: float) -> None:
    """Set the first item of one tensor."""
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[0] = value
    save_file(tensors, folder / "model.safetensors")


def test_the_shipped_miniature_passes_and_gives_what_its_report_says(asked: Any) -> None:
    earlier = json.loads((room.REPORTS / "mini-oss.json").read_text("utf-8"))
    report = asked("mini-oss", windows=earlier["bits_per_byte"]["windows"])
    remake = "new weights? gptoss-lab verify mini-oss --out gptoss_lab/assets/reports/mini-oss.json"
    assert report["passed"], (remake, report["results"])
    assert {result for result, _ in report["results"].values()} == {"PASS"}, remake
    for what in ("model.safetensors", "headers", "numbers", "load", "text", "text as before", "continuation"):
        assert what in report["results"]


def test_the_cost_is_said_first_and_the_place_of_the_report_last(asked: Any, tmp_path: Path) -> None:
    said = asked(write(tmp_path / "toy", OSS))["said"]
    total = sum(
        path.stat().st_size for path in (tmp_path / "toy").iterdir() if path.name != "tokenizer_config.json"
    )
    assert said[0].startswith(f"toy: {total / 1000:.1f} kB of files will be read, ") and "FLOP" in said[0]
    assert "report.json" in said[-1]


def test_a_random_model_is_whole_but_knows_less_than_a_table_of_frequencies(
    asked: Any, tmp_path: Path
) -> None:
    report = asked(write(tmp_path / "toy", OSS))
    assert not report["passed"]
    assert {what for what, (result, _) in report["results"].items() if result == "FAIL"} == {"text"}
    assert report["results"]["numbers"][1].endswith("none 255")
    assert report["bits_per_byte"]["all"] > report["bits_per_byte"]["token_frequencies"] > 1
    assert len(report["continuation"]["ids"]) == 16 == len(report["continuation"]["logprobs"])


def test_a_model_without_tokenizer_is_verified_with_ids(asked: Any, tmp_path: Path) -> None:
    report = asked(write(tmp_path / "toy", toys.qwen3(), speaks=False))
    assert report["passed"] and report["results"]["text"][0] == "NOTE" and report["bits_per_byte"] == {}
    assert report["continuation"]["prompt"] == list(range(1, 9))


def test_the_report_holds_hashes_config_and_machine_and_names_no_one(asked: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "toy", OSS)
    report = asked(folder)
    stated = {one["name"]: (one["bytes"], one["sha256"]) for one in report["files"]}
    names = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    assert stated == {name: ((folder / name).stat().st_size, sha256(folder / name)) for name in names}
    assert report["config"]["n_experts"] == 7 and report["how"]["held_in"] == ["float32"]
    assert (
        report["versions"].keys() == {"gptoss_lab", "torch", "python"}
        and report["machine"]["device"] == "cpu"
    )
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-5])
    broken = (tmp_path / "report.json").read_text() + json.dumps(asked(folder)["checks"])
    assert "FOLDER/model.safetensors" in broken
    for secret in (str(tmp_path), str(Path.home()), platform.node()):
        assert len(secret) < 2 or secret not in broken


def test_a_truncated_file_fails_and_what_needs_it_is_left_out(asked: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "toy", OSS)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-5])
    report = asked(folder)
    assert not report["passed"] and report["results"].keys() == {"headers", "files"}
    result, detail = report["results"]["headers"]
    assert result == "FAIL" and "model.safetensors" in detail


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.layers.1.mlp.experts.down_proj_scales", 255, "down_proj_scales has scales up to 255"),
        ("model.layers.2.self_attn.sinks", float("nan"), "sinks holds NaN or infinity"),
        ("lm_head.weight", float("inf"), "lm_head.weight holds NaN or infinity"),
    ],
)
def test_what_is_no_number_is_found_and_named(
    asked: Any, tmp_path: Path, name: str, value: float, message: str
) -> None:
    folder = write(tmp_path / "toy", OSS)
    change(folder, name, value)
    report = asked(folder)
    assert report["results"]["numbers"][0] == "FAIL" and message in report["results"]["numbers"][1]
    assert report["results"]["load"][0] == "FAIL" and "continuation" not in report


def test_logits_that_are_no_numbers_fail_and_the_report_is_written_all_the_same(
    asked: Any, tmp_path: Path
) -> None:
    """Finite weights, and a norm over whose bounds float32 goes."""
    folder = write(tmp_path / "toy", OSS.with_changes(stored="float32"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(3e38)
    save_file(tensors, folder / "model.safetensors")
    report = asked(folder)
    results = report["results"]
    assert not report["passed"] and results["numbers"][0] == results["load"][0] == "PASS"
    assert results["text"][0] == results["continuation"][0] == "FAIL"
    assert "logits" in results["continuation"][1] and report["bits_per_byte"]["all"] is None
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text.split('"checks"')[0] and "Infinity" not in text and ": NaN" not in text
    assert report["seconds"].keys() == {"files", "numbers", "load", "text", "continuation"}


def test_what_a_file_is_called_does_not_steer_a_terminal(asked: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "a\x9b", OSS)
    (folder / "model.safetensors").rename(folder / "\x1b[2J.safetensors")
    said = "\n".join(asked(folder)["said"])
    assert "\x1b" not in said and "\x9b" not in said and "\\x1b[2J.safetensors" in said


# --- what is published, and what was before ---


def test_by_name_a_published_hash_counts(
    asked: Any, named_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = named_gpt2 / "model.safetensors"
    stated = {"model.safetensors": (weights.stat().st_size, sha256(weights))}
    monkeypatch.setitem(PUBLISHED, "gpt2", stated)
    report = asked("gpt2")
    assert report["results"]["model.safetensors"][0] == report["results"]["config"][0] == "PASS"
    change(named_gpt2, "transformer.ln_f.weight", 1.5)
    assert asked("gpt2")["results"]["model.safetensors"][0] == "FAIL"
    stated["model.safetensors"] = (7, sha256(weights))
    result, detail = asked("gpt2")["results"]["model.safetensors"]
    assert result == "FAIL" and "and 7 bytes: another version, or damage" in detail


def test_a_folder_of_the_same_shapes_with_other_weights_is_noted_not_failed(
    asked: Any, named_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PUBLISHED, "gpt2", {"model.safetensors": (None, "0" * 64)})
    result, detail = asked(named_gpt2)["results"]["model.safetensors"]
    assert result == "NOTE" and "a fine-tune, another version, or damage" in detail


def test_the_original_layout_s_file_is_found_under_its_own_entry(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    stated = {"original/model.safetensors": (1, hashlib.sha256(b"x").hexdigest())}
    found = room.Findings(lambda line: None)
    room.check_files([tmp_path / "model.safetensors"], stated, True, found)
    assert [check["result"] for check in found.checks] == ["PASS"]


def test_by_name_another_config_fails(asked: Any, named_gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NAMED, "gpt2", NAMED["gpt2"].with_changes(norm_eps=1e-6))
    report = asked("gpt2")
    assert report["results"]["config"] == ("FAIL", "norm_eps is 1e-05, known is 1e-06")
    result, detail = report["results"]["load"]
    assert result == "FAIL" and detail.startswith("FOLDER: the model here is not gpt2: norm_eps is 1e-05, ")
    assert "continuation" not in report
    assert "config" not in asked(named_gpt2)["results"]


@pytest.mark.parametrize("fault", [None, {"norm_eps": 0.3}, {"activation": "swiglu"}])
def test_right_files_that_are_computed_wrongly_differ_from_the_earlier_report(
    asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any] | None
) -> None:
    monkeypatch.setenv("GPTOSS_LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(room, "REPORTS", tmp_path)
    folder = write(tmp_path / "home" / "gpt-oss-20b", OSS)
    monkeypatch.setitem(NAMED, "gpt-oss-20b", load(folder).config)
    asked("gpt-oss-20b")
    (tmp_path / "report.json").rename(tmp_path / "gpt-oss-20b.json")
    if fault:
        monkeypatch.setattr(room, "load", lambda *args, **more: load(*args, **more).with_config(**fault))
    results = asked("gpt-oss-20b")["results"]
    assert results["model.safetensors"][0] == "PASS"
    assert results["text as before"][0] == ("FAIL" if fault else "PASS")
    assert results["continuation"][0] == ("FAIL" if fault else "PASS")
    assert asked("gpt-oss-20b", windows=2)["results"]["text as before"][0] == "NOTE"


# --- the command ---


def test_the_command_s_status_is_0_or_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write(tmp_path / "toy", toys.gpt_oss(), speaks=False), str(tmp_path / "r.json")
    assert cli.main(["verify", str(folder), "--out", out]) == 0
    assert "all checks passed; the report is in" in capsys.readouterr().out
    change(folder, "model.norm.weight", float("nan"))
    assert cli.main(["verify", str(folder), "--out", out]) == 1
    assert (
        "NOT all checks passed" in capsys.readouterr().out and not json.loads(Path(out).read_text())["passed"]
    )


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a link to nothing"])
def test_what_is_no_file_fails_and_the_report_is_written(asked: Any, tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / "toy", GPT2)
    (folder / "model.safetensors").unlink()
    if kind == "a pipe":
        os.mkfifo(folder / "model.safetensors")
    elif kind == "a folder":
        (folder / "model.safetensors").mkdir()
    else:
        (folder / "model.safetensors").symlink_to(tmp_path / "gone")
    found = asked(folder)
    assert not found["passed"] and found["results"]["headers"][0] == "FAIL"
    assert "model.safetensors" not in [one["name"] for one in found["files"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-model"], "no model 'no-such-model'"),
        (["gpt-oss-20b"], "gptoss-lab download gpt-oss-20b"),
        (["toy", "--windows", "0"], "windows=0; expected at least 1"),
        (["toy", "--device", "tpu"], "'cpu'"),
        (["toy", "--out", "no/such/folder/r.json"], "make it first"),
        (["toy", "--out", "toy"], "'toy' is a folder"),
    ],
)
def test_a_mistake_is_told_before_anything_is_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("HF_HUB_CACHE", "GPTOSS_LAB_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    write(tmp_path / "toy", toys.gpt2(d_model=24, n_heads=4, n_kv_heads=4), speaks=False)
    assert cli.main(["verify", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.out == "" and [path.name for path in tmp_path.iterdir()] == ["toy"]
