"""Changes with a name: what a class asks of a model again and again, said in a line and told in words.

    change = Change(forbid=[5], heads_off=[(3, 2)], window=None)
    changed, edit = change.applied(model)
    lab.generate(changed, "Once upon a time", edit=edit)

A change is a plain value: it survives JSON and is checked against a config before anything runs. It holds
both kinds: edits of points (experts, heads, sinks) and changes of the config (window, experts per token).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import Config, require
from ..model import Transformer
from ..tap import Edit, Here

Place = tuple[int | None, int]  # a layer, or None for every layer; an expert, or a head
SAME = "same"


@dataclass(frozen=True)
class Change:
    """What is changed in a model.

    forbid, force: experts that never answer, and that always do, in the place of the least of those chosen,
    with the weight that their own logit gives. heads_off: heads whose answer is zero. Each is a number (in
    every layer) or (layer, number). sinks_off: the layers whose sinks take nothing; True: all. window: keys
    that a query of a windowed layer sees, None for all, "same" as it is. experts_per_token: None as it is.

    ValueError where a field is no such value; `check` holds them against a config.
    """

    forbid: tuple[Place, ...] = ()
    force: tuple[Place, ...] = ()
    heads_off: tuple[Place, ...] = ()
    sinks_off: tuple[int, ...] | Literal[True] = ()
    window: int | str | None = SAME
    experts_per_token: int | None = None

    def __post_init__(self) -> None:
        for name in ("forbid", "force", "heads_off"):
            object.__setattr__(self, name, places(name, getattr(self, name)))
        if self.sinks_off is not True:
            layers = [self.sinks_off] if whole(self.sinks_off) else self.sinks_off or ()
            told = f"sinks_off={self.sinks_off!r}; expected layers, or True for all"
            require(isinstance(layers, Iterable) and all(whole(n) for n in layers), told)
            object.__setattr__(self, "sinks_off", tuple(sorted(set(layers))))
        told = f"window={self.window!r}; expected a number of keys, None for all, or {SAME!r}"
        require(self.window is None or self.window == SAME or whole(self.window), told)
        kept = self.experts_per_token
        require(kept is None or whole(kept), f"experts_per_token={kept!r}; expected a number, or None")

    @classmethod
    def from_json(cls, made: Mapping[str, Any]) -> Change:
        """The change that `to_json` described, or a part of it. ValueError for what is no field."""
        told = f"a change is {type(made).__name__}; expected a mapping, as {{'forbid': [5]}}"
        require(isinstance(made, Mapping), told)
        known = [f.name for f in fields(cls)]
        for name in made:
            require(name in known, f"no change {name!r}; there are {', '.join(known)}")
        return cls(**made)

    def to_json(self) -> dict[str, Any]:
        """A value that JSON can hold."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return self != Change()

    def check(self, config: Config) -> None:
        """ValueError, in words, where a model of this config cannot be changed so."""
        name, E = config.name, config.n_experts or 0
        asked = self.forbid or self.force or self.experts_per_token is not None
        require(bool(E) or not asked,
                f"{name} has no experts to forbid, force or count: its MLP is dense")  # fmt: skip
        require(config.sinks or not self.sinks_off, f"{name} has no sinks to switch off")
        kept = config.experts_per_token if self.experts_per_token is None else self.experts_per_token
        require(not E or 0 < kept <= E, f"experts_per_token={kept}; expected 1 to {E}, the experts of {name}")
        numbered = (("expert", self.forbid + self.force, E), ("head", self.heads_off, config.n_heads))
        for what, given, size in numbered:
            for layer, number in given:
                require(0 <= number < size, f"there is no {what} {number}; {name} has 0 to {size - 1}")
                require_layer(layer, config)
        for layer in () if self.sinks_off is True else self.sinks_off:
            require_layer(layer, config)
        for layer in range(config.n_layers):
            off, on = (set(held(given, layer)) for given in (self.forbid, self.force))
            both, left = min(off & on, default=None), E - len(off)
            require(both is None, f"expert {both} is both forbidden and forced in layer {layer}")
            require(len(on) <= kept, f"layer {layer}: {len(on)} experts are forced, {kept} answer a token")
            require(not off or left >= kept,
                    f"layer {layer}: {len(off)} of {E} experts are forbidden, so {left} could answer; "
                    f"{kept} are needed for a token")  # fmt: skip
        if self.window != SAME:
            config.with_changes(window=self.window)  # a config says what a window may be

    def applied(self, model: Transformer) -> tuple[Transformer, dict[str, Edit]]:
        """The model under the changed config (the same weights), and the edits for `watch` and `generate`."""
        self.check(model.config)
        changes: dict[str, object] = {} if self.window == SAME else {"window": self.window}
        if self.experts_per_token is not None:
            changes["experts_per_token"] = self.experts_per_token
        edits: dict[str, Edit] = {}
        if self.forbid:
            edits["blocks.*.experts.logits"] = forbid(self.forbid)
        if self.force:
            edits["blocks.*.experts.choice"] = force(self.force)
        if self.heads_off:
            edits["blocks.*.attention.mixed"] = silence(self.heads_off)
        if self.sinks_off:
            edits["blocks.*.attention.sink_logit"] = without_sinks(self.sinks_off)
        return (model.with_config(**changes) if changes else model), edits

    def words(self) -> str:
        """The change as "expert 5 forbidden; head 2 of layer 3 off"; "" where nothing is changed."""
        said = [f"expert {n}{where(layer)} forbidden" for layer, n in self.forbid]
        said += [f"expert {n}{where(layer)} forced" for layer, n in self.force]
        said += [f"head {n}{where(layer)} off" for layer, n in self.heads_off]
        if self.sinks_off:
            layers = "" if self.sinks_off is True else f" of layers {', '.join(map(str, self.sinks_off))}"
            said.append(f"sinks{layers} off")
        if self.window != SAME:
            said.append("no windows" if self.window is None else f"window of {self.window}")
        if self.experts_per_token is not None:
            plural = "s" if self.experts_per_token != 1 else ""
            said.append(f"{self.experts_per_token} expert{plural} a token")
        return "; ".join(said)


