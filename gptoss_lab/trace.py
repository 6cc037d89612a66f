"""Watching a model: run it on a text, keep the points asked for, and say where every number came from.

    trace = watch(model, "Once upon a time", keep=["blocks.*.experts.*"])
    trace["blocks.3.experts.choice"]        # B T K, the axes of the catalogue

A trace is plain values: tokens, labels, tensors by name, and a source; it is saved to one safetensors file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import points
from .config import Config, is_whole
from .cost import human, require_limit
from .files import save_tensors, spare_weights
from .model import Transformer, attend
from .model.transformer import check
from .opened import FORMAT, read
from .tap import Edit, Recorder, force_eager
from .terminal import printable
from .text import tokens as text
from .weights.checkpoint import unlike
from .weights.plans import arithmetic

LIMIT = 2_000_000_000


@dataclass
class Trace:
    """What one run showed. `trace[name]` has the catalogue's axes, keys in the order of positions.

    tokens: B T; labels: one printable text a token (of the first row where B > 1); source: model, config,
    weights, dtype, products, changes, edits, forms. All tensors are on the CPU. `trace.axes(name)` tells the
    letters; `"name" in trace` and iteration go over the names kept.
    """

    tokens: Tensor
    labels: list[str]
    source: dict[str, Any]
    values: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.values:
            near = points.nearest(name, self.values)
            kept = f"; the nearest that was is {near!r}" if near else "; nothing was"
            raise KeyError(f"{name!r} was not kept{kept}. Add it to keep=[…] and watch again.")
        return self.values[name]

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def __iter__(self) -> Any:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        size = human(sum(v.numel() * v.element_size() for v in self.values.values()))
        return f"<Trace of {self.tokens.shape[1]} tokens: {len(self.values)} points, {size}; {self.caption}>"

    @property
    def caption(self) -> str:
        """The source as one line, which figures print."""
        return in_words(self.source)

    def axes(self, name: str) -> str:
        """The letters of a kept point's axes, as in the catalogue."""
        self[name]
        return points.axes(name)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace to one safetensors file, beside first and renamed when whole."""
        path = Path(path)
        about = {"format": FORMAT, "labels": json.dumps(self.labels), "source": json.dumps(self.source)}
        order = {"order": json.dumps(list(self.values))}
        tensors = {"tokens": self.tokens, **{f"point:{name}": value for name, value in self.values.items()}}
        spare_weights(path, FORMAT)
        save_tensors(apart(tensors), path, {**about, **order})
        return path


def in_words(source: Mapping[str, Any]) -> str:
    """A source as one line: the model, its weights, their dtype, products that are not float32, arithmetic
    that is not exact, changes and edits."""
    changes = [f"{field}={value}" for field, value in source["changes"].items()]
    changed = "".join(f"; {what}" for what in changes + [f"edited {name}" for name in source["edits"]])
    model = source["model"]
    weights = source["weights"].removeprefix(f"{model}, ")
    how = "" if source["products"] == "float32" else f", products in {source['products']}"
    arithmetic = dict.fromkeys(form.rsplit(", ", 1)[-1] for form in source["forms"])
    how += "".join(f", {one}" for one in arithmetic if one != "exact")
    return printable(f"{model} ({weights}), {source['dtype']}{how}{changed}")


def apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory, as a file needs them."""
    seen: set[int] = set()
    separate = {}
    for name, value in tensors.items():
        value = value.contiguous()
        separate[name] = value.clone() if value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    return separate


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Open a file that `Trace.save` wrote; ValueError says what is wrong with one that it did not write."""
    return Trace(*read(Path(path)))


def watch(
    model: Transformer,
    prompt: str | Iterable[int] | Tensor,
    keep: str | Iterable[str] = "*",
    edit: Mapping[str, Edit] | None = None,
    last: int | None = None,
    limit: int = LIMIT,
) -> Trace:
    """Run the model on a text, or on ids (T, or B T), and keep the points that `keep` picks (globs; "*" for
    all).

    edit: {glob: f(value, here)}; `last`: logits of the last few positions alone; limit: the most bytes a
    trace may take, computed from the axes before anything runs. ValueError: unknown or missing names (with
    the reason), too much asked, a text longer than the context.
    """
    ids = as_tokens(model, prompt)
    refuse_too_long(model, ids.shape[1])
    if not (last is None or is_whole(last) and last >= 0):
        raise ValueError(f"last={last!r}; expected how many of the last positions, or None for all")
    kept = points.match(keep, model.config)
    B, T = ids.shape
    refuse_too_much(points.trace_bytes(kept, model.config, B, T, T, last), limit, f"{B} × {T} tokens")
    recorder = Recorder(kept, edits_by_name(edit, model.config))
    with torch.no_grad(), force_eager():
        model(ids, last=last, tap=recorder)
    values = {name: recorder.kept[name] for name in kept}
    source = source_of(model, edit, kept, [B * T], cached=False)
    return Trace(ids, label(model, ids[0].tolist()), source, values)


def as_tokens(model: Transformer, prompt: str | Iterable[int] | Tensor) -> Tensor:
    """A prompt as B T int64 ids of its own, on the CPU; ValueError where it is empty, names tokens that there
    are not, or is text for a model that has no tokenizer.
    """
    require_model(model)
    if isinstance(prompt, str):
        if not prompt:
            raise ValueError("the prompt is empty: give at least one token")
        if model.tokenizer is None:
            raise ValueError(f"{model.config.name} has no tokenizer here: give ids, as in [5, 17, 3]")
        ids = torch.tensor(text.encode(prompt, model.tokenizer), dtype=torch.int64)
    else:
        try:
            if isinstance(prompt, bytes):
                raise TypeError
            ids = torch.as_tensor(prompt if isinstance(prompt, Tensor) else list(prompt))
        except (TypeError, ValueError, RuntimeError):
            kind = type(prompt).__name__
            raise ValueError(
                f"a prompt of kind {kind} that is no T or B T ids; expected a text, or ids as in [5, 17, 3]"
            ) from None
    if ids.numel() == 0:
        raise ValueError("the prompt is empty: give at least one token")
    odd = ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool
    if odd or ids.ndim not in (1, 2):
        raise ValueError(f"ids are {tuple(ids.shape)} {ids.dtype}; expected T or B T whole numbers")
    ids = ids.to("cpu", torch.int64, copy=True).reshape(-1, ids.shape[-1])
    check(ids, model.config, None)
    return ids


def require_model(model: object, name: str = "model") -> None:
    """ValueError for what is no model: its name alone, say."""
    if not isinstance(getattr(model, "config", None), Config):
        found = repr(model) if isinstance(model, str) else type(model).__name__
        raise ValueError(f"{name} is {found}; expected a model, as lab.load('mini-oss') gives")


def refuse_too_long(model: Transformer, tokens: int) -> None:
    """ValueError where a text has more tokens than the model's context."""
    config = model.config
    if tokens > config.context:
        wider = f", or ask model.with_config(context={tokens})" if config.positions == "rope" else ""
        raise ValueError(
            f"{tokens} tokens exceed the context of {config.context} tokens of {config.name}: shorten the "
            f"text{wider}"
        )


