"""load's arguments, and where it finds a model by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from toy_checkpoints import CONFIGS, model_of
from toys import one_thread, random_model, random_tokens, run  # noqa: F401

from gptoss_lab.cost import memory_parts
from gptoss_lab.model import Transformer
from gptoss_lab.weights import CheckpointError, load, places, save
from gptoss_lab.weights.shards import Shards

PUBLISHED = Path(__file__).parent / "data" / "published"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a checkpoint goes."""
    return tmp_path / "toy"


def test_what_does_not_fit_into_memory_is_refused_before_anything_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toys.mxfp4(vocab_size=5000)
    save(model_of(config), folder, dtype=torch.bfloat16)
    unpacked, packed = load(folder), load(folder, dtype="stored")

    def need_of(model: Transformer, widened: bool) -> int:
        weights = {"weights": sum(tensor.nbytes for tensor in model.state_dict().values())}
        return sum(memory_parts(config, weights, context=1, tokens=1, widened=widened).values())

    need, stored, least = need_of(unpacked, False), need_of(packed, True), need_of(packed, False)
    assert stored > least
    load(folder, memory_limit=need)
    load(folder, memory_limit=stored, dtype="stored")
    load(folder, memory_limit=least, kernels="fast")
    monkeypatch.setattr(Shards, "tensor", lambda *args: pytest.fail("a tensor was read"))
    with pytest.raises(ValueError, match=r"experts .* other weights .* cache .* memory_limit .* The least"):
        load(folder, memory_limit=need - 1)
    with pytest.raises(ValueError, match="The least, .* choose a smaller model"):
        load(folder, memory_limit=least - 1, kernels="fast")
    with pytest.raises(ValueError, match="The least, .* MB[.]$"):
        load(folder, memory_limit=stored - 1, dtype="stored")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"kernels": "faster"}, "expected 'exact', 'fast' or None"),
        ({"kernels": "fast", "dtype": torch.float32}, "on the CPU; .* dtype torch.float32"),
        ({"dtype": torch.float16}, "expected None, 'stored'"),
        ({"dtype": "float32"}, "expected None, 'stored'"),
        ({"device": "tpu"}, "expected 'cpu', 'cuda'"),
        ({"device": "cuda:99"}, "cuda"),
        ({"memory_limit": 0}, "expected bytes"),
        ({"memory_limit": "8GB"}, "expected bytes"),
        ({"dtype": [torch.float32]}, "expected None, 'stored'"),
        ({"device": None}, "expected 'cpu', 'cuda'"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(more: dict[str, Any], message: str, folder: Path) -> None:
    save(model_of(CONFIGS["gpt2"]), folder)
    with pytest.raises(ValueError, match=message):
        load(folder, **more)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model 'gpt-os-20b'.*Did you mean 'gpt-oss-20b'"):
        load("gpt-os-20b")
    with pytest.raises(CheckpointError, match="no config.json here"):
        load(tmp_path)
    with pytest.raises(ValueError, match="no model 'xxx"):
        load("x" * 5000)
    for source in (None, 20, b"mini-oss", ["mini-oss"]):
        with pytest.raises(ValueError, match=f"this is {type(source).__name__}"):
            load(source)  # type: ignore[arg-type]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has no models, and an empty working folder."""
    for variable in ("GPTOSS_LAB_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_a_name_wins_over_a_folder_of_that_name(elsewhere: Path) -> None:
    save(model_of(CONFIGS["gpt2"]), Path("gpt2"))
    with pytest.raises(ValueError, match=r"'gpt2' are not on this machine; looked in .*hub.*GPTOSS_LAB_HOME"):
        load("gpt2")
    assert load("./gpt2").config.name == load(Path("gpt2")).config.name == "gpt2"


def test_names_are_looked_up_in_the_home_and_in_the_hub_s_cache(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(model_of(CONFIGS["gpt2"]), elsewhere / "files")
    repository = elsewhere / "hub" / "models--openai-community--gpt2"
    for commit in ("0ld", "new"):  # links out of the snapshot, as the hub's cache has them
        (repository / "snapshots" / commit).mkdir(parents=True)
    for file in (elsewhere / "files").iterdir():
        (repository / "snapshots" / "new" / file.name).symlink_to(file)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("new")
    assert places.candidates("gpt2")[0] == repository / "snapshots" / "new"
    assert load("gpt2").weights_from.startswith("gpt2, sha256 ")
    (repository / "refs" / "main").write_text("../../../files")
    assert load("gpt2").config.name == "gpt2"
    shutil.copytree(elsewhere / "files", elsewhere / "home" / "gpt2-medium" / "original")
    monkeypatch.setenv("GPTOSS_LAB_HOME", str(elsewhere / "home"))
    assert load("gpt2-medium").config.name == "gpt2-medium"
