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
from .residual import contributions, walk

__all__ = [
    "Answer", "cache", "contributions", "difference", "gelu", "layer_norm", "qk_norm", "rotate",
    "router_weights", "sink", "swiglu", "walk", "window", "yarn",
]  # fmt: skip
