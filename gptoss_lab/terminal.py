"""What a terminal or a cell is shown: lines broken between words, a line that is rewritten in place, dim
text, and no control characters from a model.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from typing import TextIO

COLUMNS = 96  # of a paragraph: a longer line JupyterLab breaks in the middle of a word


def in_lines(text: str, indent: str = "") -> str:
    """The text with its lines broken between words; indent: of what a line goes on with."""
    breaks = textwrap.TextWrapper(
        COLUMNS, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(breaks.fill(line) for line in text.splitlines())


def printable(text: str) -> str:
    """The text with control characters spelled out (\\\\x1b), but for tab and line end: what a model or a
    file says must not steer a terminal.
    """
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def has_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that dims text: not where TERM is dumb, nor where NO_COLOR is set."""
    named = os.environ.get("TERM") or os.environ.get("WT_SESSION")
    return stream.isatty() and named not in (None, "dumb") and not os.environ.get("NO_COLOR")


class Line:
    """Progress on one line of standard error, rewritten in place; nothing where that is no terminal."""

    def __init__(self) -> None:
        self.width, self.last, self.shown = 0, 0.0, sys.stderr.isatty()

    def prompt(self, done: int, total: int, seconds: float) -> None:
        """How far a prompt is, after a second, four times a second at most."""
        if not self.shown or seconds < 1 or (seconds - self.last < 0.25 and done < total):
            return
        self.last = seconds
        left = f", about {seconds * (total - done) / done:.0f} s to go" if 0 < done < total else ""
        self.write(f"prompt: {done:,} of {total:,} tokens{left}")

    def write(self, text: str) -> None:
        """Put a text in the place of the last."""
        text = printable(text)
        if self.shown:
            print("\r" + text.ljust(self.width) + ("" if text else "\r"), end="", file=sys.stderr, flush=True)
            self.width = len(text)

    def clear(self) -> None:
        """Leave the line empty."""
        self.last = 0.0
        if self.width:
            self.write("")
