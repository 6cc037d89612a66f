"""Others' implementations, given our weights, and what they show of themselves under our names and axes.

`transformers` (GptOss, GPT2, Qwen3Moe) shows nearly every point: through hooks on its modules, and by
listening where attention and the experts' activation are called. OpenAI's own `gpt-oss` package shows the
residual and what is near it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gptoss_lab.config import Config, Yarn
from gptoss_lab.model import Transformer

Shown = dict[str, Tensor]

# ---- our weights under their names


def as_transformers(model: Transformer) -> Shown:
    """The weights as transformers holds them in memory; gpt-oss's experts are transposed there."""
    w, config = dict(model.named_parameters()), model.config
    if config.family == "gpt2":
        return as_gpt2(w, config)
    theirs = {
        "model.embed_tokens.weight": w["token_embedding"],
        "model.norm.weight": w["norm.scale"],
        "lm_head.weight": w["unembed.weight"],
    }
    for n in range(config.n_layers):
        there, a, e = f"model.layers.{n}.", f"blocks.{n}.attention.", f"blocks.{n}.experts."
        theirs[there + "input_layernorm.weight"] = w[a + "norm.scale"]
        theirs[there + "post_attention_layernorm.weight"] = w[e + "norm.scale"]
        for name in ("q", "k", "v", "o"):
            theirs[f"{there}self_attn.{name}_proj.weight"] = w[f"{a}{name}.weight"]
            if config.bias:
                theirs[f"{there}self_attn.{name}_proj.bias"] = w[f"{a}{name}.bias"]
        gate_up, down, experts = w[e + "gate_up.weight"], w[e + "down.weight"], there + "mlp.experts."
        if config.family == "gpt-oss":
            theirs[there + "self_attn.sinks"] = w[a + "sinks"]
            theirs[there + "mlp.router.weight"] = w[e + "router.weight"]
            theirs[there + "mlp.router.bias"] = w[e + "router.bias"]
            theirs[experts + "gate_up_proj"] = gate_up.transpose(1, 2)  # E D 2F: gates and ups alternate
            theirs[experts + "gate_up_proj_bias"] = w[e + "gate_up.bias"]
            theirs[experts + "down_proj"] = down.transpose(1, 2)  # E F D
            theirs[experts + "down_proj_bias"] = w[e + "down.bias"]
        else:
            theirs[there + "self_attn.q_norm.weight"] = w[a + "q_norm.scale"]
            theirs[there + "self_attn.k_norm.weight"] = w[a + "k_norm.scale"]
            theirs[there + "mlp.gate.weight"] = w[e + "router.weight"]
            theirs[experts + "gate_up_proj"] = torch.cat(
                (gate_up[:, ::2], gate_up[:, 1::2]), 1
            )  # gates, then ups
            theirs[experts + "down_proj"] = down
    return theirs


def as_gpt2(w: Shown, config: Config) -> Shown:
    """GPT-2's names; its matrices are stored transposed, and q, k, v side by side."""
    theirs = {
        "transformer.wte.weight": w["token_embedding"],
        "transformer.wpe.weight": w["position_embedding"],
        "transformer.ln_f.weight": w["norm.scale"],
        "transformer.ln_f.bias": w["norm.bias"],
        "lm_head.weight": w["token_embedding"],
    }
    for n in range(config.n_layers):
        there, a, m = f"transformer.h.{n}.", f"blocks.{n}.attention.", f"blocks.{n}.mlp."
        for norm, ours in (("ln_1", a), ("ln_2", m)):
            theirs[f"{there}{norm}.weight"] = w[ours + "norm.scale"]
            theirs[f"{there}{norm}.bias"] = w[ours + "norm.bias"]
        theirs[there + "attn.c_attn.weight"] = torch.cat([w[f"{a}{x}.weight"] for x in "qkv"]).T
        theirs[there + "attn.c_attn.bias"] = torch.cat([w[f"{a}{x}.bias"] for x in "qkv"])
        for name, ours in (("attn.c_proj", a + "o"), ("mlp.c_fc", m + "up"), ("mlp.c_proj", m + "down")):
            theirs[f"{there}{name}.weight"] = w[ours + ".weight"].T
            theirs[f"{there}{name}.bias"] = w[ours + ".bias"]
    return theirs


