"""A side started in a process of its own, asked, and ended; what that took, held and read from disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .groups import Group, Unavailable, make

KILLED = 9


class Ended(ValueError):
    """A side that could not answer, or is no more; the message says how it ended."""


class Running:
    """A side's process. `ask` waits for its answer."""

    def __init__(
        self, setup: dict[str, Any], group: Group | None, more: dict[str, str] | None = None
    ) -> None:
        self.group, self.kind = group, setup["kind"]
        said = {**setup, "group": str(group.entry) if group else None}
        threads = {"OMP_NUM_THREADS": str(setup["threads"])}
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.side", json.dumps(said)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
            env={**os.environ, **threads, **offline, **(more or {})}, start_new_session=True,
        )  # fmt: skip

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """The answer to one request, with the bytes that it read from disk (None: the system does not say).

        Ended where the side failed or was killed.
        """
        assert self.process.stdin and self.process.stdout
        before, line = self.from_disk(), ""
        try:
            self.process.stdin.write(json.dumps({"do": do, **details}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            status = self.process.wait()
            how = f"ended with status {status}"
            if status == -KILLED:
                how = "was killed by the system, as it does when a limit is reached"
            raise Ended(f"{self.kind} {how}, while it was asked to {do}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise Ended(f"{self.kind} cannot {do}: {said['error']}")
        after = self.from_disk()
        return {**said, "disk": None if before is None or after is None else after - before}

    def from_disk(self) -> int | None:
        """Bytes that this process had fetched from disk so far, its mapped files included; None elsewhere."""
        try:
            lines = Path(f"/proc/{self.process.pid}/io").read_text().splitlines()
        except OSError:
            return None
        return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])

    def since(self) -> float:
        """Seconds since the process was started."""
        return time.perf_counter() - self.begun

    def end(self) -> None:
        """End it: nothing more is asked; one that still works is killed."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=10)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextmanager
def running(
    setup: dict[str, Any], group: Group | None, more: dict[str, str] | None = None
) -> Iterator[Running]:
    """A side's process, ended with the block. more: further variables of its environment."""
    side = Running(setup, group, more)
    try:
        yield side
    except KeyboardInterrupt:
        side.process.kill()
        raise
    finally:
        side.end()


@contextmanager
def grouped(limit: float | None) -> Iterator[Group | None]:
    """A memory group; None where none can be made and no limit is to be held. Unavailable where one is."""
    try:
        group = make(limit)
    except Unavailable:
        if limit is not None:
            raise
        yield None
        return
    try:
        yield group
    finally:
        group.remove()
