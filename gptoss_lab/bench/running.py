"""The parts run one after another, each written down when it is done; stopped and gone on with.

The file of results holds what was asked, the machine, the versions, the command, and a fingerprint of the
code that ran: parts of another machine, of other code or of another question are not mixed with new ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..cost import PROGRAM_BYTES, bytes_per_token, checkpoint_bytes, flop_per_token, human
from ..files import read_object, whole
from ..study.findings import machine as machine_kind
from ..study.findings import now, versions
from ..terminal import printable
from .parts import PROMPT, Asked, machine_figures, parts
from .report import table

PACKAGE = Path(__file__).parent.parent
TIMED = ("generation.py", "kernels", "model", "tap.py", "weights")  # rooms that what is timed runs in
TIMING = tuple(
    f"bench/{name}.py"
    for name in ("blocks", "groups", "llama", "machine", "ours", "parts", "reference", "side")
)
SAME = ("asked", "machine", "code")
ANEW = "--fresh starts again, --out names another file"


def code() -> str:
    """A fingerprint of what runs while something is timed."""
    digest = hashlib.sha256()
    for place in (PACKAGE / name for name in TIMED + TIMING):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def question(asked: Asked, command: list[str]) -> dict[str, Any]:
    """What a file of results says of itself; no path of this machine."""
    return {
        "model": asked.config.name,
        "weights": described(asked.files),
        "checkpoint": checkpoint_bytes(asked.config),
        "a token": {  # of a prompt, of which the last alone has logits
            "bytes": sum(bytes_per_token(asked.config).values()),
            "FLOP": flop_per_token(asked.config, PROMPT) - 2 * asked.config.vocab_size * asked.config.d_model,
        },
        "asked": {
            "sides": list(asked.sides), "limits": list(asked.limits), "rounds": asked.rounds,
            "prompts": list(asked.prompts), "long prompts": list(asked.long_prompts),
            "context": asked.context, "accuracy": asked.accuracy,
            "device": asked.device, "threads": asked.threads, "kernels": asked.kernels,
        },
        "machine": machine_kind(torch.device(asked.device)),
        "versions": versions(),
        "code": code(),
        "command": " ".join(Path(word).name if os.sep in word else word for word in command),
        "parts": {},
    }  # fmt: skip


def described(files: tuple[Path, ...]) -> str:
    """What the files say of their weights, as "random, seed 0"; "" where they say nothing."""
    if not files:
        return ""
    with safe_open(files[0], framework="pt") as opened:
        return printable((opened.metadata() or {}).get("weights", ""))


def bench(
    asked: Asked,
    out: Path | None,
    command: list[str],
    minutes: float | None = None,
    fresh: bool = False,
    plan_only: bool = False,
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Measure, saying each step; what was found, `left` naming the parts that are still to be done.

    out: the file of results, which the same command goes on with. minutes: begin no further part after so
    long. ValueError where the file holds results of another question, machine or code, or no results.
    """
    if minutes is not None and not 0 <= minutes < math.inf:
        raise ValueError(f"--minutes {minutes:g}; expected 0 or more")
    begun, found = time.monotonic(), question(asked, command)
    if out is not None and out.exists() and not fresh:
        found = merged(read_object(out, ANEW), found, out)
    torch.set_num_threads(asked.threads)
    done: dict[str, Any] = found["parts"]
    if "machine" not in done:
        say("measuring the machine's memory and products (3 seconds)")
        figures = partial(machine_figures, torch.device(asked.device))
        keep(found, "machine", figures, None if plan_only else out)
    todo = parts(asked, done["machine"])
    left = [part for part in todo if part.name not in done]
    lasting = sum(part.seconds for part in left)
    limits = f", within {', '.join(human(limit) for limit in asked.limits)}" if asked.limits else ""
    kept = "" if out is None else "; Ctrl-C keeps those that are done"
    held = human(found["checkpoint"] + PROGRAM_BYTES)
    say(f"{found['model']}: {human(found['checkpoint'])} of weights{limits}; {len(left)} of {len(todo)} "
        f"parts to do, about {lasting / 60:.0f} min and {held} of memory{kept}")  # fmt: skip
    for number, part in enumerate(todo, 1):
        if part.name in done:
            continue
        about = f"[{number}/{len(todo)}] {part.name}, about {part.seconds:.0f} s"
        if plan_only:
            say(about)
            continue
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            say(f"{minutes:g} minutes are over; the same command goes on")
            break
        say(about)
        keep(found, part.name, part.run, out)
    found["left"] = [part.name for part in todo if part.name not in done]
    if not plan_only:
        say("\n" + table(found))
    return found


def keep(found: dict[str, Any], name: str, run: Callable[[], dict[str, Any]], out: Path | None) -> None:
    """Run a part and write it down, with its time."""
    begun = time.monotonic()
    result = run()
    found["parts"][name] = {"at": now(), "lasted": round(time.monotonic() - begun, 1), **result}
    if out is not None:
        with whole(out) as beside:
            beside.write_text(json.dumps(rounded(found), indent=1) + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """Floats in five digits: more are noise."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def merged(old: dict[str, Any], new: dict[str, Any], out: Path) -> dict[str, Any]:
    """What a file holds, to go on with; ValueError where it answers another question."""
    other = [name for name in ("model", "weights", *SAME) if old.get(name) != rounded(new)[name]]
    if other:
        raise ValueError(f"{out} holds results of another {' and '.join(other)}; {ANEW}")
    done = old.get("parts")
    if not isinstance(done, dict) or not all(isinstance(part, dict) for part in done.values()):
        raise ValueError(f"{out} holds no parts, or damaged ones; {ANEW}")
    return {**new, "parts": done}
