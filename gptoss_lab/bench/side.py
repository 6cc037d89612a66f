"""One side of a comparison: a process of its own, which answers requests, a line of JSON each.

    python -m gptoss_lab.bench.side '{"kind": "ours", "model": "mini-oss", "device": "cpu", …}'

    {"do": "ready"}                                answered once everything is imported
    {"do": "load"}                                 load the model
    {"do": "read"}                                 read the files that stay mapped into memory
    {"do": "touch"}                                touch every page of them, to keep them there
    {"do": "tokens", "prompt": 128, "count": 64}   a prompt of made-up ids, then tokens: seconds of each
    {"do": "about"}                                versions, and which arithmetic it is
    {"do": "peak"}                                 bytes: of the process, and on the device

Every answer has `seconds`, or `error`. The process ends when nothing more is asked. It enters its memory
group before it imports anything large.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

KINDS = ("ours", "llama.cpp", "llama.cpp-mapped", "transformers", "transformers-loop")
PIECE = 1 << 24
Stamped = tuple[list[int], list[float]]


class Side(Protocol):
    """What each side can do."""

    def load(self) -> None:
        """Load the model."""

    def files(self) -> list[Path]:
        """The files that stay mapped while it runs."""

    def tokens(self, prompt: list[int], count: int) -> Stamped:
        """The likeliest token after a prompt, and so on, `count` in all, stopping at none: ids, and what the
        clock (time.perf_counter) said when each was there."""

    def touch(self) -> None:
        """Touch every page that is mapped and used."""

    def about(self) -> dict[str, Any]:
        """Versions, and which arithmetic it is."""


def make(setup: dict[str, Any]) -> Side:
    """The side that a setup describes."""
    if setup["kind"] == "ours":
        from .ours import Ours

        return Ours(setup)
    if setup["kind"].startswith("llama.cpp"):
        from .llama import Llama

        return Llama(setup)
    from .reference import Reference

    return Reference(setup)


def stamped(tokens: Iterable[int]) -> Stamped:
    """Ids as they come, and when."""
    ids, stamps = [], []
    for token in tokens:
        stamps.append(time.perf_counter())
        ids.append(token)
    return ids, stamps


def prompt_of(length: int, vocabulary: int) -> list[int]:
    """Made-up ids, the same every time."""
    dice = random.Random(length)
    return [dice.randrange(vocabulary) for _ in range(length)]


def answer(side: Side, request: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    """What one request comes to."""
    if request["do"] == "tokens":
        prompt = prompt_of(request["prompt"], vocabulary)
        begun = time.perf_counter()
        ids, stamps = side.tokens(prompt, request["count"])
        return {"ids": ids, "each": [after - before for before, after in pairwise([begun, *stamps])]}
    if request["do"] == "read":
        size = sum(map(read_through, side.files()))
        side.touch()
        return {"bytes": size}
    if request["do"] in ("ready", "peak"):
        return peak() if request["do"] == "peak" else {}
    method = getattr(side, request.pop("do"))
    return method(**request) or {}


def read_through(path: Path) -> int:
    """Read a file once; its bytes."""
    buffer, total = bytearray(PIECE), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total


def peak() -> dict[str, int]:
    """The most bytes of main memory that this process had, mapped files included; and of a device's."""
    found = {}
    try:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        found["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    except ImportError:  # Windows
        pass
    if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
        found["device"] = torch.cuda.max_memory_allocated()
    return found


def main(argv: list[str]) -> int:
    """Answer on the standard output we were given; what libraries print goes to standard error."""
    setup = json.loads(argv[0])
    if setup.get("group"):
        Path(setup["group"]).write_text(str(os.getpid()))
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    side = None
    for line in sys.stdin:
        begun = time.perf_counter()
        try:
            side = side or make(setup)
            said = answer(side, json.loads(line), setup["vocabulary"])
        except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({**said, "seconds": time.perf_counter() - begun}), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
