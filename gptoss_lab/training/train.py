"""Training a miniature: the loop that can be stopped and gone on with.

A run depends on its recipe, its seed and its number of steps alone: batches are a function of (seed, step),
so that a run that was stopped goes on, bit for bit, as if it had not been (on the same machine, with as many
threads).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import tiktoken
import torch
from torch import Tensor
from tqdm import tqdm

from ..config import require
from ..cost import active_parameters, parameters
from ..files import make_folder
from ..machine import require_threads
from ..model.transformer import Transformer
from ..text.tokens import encoding as encoding_named
from .corpus import Batches, tokens_by_domain
from .measure import evaluate
from .objective import gradients, in_phase, optimizer_for, settle
from .publish import publish
from .recipes import Recipe, recipe_of
from .runs import Run, machine, read_checkpoint, read_run, write_checkpoint

MOST_STEPS, MOST_MINUTES = 10**9, 60 * 24 * 366
SETTLED_EVERY = 100  # steps: an average of 1e-30 takes 170 or more to fade to a denormal


class Diverged(ValueError):
    """The loss of a run is no number any more."""


def wait_while(pause: Path | None, asked: Callable[[], bool]) -> float:
    """Sleep as long as there is a file `pause` and nobody `asked` to stop; the seconds that this took."""
    begun = time.perf_counter()
    if pause is not None and pause.exists():
        tqdm.write(f"paused while there is a {pause}")
        while pause.exists() and not asked():
            time.sleep(0.5)
    return time.perf_counter() - begun


@contextmanager
def stop_when_asked() -> Iterator[Callable[[], bool]]:
    """While it holds, Ctrl-C is noted, not raised, so that a step is finished first. A second one is
    raised."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def seconds_a_step(model: Transformer, recipe: Recipe, texts: Mapping[str, Tensor]) -> list[float]:
    """Measured seconds for a step of each phase: gradients are made and thrown away, weights stay as they
    are."""
    found = []
    for number, phase in enumerate(recipe.phases):
        phased = in_phase(model, recipe, number)
        windows, _ = Batches(texts, phase.batch, phase.context, seed=0).batch(0)
        times = []
        for _ in range(3):  # the first one warms up
            start = time.perf_counter()
            gradients(phased, windows.to(model.token_embedding.device), recipe.balance, recipe.arithmetic)
            times.append(time.perf_counter() - start)
        found.append(min(times[1:]))
    model.zero_grad(set_to_none=True)
    return found


def price(recipe: Recipe, run: Run, each: list[float]) -> str:
    """What the rest of a run will cost, in one line. each: seconds for a step of each phase."""
    starts = recipe.starts(run.steps)
    left = [max(0, end - max(start, run.done)) for start, end in zip(starts, starts[1:])]
    seconds, tokens = sum(n * s for n, s in zip(left, each)), recipe.tokens(run.steps, run.done)
    speed = f"{tokens / seconds:,.0f} tokens/s" if seconds else "no time"
    size, active = parameters(recipe.config) / 1e6, active_parameters(recipe.config) / 1e6
    return (f"{recipe.name}: {size:.1f} M parameters, {active:.1f} M a token; {sum(left):,} steps, "
            f"{tokens / 1e6:.2f} M tokens, about {seconds / 60:.0f} minutes at {speed}")  # fmt: skip


def steps_in(recipe: Recipe, minutes: float, each: list[float]) -> int:
    """How many steps fit into `minutes`, at `each` seconds for a step of each phase; at least one."""
    return max(1, int(60 * minutes / sum(phase.share * s for phase, s in zip(recipe.phases, each))))


