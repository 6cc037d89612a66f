"""The command line when something goes wrong: places that cannot be written, no memory, closed streams."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gptoss_lab as lab
from gptoss_lab import cli, generation


def answer(capsys, *arguments):
    """Exit status, standard output and standard error of one command."""
    status = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("command", ["trace", "explore", "verify", "bench"])
@pytest.mark.parametrize("out", ["weights", "protected", "folder"])
def test_a_file_that_cannot_be_or_is_a_model_s_is_told_before_anything_runs(
    capsys, tmp_path, monkeypatch, command, out
):
    monkeypatch.setattr("gptoss_lab.weights.load", lambda *given, **more: pytest.fail("a model was loaded"))
    monkeypatch.setattr("gptoss_lab.bench.asking.asked_for", lambda *given: pytest.fail("it was asked"))
    file = tmp_path / "model.safetensors"
    if out == "folder":
        file.mkdir()
    else:
        shutil.copy(Path(lab.__file__).parent / "assets" / "mini-gpt2" / "model.safetensors", file)
        file.chmod(0o444 if out == "protected" else 0o644)
    told = {"weights": "perhaps a model's weights", "protected": "write-protected", "folder": "is a folder"}
    status, said, err = answer(capsys, command, "mini-oss" if command in ("verify", "bench") else "hi",
                               "--out", str(file))  # fmt: skip
    assert (status, said) == (2, "") and told[out] in err and err.count("\n") == 1


def test_a_trace_takes_the_place_of_a_trace(capsys, tmp_path):
    file = str(tmp_path / "t.safetensors")
    for text in ("one", "a"):
        assert answer(capsys, "trace", text, "--keep", "logits", "--out", file)[0] == 0
    assert lab.open_trace(file).labels == ["a"]


@pytest.mark.parametrize(("error", "told"), [
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000 bytes. Error 12"),
     "out of memory (tried to allocate 8000 bytes)"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"), "allocate 2.00 GiB)"),
    (MemoryError(), "out of memory (it could not be allocated)"),
    (MemoryError("the cache takes 5 GB"), "the cache takes 5 GB"),
    (RuntimeError("an error of ours"), None),
])  # fmt: skip
def test_a_lack_of_memory_is_one_line_with_a_way_on(capsys, monkeypatch, error, told):
    def fail(*given: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(generation, "generate", fail)
    if told is None:
        with pytest.raises(RuntimeError, match="of ours"):
            cli.main(["generate", "--prompt", "hi"])
        return
    status, _, err = answer(capsys, "generate", "--prompt", "hi")
    assert status == 2 and told in err and err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="closes streams as a shell does")
@pytest.mark.parametrize(("closed", "status"), [("<&-", 2), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 2)])
def test_a_closed_stream_gives_no_traceback(closed, status):
    prompt = "-" if "<" in closed else "hi"
    command = f"{sys.executable} -m gptoss_lab generate --max-tokens 2 --prompt {prompt} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=240)
    assert done.returncode == status and "Traceback" not in done.stderr
    assert closed != "<&-" or done.stderr == "gptoss-lab: the prompt is empty: give at least one token\n"
