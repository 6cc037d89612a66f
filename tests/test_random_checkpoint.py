"""The random checkpoint that benchmarks run on: the published layout, at its size, and at a small one."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import toys
from toys import one_thread  # noqa: F401

from gptoss_lab.config import NAMED
from gptoss_lab.generation import generate
from gptoss_lab.weights import load
from gptoss_lab.weights.shards import Shards

HERE = Path(__file__).parent
SMALL = toys.mxfp4(name="small", stored="bfloat16", window=128, d_ff=64, experts_per_token=4)


@pytest.fixture(scope="module")
def random_checkpoint() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location(
        "random_checkpoint", HERE.parent / "benchmarks" / "random_checkpoint.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def published() -> dict[str, str]:
    """Tensor → its file, of the published 20b."""
    return json.loads((HERE / "data" / "published" / "model.safetensors.index.json").read_text())


def test_the_full_plan_is_the_published_layout(random_checkpoint) -> None:
    """Names by the published index; shapes and dtypes from the published config, which load compares with."""
    index, planned = published(), random_checkpoint.plan(NAMED["gpt-oss-20b"])
    assert {one.name for one in planned} == index["weight_map"].keys() and len(planned) == 459
    assert sum(one.size for one in planned) == index["metadata"]["total_size"] == 13_761_264_768
    shapes = {one.name: (one.dtype, one.shape) for one in planned}
    layer = "model.layers.23.mlp.experts."
    assert shapes[f"{layer}gate_up_proj_blocks"] == ("U8", (32, 5760, 90, 16))
    assert shapes[f"{layer}gate_up_proj_scales"] == ("U8", (32, 5760, 90))
    assert shapes[f"{layer}down_proj_bias"] == ("BF16", (32, 2880))
    assert shapes["model.layers.0.self_attn.q_proj.weight"] == ("BF16", (4096, 2880))
    assert {dtype for dtype, _ in shapes.values()} == {"U8", "BF16"}
    files = random_checkpoint.shards(planned, random_checkpoint.SHARD)
    assert list(files) == [f"model-0000{n}-of-00002.safetensors" for n in range(3)]
    assert set(files) == set(index["weight_map"].values())
    assert all(sum(one.size for one in tensors) <= random_checkpoint.SHARD for tensors in files.values())


def layer_of(name: str) -> int | None:
    """The layer that a published name stands in."""
    return int(name.split(".")[2]) if name.startswith("model.layers.") else None


def test_what_is_written_has_the_published_names_and_loads_and_decodes(random_checkpoint, tmp_path) -> None:
    folder = random_checkpoint.write(SMALL, tmp_path / "made", seed=3, largest=30_000)
    layers = range(SMALL.n_layers)
    theirs = {name for name in published()["weight_map"] if layer_of(name) in (None, *layers)}
    assert set(Shards(folder)) == theirs and len(theirs) == 3 + 19 * SMALL.n_layers
    assert {entry.dtype for entry in Shards(folder).values()} == {"U8", "BF16"}
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert not list(folder.glob("*part*"))
    model = load(folder, kernels="fast")
    assert model.config.with_changes(name="small") == SMALL
    tokens = [token.id for token in generate(model, [1, 2, 3], 12)]
    assert len(tokens) == 12 and len(set(tokens)) > 1


def test_the_same_seed_writes_the_same_bytes_and_another_others(random_checkpoint, tmp_path) -> None:
    write, folders = random_checkpoint.write, {"one": 0, "same": 0, "other": 1}
    one, same, other = (write(SMALL, tmp_path / name, seed) for name, seed in folders.items())
    read = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (one, same, other)]
    assert read[0] == read[1] and read[0].keys() == read[2].keys() and read[0] != read[2]


def test_an_interrupted_writing_is_taken_up_after_the_last_whole_shard(
    random_checkpoint, tmp_path, monkeypatch
) -> None:
    folder, whole_one = tmp_path / "made", random_checkpoint.write(SMALL, tmp_path / "whole", largest=30_000)
    made: list[str] = []

    def contents(tensor, seed, real=random_checkpoint.contents):
        made.append(tensor.name)
        if len(made) == 30:
            raise KeyboardInterrupt
        yield from real(tensor, seed)

    monkeypatch.setattr(random_checkpoint, "contents", contents)
    with pytest.raises(KeyboardInterrupt):
        random_checkpoint.write(SMALL, folder, largest=30_000)
    kept = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert kept and all(name.endswith(".safetensors") for name in kept)  # no config, nothing half-written
    random_checkpoint.write(SMALL, folder, largest=30_000)
    assert all((folder / name).stat().st_mtime_ns == time for name, time in kept.items())
    for path in whole_one.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_other_weights_too_little_disk_and_other_models_are_refused(
    random_checkpoint, tmp_path, monkeypatch, capsys
) -> None:
    folder = random_checkpoint.write(SMALL, tmp_path / "made", seed=0)
    with pytest.raises(ValueError, match="is not of this model with seed 1: choose another folder"):
        random_checkpoint.write(SMALL, folder, seed=1)
    with pytest.raises(ValueError, match="choose a gpt-oss"):
        random_checkpoint.write(NAMED["gpt2"], tmp_path / "gpt2")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 10**9))
    assert random_checkpoint.main([str(tmp_path / "large")]) == 2
    assert "13.8 GB are still to be written, but" in capsys.readouterr().err
    assert list((tmp_path / "large").iterdir()) == []
