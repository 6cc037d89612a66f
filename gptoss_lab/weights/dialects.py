"""From config.json to Config, whichever spelling of a family's keys the file uses. Nothing is skipped in
silence.

A key means a field of ours, or must have the value that our mathematics has, or is known to change nothing
(the tables are in `keys`); any other is refused by name. Where a key is absent, transformers' defaults are
followed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..config import NAMED, Config, Yarn
from . import keys
from .reader import CheckpointError, listed, shown

STORED = {"float32": "float32", "bfloat16": "bfloat16", "float16": "bfloat16"}  # as many bytes an item
FRACTIONS = {"norm_eps", "swiglu_limit", "swiglu_alpha", "dropout", "rope_theta"}


def is_original(found: Mapping[str, Any]) -> bool:
    """Whether this config.json is OpenAI's own, which names no model_type."""
    return "model_type" not in found and {"rope_ntk_alpha", "rope_ntk_beta"} <= found.keys()


def read_config(
    found: Mapping[str, Any],
    name: str,
    generation: Mapping[str, Any] | None = None,
    where: str = "config.json",
) -> Config:
    """The Config that a config.json says. `generation`: generation_config.json, for the ids that stop.

    `stored` is left at its default: it is a matter of the tensors. CheckpointError names the key that is
    missing, unknown, or has a value that cannot be.
    """
    try:
        values = read_original(found) if is_original(found) else read_family(found)
        stops = (generation or {}).get("eos_token_id")
        stops = found.get("eos_token_id") if stops is None else stops
        return Config(name=name, **values | read_vocabulary(values, stops, is_original(found)))
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def stored_in(found: Mapping[str, Any], family: str) -> str:
    """What weights are stored in, as far as config.json tells: the dtype that it names (float16 counts as
    bfloat16, which takes as many bytes), else that of the family's published models.

    ValueError for any other dtype.
    """
    named = found.get("dtype", found.get("torch_dtype"))
    if named is None:
        return next(known.stored for known in NAMED.values() if known.family == family)
    if not isinstance(named, str) or named not in STORED:
        raise ValueError(f"dtype is {shown(named)}; expected {', '.join(STORED)}")
    return STORED[named]


