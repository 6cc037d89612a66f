"""Training a miniature: the loss, one step of it, and the loop that can be stopped and gone on with.

    loss = mean over tokens of −log p(next token)  +  balance · mean over layers of E Σ_e f_e P_e

f_e is the share of choices that fell on expert e, P_e the router's mean probability for it (Switch Transformer, arXiv
2101.03961): the sum is 1 where tokens are spread evenly, and grows where they crowd. It is read from the model through a tap.

A run depends on its recipe, its seed and its number of steps alone: batches are a function of (seed, step), so that a run
that was stopped goes on, bit for bit, as if it had not been (on the same machine, with as many threads).
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import tiktoken
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ..config import require
from ..cost import active_parameters, parameters
from ..model.linear import Stack
from ..model.transformer import Transformer
from ..text.tokens import encoding as encoding_named
from ..weights.mxfp4 import round_to_mxfp4
from .attention import attach
from .corpus import DOMAINS, Batches, heldout_windows, tokens_by_domain
from .recipes import Recipe, recipe_of
from .runs import Run, machine, read_checkpoint, read_run, write_checkpoint


def balance(logits: Tensor, choice: Tensor) -> Tensor:
    """E Σ f_e P_e of one layer: logits B T E, choice B T K → a number, 1 where tokens are spread evenly, E at most."""
    experts = logits.shape[-1]
    share = torch.bincount(choice.flatten(), minlength=experts).float() / choice.numel()  # f_e has no gradient
    return experts * (share * logits.softmax(-1).flatten(0, -2).mean(0)).sum()


@dataclass
class RouterTap:
    """A tap that keeps what `balance` needs, gradients and all: the router's logits and choice of every layer."""

    logits: list[Tensor] = field(default_factory=list)
    choice: list[Tensor] = field(default_factory=list)
    room: str = ""

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """The value itself; the router's are kept."""
        if self.room == "experts" and name in ("logits", "choice"):
            getattr(self, name).append(value)
        return value

    def wants(self, name: str) -> bool:
        """Never: nothing is computed for this tap alone."""
        return False

    def within(self, room: str) -> RouterTap:
        """The same tap in this room."""
        return replace(self, room=room)

    def at(self, positions: Tensor | None = None, keys: Tensor | None = None) -> RouterTap:
        """Itself: it does not ask where it is."""
        return self

    def balance(self) -> Tensor:
        """The mean over layers; 1 for a model without experts."""
        layers = [balance(logits, choice) for logits, choice in zip(self.logits, self.choice)]
        return torch.stack(layers).mean() if layers else torch.ones(())


class RoundedStack(Stack):
    """A stack whose matrices are rounded to MXFP4 on their way forward, while the gradient passes as if they were not
    (straight-through, arXiv 1308.3432). It shares its weights with `stack`."""

    def __init__(self, stack: Stack) -> None:
        torch.nn.Module.__init__(self)
        self.weight, self.bias, self.compute = stack.weight, stack.bias, stack.compute

    def matrix(self, index: int | Tensor) -> Tensor:
        """The rounded matrices of the experts `index`: … O I, in `compute`."""
        exact = super().matrix(index)
        return exact + (round_to_mxfp4(exact.detach()) - exact.detach())


def in_phase(model: Transformer, recipe: Recipe, phase: int) -> Transformer:
    """The same weights as they are run in this phase: with or without YaRN, rounded or not, with fast attention."""
    now = recipe.phases[phase]
    phased = model.with_config(yarn=recipe.config.yarn if now.yarn else None)
    for block in phased.blocks if now.rounded else ():
        block.experts.gate_up, block.experts.down = RoundedStack(block.experts.gate_up), RoundedStack(block.experts.down)
    return attach(phased)


