"""The keys of config.json: which mean a field of ours, which must have one value, which change nothing.

A key that is in none of these tables is refused by name, because it might change the mathematics. Sources:
the published config.json files, and the configuration classes of transformers 4.55 and 5.
"""

from __future__ import annotations

from typing import Any

MODEL_TYPES = {"gpt-oss": "gpt_oss", "qwen3-moe": "qwen3_moe", "gpt2": "gpt2"}
CLASSES = {"gpt-oss": "GptOssForCausalLM", "qwen3-moe": "Qwen3MoeForCausalLM", "gpt2": "GPT2LMHeadModel"}
SAID: Any = object()  # in place of a default: the key must be there

# field → (its spellings, the first written; what it is where the key is absent)
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
    "vocab_used": (("vocab_used",), None),  # this one and the next are our own
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
        "dropout": (("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.1),  # three sites, which must agree
        "tied": (("tie_word_embeddings",), True),
        "vocab_used": (("vocab_used",), None),
    },
}  # fmt: skip
ONLY_IF_SET = {"vocab_used", "dropout", "swiglu_alpha"}  # not written at their defaults

# key → the values it may have; the first is meant where it is absent, and is written
FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt-oss": {"attention_bias": (True,), "hidden_act": ("silu",), "attention_dropout": (0.0,)},
    "qwen3-moe": {
        "attention_bias": (False,), "hidden_act": ("silu",), "attention_dropout": (0.0,),
        "decoder_sparse_step": (1,), "mlp_only_layers": ([], None), "use_sliding_window": (False,),
        "norm_topk_prob": (True,),
    },
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,),
    },
}  # fmt: skip
FIXED_ANYWHERE: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,), "pruned_heads": ({}, None), "partial_rotary_factor": (1.0, None),
    "chunk_size_feed_forward": (0,), "cross_attention_hidden_size": (None,),
}  # fmt: skip
MUST_BE_SAID = ("norm_topk_prob",)  # absent, it means false

HARMLESS = frozenset(
    """architectures transformers_version model_type torch_dtype dtype use_cache bos_token_id eos_token_id
    pad_token_id sep_token_id decoder_start_token_id tokenizer_class prefix initializer_range
    output_attentions output_hidden_states output_router_logits router_aux_loss_coef return_dict
    return_dict_in_generate _name_or_path name_or_path task_specific_params id2label label2id num_labels
    problem_type finetuning_task is_decoder torchscript use_bfloat16 tf_legacy_loss gradient_checkpointing
    attn_implementation _attn_implementation_autoset keys_to_ignore_at_inference""".split()
)
HARMLESS_IN = {
    "gpt-oss": {"initial_context_length"},  # the length before YaRN, which YaRN's own numbers give
    "qwen3-moe": {"intermediate_size", "max_window_layers", "sliding_window"},  # of layers it does not have
    "gpt2": set(  # the context again, older exports, a matter of float16, heads and tokens for other tasks
        """n_ctx output_past reorder_and_upcast_attn summary_type summary_use_proj summary_activation
        summary_proj_to_labels summary_first_dropout n_special predict_special_tokens""".split()
    ),
}
ROPE = {"rope_theta", "rope_scaling", "rope_parameters"}
ELSEWHERE = {  # read by functions of their own
    "gpt-oss": ROPE | {"layer_types", "sliding_window", "quantization_config"},
    "qwen3-moe": ROPE | {"quantization_config"},
    "gpt2": {"quantization_config"},
}
NATURE: dict[str, dict[str, Any]] = {  # what a family is, whatever its config.json says
    "gpt-oss": {"sinks": True},
    "qwen3-moe": {"qk_norm": True, "bias": False, "activation": "swiglu"},
    "gpt2": {"norm": "layer", "positions": "learned", "activation": "gelu"},
}

# OpenAI's own config.json for gpt-oss, key → field. Three things it does not say: RMSNorm's eps is 1e-5, even
# layers have the window (both are Config's defaults), and experts are packed.
ORIGINAL = {
    "num_hidden_layers": "n_layers",
    "num_experts": "n_experts",
    "experts_per_token": "experts_per_token",
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "swiglu_limit": "swiglu_limit",
    "head_dim": "d_head",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "sliding_window": "window",
    "rope_theta": "rope_theta",
}
