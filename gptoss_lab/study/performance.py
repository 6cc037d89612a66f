"""The benchmark's recorded results, as `gptoss-lab bench --out` writes them: the newest, and what it says.

    found = recorded("gpt-oss-20b")     # None where nothing is recorded
    medians(found)["decode"]            # {"ours": 5.1, "llama.cpp": 4.9}, tokens a second

Results lie in assets/results, as performance….json or in a folder `performance`. Nothing here measures, and
no figure is a promise for another machine.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

Found = dict[str, Any]
RESULTS = Path(__file__).parent.parent / "assets" / "results"


def recorded(model: str, folder: Path = RESULTS) -> Found | None:
    """The newest results of a model that hold at least one round, or None. ValueError for a damaged file."""
    usable = []
    for path in [*folder.glob("performance*.json"), *folder.glob("performance/*.json")]:
        try:
            found = json.loads(path.read_text("utf-8"))
            if found["model"] == model and rounds(found):
                usable.append((max(part.get("at", "") for part in found["parts"].values()), path.name, found))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} does not hold the results of gptoss-lab bench: {error!r}") from error
    return max(usable, key=lambda one: one[:2])[2] if usable else None


def rounds(found: Found) -> list[Found]:
    """The rounds in which every side ran once, in order."""
    return [part for name, part in found["parts"].items() if name.startswith("round ")]


def medians(found: Found) -> dict[str, dict[str, float]]:
    """Tokens a second by what was done ("decode", "prompt of 128", …) and by side: medians over the rounds.

    A side that did not live to tell is left out, and so is one that ran in fewer than half of the rounds: its
    median would be of other minutes.
    """
    each: dict[str, dict[str, list[float]]] = {}
    for part in rounds(found):
        for side, block in part.items():
            if not isinstance(block, dict):  # when the part ran, and how long
                continue
            if seconds := block.get("decode", {}).get("each"):
                each.setdefault("decode", {}).setdefault(side, []).append(len(seconds) / sum(seconds))
            for length, lasted in block.get("prompts", {}).items():
                name = f"prompt of {int(length):,}"
                each.setdefault(name, {}).setdefault(side, []).append(int(length) / lasted)
    return {
        what: {side: statistics.median(rates) for side, rates in by.items()
               if 2 * len(rates) >= max(map(len, by.values()))}
        for what, by in each.items()
    }  # fmt: skip


def allowed(found: Found) -> dict[str, float]:
    """Tokens a second that the machine's measured bandwidth allows for decoding, its products for prompts.

    Empty where the machine was not measured.
    """
    machine, token = found["parts"].get("machine", {}), found.get("a token", {})
    named = {"decode": ("bandwidth", "bytes"), "prompts": ("products", "FLOP")}
    return {
        what: machine[has] / token[needs]
        for what, (has, needs) in named.items()
        if has in machine and needs in token
    }


def peak(found: Found, side: str = "ours") -> float | None:
    """The most bytes that a side held in any round: its memory group where there was one, else its
    process."""
    held = [part[side].get("peak", {}) for part in rounds(found) if isinstance(part.get(side), dict)]
    kinds = ("device", "group", "process")
    most = [next((one[kind] for kind in kinds if one.get(kind)), 0.0) for one in held]
    return max(most, default=0.0) or None


def about(found: Found) -> str:
    """Whose figures these are, in a line: model, weights, machine, day."""
    machine, versions = found.get("machine", {}), found.get("versions", {})
    days = sorted(part["at"][:10] for part in found["parts"].values() if part.get("at"))
    weights = found.get("weights") or "weights not described"
    where = f"{machine.get('processor', 'unknown processor')}, {machine.get('cores', '?')} cores"
    made = f"gptoss_lab {versions.get('gptoss_lab', '?')}, torch {versions.get('torch', '?')}"
    day = days[-1] if days else "no date"
    return f"{found['model']}'s shapes and bytes, {weights}; {where}; {made}; {day}"
