"""What is measured, part by part: first tokens, rounds in turn, a long context, less memory, accuracy.

A part is done in one go and then written down. Within a round every side runs once, one after the other, each
in a process and a memory group of its own, from files that were put out of memory before: two models that
together exceed main memory would otherwise push each other out. The order changes from round to round. Where
memory is limited, rounds after the first have ours and the first of the others alone, to last no longer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..config import Config
from ..cost import bytes_per_token, checkpoint_bytes, flop_per_token
from . import machine
from .blocks import Ended, grouped, running
from .groups import forget, resident

TOKENS, PROMPT = 64, 128  # decoded, after a prompt of
WARM = {"prompt": 16, "count": 4}  # asked first, and thrown away
DISK = 1.2e9  # bytes a second, guessed, for the estimates alone
START = 6.0  # seconds that a process takes to be ready, guessed


@dataclass(frozen=True)
class Asked:
    """What to measure. `limits`: bytes, the first for everything, each further one for decoding under it."""

    model: str
    config: Config
    files: tuple[Path, ...]
    beside: tuple[str, ...] = ()
    gguf: Path | None = None
    limits: tuple[float, ...] = ()
    rounds: int = 1
    prompts: tuple[int, ...] = (128, 512)
    long_prompts: tuple[int, ...] = ()
    context: int = 0
    accuracy: int = 0
    device: str = "cpu"
    threads: int = 1
    kernels: str | None = None

    @property
    def limit(self) -> float | None:
        """The limit for everything."""
        return self.limits[0] if self.limits else None

    @property
    def sides(self) -> tuple[str, ...]:
        """Ours, and those beside it."""
        return ("ours", *self.beside)

    def setup(self, kind: str) -> dict[str, Any]:
        """What a side's process is told."""
        longest = max(PROMPT + TOKENS, *self.prompts, *self.long_prompts) + 1
        return {
            "kind": kind, "model": self.model, "gguf": str(self.gguf), "device": self.device,
            "threads": self.threads, "vocabulary": self.config.vocab_used or self.config.vocab_size,
            "context": longest, "kernels": self.kernels,
        }  # fmt: skip

    def weights(self, kind: str) -> list[Path]:
        """The files that a side reads."""
        return [self.gguf] if kind.startswith("llama.cpp") and self.gguf else list(self.files)


@dataclass(frozen=True)
class Part:
    """A part's name, about how many seconds it takes, and what does it."""

    name: str
    seconds: float
    run: Callable[[], dict[str, Any]]


def parts(asked: Asked, speed: dict[str, float]) -> list[Part]:
    """All parts, in order. speed: what `machine_figures` found, for the estimates."""
    size = checkpoint_bytes(asked.config)
    token = sum(bytes_per_token(asked.config).values()) / speed["bandwidth"] * 1.4 + 0.002
    prompt = flop_per_token(asked.config, 512) / speed["products"] * 1.4 + 1e-5
    start, read = START + size / DISK, size / DISK
    decoding = TOKENS * token + PROMPT * prompt
    once = start + read + decoding + sum(asked.prompts) * prompt
    found = [
        Part(f"first token: {kind}", 3 * START + 2 * size / DISK, partial(first_token, asked, kind))
        for kind in asked.sides
    ]
    for number in range(1, asked.rounds + 1):
        taking = asked.sides if number == 1 or not asked.limits else asked.sides[:2]
        order = taking if number % 2 else taking[::-1]
        found.append(Part(f"round {number}", len(order) * once, partial(one_round, asked, order)))
    if asked.long_prompts:
        taking = asked.sides[:2]
        lasts = 2 * (start + read + decoding + sum(asked.long_prompts) * prompt)
        found.append(Part("long prompts", lasts, partial(one_round, asked, taking, asked.long_prompts)))
    if asked.context:
        lasts = start + read + 10 * 16 * token
        found.append(Part("long context", lasts, partial(long_context, asked)))
    for limit in asked.limits[1:]:
        missing = max(size + 1e9 - limit, 0) / size  # of what a token reads, from disk
        slow = TOKENS * (token + missing * sum(bytes_per_token(asked.config).values()) / 4e8)
        for kind in asked.sides:
            lasts = start + slow + PROMPT * prompt + read
            found.append(Part(f"within {limit:.4g} bytes: {kind}", lasts, partial(less, asked, kind, limit)))
    if asked.accuracy:
        lasts = START + size / 5e7 + asked.accuracy * prompt
        found.append(Part("accuracy", lasts, partial(accuracy, asked)))
    return found