def as_openai(model: Transformer) -> Shown:
    """The weights as OpenAI's package holds them: q, k, v in one matrix, experts as ours."""
    w = dict(model.named_parameters())
    theirs = {
        "embedding.weight": w["token_embedding"],
        "norm.scale": w["norm.scale"],
        "unembedding.weight": w["unembed.weight"],
    }
    for n in range(model.config.n_layers):
        there, a, e = f"block.{n}.", f"blocks.{n}.attention.", f"blocks.{n}.experts."
        theirs[there + "attn.norm.scale"] = w[a + "norm.scale"]
        theirs[there + "mlp.norm.scale"] = w[e + "norm.scale"]
        theirs[there + "attn.sinks"] = w[a + "sinks"]
        for kind in ("weight", "bias"):
            theirs[f"{there}attn.qkv.{kind}"] = torch.cat([w[f"{a}{x}.{kind}"] for x in "qkv"])
            theirs[f"{there}attn.out.{kind}"] = w[f"{a}o.{kind}"]
            theirs[f"{there}mlp.gate.{kind}"] = w[f"{e}router.{kind}"]
            theirs[f"{there}mlp.mlp1_{kind}"] = w[f"{e}gate_up.{kind}"]
            theirs[f"{there}mlp.mlp2_{kind}"] = w[f"{e}down.{kind}"]
    return theirs


def fill(reference: nn.Module, weights: Shown) -> nn.Module:
    """The reference with our weights, strictly both ways, in float32 (OpenAI's is made in bfloat16)."""
    reference.float().load_state_dict({name: weight.clone() for name, weight in weights.items()}, strict=True)
    return reference.eval().requires_grad_(False)


# ---- the references


def transformers_model(model: Transformer) -> nn.Module:
    """transformers' model of the same config, with our weights, in its explicit forms."""
    import transformers

    config = model.config
    shared: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "attn_implementation": "eager",
    }
    if config.family == "gpt2":
        gpt2 = transformers.GPT2Config(
            n_positions=config.context,
            n_embd=config.d_model,
            n_layer=config.n_layers,
            n_head=config.n_heads,
            n_inner=config.d_ff,
            layer_norm_epsilon=config.norm_eps,
            activation_function="gelu_new",
            **shared,
        )
        return fill(transformers.GPT2LMHeadModel(gpt2), as_transformers(model))
    shared |= {
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.d_head,
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.context,
        "rope_parameters": rope_parameters(config),
        "num_experts_per_tok": config.experts_per_token,
        "attention_bias": config.bias,
        "experts_implementation": "batched_mm",  # a row for every token and choice
        "pad_token_id": None,
    }
    if config.family == "gpt-oss":
        gpt_oss = transformers.GptOssConfig(
            num_local_experts=config.n_experts,
            intermediate_size=config.d_ff,
            swiglu_limit=config.swiglu_limit,
            sliding_window=config.window or 128,
            layer_types=["sliding_attention" if window else "full_attention" for window in config.windows],
            **shared,
        )
        return fill(transformers.GptOssForCausalLM(gpt_oss), as_transformers(model))
    qwen3 = transformers.Qwen3MoeConfig(
        num_experts=config.n_experts, moe_intermediate_size=config.d_ff, norm_topk_prob=True, **shared
    )
    return fill(transformers.Qwen3MoeForCausalLM(qwen3), as_transformers(model))


def rope_parameters(config: Config) -> dict[str, Any]:
    """A config's RoPE as transformers writes it."""
    if config.yarn is None:
        return {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
        "rope_type": "yarn",
        "rope_theta": config.rope_theta,
        "factor": config.yarn.factor,
        "beta_fast": config.yarn.beta_fast,
        "beta_slow": config.yarn.beta_slow,
        "truncate": config.yarn.rounded,
        "original_max_position_embeddings": config.yarn.original_context,
    }


