"""A rung trained before one's eyes: the first steps of a recorded run, some at a time.

The steps are the run's own, from `train.loop`: same seed, same batches, same learning rates. So the training
loss must be the recorded one, but for what rounding in another order makes of it (other processors, other
numbers of threads).
"""

from __future__ import annotations

import math
import re
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..model.transformer import Transformer
from .corpus import DOMAINS, training_text
from .ladder import STEPS
from .objective import optimizer_for
from .recipes import Recipe
from .runs import Run
from .train import loop

END_ID = 256  # `<|endoftext|>`, after the bytes


@cache
def byte_texts() -> dict[str, Tensor]:
    """The ids of every domain's training text, as `tokens_by_domain(byte_encoding())` makes them (a test), in
    a fraction of the time: a byte is its own id."""
    texts = {}
    for name, domain in DOMAINS.items():
        text = training_text(name)
        ids: list[Tensor] = []
        documents = re.split(f"(?m:^)(?={domain.starts})", text) if domain.starts else [text]
        for document in filter(None, documents):
            ids += [torch.tensor([END_ID])] if ids else []
            ids.append(torch.frombuffer(bytearray(document.encode()), dtype=torch.uint8))
        texts[name] = torch.cat([part.int() for part in ids])
    return texts


class Trained(NamedTuple):
    """A run as far as it has come, and its model, which goes on learning when the next one is asked for."""

    run: Run
    model: Transformer


def live(
    recipe: Recipe, until: int, every: int, seed: int = 0, steps: int = STEPS,
    texts: Mapping[str, Tensor] | None = None,
) -> Iterator[Trained]:  # fmt: skip
    """The first `until` steps of a run of `steps`: a `Trained` after each `every` of them.

    texts: ids by domain, in place of the corpora's bytes.
    """
    texts = byte_texts() if texts is None else texts
    model = Transformer.random(recipe.config, seed).train()
    optimizer, run = optimizer_for(model, recipe), Run(recipe, seed, steps)
    with tempfile.TemporaryDirectory() as folder:
        while run.done < min(until, steps):
            loop(run, model, optimizer, texts, None, Path(folder), min(until, run.done + every),
                 save_every=math.inf, evaluations=0, quiet=True)  # fmt: skip
            yield Trained(run, model)


def means(loss: list[float], size: int) -> list[float]:
    """The means of each `size` losses in turn, as a result's curve holds them; an unfinished piece is left
    out."""
    whole = len(loss) // size * size
    return [statistics.fmean(loss[start : start + size]) for start in range(0, whole, size)]


def recorded(result: Mapping[str, Any], until: int | None = None) -> tuple[list[float], list[float]]:
    """A result's curve: the step at the middle of each piece, and the mean loss of its steps in nats a byte;
    of the pieces that end by the step `until`."""
    size, nats = result["curve"]["steps"], result["curve"]["nats"]
    kept = len(nats) if until is None else min(len(nats), until // size)
    return [(n + 0.5) * size for n in range(kept)], nats[:kept]
