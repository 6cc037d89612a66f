"""A fault, and how it is planted in a good model and taken out again.

A fault is one of three things: a config with another value, a change of weights, or a function replaced while
the faulty model is built and run. The model itself knows nothing of faults.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...model import Transformer
from ...tap import Tap
from ...weights.mxfp4 import PackedStack

Function = Callable[..., Any]
Change = Callable[[Tensor, dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Fault:
    """One way to get a model wrong.

    name, what: in words. family: the family of models it is a fault of. kind: what `change` works on:
        "config"    Config → Config
        "weights"   a Transformer, changed in place
        "function"  the right function → the wrong one, which takes its place: `place` is (owner, name)
    operation: what no longer is its definition. end: the comparison of whole models that shows it.
    """

    name: str
    what: str
    family: str
    operation: str
    end: str
    kind: str
    change: Function
    place: tuple[Any, str] | None = None


def config(family: str, operation: str, end: str = "") -> Callable[[Function], Fault]:
    """Make a function that changes a config a fault: named as the function, explained by its docstring."""
    return as_fault("config", family, operation, end)


def weights(family: str, operation: str, end: str = "") -> Callable[[Function], Fault]:
    """Make a function that changes a model's weights in place a fault. It runs without gradients."""
    return as_fault("weights", family, operation, end)


def function(
    place: tuple[Any, str], family: str, operation: str, end: str = ""
) -> Callable[[Function], Fault]:
    """Make a function that takes the right function and returns a wrong one a fault."""
    return as_fault("function", family, operation, end, place)


def as_fault(
    kind: str, family: str, operation: str, end: str, place: tuple[Any, str] | None = None
) -> Callable[[Function], Fault]:
    """The decorator behind the three. end: where it is left out, the family's ordinary comparison."""

    def made(change: Function) -> Fault:
        name, what = change.__name__.replace("_", " "), inspect.getdoc(change) or ""
        return Fault(name, " ".join(what.split()), family, operation, end or family, kind, change, place)

    return made


@contextmanager
def planted(fault: Fault, model: Transformer) -> Iterator[Transformer]:
    """A copy of the model with the fault in it, for as long as the block lasts.

        with planted(sink_dropped, model) as faulty:
            faulty(tokens)

    A replaced function is replaced for every model while the block lasts. Weights are copied: this is for
    small models.
    """
    right = None
    if fault.place:
        owner, name = fault.place
        right = getattr(owner, name)
        setattr(owner, name, fault.change(right))
    try:
        wanted = fault.change(model.config) if fault.kind == "config" else model.config
        faulty = Transformer(wanted)
        for path, part in model.named_modules():
            if isinstance(part, PackedStack):
                room, _, own = path.rpartition(".")
                setattr(faulty.get_submodule(room), own, PackedStack(part.blocks, part.scales, part.bias))
        held = model.state_dict()
        faulty.load_state_dict({name: held[name].clone() for name in faulty.state_dict()})
        if fault.kind == "weights":
            with torch.no_grad():
                fault.change(faulty)
        yield faulty.eval().requires_grad_(False)
    finally:
        if fault.place:
            setattr(owner, name, right)


def attentions(model: Transformer) -> list[Any]:
    """The attention of every block."""
    return [block.attention for block in model.blocks]


def mixtures(model: Transformer) -> list[Any]:
    """The router and experts of every block."""
    return [block.experts for block in model.blocks]


class Altered:
    """A tap that changes some values, knowing those made before them, on their way to the tap behind it."""

    def __init__(self, tap: Tap, changes: Mapping[str, Change]) -> None:
        self.tap, self.changes = tap, changes
        self.before: dict[str, Tensor] = {}

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """The value, changed if it is one of these, then what the tap behind makes of it."""
        if name in self.changes:
            value = self.changes[name](value, self.before)
        self.before[name] = value
        return self.tap(name, value)

    def wants(self, name: str) -> bool:
        """Whether the tap behind does."""
        return self.tap.wants(name)

    def within(self, room: str) -> Altered:
        """The same, the tap behind one room further in."""
        return Altered(self.tap.within(room), self.changes)

    def at(self, positions: Tensor | None = None, keys: Tensor | None = None) -> Altered:
        """The same, the tap behind told which tokens the axes are."""
        there = Altered(self.tap.at(positions, keys), self.changes)
        there.before = self.before
        return there


def altering(forward: Function, **changes: Function) -> Function:
    """A layer's forward in which some named values are others: name=change(layer, value, before).

    Its last argument must be the tap. before: the values that the layer made earlier, by name.
    """

    def wrong(layer: Any, *given: Any) -> Tensor:
        *rest, tap = given
        bound = {
            name: lambda value, before, change=change: change(layer, value, before)
            for name, change in changes.items()
        }
        return forward(layer, *rest, Altered(tap, bound))

    return wrong
