"""The tap: an argument of the forward pass through which every named value flows.

`tap(name, value)` returns the value the model goes on with. `SILENT`, the default, returns what it was given:
the compiled graph is the same with and without it. `Recorder` edits, then keeps, then returns. The tap stands
on the line that makes the value, as an equation's number would; the names and their axes are listed in
`points`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor


class Tap(Protocol):
    """What the model asks of a tap."""

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """The value the model goes on with."""
        ...

    def wants(self, name: str) -> bool:
        """Whether `name` is kept or edited here; what nothing else needs is computed only then."""
        ...

    def within(self, room: str) -> Tap:
        """The same tap with `room.` before every name."""
        ...

    def at(self, positions: Tensor | None = None, keys: Tensor | None = None) -> Tap:
        """The same tap, told which tokens the axes are: `positions` B T of axis T, `keys` B S of axis S."""
        ...


class Silent:
    """The tap that does nothing."""

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def wants(self, name: str) -> bool:
        """Never."""
        return False

    def within(self, room: str) -> Silent:
        """Itself."""
        return self

    def at(self, positions: Tensor | None = None, keys: Tensor | None = None) -> Silent:
        """Itself."""
        return self


SILENT = Silent()


@dataclass
class Here:
    """Where an edit stands. `here["attention.q"]` is an earlier point of the same block, as the model went on
    with it.

    name: the full dotted name; layer: the block's number, or None outside the blocks; positions: B T, the
    positions of the tokens in this forward pass (one token at a time while decoding); keys: B S, the
    positions of the keys, known inside attention, else None.

    What the model computes only where it is asked for (scores and pattern in fused attention, say, or gate
    and up where experts are walked) is there only where it is kept, or has an edit of its own: one that
    returns the value as it came will do.
    """

    name: str
    layer: int | None
    positions: Tensor | None
    keys: Tensor | None
    earlier: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.earlier:
            made = ", ".join(self.earlier) or "nothing yet"
            raise KeyError(f"{name!r} was not made before {self.name!r} in this block; made so far: {made}. "
                           "A value that is computed only on request must be kept too, or have an edit, if "
                           "only `lambda value, here: value`.")  # fmt: skip
        return self.earlier[name]


Edit = Callable[[Tensor, Here], Tensor]


@dataclass
class Recorder:
    """A tap that edits, then keeps, then returns.

    keep: the full names to keep; edits: full name → edit functions, applied in order. What is kept is handed
    to `store(name, value, positions, keys)`, by default `self.kept[name] = value` (the newest value wins), as
    a copy on the CPU: a card's memory is for the model, a value written to must not change the model that it
    came from (sinks pass the tap as they are), and a slice must not hold all that it was cut from.

    An edit must return the shape it was given (dtype and device are restored); `attention.visible` may be
    narrowed, not widened. ValueError says which edit broke the rule.
    """

    keep: Collection[str] = ()
    edits: Mapping[str, list[Edit]] = field(default_factory=dict)
    store: Callable[[str, Tensor, Tensor | None, Tensor | None], None] | None = None
    prefix: str = ""
    positions: Tensor | None = None
    keys: Tensor | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    earlier: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keep = frozenset(self.keep)

    def wants(self, name: str) -> bool:
        """Whether this name, under the recorder's prefix, is kept or edited."""
        return self.prefix + name in self.keep or self.prefix + name in self.edits

    def within(self, room: str) -> Recorder:
        """The same recorder one room further in; a new block forgets the earlier points of the last one."""
        earlier = {} if room.startswith("blocks.") else self.earlier
        return replace(self, prefix=f"{self.prefix}{room}.", earlier=earlier)

    def at(self, positions: Tensor | None = None, keys: Tensor | None = None) -> Recorder:
        """The same recorder, told which tokens the axes are."""
        positions = self.positions if positions is None else positions
        keys = self.keys if keys is None else keys.clone()  # a ring writes over its positions later
        return replace(self, positions=positions, keys=keys)

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """Edit, keep, return."""
        full = self.prefix + name
        for edit in self.edits.get(full, ()):
            value = self.edited(full, value, edit)
        if full in self.keep:
            own = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            if self.store is None:
                self.kept[full] = own
            else:
                self.store(full, own, self.positions, self.keys)
        if self.edits and self.prefix:
            self.earlier[full.split(".", 2)[2]] = value
        return value

    def edited(self, full: str, value: Tensor, edit: Edit) -> Tensor:
        """What `edit` makes of `value`, checked. An edit works on a copy, so it may write in place."""
        layer = int(full.split(".")[1]) if full.startswith("blocks.") else None
        new = edit(value.clone(), Here(full, layer, self.positions, self.keys, self.earlier))
        if not isinstance(new, Tensor):
            raise ValueError(
                f"the edit of {full!r} returned {type(new).__name__}, no tensor: end it with `return value`"
            )
        new = new.to(value.device)
        if new.shape != value.shape:
            raise ValueError(
                f"the edit of {full!r} returned shape {tuple(new.shape)}; expected {tuple(value.shape)}"
            )
        if new.dtype.is_floating_point != value.dtype.is_floating_point:
            raise ValueError(f"the edit of {full!r} returned {new.dtype}; expected {value.dtype}")
        if full.endswith("attention.visible") and bool((new.bool() & ~value).any()):
            raise ValueError(
                f"the edit of {full!r} shows a query keys it could not see: `visible` may be narrowed, not "
                "widened. Use model.with_config(window=…) for a wider window."
            )
        if full.endswith("experts.choice"):
            experts = self.earlier["experts.logits"].shape[-1]
            if bool(((new < 0) | (new >= experts)).any()):
                raise ValueError(
                    f"the edit of {full!r} chose experts {int(new.min())} to {int(new.max())}; "
                    f"there are 0 to {experts - 1}"
                )
        return new.to(value.dtype)


def force_eager() -> AbstractContextManager[object]:
    """Traces run eagerly, also where the model was compiled: a compiled graph has the tap it was compiled
    with.

    Where nothing was ever compiled in this process there is nothing to hold back, and the compiler (seconds)
    is not loaded.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
