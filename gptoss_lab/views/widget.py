"""The explorer in a notebook: an anywidget that runs the user's own prompt in the kernel and shows what came.

    explore(model)                          # type a text, Enter
    Explorer(trace, views=["experts"])      # one view of a trace that is there already

A prompt goes through `watch`; the numbers come back as one binary buffer. Where widgets cannot run, the
output holds a still and the text in words. Widgets speak the anywidget protocol: JupyterLab, Notebook 7, VS
Code.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import Any

import anywidget
import traitlets
from torch import Tensor

from ..figures import attention as attention_still
from ..figures import router
from ..model import Transformer
from ..trace import LIMIT, Trace, watch
from . import payload
from .page import script, style

PROMPT = "Once upon a time there was a king. Había una vez un rey. def king(n): return n + 1"
SENT = 64_000_000  # bytes of numbers a widget is sent; a page has a limit of its own


class Explorer(anywidget.AnyWidget):
    """The explorer over one trace; with a model, prompts typed into it make another.

    trace: what is shown now. `handlers` maps a message's `type` to f(message) → answer, so that a view may
    ask more of the kernel; errors are answered in words.
    """

    _esm = traitlets.Unicode(script()).tag(sync=True)
    _css = traitlets.Unicode(style()).tag(sync=True)
    header = traitlets.Dict().tag(sync=True)
    block = traitlets.Bytes().tag(sync=True)
    can_run = traitlets.Bool(False).tag(sync=True)
    view = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        trace: Trace,
        model: Transformer | None = None,
        views: Sequence[str] | None = None,
        live: bool = False,
    ) -> None:
        self.trace, self.model, self.views = trace, model, views
        self.handlers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        header, block = payload.packed_views(trace, model, views, SENT)
        first = views[0] if views else header["views"][0]
        super().__init__(header=header, block=block, can_run=live, view=first)
        if live:
            self.handlers["run"] = self.answer_run
        self.on_msg(self._answer)

    def show(self, trace: Trace) -> None:
        """Show another trace; header and numbers travel together."""
        header, block = payload.packed_views(trace, self.model, self.views, SENT)
        with self.hold_sync():
            self.trace, self.block, self.header = trace, block, header

    def run(self, prompt: str | Iterable[int] | Tensor) -> Trace:
        """Run a prompt through the model and show it. ValueError as from `watch`, or without a model."""
        if self.model is None:
            raise ValueError("this widget shows a trace and has no model: use lab.explore(model)")
        trace = watch(self.model, prompt, keep=kept(self.model, self.views), last=1, limit=LIMIT)
        self.show(trace)
        return trace

    def answer_run(self, message: dict[str, Any]) -> dict[str, Any]:
        """A prompt that was typed: run it, and say how long the kernel took, in seconds."""
        began = time.perf_counter()
        self.run(str(message.get("prompt", "")))
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
        except (ValueError, MemoryError, RuntimeError) as error:  # RuntimeError: torch's, as out of memory
            self.send({"id": message["id"], "error": str(error) or type(error).__name__})

    def _repr_mimebundle_(self, **more: Any) -> Any:
        bundle = super()._repr_mimebundle_(**more)
        data, about = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data = {**data, "text/plain": str(self.header["summary"])}
        still = still_of(self.trace, self.model, self.view)
        if still is not None:
            data["image/png"] = still
        return data, about


def kept(model: Transformer, views: Sequence[str] | None) -> list[str]:
    """The points to keep for these views, or for all that the model can fill."""
    return payload.keep_for(model.config, views or tuple(payload.VIEWS))


def still_of(trace: Trace, model: Transformer | None, view: str) -> str | None:
    """A still of the view's first layer, PNG in base64; None where there is nothing to draw."""
    config = payload.config_of(trace, model)
    looks, sinks, choice, weight = (
        trace[name][0] if (name := f"blocks.0.{point}") in trace else None
        for point in ("attention.pattern", "attention.sink", "experts.choice", "experts.weight")
    )
    about: Any = {"labels": trace.labels, "layer": 0, "source": trace.caption}
    drawn: Any = None
    if looks is not None and (view == "attention" or choice is None):
        sink = None if sinks is None else sinks[0]
        drawn = attention_still(looks[0], sink=sink, window=config.windows[0], head=0, **about)
    elif choice is not None and weight is not None and config.n_experts:
        drawn = router(choice, weight, config.n_experts, **about)
    if drawn is None:
        return None
    file = BytesIO()
    drawn.savefig(file, format="png", dpi=80)
    return b64encode(file.getvalue()).decode()


def explore(model: Transformer, prompt: str | Iterable[int] | Tensor | None = None) -> Explorer:
    """The explorer with a box for prompts: type, Enter, look. Without a prompt it shows a text of ours.

    A model without a tokenizer shows ids and has no box.
    """
    if prompt is None:
        prompt = PROMPT if model.tokenizer is not None else range(min(24, model.config.vocab_size))
    trace = watch(model, prompt, keep=kept(model, None), last=1)
    return Explorer(trace, model, live=model.tokenizer is not None)