def openai_model(model: Transformer) -> nn.Module:
    """OpenAI's model of the same config, with our weights; in it even layers slide and others do not."""
    package = importlib.import_module("gpt_oss.torch.model")
    config, yarn = model.config, model.config.yarn or Yarn(factor=1.0)
    theirs = package.ModelConfig(
        num_hidden_layers=config.n_layers,
        num_experts=config.n_experts,
        experts_per_token=config.experts_per_token,
        vocab_size=config.vocab_size,
        hidden_size=config.d_model,
        intermediate_size=config.d_ff,
        swiglu_limit=config.swiglu_limit,
        head_dim=config.d_head,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        sliding_window=config.window or 0,
        initial_context_length=yarn.original_context,
        rope_theta=config.rope_theta,
        rope_scaling_factor=yarn.factor,
        rope_ntk_alpha=yarn.beta_slow,
        rope_ntk_beta=yarn.beta_fast,
    )
    return fill(package.Transformer(theirs, device=torch.device("cpu")), as_openai(model))


# ---- what a reference shows, under our names


def whole(inputs: tuple, output: Tensor) -> Tensor:
    """What a module puts out."""
    return output


def show(module: nn.Module, shown: Shown, name: str, pick: Callable[[tuple, Any], Tensor] = whole) -> None:
    """Keep pick(inputs, output) of a module, whenever it runs, under our name."""

    def keep(module: nn.Module, inputs: tuple, named: dict, output: Any) -> None:
        assert name not in shown, f"{name} was shown twice"
        shown[name] = pick((*inputs, *named.values()), output).detach().clone()

    module.register_forward_hook(keep, with_kwargs=True)


def transformers_shows(model: Transformer, tokens: Tensor) -> Shown:
    """Everything that transformers' model shows of a pass over `tokens`, with our names and axes."""
    config, reference, shown = model.config, transformers_model(model), {}
    if config.family == "gpt2":
        watch_gpt2(reference.transformer, shown, config)
    else:
        watch_rope_model(reference.model, shown, config, tokens.shape)
    with torch.no_grad(), listening(reference, shown, config, tokens.shape):
        shown["logits"] = reference(tokens).logits
    return shown


def watch_gpt2(base: nn.Module, shown: Shown, config: Config) -> None:
    """Hooks on transformers' GPT-2."""
    heads = (config.n_heads, config.d_head)
    show(base.wte, shown, "token_embedding")
    show(base.wpe, shown, "position_embedding", lambda inputs, output: output.reshape(-1, config.d_model))
    show(base.drop, shown, "embedding")
    show(base.ln_f, shown, "final_norm")
    for n, layer in enumerate(base.h):
        a, m = f"blocks.{n}.attention.", f"blocks.{n}.mlp."
        watch_block(layer, layer.attn, layer.attn.c_proj, (layer.ln_1, layer.ln_2), shown, n, m, heads)
        for i, name in enumerate("qkv"):

            def third(inputs: tuple, output: Tensor, i: int = i) -> Tensor:
                return output.chunk(3, -1)[i].unflatten(-1, heads)

            show(layer.attn.c_attn, shown, a + name, third)
        show(layer.mlp.c_fc, shown, m + "pre")
        show(layer.mlp.act, shown, m + "act")
        show(layer.mlp, shown, m + "out")


def watch_rope_model(base: nn.Module, shown: Shown, config: Config, shape: torch.Size) -> None:
    """Hooks on transformers' gpt-oss or Qwen3."""
    show(base.embed_tokens, shown, "token_embedding")
    show(base.embed_tokens, shown, "embedding")
    show(base.norm, shown, "final_norm")
    for n, layer in enumerate(base.layers):
        a, e, attention = f"blocks.{n}.attention.", f"blocks.{n}.experts.", layer.self_attn
        norms = (layer.input_layernorm, layer.post_attention_layernorm)
        watch_block(layer, attention, attention.o_proj, norms, shown, n, e, (config.n_heads, config.d_head))
        for name in "qkv":
            projection = getattr(attention, f"{name}_proj")
            show(
                projection, shown, a + name, lambda inputs, output: output.unflatten(-1, (-1, config.d_head))
            )
        if config.qk_norm:
            show(attention.q_norm, shown, a + "q_normed")
            show(attention.k_norm, shown, a + "k_normed")
        router = layer.mlp.router if config.family == "gpt-oss" else layer.mlp.gate
        for i, name in enumerate(("logits", "weight", "choice")):
            show(router, shown, e + name, lambda inputs, output, i=i: output[i].unflatten(0, shape))
        show(layer.mlp.experts, shown, e + "out", lambda inputs, output: output.reshape(*shape, -1))


