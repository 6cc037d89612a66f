"""The queue: the runs of a plan, one after another, on one machine, stopped and gone on with at any moment.

    gptoss-lab train ladder --plan                what there is to do, and how long it takes here
    gptoss-lab train ladder --threads 1           do it, in runs/ladder

A run that has a result is skipped, and the package has those of the ladder: `--results FOLDER` looks for
them, and puts them, elsewhere, so that runs are made again. A result is one small JSON file, written whole
when its run has ended; so a queue that is stopped (Ctrl-C, or a machine that goes down) loses at most the
minutes since a checkpoint.
While there is a file `pause` in the queue's folder no step begins: make it before a benchmark, delete it
afterwards. (Stopping the process with SIGSTOP works too, but that time then counts as training.)
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..config import require
from ..files import make_folder, read_object, require_folder, whole
from ..machine import require_threads
from ..model.transformer import Transformer
from .corpus import tokens_by_domain
from .ladder import RATES, STEPS, Entry, byte_encoding, plan, recipe_for
from .outcome import measured, untaught
from .runs import read_run
from .train import Diverged, seconds_a_step, train

RESULTS = Path(__file__).resolve().parents[1] / "assets" / "results" / "ladder"
SPEEDS, PAUSE = "speeds.json", "pause"
MEASURING = 30.0        # seconds that the measurements after a run take, roughly


def results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Every result that is in, by the run's id. ValueError for a file that is damaged."""
    found = {}
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        found[file.stem] = read_object(file, "delete it, and its run is made again")
    return found


def score(result: Mapping[str, Any], windows: str = "near", domains: Sequence[str] | None = None) -> float:
    """What a run is judged by: mean bits per byte over all domains, or some, in windows of 256 (`near`) or
    1,024 (`far`); infinite if it diverged."""
    if "diverged" in result:
        return float("inf")
    bits = result["bits_per_byte"][windows]
    return float(statistics.fmean(bits.values() if domains is None else (bits[name] for name in domains)))


