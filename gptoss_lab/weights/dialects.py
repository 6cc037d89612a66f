"""config.json ↔ Config: the keys of each family, read in every spelling in use and written in the published one.

Nothing is skipped in silence: a key is a field of ours (SPELLINGS), or must have the value that our mathematics has
(FIXED), or is known to change nothing (HARMLESS), or is refused by name. Sources: the published config.json files, and the
configuration classes of transformers 4.55 and 5, whose defaults for absent keys are followed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..config import NAMED, Config, Yarn
from .reader import CheckpointError, listed, shown

SAID: Any = object()  # in place of a default: the key must be there

# field → (its spellings, the first written; what an absent key means)
COMMON = {
    "n_layers": (("num_hidden_layers",), SAID),
    "d_model": (("hidden_size",), SAID),
    "n_heads": (("num_attention_heads",), SAID),
    "n_kv_heads": (("num_key_value_heads",), SAID),
    "d_head": (("head_dim",), SAID),
    "vocab_size": (("vocab_size",), SAID),
    "context": (("max_position_embeddings",), SAID),
    "norm_eps": (("rms_norm_eps",), SAID),
    "n_experts": (("num_local_experts", "num_experts"), SAID),
    "experts_per_token": (("num_experts_per_tok", "experts_per_token"), SAID),
    "tied": (("tie_word_embeddings",), False),
    "vocab_used": (("vocab_used",), None),
    "dropout": (("dropout",), 0.0),
}
SPELLINGS: dict[str, dict[str, tuple[tuple[str, ...], Any]]] = {
    "gpt-oss": COMMON | {
        "d_ff": (("intermediate_size",), SAID),
        "swiglu_limit": (("swiglu_limit",), 7.0),
        "swiglu_alpha": (("swiglu_alpha",), 1.702),
    },
    "qwen3-moe": COMMON | {
        "d_ff": (("moe_intermediate_size",), SAID),
        "n_experts": (("num_experts", "num_local_experts"), SAID),
        "d_head": (("head_dim",), None),
    },
    "gpt2": {
        "n_layers": (("n_layer", "num_hidden_layers"), SAID),
        "d_model": (("n_embd", "hidden_size"), SAID),
        "n_heads": (("n_head", "num_attention_heads"), SAID),
        "d_ff": (("n_inner",), None),
        "vocab_size": (("vocab_size",), SAID),
        "context": (("n_positions", "max_position_embeddings"), SAID),
        "norm_eps": (("layer_norm_epsilon",), 1e-5),
        "dropout": (("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.1),
        "tied": (("tie_word_embeddings",), True),
        "vocab_used": (("vocab_used",), None),
    },
}  # fmt: skip
ALL_WRITTEN = {("gpt2", "dropout")}  # where the spellings are three keys that must agree, not three names of one
ONLY_IF_SET = {"vocab_used", "dropout", "swiglu_alpha"}  # unless written in a key of the family's own

# key → the values it may have, the first for an absent key; the first is also what is written
FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt-oss": {"attention_bias": (True,), "hidden_act": ("silu",), "attention_dropout": (0.0,)},
    "qwen3-moe": {
        "attention_bias": (False,), "hidden_act": ("silu",), "attention_dropout": (0.0,), "decoder_sparse_step": (1,),
        "mlp_only_layers": ([], None), "use_sliding_window": (False,), "norm_topk_prob": (True,),
    },
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,),
    },
}  # fmt: skip
MUST_BE_SAID = ("norm_topk_prob",)  # absent it means false
FIXED_ANYWHERE: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,), "pruned_heads": ({}, None), "partial_rotary_factor": (1.0, None),
    "chunk_size_feed_forward": (0,), "cross_attention_hidden_size": (None,),
}  # fmt: skip
HARMLESS = frozenset(
    "architectures transformers_version model_type torch_dtype dtype use_cache bos_token_id eos_token_id pad_token_id "
    "sep_token_id decoder_start_token_id tokenizer_class prefix initializer_range output_attentions output_hidden_states "
    "output_router_logits router_aux_loss_coef return_dict return_dict_in_generate _name_or_path name_or_path "
    "task_specific_params id2label label2id num_labels problem_type finetuning_task is_decoder torchscript use_bfloat16 "
    "tf_legacy_loss gradient_checkpointing attn_implementation _attn_implementation_autoset keys_to_ignore_at_inference".split()
)
HARMLESS_IN = {
    "gpt-oss": {"initial_context_length"},  # the length before YaRN, which YaRN's own numbers give
    "qwen3-moe": {"intermediate_size", "max_window_layers", "sliding_window"},  # of dense and banded layers, of which there are none
    "gpt2": {"n_ctx", "output_past", "reorder_and_upcast_attn", "summary_type", "summary_use_proj", "summary_activation",
             "summary_proj_to_labels", "summary_first_dropout"},  # the context again; a matter of float16; heads for other tasks
}  # fmt: skip
ELSEWHERE = {  # read by a function of its own
    "gpt-oss": {"rope_theta", "rope_scaling", "rope_parameters", "layer_types", "sliding_window", "quantization_config"},
    "qwen3-moe": {"rope_theta", "rope_scaling", "rope_parameters", "quantization_config"},
    "gpt2": {"quantization_config"},
}
NATURE: dict[str, dict[str, Any]] = {  # what a family is, whatever its config.json says
    "gpt-oss": {"sinks": True},
    "qwen3-moe": {"qk_norm": True, "bias": False, "activation": "swiglu"},
    "gpt2": {"norm": "layer", "positions": "learned", "activation": "gelu"},
}
MODEL_TYPES = {"gpt-oss": "gpt_oss", "qwen3-moe": "qwen3_moe", "gpt2": "gpt2"}
CLASSES = {"gpt-oss": "GptOssForCausalLM", "qwen3-moe": "Qwen3MoeForCausalLM", "gpt2": "GPT2LMHeadModel"}
ORIGINAL_KEYS = {  # OpenAI's own file; it implies RMSNorm's eps 1e-5 and that even layers have the window
    "num_hidden_layers": "n_layers", "num_experts": "n_experts", "experts_per_token": "experts_per_token",
    "vocab_size": "vocab_size", "hidden_size": "d_model", "intermediate_size": "d_ff", "swiglu_limit": "swiglu_limit",
    "head_dim": "d_head", "num_attention_heads": "n_heads", "num_key_value_heads": "n_kv_heads",
    "sliding_window": "window", "rope_theta": "rope_theta",
}  # fmt: skip
ORIGINAL_ROPE = ("initial_context_length", "rope_scaling_factor", "rope_ntk_alpha", "rope_ntk_beta")


def is_original(found: Mapping[str, Any]) -> bool:
    """Whether this config.json is OpenAI's own, which names no model_type."""
    return "model_type" not in found and {"rope_ntk_alpha", "rope_ntk_beta"} <= found.keys()


