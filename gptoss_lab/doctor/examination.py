"""Examining a machine: what it is, which models run on it, and how fast.

A model's verdict is the memory arithmetic of `cost` against what is here; its speed follows from a few
seconds of measuring (`machine`, `rates`). What cannot be found out is said, in `trouble`, and does not keep
the rest from being said. Nothing uses the network.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import __version__, machine, rates
from ..config import NAMED, Config
from ..cost import checkpoint_bytes, memory_parts, parameters, widens
from ..generation import CHUNK, generate
from ..kernels import compile_seconds, form
from ..weights import load
from ..weights.loading import SMALL
from ..weights.places import find, hub_cache
from ..weights.plans import FAST

CONTEXT = 1024  # tokens for which memory is counted first; then for twice as many, and so on
MINIATURE = "mini-oss"
TEXT, TOKENS = "It is a truth universally acknowledged, that", 32


class Doctor:
    """An examination: `found` grows by what each `look` returns; what one cannot find out goes into
    `trouble`.
    """

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.trouble: list[str] = []

    def look(self, what: str, how: Callable[[], Any]) -> None:
        """One thing, whatever may be wrong with it here."""
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                self.found[what] = how()
            self.trouble += [f"{what}: {one.message}" for one in warned if one.category is UserWarning]
        except Exception as error:  # whatever a strange machine may bring: the rest is still worth saying
            self.found[what] = None
            self.trouble.append(f"{what}: {type(error).__name__}: {error}")


def examine() -> dict[str, Any]:
    """All that is found, as JSON has it; bytes, seconds, FLOP and tokens a second."""
    doctor = Doctor()
    look, found = doctor.look, doctor.found
    found |= {"gptoss_lab": __version__, "date": datetime.date.today().isoformat(), "context": CONTEXT}
    look("processor", lambda: vars(machine.processor()))
    look("memory", lambda: vars(there) if (there := machine.memory()) else None)
    look("disk", disk)
    look("device", device)
    look("software", software)
    look("busy", lambda: os.getloadavg()[0] if hasattr(os, "getloadavg") else None)
    look("speed", speed)
    look("kernels", kernels)
    look("miniature", miniature)
    look("models", lambda: [model(config, found) for config in NAMED.values()])
    return found | {"trouble": doctor.trouble}


def disk() -> dict[str, Any]:
    """Where models are kept, and how much room there is."""
    own = os.environ.get("GPTOSS_LAB_HOME")
    folder = (Path(own).expanduser() if own else hub_cache()).absolute()
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    return {"folder": short(folder), "free": shutil.disk_usage(there).free}


def short(path: Path) -> str:
    """A path that can be sent around: the user's own folder as ~."""
    try:
        return str(Path("~") / path.resolve().relative_to(Path.home().resolve()))
    except (ValueError, RuntimeError):
        return str(path)


def device() -> dict[str, Any]:
    """The best device: cuda, mps or cpu."""
    if torch.cuda.is_available():
        best = torch.cuda.get_device_properties(0)
        return {"type": "cuda", "name": best.name, "memory": best.total_memory}
    return {"type": "mps" if torch.backends.mps.is_available() else "cpu"}


def software() -> dict[str, Any]:
    """Versions; None for what is not installed."""
    told: dict[str, Any] = {"system": f"{platform.system()} {platform.release()} ({platform.machine()})"}
    told |= {"python": platform.python_version(), "torch": torch.__version__}
    try:
        told["numba"] = importlib.metadata.version("numba")
    except importlib.metadata.PackageNotFoundError:
        told["numba"] = None
    return told


def speed() -> dict[str, Any]:
    """Bytes and FLOP a second, of the machine and of each way to hold weights that a known model takes."""
    before, start = compile_seconds(), time.perf_counter()
    ways = dict.fromkeys(load.way for config in NAMED.values() for load in rates.loads(config))
    told: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "read": machine.bandwidth(),
        "product": machine.product_rate(),
        "ways": {name: {"vector": way.vector, "many": way.many} for name, way in rates.measure(ways).items()},
    }
    compiling = compile_seconds() - before
    return told | {"seconds": time.perf_counter() - start - compiling, "compile_seconds": compiling}


def kernels() -> dict[str, Any]:
    """Which kernels multiply weights as they are stored, and where compiled ones are kept."""
    chosen = form()
    folder = chosen.folder
    return {"form": chosen.name, "folder": short(Path(folder)) if folder else None}


def miniature() -> dict[str, Any]:
    """The shipped model, run: whether everything works."""
    run = generate(load(MINIATURE), TEXT, max_tokens=TOKENS)
    steps = iter(run)
    next(steps)
    start = time.perf_counter()
    count = sum(1 for _ in steps)
    return {"name": MINIATURE, "text": TEXT + run.text, "decode": count / (time.perf_counter() - start)}


def needs(config: Config, context: int) -> dict[str, int]:
    """Bytes that a model takes part by part, as `load(name)` on the CPU holds it, with a context of so many
    tokens.
    """
    small = 4 * parameters(config) <= SMALL
    held = 4 * parameters(config) if small else checkpoint_bytes(config)
    widened = not small and widens(config, config.name in FAST)
    fast = config.name in FAST
    return memory_parts(config, {"weights": held}, context, min(context, CHUNK), widened, fast=fast)


def model(config: Config, found: dict[str, Any]) -> dict[str, Any]:
    """One model: what it takes, whether it runs here, and the tokens a second that its weights allow."""
    memory, speed = found["memory"], found["speed"]
    context = min(CONTEXT, config.context)
    parts = needs(config, context)
    needed, verdict = sum(parts.values()), "unknown"
    told: dict[str, Any] = {"name": config.name, "context": context, "needed": needed, "parts": parts}
    if memory:
        fits = needed <= memory["total"]
        verdict = "runs" if needed <= memory["free"] else "close programs" if fits else "does not fit"
        room = memory["free"] if verdict == "runs" else memory["total"]
        doubled = [context << n for n in range(20) if context << n < config.context] + [config.context]
        longest = [size for size in doubled if sum(needs(config, size).values()) <= room]
        told["longest"] = max(longest, default=0)
    told |= {"verdict": verdict, "files": is_here(config.name), "fetch": checkpoint_bytes(config)}
    if speed:
        ways = {name: rates.Way(name, **way) for name, way in speed["ways"].items()}
        asked = rates.loads(config)
        decode, prompt = rates.arithmetic(asked, ways)
        told["decode"] = 1 / rates.decode_seconds(asked, ways)
        told["prompt"] = 1 / rates.prompt_seconds(asked, ways)
        told |= {"decode_sum": decode, "prompt_sum": prompt}
        told["decode_limit"] = speed["read"] / sum(one.bytes for one in asked)
        told["prompt_limit"] = speed["product"] / sum(one.flop for one in asked)
    return told


def is_here(name: str) -> bool:
    """Whether a model's files are on this machine."""
    try:
        find(name)
    except ValueError:
        return False
    return True