def machine_figures(device: torch.device) -> dict[str, Any]:
    """Bandwidth and products, measured now."""
    figures = machine.products(device)
    return {
        "bandwidth": machine.bandwidth(device), "products": max(figures.values()),
        **{f"products, {dtype}": value for dtype, value in figures.items()},
    }  # fmt: skip


def first_token(asked: Asked, kind: str) -> dict[str, Any]:
    """From starting a process to the first token after a prompt of one: from disk, and again; and, where our
    kernels are compiled, with none of them kept from before."""
    found: dict[str, Any] = {}
    forget(asked.weights(kind))
    compiled = False
    with grouped(asked.limit) as group, tempfile.TemporaryDirectory() as empty:
        for case, more in (("cold", {}), ("warm", {}), ("nothing compiled", {"NUMBA_CACHE_DIR": empty})):
            if case == "nothing compiled" and not compiled:
                continue
            with running(asked.setup(kind), group, more) as side:
                try:
                    side.ask("ready")
                    ready = side.since()
                    load = side.ask("load")
                    first = side.ask("tokens", prompt=1, count=1)
                    found[case] = {
                        "ready": ready, "load": load["seconds"], "first": first["seconds"],
                        "all": side.since(), "disk": side.from_disk(),
                    }  # fmt: skip
                    compiled = "fast" in side.ask("about").get("arithmetic", "")
                except Ended as error:
                    return {**found, "ended": str(error)}
    return found


def one_round(asked: Asked, order: tuple[str, ...], prompts: tuple[int, ...] | None = None) -> dict[str, Any]:
    """Every side once: decoding, and prompts."""
    return {
        kind: block(asked, kind, asked.limit, asked.prompts if prompts is None else prompts) for kind in order
    }


def less(asked: Asked, kind: str, limit: float) -> dict[str, Any]:
    """One side's decoding within less memory."""
    return {kind: block(asked, kind, limit, ())}


def block(asked: Asked, kind: str, limit: float | None, prompts: tuple[int, ...]) -> dict[str, Any]:
    """One side, from its start to its end. One that fails or is killed is told as `ended`, not an error."""
    device, files = torch.device(asked.device), asked.weights(kind)
    found: dict[str, Any] = {"limit": limit, "prompts": {}, "disk": {}, "bandwidths": []}
    forget(files)
    found["stayed in memory"] = resident(files)
    with grouped(limit) as group, running(asked.setup(kind), group) as side:
        try:
            side.ask("ready")
            found["load"] = side.ask("load")["seconds"]
            roomy = limit is None or limit > sum(path.stat().st_size for path in files)
            if roomy:
                found["read"] = side.ask("read")["seconds"]
            side.ask("tokens", **WARM)
            for length, count in [(PROMPT, TOKENS), *((length, 1) for length in prompts if length != PROMPT)]:
                if roomy:
                    side.ask("touch")
                found["bandwidths"].append(machine.bandwidth(device))
                said = side.ask("tokens", prompt=length, count=count)
                found["prompts"][str(length)], found["disk"][str(length)] = said["each"][0], said["disk"]
                if count > 1:
                    found["decode"] = {"each": said["each"][1:], "ids": said["ids"]}
                    found["bandwidths"].append(machine.bandwidth(device))
            found["about"] = side.ask("about")
            found["peak"] = side.ask("peak")
        except Ended as error:
            found["ended"] = str(error)
        if group:
            found["peak"] = {**found.get("peak", {}), "group": group.peak()}
            found["holds"] = group.holds()
    return found


def long_context(asked: Asked) -> dict[str, Any]:
    """Ours: decoding with a full cache, and with a short one, in turn."""
    return ours_alone(asked, "context", long=asked.context, short=PROMPT, count=16)


def accuracy(asked: Asked) -> dict[str, Any]:
    """Ours: fast kernels against exact ones."""
    return ours_alone(asked, "accuracy", tokens=asked.accuracy)


def ours_alone(asked: Asked, do: str, **details: Any) -> dict[str, Any]:
    """One request to our side, after it has read its weights."""
    with grouped(asked.limit) as group, running(asked.setup("ours"), group) as side:
        try:
            side.ask("load")
            side.ask("read")
            side.ask("tokens", **WARM)
            side.ask("touch")
            return side.ask(do, **details)
        except Ended as error:
            return {"ended": str(error)}
