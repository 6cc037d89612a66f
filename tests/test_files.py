"""Files are written whole, where they were asked for, and never over what is no file of ours to replace."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gptoss_lab.files import read_object, save_tensors, spare_weights, whole, writable


def write(path: Path, text: str = "new") -> None:
    """Write a text, whole."""
    with whole(path) as beside:
        beside.write_text(text)


def test_a_link_is_kept_and_the_file_that_it_leads_to_is_written(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "inner" / "file")
    (tmp_path / "to nothing yet").symlink_to(tmp_path / "inner" / "second")
    for link, file in (("link", "file"), ("to nothing yet", "second")):
        write(tmp_path / link)
        assert (tmp_path / link).is_symlink() and (tmp_path / "inner" / file).read_text() == "new"
    assert sorted(os.listdir(tmp_path / "inner")) == ["file", "second"]


@pytest.mark.skipif(sys.platform == "win32", reason="makes a pipe and a device's name")
@pytest.mark.parametrize(("kind", "said"), [
    ("pipe", "is no ordinary file"), ("device", "is no ordinary file"), ("loop", "is no ordinary file"),
    ("protected", "is write-protected"), ("folder", "is a folder"), ("no/folder", "make it first"),
])  # fmt: skip
def test_what_is_no_file_to_replace_is_refused_and_stays(tmp_path, kind, said):
    place = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to(os.devnull)
    elif kind == "loop":
        place.symlink_to(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "protected":
        place.write_text("mine")
        place.chmod(0o444)
    before = os.path.lexists(place) and place.lstat().st_mode
    with pytest.raises(ValueError, match=said):
        write(place)
    assert (os.path.lexists(place) and place.lstat().st_mode) == before
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert kind != "protected" or place.read_text() == "mine"
    assert len(os.listdir(tmp_path)) <= 1


def test_the_name_beside_cannot_be_foreseen_and_nobody_else_s_file_is_taken(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr("secrets.token_hex", lambda length: "guessed")
    (tmp_path / ".file.guessed.part").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write(tmp_path / "file")
    assert victim.read_text() == "mine"
    monkeypatch.undo()
    with whole(tmp_path / "file") as first, whole(tmp_path / "file") as second:
        assert first != second


def test_permissions_are_those_of_any_new_file_or_of_the_one_before(tmp_path):
    (tmp_path / "plain").write_text("")
    save_tensors({"a": torch.ones(2)}, tmp_path / "tensors")
    assert (tmp_path / "tensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "tensors").chmod(0o600)
    save_tensors({"a": torch.ones(3)}, tmp_path / "tensors")
    assert stat.S_IMODE((tmp_path / "tensors").stat().st_mode) == 0o600
    assert load_file(tmp_path / "tensors")["a"].tolist() == [1, 1, 1]


def test_tensors_that_are_no_trace_are_spared(tmp_path):
    path = tmp_path / "model.safetensors"
    spare_weights(path)
    save_file({"a": torch.ones(1)}, path, {"format": "pt"})
    for format in (None, "ours"):
        with pytest.raises(ValueError, match="perhaps a model's weights.*name another file"):
            spare_weights(path, format)
    spare_weights(path, "pt")
    path.write_text("a page")
    spare_weights(path)


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_a_full_disk_is_an_oserror_that_names_the_file_and_leaves_the_old_one(tmp_path):
    import resource

    save_tensors({"a": torch.ones(1)}, tmp_path / "t.safetensors")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"t\.safetensors' could not be written: .*I/O error"):
            save_tensors({"a": torch.ones(10_000)}, tmp_path / "t.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_file(tmp_path / "t.safetensors")["a"].tolist() == [1]
    assert os.listdir(tmp_path) == ["t.safetensors"]


def test_another_error_of_safetensors_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    def wrong(*given: object) -> None:
        raise SafetensorError("invalid shape")

    monkeypatch.setattr("safetensors.torch.save_file", wrong)
    with pytest.raises(SafetensorError):
        save_tensors({}, tmp_path / "t")


@pytest.mark.parametrize(("text", "said"), [
    ("[]", "holds a list, expected a JSON object"), ('{"a": ', "is no JSON"), ("[" * 100_000, "is no JSON"),
])  # fmt: skip
def test_a_damaged_file_of_ours_is_named_with_a_way_on(tmp_path, text, said):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=rf"r\.json {said}.*; delete it"):
        read_object(tmp_path / "r.json", "delete it")


def test_asking_whether_a_file_can_be_written_makes_nothing(tmp_path):
    assert writable(tmp_path / "file") == tmp_path.resolve() / "file"
    assert not os.listdir(tmp_path)
