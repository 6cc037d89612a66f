"""What this machine has and how fast it is: processor, memory, bytes and products a second.

    bandwidth()       bytes a second that the processor reads from memory, all threads of torch together
    product_rate()    floating-point operations a second in a float32 matrix product
    memory()          bytes in all and bytes that a new program can have
    peak_memory()     the most bytes that this process has held so far

The first two bound a model from above: a decoded token reads its weights once, a prompt's token multiplies
with them once (`cost.bytes_per_token`, `cost.flop_per_token`). They are measured, so they differ from one run
to the next, by a tenth or more where something else runs.

Linux was tried. macOS and Windows are asked in their own words (sysctl, vm_stat; kernel32), untried.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

BUFFER = 512_000_000  # bytes: more than any processor's caches hold, but for the largest servers'
ROWS, WIDTH = 512, 2880  # a chunk of a prompt through a square matrix of gpt-oss
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_FILES = {  # version 2, and version 1
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}
FILE_CACHE = r"^(?:active|inactive)_file (\d+)"
MEGA = 1 << 20
MOST_THREADS = 1024


def require_threads(threads: int | None) -> None:
    """ValueError for a number of processor threads that torch could not be told."""
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads={threads}; expected 1 to {MOST_THREADS}")


@dataclass(frozen=True)
class Memory:
    """Bytes of memory: `total`, as far as this process may use it, and `free`, what a new program can have
    (file cache that can be given up counts as free). limited: by a control group, below what is built in.
    """

    total: int
    free: int
    limited: bool = False


@dataclass(frozen=True)
class Processor:
    """The processor: its name, the cores this process may use, and those of INSTRUCTIONS that it has."""

    name: str
    cores: int
    instructions: tuple[str, ...]


# what we call it: what /proc/cpuinfo, torch and sysctl call it
INSTRUCTIONS = {
    "AVX2": {"avx2"},
    "FMA": {"fma", "fma3"},
    "AVX-512": {"avx512f", "avx512_f"},
    "AVX-512 bf16": {"avx512_bf16"},
    "AMX bf16": {"amx_bf16"},
    "NEON": {"asimd", "neon"},
    "Arm bf16": {"bf16", "feat_bf16"},
}


def bandwidth(seconds: float = 0.8, size: int = BUFFER) -> float:
    """Bytes a second read from memory by as many threads as torch has: the median of passes over `size`
    bytes, for about `seconds`, by the faster of two reductions.

    Takes `size` bytes, or a quarter of what is free where that is less.
    """
    there = memory()
    size = min(size, there.free // 4) if there else size
    buffer = torch.ones(max(size // 8, MEGA // 8), dtype=torch.int64)
    floats = buffer.view(torch.float32)
    passes = (buffer.sum, floats.amax)
    return buffer.nbytes / min(median_time(one, seconds / len(passes)) for one in passes)


def product_rate(seconds: float = 0.8) -> float:
    """FLOP a second of a float32 product of 512 rows with a matrix of 2880 × 2880, on torch's threads: the
    median of repetitions for about `seconds`. A product counts 2 FLOP a weight and row.
    """
    x, weight = torch.ones(ROWS, WIDTH), torch.ones(WIDTH, WIDTH)
    out = torch.empty(ROWS, WIDTH)
    return 2 * ROWS * WIDTH * WIDTH / median_time(lambda: torch.mm(x, weight.T, out=out), seconds)


@contextmanager
def light(model: torch.nn.Module) -> Iterator[None]:
    """Run a miniature on one thread: its products are too small to share out, and where another program
    works too, two threads wait for one another. Larger models keep torch's threads."""
    before = torch.get_num_threads()
    if sum(weight.numel() for weight in model.parameters()) < 5e7:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def median_time(one: Callable[[], object], seconds: float) -> float:
    """The median time of a call, in seconds: at least three, for about `seconds`, after one that warms up."""
    one()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        one()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def memory() -> Memory | None:
    """Memory of this machine, or of the control group that holds this process; None where nobody tells."""
    system = platform.system()
    try:
        if system == "Linux":
            total, free = linux_memory(Path("/proc/meminfo").read_text())
            said = Path("/proc/self/cgroup").read_text()
            for limit, used in control_groups(said, CGROUPS):
                if limit < total:
                    return Memory(limit, max(min(free, limit - used), 0), limited=True)
            return Memory(total, free)
        if system == "Darwin":
            return Memory(int(asked("sysctl", "-n", "hw.memsize")), mac_free(asked("vm_stat")))
        if system == "Windows":
            return windows_memory()
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        pass
    return None


def linux_memory(meminfo: str) -> tuple[int, int]:
    """Total and available bytes from the text of /proc/meminfo."""
    said = dict(re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.M))
    return int(said["MemTotal"]) * 1024, int(said["MemAvailable"]) * 1024


def control_groups(said: str, root: Path) -> list[tuple[int, int]]:
    """(limit, used) bytes of the control groups around this process that have a limit, the tightest first.

    said: the text of /proc/self/cgroup; root: /sys/fs/cgroup. What is used leaves out the file cache.
    """
    found = []
    for line in said.splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds not in CGROUP_FILES:
            continue
        top = root / kinds
        limit, used = CGROUP_FILES[kinds]
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if (folder / limit).is_file() and (value := (folder / limit).read_text().strip()) != "max":
                kept = re.findall(FILE_CACHE, (folder / "memory.stat").read_text(), re.M)
                found.append((int(value), int((folder / used).read_text()) - sum(map(int, kept))))
            if folder == top:
                break
    return sorted(found)


def mac_free(vm_stat: str) -> int:
    """Free bytes from what vm_stat prints: pages that are free, or can be without being written."""
    page = re.search(r"page size of (\d+) bytes", vm_stat)
    pages = dict(re.findall(r"^Pages ([\w ]+):\s+(\d+)\.", vm_stat, re.M))
    if page is None:
        raise ValueError("vm_stat names no page size")
    return int(page[1]) * sum(int(pages.get(kind, 0)) for kind in ("free", "inactive", "speculative"))


def windows_memory() -> Memory:
    """Memory as kernel32 tells it."""
    status = (ctypes.c_uint64 * 8)()  # length and load in the first, then total, available, ...
    status[0] = ctypes.sizeof(status)
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined]
        raise OSError("GlobalMemoryStatusEx failed")
    return Memory(status[1], status[2])


def asked(*command: str) -> str:
    """What a system's own command prints."""
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout


def peak_memory() -> int | None:
    """The most bytes of memory that this process has held, pages of mapped files included; None where nobody
    tells (Windows).
    """
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else most * 1024


def processor() -> Processor:
    """The processor of this machine, as far as it can be told."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        if platform.system() == "Linux":
            said = Path("/proc/cpuinfo").read_text()
            named = re.search(r"^model name\s*: (.+)", said, re.M)
            name = named[1] if named else name
            listed = re.search(r"^(?:flags|Features)\s*: (.+)", said, re.M)
            flags |= set(listed[1].split()) if listed else set()
        elif platform.system() == "Darwin":
            name = asked("sysctl", "-n", "machdep.cpu.brand_string").strip() or name
    except (OSError, subprocess.SubprocessError):
        pass
    if not flags and hasattr(torch.cpu, "get_capabilities"):  # in newer torch
        flags |= {flag.lower() for flag, has in torch.cpu.get_capabilities().items() if has is True}
    has = tuple(ours for ours, theirs in INSTRUCTIONS.items() if theirs & flags)
    return Processor(name, cores, has)
