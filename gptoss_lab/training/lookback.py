"""What a trained rung makes of the bytes before the last one, and of their order.

    python -m gptoss_lab.training.lookback gpt2 rope      # minutes a rung; the result goes into the package

A rung is trained as the queue trains it (the queue keeps no weights) and then foretells a byte of held-out
text from three contexts:

    whole       all bytes before it
    shuffled    the byte before it, and before that the others in a random order
    alone       the byte before it, and nothing else

A model that has learned to look back to a certain place is lost when the bytes are shuffled. One that only
knows which kind of text it is in is not. Beside it stands how much of its attention goes to the byte just
before the query's own, head by head, and `bigram_table`: which byte follows which.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..files import whole
from ..machine import require_threads
from ..mistakes import told_by
from ..model.transformer import Transformer
from ..tap import Recorder
from .corpus import DOMAINS, Windows, heldout_windows
from .ladder import NUMBER, SHORT, STEPS, anchor_of, byte_encoding, plan, recipe_for, rung
from .live import byte_texts
from .objective import in_phase
from .outcome import EDGES, FAR, NEAR, by_edges, on_heldout
from .queue import RESULTS, best_rates, results
from .runs import machine, read_checkpoint
from .train import train

LOOKBACK = RESULTS.parent / "ladder_lookback.json"
ENDS = (64, 128, 192, 256)  # how many bytes are given before the one that is foretold
FIRST = 9                   # queries before this one see too few bytes to tell where a head looks
LINGER = 2.0                # counts that a byte's own frequency weighs beside what followed it


@cache
def bigram_table(domain: str) -> Tensor:
    """Log probabilities (nats) of each byte after each other, V V, from all the domain's training text: what
    is to be had from the last byte by whoever knows the kind of text."""
    ids, size = byte_texts()[domain].long(), byte_encoding().n_vocab
    pairs = torch.bincount(ids[:-1] * size + ids[1:], minlength=size * size).double().view(size, size)
    single = (pairs.sum(0) + 1) / (pairs.sum() + size)
    follows: Tensor = (pairs + LINGER * single) / (pairs.sum(1, keepdim=True) + LINGER)
    return follows.log()


def bigram_nats(domain: str, windows: Windows) -> Tensor:
    """What that table loses on each byte of some windows, from the second on: N T, nats."""
    return -bigram_table(domain)[windows.tokens[:, :-1], windows.tokens[:, 1:]]


@cache
def bigrams() -> dict[str, float]:
    """The table's bits per byte, by domain, in the windows that rungs are judged on."""
    found = {}
    for domain in DOMAINS:
        windows = heldout_windows(byte_encoding(), domain, *NEAR)
        found[domain] = float((bigram_nats(domain, windows).sum(1) / windows.bytes).mean()) / math.log(2)
    return found


@cache
def bigrams_by_position() -> list[float | None]:
    """The table's nats a byte between the `EDGES` in windows of 1,024, None beyond them; means over domains.

    It sees one byte wherever it stands: what it loses more or less of at one place than at another is the
    text."""
    each = [bigram_nats(domain, heldout_windows(byte_encoding(), domain, *FAR)).mean(0) for domain in DOMAINS]
    told = by_edges(torch.stack(each).mean(0))
    return [told.get(f"{a}-{b - 1}") for a, b in zip(EDGES, EDGES[1:])]


def contexts(given: Tensor, seed: int) -> dict[str, Tensor]:
    """The three contexts of N T bytes."""
    dice = torch.Generator().manual_seed(seed)
    order = torch.rand(len(given), given.shape[1] - 1, generator=dice).argsort(1)
    shuffled = torch.cat([given[:, :-1].gather(1, order), given[:, -1:]], 1)
    return {"whole": given, "shuffled": shuffled, "alone": given[:, -1:]}


@torch.no_grad()
def foretold(
    model: Transformer, limit: int = NEAR[1], domains: Iterable[str] = tuple(DOMAINS)
) -> dict[str, float]:  # fmt: skip
    """Mean bits of the byte after each context, over up to `limit` held-out windows a domain; every domain
    and length counts alike."""
    bits: dict[str, list[float]] = {"whole": [], "shuffled": [], "alone": []}
    for domain in domains:
        windows = heldout_windows(byte_encoding(), domain, SHORT, limit).tokens
        for end in ENDS:
            for name, given in contexts(windows[:, :end], seed=end).items():
                logits = torch.cat([model(part, last=1)[:, 0] for part in given.split(16)])
                bits[name].append(float(F.cross_entropy(logits, windows[:, end])) / math.log(2))
    return {name: round(sum(each) / len(each), 4) for name, each in bits.items()}


