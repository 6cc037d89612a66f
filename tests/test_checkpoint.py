"""Reading and writing checkpoints: what we save, what transformers saves, and what must not be read."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from torch import Tensor
from toy_checkpoints import CONFIGS, model_of, rewrite, same
from toys import one_thread, random_model, random_tokens, run  # noqa: F401

from gptoss_lab.text.tokens import encoding
from gptoss_lab.weights import CheckpointError, PackedStack, load, loading, save, saving, shards

PUBLISHED = Path(__file__).parent / "data" / "published"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a checkpoint goes."""
    return tmp_path / "toy"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_comes_back_with_the_same_bits(name: str, dtype: torch.dtype, folder: Path) -> None:
    model = model_of(CONFIGS[name])
    save(model, folder, dtype=dtype)
    again = load(folder)
    stored = str(dtype).removeprefix("torch.")
    assert again.config == model.config.with_changes(name="toy", stored=stored)
    assert same(again, model)
    assert not again.training and not any(weight.requires_grad for weight in again.parameters())
    assert {weight.dtype for weight in again.parameters()} == {torch.float32}


def test_packed_experts_stay_packed_where_asked_and_answer_the_same(folder: Path) -> None:
    config = toys.mxfp4()
    model, tokens = model_of(config), random_tokens(config)
    save(model, folder)
    packed, unpacked, narrow = load(folder, dtype="stored"), load(folder), load(folder, dtype=torch.bfloat16)
    for block in (*packed.blocks, *narrow.blocks):
        assert isinstance(block.experts.gate_up, PackedStack) and isinstance(block.experts.down, PackedStack)
    assert not any(isinstance(part, PackedStack) for part in unpacked.modules())
    assert torch.equal(run(packed, tokens), run(unpacked, tokens))
    assert {weight.dtype for weight in packed.parameters()} == {torch.bfloat16}
    expected, got = run(unpacked, tokens), run(narrow, tokens)
    assert (
        not torch.equal(got, expected) and (got - expected).square().mean() < 0.05 * expected.square().mean()
    )
    assert torch.equal(
        run(packed.with_config(window=None), tokens), run(unpacked.with_config(window=None), tokens)
    )


def test_a_packed_model_is_saved_packed_or_unpacked_without_loss(folder: Path, tmp_path: Path) -> None:
    model = model_of(toys.mxfp4())
    save(model, folder)
    packed = load(folder, dtype="stored")
    save(packed, tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
    save(packed, tmp_path / "plain", experts="same")
    plain = load(tmp_path / "plain")
    assert plain.config.stored_experts == "same" and same(plain, model)


def test_weights_are_mapped_and_writing_to_them_leaves_the_file_alone(folder: Path) -> None:
    save(model_of(CONFIGS["gpt2"]), folder, dtype=torch.float32)
    file = folder / "model.safetensors"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    model = load(folder)
    assert model.weights_from == f"toy, sha256 {before[:8]}…"
    if sys.platform == "linux":
        spans = [
            line.split()[0].split("-") for line in open("/proc/self/maps") if str(file.resolve()) in line
        ]
        for weight in model.parameters():  # Conv1D's transposes are views, q, k and v slices
            assert any(int(low, 16) <= weight.data_ptr() < int(high, 16) for low, high in spans)
    model.token_embedding.fill_(0.0)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before


def test_a_tensor_that_the_file_does_not_align_is_read_all_the_same(folder: Path) -> None:
    save(model := model_of(CONFIGS["gpt2"]), folder, dtype=torch.float32)
    file = folder / "model.safetensors"
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    file.write_bytes(struct.pack("<Q", length + 3) + data[8 : 8 + length] + b"   " + data[8 + length :])
    assert same(load(folder), model)
    assert all(weight.data_ptr() % 4 == 0 for weight in load(folder).parameters())  # for strict processors


def test_a_large_model_is_mapped_as_stored_and_known_by_its_headers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(toys.mxfp4())
    save(model, folder)
    monkeypatch.setattr(loading, "SMALL", 4 * sum(weight.numel() for weight in model.parameters()) - 1)
    monkeypatch.setattr(shards, "HASH_LIMIT", 1000)
    large = load(folder)
    assert isinstance(large.blocks[0].experts.down, PackedStack) and same(large, model)
    assert large.token_embedding.dtype == torch.bfloat16
    assert large.weights_from.startswith("toy, sha256 of headers and sizes ")
    rewrite(folder, lambda tensors: tensors["model.norm.weight"].fill_(math.nan))
    assert load(folder).norm.scale.isnan().all()  # a large model is not looked at
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="holds NaN"):
        load(folder)


