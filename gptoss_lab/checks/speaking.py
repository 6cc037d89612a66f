"""Checks of what generating needs: which positions a ring holds, and top-p."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import judging
from .judging import Answer, Own, made_up


def ring(own: Own) -> Answer:
    """own(tokens, size) → size: the position that each slot of a ring holds after so many tokens, −1:
    nothing."""
    cases = ((3, 5), (5, 5), (6, 5), (19, 5), (41, 8))

    def after(hold: Callable[[int, int], list[int]]) -> Tensor:
        return torch.cat([torch.tensor(hold(tokens, size)) for tokens, size in cases])

    def held(tokens: int, size: int, shift: int = 0, nothing: int = -1) -> list[int]:
        slots = [nothing] * size
        for position in range(tokens):
            slots[(position + shift) % size] = position
        return slots

    def newest(tokens: int, size: int) -> list[int]:
        kept = list(range(max(tokens - size, 0), tokens))
        return kept + [-1] * (size - len(kept))

    given = [own(tokens, size) for tokens, size in cases]
    missing = any(one is None for one in given)
    return judging.judge(
        None if missing else torch.cat([torch.as_tensor(one).flatten() for one in given]), after(held),
        "token p lies in slot p % size, over the one that has just left the window.",
        {
            "The right positions, but in order: a ring does not move what it holds, it writes over the "
            "oldest where that lies.": after(newest),
            "You begin one slot late: position 0 goes into slot 0.": after(lambda t, s: held(t, s, 1)),
            "You hold the first tokens; a ring holds the last.":
                after(lambda t, s: held(min(t, s), s)),
            "Slots that hold nothing yet are −1; yours say position 0.":
                after(lambda t, s: held(t, s, nothing=0)),
            "The newest first: a ring does not move what it holds.":
                after(lambda t, s: [p for p in newest(t, s)[::-1] if p >= 0] + [-1] * max(s - t, 0)),
            "You left out the last token: after n tokens position n − 1 is there.":
                after(lambda t, s: held(t - 1, s)),
        },
    )  # fmt: skip


def top_p(own: Own) -> Answer:
    """own(probabilities V, p) → V: those left of the fewest likeliest that reach p, summing to 1 again."""
    rows = [(made_up(12, seed=seed) * 2).softmax(-1) for seed in range(4)]
    cases = [(row, p) for row in rows for p in (0.35, 0.8, 0.95)]

    def kept(fewer: int = 0, again: bool = True, least: bool = False, sort: bool = False) -> Tensor:
        made = []
        for row, p in cases:
            share, order = row.sort(descending=not least)
            count = int((share.cumsum(-1) < p).sum()) + 1 - fewer
            left = torch.where(torch.arange(len(row)) < count, share, 0.0)
            left = left / left.sum().clamp(min=1e-9) if again else left
            made.append(left if sort else torch.zeros_like(row).index_copy(0, order, left))
        return torch.cat(made)

    above = [torch.where(row >= p, row, 0.0) for row, p in cases]
    beside = [torch.where(row >= p * row.max(), row, 0.0) for row, p in cases]
    given = [own(row.clone(), p) for row, p in cases]
    missing = any(one is None for one in given)
    return judging.judge(
        None if missing else torch.cat([torch.as_tensor(one) for one in given]), kept(),
        "the token that crosses p still belongs to them.",
        {
            "The token that crosses p is missing: without it those kept do not reach p.": kept(fewer=1),
            "Nothing was cut off.": torch.cat([row for row, _ in cases]),
            "What is kept does not sum to 1: divide by its sum.": kept(again=False),
            "You kept the unlikeliest tokens: sort from the largest down.": kept(least=True),
            "Your probabilities are sorted; give each back to its token.": kept(sort=True),
            "You compared each probability with p; compare their running sum, from the largest down.":
                torch.cat(above),
            "You compared each probability with p; compare their running sum, and divide by the sum kept.":
                torch.cat([row / row.sum().clamp(min=1e-9) for row in above]),
            "You compared with p times the largest (that is min-p); compare the running sum.":
                torch.cat([row / row.sum() for row in beside]),
        },
    )  # fmt: skip
