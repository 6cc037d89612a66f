"""Deliberate faults: known ways to get these models wrong, to be planted in a good model and found again.

Programs have run gpt-oss for months with a window off by one, without its sinks, or with YaRN's ramp rounded:
the text still reads well. A test that never met such a model cannot claim to see it. Each fault is caught
twice, by the operation's definition and by a comparison of whole models; the table is in docs/conformance.md.
"""

from . import of_attention, of_the_rest
from .planting import Fault, planted

FAULTS: tuple[Fault, ...] = tuple(
    value for room in (of_attention, of_the_rest) for value in vars(room).values() if isinstance(value, Fault)
)

__all__ = ["FAULTS", "Fault", "planted"]