@torch.no_grad()
def before(model: Transformer) -> list[list[float]]:
    """The share of attention that goes to the byte just before the query's own: L H, means over held-out
    text, from query 9 of a window on."""
    names = [f"blocks.{n}.attention.pattern" for n in range(model.config.n_layers)]
    recorder = Recorder(keep=names)
    windows = torch.cat([heldout_windows(byte_encoding(), domain, SHORT, 2).tokens for domain in DOMAINS])
    model(windows[:, :-1], last=1, tap=recorder)
    shares = [recorder.kept[name].diagonal(-1, -2, -1)[..., FIRST - 1 :].mean((0, 2)) for name in names]
    return [[round(float(x), 4) for x in share] for share in shares]


def even() -> float:
    """The share that a head which looks at all bytes alike gives to that byte, in the same places."""
    return statistics.fmean(1 / (query + 1) for query in range(FIRST, SHORT))


def looked(
    name: str, folder: Path, texts: Mapping[str, Tensor], until: int | None = None, steps: int = STEPS
) -> dict[str, Any]:  # fmt: skip
    """Train the rung `name` in `folder`, seed 0, at the rate that the ladder took, and measure it; until: as
    it is after so many of the steps.

    ValueError while that rate is not known.
    """
    rates = best_rates(plan(), results())
    if anchor_of(name) not in rates:
        raise ValueError(f"the rate of {name!r} is not known yet: the grid of {anchor_of(name)!r} is not in")
    recipe = recipe_for(rung(name), rates[anchor_of(name)])
    run = train(recipe, folder / name, steps=steps, until=until, texts=texts)
    model = Transformer(recipe.config)
    read_checkpoint(folder / name, model)
    model = in_phase(model, recipe, recipe.phase_at(run.done - 1, steps)).eval()
    near = [sum(bits) / len(bits) for bits in on_heldout(model, *NEAR)[0].values()]
    by_domain = {domain: foretold(model, domains=(domain,)) for domain in DOMAINS}
    means = {name: round(statistics.fmean(each[name] for each in by_domain.values()), 4)
             for name in ("whole", "shuffled", "alone")}  # fmt: skip
    return {"rate": recipe.peak, "seed": run.seed, "steps": run.steps, "done": run.done,
            "bits_per_byte": round(sum(near) / len(near), 4), **means, "by_domain": by_domain,
            "before": before(model), "made_with": machine()}  # fmt: skip


def lookback(file: Path = LOOKBACK) -> dict[str, dict[str, Any]]:
    """What has been measured, by rung; nothing where there is no file."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def main(arguments: list[str] | None = None) -> None:
    """`python -m gptoss_lab.training.lookback RUNG …`: train, measure, and keep the result."""
    parser = argparse.ArgumentParser(prog="python -m gptoss_lab.training.lookback", description=main.__doc__)
    parser.add_argument("rungs", nargs="+", choices=list(NUMBER), metavar="RUNG", help=", ".join(NUMBER))
    parser.add_argument("--work", type=Path, default=Path("runs/lookback"), help="where checkpoints lie")
    parser.add_argument("--until", type=int, metavar="STEP", help="measure after so many of the 1,500 steps")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    with told_by(parser.prog):
        measure(options.rungs, options.work, options.until, options.threads)


def measure(rungs: list[str], work: Path, until: int | None, threads: int) -> None:
    """Train and measure rungs one after another, and keep each result. ValueError as from `train`."""
    require_threads(threads)
    torch.set_num_threads(threads)
    for name in rungs:
        found = looked(name, work, byte_texts(), until)
        with whole(LOOKBACK) as beside:  # another process may have measured another rung meanwhile
            beside.write_text(json.dumps(lookback() | {name: found}, indent=1) + "\n", encoding="utf-8")
        told = {key: found[key] for key in ("bits_per_byte", "whole", "shuffled", "alone")}
        print(name, told, f"most to the byte before: {max(map(max, found['before'])):.0%}")


if __name__ == "__main__":
    main()
