"""A checkpoint is input from strangers: each fault gives one clear CheckpointError and executes nothing."""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from fuzz_checkpoints import STRATA, Found, attempt, fuzz, watched
from hostile import join, parts, shard
from safetensors.torch import load_file, save_file
from toys import one_thread  # noqa: F401

from gptoss_lab.text.tokenizer_json import write_tokenizer
from gptoss_lab.text.tokens import encoding
from gptoss_lab.weights import CheckpointError, load, save
from gptoss_lab.weights.reader import JSON_LIMIT, read_header


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small valid checkpoint."""
    config = toys.mxfp4(n_layers=2, n_experts=2, d_ff=32)
    return save(toys.random_model(config), tmp_path / "toy", dtype=torch.float32)


def refused(folder: Path, *words: str) -> str:
    """The one error, which must hold these words and the place."""
    with pytest.raises(CheckpointError) as error:
        load(folder)
    message = str(error.value)
    assert str(folder) in message and all(word in message for word in words), message
    return message


def claim(folder: Path, name: str = "model.norm.weight", **changes: Any) -> None:
    """Change what the header says of one tensor."""
    header, data = parts(folder / "model.safetensors")
    header[name] |= changes
    join(folder / "model.safetensors", header, data)


# --- the file --------------------------------------------------------------------------------------------


class Bomb:
    """A pickle that would write a file."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch exploded",)