def train(
    recipe: str | Recipe,
    folder: str | Path,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = True,
    until: int | None = None,
    texts: Mapping[str, Tensor] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    save_every: float = 2.0,
    evaluations: int = 10,
    quiet: bool = False,
    pause: Path | None = None,
) -> Run:
    """Train a recipe (a name, or one of your own) in `folder`, for `steps`, or as many as fit into `minutes`.

    resume: go on with the run that `folder` holds, whose length was settled when it began; False begins anew
    in its place. until: stop, saved, after this step. texts: ids of each domain in place of the corpora
    (nothing is then held out, and no model published). save_every: minutes between checkpoints. evaluations:
    how many times to measure held-out text. pause: no step begins while there is a file of this name, and the
    wait is not counted as time spent training. Ctrl-C finishes its step, saves and raises KeyboardInterrupt.
    Returns the run; a finished one has its model, for `load`, in the folder's `model`.

    ValueError where the folder holds another run than was asked for, or cannot be one because a file is in
    the way; Diverged where the loss turns infinite.
    """
    recipe, folder = recipe_of(recipe), Path(folder)
    require(steps is None or 0 < steps <= MOST_STEPS, f"steps={steps}; expected 1 to {MOST_STEPS:,}")
    require(minutes is None or 0 < minutes <= MOST_MINUTES,
            f"minutes={minutes}; expected more than 0, and at most {MOST_MINUTES:,}, a year")  # fmt: skip
    require(until is None or until > 0, f"until={until}; expected 1 or more, the step to stop after")
    require(0 <= seed < 2**63, f"seed={seed}; expected a whole number from 0 to 2^63 - 1")
    require_threads(threads)
    require(steps is None or minutes is None, "give minutes or steps, not both")
    if threads is not None:
        torch.set_num_threads(threads)
    run = read_run(folder) if resume else None
    if run is not None:
        check_resumed(run, recipe, seed, steps, folder)
    make_folder(folder)
    encoding = encoding_named(recipe.encoding) if texts is None else None
    texts = tokens_by_domain(encoding) if encoding is not None else texts
    assert texts is not None
    model = Transformer.random(recipe.config, seed).train().to(device)
    optimizer = optimizer_for(model, recipe)
    each = seconds_a_step(model, recipe, texts)
    if run is None:
        steps = steps or steps_in(recipe, minutes or recipe.minutes, each)
        run = Run(recipe, seed, steps, made_with=machine())
    else:
        run = read_checkpoint(folder, model, optimizer)
        run.stops.append(run.done)
    say = (lambda line: None) if quiet else tqdm.write
    say(price(recipe, run, each))
    loop(run, model, optimizer, texts, encoding, folder, until or run.steps, save_every, evaluations, quiet,
         pause)  # fmt: skip
    if run.done == run.steps and encoding is not None:
        say("measuring held-out text, as trained and as stored")
        say(f"the model is in {publish(folder, folder / 'model')}")
    return run


def check_resumed(run: Run, recipe: Recipe, seed: int, steps: int | None, folder: Path) -> None:
    """ValueError unless the run in `folder` is the one that was asked for."""
    way_on = "; choose another folder, delete this one, or begin anew in its place (resume=False, --fresh)"
    held = f"the run in {folder}"
    require(run.recipe == recipe, f"{held} follows another recipe than {recipe.name} as it is now{way_on}")
    require(run.seed == seed, f"{held} has seed {run.seed}, not {seed}{way_on}")
    require(steps in (None, run.steps), f"{held} has {run.steps} steps, not {steps}{way_on}")


def loop(
    run: Run, model: Transformer, optimizer: torch.optim.AdamW, texts: Mapping[str, Tensor],
    encoding: tiktoken.Encoding | None, folder: Path, until: int, save_every: float, evaluations: int,
    quiet: bool, pause: Path | None = None,
) -> None:  # fmt: skip
    """Take the steps from `run.done` to `until`, with a progress bar; save and measure now and then."""
    recipe, phase, device = run.recipe, -1, model.token_embedding.device
    measured = {round(run.steps * n / evaluations) for n in range(1, evaluations + 1)} if encoding else set()
    saved = begun = time.perf_counter()
    before = run.seconds
    bar = tqdm(total=recipe.tokens(run.steps), initial=run.tokens, unit="tok", unit_scale=True,
               mininterval=1.0, smoothing=0.05, disable=quiet)  # fmt: skip
    with bar, stop_when_asked() as asked:
        while run.done < min(until, run.steps) and not asked():
            begun += wait_while(pause, asked)
            if asked():
                break
            if phase != recipe.phase_at(run.done, run.steps):
                phase = recipe.phase_at(run.done, run.steps)
                phased, shape = in_phase(model, recipe, phase), recipe.phases[phase]
                batches = Batches(texts, shape.batch, shape.context, run.seed)
            if recipe.config.dropout:
                torch.manual_seed(hash((run.seed, run.done)))
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(run.done, run.steps)
            windows, _ = batches.batch(run.done)
            loss, spread = gradients(phased, windows.to(device), recipe.balance, recipe.arithmetic)
            if not loss.isfinite():
                raise Diverged(f"the loss is {float(loss)} at step {run.done}; lower the recipe's peak rate")
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            run.done += 1
            if run.done % SETTLED_EVERY == 0:
                settle(optimizer)
            run.loss.append(round(float(loss), 5))
            run.balance.append(round(float(spread), 4))
            bar.update(shape.batch * shape.context)
            lately = run.loss[-20:]
            bar.set_postfix(loss=f"{sum(lately) / len(lately):.3f}", balance=f"{run.balance[-1]:.2f}")
            run.seconds = before + time.perf_counter() - begun
            if run.done in measured:
                assert encoding is not None
                bits = {domain: round(bpb, 4) for domain, bpb in evaluate(phased, encoding).items()}
                run.heldout.append({"step": run.done} | bits)
            if time.perf_counter() - saved > 60 * save_every:
                write_checkpoint(folder, run, model, optimizer)
                saved = time.perf_counter()
        write_checkpoint(folder, run, model, optimizer)
        if asked():
            tqdm.write(f"stopped and saved after step {run.done} of {run.steps}; the same command goes on")
            raise KeyboardInterrupt
