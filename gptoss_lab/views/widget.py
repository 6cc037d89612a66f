"""The explorer in a notebook: an anywidget that runs the user's own prompt in the kernel and shows what came.

    explore(model)                          # type a text, Enter; change the model, and see before and after
    Explorer(trace, views=["experts"])      # one view of a trace that is there already

A prompt goes through `watch`; the numbers come back as one binary buffer. Where widgets cannot run, the
output holds a still and the text in words. Widgets speak the anywidget protocol: JupyterLab, Notebook 7, VS
Code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import anywidget
import traitlets
from torch import Tensor

from ..machine import light
from ..model import Transformer
from ..study.compare import Comparison
from ..study.edits import Change
from ..trace import LIMIT, Trace, require_model, watch
from ..weights import load
from . import payload
from .beside import as_pair, compared, others, packed_beside
from .page import script, style
from .stills import still_of

PROMPT = "Once upon a time there was a king. Había una vez un rey. def king(n): return n + 1"
SENT = 64_000_000  # bytes of numbers a widget is sent; a page has a limit of its own


class Explorer(anywidget.AnyWidget):
    """The explorer over one trace, or over a comparison; with a model, prompts and changes made in it run.

    trace: what is shown now; comparison: what it is the first half of, or None; besides: the models that
    stood beside so far, by name. `handlers` maps a message's `type` to f(message) → answer, so that a view
    may ask more of the kernel; errors are answered in words.
    """

    _esm = traitlets.Unicode(script()).tag(sync=True)
    _css = traitlets.Unicode(style()).tag(sync=True)
    header = traitlets.Dict().tag(sync=True)
    block = traitlets.Bytes().tag(sync=True)
    beside = traitlets.Dict().tag(sync=True)  # the second header of a comparison, or nothing
    beside_block = traitlets.Bytes().tag(sync=True)
    can_run = traitlets.Bool(False).tag(sync=True)
    can_change = traitlets.Bool(False).tag(sync=True)
    others: traitlets.List[str] = traitlets.List().tag(sync=True)  # names of models that may stand beside
    view = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        shown: Trace | Comparison,
        model: Transformer | None = None,
        views: str | Sequence[str] | None = None,
        live: bool = False,
        view: str = "",
    ) -> None:
        trace, found = as_pair(shown)
        views = payload.named(views) or None
        self.trace, self.comparison, self.model, self.views = trace, found, model, views
        self.handlers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        self.besides: dict[str, Transformer] = {}
        header, block = payload.packed_views(trace, model, views, SENT)
        first = views[0] if views else header["views"][0]
        super().__init__(header=header, block=block, view=view or first)
        if live and model is not None:
            self.can_run, self.can_change = model.tokenizer is not None, True
            self.others = others(model)
            self.handlers |= {"run": self.answer_run, "compare": self.answer_compare}
        self.show_beside(found)
        self.on_msg(self._answer)

    def show(self, trace: Trace) -> None:
        """Show another trace; header and numbers travel together."""
        header, block = payload.packed_views(trace, self.model, self.views, SENT)
        found = self.comparison
        if found is not None:
            found = compared(self.live_model, trace.tokens, found.change, found.beside, trace)
        with self.hold_sync():
            self.trace, self.block, self.header = trace, block, header
            self.show_beside(found)

    def show_beside(self, found: Comparison | None) -> None:
        """Show another comparison of this trace, or none."""
        header, block = packed_beside(found, SENT) if found is not None else ({}, b"")
        if found is not None and found.beside is not None:
            self.besides[found.beside.config.name] = found.beside
        with self.hold_sync():
            self.others = list(dict.fromkeys([*self.others, *self.besides])) if self.can_change else []
            self.comparison, self.beside_block, self.beside = found, block, header

    @property
    def live_model(self) -> Transformer:
        """The model. ValueError where this widget shows a trace alone."""
        if self.model is None:
            raise ValueError("this widget shows a trace and has no model: use lab.explore(model)")
        return self.model

    def run(self, prompt: str | Iterable[int] | Tensor) -> Trace:
        """Run a prompt through the model and show it. ValueError as from `watch`, or without a model."""
        model = self.live_model
        with light(model):
            trace = watch(model, prompt, keep=kept(model, self.views), last=1, limit=LIMIT)
            self.show(trace)
        return trace

    def compare(self, change: Change | None = None, beside: Transformer | None = None) -> Comparison | None:
        """Show what is shown now beside a changed model, or beside another; with neither, alone again.

        ValueError where the change does not fit the model.
        """
        model, found = self.live_model, None
        with light(model):
            if change or beside is not None:
                found = compared(model, self.trace.tokens, change, beside, self.trace)
            self.show_beside(found)
        return found

    def answer_run(self, message: dict[str, Any]) -> dict[str, Any]:
        """A prompt that was typed: run it, and say how long the kernel took, in seconds."""
        began = time.perf_counter()
        self.run(str(message.get("prompt", "")))
        return {"seconds": time.perf_counter() - began}

    def answer_compare(self, message: dict[str, Any]) -> dict[str, Any]:
        """A change that was made: {change: fields of a Change, other: one of `others`, or ""}."""
        began, other = time.perf_counter(), str(message.get("other") or "")
        if other and other not in self.others:
            can = ", ".join(self.others) or "no shipped model"
            raise ValueError(f"{other!r} cannot stand beside {self.live_model.config.name}; {can} can")
        beside = self.besides.get(other) or load(other) if other else None
        self.compare(Change.from_json(message.get("change") or {}), beside)
        return {"seconds": time.perf_counter() - began}

    def _answer(self, _: Any, message: Any, __: Any) -> None:
        if not isinstance(message, dict) or "id" not in message:
            return
        handler = self.handlers.get(str(message.get("type")))
        try:
            if handler is None:
                known = ", ".join(self.handlers) or "nothing"
                raise ValueError(f"this widget cannot do {message.get('type')!r}; it can do {known}")
            self.send({"id": message["id"], **handler(message)})
        except Exception as error:  # whatever it is: the browser waits for an answer
            kind = "" if isinstance(error, ValueError) else type(error).__name__
            self.send({"id": message["id"], "error": ": ".join(filter(None, (kind, str(error))))})

    def _repr_mimebundle_(self, **more: Any) -> Any:
        bundle = super()._repr_mimebundle_(**more)
        data, about = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data = {**data, "text/plain": str(self.header["summary"])}
        still = still_of(self.view, self.trace, self.model, self.comparison)
        if still is not None:
            data["image/png"] = still
        return data, about


def kept(model: Transformer, views: Sequence[str] | None) -> list[str]:
    """The points to keep for these views, or for all that the model can fill."""
    return payload.keep_for(model.config, views or tuple(payload.VIEWS))


def explore(model: Transformer, prompt: str | Iterable[int] | Tensor | None = None) -> Explorer:
    """The explorer with a box for prompts: type, Enter, look. Without a prompt it shows a text of ours.

    A model without a tokenizer shows ids and has no box for prompts.
    """
    require_model(model)
    if prompt is None:
        prompt = PROMPT if model.tokenizer is not None else range(min(24, model.config.vocab_size))
    trace = watch(model, prompt, keep=kept(model, None), last=1)
    return Explorer(trace, model, live=True)


def compare_live(
    model: Transformer,
    prompt: str | Iterable[int] | Tensor,
    change: Change | None = None,
    beside: Transformer | None = None,
) -> Explorer:
    """The explorer over a comparison, opened where it is compared."""
    return Explorer(compared(model, prompt, change, beside), model, live=True, view="compare")
