"""A laboratory for GPT-2, gpt-oss and Qwen3-MoE: one readable Transformer, whose every step can be seen.

    import gptoss_lab as lab

    model = lab.load("mini-oss")
    trace = lab.watch(model, "Once upon a time", keep="blocks.*.experts.*")
    for token in lab.generate(model, "Once upon a time", max_tokens=32): ...

Importing the package loads nothing: each public name is fetched from its room at its first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import cost, figures, points, text, views
    from .config import NAMED, Config
    from .generation import Run, Token, generate
    from .model import Transformer
    from .study.compare import Comparison, compare
    from .study.edits import Change
    from .trace import Trace, open_trace, watch
    from .views import explore, export_html
    from .weights import load

__version__ = "0.1.0"

# Public name → the room it lives in. A name that is its own room stands for the module.
HOMES = {
    "load": "weights",
    "watch": "trace",
    "Trace": "trace",
    "open_trace": "trace",
    "generate": "generation",
    "Token": "generation",
    "Run": "generation",
    "Config": "config",
    "NAMED": "config",
    "Transformer": "model",
    "Change": "study.edits",
    "Comparison": "study.compare",
    "compare": "study.compare",
    "points": "points",
    "figures": "figures",
    "text": "text",
    "cost": "cost",
    "views": "views",
    "explore": "views",
    "export_html": "views",
}

__all__ = [
    "NAMED", "Change", "Comparison", "Config", "Run", "Token", "Trace", "Transformer", "compare", "cost",
    "explore", "export_html", "figures", "generate", "load", "open_trace", "points", "text", "views", "watch",
]


def __getattr__(name: str) -> Any:
    """The public name, fetched from its room and kept; AttributeError for any other."""
    if name not in HOMES:
        raise AttributeError(f"module 'gptoss_lab' has no attribute {name!r}; it offers {', '.join(__all__)}")
    module = importlib.import_module(f"{__name__}.{HOMES[name]}")
    value = module if HOMES[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What a notebook completes after `lab.`"""
    return sorted({*globals(), *HOMES})
