"""Tables of what was measured, for the terminal and for `docs/performance.md`, from the JSON alone.

A ratio is taken within its round, ours over theirs, so that above one ours is faster; what is told is the
median over the rounds, with the least and the most. A dash: not measured, or the side did not live to tell.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from ..cost import human

Found = dict[str, Any]
IN_CACHE = 1e9  # bytes of weights, part of which a processor's caches may keep
Of = Callable[[Found], float | None]


def rounds(found: Found) -> list[Found]:
    """The rounds that are in."""
    return [part for name, part in found["parts"].items() if name.startswith("round ")]


def decode(block: Found) -> float | None:
    """Tokens a second."""
    each = block.get("decode", {}).get("each")
    return len(each) / sum(each) if each else None


def prompt(length: int | str) -> Of:
    """Tokens a second of a prompt of this length."""
    return lambda block: (
        int(length) / block["prompts"][str(length)] if str(length) in block.get("prompts", {}) else None
    )


def share_of_memory(found: Found) -> Of:
    """Decoding, of what the mean of the bandwidths right before and right after it allows."""

    def share(block: Found) -> float | None:
        rate, around = decode(block), block.get("bandwidths", [])[:2]
        return rate * found["a token"]["bytes"] / statistics.mean(around) if rate else None

    return share


def share_of_products(found: Found, length: int) -> Of:
    """A prompt, of what the machine's best product would allow if all of it were such products."""
    allowed = found["parts"]["machine"]["products"] / found["a token"]["FLOP"]
    return lambda block: rate / allowed if (rate := prompt(length)(block)) else None


def peak(block: Found) -> float | None:
    """Bytes at the most: of the group where there was one, else of the process, or on the device."""
    held = block.get("peak", {})
    return next((held[name] for name in ("device", "group", "process") if held.get(name)), None)


def values(blocks: Iterable[Found], kind: str, of: Of) -> list[float]:
    """A figure of one side, round by round."""
    return [value for block in blocks if kind in block and (value := of(block[kind])) is not None]


def ratios(blocks: Iterable[Found], kind: str, of: Of) -> list[float]:
    """Ours over theirs, round by round."""
    pairs = [(of(block["ours"]), of(block[kind])) for block in blocks if kind in block and "ours" in block]
    return [ours / theirs for ours, theirs in pairs if ours and theirs]


def short(figure: float) -> str:
    """Three digits, or whole thousands: 5.32, 41.5, 4,330."""
    return f"{figure:.3g}" if figure < 1000 else f"{float(f'{figure:.3g}'):,.0f}"


def spread(figures: list[float], say: Callable[[float], str] = short) -> str:
    """The median, and between which they lie."""
    if not figures:
        return "–"
    middle = say(statistics.median(figures))
    return middle if len(figures) == 1 else f"{middle} ({say(min(figures))} to {say(max(figures))})"


def aligned(head: list[str], rows: list[list[str]]) -> str:
    """A table that reads well as text, and as Markdown."""
    lines = [head, *rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths)) + " |" for line in lines
    )


def compared(found: Found) -> str:
    """Decoding and prompts, every side, and ours over each; "" where no round is in."""
    if not rounds(found):
        return ""
    blocks, sides = rounds(found), found["asked"]["sides"]
    once = [found["parts"]["long prompts"]] if "long prompts" in found["parts"] else []
    figures: list[tuple[str, Of, list[Found]]] = [("decode, tokens/s", decode, blocks)]
    lengths = {128: blocks} | dict.fromkeys(found["asked"]["prompts"], blocks)
    lengths |= dict.fromkeys(found["asked"]["long prompts"], once)
    figures += [(f"prompt of {length}, tokens/s", prompt(length), where) for length, where in lengths.items()]
    rows = [
        [what, *(spread(values(where, kind, of)) for kind in sides),
         *(spread(ratios(where, kind, of), "{:.2f}".format) for kind in sides[1:])]
        for what, of, where in figures
    ]  # fmt: skip
    shares = [spread(values(blocks, kind, share_of_memory(found)), "{:.2f}".format) for kind in sides]
    none = [""] * len(sides[1:])
    if found["checkpoint"] > IN_CACHE:  # a smaller model is not read from memory for each token
        rows.append(["decode, of what memory allows", *shares, *none])
        for length in found["asked"]["prompts"]:
            allowed = [spread(values(blocks, kind, share_of_products(found, length)), "{:.2f}".format)
                       for kind in sides]  # fmt: skip
            rows.append([f"prompt of {length}, of what products allow", *allowed, *none])
    rows.append(["peak", *(biggest(values(blocks + once, kind, peak)) for kind in sides), *none])
    return aligned(["", *sides, *(f"ours / {kind}" for kind in sides[1:])], rows)


def biggest(sizes: list[float]) -> str:
    """The largest of some sizes."""
    return human(max(sizes)) if sizes else "–"


