"""What single heads do: look at the token before, go on as it went on before, park attention at the start.

    previous token    pattern[t, t−1]
    induction         … A B … A: pattern[t, the B after the earlier A]          arXiv 2209.11895
    first token       pattern[t, 0]            where models without sinks park it    arXiv 2309.17453

Each is a share of a query's attention. Beside it stands the even share: one over the keys that the query may
see. A row's shares and its sink add up to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import require
from ..model import Transformer
from ..model.attention import visible
from ..tap import Edit, Recorder

SETTLED = 8  # the first queries see so few keys that their shares say little: left out of `first_token`


def looking_back(pattern: Tensor, offset: int) -> Tensor:
    """What each query gives to the key `offset` tokens before it: … T T → … T−offset, from query `offset`."""
    return pattern.diagonal(-offset, dim1=-2, dim2=-1)


def even(length: int, window: int | None) -> Tensor:
    """The pattern T T of a head that spreads its attention evenly over what it may see."""
    positions = torch.arange(length)[None]
    seen = visible(positions, positions, window)[0].double()
    return seen / seen.sum(-1, keepdim=True)


@torch.no_grad()
def of_heads(
    model: Transformer, windows: Tensor, point: str, look: Callable[[Tensor], Tensor], batch: int = 4,
    edits: Mapping[str, list[Edit]] | None = None,
) -> Tensor:  # fmt: skip
    """What `look` makes of `attention.{point}` in every layer: windows N T → N L H ….

    look: B H … → B H …, of the same shape in every layer; it is called once a layer and batch, so that a
    pattern is never kept.
    """
    names = [f"blocks.{n}.attention.{point}" for n in range(model.config.n_layers)]
    found = []
    for part in windows.split(batch):
        kept: dict[str, Tensor] = {}

        def store(name: str, value: Tensor, *_: object, kept: dict[str, Tensor] = kept) -> None:
            kept[name] = look(value).cpu()

        model(part, last=0, tap=Recorder(keep=names, store=store, edits=edits or {}))
        found.append(torch.stack([kept[name] for name in names], dim=1))
    return torch.cat(found)


def previous_token(model: Transformer, windows: Tensor) -> Tensor:
    """The share that the token before gets, mean over a window's queries but the first: N T → N L H."""
    return of_heads(model, windows, "pattern", lambda pattern: looking_back(pattern, 1).mean(-1))


def first_token(model: Transformer, windows: Tensor) -> tuple[Tensor, Tensor]:
    """The share that a window's first token gets, and the even share: N L H and L.

    Means over the queries from `SETTLED` on that see it: all of a dense layer's, the first of a window's.
    """
    T, bands = windows.shape[1], model.config.windows
    ends = [T if band is None else min(T, band) for band in bands]
    require(min(ends) > SETTLED, f"windows {bands} over {T} tokens: none may end before {SETTLED + 1}")
    shares = of_heads(model, windows, "pattern", lambda pattern: pattern[..., 0])  # N L H T
    means = [shares[:, n, :, SETTLED:end].mean(-1) for n, end in enumerate(ends)]
    alone = torch.stack([even(T, band)[SETTLED:end, 0].mean() for band, end in zip(bands, ends)])
    return torch.stack(means, dim=1), alone


@dataclass(frozen=True)
class Copying:
    """Passages that are read twice, and the same passages after another one.

    copied, other: nats of the targets of the second half but its first, N n−1; before it stood the same
    passage, or another. score, control: N L H, what a head gives to the token after the earlier occurrence of
    the query's own, and what it gives to that place where nothing was repeated. even: L, the even share.
    """

    copied: Tensor
    other: Tensor
    score: Tensor
    control: Tensor
    even: Tensor


def copying(
    model: Transformer, passages: Tensor, edits: Mapping[str, list[Edit]] | None = None, scores: bool = True
) -> Copying:
    """Passages N n, read twice and after one another (each after its neighbour).

    An induction head is one that finds the earlier occurrence and looks at what came after it. ValueError for
    fewer than two passages, or passages shorter than three tokens. Without `scores` the last three are empty.
    """
    N, n = passages.shape
    require(N > 1 and n > 2, f"passages of shape {N} x {n}; expected two or more, of three tokens or more")
    before = passages.roll(1, dims=0)
    rows = {"same": torch.cat((passages, passages), 1), "other": torch.cat((before, passages), 1)}
    losses = {name: second_half(model, tokens, n, edits) for name, tokens in rows.items()}
    if not scores:
        none = torch.empty(0)
        return Copying(losses["same"], losses["other"], none, none, none)

    def look(pattern: Tensor) -> Tensor:  # queries n … 2n−2, whose earlier selves stand at 0 … n−2
        return looking_back(pattern, n - 1)[..., 1:n].mean(-1)

    found = {name: of_heads(model, tokens, "pattern", look, 16, edits) for name, tokens in rows.items()}
    alone = torch.stack([look(even(2 * n, band)) for band in model.config.windows])
    return Copying(losses["same"], losses["other"], found["same"], found["other"], alone)


@torch.no_grad()
def second_half(
    model: Transformer, tokens: Tensor, n: int, edits: Mapping[str, list[Edit]] | None
) -> Tensor:
    """Nats of the tokens from the second of the second half on: N 2n → N n−1."""
    found = []
    for part in tokens.split(16):
        logits = model(part[:, :-1], last=n - 1, tap=Recorder(edits=edits or {}))
        nats = F.cross_entropy(logits.transpose(1, 2), part[:, n + 1 :], reduction="none")
        found.append(nats.cpu())
    return torch.cat(found)


def random_passages(ids: Tensor, count: int, length: int, seed: int = 0) -> Tensor:
    """Tokens drawn from `ids` with equal chances, each once at most in a passage: count length.

    ValueError where there are fewer ids than a passage is long.
    """
    require(len(ids) >= length, f"{len(ids)} different tokens for passages of {length}")
    dice = torch.Generator().manual_seed(seed)
    return torch.stack([ids[torch.randperm(len(ids), generator=dice)[:length]] for _ in range(count)])


def silenced(layer: int, head: int) -> dict[str, list[Edit]]:
    """Edits by full name after which one head adds nothing."""

    def edit(mixed: Tensor, here: object) -> Tensor:
        mixed[:, :, head] = 0.0
        return mixed

    return {f"blocks.{layer}.attention.mixed": [edit]}
