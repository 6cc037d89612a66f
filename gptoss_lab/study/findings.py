"""What a verification writes down: checks, hashes of files, and the kind of machine, without its name."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..terminal import printable


@dataclass
class Findings:
    """What was found, check by check, said at once: PASS, FAIL, or NOTE where nothing is there to compare.

    `places` are folders that are said and not written down; the home folder is not either.
    """

    say: Callable[[str], object]
    places: tuple[Path, ...] = ()
    checks: list[dict[str, str]] = field(default_factory=list)

    def add(self, result: str, what: str, detail: str) -> None:
        """One more."""
        self.say(printable(f"{result}  {what}: {detail}"))
        for place, instead in [*((place, "FOLDER") for place in self.places), (Path.home(), "~")]:
            detail = detail.replace(str(place), instead) if len(place.parts) > 1 else detail
        self.checks.append({"what": what, "result": result, "detail": detail})

    def judge(self, right: bool, what: str, detail: str) -> None:
        """PASS or FAIL."""
        self.add("PASS" if right else "FAIL", what, detail)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check["result"] != "FAIL" for check in self.checks)


def sha256_of(path: Path) -> str:
    """The sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def machine(device: torch.device) -> dict[str, Any]:
    """What kind of machine this is; nothing that names it."""
    processor, cpus = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    for line in cpus.read_text().splitlines() if cpus.is_file() else []:
        processor = line.partition(":")[2].strip() if line.startswith("model name") else processor
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": os.cpu_count(),
        "memory": main_memory(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def versions() -> dict[str, str]:
    """What computed the figures."""
    return {"gptoss_lab": __version__, "torch": torch.__version__, "python": platform.python_version()}


def main_memory() -> int | None:
    """Bytes of main memory, where the system tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