def label(model: Transformer, ids: list[int]) -> list[str]:
    """One printable text for every id; the ids themselves for models without a tokenizer."""
    return text.labels(ids, model.tokenizer)


def refuse_too_much(sizes: dict[str, int], limit: int, run: str) -> None:
    """ValueError with the arithmetic where a trace would take more than `limit` bytes."""
    total = sum(sizes.values())
    if total <= require_limit(limit, "limit"):
        return
    general: dict[str, int] = {}
    for name, size in sizes.items():
        every = points.general(name).replace("blocks.N.", "blocks.*.")
        general[every] = general.get(every, 0) + size
    largest = sorted(general.items(), key=lambda item: -item[1])[:3]
    told = ", ".join(f"{name} {human(size)}" for name, size in largest)
    raise ValueError(
        f"a trace of {run} would take {human(total)}, more than the limit of {human(limit)}. The largest: "
        f"{told}. Keep fewer points (keep=['blocks.*.experts.choice']), fewer layers ('blocks.3.*'), fewer "
        f"tokens, last=1 for the logits, or raise limit={total}."
    )


def edits_by_name(edit: Mapping[str, Edit] | None, config: Config) -> dict[str, list[Edit]]:
    """Edits by full name; ValueError for a glob that names no point, or one that nothing consumes."""
    if edit is not None and not isinstance(edit, Mapping):
        raise ValueError(f"edit is {type(edit).__name__}; expected {{glob: function}}, as {{'logits': f}}")
    edits: dict[str, list[Edit]] = {}
    for pattern, function in (edit or {}).items():
        if not callable(function):
            raise ValueError(
                f"the edit of {pattern!r} is {type(function).__name__}; expected a function f(value, here)"
            )
        for name in points.match(pattern, config):
            if name.endswith(points.READ_ONLY):
                if pattern == name or "*" not in pattern.rsplit(".", 1)[-1]:
                    raise ValueError(
                        f"{name!r} is read-only: nothing consumes it. Edit 'sink_logit' instead."
                    )
                continue
            edits.setdefault(name, []).append(function)
    return edits


