"""How many bits of a label an expert's number tells, beside what chance would give.

    I(expert; label) = H(expert) + H(label) − H(expert, label)        H = −Σ p log₂ p, from counts

An estimate from counts is too high on average, about (E−1)(C−1) / (2 N ln 2) bits for E experts, C labels and
N draws that are independent (Miller, 1955). Tokens of one window are not, so the labels are also shuffled and
the estimate made again: what is left then is what counting alone gives. Three ways to shuffle:

    whole             whole pieces of text, for labels that a window or a verse has as a whole
    tokens            single tokens, for labels that each has for itself
    equal             among the occurrences of each token: what its identity alone tells is kept, and a
                      token that occurs once keeps its label, so that this is rather too much than too little
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import require

TIMES = 20  # shuffles


@dataclass(frozen=True)
class Information:
    """Bits that experts tell of labels; the mean and the standard deviation of that over shuffles."""

    bits: float
    shuffled: float
    spread: float

    @property
    def beyond(self) -> float:
        """What is told beyond the shuffled labels."""
        return self.bits - self.shuffled


def entropy(counts: Tensor) -> float:
    """−Σ p log₂ p of the shares of counts, in bits."""
    share = counts.double().flatten() / counts.sum()
    share = share[share > 0]
    return float(-(share * share.log2()).sum())


def joint(choice: Tensor, label: Tensor) -> Tensor:
    """How often each label met each expert: choice N K or N, label N → labels × experts, counts."""
    choice = choice.reshape(len(label), -1)
    sizes = int(label.max()) + 1, int(choice.max()) + 1
    cells = label[:, None] * sizes[1] + choice
    return cells.flatten().bincount(minlength=sizes[0] * sizes[1]).reshape(sizes)


def mutual_information(counts: Tensor) -> float:
    """Bits, from a table of counts."""
    return entropy(counts.sum(0)) + entropy(counts.sum(1)) - entropy(counts)


def bias(experts: int, labels: int, draws: int) -> float:
    """By how many bits the estimate is too high, about, for independent draws (Miller, 1955)."""
    return (experts - 1) * (labels - 1) / (2 * draws * math.log(2))


Shuffle = Callable[[Tensor, torch.Generator], Tensor]


def tokens(label: Tensor, dice: torch.Generator) -> Tensor:
    """Labels N in any order."""
    return label[torch.randperm(len(label), generator=dice)]


def whole(lengths: Tensor) -> Shuffle:
    """Labels N of pieces of text of so many tokens, one after another: each piece gets another one's."""
    starts = lengths.cumsum(0) - lengths

    def shuffle(label: Tensor, dice: torch.Generator) -> Tensor:
        return tokens(label[starts], dice).repeat_interleave(lengths)

    return shuffle


def equal(ids: Tensor) -> Shuffle:
    """Labels N in any order among the places that hold the same token, ids N."""
    places = ids.argsort(stable=True)

    def shuffle(label: Tensor, dice: torch.Generator) -> Tensor:
        order = torch.randperm(len(label), generator=dice)
        order = order[ids[order].argsort(stable=True)]  # grouped by token, in any order within
        return label.clone().index_copy_(0, places, label[order])

    return shuffle


def information(
    choice: Tensor, label: Tensor, shuffle: Shuffle = tokens, times: int = TIMES, seed: int = 0
) -> Information:
    """What the experts of N tokens, choice N K, tell of their labels, N: each of the K counts alike.

    ValueError where a token has no label.
    """
    require(len(choice) == len(label) > 0, f"{len(choice)} choices and {len(label)} labels")
    dice = torch.Generator().manual_seed(seed)
    bits = mutual_information(joint(choice, label))
    chance = torch.tensor(
        [mutual_information(joint(choice, shuffle(label, dice))) for _ in range(times)], dtype=torch.float64
    )
    return Information(bits, float(chance.mean()), float(chance.std()))
