"""What the models write: samples chosen by a rule, how soon text goes in circles, sums worked out.

Of `SEEDS` samples of every prompt at temperature `TEMPERATURE` two are shown: that with the highest mean
log-probability of its tokens (in the model's own distribution, temperature 1), and that with the lowest.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..generation import generate
from ..model import Transformer
from ..training.corpus import heldout_text, heldout_windows, training_text
from ..training.forms import attach

PROMPTS = {
    "fiction": "It was", "dialogue": "KING RICHARD.\n", "scripture": "And God said,",
    "spanish": "Y dijo Dios:", "python": "def main(", "arithmetic": "12 + 7 =",
}  # fmt: skip
SEEDS, TEMPERATURE = 12, 0.8
AGAIN = 4  # tokens in a row that stood before: text goes in circles


def sample(model: Transformer, prompt: str, tokens: int, temperature: float, seed: int) -> dict[str, Any]:
    """One continuation: its text, the mean log-probability of its tokens, how much of it stood before."""
    run = generate(model, prompt, max_tokens=tokens, temperature=temperature, seed=seed)
    made = list(run)
    mean = statistics.fmean(token.logprob for token in made)
    ids = [token.id for token in made]
    return {"seed": seed, "text": run.text, "logprob": mean, "again": said_before(ids)}


def said_before(ids: Sequence[int], n: int = AGAIN) -> float:
    """The share of the runs of n tokens that stood earlier in the same text."""
    rows = [tuple(ids[start : start + n]) for start in range(len(ids) - n + 1)]
    return 1 - len(set(rows)) / len(rows) if rows else 0.0


def samples(model: Transformer, size: Any) -> dict[str, Any]:
    """The best and the worst of every prompt, the likeliest continuation, and how much goes in circles."""
    found: dict[str, Any] = {"tokens": size.written, "seeds": size.seeds, "temperature": TEMPERATURE}
    prompts, drawn, greedy, real = {}, [], [], []
    for domain, prompt in PROMPTS.items():
        each = [sample(model, prompt, size.written, TEMPERATURE, seed) for seed in range(size.seeds)]
        order = sorted(each, key=lambda one: one["logprob"])
        likeliest = sample(model, prompt, size.written, 0.0, 0)
        prompts[domain] = {"prompt": prompt, "best": order[-1], "worst": order[0], "likeliest": likeliest}
        drawn += [one["again"] for one in each]
        greedy.append(likeliest["again"])
        rows = heldout_windows(model.tokenizer, domain, size.written, size.seeds).tokens[:, 1:]
        real += [said_before(row) for row in rows.tolist()]
    again = {"likeliest": greedy, "drawn": drawn, "held-out text": real}
    return found | {
        "prompts": prompts, "again": {name: statistics.fmean(values) for name, values in again.items()}
    }


SUM = re.compile(r"-?\d+ ([-+*/]) -?\d+ = ")
KINDS = {"+": "sums", "-": "differences", "*": "products", "/": "quotients"}


def answered(model: Transformer, context: int) -> list[tuple[str, bool, bool]]:
    """Every held-out line of the form a + b = c: its kind, whether it also stands in the training text, and
    whether the likeliest token is right at every place of the answer, its line end included.

    Each line is read after as many whole lines as fit into `context` tokens, so that the likeliest
    continuation is the answer that greedy decoding would give.
    """
    encoding, known = model.tokenizer, set(training_text("arithmetic").splitlines())
    lines = heldout_text("arithmetic").splitlines()
    rows = [encoding.encode_ordinary(line + "\n") for line in lines]
    found, start = [], 0
    while start < len(rows):
        stop, ids, spots = start, list[int](), []
        while stop < len(rows) and (not ids or len(ids) + len(rows[stop]) <= context):
            shape = SUM.match(lines[stop])
            if shape and stop > start:  # the first line of a piece has nothing before it
                answer = len(encoding.encode_ordinary(shape[0].rstrip()))
                spots.append((stop, len(ids) + answer, len(ids) + len(rows[stop]), shape[1]))
            ids += rows[stop]
            stop += 1
        right = likeliest_right(model, torch.tensor([ids]))
        for line, first, end, kind in spots:
            found.append((KINDS[kind], lines[line] in known, bool(right[first:end].all())))
        start = stop
    return found


@torch.no_grad()
def likeliest_right(model: Transformer, ids: Tensor) -> Tensor:
    """Whether each token of one row is the likeliest after those before it: T booleans, the first False."""
    best = model(ids[:, :-1]).argmax(-1)[0]
    return torch.cat((torch.tensor([False]), best == ids[0, 1:]))


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson, 1927)."""
    n, p, z = len(hits), sum(hits) / max(1, len(hits)), 1.96
    if not n:
        return {"right": 0.0, "low": 0.0, "high": 1.0, "lines": 0}
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {"right": p, "low": max(0.0, (middle - half) / (1 + z * z / n)),
            "high": (middle + half) / (1 + z * z / n), "lines": n}  # fmt: skip


def sums(model: Transformer) -> dict[str, Any]:
    """Lines answered rightly, by kind, those that stand in the training text apart from those that do not."""
    each = answered(model, min(256, model.config.context))
    return {
        kind: {name: share([right for k, old, right in each if k == kind and old == seen])
               for name, seen in (("known", True), ("new", False))}
        for kind in KINDS.values()
    }  # fmt: skip


def figures(model: Transformer, size: Any) -> dict[str, Any]:
    """Samples, and sums."""
    return {"samples": samples(model, size), "sums": sums(attach(model.with_config()))}