def source_of(
    model: Transformer, edit: Mapping[str, Edit] | None, kept: Iterable[str], passes: Iterable[int],
    cached: bool,
) -> dict[str, Any]:  # fmt: skip
    """Where a trace comes from: model, weights, dtype, config changes, edits, and the form that each layer
    ran. passes: how many tokens each forward pass took; cached: whether they had a cache.
    """
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})
    packed = ["mxfp4"] if any(name.endswith("blocks") for name, _ in model.named_buffers()) else []
    tap, sizes = Recorder([*kept], edits_by_name(edit, model.config)), list(passes)
    return {
        "model": model.config.name,
        "config": json.loads(json.dumps(asdict(model.config))),  # as a file gives it back
        "weights": model.weights_from,
        "dtype": " + ".join(packed + dtypes),
        "products": str(model.unembed.compute).removeprefix("torch."),
        "changes": {field: repr(value) for field, value in model.changes.items()},
        "edits": sorted(edit or {}),
        "forms": [form(one, tap.within(f"blocks.{n}"), sizes, cached) for n, one in enumerate(model.blocks)],
    }


def require_made_by(model: Transformer, trace: Trace, edited: bool = True) -> None:
    """ValueError unless a trace is of this model: of its weights, under a config that computes the same. The
    name does not count, nor what else `weights.checkpoint.unlike` leaves aside. Unless `edited`, a trace with
    edits or of other products is refused too: its numbers are not the model's own.
    """
    require_model(model)
    mine, theirs = source_of(model, None, (), (1,), cached=False), trace.source
    apart = unlike(Config.from_json(theirs["config"]), model.config)[:4]
    weights = [source["weights"].removeprefix(f"{source['model']}, ") for source in (mine, theirs)]
    apart += ["weights"] if weights[0] != weights[1] else []
    if not edited:
        apart += ["products"] if theirs["products"] != mine["products"] else []
        apart += ["edits"] if theirs["edits"] else []
    if apart:
        raise ValueError(
            f"the trace is of {trace.caption}; the model is {in_words(mine)}. They differ in "
            f"{', '.join(apart)}: give the model that made the trace, or make the trace again with this one"
        )


def form(block: Any, tap: Recorder, passes: list[int], cached: bool) -> str:
    """The forms that a layer ran: explicit or fused attention; fused experts, or gathered or walked; what
    answered for one token alone, where something does; exact or fast.

    tap: what was kept and edited, in the block's room; passes: how many tokens each forward pass took.
    """
    inside, beside = tap.within("attention"), tap.within("experts")
    explicit = block.attention.attend is attend or any(map(inside.wants, ("scores", "pattern", "sink")))
    attention = f"{'explicit' if explicit else 'fused'} attention"
    attention += single(block.attention, inside, cached and 1 in passes)
    experts = getattr(block, "experts", None)
    if experts is None:
        return f"{attention}, dense MLP, {arithmetic(block)}"
    if "answers" in vars(experts) and not any(map(beside.wants, ("gate", "up", "pre", "act"))):
        ran = "fused"
    else:
        ran = " then ".join(dict.fromkeys("gathered" if n <= experts.few else "walked" for n in passes))
    return f"{attention}, {ran} experts{single(experts, beside, 1 in passes)}, {arithmetic(block)}"


def single(half: Any, tap: Recorder, met: bool) -> str:
    """What answered for one token alone, in a half of a block that has a form for it (`kernels.steps`), if
    one was `met`."""
    takes = getattr(vars(half).get("forward"), "takes", None)
    if takes is None or not met:
        return ""
    return " (one token: in one call)" if takes(tap) else " (one token: by parts)"
