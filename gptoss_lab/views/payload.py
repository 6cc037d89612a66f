"""What the browser is sent: a header in JSON, and one block of bytes that holds the numbers.

    header, block = pack(trace)

Numbers are 16-bit steps between the smallest and the largest of their point, so that three digits shown are
three digits right; choices and ids are whole numbers. A T x S point is stored as a band: row t holds the keys
max(0, t - window + 1) to t, since a query sees no other. The batch's first row is taken. The renderer's
`Data` reads this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import points
from ..config import Config
from ..cost import human
from ..files import without_nan
from ..model import Transformer, concentration, frequencies
from ..terminal import printable
from ..trace import Trace, require_made_by
from ..weights.places import REPOSITORIES, SHIPPED
from .steps import read_out_early
from .tour import TEXT

FORMAT = "gptoss_lab view 1"
HOLE = 65535  # the code of what is no number (-inf, say), and of what may not be seen


@dataclass(frozen=True)
class View:
    """A view of the explorer: its title, the points it cannot do without, and those it can also use."""

    name: str
    title: str
    needs: tuple[str, ...]
    uses: tuple[str, ...] = ()


ROUTING = ("blocks.*.experts.logits", "blocks.*.experts.choice", "blocks.*.experts.weight")
LOOKING = ("blocks.*.attention.pattern", "blocks.*.attention.sink")
# In the order of the tabs. Globs match full names; a point that a family lacks is not asked for.
VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View("experts", "Experts", ROUTING),
        View("attention", "Attention", LOOKING[:1], LOOKING[1:]),
        View(
            "positions",
            "Positions",
            ("blocks.*.attention.q", "blocks.*.attention.k"),
            ("blocks.*.attention.q_normed", "blocks.*.attention.k_normed"),  # what Qwen3 turns
        ),
        View(
            "steps", "Steps", ("embedding", "blocks.*.residual_mid", "blocks.*.residual"), LOOKING + ROUTING
        ),
    )
}


def keep_for(config: Config, names: str | Sequence[str] = tuple(VIEWS)) -> list[str]:
    """The globs for `watch(keep=…)` so that these views can be drawn, of the points that the model has."""
    globs = [glob for name in named(names) for glob in (*VIEWS[name].needs, *VIEWS[name].uses)]
    return [glob for glob in dict.fromkeys(globs) if has(glob, config)]


def has(glob: str, config: Config) -> bool:
    """Whether a view's glob names a point of this model."""
    return any(p.name == points.general(glob) and p.missing(config) is None for p in points.CATALOGUE)


def missing(trace: Trace, config: Config) -> dict[str, str]:
    """View → what it lacks, in words, for those that this trace cannot fill."""
    told = {}
    for view in VIEWS.values():
        absent = [glob for glob in view.needs if not has(glob, config)]
        if absent:
            point = next(p for p in points.CATALOGUE if p.name == points.general(absent[0]))
            told[view.name] = str(point.missing(config))
        elif lacking := [name for name in points.match(view.needs, config) if name not in trace]:
            keep = keep_for(config, [view.name])
            told[view.name] = f"the trace lacks {lacking[0]!r}: watch again with keep={keep}"
    return told


def config_of(trace: Trace, model: Transformer | None = None) -> Config:
    """The config that made a trace: the model's own, or the recorded one."""
    return Config.from_json(trace.source["config"]) if model is None else model.config


def pack(
    trace: Trace,
    model: Transformer | None = None,
    views: Sequence[str] = tuple(VIEWS),
    extra: Mapping[str, Any] | None = None,
    limit: int = 64_000_000,
) -> tuple[dict[str, Any], bytes]:
    """The header and the block for these views, of at most `limit` bytes; `left_out` tells what did not fit,
    `no_numbers` which points hold NaN or +∞ (views show either as −∞, or as what may not be seen).

    extra: what a view computes besides: name → (axes, tensor) becomes an array, anything else goes into
    header["extra"].
    """
    config = config_of(trace, model)
    block, arrays, left_out, odd = bytearray(), {}, dict[str, list[str]](), dict[str, list[str]]()

    def add(name: str, axes: list[str], values: Tensor, window: int | None = None) -> None:
        about, data = packed(axes, values, window)
        if len(block) + len(data) > limit:
            left_out.setdefault(points.general(name), []).append(name)
            return
        arrays[name] = {**about, "offset": len(block)}
        block.extend(data + bytes(-len(data) % 4))

    noted = {}
    for name, value in (extra or {}).items():
        if isinstance(value, tuple):
            add(name, value[0].split(), value[1])
        else:
            noted[name] = value
    wanted = points.match(keep_for(config, views), config)
    there = [name for name in wanted if name in trace]
    # The small ones first, and last of all the patterns, which grow with the square of the text.
    for name in sorted(there, key=lambda n: ("S" in points.axes(n).split(), trace[n].numel())):
        axes = points.axes(name).split()
        layer = int(name.split(".")[1]) if name.startswith("blocks.") else 0
        values = trace[name][0] if axes[0] == "B" else trace[name]
        if bool((values.isnan() | (values == torch.inf)).any()):
            odd.setdefault(points.general(name), []).append(name)
        add(name, [a for a in axes if a != "B"], values, config.windows[layer])
    header = {
        "format": FORMAT,
        "config": described(config),
        "labels": trace.labels,
        "text": [raw(label) for label in trace.labels],
        "source": trace.caption,
        "arrays": arrays,
        "extra": noted,
        "missing": missing(trace, config),
        "views": list(views),
        "titles": {view.name: view.title for view in VIEWS.values()},
        "left_out": [told(general, names) for general, names in left_out.items()],
        "no_numbers": no_numbers([told(general, names) for general, names in odd.items()]),
    }
    return header, bytes(block)


