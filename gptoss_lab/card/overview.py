"""Both miniatures on one screen: what was measured and on what, what can be taught, what is absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import attending, of_experts, of_heads, of_losses, of_writing
from .words import number, signed, table

Found = Mapping[str, Mapping[str, Any]]


def findings(found: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """What was looked for in a model that could have it, and whether it was found."""
    heads, losses, routed = found["heads"], found["losses"], found["routed"]
    told = [("a previous-token head", of_heads.previous_found(heads)),
            ("an induction head", of_heads.induction_found(heads))]  # fmt: skip
    text = heads["copying"][f"text {attending.PASSAGES[-1]}"]
    told.append(("text that was read before is predicted better", text["more"] < -text["within"]))
    if "sinks" not in heads:
        told.append(("attention parked at the first token", of_heads.first_token_found(heads)))
    else:
        rests = any(x >= of_heads.NOTABLE for row in heads["sinks"]["share"] for x in row)
        told.append(("heads that rest on their sinks", rests))
        missed = above(losses["without_sinks"]["every layer"])
        told.append(("sinks that are missed when they are taken away", missed))
    if "windows" in losses:
        told.append(("windows that the weights rely on", above(losses["windows"]["none"])))
    if "far" in losses:
        mean = losses["far"]["mean"]
        told.append(("a use for context beyond 256 tokens", mean["more"] < -mean["within"]))
    if "experts" in routed:
        names = {"domain": routed["experts"]["domain"], "language": routed["verses"]["told"]}
        for name, entry in names.items():
            same, bits = entry["identity"], entry["bits"]
            rows = zip(bits, same["shuffled"], same["spread"])
            beyond = any(x > mean + of_experts.SPREADS * spread for x, mean, spread in rows)
            told.append((f"experts that go by {name}, beyond which token it is", beyond))
        kind = routed["experts"]["kind"]
        told.append(("experts that go by the kind of token",
                     any(of_experts.beyond(kind, n) for n in range(len(kind["bits"])))))  # fmt: skip
    every = found["written"]["sums"]["sums"]["new"]
    told.append(("sums worked out, after lines of sums", every["low"] >= of_writing.KNOWS))
    return told


def above(one: Mapping[str, float]) -> bool:
    """Whether a change costs more than its interval."""
    return one["more"] > one["within"]


def missing(found: Mapping[str, Any]) -> list[str]:
    """What was looked for and not found."""
    return [name for name, there in findings(found) if not there]


def lists(found: Found) -> str:
    """For each model what can be shown with it, and what cannot."""
    lines = []
    for name, one in found.items():
        there, absent = [what for what, seen in findings(one) if seen], missing(one)
        lines.append(f"- **{name}** shows: {'; '.join(there) or 'none of what was looked for'}. Looked for "
                     f"and "
                     f"not found: {'; '.join(absent) or 'nothing'}.")  # fmt: skip
    return "\n".join(lines)


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
        add("sums not seen in training, after lines of sums, answered rightly", of_writing.percent(every))
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