def best_rates(entries: Iterable[Entry], found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The rate of the grid that did best, for every anchor whose grid is in; the lower one of two equals."""
    grids: dict[str, list[Entry]] = {}
    for entry in entries:
        if not isinstance(entry.rate, str) and entry.purpose == "learning rate":
            grids.setdefault(entry.config.name, []).append(entry)
    best = {}
    for anchor, grid in grids.items():
        scores = {float(entry.rate): score(found[entry.id({})]) for entry in grid if entry.id({}) in found}
        if len(scores) == len(grid):
            best[anchor] = min(sorted(scores), key=lambda rate: scores[rate])
    return best


def waiting(
    entries: list[Entry], found: Mapping[str, Mapping[str, Any]], rates: Mapping[str, float] | None = None
) -> list[Entry]:  # fmt: skip
    """The entries without a result, in order, the same run once. One whose rate is not known yet waits too,
    unless it cannot but be one of the grid's. rates: the best ones, where they are not from these results."""
    rates = best_rates(entries, found) if rates is None else rates
    left, seen = [], set()
    gridded = {(entry.config, entry.seed) for entry in entries if not isinstance(entry.rate, str)}
    for entry in entries:
        known = not isinstance(entry.rate, str) or entry.rate in rates
        key = entry.id(rates) if known else f"{entry.config.name}.seed{entry.seed}"
        if key in found or key in seen or not known and (entry.config, entry.seed) in gridded:
            continue
        seen.add(key)
        left.append(entry)
    return left


def seconds(entries: list[Entry], folder: Path, texts: Mapping[str, Tensor], steps: int) -> dict[str, float]:
    """Seconds that a run of each config takes here, by name: a few steps are measured, once, and kept in the
    folder's `speeds.json` for as many threads; delete it to measure anew. ValueError where it is damaged."""
    file, threads = folder / SPEEDS, str(torch.get_num_threads())
    kept = read_object(file, "delete it to measure anew") if file.exists() else {}
    known = kept.setdefault(threads, {})
    configs = {entry.config.name: entry.config for entry in entries}
    missing = [name for name in configs if name not in known]
    for name in tqdm(missing, desc="timing a few steps of every model", disable=not missing):
        recipe = recipe_for(configs[name], RATES[0])
        known[name] = seconds_a_step(Transformer.random(configs[name]).train(), recipe, texts)
    if missing:
        with whole(file) as beside:
            beside.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    shares = {name: [phase.share for phase in recipe_for(config, RATES[0]).phases]
              for name, config in configs.items()}  # fmt: skip
    return {name: MEASURING + steps * sum(share * each for share, each in zip(shares[name], known[name]))
            for name in configs}  # fmt: skip


def listing(
    entries: list[Entry], found: Mapping[str, Any], each: Mapping[str, float],
    rates: Mapping[str, float] | None = None,
) -> str:  # fmt: skip
    """The plan in words: a line for each purpose and model in turn, what is in, and the hours of the rest."""
    rates = best_rates(entries, found) if rates is None else rates
    left = waiting(entries, found, rates)
    runs = {entry.id(rates) for entry in entries if not isinstance(entry.rate, str) or entry.rate in rates}
    lines = []
    for number, entry in enumerate(left, start=1):
        rate = rates.get(entry.rate, f"best of {entry.rate}") if isinstance(entry.rate, str) else entry.rate
        minutes = each[entry.config.name] / 60
        lines.append(f"{number:3d}  {entry.config.name:26s} seed {entry.seed}  rate {rate!s:16s} "
                     f"{minutes:5.1f} min  {entry.purpose}")  # fmt: skip
    hours = sum(each[entry.config.name] for entry in left) / 3600
    done = len(runs & found.keys())
    if not left:
        return f"all {done} runs are in"
    lines.append(f"{done} of {done + len(left)} runs are in; the other {len(left)} take about {hours:.1f} "
                 f"hours at this speed (threads: {torch.get_num_threads()})")  # fmt: skip
    return "\n".join(lines)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While it holds, no other queue works in `folder`; ValueError where one does. (Where the system has no
    such locks, this is not checked.)"""
    with open(folder / "lock", "w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except BlockingIOError as error:
            message = f"a queue works in {folder} already; wait for it, or take another folder (--out)"
            raise ValueError(message) from error
        yield


def run_queue(
    folder: str | Path,
    only: str = "*",
    threads: int | None = None,
    plan_only: bool = False,
    into: str | Path = RESULTS,
    entries: list[Entry] | None = None,
    texts: Mapping[str, Tensor] | None = None,
    steps: int = STEPS,
    quiet: bool = False,
) -> int:
    """Train what has no result yet, in the order of the plan; how many of these are still to do at the end.

    plan_only: print the plan and its hours, and train nothing; another queue may work in the folder then.
    folder: where checkpoints, the measured speeds and the file `pause` lie; two queues that work side by side
    take two folders, and models that do not overlap. only: a glob of model names. into: where results are
    looked for and go; rates whose grid is not in there are the package's. entries, texts, steps: another plan
    (the ladder's), other training ids than the corpora's bytes, another length. Ctrl-C saves and raises
    KeyboardInterrupt. ValueError where `only` picks nothing, or `folder` or `into` cannot be a folder.
    """
    entries = plan() if entries is None else entries
    names = sorted({entry.config.name for entry in entries})
    require(any(fnmatchcase(name, only) for name in names),
            f"--only {only!r} picks no model of the plan; there are {', '.join(names)}")  # fmt: skip
    require_threads(threads)
    folder, into = Path(folder), Path(into)
    require_folder(into)
    require_folder(folder)
    if not plan_only:
        make_folder(folder)
    if threads is not None:
        torch.set_num_threads(threads)
    asked = [entry for entry in entries if fnmatchcase(entry.config.name, only)]
    known = best_rates(entries, results(RESULTS))

    def standing() -> tuple[dict[str, dict[str, Any]], dict[str, float], list[Entry]]:
        found = results(into)
        rates = known | best_rates(entries, found)
        return found, rates, waiting(asked, found, rates)

    with nullcontext() if plan_only else alone(folder):
        found, rates, left = standing()
        if not left:
            print(listing(asked, found, {}, rates), flush=True)
            return 0
        make_folder(folder)  # for the speeds
        texts = tokens_by_domain(byte_encoding()) if texts is None else texts
        print(listing(asked, found, seconds(left, folder, texts, steps), rates), flush=True)
        while not plan_only:
            found, rates, left = standing()
            ready = [entry for entry in left if not isinstance(entry.rate, str) or entry.rate in rates]
            if not ready:
                break
            rate = rates[ready[0].rate] if isinstance(ready[0].rate, str) else ready[0].rate
            run_one(ready[0], rate, folder, into, texts, steps, quiet)
    return len(standing()[2])


def run_one(
    entry: Entry, rate: float, folder: Path, into: Path, texts: Mapping[str, Tensor], steps: int, quiet: bool
) -> Path:
    """Train one entry from where it stands, measure it, and write its result; the result's path.

    Its checkpoints are deleted then. A run whose loss becomes infinite has a result too, which says so.
    """
    name, recipe = entry.id({str(entry.rate): rate}), recipe_for(entry.config, rate)
    texts = {domain: ids[: entry.read] for domain, ids in texts.items()}
    place, early = folder / name, folder / name / "untaught.json"
    more: dict[str, Any] = {"steps": steps, "seed": entry.seed, "texts": texts, "quiet": quiet,
                            "pause": folder / PAUSE}  # fmt: skip
    result: dict[str, Any]
    if read_run(place) is None:
        early.unlink(missing_ok=True)  # it would be another run's
    try:
        run = train(recipe, place, until=recipe.starts(steps)[1], **more)
        if run.done == recipe.starts(steps)[1] and not early.exists():
            with whole(early) as beside:
                beside.write_text(json.dumps(untaught(run, place)), encoding="utf-8")
        run = train(recipe, place, **more)
        before = json.loads(early.read_text(encoding="utf-8")) if early.exists() else None
        result = {"id": name} | measured(run, place, entry, before)
    except Diverged as error:
        result = {"id": name, "purpose": entry.purpose, "seed": entry.seed, "rate": rate,
                  "config": {"name": entry.config.name}, "diverged": str(error)}  # fmt: skip
    into.mkdir(parents=True, exist_ok=True)
    with whole(into / f"{name}.json") as beside:
        beside.write_text(json.dumps(result, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.rmtree(place)
    if not quiet:
        print(f"{name}: {result.get('diverged') or f'{score(result):.4f} bits per byte'}", flush=True)
    return into / f"{name}.json"
