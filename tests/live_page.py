"""The live widget in a plain browser page: `render` as anywidget calls it, and a real `Explorer` behind it.

Between the two stands a model object of twenty lines instead of Jupyter's comm: what the page sends is handed
to the widget's own handlers, which run the real model; what they change travels back.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from gptoss_lab import views
from gptoss_lab.model import Transformer
from gptoss_lab.trace import watch
from gptoss_lab.views import page as pages
from gptoss_lab.views.widget import PROMPT, kept

MOUNT = """
const state = {}, listeners = {};
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
function arrive(reply) {
  const differs = (name) => JSON.stringify(reply.state[name]) !== state[name]?.was;
  const changed = Object.keys(reply.state).filter(differs);
  for (const name of changed) {
    const value = reply.state[name];
    const packed = value?.base64 !== undefined; // a block of numbers
    state[name] = { was: JSON.stringify(value), value: packed ? bytes(value.base64) : value };
  }
  for (const name of changed) for (const f of listeners["change:" + name] ?? []) f();
  for (const message of reply.messages) for (const f of listeners["msg:custom"] ?? []) f(message);
}
const model = {
  get: (name) => state[name]?.value,
  on: (event, f) => (listeners[event] ??= new Set()).add(f),
  off: (event, f) => listeners[event]?.delete(f),
  send: (message) => kernel(JSON.stringify(message)).then((reply) => arrive(JSON.parse(reply))),
};
arrive(JSON.parse(await kernel("")));
render({ model, el: document.getElementById("here") });
"""


class Live(views.Explorer):
    """An explorer whose messages are kept until the page fetches them."""

    def send(self, content: Any, buffers: Any = None) -> None:
        """Keep a message for the page."""
        self.__dict__.setdefault("out", []).append(content)

    def answer(self, message: str) -> str:
        """What a message from the page leads to, in JSON: synced traits and messages; "" asks for both."""
        if message:
            self._answer(None, json.loads(message), None)
        state = {}
        for name in self.trait_names(sync=True):
            value = getattr(self, name)
            if isinstance(value, bytes):
                state[name] = {"base64": base64.b64encode(value).decode()}
            elif not name.startswith("_") and isinstance(value, (dict, list, str, bool)):
                state[name] = value
        return json.dumps({"state": state, "messages": self.__dict__.pop("out", [])})


def open_live(page: Any, model: Transformer, prompt: str = PROMPT) -> Live:
    """Put the live explorer over a prompt into an empty browser page; the widget behind it."""
    widget = Live(watch(model, prompt, keep=kept(model, None), last=1), model, live=True)
    page.expose_function("kernel", widget.answer)
    page.set_content(
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>live</title>"
        f"<style>body {{ margin: 0 }} {pages.style()}</style><main id='here'></main>"
        f"<script type='module'>{pages.script()}\n{MOUNT}</script></html>"
    )
    page.wait_for_selector("[role=tab]")
    return widget
