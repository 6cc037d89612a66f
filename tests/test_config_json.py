"""config.json: both spellings, what absent keys mean, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toys
from toy_checkpoints import CONFIGS
from toys import one_thread, random_model, random_tokens, run  # noqa: F401

from gptoss_lab.config import NAMED, Config, Yarn
from gptoss_lab.weights import CheckpointError
from gptoss_lab.weights.dialects import read_config
from gptoss_lab.weights.saving import write_config

PUBLISHED = Path(__file__).parent / "data" / "published"


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
    new["num_experts"] = new.pop("num_local_experts")
    new["experts_per_token"] = new.pop("num_experts_per_tok")
    new["rope_parameters"] = new.pop("rope_scaling") | {"rope_theta": new.pop("rope_theta")}
    new["swiglu_alpha"] = 1.702
    assert read_config(new, "toy") == read_config(OSS, "toy")
    old = dict(GPT2)
    old["hidden_size"], old["num_hidden_layers"] = old.pop("n_embd"), old.pop("n_layer")
    old["num_attention_heads"], old["max_position_embeddings"] = old.pop("n_head"), old.pop("n_positions")
    assert read_config(old, "toy") == read_config(GPT2, "toy")


def test_what_older_gpt2_files_say_besides_changes_nothing() -> None:
    """GPT-2's published files differ in these from one size to the next."""
    extra = {"n_ctx": 1024, "n_special": 0, "predict_special_tokens": True, "output_past": True,
             "summary_type": "cls_index", "summary_first_dropout": 0.1}  # fmt: skip
    assert read_config(GPT2 | extra, "toy") == read_config(GPT2, "toy")
    with pytest.raises(CheckpointError, match="n_specials"):
        read_config(GPT2 | {"n_specials": 0}, "toy")


def test_no_rope_scaling_means_yarn_for_gpt_oss_as_in_transformers() -> None:
    def without(*keys: str, **more: object) -> dict[str, Any]:
        return {k: v for k, v in OSS.items() if k not in keys} | more

    assert read_config(without("rope_scaling"), "toy").yarn == Yarn()
    assert read_config(without(rope_scaling=None), "toy").yarn == Yarn()
    assert read_config(without(rope_scaling={"rope_type": "default"}), "toy").yarn is None
    assert read_config(QWEN | {"rope_scaling": None}, "toy").yarn is None
    rounded = read_config(without(rope_scaling={"type": "yarn", "factor": 4.0}), "toy").yarn
    length = OSS["max_position_embeddings"]
    assert rounded == Yarn(factor=4.0, original_context=length, rounded=True)  # rounded unless told not to


def test_transformers_takes_absent_rope_scaling_for_the_same_yarn() -> None:
    from transformers import GptOssConfig

    bare = {key: value for key, value in OSS.items() if not key.startswith("rope_")}
    for said in ({}, {"rope_scaling": None}, {"rope_parameters": None}):
        theirs = GptOssConfig.from_dict(said | {"rope_theta": 150000.0}).rope_parameters
        assert read_config(bare | {"rope_parameters": theirs}, "toy").yarn == Yarn()
        assert read_config(bare | said | {"rope_theta": 150000.0}, "toy").yarn == Yarn()


@pytest.mark.parametrize("key", ["rope_scaling_factor", "rope_ntk_beta"])
def test_openai_s_own_config_is_bounded_too(key: str) -> None:
    own = json.loads((PUBLISHED / "original/config.json").read_text())
    read_config(own, "toy")
    with pytest.raises(CheckpointError, match="no model stretches so far"):
        read_config(own | {key: 1e308}, "toy")
    with pytest.raises(CheckpointError, match="unknown keys 'bias'"):
        read_config(own | {"bias": True}, "toy")
    del own[key]
    with pytest.raises(CheckpointError, match=f"lacks '{key}'" if key != "rope_ntk_beta" else "model_type"):
        read_config(own, "toy")


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
    (OSS, {"rope_theta": 1}, "rope_theta is 1; expected above 1"),
    (OSS, {"rope_scaling": OSS["rope_scaling"] | {"beta_fast": 1e308}}, "no model stretches so far"),
    (OSS, {"rope_scaling": OSS["rope_scaling"] | {"beta_slow": 1e-300}}, "no model stretches so far"),
    (OSS, {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    (OSS, {"layer_types": ["full_attention"]}, "expected 3 times"),
    (OSS, {"layer_types": ["chunked_attention"] * 3}, "expected 3 times"),
    (OSS, {"hidden_size": "gone"}, "lacks 'hidden_size'"),
    (OSS, {"hidden_size": "32"}, "hidden_size is '32'; expected a whole number"),
    (OSS, {"hidden_size": True}, "hidden_size is True"),
    (OSS, {"hidden_size": -32}, "hidden_size is -32"),
    (OSS, {"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0"),
    (OSS, {"num_key_value_heads": 3}, "n_heads=8 is no multiple of n_kv_heads=3"),
    (OSS, {"num_experts_per_tok": 8}, "experts_per_token=8; expected 1 to n_experts=7"),
    (OSS, {"quantization_config": {"quant_method": "gptq"}}, "only gpt-oss with 'mxfp4'"),
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


@pytest.mark.parametrize(
    ("said", "change", "message"), REFUSED, ids=[f"{next(iter(c))}" for _, c, _ in REFUSED]
)
def test_what_our_mathematics_does_not_have_is_refused_by_name(
    said: dict, change: dict, message: str
) -> None:
    changed = {key: value for key, value in (said | change).items() if value != "gone"}
    read_config(said, "toy")
    with pytest.raises(CheckpointError, match=message):
        read_config(changed, "toy")
