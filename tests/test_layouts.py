"""Every layout of a checkpoint is the same model: OpenAI's own, prefixes, shards, and the published files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
import toys
from hostile import join
from safetensors.torch import load_file, save_file
from torch import Tensor
from toy_checkpoints import CONFIGS, model_of, rewrite, same, write_original
from toys import one_thread, random_model, random_tokens, run  # noqa: F401

from gptoss_lab.config import NAMED, Config, Yarn
from gptoss_lab.model import Transformer
from gptoss_lab.weights import CheckpointError, PackedStack, load, names, save
from gptoss_lab.weights.checkpoint import what_is_stored
from gptoss_lab.weights.dialects import read_config

PUBLISHED = Path(__file__).parent / "data" / "published"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a checkpoint goes."""
    return tmp_path / "toy"


def test_openai_s_own_layout_is_the_same_model(folder: Path) -> None:
    config = toys.mxfp4(context=32)
    model = model_of(config)
    save(model, folder)
    write_original(folder, folder / "original", config)
    own = load(folder / "original")
    assert own.config == load(folder).config.with_changes(name="original")
    assert same(own, model)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="its folder 'original' has one"):
        load(folder)


def test_openai_s_own_loader_reads_the_same_folder_and_agrees(folder: Path) -> None:
    said = "OpenAI's package: pip install --no-deps gpt-oss"
    package = pytest.importorskip("gpt_oss.torch.model", reason=said)
    yarn = Yarn(4.0, 16, 1.5, 0.5)  # OpenAI's refuses a ramp that does not lie inside the pairs
    config = toys.mxfp4(context=64, d_head=12, rope_theta=20.0, yarn=yarn)
    save(model_of(config), folder)
    write_original(folder, folder / "original", config)
    ours, tokens = load(folder / "original"), random_tokens(config, count=23)
    theirs = package.Transformer.from_checkpoint(str(folder / "original"), device="cpu").float()
    with torch.no_grad():
        expected = torch.stack([theirs(text) for text in tokens])
    assert expected.abs().max() > 0.5 and (run(ours, tokens) - expected).abs().max() < 2e-5


