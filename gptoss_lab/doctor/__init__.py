"""What this machine is, what it can run and how fast: `examine` finds out, `words` says it plainly."""

from .examination import examine
from .words import words

__all__ = ["examine", "words"]