def packed_views(
    trace: Trace,
    model: Transformer | None = None,
    views: str | Sequence[str] | None = None,
    limit: int = 64_000_000,
    extra: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], bytes]:
    """What `pack` makes, with what views compute besides, the code that draws each, and a summary in words.

    views: by default all, those that the trace cannot fill last, where they say why. ValueError where a view
    that was asked for by name, or all of them, cannot be filled, or where another model made the trace.
    """
    return packer(trace, model, views, extra)(limit)


def packer(
    trace: Trace,
    model: Transformer | None = None,
    views: str | Sequence[str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Callable[[int], tuple[dict[str, Any], bytes]]:
    """`packed_views` for limits that come later, one after another: the model runs once."""
    if model is not None:
        require_made_by(model, trace)
    config, views = config_of(trace, model), named(views)
    absent = missing(trace, config)
    for name in views:
        if name in absent:
            raise ValueError(f"the view {name!r} cannot be drawn: {absent[name]}")
    if len(absent) == len(VIEWS):
        raise ValueError(f"this trace fills no view: {next(iter(absent.values()))}")
    chosen = list(views or sorted(VIEWS, key=lambda name: name in absent))
    early = (
        read_out_early(model, trace).extra if model and "steps" in chosen and "steps" not in absent else {}
    )
    code = {name: code_for(name, trace, model) for name in chosen if name not in absent}
    words, prompt = summary(trace, config), prompt_of(trace, model) or ""

    def within(limit: int) -> tuple[dict[str, Any], bytes]:
        header, block = pack(trace, model, chosen, {**early, **(extra or {})}, limit)
        told = printable(f"{header['no_numbers']}\n{words}".lstrip("\n"))
        return {**header, "code": code, "summary": told, "prompt": prompt, "tour": TEXT}, block

    return within


def named(views: str | Sequence[str] | None) -> list[str]:
    """The names of views, of one or of several. ValueError for one that there is not."""
    names = [views] if isinstance(views, str) else [*(views or ())]
    for name in names:
        if name not in VIEWS:
            raise ValueError(f"no view {name!r}; there are {', '.join(VIEWS)}")
    return names


def no_numbers(odd: list[str]) -> str:
    """A warning of points that hold what is no number; "" where none does."""
    return f"NaN or +∞ in {'; '.join(odd)}: shown as −∞, or as what may not be seen." if odd else ""


def prompt_of(trace: Trace, model: Transformer | None) -> str | None:
    """The text of a trace, where the model's tokenizer makes the same tokens of it again."""
    if model is None or model.tokenizer is None:
        return None
    ids = trace.tokens[0].tolist()
    text = str(model.tokenizer.decode(ids))
    return text if model.tokenizer.encode_ordinary(text) == ids else None


def loading(name: str) -> tuple[str, str]:
    """How a model of this name is loaded, and a remark for a name that is not known."""
    if name in SHIPPED or name in REPOSITORIES:
        return f"lab.load({name!r})", ""
    return f"lab.load({'path/to/' + name!r})", "  # the folder where it lies"


def code_for(view: str, trace: Trace, model: Transformer | None = None) -> str:
    """A cell that draws one view of this text; the folder of a model of no known name is to be filled in."""
    text = prompt_of(trace, model)
    prompt = trace.tokens[0].tolist() if text is None else text
    keep = keep_for(config_of(trace, model), [view])
    load, about = loading(trace.source["model"])
    return (
        f"import gptoss_lab as lab\n\nmodel = {load}{about}\n"
        f"trace = lab.watch(model, {prompt!r}, keep={keep!r})\nlab.views.{view}(trace, model)"
    )


def packed(axes: list[str], values: Tensor, window: int | None = None) -> tuple[dict[str, Any], bytes]:
    """One point as codes: what the header says of it, and the bytes.

    Whole numbers stay themselves in 1, 2 or 4 bytes. Others are 16-bit steps from the smallest finite value,
    counted in float64, in which no difference overflows; ±inf and NaN are holes. A causal T S is a band of
    `window` keys (all T where there is none).
    """
    values = values.detach().cpu()
    about: dict[str, Any] = {"axes": axes, "shape": list(values.shape), "lo": 0, "step": 1}
    if axes[-2:] == ["T", "S"] and values.shape[-1] == values.shape[-2]:
        T = values.shape[-1]
        about["band"] = min(window or T, T)
        about["nothing"] = None if axes[-3:] == ["H", "T", "S"] and bool((values == -torch.inf).any()) else 0
        values = values.flatten(-2)[..., band(T, about["band"])]
    if not values.is_floating_point():
        most = int(values.max()) if values.numel() else 0
        kind, dtype = next((k, d) for k, d, top in WHOLE if most < top)
        codes = values.to(dtype)
    else:
        values = values.double()
        finite = values.isfinite()
        seen = values[finite]
        low, high = (float(seen.min()), float(seen.max())) if seen.numel() else (0.0, 0.0)
        about |= {"lo": low, "step": (high - low) / (HOLE - 1), "hole": HOLE}
        steps = ((values - low) / (about["step"] or 1.0)).round_().masked_fill_(~finite, HOLE)
        kind, codes = "u16", steps.to(torch.int32).to(torch.uint16)
    data = codes.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return {**about, "kind": kind, "count": codes.numel()}, data


@lru_cache(maxsize=16)
def band(tokens: int, window: int) -> Tensor:
    """Where the keys that causal queries may see lie in a flattened T S."""
    back = torch.arange(tokens)[:, None] - torch.arange(tokens)
    return ((back >= 0) & (back < window)).flatten().nonzero()[:, 0]


WHOLE = (("u8", torch.uint8, 2**8), ("u16", torch.uint16, 2**16), ("u32", torch.uint32, 2**32))


def described(config: Config) -> dict[str, Any]:
    """The config's fields, and what follows: windows, frequencies (radians a token), concentration.

    A number that JSON cannot hold, as swiglu_limit=inf, is None.
    """
    rope = config.positions == "rope"
    turning = frequencies(config.d_head, config.rope_theta, config.yarn).tolist() if rope else []
    derived = {
        "windows": list(config.windows),
        "frequencies": turning,
        "concentration": concentration(config.yarn),
    }
    found: dict[str, Any] = without_nan({**asdict(config), **derived})
    return found


def raw(label: str) -> str:
    """A label's text with spaces and line ends in place of the signs that show them."""
    return label.replace("·", " ").replace("⏎", "\n").replace("⇥", "\t")


def told(name: str, names: list[str]) -> str:
    """What was left out, in words: "attention.pattern of layers 2, 3, 5", or "embedding"."""
    if not name.startswith("blocks.N."):
        return name
    return f"{name.removeprefix('blocks.N.')} of layers {', '.join(n.split('.')[1] for n in names)}"


def summary(trace: Trace, config: Config) -> str:
    """The trace in a few lines of text, for where no picture can be shown."""
    more = " …" if len(trace.labels) > 40 else ""
    lines = [f"{len(trace.labels)} tokens: {' '.join(trace.labels[:40])}{more}"]
    for layer, window in enumerate(config.windows):
        parts = []
        choice, sink = (f"blocks.{layer}.{point}" for point in ("experts.choice", "attention.sink"))
        if choice in trace:
            counts = trace[choice][0].flatten().bincount(minlength=config.n_experts or 1)
            share = counts / counts.sum()
            busiest = ", ".join(
                f"{e} ({100 * float(share[e]):.0f} %)" for e in share.argsort(descending=True)[:3].tolist()
            )
            parts.append(f"busiest experts {busiest}")
        if sink in trace:
            parts.append(f"the sink takes {100 * float(trace[sink][0].mean()):.0f} % of attention on average")
        if parts:
            lines.append(
                f"Layer {layer} ({'dense' if window is None else f'window of {window}'}): {'; '.join(parts)}."
            )
    size = human(sum(v.numel() * v.element_size() for v in trace.values.values()))
    return "\n".join([*lines, f"Source: {trace.caption}; {size} kept."])
