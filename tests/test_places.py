"""load's arguments, and where it finds a model by name."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from toy_checkpoints import CONFIGS, model_of, rewrite, write_original
from toys import one_thread, random_model, random_tokens, run  # noqa: F401

from gptoss_lab.config import NAMED, Config, Yarn
from gptoss_lab.cost import memory_parts
from gptoss_lab.model import Transformer
from gptoss_lab.weights import CheckpointError, load, places, save
from gptoss_lab.weights.checkpoint import config_of, open_checkpoint
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

    def need_of(model: Transformer, widened: bool, fast: bool = False) -> int:
        weights = {"weights": sum(tensor.nbytes for tensor in model.state_dict().values())}
        return sum(memory_parts(config, weights, 1, 1, widened=widened, fast=fast).values())

    need, stored, least = need_of(unpacked, False), need_of(packed, True), need_of(packed, False, fast=True)
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
        ({"dtype": torch.float64}, "expected None, 'stored'"),
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


def test_an_empty_name_is_not_this_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(model_of(CONFIGS["gpt2"]), folder)
    monkeypatch.chdir(folder)
    assert load(".").config.name == folder.name
    with pytest.raises(ValueError, match="the model's name is empty; give a known name, or a folder"):
        load("")


def test_a_folder_s_name_does_not_steer_a_terminal(tmp_path: Path) -> None:
    named = save(model_of(CONFIGS["gpt2"]), tmp_path / "a\x1b[2Jb\x9b")
    assert places.find(named) == ("a\\x1b[2Jb\\x9b", named)
    assert load(named).config.name == "a\\x1b[2Jb\\x9b"


def test_a_name_wins_over_a_folder_of_that_name(elsewhere: Path) -> None:
    save(model_of(CONFIGS["gpt2"]), Path("gpt2"))
    with pytest.raises(ValueError, match=r"'gpt2' are not on this machine; looked in .*hub.*GPTOSS_LAB_HOME"):
        load("gpt2")
    assert load("./gpt2").config.name == load(Path("gpt2")).config.name == "gpt2"


def test_names_are_looked_up_in_the_home_and_in_the_hub_s_cache(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(model_of(CONFIGS["gpt2"]), elsewhere / "files")
    for name in ("gpt2", "gpt2-medium"):  # on this machine these are the names of the toy
        monkeypatch.setitem(NAMED, name, CONFIGS["gpt2"].with_changes(name=name))
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


# --- under a published name, that model alone ---


@pytest.fixture
def home(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A GPTOSS_LAB_HOME without models."""
    monkeypatch.setenv("GPTOSS_LAB_HOME", str(elsewhere / "home"))
    return elsewhere / "home"


@pytest.mark.parametrize("name", NAMED)
def test_another_model_does_not_run_under_a_published_name(name: str, home: Path) -> None:
    shutil.copytree(places.ASSETS / "mini-oss", home / name)
    with pytest.raises(CheckpointError) as error:
        load(name)
    said = str(error.value)
    assert said.startswith(f"{home / name}: the model here is not {name}: ")
    assert f"n_layers is 6, expected {NAMED[name].n_layers}; d_model is 192, expected" in said
    assert " more. Load the folder by its path instead" in said and len(said) < 1000
    assert load(home / name).config.n_layers == 6


def test_learned_positions_bind_the_context_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(model_of(CONFIGS["gpt2"]), home / "gpt2")
    known = CONFIGS["gpt2"].with_changes(name="gpt2", context=1024)
    monkeypatch.setitem(NAMED, "gpt2", known)
    with pytest.raises(CheckpointError, match="is not gpt2: context is 31, expected 1024. Load the folder"):
        load("gpt2")
    monkeypatch.setitem(NAMED, "gpt2", known.with_changes(context=31))
    assert load("gpt2").config.context == 31