def test_gpt2_is_read_with_and_without_prefix_mask_buffers_and_a_second_copy_of_the_table(
    folder: Path,
) -> None:
    model, tokens = model_of(CONFIGS["gpt2"]), random_tokens(CONFIGS["gpt2"])
    save(model, folder)

    def bare(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        for n in range(3):
            tensors[f"h.{n}.attn.bias"] = torch.ones(1, 1, 31, 31, dtype=torch.bool).tril()
            tensors[f"h.{n}.attn.masked_bias"] = torch.tensor(-1e4)
        tensors["lm_head.weight"] = tensors["wte.weight"].clone()

    rewrite(folder, bare)
    assert same(load(folder), model)
    rewrite(folder, lambda tensors: tensors["lm_head.weight"][3, 4].add_(1.0))
    with pytest.raises(CheckpointError, match="lm_head.weight differs from the token embedding"):
        load(folder)
    rewrite(folder, lambda tensors: None, {"tie_word_embeddings": False})
    untied = load(folder)
    assert not untied.config.tied and not torch.equal(run(untied, tokens), run(model, tokens))


@pytest.mark.parametrize("ending", ["model-{:05}-of-00002.safetensors", "teil{}.safetensors"])
def test_shards_of_any_naming_are_found_by_the_index(folder: Path, ending: str) -> None:
    model = model_of(CONFIGS["qwen3-moe"])
    save(model, folder)
    split_up(folder, ending)
    assert same(load(folder), model)


def split_up(folder: Path, ending: str, count: int = 3) -> None:
    """Replace model.safetensors by shards and an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: ending.format(i % count) for i, name in enumerate(tensors)}
    for shard in set(where.values()):
        save_file({name: tensor for name, tensor in tensors.items() if where[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def test_one_file_of_another_name_is_enough(folder: Path) -> None:
    save(model_of(CONFIGS["gpt2"]), folder)
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    load(folder)


def test_float16_is_held_as_float32(folder: Path) -> None:
    model = model_of(CONFIGS["gpt2"])
    save(model, folder)
    rewrite(folder, lambda tensors: tensors.update({name: tensor.half() for name, tensor in tensors.items()}))
    half = load(folder, dtype="stored")
    assert half.config.stored == "float32" and half.token_embedding.dtype == torch.float32
    assert same(half, load(folder))


def expected_of(layout: str, config: Config) -> dict[str, Tensor]:
    """What a checkpoint must hold, on the meta device."""
    with torch.device("meta"):
        stored = what_is_stored(Transformer(config))
    return names.to_theirs(names.rows(layout, config, stored), stored)


def test_the_published_configs_are_the_named_one() -> None:
    hub = read_config(json.loads((PUBLISHED / "config.json").read_text()), "gpt-oss-20b",
                      json.loads((PUBLISHED / "generation_config.json").read_text()))  # fmt: skip
    own = read_config(json.loads((PUBLISHED / "original/config.json").read_text()), "gpt-oss-20b")
    assert hub == own == NAMED["gpt-oss-20b"]


def test_the_published_index_names_what_the_config_asks_for_and_sums_to_its_size() -> None:
    index = json.loads((PUBLISHED / "model.safetensors.index.json").read_text())
    expected = expected_of("gpt-oss", NAMED["gpt-oss-20b"])
    assert expected.keys() == index["weight_map"].keys() and len(expected) == 459
    stored = {name: t.numel() * (1 if t.dtype == torch.uint8 else 2) for name, t in expected.items()}
    assert sum(stored.values()) == index["metadata"]["total_size"] == 13_761_264_768


def test_the_published_original_file_is_what_its_list_of_dtypes_says() -> None:
    dtypes = json.loads((PUBLISHED / "original/dtypes.json").read_text())
    expected = expected_of("gpt-oss original", NAMED["gpt-oss-20b"])
    kinds = {True: {"FP4", "UE8"}, False: {"BF16"}}
    assert expected.keys() == dtypes.keys()
    assert all(dtypes[name] in kinds[t.dtype == torch.uint8] for name, t in expected.items())
    size = sum(t.numel() * (1 if t.dtype == torch.uint8 else 2) for t in expected.values())
    assert size == 13_761_264_768  # the file's 13,761,300,984 bytes less its header


@pytest.mark.skipif(sys.platform != "linux", reason="needs files with holes, and /proc")
@pytest.mark.parametrize("said", ["config.json", "original/config.json"])
def test_the_20b_at_its_own_size_opens_in_no_time_and_takes_no_memory(said: str, tmp_path: Path) -> None:
    """The published config and a file of 13.8 GB with the published names, all of it a hole: zeros."""
    header, at, layout = {}, 0, "gpt-oss original" if "original" in said else "gpt-oss"
    for name, like in expected_of(layout, NAMED["gpt-oss-20b"]).items():
        kind, item = ("U8", 1) if like.dtype == torch.uint8 else ("BF16", 2)
        size = item * like.numel()
        header[name] = {"dtype": kind, "shape": list(like.shape), "data_offsets": [at, at + size]}
        at += size
    shutil.copy(PUBLISHED / said, tmp_path / "config.json")
    join(tmp_path / "model.safetensors", header, b"")
    os.truncate(tmp_path / "model.safetensors", (tmp_path / "model.safetensors").stat().st_size + at)
    before, began = resident(), time.perf_counter()
    try:
        model = load(tmp_path)
        assert time.perf_counter() - began < 20 and resident() - before < 1e9
        assert model.config.with_changes(name="gpt-oss-20b") == NAMED["gpt-oss-20b"]
        assert isinstance(model.blocks[23].experts.down, PackedStack)
        assert model.weights_from.startswith(f"{tmp_path.name}, sha256 of headers and sizes")
        with pytest.raises(ValueError, match=r"takes 84.1 GB \(experts 76.5 GB, .* The least, .* is 14.2 GB"):
            load(tmp_path, dtype=torch.float32, memory_limit=64e9)
    finally:
        (tmp_path / "model.safetensors").unlink()


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_folder_with_the_published_names_shards_and_config_keys_loads(folder: Path) -> None:
    small = toys.mxfp4(n_layers=24, window=128, yarn=Yarn(), rope_theta=150000.0, n_experts=2, d_ff=32)
    model = model_of(small)
    save(model, folder)
    said = json.loads((PUBLISHED / "config.json").read_text())
    keys = ("head_dim", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
                  "num_local_experts", "vocab_size", "num_experts_per_tok")  # fmt: skip
    sizes = {key: json.loads((folder / "config.json").read_text())[key] for key in keys}
    (folder / "config.json").write_text(json.dumps(said | sizes | {"experts_per_token": 2}))
    shutil.copy(PUBLISHED / "generation_config.json", folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = json.loads((PUBLISHED / "model.safetensors.index.json").read_text())["weight_map"]
    for shard in set(where.values()):
        save_file({name: tensor for name, tensor in tensors.items() if where[name] == shard}, folder / shard)
    shutil.copy(PUBLISHED / "model.safetensors.index.json", folder)
    assert same(load(folder), model)
