"""Both miniatures on one screen: what was measured and on what, what can be taught, what is absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import attending, of_experts, of_heads, of_losses, of_writing
from .words import number, signed, table

Found = Mapping[str, Mapping[str, Any]]


def missing(found: Mapping[str, Any]) -> list[str]:
    """What was looked for and not found."""
    heads, losses = found["heads"], found["losses"]
    absent = [] if of_heads.previous_found(heads) else ["a previous-token head"]
    absent += [] if of_heads.induction_found(heads) else ["an induction head"]
    if "far" in losses and losses["far"]["mean"]["more"] >= -losses["far"]["mean"]["within"]:
        absent.append("a use for context from afar")
    if "sinks" in heads and not any(x >= of_heads.NOTABLE for row in heads["sinks"]["share"] for x in row):
        absent.append("a head that rests on its sink")
    return absent


def table_of(found: Found) -> str:
    """What both models show, in a table."""
    lines: dict[str, list[str]] = {}

    def add(what: str, cell: str) -> None:
        lines.setdefault(what, []).append(cell)

    for one in found.values():
        heads, losses, routed = one["heads"], one["losses"], one["routed"]
        mean = losses["bits"][next(iter(losses["bits"]))]["mean"]
        add("bits per byte, mean of six domains, windows of 256",
            f"{number(mean['bits'])} ± {number(mean['within'])}")  # fmt: skip
        told = heads["previous"]
        n, h = attending.best(told["share"])
        word = "yes" if of_heads.previous_found(heads) else "no; the nearest"
        add("a previous-token head", f"{word}: layer {n} head {h}, {number(told['share'][n][h], 2)}; even "
            f"{number(told['even'][n], 2)}")  # fmt: skip
        kind, n, h = of_heads.induction_head(heads)
        word = "yes" if of_heads.induction_found(heads) else "no; the nearest"
        told = heads["copying"][kind]
        add("an induction head", f"{word}: layer {n} head {h}, {number(told['score'][n][h], 2)}; without "
            f"repetition {number(told['control'][n][h], 2)}")  # fmt: skip
        told = heads["copying"][f"text {attending.PASSAGES[-1]}"]
        add("text read before, nats a token", signed(told["more"], told["within"], 2))
        add("sinks take, of all attention",
            number(of_heads.mean(heads["sinks"]["share"]), 2) if "sinks" in heads else "has none")
        add("without sinks, bits per byte", signed(*pair(losses["without_sinks"]["every layer"]))
            if "without_sinks" in losses else "–")  # fmt: skip
        add("without windows, bits per byte",
            signed(*pair(losses["windows"]["none"])) if "windows" in losses else "has none")
        add("context beyond 256 tokens, nats a token",
            signed(*pair(losses["far"]["mean"])) if "far" in losses else "cannot see so far")
        if "experts" in routed:
            bits, told = routed["experts"]["domain"]["bits"], routed["experts"]["domain"]["shuffled"]
            n = max(range(len(bits)), key=lambda layer: bits[layer])
            add("an expert tells of the domain, bits", f"{number(bits[n], 2)} in layer {n}; shuffled "
                f"{number(told[n], 2)}")  # fmt: skip
            add("experts on the parallel verses go", of_experts.verdict(routed["verses"]))
        else:
            add("an expert tells of the domain, bits", "has none")
            add("experts on the parallel verses go", "has none")
        every = one["written"]["sums"]["sums"]["new"]
        add("sums not seen in training, answered rightly", of_writing.percent(every))
    return table(["", *found], [[name, *cells] for name, cells in lines.items()])


def pair(one: Mapping[str, float]) -> tuple[float, float]:
    """A difference and its interval."""
    return one["more"], one["within"]


def beside(found: Found) -> str:
    """Both models' bits per byte in short windows."""
    rows = []
    entries = {name: one["losses"]["bits"]["256"] for name, one in found.items()}
    for domain in of_losses.ROWS:
        level = [(one[domain]["bits"], one[domain]["within"]) for one in entries.values()]
        rows.append([of_losses.called(domain), *(f"{number(x)} ± {number(left)}" for x, left in level)])
    return (
        f"Bits per byte of the same held-out windows of 256 tokens:\n\n{table(['', *found], rows)}\n\n"
        "One run of each. How much each difference between the two architectures is worth, this table does "
        "not "
        "tell: that is what the ladder is for ([ladder.md](ladder.md)). To see both on one text: `gptoss-lab "
        'explore "Once upon a time" --beside mini-gpt2 --out page.html`.'
    )


def made(found: Found) -> str:
    """When, and on what."""
    lines = []
    for name, one in found.items():
        machine, versions = one["machine"], one["versions"]
        lines.append(
            f"- {name} ({one['weights']}): {one['date'][:10]}, one thread of {machine['processor']} "
            f"({machine['system']}), torch {versions['torch']}, Python {versions['python']}, gptoss_lab "
            f"{versions['gptoss_lab']}"
        )
    return "Measured:\n\n" + "\n".join(lines)