# one change of every field of Config, others going with it where they must
BINDING: dict[str, dict[str, Any]] = {
    "family": {"family": "qwen3-moe"}, "n_layers": {"n_layers": 4}, "d_model": {"d_model": 64},
    "n_heads": {"n_heads": 4}, "n_kv_heads": {"n_kv_heads": 2}, "d_head": {"d_head": 8},
    "d_ff": {"d_ff": 64}, "vocab_size": {"vocab_size": 30}, "norm": {"norm": "layer"},
    "norm_eps": {"norm_eps": 1e-6}, "positions": {"positions": "learned", "yarn": None},
    "rope_theta": {"rope_theta": 51.0}, "yarn": {"yarn": Yarn(factor=4.0, original_context=8)},
    "qk_norm": {"qk_norm": True}, "window": {"window": 6}, "windowed_layers": {"windowed_layers": "all"},
    "sinks": {"sinks": False}, "bias": {"bias": False}, "activation": {"activation": "swiglu"},
    "swiglu_limit": {"swiglu_limit": 8.0}, "swiglu_alpha": {"swiglu_alpha": 1.0},
    "n_experts": {"n_experts": 8}, "experts_per_token": {"experts_per_token": 3}, "tied": {"tied": True},
}  # fmt: skip
FREE: dict[str, dict[str, Any]] = {
    "name": {}, "context": {"context": 16}, "dropout": {"dropout": 0.1}, "vocab_used": {"vocab_used": 20},
    "stop_ids": {"stop_ids": (3,)}, "stored": {"stored": "float32"},
    "stored_experts": {"stored_experts": "same"},
}  # fmt: skip


def test_each_field_of_a_config_is_binding_or_free() -> None:
    assert sorted([*BINDING, *FREE]) == sorted(field.name for field in fields(Config))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a packed toy in the place of gpt-oss-20b."""
    made = tmp_path_factory.mktemp("home")
    save(model_of(toys.mxfp4()), made / "gpt-oss-20b")
    return made


def load_as_known(packed: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    """Load the packed toy under the name gpt-oss-20b, which is known to be the toy after a change."""
    monkeypatch.setenv("GPTOSS_LAB_HOME", str(packed))
    known = toys.mxfp4(name="gpt-oss-20b").with_changes(**change)
    monkeypatch.setitem(NAMED, "gpt-oss-20b", known)
    load("gpt-oss-20b")


@pytest.mark.parametrize("field", BINDING)
def test_what_decides_numbers_or_shapes_must_be_as_published(
    field: str, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=f"is not gpt-oss-20b: .*{field} is .*, expected .*by its path"):
        load_as_known(packed, monkeypatch, BINDING[field])


@pytest.mark.parametrize("field", FREE)
def test_what_changes_no_number_may_be_otherwise(
    field: str, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_as_known(packed, monkeypatch, FREE[field])


# --- a config without weights ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("toy", CONFIGS)
def test_a_config_alone_is_the_config_of_the_whole_checkpoint(
    toy: str, dtype: torch.dtype, folder: Path
) -> None:
    save(model_of(CONFIGS[toy]), folder, dtype=dtype)
    whole = open_checkpoint(folder, "toy").config
    (folder / "model.safetensors").unlink()
    assert config_of(folder, "toy") == whole


def test_openai_s_own_config_alone_is_that_of_the_whole_checkpoint(folder: Path, tmp_path: Path) -> None:
    config = toys.mxfp4(window=5)
    write_original(save(model_of(config), folder, dtype=torch.bfloat16), tmp_path / "original", config)
    whole = open_checkpoint(tmp_path / "original", "toy").config
    (tmp_path / "original" / "model.safetensors").unlink()
    assert config_of(tmp_path / "original", "toy") == whole


@pytest.mark.parametrize(
    ("toy", "said", "stored"),
    [
        ("gpt2", {"dtype": "gone"}, "float32"),
        ("qwen3-moe", {"dtype": "gone"}, "bfloat16"),
        ("qwen3-moe", {"dtype": None}, "bfloat16"),
        ("qwen3-moe", {"dtype": "gone", "torch_dtype": "float32"}, "float32"),
        ("gpt2", {"dtype": "float16"}, "bfloat16"),
    ],
)
def test_what_is_stored_is_the_dtype_that_is_named_or_the_family_s(
    toy: str, said: dict[str, Any], stored: str, folder: Path
) -> None:
    rewrite(save(model_of(CONFIGS[toy]), folder), lambda tensors: None, said)
    assert config_of(folder, "toy").stored == stored
