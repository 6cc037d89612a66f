"""How fast a run goes: how far the prompt is while it is worked through, and tokens a second at the end.

    pace = Pace(model, run, tell=print)
    for token in pace:                      # the run's own tokens
        ...
    pace.report()                           # a line for people;  pace.figures() the same as numbers

The prompt's part ends with the first token, which its own pass gives; decoding counts the tokens after it.
Time in which kernels are compiled is counted apart, as it is spent once on a machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import machine
from .cost import human
from .generation import Run, Token
from .kernels import compile_seconds
from .model import Transformer

Tell = Callable[[int, int, float], None]  # tokens done, tokens in all, seconds so far


class Pace:
    """A run under the watch. prompt: how many tokens of it are to be worked through (all, if not said: a
    conversation has most of them in its cache); tell: called as the layers answer the prompt.
    """

    def __init__(
        self, model: Transformer, run: Run, prompt: int | None = None, tell: Tell | None = None
    ) -> None:
        self.model, self.run, self.tell = model, run, tell
        self.prompt = run.prompt.shape[1] if prompt is None else prompt
        self.done = 0  # tokens of the prompt
        self.parts = {"prompt": Stretch(), "decode": Stretch()}

    def __iter__(self) -> Iterator[Token]:
        steps = iter(self.run)
        with self.parts["prompt"], self.heard():
            first = next(steps, None)
        if first is None:
            return
        self.done = self.prompt
        yield first
        while True:
            with self.parts["decode"]:
                token = next(steps, None)
            if token is None:
                return
            yield token

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear the blocks, each of which takes a share of the prompt's tokens further by one layer."""
        start, layers = time.perf_counter(), 0

        def after(block: object, inputs: tuple[Any, ...], output: object) -> None:
            nonlocal layers
            layers += inputs[0].shape[1]
            self.done = min(layers // len(self.model.blocks), self.prompt)
            if self.tell:
                self.tell(self.done, self.prompt, time.perf_counter() - start)

        hooks = [block.register_forward_hook(after) for block in self.model.blocks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def figures(self) -> dict[str, int | float | None]:
        """The same as numbers: tokens, seconds, tokens a second (without compiling; None where nothing was
        done), bytes.
        """
        told: dict[str, int | float | None] = {}
        for name, tokens in (("prompt", self.done), ("decode", max(len(self.run.tokens) - 1, 0))):
            part = self.parts[name]
            told[f"{name}_tokens"] = tokens
            told[f"{name}_seconds"] = round(part.seconds, 4)
            told[f"{name}_tokens_per_second"] = part.rate(tokens)
        told["compile_seconds"] = round(sum(part.compiling for part in self.parts.values()), 4)
        return told | {"peak_memory_bytes": machine.peak_memory()}

    def report(self) -> str:
        """One line: tokens a second of prompt and decoding, and peak memory."""
        told = self.figures()
        whole = f"{self.done:,}" if self.done == self.prompt else f"{self.done:,} of {self.prompt:,}"
        said = [f"prompt: {whole} tokens in {took(told, 'prompt')}"]
        if told["decode_tokens"]:
            said.append(f"decoding: {told['decode_tokens']:,} tokens in {took(told, 'decode')}")
        if told["compile_seconds"]:
            said.append(f"{told['compile_seconds']:.1f} s more for compiling kernels")
        if told["peak_memory_bytes"]:
            said.append(f"peak memory {human(told['peak_memory_bytes'])}")
        return "; ".join(said)


class Stretch:
    """Seconds spent inside it, those of compiling apart."""

    def __init__(self) -> None:
        self.seconds = self.compiling = 0.0

    def __enter__(self) -> None:
        self.start, self.compiled = time.perf_counter(), compile_seconds()

    def __exit__(self, *error: object) -> None:
        compiling = compile_seconds() - self.compiled
        self.compiling += compiling
        self.seconds += time.perf_counter() - self.start - compiling

    def rate(self, tokens: int) -> float | None:
        """Tokens a second."""
        return round(tokens / self.seconds, 2) if tokens and self.seconds > 0 else None


def took(told: dict[str, Any], part: str) -> str:
    """2.41 s (15.2 tokens/s)"""
    rate = told[f"{part}_tokens_per_second"]
    return f"{told[f'{part}_seconds']:.2f} s" + (f" ({rate:.1f} tokens/s)" if rate else "")

