"""Toy checkpoints: models that a file can hold exactly, and ways to change a saved one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import toys
from safetensors.torch import load_file, save_file
from torch import Tensor
from toys import random_model, random_tokens, run

from gptoss_lab.config import Config
from gptoss_lab.model import Transformer
from gptoss_lab.weights import PackedStack, round_to_mxfp4

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
            packed = config.stored_experts == "mxfp4" and name.endswith(
                ("gate_up.weight", "experts.down.weight")
            )
            weight.copy_(round_to_mxfp4(weight) if packed else weight.bfloat16())
    return model


def same(ours: Transformer, other: Transformer) -> bool:
    """Whether two models have the same weights, to the last bit, and so the same logits (but for the order of
    sums: a transposed view is multiplied in another order than a copy)."""
    tokens = random_tokens(ours.config)
    bits = all(torch.equal(value, values(other)[name]) for name, value in values(ours).items())
    return bits and bool((run(ours, tokens) - run(other, tokens)).abs().max() < 1e-5)


def values(model: Transformer) -> dict[str, Tensor]:
    """Every weight as float32, packed ones unpacked."""
    found = {
        name: tensor.float() for name, tensor in model.state_dict().items() if tensor.dtype != torch.uint8
    }
    for name, part in model.named_modules():
        if isinstance(part, PackedStack):
            found[f"{name}.weight"] = part.matrix(torch.arange(part.shape[0]))
    return found


def rewrite(
    folder: Path, change: Callable[[dict[str, Tensor]], Any], say: dict[str, Any] | None = None
) -> None:
    """Change a saved checkpoint's tensors in place, and set keys of its config.json (None removes one)."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    said = json.loads((folder / "config.json").read_text()) | (say or {})
    (folder / "config.json").write_text(json.dumps({k: v for k, v in said.items() if v != "gone"}))


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
        "num_hidden_layers": config.n_layers,
        "num_experts": config.n_experts,
        "experts_per_token": config.experts_per_token,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "swiglu_limit": 7.0,
        "head_dim": config.d_head,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "sliding_window": config.window,
        "initial_context_length": config.yarn.original_context,
        "rope_theta": config.rope_theta,
        "rope_scaling_factor": config.yarn.factor,
        "rope_ntk_alpha": config.yarn.beta_slow,
        "rope_ntk_beta": config.yarn.beta_fast,
    }
    (folder / "config.json").write_text(json.dumps(own_config))
