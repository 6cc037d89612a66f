"""The model: one Transformer that is GPT-2, gpt-oss or Qwen3-MoE according to its config, made of plain
functions.

Read in this order: norm, rope, attention, experts, transformer; cache and linear are what they stand on.
"""

from .attention import attend, attend_fused, visible
from .cache import Cache
from .experts import clamped_swiglu, gelu, swiglu
from .norm import layer_norm, rms_norm
from .rope import concentration, frequencies, rotate
from .transformer import Transformer

__all__ = [
    "Cache", "Transformer", "attend", "attend_fused", "clamped_swiglu", "concentration", "frequencies",
    "gelu", "layer_norm", "rms_norm", "rotate", "swiglu", "visible",
]  # fmt: skip
