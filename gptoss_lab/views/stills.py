"""What stands in where a widget cannot run: a still of the view, drawn by matplotlib from the same trace."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import Any

import torch

from .. import figures
from ..config import Config
from ..model import Transformer, concentration, frequencies
from ..study.compare import Comparison
from ..text import tokens as text
from ..trace import Trace
from .payload import config_of


def still_of(view: str, trace: Trace, model: Transformer | None, found: Comparison | None) -> str | None:
    """The still of a view, PNG in base64; of what the trace holds where it lacks that; None where it holds
    nothing."""
    config = config_of(trace, model)
    drawn: Any = None
    if view == "compare" and found is not None:
        drawn = compared(found)
    elif view == "steps" and model is not None:
        drawn = read_out(trace, model)
    elif view == "positions":
        drawn = rotated(trace, config)
    elif view == "attention":
        drawn = looked(trace, config)
    drawn = drawn or routed(trace, config) or looked(trace, config)
    if drawn is None:
        return None
    file = BytesIO()
    drawn.savefig(file, format="png", dpi=80)
    return b64encode(file.getvalue()).decode()


def about(trace: Trace) -> dict[str, Any]:
    """What every still of the first layer says of itself."""
    return {"labels": trace.labels, "layer": 0, "source": trace.caption}


def routed(trace: Trace, config: Config) -> Any:
    """The first layer's experts."""
    names = [f"blocks.0.experts.{name}" for name in ("choice", "weight")]
    if not config.n_experts or any(name not in trace for name in names):
        return None
    choice, weight = (trace[name][0] for name in names)
    return figures.router(choice, weight, config.n_experts, **about(trace))


def looked(trace: Trace, config: Config) -> Any:
    """The first head of the first layer."""
    pattern, sink = "blocks.0.attention.pattern", "blocks.0.attention.sink"
    if pattern not in trace:
        return None
    taken = trace[sink][0, 0] if sink in trace else None
    return figures.attention(
        trace[pattern][0, 0], sink=taken, window=config.windows[0], head=0, **about(trace)
    )  # fmt: skip


def rotated(trace: Trace, config: Config) -> Any:
    """The last token's query and the first one's key, by distance, in the first layer's first head."""
    last = "_normed" if config.qk_norm else ""
    q, k = (f"blocks.0.attention.{name}{last}" for name in "qk")
    if config.positions != "rope" or q not in trace or k not in trace:
        return None
    turning = frequencies(config.d_head, config.rope_theta, config.yarn)
    return figures.rope_score(
        trace[q][0, -1, 0], trace[k][0, 0, 0], turning, concentration(config.yarn), source=trace.caption,
        distance=len(trace.labels) - 1, reach=max(len(trace.labels), 64), window=config.windows[0],
    )  # fmt: skip


def read_out(trace: Trace, model: Transformer) -> Any:
    """What is expected after the last token."""
    name = f"blocks.{model.config.n_layers - 1}.residual"
    if name not in trace:
        return None
    with torch.no_grad():
        share = model.read_out(trace[name][:1, -1:].to(model.device))[0, 0].softmax(-1).cpu()
    best = share.topk(min(8, len(share)))
    labels = text.labels(best.indices.tolist(), model.tokenizer)
    return figures.next_tokens(best.values, labels, top=len(labels), source=trace.caption)


def compared(found: Comparison) -> Any:
    """What is expected after the last token, before and after a change."""
    before, after = found.probability[:, -1]
    labels = text.labels(found.ids[-1].tolist(), found.model.tokenizer)
    source = f"{found.before.caption}; beside: {found.words}"
    return figures.next_tokens(after, labels, before=before, top=len(labels), source=source)