def whole(value: object) -> bool:
    """Whether this is a whole number (True and False are none)."""
    return isinstance(value, int) and not isinstance(value, bool)


def places(name: str, given: Any) -> tuple[Place, ...]:
    """5, [5] and [(3, 5)] as pairs of a layer (None: every one) and a number, in order, each once."""
    found: set[Place] = set()
    for one in [given] if isinstance(given, int) else given if isinstance(given, Iterable) else [given]:
        pair = (None, one) if whole(one) else tuple(one) if isinstance(one, list | tuple) else ()
        right = len(pair) == 2 and whole(pair[1]) and (pair[0] is None or whole(pair[0]))
        require(right, f"{name}={given!r}; expected numbers, or pairs of a layer and a number")
        found.add(pair)
    return tuple(sorted(found, key=lambda pair: (-1 if pair[0] is None else pair[0], pair[1])))


def held(given: tuple[Place, ...], layer: int | None) -> list[int]:
    """The numbers that hold in a layer."""
    return sorted({number for at, number in given if at is None or at == layer})


def where(layer: int | None) -> str:
    """A layer in words; "" for all."""
    return "" if layer is None else f" of layer {layer}"


def require_layer(layer: int | None, config: Config) -> None:
    """ValueError for a layer that there is not."""
    require(layer is None or 0 <= layer < config.n_layers,
            f"there is no layer {layer}; {config.name} has 0 to {config.n_layers - 1}")  # fmt: skip


def forbid(experts: tuple[Place, ...]) -> Edit:
    """An edit of `experts.logits` B T E: these experts are never chosen."""

    def edit(logits: Tensor, here: Here) -> Tensor:
        logits[..., held(experts, here.layer)] = -torch.inf
        return logits

    return edit


def force(experts: tuple[Place, ...]) -> Edit:
    """An edit of `experts.choice` B T K: these always answer, in the place of the least of the others."""

    def edit(choice: Tensor, here: Here) -> Tensor:
        forced, slots = held(experts, here.layer), torch.arange(choice.shape[-1], device=choice.device)
        for expert in forced:
            absent = (choice != expert).all(-1, keepdim=True)
            free = ~torch.isin(choice, choice.new_tensor(forced))
            last = torch.where(free, slots, -1).amax(-1, keepdim=True)  # the choice is sorted, best first
            choice = torch.where(absent & (slots == last), expert, choice)
        return choice

    return edit


def silence(heads: tuple[Place, ...]) -> Edit:
    """An edit of `attention.mixed` B T H C: what these heads found is zero."""

    def edit(mixed: Tensor, here: Here) -> Tensor:
        mixed[:, :, held(heads, here.layer)] = 0.0
        return mixed

    return edit


def without_sinks(layers: tuple[int, ...] | Literal[True]) -> Edit:
    """An edit of `attention.sink_logit` B H T: the sink takes nothing in these layers (True: all)."""

    def edit(logit: Tensor, here: Here) -> Tensor:
        return logit.fill_(-torch.inf) if layers is True or here.layer in layers else logit

    return edit