def optimizer_for(model: Transformer, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over every weight; matrices decay, vectors (norms, biases, sinks) do not."""
    named = list(model.named_parameters())
    matrices = [weight for name, weight in named if weight.ndim > 1 and not name.endswith("bias")]
    vectors = [weight for name, weight in named if weight.ndim == 1 or name.endswith("bias")]
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak, betas=recipe.betas, eps=1e-8, fused=True)


def gradients(model: Transformer, windows: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """One pass forward and back over windows B T+1: the loss in nats a token, and the balance (no gradient any more)."""
    tap = RouterTap()
    logits = model(windows[:, :-1], tap=tap)
    loss, spread = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()), tap.balance()
    (loss + weight * spread if tap.logits else loss).backward()
    return loss.detach(), spread.detach()


@torch.no_grad()
def evaluate(
    model: Transformer, encoding: tiktoken.Encoding, context: int = 256, limit: int | None = 16, batch: int = 16
) -> dict[str, float]:
    """Bits per byte of held-out text, by domain: −Σ log₂ p(token) / bytes, over windows of `context` tokens.

    At most `limit` windows a domain (None: all), spread evenly over its held-out text. The first token of a window is
    given, not predicted. The number does not depend on the tokenizer's grain, so models may be compared by it.
    """
    was_training, found = model.training, {}
    model.eval()
    for domain in DOMAINS:
        windows, sizes = heldout_windows(encoding, domain, context, limit)
        nats = sum(float(losses(model, part).double().sum()) for part in windows.split(batch))
        found[domain] = nats / math.log(2) / int(sizes.sum())
    model.train(was_training)
    return found


def losses(model: Transformer, windows: Tensor) -> Tensor:
    """−log p of every target, in nats: windows B T+1 → B T."""
    windows = windows.to(model.token_embedding.device)
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none").view(windows[:, 1:].shape)


@contextmanager
def stop_when_asked() -> Iterator[Callable[[], bool]]:
    """While it holds, Ctrl-C is noted, not raised: a step is finished before the run stops. A second one is raised."""
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


def seconds_a_step(model: Transformer, recipe: Recipe, texts: Mapping[str, Tensor], repeats: int = 2) -> list[float]:
    """Measured seconds for a step of each phase: gradients are made and thrown away, the weights stay as they are."""
    found = []
    for number, phase in enumerate(recipe.phases):
        phased = in_phase(model, recipe, number)
        windows, _ = Batches(texts, phase.batch, phase.context, seed=0).batch(0)
        times = []
        for _ in range(repeats + 1):  # the first one warms up
            start = time.perf_counter()
            gradients(phased, windows.to(model.token_embedding.device), recipe.balance)
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
    return (f"{recipe.name}: {parameters(recipe.config) / 1e6:.1f} M parameters, {active_parameters(recipe.config) / 1e6:.1f} M "
            f"a token; {sum(left):,} steps, {tokens / 1e6:.2f} M tokens, about {seconds / 60:.0f} minutes at {speed}")  # fmt: skip


def steps_in(recipe: Recipe, minutes: float, each: list[float]) -> int:
    """How many steps fit into `minutes`, at `each` seconds for a step of each phase; at least one."""
    return max(1, int(60 * minutes / sum(phase.share * s for phase, s in zip(recipe.phases, each))))


def train(
    recipe: str | Recipe,
    folder: str | Path,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
    until: int | None = None,
    texts: Mapping[str, Tensor] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    save_every: float = 2.0,
    evaluations: int = 10,
    quiet: bool = False,
) -> Run:
    """Train a recipe (a name, or one of your own) in `folder`, for `steps`, or as many as fit into `minutes`.

    resume: go on with the run that `folder` holds; its length was settled when it began. until: stop, saved, after this
    step. texts: ids of each domain in place of the corpora (nothing is then held out). save_every: minutes between
    checkpoints. evaluations: how many times to measure held-out text. Ctrl-C finishes its step, saves and raises
    KeyboardInterrupt. Returns the run; `training.publish` makes a model of it.

    ValueError where the folder holds a run and `resume` was not asked for, or holds another one than was asked for.
    """
    recipe, folder = recipe_of(recipe), Path(folder)
    require(steps is None or steps > 0, f"steps={steps}; expected at least 1")
    require(minutes is None or minutes > 0, f"minutes={minutes}; expected more than 0")
    require(steps is None or minutes is None, "give minutes or steps, not both")
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # averages of rows that no token uses fade to denormals, which are slow
    run = read_run(folder)
    if run is not None:
        check_resumed(run, recipe, seed, steps, resume, folder)
    folder.mkdir(parents=True, exist_ok=True)
    encoding = encoding_named(recipe.encoding) if texts is None else None
    texts = tokens_by_domain(encoding) if encoding is not None else texts
    assert texts is not None
    model = Transformer.random(recipe.config, seed).train().to(device)
    optimizer = optimizer_for(model, recipe)
    each = seconds_a_step(model, recipe, texts)
    if run is None:
        run = Run(recipe, seed, steps or steps_in(recipe, minutes or recipe.minutes, each), made_with=machine())
    else:
        run = read_checkpoint(folder, model, optimizer)
        run.stops.append(run.done)
    say = (lambda line: None) if quiet else tqdm.write
    say(price(recipe, run, each))
    loop(run, model, optimizer, texts, encoding, folder, until or run.steps, save_every, evaluations, quiet)
    return run


def check_resumed(run: Run, recipe: Recipe, seed: int, steps: int | None, resume: bool, folder: Path) -> None:
    """ValueError unless the run in `folder` is the one that was asked for, and may be gone on with."""
    require(resume, f"{folder} holds a run of {run.recipe.name} at step {run.done} of {run.steps}; go on with it "
                    "(resume=True, --resume) or choose another folder")  # fmt: skip
    require(run.recipe == recipe, f"the run in {folder} follows another recipe than {recipe.name} as it is now; "
                                  "choose another folder")  # fmt: skip
    require(run.seed == seed, f"the run in {folder} has seed {run.seed}, not {seed}")
    require(steps in (None, run.steps), f"the run in {folder} has {run.steps} steps, not {steps}; its schedule is settled")


def loop(
    run: Run, model: Transformer, optimizer: torch.optim.AdamW, texts: Mapping[str, Tensor],
    encoding: tiktoken.Encoding | None, folder: Path, until: int, save_every: float, evaluations: int, quiet: bool,
) -> None:  # fmt: skip
    """Take the steps from `run.done` to `until`, with a progress bar; save and measure now and then, and at the end."""
    recipe, phase, device = run.recipe, -1, model.token_embedding.device
    measured = {round(run.steps * n / evaluations) for n in range(1, evaluations + 1)} if encoding else set()
    saved = begun = time.perf_counter()
    before = run.seconds
    total, done = recipe.tokens(run.steps), recipe.tokens(run.steps) - recipe.tokens(run.steps, run.done)
    bar = tqdm(total=total, initial=done, unit="tok", unit_scale=True, disable=quiet, mininterval=1.0, smoothing=0.05)
    with bar, stop_when_asked() as asked:
        while run.done < min(until, run.steps) and not asked():
            if phase != recipe.phase_at(run.done, run.steps):
                phase = recipe.phase_at(run.done, run.steps)
                phased, shape = in_phase(model, recipe, phase), recipe.phases[phase]
                batches = Batches(texts, shape.batch, shape.context, run.seed)
            if recipe.config.dropout:
                torch.manual_seed(hash((run.seed, run.done)))
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(run.done, run.steps)
            windows, _ = batches.batch(run.done)
            loss, spread = gradients(phased, windows.to(device), recipe.balance)
            require(bool(loss.isfinite()), f"the loss is {float(loss)} at step {run.done}; lower the recipe's peak rate")
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            run.done += 1
            run.loss.append(round(float(loss), 5))
            run.balance.append(round(float(spread), 4))
            bar.update(shape.batch * shape.context)
            bar.set_postfix(loss=f"{sum(run.loss[-20:]) / len(run.loss[-20:]):.3f}", balance=f"{run.balance[-1]:.2f}")
            run.seconds = before + time.perf_counter() - begun
            if run.done in measured:
                assert encoding is not None
                run.heldout.append({"step": run.done} | {k: round(v, 4) for k, v in evaluate(phased, encoding).items()})
            if time.perf_counter() - saved > 60 * save_every:
                write_checkpoint(folder, run, model, optimizer)
                saved = time.perf_counter()
        write_checkpoint(folder, run, model, optimizer)
        if asked():
            tqdm.write(f"stopped and saved after step {run.done} of {run.steps}; go on with resume=True (--resume) in {folder}")
            raise KeyboardInterrupt
