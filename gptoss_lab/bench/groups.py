"""A memory group: the kernel holds a process to a number of bytes, the files it reads included (Linux).

    memory cgroup v1    memory.limit_in_bytes, memory.max_usage_in_bytes
    memory cgroup v2    memory.max, memory.peak

A page of a file is charged to the group that touches it first. So files that a run is to pay for are put out
of memory before it (`forget`), and what stays there, because another process holds it, is counted
(`resident`). Elsewhere, and where no group may be made, Unavailable says why.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MOUNTED, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class Unavailable(ValueError):
    """No memory group can be made here; the message says why."""


@dataclass(frozen=True)
class Files:
    """What a kernel calls the files of a group: its limit, its peak, and its two kinds of pages."""

    limit: str
    peak: str
    anonymous: str
    file: str


V1 = Files("memory.limit_in_bytes", "memory.max_usage_in_bytes", "total_rss", "total_cache")
V2 = Files("memory.max", "memory.peak", "anon", "file")


@dataclass(frozen=True)
class Group:
    """A group of its own for one process and what it starts."""

    folder: Path
    files: Files

    @property
    def entry(self) -> Path:
        """The file into which a process writes its number to enter."""
        return self.folder / "cgroup.procs"

    def peak(self) -> int | None:
        """The most bytes it held so far, pages of files included; None where this kernel does not say."""
        with suppress(OSError, ValueError):
            return int((self.folder / self.files.peak).read_text())
        return None

    def holds(self) -> dict[str, int]:
        """Bytes that it holds now: `anonymous`, and `file`, pages of files."""
        lines = (self.folder / "memory.stat").read_text().splitlines()
        said = {name: int(value) for name, value in (line.split() for line in lines if line.count(" ") == 1)}
        return {"anonymous": said[self.files.anonymous], "file": said[self.files.file]}

    def remove(self) -> None:
        """Remove it, once it is empty; a process that ends takes a moment to leave it."""
        for _ in range(50):
            try:
                return self.folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.1)


def make(limit: float | None, mounted: Path = MOUNTED, own: Path = OWN) -> Group:
    """A new group within this process's own, held to `limit` bytes (None: only counted).

    Unavailable where the system has no such groups or this user may make none.
    """
    parent, files = find(mounted, own)
    group = Group(parent / f"gptoss-lab-bench-{os.getpid()}-{time.monotonic_ns()}", files)
    try:
        group.folder.mkdir()
    except OSError as error:
        raise Unavailable(f"no memory group can be made in {parent}: {error.strerror}") from None
    try:
        if limit is not None:
            (group.folder / files.limit).write_text(str(int(limit)))
        swap = group.folder / "memory.swap.max"  # v2 alone; the limit of v1 leaves swap as it is
        if limit is not None and swap.exists():
            swap.write_text("0")
        if not (group.folder / files.limit).exists():
            raise OSError(0, "its memory is not counted")
    except OSError as error:
        group.remove()
        raise Unavailable(f"a memory group in {parent} takes no limit: {error.strerror}") from None
    return group


def find(mounted: Path, own: Path) -> tuple[Path, Files]:
    """The folder of the group that this process is in, and what its files are called."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        raise Unavailable("this system has no memory groups (they are Linux's)") from None
    for _, controllers, path in lines:
        if "memory" in controllers.split(",") and (mounted / "memory").is_dir():
            return mounted / "memory" / path.lstrip("/"), V1
    for number, controllers, path in lines:
        folder = mounted / path.lstrip("/")
        if number == "0" and not controllers and (folder / "cgroup.controllers").is_file():
            if "memory" not in (folder / "cgroup.subtree_control").read_text().split():
                raise Unavailable(
                    f"{folder} hands no memory control down to groups within it; a limit for the whole "
                    "command: systemd-run --user --scope -p MemoryMax=16000000000 gptoss-lab bench ..."
                )
            return folder, V2
    raise Unavailable(f"no memory groups are mounted at {mounted}")


def forget(paths: Iterable[Path]) -> None:
    """Ask the system to put files out of memory; pages that a process has mapped stay."""
    for path in paths:
        if hasattr(os, "posix_fadvise"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident(paths: Iterable[Path]) -> int | None:
    """Bytes of files that lie in memory; None where the system does not say."""
    try:
        mincore, total = ctypes.CDLL(None, use_errno=True).mincore, 0
    except (AttributeError, OSError):
        return None
    for path in paths:
        size = path.stat().st_size
        if not size:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as pages:
            here = ctypes.c_char.from_buffer(pages)
            found = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
            failed = mincore(ctypes.byref(here), ctypes.c_size_t(size), found)
            del here  # the map cannot be closed while something points into it
            if failed:
                return None
        total += sum(page & 1 for page in bytes(found)) * mmap.PAGESIZE
    return total
