"""What a check answers, and how a student's numbers are held against the right ones and against mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..terminal import in_lines

Own = Callable[..., Any]  # what a student wrote

@dataclass(frozen=True)
class Answer:
    """What a check says: whether it is right, and words, which are its repr so that a cell may end in it."""

    right: bool
    said: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return in_lines(self.said)


def judge(
    given: Any, right: Tensor, praise: str, mistakes: Mapping[str, Tensor], atol: float = 1e-6
) -> Answer:
    """`given` against the right numbers, then against those of each mistake, whose name is what is said."""
    if given is None:
        return Answer(False, "Your function returned None: end it with `return`.")
    if not isinstance(given, Tensor):
        return Answer(False, f"Your function returned {type(given).__name__}; expected a tensor.")
    if agree(given, right, atol):
        return Answer(True, f"Right: {praise}")
    for said, numbers in mistakes.items():
        if agree(given, numbers, atol):
            return Answer(False, said)
    if given.shape != right.shape:
        return Answer(False, f"Your answer has shape {tuple(given.shape)}; expected {tuple(right.shape)}.")
    if not given.isfinite().all():
        return Answer(False, "Your answer holds inf or nan: look for a division by 0, or a logarithm of 0.")
    apart = (given.double() - right.double()).abs()
    at = tuple(int(i) for i in (apart == apart.max()).nonzero()[0])
    return Answer(
        False,
        f"Not yet, and by none of the mistakes known here: {int((apart > atol).sum())} of "
        f"{apart.numel()} values differ, most at {list(at)}: "
        f"yours is {float(given[at]):.4g}, right is {float(right[at]):.4g}.",
    )


def agree(a: Tensor, b: Tensor, atol: float) -> bool:
    """Whether two tensors have one shape and, but for rounding, the same numbers."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=atol)


def made_up(*shape: int, seed: int = 0) -> Tensor:
    """Normal random numbers, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
