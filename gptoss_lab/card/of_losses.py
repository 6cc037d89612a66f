"""The losses in words: by domain, by position, from afar, with other windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..training.corpus import DOMAINS
from .words import difference, listed, number, signed, table

ROWS = (*DOMAINS, "mean")


def called(domain: str) -> str:
    """A row's name; the mean stands out."""
    return f"**{domain}**" if domain == "mean" else domain


def by_domain(found: Mapping[str, Any]) -> str:
    """Bits per byte, for each length of windows."""
    contexts = found["bits"]
    head = [""]
    for context in contexts:
        head += [f"windows of {int(context):,} tokens", "how many"]
    rows = []
    for domain in ROWS:
        row = [called(domain)]
        for entries in contexts.values():
            one = entries[domain]
            row += [f"{number(one['bits'])} ± {number(one['within'])}", str(one["windows"])]
        rows.append(row)
    two = "" if len(contexts) == 1 else (
        " The two columns are not the same text: the short windows are a sample of what the long ones cover."
    )  # fmt: skip
    return (
        f"{table(head, rows)}\n\nHeld out is the last 2 % of every corpus. ± is half the 95 % interval over "
        f"windows: what other windows would leave open, not what another seed would.{two} Arithmetic has few "
        "different lines: see the sums below."
    )


def by_position(found: Mapping[str, Any]) -> str:
    """Nats a token by position, and where the fall ends."""
    place = found["position"]
    rows = [
        [called(domain), *(number(mean) for mean, _ in place["nats"][domain])] for domain in ROWS
    ]
    rows.append(["mean, less that of the last span", *(signed(*one) for one in place["above_last"]), "–"])
    return (
        f"Nats a token at the positions of windows of {place['context']:,} tokens:\n\n"
        f"{table(['', *place['spans']], rows)}\n\n{fall(place)}"
    )


def fall(place: Mapping[str, Any]) -> str:
    """How far the loss falls, and the last span where it is another than at the end."""
    spans, apart = place["spans"], place["above_last"]
    (first, _), (last, left), n = place["nats"]["mean"][0], place["nats"]["mean"][-1], len(apart)
    while n > 0 and abs(apart[n - 1][0]) <= apart[n - 1][1]:
        n -= 1
    told = f"In the mean the loss falls from {number(first)} to {number(last)} ± {number(left)}. "
    if not n:
        return told + "No span differs from the last by more than chance."
    more, left = apart[n - 1]
    before = f"{spans[n - 1]}, where it is {number(abs(more))} ± {number(left)} nats "
    before += "higher than at the end" if more > 0 else "lower than at the end"
    return told + f"The last span that differs from the end by more than chance is {before}."


def far(found: Mapping[str, Any]) -> str:
    """What the far context is worth."""
    if "far" not in found:
        return ""
    entries = found["far"]
    rows = [
        [called(domain), number(one["near"]), number(one["far"]), signed(one["more"], one["within"])]
        for domain, one in ((name, entries[name]) for name in ROWS)
    ]  # fmt: skip
    context, mean = found["position"]["context"], entries["mean"]
    worth = [name for name in DOMAINS if entries[name]["more"] < -entries[name]["within"]]
    worse = [name for name in DOMAINS if entries[name]["more"] > entries[name]["within"]]
    told = [f"In the mean the far context {difference(mean['more'], mean['within'], 'nats a token')}."]
    if worth:
        told.append(f"It helps in {listed(worth)}.")
    if worse:
        told.append(f"It hurts in {listed(worse)}.")
    if not worth and not worse:
        told.append("Nor does it in any domain: the long context is one that this model bears rather than "
                    "uses.")
    return (
        "**What the far context is worth** shows when the same targets are predicted twice, in nats a token: "
        f"once from the 128 to 256 tokens before them, once from up to {context:,}.\n\n"
        f"{table(['', 'from 128 to 256', f'from up to {context:,}', 'difference'], rows)}\n\n{' '.join(told)}"
    )


def windows(found: Mapping[str, Any]) -> str:
    """What other windows do."""
    if "windows" not in found:
        return "It has no windows: every layer sees everything."
    entries, spans = found["windows"], found["position"]["spans"]
    trained = entries["as trained"]
    rows = [["as trained: " + str(trained["window"]), number(trained["bits"]), "–", *["–"] * len(spans)]]
    changed = {name: one for name, one in entries.items() if name != "as trained"}
    for name, one in changed.items():
        rows.append([name, number(one["bits"]), signed(one["more"], one["within"]),
                     *(signed(mean, None) for mean, _ in one["spans"])])  # fmt: skip
    none = changed["none"]
    head = ["window", "bits per byte", "more than as trained", *(f"nats, {span}" for span in spans)]
    start = next((span for span, (mean, left) in zip(spans, none["spans"]) if mean > left), None)
    where = f" It begins to cost at positions {start}." if start else ""
    return (
        "The windows of the layers that have one are changed, the weights kept; nothing is trained anew. The "
        "columns at the right: nats a token more than as trained, by position.\n\n"
        f"{table(head, rows)}\n\n"
        f"Without windows the same weights see more, which "
        f"{difference(none['more'], none['within'], 'bits per byte')}."
        f"{where} The model has never seen farther in these layers than {trained['window']} tokens."
    )


def sinks(found: Mapping[str, Any]) -> str:
    """What taking the sinks away does."""
    if "without_sinks" not in found:
        return ""
    entries = found["without_sinks"]
    rows = [[name, signed(one["more"], one["within"], 4)] for name, one in entries.items() if "more" in one]
    every = entries["every layer"]
    single = {name: one for name, one in entries.items() if name.startswith("layer ")}
    most = max(single, key=lambda name: single[name]["more"])
    return (
        "The sinks taken away from the same weights, in bits per byte more than as trained "
        f"({number(entries['as trained']['bits'])}):\n\n{table(['without sinks in', 'more'], rows)}\n\n"
        f"Taking all away {difference(every['more'], every['within'], 'bits per byte')}. Of single layers, "
        f"{most} would be missed most. The model has learned with its sinks: what it would have become "
        "without them is a question for the ladder ([ladder.md](ladder.md))."
    )
