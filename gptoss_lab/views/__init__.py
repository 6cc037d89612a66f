"""Views: what a person explores. One renderer in JavaScript serves the notebook's widget and the page alike.

    lab.explore(model, "Once upon a time")          # the widget: type a prompt, touch what you see
    lab.views.experts(trace)                        # one view of a trace
    lab.views.compare(model, "Once upon a time", lab.Change(forbid=[5]))    # before and after, side by side
    lab.export_html(trace, "page.html")             # the same views as one file that needs nothing else

A trace that lacks a view's points is refused with the `keep=` that gets them. `model` is the one that made
the trace: Steps reads the residual out early with it, and a model of no known name brings its config. Pages
need nothing beyond the package; widgets need anywidget (the extra `notebooks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..model import Transformer
from ..study.edits import Change
from ..trace import Trace
from .beside import compared
from .page import export_html
from .payload import VIEWS, View, keep_for

if TYPE_CHECKING:
    from .widget import Explorer

__all__ = [
    "VIEWS", "Explorer", "View", "attention", "compare", "compared", "experts", "explore", "export_html",
    "keep_for", "positions", "steps",
]  # fmt: skip


def explore(model: Transformer, prompt: str | Iterable[int] | Tensor | None = None) -> Explorer:
    """The explorer with a box for prompts: type, Enter, look. Without a prompt it begins with a text of ours.

    A model without a tokenizer shows ids and has no box. ValueError as from `watch`.
    """
    return in_notebook("explore")(model, prompt)


def experts(trace: Trace, model: Transformer | None = None) -> Explorer:
    """Experts alone: who answers for each token, load, margins. Needs experts.logits, .choice and .weight."""
    return shown(trace, model, ["experts"])


def attention(trace: Trace, model: Transformer | None = None) -> Explorer:
    """Attention alone: a window layer beside a dense one. Needs attention.pattern; uses .sink."""
    return shown(trace, model, ["attention"])


def positions(trace: Trace, model: Transformer | None = None) -> Explorer:
    """Positions alone: rotating hands, score against distance, wavelengths. Needs attention.q and .k."""
    return shown(trace, model, ["positions"])


def steps(trace: Trace, model: Transformer | None = None) -> Explorer:
    """Steps alone: the text walked block by block. Needs embedding, residual_mid and residual.

    model: the one that made the trace, to read the residual out early; without it those words are missing.
    """
    return shown(trace, model, ["steps"])


def compare(
    model: Transformer,
    prompt: str | Iterable[int] | Tensor,
    change: Change | None = None,
    beside: Transformer | None = None,
) -> Explorer:
    """The explorer over one text before and after a change, or with another model beside it.

    Every switch in it changes the real model and runs it again. ValueError as from `study.compare`.
    """
    return in_notebook("compare_live")(model, prompt, change, beside)


def shown(
    trace: Trace, model: Transformer | None = None, views: str | Sequence[str] | None = None
) -> Explorer:
    """A widget over a trace, with this view or these (by name), or all."""
    return in_notebook("Explorer")(trace, model, views)


def in_notebook(name: str) -> Any:
    """A name of the widget's file, which is opened at its first use; ImportError says what to install."""
    try:
        from . import widget as room
    except ModuleNotFoundError as error:
        raise ImportError(
            f"widgets need {error.name}: pip install 'gptoss-lab[notebooks]'; a page needs nothing more: "
            "lab.export_html(trace, 'page.html')"
        ) from error
    return getattr(room, name)


def __getattr__(name: str) -> Any:
    if name == "Explorer":
        return in_notebook(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
