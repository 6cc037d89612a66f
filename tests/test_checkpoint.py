"""Reading and writing checkpoints: every layout, strictly, and in agreement with transformers."""

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
from safetensors.torch import load_file, save_file
from torch import Tensor
from toys import one_thread, random_model, random_tokens, run  # noqa: F401

from gptoss_lab.config import NAMED, Config, Yarn
from gptoss_lab.model import Transformer
from gptoss_lab.weights import CheckpointError, PackedStack, load, names, places, round_to_mxfp4, save, saving
from gptoss_lab.weights.dialects import read_config, write_config
from gptoss_lab.weights.loading import as_stored
from gptoss_lab.weights.reader import Shards

PUBLISHED = Path(__file__).parent / "data" / "published"
CONFIGS = {
    "gpt2": toys.gpt2(d_model=24, n_heads=4, n_kv_heads=4),
    "gpt-oss": toys.gpt_oss(),
    "gpt-oss packed": toys.mxfp4(),
    "qwen3-moe": toys.qwen3(),
}


def model_of(config: Config, seed: int = 0) -> Transformer:
    """Random weights that the checkpoint can hold exactly: experts on MXFP4's grid, the rest in bfloat16."""
    model = random_model(config, seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            packed = config.stored_experts == "mxfp4" and name.endswith(("gate_up.weight", "experts.down.weight"))
            weight.copy_(round_to_mxfp4(weight) if packed else weight.bfloat16())
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a checkpoint goes."""
    return tmp_path / "toy"


def same(ours: Transformer, other: Transformer) -> bool:
    """Whether two models have the same weights, to the last bit, and so the same logits (but for the order of sums: a
    transposed view is multiplied in another order than a copy)."""
    tokens = random_tokens(ours.config)
    bits = all(torch.equal(value, values(other)[name]) for name, value in values(ours).items())
    return bits and bool((run(ours, tokens) - run(other, tokens)).abs().max() < 1e-5)


def values(model: Transformer) -> dict[str, Tensor]:
    """Every weight as float32, packed ones unpacked."""
    found = {name: tensor.float() for name, tensor in model.state_dict().items() if tensor.dtype != torch.uint8}
    for name, part in model.named_modules():
        if isinstance(part, PackedStack):
            found[f"{name}.weight"] = part.matrix(torch.arange(part.shape[0]))
    return found


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], Any], say: dict[str, Any] | None = None) -> None:
    """Change a saved checkpoint's tensors in place, and set keys of its config.json (None removes one)."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    said = json.loads((folder / "config.json").read_text()) | (say or {})
    (folder / "config.json").write_text(json.dumps({k: v for k, v in said.items() if v != "gone"}))


# --- our own files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_comes_back_with_the_same_bits(name: str, dtype: torch.dtype, folder: Path) -> None:
    model, tokens = model_of(CONFIGS[name]), random_tokens(CONFIGS[name])
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
    assert not torch.equal(got, expected) and (got - expected).square().mean() < 0.05 * expected.square().mean()
    assert torch.equal(run(packed.with_config(window=None), tokens), run(unpacked.with_config(window=None), tokens))


def test_a_packed_model_is_saved_packed_or_unpacked_without_loss(folder: Path, tmp_path: Path) -> None:
    model = model_of(toys.mxfp4())
    save(model, folder)
    packed, tokens = load(folder, dtype="stored"), random_tokens(toys.mxfp4())
    save(packed, tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
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
        spans = [line.split()[0].split("-") for line in open("/proc/self/maps") if str(file.resolve()) in line]
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
    tokens = random_tokens(model.config)
    assert same(load(folder), model)


def test_an_interrupted_save_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = model_of(CONFIGS["gpt-oss"], seed=1)
    save(old, folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args: object, **more: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        save(model_of(CONFIGS["gpt-oss"], seed=2), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_saving_over_a_model_replaces_it_and_keeps_other_files(folder: Path) -> None:
    save(model_of(CONFIGS["gpt2"]), folder, extra_files={"tokenizer_config.json": b"{}"})
    (folder / "README.md").write_text("mine")
    (folder / "model.safetensors.index.json").write_text("{}")
    model = model_of(CONFIGS["qwen3-moe"])
    save(model, folder)
    tokens = random_tokens(model.config)
    assert same(load(folder), model)
    assert (folder / "README.md").read_text() == "mine" and (folder / "tokenizer_config.json").read_bytes() == b"{}"


def test_what_a_layout_cannot_say_is_not_saved(folder: Path) -> None:
    with pytest.raises(ValueError, match="gpt2 config.json cannot say this model's .*positions"):
        save(random_model(toys.on_the_road(d_model=24, n_heads=4, n_kv_heads=4)), folder)
    with pytest.raises(ValueError, match="cannot say this model: .*a width of 10 is no multiple of 8 heads"):
        save(random_model(toys.gpt2()), folder)
    with pytest.raises(ValueError, match="expected 'same'"):
        save(random_model(toys.gpt2()), folder, experts="mxfp4")
    with pytest.raises(ValueError, match="multiples of 32"):
        save(random_model(toys.gpt_oss()), folder, experts="mxfp4")
    with pytest.raises(ValueError, match="float16"):
        save(random_model(toys.gpt_oss()), folder, dtype=torch.float16)
    with pytest.raises(ValueError, match="plain name"):
        save(random_model(toys.qwen3()), folder, extra_files={"../escaped": b""})
    assert not folder.exists()


# --- transformers ------------------------------------------------------------------------------------------------------


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
        made = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=37, n_positions=41, n_embd=24, n_layer=3, n_head=4, n_inner=28))
    elif kind == "gpt-oss":
        yarn = {"rope_type": "yarn", "factor": 8.0, "beta_fast": 1.5, "beta_slow": 0.4, "rope_theta": 150.0,
                "original_max_position_embeddings": 16, "truncate": False}  # fmt: skip
        made = hf.GptOssForCausalLM(hf.GptOssConfig(
            **common, intermediate_size=14, num_local_experts=5, num_experts_per_tok=3, sliding_window=4, rope_parameters=yarn,
            layer_types=["full_attention", "sliding_attention", "sliding_attention"]))  # fmt: skip
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


# --- other layouts -----------------------------------------------------------------------------------------------------


def write_original(hub: Path, folder: Path, config: Config) -> None:
    """OpenAI's own layout, put together name by name from a saved Hugging Face one."""
    t, out = load_file(hub / "model.safetensors"), {}
    out["embedding.weight"], out["norm.scale"] = t["model.embed_tokens.weight"], t["model.norm.weight"]
    out["unembedding.weight"] = t["lm_head.weight"]
    for n in range(config.n_layers):
        hf, own = f"model.layers.{n}.", f"block.{n}."
        for part in ("weight", "bias"):
            out[f"{own}attn.qkv.{part}"] = torch.cat([t[f"{hf}self_attn.{x}_proj.{part}"] for x in "qkv"])
            out[f"{own}attn.out.{part}"] = t[f"{hf}self_attn.o_proj.{part}"]
            out[f"{own}mlp.gate.{part}"] = t[f"{hf}mlp.router.{part}"]
        out[f"{own}attn.norm.scale"] = t[f"{hf}input_layernorm.weight"]
        out[f"{own}attn.sinks"] = t[f"{hf}self_attn.sinks"]
        out[f"{own}mlp.norm.scale"] = t[f"{hf}post_attention_layernorm.weight"]
        for mlp, proj in (("mlp1", "gate_up_proj"), ("mlp2", "down_proj")):
            for part in ("blocks", "scales"):
                out[f"{own}mlp.{mlp}_weight.{part}"] = t[f"{hf}mlp.experts.{proj}_{part}"]
            out[f"{own}mlp.{mlp}_bias"] = t[f"{hf}mlp.experts.{proj}_bias"]
    folder.mkdir()
    save_file(out, folder / "model.safetensors")
    own_config = {
        "num_hidden_layers": config.n_layers, "num_experts": config.n_experts, "vocab_size": config.vocab_size,
        "experts_per_token": config.experts_per_token, "hidden_size": config.d_model, "intermediate_size": config.d_ff,
        "swiglu_limit": 7.0, "head_dim": config.d_head, "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads, "sliding_window": config.window, "rope_theta": config.rope_theta,
        "initial_context_length": config.yarn.original_context, "rope_scaling_factor": config.yarn.factor,
        "rope_ntk_alpha": config.yarn.beta_slow, "rope_ntk_beta": config.yarn.beta_fast,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(own_config))


def test_openai_s_own_layout_is_the_same_model(folder: Path) -> None:
    config = toys.mxfp4(context=32)
    model, tokens = model_of(config), random_tokens(config)
    save(model, folder)
    write_original(folder, folder / "original", config)
    own = load(folder / "original")
    assert own.config == load(folder).config.with_changes(name="original")
    assert same(own, model)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="its folder 'original' has one"):
        load(folder)


def test_gpt2_is_read_with_and_without_prefix_mask_buffers_and_a_second_copy_of_the_table(folder: Path) -> None:
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
    model, tokens = model_of(CONFIGS["qwen3-moe"]), random_tokens(CONFIGS["qwen3-moe"])
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
    model, tokens = model_of(CONFIGS["gpt2"]), random_tokens(CONFIGS["gpt2"])
    save(model, folder)
    rewrite(folder, lambda tensors: tensors.update({name: tensor.half() for name, tensor in tensors.items()}))
    half = load(folder, dtype="stored")
    assert half.config.stored == "float32" and half.token_embedding.dtype == torch.float32
    assert same(half, load(folder))


# --- the published files -----------------------------------------------------------------------------------------------


def expected_of(layout: str, config: Config) -> dict[str, Tensor]:
    """What a checkpoint must hold, on the meta device."""
    with torch.device("meta"):
        stored = as_stored(Transformer(config))
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
    header = sum(t.numel() * (1 if t.dtype == torch.uint8 else 2) for t in expected.values())
    assert header == 13_761_264_768  # the file's 13,761,300,984 bytes less its header


def test_a_folder_with_the_published_names_shards_and_config_keys_loads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = toys.mxfp4(n_layers=24, window=128, yarn=Yarn(), rope_theta=150000.0, n_experts=2, d_ff=32)
    model = model_of(small)
    save(model, folder)
    said = json.loads((PUBLISHED / "config.json").read_text())
    sizes = {"head_dim": 6, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 8, "num_key_value_heads": 4,
             "num_local_experts": 2, "vocab_size": 29, "num_experts_per_tok": 2, "experts_per_token": 2}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(said | sizes))
    shutil.copy(PUBLISHED / "generation_config.json", folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = json.loads((PUBLISHED / "model.safetensors.index.json").read_text())["weight_map"]
    for shard in set(where.values()):
        save_file({name: tensor for name, tensor in tensors.items() if where[name] == shard}, folder / shard)
    shutil.copy(PUBLISHED / "model.safetensors.index.json", folder)
    tokens = random_tokens(small)
    assert same(load(folder), model)


# --- config.json -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [*NAMED.values(), *CONFIGS.values()], ids=lambda config: config.name)
def test_a_config_survives_its_own_config_json(config: Config) -> None:
    said = write_config(config, config.stored_experts == "mxfp4", config.stored)
    assert read_config(json.loads(json.dumps(said)), config.name) == config.with_changes(stored="bfloat16")


@pytest.mark.parametrize("layers", ["even", "odd", "all", (0, 1), (2,)])
def test_any_pattern_of_windows_survives(layers: str | tuple[int, ...]) -> None:
    config = toys.gpt_oss(windowed_layers=layers)
    assert read_config(write_config(config, False, "bfloat16"), config.name).windows == config.windows


OSS = write_config(toys.mxfp4(), True, "bfloat16")
QWEN = write_config(toys.qwen3(), False, "bfloat16")
GPT2 = write_config(CONFIGS["gpt2"], False, "float32")


def test_both_spellings_of_keys_mean_the_same() -> None:
    new = dict(OSS)
    new["num_experts"], new["experts_per_token"] = new.pop("num_local_experts"), new.pop("num_experts_per_tok")
    new["rope_parameters"] = new.pop("rope_scaling") | {"rope_theta": new.pop("rope_theta")}
    new["swiglu_alpha"] = 1.702
    assert read_config(new, "toy") == read_config(OSS, "toy")
    old = dict(GPT2)
    for key, spelling in (("n_embd", "hidden_size"), ("n_layer", "num_hidden_layers"), ("n_head", "num_attention_heads"),
                          ("n_positions", "max_position_embeddings")):  # fmt: skip
        old[spelling] = old.pop(key)
    assert read_config(old, "toy") == read_config(GPT2, "toy")


def test_no_rope_scaling_means_yarn_for_gpt_oss_as_in_transformers() -> None:
    def without(*keys: str, **more: object) -> dict[str, Any]:
        return {k: v for k, v in OSS.items() if k not in keys} | more

    assert read_config(without("rope_scaling"), "toy").yarn == Yarn()
    assert read_config(without(rope_scaling=None), "toy").yarn == Yarn()
    assert read_config(without(rope_scaling={"rope_type": "default"}), "toy").yarn is None
    assert read_config(QWEN | {"rope_scaling": None}, "toy").yarn is None
    unrounded = read_config(without(rope_scaling={"type": "yarn", "factor": 4.0}), "toy").yarn
    assert unrounded == Yarn(factor=4.0, original_context=64, rounded=True)  # transformers rounds unless told not to


def test_absent_layer_types_mean_even_layers_and_a_null_window_none() -> None:
    assert read_config({k: v for k, v in OSS.items() if k != "layer_types"}, "toy").windows == (5, None, 5)
    assert read_config(OSS | {"sliding_window": None}, "toy").windows == (None, None, None)


REFUSED = [
    (OSS, {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    (OSS, {"attention_bias": False}, "attention_bias is False"),
    (OSS, {"attention_dropout": 0.1}, "attention_dropout is 0.1"),
    (OSS, {"attn_logit_softcapping": 30.0}, "unknown keys 'attn_logit_softcapping'"),
    (OSS, {"num_experts": 9}, "num_local_experts=7 and num_experts=9 contradict"),
    (OSS, {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_type is 'llama3'"),
    (OSS, {"rope_scaling": OSS["rope_scaling"] | {"attention_factor": 1.0}}, "attention_factor is 1.0"),
    (OSS, {"rope_scaling": OSS["rope_scaling"] | {"mscale": 0.7}}, "'mscale' rescale attention"),
    (OSS, {"rope_scaling": OSS["rope_scaling"] | {"low_freq_factor": 1.0}}, "unknown keys 'low_freq_factor'"),
    (OSS, {"rope_theta": "gone"}, "lacks 'rope_theta'"),
    (OSS, {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    (OSS, {"layer_types": ["full_attention"]}, "expected 3 of"),
    (OSS, {"layer_types": ["chunked_attention"] * 3}, "expected 3 of"),
    (OSS, {"hidden_size": "gone"}, "lacks 'hidden_size'"),
    (OSS, {"hidden_size": "32"}, "hidden_size is '32'; expected a whole number"),
    (OSS, {"hidden_size": True}, "hidden_size is True"),
    (OSS, {"hidden_size": -32}, "hidden_size is -32"),
    (OSS, {"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0"),
    (OSS, {"num_key_value_heads": 3}, "n_heads=8 is no multiple of n_kv_heads=3"),
    (OSS, {"num_experts_per_tok": 8}, "experts_per_token=8; expected 1 to n_experts=7"),
    (OSS, {"quantization_config": {"quant_method": "gptq"}}, "only gpt-oss with quant_method 'mxfp4'"),
    (OSS, {"model_type": "llama"}, "model_type 'llama'; this package reads gpt_oss, qwen3_moe, gpt2"),
    (OSS, {"tie_word_embeddings": 0}, "tie_word_embeddings is 0; expected true or false"),
    (QWEN, {"norm_topk_prob": False}, "norm_topk_prob is False"),
    (QWEN, {"norm_topk_prob": "gone"}, "norm_topk_prob is None"),
    (QWEN, {"mlp_only_layers": [1]}, "mlp_only_layers is"),
    (QWEN, {"decoder_sparse_step": 2}, "decoder_sparse_step is 2"),
    (QWEN, {"use_sliding_window": True}, "use_sliding_window is True"),
    (QWEN, {"attention_bias": True}, "attention_bias is True"),
    (QWEN, {"sinks": True}, "unknown keys 'sinks'"),
    (GPT2, {"activation_function": "gelu"}, "activation_function is 'gelu'"),
    (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    (GPT2, {"add_cross_attention": True}, "add_cross_attention is True"),
    (GPT2, {"attn_pdrop": 0.5}, "contradict each other"),
    (GPT2, {"rope_theta": 10000.0}, "unknown keys 'rope_theta'"),
]


@pytest.mark.parametrize(("said", "change", "message"), REFUSED, ids=[f"{next(iter(c))}" for _, c, _ in REFUSED])
def test_what_our_mathematics_does_not_have_is_refused_by_name(said: dict, change: dict, message: str) -> None:
    changed = {key: value for key, value in (said | change).items() if value != "gone"}
    read_config(said, "toy")
    with pytest.raises(CheckpointError, match=message):
        read_config(changed, "toy")


# --- strictness --------------------------------------------------------------------------------------------------------


STRICT = {
    "missing": (lambda t: t.pop("model.layers.1.self_attn.sinks"), "1 tensors missing: 'model.layers.1.self_attn.sinks'"),
    "extra": (lambda t: t.update({"model.layers.3.mlp.x": torch.ones(2)}), "no place for: 'model.layers.3.mlp.x'"),
    "shape": (lambda t: t.update({"lm_head.weight": torch.ones(32, 29)}), r"is F32 \[32, 29\]; .*BF16.* \[29, 32\]"),
    "dtype": (lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.float64)}), r"is F64 \[32\]"),
    "integers": (lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.uint8)}), r"is U8 \[32\]"),
    "NaN": (lambda t: t["model.norm.weight"][3].fill_(math.nan), "'model.norm.weight' holds NaN or infinity"),
    "scales": (lambda t: t["model.layers.2.mlp.experts.down_proj_scales"][0, 0].fill_(255), "scales up to 255"),
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


# --- arguments and places ----------------------------------------------------------------------------------------------


def test_what_does_not_fit_into_memory_is_refused_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toys.mxfp4()
    save(model_of(config), folder)
    unpacked, packed = load(folder), load(folder, dtype="stored")
    cache = 2 * config.n_layers * config.n_kv_heads * config.d_head * 4
    held = [sum(t.nbytes for t in {**dict(m.named_parameters()), **dict(m.named_buffers())}.values()
                if t is not None) for m in (unpacked, packed)]  # fmt: skip
    rope = sum(block.attention.frequencies.nbytes for block in packed.blocks)
    need, least = (size - rope + cache for size in held)
    load(folder, memory_limit=need)
    load(folder, memory_limit=least, dtype="stored")
    monkeypatch.setattr(Shards, "tensor", lambda *args: pytest.fail("a tensor was read"))
    with pytest.raises(ValueError, match=r"experts .* other weights .* memory_limit .* Dtype='stored' takes"):
        load(folder, memory_limit=need - 1)
    with pytest.raises(ValueError, match="the least, .* choose a smaller model"):
        load(folder, memory_limit=least - 1, dtype="stored")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"kernels": "fast"}, "exact kernels only"),
        ({"dtype": torch.float16}, "expected None, 'stored'"),
        ({"dtype": "float32"}, "expected None, 'stored'"),
        ({"device": "tpu"}, "expected 'cpu', 'cuda'"),
        ({"device": "cuda:99"}, "cuda"),
        ({"memory_limit": 0}, "expected bytes"),
        ({"memory_limit": "8GB"}, "expected bytes"),
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


def test_names_are_looked_up_in_the_home_and_in_the_hub_s_cache(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
