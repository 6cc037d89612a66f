"""Answers to the exercises: a student's function is run on made-up numbers, and told what is likely wrong.

    checks.window(my_visible)    # Your window leaves out the query itself: 127 keys instead of 128. …

A check compares with the model's own function, and where that fails with what well-known mistakes would have
given on the same numbers. It answers with an `Answer`, true when right; what the student's function raises is
left to its own traceback.
"""

from .attention import rotate, sink, window, yarn
from .block import gelu, layer_norm, router_weights, swiglu
from .costing import cache, difference, qk_norm
from .judging import Answer
from .ladder import paired, width
from .packing import expert_bytes, unpack
from .residual import contributions, walk
from .speaking import ring, top_p

__all__ = [
    "Answer", "cache", "contributions", "difference", "expert_bytes", "gelu", "layer_norm", "paired",
    "qk_norm", "ring", "rotate", "router_weights", "sink", "swiglu", "top_p", "unpack", "walk", "width",
    "window", "yarn",
]  # fmt: skip