def read_original(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that OpenAI's own config.json gives, and those that it implies (see `keys.ORIGINAL`)."""
    rope = ("initial_context_length", "rope_scaling_factor", "rope_ntk_alpha", "rope_ntk_beta")
    refuse_unknown(found, {*keys.ORIGINAL, *rope})
    if lacking := [key for key in (*keys.ORIGINAL, *rope) if key not in found]:
        raise ValueError(f"lacks {listed(lacking)}")
    values = {field: value_of(key, found[key], field) for key, field in keys.ORIGINAL.items()}
    length = whole(rope[0], found[rope[0]])
    factor, slow, fast = (fraction(key, found[key]) for key in rope[1:])
    values["yarn"] = Yarn(factor, length, fast, slow) if factor > 1 else None
    check_rope(values["rope_theta"], values["yarn"])
    implied = {"family": "gpt-oss", "context": int(length * factor), "stored_experts": "mxfp4"}
    return values | keys.NATURE["gpt-oss"] | implied


def read_family(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a config.json of the Hugging Face layout gives."""
    kind, kinds = found.get("model_type"), {kind: family for family, kind in keys.MODEL_TYPES.items()}
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"model_type {shown(kind)}; this package reads {', '.join(kinds)}")
    family = kinds[kind]
    fixed = keys.FIXED[family] | keys.FIXED_ANYWHERE
    spelled = {key for spellings, _ in keys.SPELLINGS[family].values() for key in spellings}
    harmless = keys.HARMLESS | keys.HARMLESS_IN[family]
    refuse_unknown(found, spelled | fixed.keys() | harmless | keys.ELSEWHERE[family])
    for key, allowed in fixed.items():
        value = found.get(key, None if key in keys.MUST_BE_SAID else allowed[0])
        if not any(value == one and (type(value) is bool) == (type(one) is bool) for one in allowed):
            raise ValueError(f"{key} is {shown(value)}; this model's mathematics has {allowed[0]!r}")
    values: dict[str, Any] = {"family": family} | keys.NATURE[family]
    for field, (spellings, default) in keys.SPELLINGS[family].items():
        values[field] = read_field(found, field, spellings, default)
    heads, width = values["n_heads"], values["d_model"]
    if values.get("d_head") is None:  # GPT-2 has no key for it, and Qwen3-MoE need not say it
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
        raise ValueError(f"unknown keys {listed(unknown)}: they may change the mathematics, so this model is "
                         "not loaded. If they do not, remove them.")  # fmt: skip


def read_field(found: Mapping[str, Any], field: str, spellings: tuple[str, ...], default: Any) -> Any:
    """A field's value under whichever of its spellings is there; all that are must agree."""
    said = {key: found[key] for key in spellings if key in found}
    if not said and default is keys.SAID:
        raise ValueError(f"lacks {' (or '.join(map(repr, spellings))}{')' * (len(spellings) - 1)}")
    if not said:
        return default
    key, value = next(iter(said.items()))
    if any(other != value for other in said.values()):
        both = " and ".join(f"{key}={shown(value)}" for key, value in said.items())
        raise ValueError(f"{both} contradict each other")
    return None if value is None and default is None else value_of(key, value, field)


def value_of(key: str, value: Any, field: str) -> Any:
    """A value of the kind that the field has: true or false, a fraction, or a whole number."""
    if field == "tied":
        return truth(key, value)
    if field in FRACTIONS:
        return fraction(key, value, zero=field == "dropout")
    return whole(key, value)


def truth(key: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {shown(value)}; expected true or false")
    return value


def fraction(key: str, value: Any, zero: bool = False) -> float:
    """A finite number above zero, or from zero on."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} is {shown(value)}; expected a number")
    if value < 0 or value == 0 and not zero:
        raise ValueError(f"{key} is {value}; expected a number above 0")
    return float(value)


def whole(key: str, value: Any) -> int:
    """A whole number above zero (2.0 passes for 2)."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < 2**40 or value != int(value):
        raise ValueError(f"{key} is {shown(value)}; expected a whole number above 0")
    return int(value)


def read_rope(found: Mapping[str, Any], family: str, context: int) -> dict[str, Any]:
    """θ and YaRN, from `rope_parameters` (new) or from `rope_theta` and `rope_scaling` (old).

    As transformers has it: for gpt-oss no scaling at all means YaRN × 32 from 4096; {"rope_type": "default"}
    switches it off.
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
    if found.get("rope_theta") not in (None, theta):
        raise ValueError(f"rope_theta is {shown(found['rope_theta'])} and {shown(theta)}")
    unsaid = Yarn() if family == "gpt-oss" else None
    theta, yarn = fraction("rope_theta", theta), unsaid if scaling is None else read_yarn(said, context)
    check_rope(theta, yarn)
    return {"rope_theta": theta, "yarn": yarn}


def check_rope(theta: float, yarn: Yarn | None) -> None:
    """ValueError where θ or YaRN's numbers have no frequencies: logarithms of them are taken."""
    if not 1 < theta < 1e12:
        raise ValueError(f"rope_theta is {theta:g}; expected above 1, and below 1e12")
    if yarn is not None and max(yarn.factor, yarn.beta_fast, 1 / yarn.beta_slow) > 1e6:
        raise ValueError(f"{yarn} goes beyond 1e6: no model stretches so far")


def read_yarn(said: dict[str, Any], context: int) -> Yarn | None:
    """YaRN's numbers, or None for plain RoPE."""
    kinds = {said.pop(key) for key in ("rope_type", "type") if isinstance(said.get(key), str)} or {"default"}
    if said.pop("partial_rotary_factor", 1.0) not in (1.0, None):
        raise ValueError("partial_rotary_factor is not 1: turning a part of each head is not supported")
    if kinds == {"default"}:
        refuse_unknown(said, set())
        return None
    if kinds != {"yarn"}:
        raise ValueError(f"rope_type is {listed(sorted(kinds))}; expected 'yarn' or 'default'")
    factor, fast, slow, length = "factor", "beta_fast", "beta_slow", "original_max_position_embeddings"
    rescaling = [key for key in ("mscale", "mscale_all_dim") if said.pop(key, None) is not None]
    refuse_unknown(said, {factor, fast, slow, length, "truncate", "attention_factor"})
    if rescaling:
        raise ValueError(f"{listed(rescaling)} rescale attention, which is not supported")
    yarn = Yarn(
        factor=fraction(factor, said.get(factor)),
        original_context=whole(length, said.get(length, context)),
        beta_fast=fraction(fast, said.get(fast) or 32.0),
        beta_slow=fraction(slow, said.get(slow) or 1.0),
        rounded=truth("truncate", said.get("truncate", True)),
    )
    usual, given = 0.1 * math.log(yarn.factor) + 1.0, said.get("attention_factor")
    if given is not None and not math.isclose(fraction("attention_factor", given), usual, rel_tol=1e-6):
        raise ValueError(f"attention_factor is {given}; only YaRN's own is supported, here {usual:.6f}")
    return yarn


def read_windows(found: Mapping[str, Any], n_layers: int) -> dict[str, Any]:
    """The window and its layers: absent layer_types mean even layers; a window of null, or no layer, means
    none."""
    types, window, sliding = found.get("layer_types"), found.get("sliding_window", 128), "sliding_attention"
    if window is None:
        return {"window": None}
    if types is None:
        return {"window": whole("sliding_window", window), "windowed_layers": "even"}
    known = isinstance(types, list) and all(kind in (sliding, "full_attention") for kind in types)
    if not known or len(types) != n_layers:
        kinds = f"{sliding!r} or 'full_attention'"
        raise ValueError(f"layer_types is {shown(types)}; expected {n_layers} times {kinds}")
    banded, layers = tuple(n for n, kind in enumerate(types) if kind == sliding), range(n_layers)
    words = {tuple(layers[1::2]): "odd", tuple(layers): "all", tuple(layers[::2]): "even"}
    if not banded:
        return {"window": None}
    return {"window": whole("sliding_window", window), "windowed_layers": words.get(banded, banded)}


def read_quantization(found: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Whether the experts are packed; MXFP4 in gpt-oss is the one quantization there is."""
    said = found.get("quantization_config")
    if said is None:
        return {}
    if not isinstance(said, dict) or said.get("quant_method") != "mxfp4" or family != "gpt-oss":
        raise ValueError(f"quantization_config is {shown(said)}; only gpt-oss with 'mxfp4' is read")
    refuse_unknown(said, {"quant_method", "modules_to_not_convert", "dequantize"})
    return {"stored_experts": "mxfp4"}


def read_vocabulary(values: Mapping[str, Any], stops: Any, implied: bool) -> dict[str, Any]:
    """The ids that stop a text, as far as the vocabulary reaches, and where those begin that stand for
    nothing.

    Files of the published vocabularies name only some of them, or (`implied`) none; NAMED knows them all.
    """
    stops = stops if isinstance(stops, list) else [] if stops is None else [stops]
    if any(type(one) is not int for one in stops):
        raise ValueError(f"eos_token_id is {shown(stops)}; expected whole numbers")
    used = values.get("vocab_used")
    for known in NAMED.values():
        if (known.family, known.vocab_size) == (values["family"], values["vocab_size"]):
            used = known.vocab_used if used is None else used
            if implied or stops and set(stops) <= set(known.stop_ids):
                stops = known.stop_ids
    return {"stop_ids": tuple(one for one in stops if 0 <= one < values["vocab_size"]), "vocab_used": used}