def first_tokens(found: Found) -> str:
    """Seconds to the first token."""
    rows = []
    for kind in found["asked"]["sides"]:
        for case, took in found["parts"].get(f"first token: {kind}", {}).items():
            if case == "ended":
                rows.append([kind, took, *[""] * 6])
            if isinstance(took, dict):
                seconds = [f"{took[name]:.2f}" for name in ("ready", "load", "first", "all")]
                after_start = f"{took['load'] + took['first']:.2f}"
                disk = "–" if took["disk"] is None else human(took["disk"])
                rows.append([kind, case, *seconds, after_start, disk])
    head = [
        "",
        "",
        "process ready, s",
        "load, s",
        "first token, s",
        "all, s",
        "without the start, s",
        "from disk",
    ]
    return aligned(head, rows) if rows else ""


def less_memory(found: Found) -> str:
    """Decoding within less memory, below the first round within the first limit."""
    limits, sides = found["asked"]["limits"], found["asked"]["sides"]
    within = [part for name, part in found["parts"].items() if name.startswith("within ")]
    if not within:
        return ""
    blocks = [block[kind] | {"kind": kind} for block in [*rounds(found)[:1], *within]
              for kind in sides if kind in block]  # fmt: skip
    head = ["limit", "", "decode, tokens/s", "from disk, prompt and 64", "peak", "of it no file", ""]
    shown = [block for block in blocks if block["limit"] in limits]
    shown.sort(key=lambda block: (limits.index(block["limit"]), sides.index(block["kind"])))
    return aligned(head, [row_of_limit(block) for block in shown])


def row_of_limit(block: Found) -> list[str]:
    """One side within a limit."""
    decoding = block.get("decode", {})
    disk, count = block["disk"].get("128"), len(decoding.get("each", []))
    return [
        human(block["limit"]), block["kind"], spread([rate] if (rate := decode(block)) else []),
        "–" if disk is None or not count else human(disk),
        human(size) if (size := peak(block)) else "–",
        human(block["holds"]["anonymous"]) if "holds" in block else "–", block.get("ended", ""),
    ]  # fmt: skip


def of_the_machine(found: Found) -> str:
    """What the machine allows."""
    if not (figures := found["parts"].get("machine")):
        return ""
    token, read = found["a token"], figures["bandwidth"]
    kinds = [name.removeprefix("products, ") for name in figures if name.startswith("products,")]
    products = ", ".join(f"{human(figures[f'products, {kind}'], 'FLOP/s')} in {kind}" for kind in kinds)
    said = f"Memory reads {human(read, 'B/s')}; products: {products}."
    if found["checkpoint"] > IN_CACHE:
        said += (
            f" So decoding, which reads {human(token['bytes'])} a token, can reach "
            f"{short(read / token['bytes'])} tokens/s at this bandwidth (which is not the same in every "
            f"round), and a prompt, {human(token['FLOP'], 'FLOP')} a token, "
            f"{short(figures['products'] / token['FLOP'])}."
        )
    return said


def of_the_context(found: Found) -> str:
    """A full cache against a short one."""
    if not (took := found["parts"].get("long context")):
        return ""
    if "ended" in took:
        return str(took["ended"])
    slow, quick = (1 / statistics.median(took[name]) for name in ("long", "short"))
    return (
        f"With {found['asked']['context']:,} tokens in the cache decoding runs at {took['ratio']:.2f} of its "
        f"speed with 128: {short(slow)} and {short(quick)} tokens/s, medians of five in turn, "
        "as that share is the median of five. The caches "
        "hold made-up keys and values."
    )


def of_accuracy(found: Found) -> str:
    """Fast kernels against exact ones."""
    if not (apart := found["parts"].get("accuracy")):
        return ""
    if "ended" in apart:
        return str(apart["ended"])
    worst = "–" if apart["worst agreed"] is None else f"{apart['worst agreed']:.1e}"
    return (
        f"Logits of the fast kernels against the exact ones, over {apart.get('texts', 1)} texts, "
        f"{apart['positions']} tokens in all. At the {apart['agreed']} positions at which, and before which, "
        f"all layers chose the same experts the relative error is at most {worst}; at any, "
        f"{apart['worst']:.1e}. Of {apart['choices']:,} choices {apart['flipped']:.2%} differ. The likeliest "
        f"token is the same at {apart['same likeliest']} positions."
    )


def about(found: Found) -> str:
    """The model, its weights, and the machine."""
    machine, weights = found["machine"], f" ({found['weights']})" if found["weights"] else ""
    return f"{found['model']}{weights} on {machine['processor']}, {machine['cores']} cores"


def table(found: Found) -> str:
    """Everything, for a terminal."""
    texts = [about(found), of_the_machine(found), compared(found), first_tokens(found),
             less_memory(found), of_the_context(found), of_accuracy(found)]  # fmt: skip
    return "\n\n".join(text for text in texts if text)