PICKLES = {"pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
           "torch.save": lambda path: torch.save({"a": Bomb()}, path)}  # fmt: skip


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_under_the_name_is_never_opened_as_one(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    PICKLES[kind](folder / "model.safetensors")
    assert "pickle" in refused(folder, "only safetensors is read")
    assert "pickle" in (attempt(folder) or "") and not (folder / "exploded").exists()


MISDEEDS = {
    "run": lambda folder: pickle.loads(pickle.dumps(Bomb())),
    "evaluate": lambda folder: eval("1 + 1"),
    "write": lambda folder: (folder / "x").write_text(""),
    "read elsewhere": lambda folder: open(__file__).close(),
}


@pytest.mark.parametrize("name", MISDEEDS)
def test_the_watch_over_what_a_file_does_sees_it(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(Found, match="this happened while reading"), watched(folder):
        MISDEEDS[name](folder)
    with watched(folder):
        (folder / "config.json").read_bytes()


def test_every_truncation_is_noticed(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for size in {0, 1, 7, 8, 9, 10, header - 1, header, header + 1, len(data) - 1, *range(0, len(data), 997)}:
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match="model.safetensors"):
            read_header(path)
    path.write_bytes(data + b"\0")
    refused(folder, f"{len(data) + 1} bytes, but header and tensors end at {len(data)}")


def test_a_header_s_length_is_never_believed(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for length in (0, 1, len(data), 2**40, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", length) + data[8:])
        refused(folder, f"the header claims {length}")
    with path.open("r+b") as file:  # a hole of a terabyte that claims to be a header
        file.truncate(2**40)
        file.write(struct.pack("<Q", JSON_LIMIT + 1))
    refused(folder, f"the header claims {JSON_LIMIT + 1} (at most {JSON_LIMIT})")


CLAIMS = {
    "dtype": ({"dtype": "F31"}, "dtype 'F31'; known are F32"),
    "no dtype": ({"dtype": None}, "dtype None"),
    "shape": ({"shape": [33]}, "128 bytes; F32 [33] takes 132"),
    "negative": ({"shape": [-32]}, "shape [-32]; expected at most 8 whole numbers"),
    "true": ({"shape": [True]}, "shape [True]"),
    "fraction": ({"shape": [32.0]}, "shape [32.0]"),
    "overflow": ({"shape": [2**32, 2**32, 2**32]}, "takes 316912650057057350374175801344"),
    "no list": ({"shape": "32"}, "shape '32'"),
    "dimensions": ({"shape": [32] + [1] * 8}, "expected at most 8"),
    "beyond": ({"data_offsets": [0, 2**50]}, "expected [begin, end] within"),
    "backwards": ({"data_offsets": [128, 0]}, "expected [begin, end] within"),
    "three": ({"data_offsets": [0, 128, 128]}, "expected [begin, end] within"),
    "one more key": ({"device": "cuda"}, "expected dtype, shape and data_offsets"),
    "moved": ({"data_offsets": [1, 129]}, "begins at byte"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_header_claims_of_a_tensor_is_checked(name: str, folder: Path) -> None:
    changes, words = CLAIMS[name]
    claim(folder, **changes)
    refused(folder, "model.safetensors: tensor", words)


def test_overlaps_gaps_and_second_entries_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    header, data = parts(path)
    first, second = sorted((key for key in header if key != "__metadata__"),
                           key=lambda key: header[key]["data_offsets"])[:2]  # fmt: skip
    join(path, header | {"again": header[first]}, data)
    refused(folder, "overlaps the one before it")
    join(path, {key: value for key, value in header.items() if key != first}, data)
    refused(folder, repr(second), "leaves a gap before it")
    text = json.dumps(header)
    join(path, text[:-1] + f', "{first}": {json.dumps(header[first])}}}', data)
    refused(folder, f"the key {first!r} stands there twice")


BAD_JSON = {
    "deep": ('{"a":' * 200_000, "nested too deeply"),
    "digits": ('{"a": ' + "9" * 5000 + "}", "a whole number of 5000 digits"),
    "NaN": ('{"a": NaN}', "NaN is not JSON"),
    "list": ("{}[]", "not the JSON that was expected"),
    "quotes": ("{'a': 1}", "not the JSON that was expected"),
    "half a character": ('{"\\ud800": {}}', "not the JSON that was expected"),
    "surrogate": ('{"a": "\ud800"}', "not the JSON that was expected"),
    "empty": ("{}", "holds no tensors"),
    "metadata": ('{"__metadata__": {"a": 1}}', "expected an object of texts"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_a_header_that_is_no_plain_json_is_refused(name: str, folder: Path) -> None:
    text, words = BAD_JSON[name]
    join(folder / "model.safetensors", text, b"")
    refused(folder, words)


OTHERS = {
    "zip archive": b"PK\x03\x04",
    "a GGUF file": b"GGUF",
    "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1",
    "a page of HTML": b"<!DOCTYPE html>",
}


@pytest.mark.parametrize("words", OTHERS)
def test_other_formats_are_called_by_their_names(words: str, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(OTHERS[words] + bytes(100))
    refused(folder, words)


# --- the folder ------------------------------------------------------------------------------------------


FILES = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json")


@pytest.mark.parametrize("file", FILES)
def test_folders_pipes_and_dead_links_are_no_files(file: str, folder: Path) -> None:
    path = folder / file
    path.unlink(missing_ok=True)
    path.mkdir()
    refused(folder, f"{file}: is a folder")
    path.rmdir()
    os.mkfifo(path)  # opening it would wait for ever
    refused(folder, f"{file}: is no ordinary file")


SHARD_NAMES = ["../outside.safetensors", "/etc/outside.safetensors", "..", "", "./model-0.safetensors",
               "..\\outside.safetensors", "C:model.safetensors", "a\0.safetensors", "model-0.bin",
               ".hidden.safetensors", None, 7, ["model-0.safetensors"],
               "x" * 300 + ".safetensors"]  # fmt: skip


@pytest.mark.parametrize("name", SHARD_NAMES, ids=lambda name: str(name)[:20])
def test_an_index_names_files_of_its_folder_and_no_others(name: Any, folder: Path) -> None:
    shard(folder)
    (folder.parent / "outside.safetensors").write_bytes((folder / "model-0.safetensors").read_bytes())
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = name
    path.write_text(json.dumps(index))
    refused(folder, "'model.norm.weight' is put in", "file of this folder, named without a path")


def test_links_out_of_the_folder_are_followed_as_the_hub_s_cache_needs(folder: Path, tmp_path: Path) -> None:
    shard(folder)
    (tmp_path / "blobs").mkdir()
    for i, path in enumerate(sorted(folder.iterdir())):
        path.rename(tmp_path / "blobs" / f"{i}")
        path.symlink_to(f"../blobs/{i}")
    load(folder)


def test_shards_and_index_must_agree(folder: Path) -> None:
    shard(folder)
    path = folder / "model-1.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    path.unlink()
    refused(folder, "model-1.safetensors: No such file")
    name = next(iter(tensors))
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, path)
    refused(folder, f"model-1.safetensors: lacks {name!r}, which the index puts there")
    save_file(tensors | {"lm_head.weight": torch.zeros(29, 32)}, path)  # in another shard, too
    refused(folder, "model-1.safetensors: holds 'lm_head.weight', which not the index puts there")
    path.write_bytes(whole)
    (folder / "model.safetensors").write_bytes(whole)
    refused(folder, "model.safetensors.index.json and model.safetensors: which of them counts")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, "3 safetensors files", "no *.safetensors.index.json")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index | {"weight_map": {}}))
    refused(folder, "expected a weight_map")


def test_weights_in_another_format_are_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "no safetensors file here ('pytorch_model.bin': only safetensors is read)")


# --- the config ------------------------------------------------------------------------------------------


ABSURD = [
    ({"num_hidden_layers": 10**6, "layer_types": None}, "asks for 1000000 layers; at most 1024"),
    ({"hidden_size": 2**20, "intermediate_size": 2**20}, "parameters; at most 999999999999"),
    ({"vocab_size": 10**11}, "parameters; at most"),
    ({"num_local_experts": 10**9}, "asks for 2000000000 experts in all"),
    ({"head_dim": 10**6}, "asks for 1000000 channels in a head"),
    ({"num_attention_heads": 2**39, "num_key_value_heads": 2**39}, "parameters; at most"),
    ({"hidden_size": 10**12}, "parameters; at most"),
    ({"hidden_size": 2**40}, "hidden_size is 1099511627776; expected a whole number"),
    ({"hidden_size": 64}, "config.json asks for"),
]


@pytest.mark.parametrize(("changes", "words"), ABSURD, ids=[next(iter(changes)) for changes, _ in ABSURD])
def test_a_config_that_asks_for_the_moon_is_refused_at_once(
    changes: dict[str, Any], words: str, folder: Path
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    began = time.perf_counter()
    refused(folder, words)
    assert time.perf_counter() - began < 5


def test_a_config_file_is_bounded_and_its_keys_are_unique(folder: Path) -> None:
    path = folder / "config.json"
    text = path.read_text()
    path.write_text(text.replace("{", '{"hidden_size": 64,', 1))
    refused(folder, "the key 'hidden_size' stands there twice")
    path.write_text(text + " " * 10**6)
    refused(folder, "at most 1000000 are read")


def test_a_damaged_tokenizer_is_a_checkpoint_error(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {"a": 1e')
    refused(folder, "tokenizer.json")
    (folder / "tokenizer.json").write_text('{"model": ' * 100_000)
    refused(folder, "tokenizer.json")
    write_tokenizer(folder, encoding("mini"), 64)
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"(?:(?:.|..)+(?=$)b)|[\s\S]"
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    refused(folder, "tokenizer.json", "cutting a text failed")


# --- at random -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stratum", STRATA)
def test_random_faults_load_or_give_one_clear_error(stratum: str, tmp_path: Path) -> None:
    came, broken, _ = fuzz(stratum, range(500), tmp_path)
    assert not broken, "\n".join(broken[:5])
    assert came["refused"] > 300 and came["loaded"] > 10  # most faults matter, and not everything is refused
