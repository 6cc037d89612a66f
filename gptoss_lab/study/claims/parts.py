"""What a claim is made of: statements that can be true or false, and the words for verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...training.ladder_numbers import signed

HOLDS, PARTLY, UNSEEN = "holds", "holds partly", "not seen here"
FALSE, MISLEADING = "does not hold", "misleading"
UNTESTABLE, OPEN = "cannot be tested here", "open"
VERDICTS = (HOLDS, PARTLY, UNSEEN, FALSE, MISLEADING, UNTESTABLE, OPEN)
LADDER = "Waits for the ladder's runs (`docs/ladder.md`); nothing is guessed here."


@dataclass(frozen=True)
class Part:
    """One statement that can be true or false: what is said, the verdict, what was found (Markdown), and what
    may be said instead.
    """

    said: str
    verdict: str
    found: str
    precisely: str = ""

    def __post_init__(self) -> None:
        assert self.verdict in VERDICTS, self.verdict


@dataclass(frozen=True)
class Claim:
    """A claim of the list: its number, what it is about, its parts."""

    number: int
    about: str
    parts: tuple[Part, ...]


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def change(entry: Mapping[str, float]) -> str:
    """A difference in bits per byte and its interval; a millionth is rounding."""
    if abs(entry["more"]) < 1e-6:
        return "nothing but rounding"
    return f"{signed(entry['more'], 4)} ± {entry['within']:.4f}"
