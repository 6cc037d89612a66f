"""Numbers in words: differences with their intervals, heads by name, lists; Markdown that quotes safely."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..study.claims.parts import table

__all__ = ["code", "difference", "heads", "listed", "number", "ranged", "signed", "table"]


def number(value: float | None, digits: int = 3) -> str:
    """A number with a minus that is one; "–" where there is none."""
    if value is None:
        return "–"
    shown = f"{value:.{digits}f}"
    return (shown[1:] if float(shown) == 0 and shown[0] == "-" else shown).replace("-", "−")


def signed(value: float, within: float | None, digits: int = 3) -> str:
    """A difference and half its interval: "+0.012 ± 0.003"."""
    sign = "+" if round(value, digits) > 0 else ""
    return f"{sign}{number(value, digits)}" + ("" if within is None else f" ± {number(within, digits)}")


def difference(more: float, within: float, unit: str, digits: int = 3) -> str:
    """What a change does to a loss: "costs 0.012 ± 0.003 bits per byte", "gains …", or that none can tell."""
    if abs(more) <= within:
        return f"makes no difference that can be told here ({signed(more, within, digits)} {unit})"
    verb = "costs" if more > 0 else "gains"
    return f"{verb} {number(abs(more), digits)} ± {number(within, digits)} {unit}"


def listed(items: Iterable[str]) -> str:
    """One, two and three as "one, two and three"."""
    names = list(items)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def ranged(values: Sequence[float], digits: int = 3) -> str:
    """The least and the most of some numbers: "0.01 to 0.04"; one number where they are the same."""
    low, high = number(min(values), digits), number(max(values), digits)
    return low if low == high else f"{low} to {high}"


def heads(share: Sequence[Sequence[float]], least: float, most: int = 8) -> list[str]:
    """The heads with a share of at least this, the largest first: "layer 3 head 3 (0.65)"."""
    found = [(value, n, h) for n, row in enumerate(share) for h, value in enumerate(row) if value >= least]
    found.sort(key=lambda one: (-one[0], *one[1:]))
    named = [f"layer {n} head {h} ({value:.2f})" for value, n, h in found[:most]]
    return named + ([f"{len(found) - most} more"] if len(found) > most else [])


def code(text: str) -> str:
    """A text as one line of Markdown code: line ends are ⏎, and what would end the code does not."""
    line = "".join(char if char.isprintable() else "⏎" if char == "\n" else "·" for char in text)
    longest, run = 0, 0
    for char in line:
        run = run + 1 if char == "`" else 0
        longest = max(longest, run)
    fence, pad = "`" * (longest + 1), " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{pad}{line}{pad}{fence}"