def watch_block(
    layer: nn.Module,
    attention: nn.Module,
    o: nn.Module,
    norms: tuple,
    shown: Shown,
    n: int,
    feed: str,
    heads: tuple,
) -> None:
    """Hooks that every family's block has alike. `feed`: our prefix of its second half."""
    a = f"blocks.{n}.attention."
    show(norms[0], shown, a + "norm")
    show(o, shown, a + "mixed", lambda inputs, output: inputs[0].unflatten(-1, heads))
    show(attention, shown, a + "out", lambda inputs, output: output[0])
    show(attention, shown, a + "pattern", lambda inputs, output: output[1])
    show(norms[1], shown, f"blocks.{n}.residual_mid", lambda inputs, output: inputs[0])
    show(norms[1], shown, feed + "norm")
    show(layer, shown, f"blocks.{n}.residual")


@contextmanager
def listening(reference: nn.Module, shown: Shown, config: Config, shape: torch.Size) -> Iterator[None]:
    """Listen where no hook reaches: to what attention is given, and to the experts' activation."""
    module = importlib.import_module(type(reference).__module__)
    attend, layer, moe = module.eager_attention_forward, iter(range(99)), iter(range(99))

    def attending(
        attention: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *more: Any, **named: Any
    ) -> Any:
        a = f"blocks.{next(layer)}.attention."
        if config.positions == "rope":
            shown[a + "q_rotated"] = q.transpose(1, 2).clone()
            shown[a + "k_rotated"] = k.transpose(1, 2).clone()
        shown[a + "visible"] = (mask if mask.dtype == torch.bool else mask == 0)[:, 0].expand(
            shape[0], -1, -1
        )
        return attend(attention, q, k, v, mask, *more, **named)

    def activating(experts: Any, gate_up: Tensor) -> Tensor:
        e, rows = f"blocks.{next(moe)}.experts.", gate_up.unflatten(0, (*shape, config.experts_per_token))
        alternate = config.family == "gpt-oss"
        shown[e + "gate"] = (rows[..., ::2] if alternate else rows[..., : config.d_ff]).clone()
        shown[e + "up"] = (rows[..., 1::2] if alternate else rows[..., config.d_ff :]).clone()
        act = apply(experts, gate_up)
        shown[e + "act"] = act.unflatten(0, rows.shape[:3]).clone()
        return act

    holder = type(reference.model.layers[0].mlp.experts) if config.n_experts else None
    apply = holder._apply_gate if holder else None
    module.eager_attention_forward = attending
    if holder:
        holder._apply_gate = activating
    try:
        yield
    finally:
        module.eager_attention_forward = attend
        if holder:
            holder._apply_gate = apply


def openai_shows(model: Transformer, tokens: Tensor) -> Shown:
    """What OpenAI's model shows through hooks; it takes one text at a time."""
    reference, shown, texts = openai_model(model), {}, []
    show(reference.embedding, shown, "embedding")
    show(reference.norm, shown, "final_norm")
    for n, block in enumerate(reference.block):
        show(block.attn.norm, shown, f"blocks.{n}.attention.norm")
        show(block.attn.out, shown, f"blocks.{n}.attention.out")
        show(block.attn, shown, f"blocks.{n}.residual_mid")
        show(block.mlp.norm, shown, f"blocks.{n}.experts.norm")
        show(block.mlp.gate, shown, f"blocks.{n}.experts.logits")
        show(block, shown, f"blocks.{n}.residual")
    for text in tokens:
        shown.clear()
        with torch.no_grad():
            shown["logits"] = reference(text)
        texts.append(dict(shown))
    return {name: torch.stack([text[name] for text in texts]) for name in texts[0]}
