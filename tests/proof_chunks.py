"""Every way to cut a short text into chunks, through one cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from proof_common import deviation
from toys import gpt_oss, in_chunks, random_model, random_tokens, run

from gptoss_lab.config import Config, Yarn

TOKENS = 6


def cuts(count: int) -> Iterator[tuple[int, ...]]:
    """All sequences of positive numbers whose sum is `count`."""
    if count == 0:
        yield ()
    for first in range(1, count + 1):
        yield from ((first, *rest) for rest in cuts(count - first))


def all_chunks(family: Callable[..., Config]) -> tuple[int, float, float]:
    """How many ways there are, how far the logits are from those of the whole text at most, and how far they
    would be without window and YaRN (for gpt-oss; infinite for others).
    """
    changes = {"window": 3, "yarn": Yarn(4.0, 4, 1.0, 0.25)} if family is gpt_oss else {}
    model = random_model(family(**changes))
    tokens = random_tokens(model.config, 2, TOKENS)
    whole, ways = run(model, tokens), list(cuts(TOKENS))
    apart = max(deviation(in_chunks(model, tokens, sizes), whole) for sizes in ways)
    if not changes:
        return len(ways), apart, float("inf")
    without = [deviation(run(model.with_config(**{name: None}), tokens), whole) for name in changes]
    return len(ways), apart, min(without)
