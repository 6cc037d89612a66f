"""What is told in a line instead of a traceback: mistakes of a user, and limits of the machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .terminal import printable

# what torch says on the CPU, on CUDA and on MPS; on the CPU the error's type tells nothing
NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)
ASKED = re.compile(r"tried to allocate [\d.]+ \w+", re.IGNORECASE)


def in_a_line(error: BaseException) -> str | None:
    """The line that a user reads instead of a traceback, or None for an error that is a fault of the program.

    A user's mistakes are ValueError and OSError. Of RuntimeError only what torch says of memory is told.
    """
    said = str(error)
    torch_s, python_s = isinstance(error, RuntimeError), isinstance(error, MemoryError)
    if torch_s and NO_MEMORY.search(said) or python_s and not said:
        asked = found[0] if (found := ASKED.search(said)) else "it could not be allocated"
        return (f"out of memory ({asked}). A shorter text or context, fewer points and a smaller model take "
                "less; `gptoss-lab cost` tells how much")  # fmt: skip
    return said if isinstance(error, ValueError | OSError | MemoryError) else None


@contextmanager
def told_by(program: str) -> Iterator[None]:
    """Ends the program with status 1 and a line that begins with its name where what is done meanwhile fails
    by a user's mistake: for the modules that are run with `python -m`."""
    try:
        yield
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if (told := in_a_line(error)) is None:
            raise
        sys.exit(f"{program}: {printable(told)}")