def read_config(
    found: Mapping[str, Any], name: str, generation: Mapping[str, Any] | None = None, where: str = "config.json"
) -> Config:
    """The Config that a config.json says; `generation`: generation_config.json, for the ids that stop.

    `stored` is left at its default: it is a matter of the tensors. CheckpointError names the key that is missing, unknown,
    or has a value that cannot be.
    """
    try:
        values = read_original(found) if is_original(found) else read_family(found)
        stops = (generation or {}).get("eos_token_id")
        stops = found.get("eos_token_id") if stops is None else stops
        return Config(name=name, **values | vocabulary(values, stops, is_original(found)))
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def read_original(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that OpenAI's own config.json gives and implies."""
    refuse_unknown(found, {*ORIGINAL_KEYS, *ORIGINAL_ROPE})
    if lacking := [key for key in (*ORIGINAL_KEYS, *ORIGINAL_ROPE) if key not in found]:
        raise ValueError(f"lacks {listed(lacking)}")
    values = {field: number(key, found[key], field) for key, field in ORIGINAL_KEYS.items()}
    length, factor, slow, fast = (number(key, found[key], "rope") for key in ORIGINAL_ROPE)
    yarn = Yarn(float(factor), whole("initial_context_length", length), float(fast), float(slow)) if factor > 1 else None
    return values | NATURE["gpt-oss"] | {
        "family": "gpt-oss", "context": int(length * factor), "yarn": yarn, "stored_experts": "mxfp4"
    }  # fmt: skip


def read_family(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a config.json of the Hugging Face layout gives."""
    model_type = found.get("model_type")
    family = next((family for family, known in MODEL_TYPES.items() if known == model_type), None)
    if family is None:
        raise ValueError(f"model_type {shown(model_type)}; this package reads {', '.join(MODEL_TYPES.values())}")
    spelled = {key for keys, _ in SPELLINGS[family].values() for key in keys}
    refuse_unknown(found, {*spelled, *FIXED[family], *FIXED_ANYWHERE, *HARMLESS, *HARMLESS_IN[family], *ELSEWHERE[family]})
    for key, allowed in (FIXED[family] | FIXED_ANYWHERE).items():
        value = found.get(key, None if key in MUST_BE_SAID else allowed[0])
        if not any(value == one and (type(value) is bool) == (type(one) is bool) for one in allowed):
            raise ValueError(f"{key} is {shown(value)}; this model's mathematics has {allowed[0]!r}")
    values: dict[str, Any] = {"family": family} | NATURE[family]
    for field, (keys, default) in SPELLINGS[family].items():
        values[field] = spelling(found, field, keys, default)
    heads, width = values["n_heads"], values["d_model"]
    if values.get("d_head") is None:  # GPT-2 has no key for it, transformers' Qwen3-MoE need not say it
        if width % heads:
            raise ValueError(f"a width of {width} is no multiple of {heads} heads")
        values["d_head"] = width // heads
    if family == "gpt2":
        values |= {"n_kv_heads": heads, "d_ff": values["d_ff"] or 4 * width}
    else:
        values |= read_rope(found, family, values["context"])
    if family == "gpt-oss":
        values |= read_windows(found, values["n_layers"])
    return values | read_quantization(found, family)


def refuse_unknown(found: Mapping[str, Any], known: set[str]) -> None:
    """ValueError for keys that nobody here knows: they might change the mathematics."""
    if unknown := [key for key in found if key not in known]:
        raise ValueError(f"unknown keys {listed(unknown)}: they may change the mathematics, so this model is not loaded. "
                         "If they do not, remove them.")  # fmt: skip


def spelling(found: Mapping[str, Any], field: str, keys: tuple[str, ...], default: Any) -> Any:
    """The value of a field under whichever of its spellings is there; all that are must agree."""
    said = {key: found[key] for key in keys if key in found}
    if not said:
        if default is SAID:
            raise ValueError(f"lacks {keys[0]!r}" + (f" (or {keys[1]!r})" if len(keys) > 1 else ""))
        return default
    key, value = next(iter(said.items()))
    if any(other != value for other in said.values()):
        raise ValueError(" and ".join(f"{key}={shown(value)}" for key, value in said.items()) + " contradict each other")
    if value is None and default is None:
        return None
    return number(key, value, field)


def number(key: str, value: Any, field: str) -> Any:
    """A value of the kind that `field` has: true or false, a finite fraction above zero, or a whole number above zero."""
    if field == "tied":
        if not isinstance(value, bool):
            raise ValueError(f"{key} is {shown(value)}; expected true or false")
        return value
    if field in ("norm_eps", "swiglu_limit", "swiglu_alpha", "dropout", "rope_theta", "rope"):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{key} is {shown(value)}; expected a number")
        if value < 0 or value == 0 and field != "dropout":
            raise ValueError(f"{key} is {value}; expected a number above 0")
        return float(value)
    return whole(key, value)


def whole(key: str, value: Any) -> int:
    """A whole number above zero (2.0 passes for 2)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or not 0 < value < 2**40:
        raise ValueError(f"{key} is {shown(value)}; expected a whole number above 0")
    return int(value)


def read_rope(found: Mapping[str, Any], family: str, context: int) -> dict[str, Any]:
    """θ and YaRN, from `rope_parameters` (new) or `rope_theta` and `rope_scaling` (old).

    As transformers has it: for gpt-oss no scaling at all means YaRN × 32 from 4096; {"rope_type": "default"} switches it off.
    """
    for key in ("rope_scaling", "rope_parameters"):
        if not isinstance(found.get(key), dict | None):
            raise ValueError(f"{key} is {shown(found[key])}; expected an object or null")
    if found.get("rope_scaling") and found.get("rope_parameters"):
        raise ValueError("both rope_scaling and rope_parameters are there; keep one")
    scaling = found.get("rope_scaling") or found.get("rope_parameters")
    said = dict(scaling or {})
    theta = said.pop("rope_theta", found.get("rope_theta"))
    if theta is None:
        raise ValueError("lacks 'rope_theta'")
    if "rope_theta" in found and found["rope_theta"] not in (None, theta):
        raise ValueError(f"rope_theta is {shown(found['rope_theta'])} and {shown(theta)}")
    if scaling is None:
        return {"rope_theta": number("rope_theta", theta, "rope"), "yarn": Yarn() if family == "gpt-oss" else None}
    return {"rope_theta": number("rope_theta", theta, "rope"), "yarn": read_yarn(said, context)}


def read_yarn(said: dict[str, Any], context: int) -> Yarn | None:
    """YaRN's numbers, or None for plain RoPE."""
    kinds = {said.pop(key) for key in ("rope_type", "type") if isinstance(said.get(key), str)} or {"default"}
    if said.pop("partial_rotary_factor", 1.0) not in (1.0, None):
        raise ValueError("partial_rotary_factor is not 1: turning part of a head is not supported")
    if kinds == {"default"}:
        refuse_unknown(said, set())
        return None
    if kinds != {"yarn"}:
        raise ValueError(f"rope_type is {listed(sorted(kinds))}; expected 'yarn' or 'default'")
    refuse_unknown(said, {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "truncate",
                          "attention_factor", "mscale", "mscale_all_dim"})  # fmt: skip
    factor = number("factor", said.get("factor"), "rope")
    expected = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    given = said.get("attention_factor")
    if given is not None and not math.isclose(number("attention_factor", given, "rope"), expected, rel_tol=1e-6):
        raise ValueError(f"attention_factor is {given}; YaRN × {factor:g} has {expected:.6f}, and no other is supported")
    if scaled := [key for key in ("mscale", "mscale_all_dim") if said.get(key) is not None]:
        raise ValueError(f"{listed(scaled)} rescale attention, which is not supported")
    rounded = said.get("truncate", True)
    if not isinstance(rounded, bool):
        raise ValueError(f"truncate is {shown(rounded)}; expected true or false")
    return Yarn(
        factor=factor,
        original_context=whole("original_max_position_embeddings", said.get("original_max_position_embeddings", context)),
        beta_fast=number("beta_fast", said.get("beta_fast") or 32.0, "rope"),
        beta_slow=number("beta_slow", said.get("beta_slow") or 1.0, "rope"),
        rounded=rounded,
    )


def read_windows(found: Mapping[str, Any], n_layers: int) -> dict[str, Any]:
    """The window and the layers that have it; absent layer_types mean even layers, a window of null means none."""
    types, window = found.get("layer_types"), found.get("sliding_window", 128)
    if window is None:
        return {"window": None}
    if types is None:
        return {"window": whole("sliding_window", window), "windowed_layers": "even"}
    known = ("sliding_attention", "full_attention")
    if not isinstance(types, list) or len(types) != n_layers or any(kind not in known for kind in types):
        raise ValueError(f"layer_types is {shown(types)}; expected {n_layers} of {known}")
    banded = tuple(n for n, kind in enumerate(types) if kind == known[0])
    for word, layers in (("even", range(0, n_layers, 2)), ("all", range(n_layers)), ("odd", range(1, n_layers, 2))):
        if banded and banded == tuple(layers):
            return {"window": whole("sliding_window", window), "windowed_layers": word}
    return {"window": whole("sliding_window", window), "windowed_layers": banded} if banded else {"window": None}


def read_quantization(found: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Whether the experts are packed; MXFP4 in gpt-oss is the one quantization there is."""
    said = found.get("quantization_config")
    if said is None:
        return {}
    if not isinstance(said, dict) or said.get("quant_method") != "mxfp4" or family != "gpt-oss":
        raise ValueError(f"quantization_config is {shown(said)}; only gpt-oss with quant_method 'mxfp4' is read")
    refuse_unknown(said, {"quant_method", "modules_to_not_convert", "dequantize"})
    return {"stored_experts": "mxfp4"}


def vocabulary(values: Mapping[str, Any], stops: Any, implied: bool) -> dict[str, Any]:
    """The ids that stop a text, as far as the vocabulary reaches, and those that stand for nothing.

    Files of the published vocabularies name only some of them, or (`implied`) none; NAMED knows them all.
    """
    stops = stops if isinstance(stops, list) else [] if stops is None else [stops]
    if any(type(one) is not int for one in stops):
        raise ValueError(f"eos_token_id is {shown(stops)}; expected whole numbers")
    for known in NAMED.values():
        if (known.family, known.vocab_size) == (values["family"], values["vocab_size"]):
            if implied or stops and set(stops) <= set(known.stop_ids):
                stops = list(known.stop_ids)
            if values.get("vocab_used") is None:
                return {"stop_ids": tuple(stops), "vocab_used": known.vocab_used}
            break
    return {"stop_ids": tuple(one for one in stops if 0 <= one < values["vocab_size"])}


def write_config(config: Config, packed: bool, dtype: str) -> dict[str, Any]:
    """The config.json of a Config, in the Hugging Face layout; dtype: "float32" or "bfloat16".

    ValueError where the family's config.json has no words for this config, naming the fields.
    """
    family = config.family
    said: dict[str, Any] = {"architectures": [CLASSES[family]], "model_type": MODEL_TYPES[family], "dtype": dtype}
    for field, (keys, default) in SPELLINGS[family].items():
        value = getattr(config, field)
        if field in ONLY_IF_SET and value == default and (family, field) not in ALL_WRITTEN:
            continue
        said |= {key: value for key in (keys if (family, field) in ALL_WRITTEN else keys[:1])}
    said |= {key: allowed[0] for key, allowed in FIXED[family].items()}
    if family != "gpt2":
        yarn = config.yarn
        said["rope_theta"] = config.rope_theta
        said["rope_scaling"] = {"rope_type": "default"} if yarn is None else {
            "rope_type": "yarn", "factor": yarn.factor, "original_max_position_embeddings": yarn.original_context,
            "beta_fast": yarn.beta_fast, "beta_slow": yarn.beta_slow, "truncate": yarn.rounded,
        }  # fmt: skip
    if family == "gpt-oss":
        said["sliding_window"] = config.window
        said["layer_types"] = ["full_attention" if window is None else "sliding_attention" for window in config.windows]
    if packed:
        kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
        said["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": kept}
    stops = list(config.stop_ids)
    said |= {"eos_token_id": stops[0] if len(stops) == 1 else stops or None, "bos_token_id": None}
    try:
        back = read_config(said, config.name)
    except CheckpointError as error:
        raise ValueError(f"a {MODEL_TYPES[family]} config.json cannot say this model: {error}") from error
    aside = ("windowed_layers", "window", "stored", "stored_experts")
    lost = [f.name for f in fields(Config) if f.name not in aside and getattr(back, f.name) != getattr(config, f.name)]
    lost += ["windows"] if back.windows != config.windows else []
    if lost:
        raise ValueError(f"a {MODEL_TYPES[family]} config.json cannot say this model's {', '.join(lost)} "
                         f"({', '.join(f'{f}={getattr(config, f)!r}' for f in lost)})")  # fmt: skip
    return said
