"""Two runs over one text for the browser: what each view is sent, twice, and what stands between the two.

The second header holds, besides the second trace, what `study.compare` found: `compare.ids`, `.before`,
`.after` (T N), `compare.divergence` (T, bits) as arrays; words, texts, the change itself and the other
model's name ("" where it is the same model) in "extra".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from ..model import Transformer
from ..study.compare import Comparison, compare
from ..study.edits import Change
from ..text import tokens as text
from ..trace import Trace, require_model
from ..weights.places import ASSETS, SHIPPED
from . import payload

Packed = tuple[dict[str, Any], bytes]


def compared(
    model: Transformer,
    prompt: str | Iterable[int] | Tensor,
    change: Change | None = None,
    beside: Transformer | None = None,
    before: Trace | None = None,
) -> Comparison:
    """`study.compare` with what the views need of both models kept."""
    require_model(model)
    if beside is not None:
        require_model(beside, "beside")
    configs = [model.config] if beside is None else [model.config, beside.config]
    keep = [glob for config in configs for glob in payload.keep_for(config)]
    return compare(model, prompt, change, beside, keep=list(dict.fromkeys(keep)), before=before)


def code_for(found: Comparison) -> str:
    """A cell that draws this comparison."""
    prompt = payload.prompt_of(found.before, found.model)
    text_ = found.before.tokens[0].tolist() if prompt is None else prompt
    said = [f"{key}={short(value)!r}" for key, value in found.change.to_json().items()
            if value != Change().to_json()[key]]  # fmt: skip
    beside = "" if found.beside is None else f", {payload.loading(found.beside.config.name)[0]}"
    load, about = payload.loading(found.model.config.name)
    return (
        f"import gptoss_lab as lab\n\nmodel = {load}{about}\nchange = lab.Change({', '.join(said)})\n"
        f"lab.views.compare(model, {text_!r}, change{beside})"
    )


def short(value: Any) -> Any:
    """A change's field as people write it: [5, (3, 5)] for [(None, 5), (3, 5)]."""
    pairs = isinstance(value, list) and all(isinstance(one, tuple) for one in value)
    return [number if layer is None else (layer, number) for layer, number in value] if pairs else value


def others(model: Transformer) -> list[str]:
    """The shipped models that may stand beside a shipped one: all of them share one tokenizer."""
    if model.config.name not in SHIPPED:
        return []
    there = [name for name in SHIPPED if (ASSETS / name / "config.json").is_file()]
    return [name for name in there if name != model.config.name]


def extra_of(found: Comparison) -> dict[str, Any]:
    """What stands between the two runs, for `pack(extra=…)`."""
    distinct = found.ids.unique().tolist()
    labels = dict(zip(map(str, distinct), text.labels(distinct, found.model.tokenizer)))
    return {
        "compare.ids": ("T N", found.ids),
        "compare.before": ("T N", found.probability[0]),
        "compare.after": ("T N", found.probability[1]),
        "compare.divergence": ("T", found.divergence),
        "compare.labels": labels,
        "compare.texts": list(found.texts),
        "compare.between": " " if found.model.tokenizer is None else "",  # ids stand apart
        "compare.words": found.words,
        "compare.change": found.change.to_json(),
        "compare.other": "" if found.beside is None else found.beside.config.name,
    }


def packed_beside(found: Comparison, limit: int = 64_000_000) -> Packed:
    """Header and block of the second run."""
    return packer_beside(found)(limit)


def packer_beside(found: Comparison) -> Callable[[int], Packed]:
    """`packed_beside` for limits that come later, as `payload.packer`."""
    pack, code = payload.packer(found.after, found.other, None, extra_of(found)), code_for(found)

    def within(limit: int) -> Packed:
        header, block = pack(limit)
        return {**header, "code": {**header["code"], "compare": code}}, block

    return within


def as_pair(shown: object) -> tuple[Trace, Comparison | None]:
    """The trace that is shown first, and the comparison that it is the first half of, where there is one.

    ValueError for what is neither, as the path of a trace.
    """
    if not isinstance(shown, Trace | Comparison):
        way = f"lab.open_trace({shown!r})" if isinstance(shown, str) else "lab.watch or lab.open_trace"
        raise ValueError(f"this is {type(shown).__name__}; expected a trace, as {way} gives, or a comparison")
    return (shown.before, shown) if isinstance(shown, Comparison) else (shown, None)