@pytest.mark.parametrize("at", [None, 0, 1, 2, 3, 4, 5, 6])
def test_an_interrupted_save_leaves_the_old_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at: int | None
) -> None:
    """The disk is full, or the file of number `at` cannot be moved, of three old ones and four new ones."""
    save(model_of(CONFIGS["gpt-oss"], seed=1), folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    moves = []

    def full(*args: object, **more: object) -> None:
        raise OSError("no space left on device")

    def moved(source: Path, place: Path) -> None:
        moves.append(place)
        if len(moves) - 1 == at:
            raise OSError("no space left on device")
        shutil.move(source, place)

    if at is None:
        monkeypatch.setattr(saving, "save_tensors", full)
    else:
        monkeypatch.setattr(saving, "save_tensors", lambda tensors, path, about: path.write_bytes(b"new"))
        monkeypatch.setattr(saving.os, "replace", moved)
    with pytest.raises(OSError, match="no space"):
        save(model_of(CONFIGS["gpt-oss"], seed=2), folder, extra_files={"more": b"new"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


@pytest.mark.parametrize(("name", "said"), [
    ("tokenizer.json", "tokenizer.json is a folder, in the place of a file"),
    ("mine", "mine is a folder, in the place of a file"),
    ("other.safetensors", "holds 'other.safetensors', which is not of a model there"),
    ("", "toy' is not a folder; name another place"),
    ("inside", "is not a folder, and .*inside' would lie in it"),
])  # fmt: skip
def test_a_folder_that_cannot_take_a_model_is_refused_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    if name in ("", "inside"):
        folder.write_text("mine")
    elif name == "other.safetensors":
        save(model_of(CONFIGS["gpt2"]), folder)
        (folder / name).write_bytes(b"mine")
    else:
        (folder / name).mkdir(parents=True)
    monkeypatch.setattr(saving, "to_store", lambda *given: pytest.fail("weights were packed"))
    with pytest.raises(ValueError, match=said):
        save(model_of(CONFIGS["gpt2"]), folder / "inside" if name == "inside" else folder,
             extra_files={"mine": b""})  # fmt: skip
    assert folder.read_text() == "mine" if folder.is_file() else (folder / name).exists()


@pytest.mark.parametrize("named", ["of an index", "alone"])
def test_the_weights_of_the_old_model_make_way_whatever_their_names(folder: Path, named: str) -> None:
    save(model_of(CONFIGS["gpt2"]), folder)
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    if named == "of an index":
        index = {"weight_map": {"a": "part.safetensors", "b": "gone.safetensors"}}
        (folder / "some.safetensors.index.json").write_text(json.dumps(index))
    save(model := model_of(CONFIGS["gpt-oss"]), folder)
    assert same(load(folder), model)
    assert [path.name for path in folder.glob("*safetensors*")] == ["model.safetensors"]


@pytest.mark.parametrize("stop", [OSError("no space left on device"), KeyboardInterrupt()])
def test_an_old_model_that_cannot_be_put_back_is_kept_and_its_place_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    """The second new file cannot be moved, nor the second of the old ones back."""
    save(model_of(CONFIGS["gpt-oss"], seed=1), folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    moves = []

    def moved(source: Path, place: Path) -> None:
        moves.append(place)
        if len(moves) in (len(files) + 2, len(files) + 4):
            raise stop
        shutil.move(source, place)

    monkeypatch.setattr(saving.os, "replace", moved)
    with pytest.raises(type(stop), match=r"could not be put back \(.+\); its files are in ") as found:
        save(model_of(CONFIGS["gpt-oss"], seed=2), folder)
    kept = Path(str(found.value).rpartition(" are in ")[2])
    assert not (folder / "config.json").exists()  # no half model
    left = {path.name: path.read_bytes() for place in (folder, kept) for path in place.iterdir()}
    assert left == files and len(list(kept.iterdir())) == len(files) - 1


@pytest.mark.parametrize("at", range(7))
def test_an_interruption_right_after_a_move_leaves_the_old_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    save(model_of(CONFIGS["gpt-oss"], seed=1), folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    moves = []

    def moved(source: Path, place: Path) -> None:
        moves.append(place)
        shutil.move(source, place)
        if len(moves) - 1 == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(saving, "save_tensors", lambda tensors, path, about: path.write_bytes(b"new"))
    monkeypatch.setattr(saving.os, "replace", moved)
    with pytest.raises(KeyboardInterrupt):
        save(model_of(CONFIGS["gpt-oss"], seed=2), folder, extra_files={"more": b"new"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_a_model_without_a_tokenizer_does_not_inherit_the_old_models(folder: Path) -> None:
    model = model_of(CONFIGS["gpt2"].with_changes(vocab_size=4096))
    model.tokenizer = encoding("mini")
    save(model, folder, extra_files={"merges.txt": b"mine"})
    (folder / "generation_config.json").write_text("{}")
    assert load(folder).tokenizer is not None and (folder / "tokenizer_config.json").exists()
    model.tokenizer = None
    save(model, folder)
    assert load(folder).tokenizer is None
    names = ["config.json", "generation_config.json", "merges.txt", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_saving_over_a_model_replaces_it_and_keeps_other_files(folder: Path) -> None:
    save(model_of(CONFIGS["gpt2"]), folder, extra_files={"vocab.txt": b"{}"})
    (folder / "README.md").write_text("mine")
    (folder / "model.safetensors.index.json").write_text("{}")
    model = model_of(CONFIGS["qwen3-moe"])
    save(model, folder)
    assert same(load(folder), model)
    assert (folder / "README.md").read_text() == "mine" and (folder / "vocab.txt").read_bytes() == b"{}"


def test_what_is_saved_may_be_read_by_whoever_may_read_other_files(folder: Path) -> None:
    (folder.parent / "plain").write_text("")
    save(model_of(CONFIGS["gpt2"]), folder)
    usual = (folder.parent / "plain").stat().st_mode
    assert {path.stat().st_mode for path in folder.iterdir()} == {usual}


def test_what_a_layout_cannot_say_is_not_saved(folder: Path) -> None:
    with pytest.raises(ValueError, match="gpt2 config.json cannot say this model's .*positions"):
        save(random_model(toys.on_the_road(d_model=24, n_heads=4, n_kv_heads=4)), folder)
    with pytest.raises(ValueError, match="cannot say this model: .*a width of 10 is no multiple of 8 heads"):
        save(random_model(toys.gpt2()), folder)
    with pytest.raises(ValueError, match="expected 'same'"):
        save(random_model(toys.gpt2()), folder, experts="mxfp4")
    with pytest.raises(ValueError, match="blocks of 32"):
        save(random_model(toys.gpt_oss()), folder, experts="mxfp4")
    with pytest.raises(ValueError, match="float16"):
        save(random_model(toys.gpt_oss()), folder, dtype=torch.float16)
    with pytest.raises(ValueError, match="plain name"):
        save(random_model(toys.qwen3()), folder, extra_files={"../escaped": b""})
    assert not folder.exists()


def theirs_from(folder: Path) -> Callable[[Tensor], Tensor]:
    """The logits that transformers computes from a folder, in float32."""
    from transformers import AutoModelForCausalLM, Mxfp4Config

    packed = "quantization_config" in json.loads((folder / "config.json").read_text())
    extra = {"quantization_config": Mxfp4Config(dequantize=True)} if packed else {}
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **eager, **extra)
    return lambda tokens: run(model.eval(), tokens).logits


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_reads_what_we_save_and_agrees(name: str, folder: Path) -> None:
    model = random_model(CONFIGS[name], seed=3)
    save(model, folder, dtype=torch.float32)
    tokens = random_tokens(model.config, count=23)
    ours, theirs = run(load(folder), tokens), theirs_from(folder)(tokens)
    assert ours.abs().max() > 0.5 and (ours - theirs).abs().max() < 2e-5
    if name != "gpt-oss packed":  # these weights are not on MXFP4's grid
        assert same(load(folder), model)


def tiny(kind: str) -> Any:
    """A tiny random model of transformers whose weights are all drawn, biases, sinks and norms too."""
    import transformers as hf

    common = {"vocab_size": 37, "num_hidden_layers": 3, "hidden_size": 20, "num_attention_heads": 6,
              "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}  # fmt: skip
    if kind == "gpt2":
        made = hf.GPT2LMHeadModel(
            hf.GPT2Config(vocab_size=37, n_positions=41, n_embd=24, n_layer=3, n_head=4, n_inner=28)
        )
    elif kind == "gpt-oss":
        yarn = {"rope_type": "yarn", "factor": 8.0, "beta_fast": 1.5, "beta_slow": 0.4, "rope_theta": 150.0,
                "original_max_position_embeddings": 16, "truncate": False}  # fmt: skip
        kinds = ["full_attention", "sliding_attention", "sliding_attention"]
        made = hf.GptOssForCausalLM(hf.GptOssConfig(
            **common, intermediate_size=14, num_local_experts=5, num_experts_per_tok=3, sliding_window=4,
            rope_parameters=yarn, layer_types=kinds))  # fmt: skip
    else:
        made = hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(
            **common, moe_intermediate_size=14, num_experts=5, num_experts_per_tok=3, norm_topk_prob=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0}))  # fmt: skip
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.normal_(1.0 if "norm" in name or "ln_" in name else 0.0, 0.25, generator=generator)
    made.config._attn_implementation = made.config._experts_implementation = "eager"
    return made.eval()


@pytest.mark.parametrize("kind", ["gpt2", "gpt-oss", "qwen3-moe"])
def test_we_read_what_transformers_saves_and_agree(kind: str, folder: Path) -> None:
    theirs = tiny(kind)
    theirs.save_pretrained(folder)
    ours, tokens = load(folder), torch.randint(37, (3, 23), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = theirs(tokens).logits
    assert ours.config.family == kind and expected.abs().max() > 0.5
    assert (run(ours, tokens) - expected).abs().max() < 2e-5
    theirs.save_pretrained(folder.with_name("shards"), max_shard_size="6KB")
    sharded = load(folder.with_name("shards"))
    assert len(list(folder.with_name("shards").glob("*.safetensors"))) > 2
    assert same(sharded, ours)


STRICT = {
    "missing": (
        lambda t: t.pop("model.layers.1.self_attn.sinks"),
        "1 tensors missing: 'model.layers.1.self_attn.sinks'",
    ),
    "extra": (
        lambda t: t.update({"model.layers.3.mlp.x": torch.ones(2)}),
        "no place for: 'model.layers.3.mlp.x'",
    ),
    "shape": (
        lambda t: t.update({"lm_head.weight": torch.ones(32, 29)}),
        r"is F32 \[32, 29\]; .*BF16.* \[29, 32\]",
    ),
    "dtype": (
        lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.float64)}),
        r"is F64 \[32\]",
    ),
    "integers": (
        lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.uint8)}),
        r"is U8 \[32\]",
    ),
    "NaN": (lambda t: t["model.norm.weight"][3].fill_(math.nan), "'model.norm.weight' holds NaN or infinity"),
    "scales": (
        lambda t: t["model.layers.2.mlp.experts.down_proj_scales"][0, 0].fill_(255),
        "holds a scale of 255",
    ),
}


@pytest.mark.parametrize("fault", STRICT)
def test_every_tensor_must_be_there_be_used_and_fit(fault: str, folder: Path) -> None:
    save(model_of(toys.mxfp4()), folder)
    load(folder)
    change, message = STRICT[fault]
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_long_list_of_missing_tensors_is_cut_short(folder: Path) -> None:
    save(model_of(toys.qwen3()), folder)
    rewrite(folder, lambda t: [t.pop(name) for name in list(t) if "experts" in name])
    with pytest.raises(CheckpointError, match="63 tensors missing: .* and 59 more") as error:
        load(folder)
    assert len(str(error.value)) < 600
