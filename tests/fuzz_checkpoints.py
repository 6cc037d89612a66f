"""Reading checkpoints from strangers, by the thousand: `python tests/fuzz_checkpoints.py --count 20000
--coverage`.

Each case (see `hostile`) must load, or raise one `CheckpointError` with a message of readable length that
names the folder; quickly; without running, importing or writing anything, and without opening anything
outside its folder. What loads must be files that the format's own library accepts too, and give finite
weights alone. `--stratum headers --first 1234 --count 1` repeats one case.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STRATA = ("headers", "index and paths", "config", "tensor semantics")
ROOMS = ("reader", "shards", "dialects", "checkpoint")  # what --coverage looks at
SECONDS, MESSAGE = 10.0, 3000
FORBIDDEN = {
    "exec", "compile", "import", "marshal.loads", "pickle.find_class", "ctypes.dlopen", "subprocess.Popen",
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect", "socket.getaddrinfo", "os.remove",
    "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink", "os.link", "os.chmod",
}  # fmt: skip


class Found(Exception):
    """A case that broke a promise."""


class Watch:
    """Python's audit hook, which cannot be removed again: it notes what happens while `folder` is set."""

    folder: str | None = None
    noted: list[str] = []
    hooked = False

    def __call__(self, event: str, details: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in FORBIDDEN:
            self.noted.append(f"{event} {str(details)[:200]}")
        elif event == "open" and not isinstance(details[0], int):
            path, mode, flags = os.path.abspath(os.fsdecode(details[0])), details[1] or "", details[2] or 0
            if set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.noted.append(f"write {path[:200]}")
            elif not path.startswith(self.folder + os.sep):
                self.noted.append(f"open {path[:200]}")


WATCH = Watch()


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Whatever is noted inside breaks the promise."""
    if not Watch.hooked:
        sys.addaudithook(WATCH)
        Watch.hooked = True
    WATCH.noted.clear()
    WATCH.folder = os.path.abspath(folder)
    try:
        yield
    finally:
        WATCH.folder = None
    if WATCH.noted:
        raise Found(f"this happened while reading: {WATCH.noted[:3]}")


def attempt(folder: Path) -> str | None:
    """Load the folder: None where it loads, else the error's message. Found for anything that must not be."""
    from safetensors import SafetensorError, safe_open

    from gptoss_lab.weights import CheckpointError, load
    from gptoss_lab.weights.shards import Shards

    began, message, model = time.perf_counter(), None, None
    with watched(folder):
        try:
            model = load(folder)
        except CheckpointError as error:
            message = str(error)
        except Exception as error:
            raise Found(f"{type(error).__name__}: {str(error)[:300]}") from error
    if (seconds := time.perf_counter() - began) > SECONDS:
        raise Found(f"took {seconds:.1f} s")
    if model is not None:
        for name, weight in model.state_dict().items():
            if weight.is_floating_point() and not weight.isfinite().all():
                raise Found(f"we loaded {name!r} with NaN or infinity in it")
        for path in Shards(folder).paths:
            try:
                safe_open(path, "pt").__enter__().__exit__(None, None, None)
            except SafetensorError as error:
                raise Found(f"we read what safetensors refuses: {error}") from error
    elif len(message) > MESSAGE or str(folder) not in message:
        raise Found(f"a message of {len(message)} letters: {message[:300]}")
    return message


def fuzz(stratum: str, numbers: range, into: Path) -> tuple[Counter[str], list[str], float]:
    """Run cases in a folder: what came of them, those that broke a promise, the most seconds that one
    took."""
    import hostile

    from gptoss_lab.weights import load

    base = hostile.bases(into)
    for folder in base:
        load(folder)  # valid; and what is imported at first use is now imported
    came, broken, slowest = Counter[str](), [], 0.0
    for number in numbers:
        folder = hostile.make(stratum, number, base, into)
        began = time.perf_counter()
        try:
            came["refused" if attempt(folder) else "loaded"] += 1
        except Found as found:
            broken.append(f"{stratum} {number}: {found}")
        slowest = max(slowest, time.perf_counter() - began)
    return came, broken, slowest


def main() -> int:
    """Run all strata, or one, and print what came of them."""
    parser = argparse.ArgumentParser(description="Read made-up checkpoints; see each refused well.")
    parser.add_argument("--count", type=int, default=20000, help="cases a stratum")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--stratum", choices=STRATA, help="this one alone")
    parser.add_argument("--coverage", action="store_true", help="which lines of the reader were reached")
    asked = parser.parse_args()
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    meter = None
    if asked.coverage:
        import coverage

        rooms = [str(HERE.parent / "gptoss_lab" / "weights" / f"{room}.py") for room in ROOMS]
        meter = coverage.Coverage(include=rooms, data_file=None, branch=True)
        meter.start()
    import torch

    torch.set_num_threads(1)
    failed = 0
    for stratum in [asked.stratum] if asked.stratum else STRATA:
        with tempfile.TemporaryDirectory() as into:
            came, broken, slowest = fuzz(stratum, range(asked.first, asked.first + asked.count), Path(into))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        counts = f"{came['refused']} refused, {came['loaded']} loaded, {len(broken)} broke a promise"
        costs = f"slowest {slowest:.2f} s, peak {peak:.2f} GB"
        line = f"{stratum:<17} {asked.count} cases from {asked.first}: {counts}; {costs}"
        print(line, *broken[:20], sep="\n    ", flush=True)
        failed += len(broken)
    if meter:
        meter.stop()
        meter.report(show_missing=True)
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
