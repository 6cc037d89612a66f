"""Claim 3: what experts add, and whether it matters which of them answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...config import NAMED
from ...cost import active_parameters, bytes_by_part, human, parameters
from .of_runs import part
from .parts import PARTLY, UNSEEN, Claim, Part, change, table

OSS = NAMED["gpt-oss-20b"]


def claim(found: Mapping[str, Any], runs: Mapping[str, Any]) -> Claim:
    """The claim, from what was measured and from the results of training runs."""
    return Claim(3, "Experts", (*experts(runs), *routing(found["routing"])))


def experts(runs: Mapping[str, Any]) -> tuple[Part, ...]:
    """The part that follows from configs, and what runs say of it."""
    wide = OSS.with_changes(n_experts=128)
    more, work = parameters(wide) / parameters(OSS), active_parameters(wide) / active_parameters(OSS)
    rows = [
        [name, f"{parameters(c):,}", f"{active_parameters(c):,}", human(bytes_by_part(c)["experts"])]
        for name, c in (("gpt-oss-20b, 4 of 32", OSS), ("the same with 4 of 128", wide))
    ]
    shown = table(["", "parameters", "active a token", "experts' bytes, MXFP4"], rows)
    kinds = table(["", "experts", "answer a token"], [
        [name, str(NAMED[name].n_experts), str(NAMED[name].experts_per_token)]
        for name in ("gpt-oss-20b", "gpt-oss-120b", "qwen3-30b-a3b", "qwen3-235b-a22b")
    ])  # fmt: skip
    return (
        Part(
            "Experts add parameters without adding compute", PARTLY,
            f"{shown}\n\nFrom the config. Four times the experts: {more:.2f} times the parameters, "
            f"{work:.4f} times the active ones (the router has a row for each expert).",
            "At a fixed number of experts a token, further experts cost memory, traffic between devices and "
            "a row of the router, and hardly any multiplications.",
        ),
        part(
            "3b", "One rung is experts alone, at equal work a token; others have 4 to 64 of them.",
            "The text is foreseen better for the same work. Whether that is knowledge was not asked.", runs,
        ),
        Part(
            "Mixtures have thousands of experts, of which one or two answer", UNSEEN,
            f"{kinds}\n\nFrom the configs.",
            "Such models have been published (Switch-C: 2,048 experts, top 1, arXiv 2101.03961). The four "
            "here have 32 or 128, of which 4 or 8 answer.",
        ),
    )  # fmt: skip


def routing(found: Mapping[str, Any]) -> tuple[Part, ...]:
    """The part measured on mini-oss."""
    choices = found["choices"]
    layers = [name for name in choices if name.startswith("two at random in layer")]

    def row(name: str) -> list[str]:
        entry = choices[name]
        return [name, f"{entry['bits']:.3f}", change(entry) if "more" in entry else "–"]

    two = ["as trained", "the best alone", "third instead of the second", "the best and one at random",
           "third instead of the best", "third and fourth", "two at random", "the two worst",
           "no expert at all"]  # fmt: skip
    one = ["second-best alone", "third alone", "one at random alone", "the worst alone"]
    head = ["who answers a token", "bits per byte", "more than as trained"]
    how = (
        f"mini-oss (8 experts, 2 answer), in every layer, {found['windows']} held-out windows of "
        f"{found['context']} tokens of each of {len(found['domains'])} domains. Weights follow the choice. "
        "± is half the 95 % interval over windows. Random choices are means over three seeds."
    )
    alone = ["alone", "bits per byte", "more than the best alone"]
    in_one = table(head, [row(name) for name in layers])
    second = choices["second-best alone"]
    kept, lost = choices["the best and one at random"], choices["third instead of the best"]
    return (
        Part(
            "Choosing the second-best expert is nearly as good", UNSEEN,
            "\n\n".join((table(head, [row(name) for name in two]),
                         table(alone, [row(name) for name in one]), how)),
            f"In this model the best expert carries {found['best_weight']:.0%} of the weight on average, and "
            "nearly everything hangs on it: passing over it costs "
            f"{lost['more']:.2f} bits per byte, taking the second-best alone {second['more']:.2f} more than "
            "the best alone. Who comes second matters little: any other in its place costs "
            f"{kept['more']:.3f}. The model learned with its own router: what it would have become with "
            "another one is a question for training runs, and in none of the ladder's.",
        ),
        Part(
            "Choosing a random expert is nearly as good", UNSEEN,
            f"Two at random, in one layer alone (one seed):\n\n{in_one}",
            f"At random in every layer costs {choices['two at random']['more']:.2f} bits per byte; in layer "
            f"0 alone {choices[layers[0]]['more']:.2f}, in any other alone at most "
            f"{max(choices[name]['more'] for name in layers[1:]):.2f}. Without any expert at all it is "
            f"{choices['no expert at all']['more']:.2f}: a random expert is far better than none.",
        ),
    )  # fmt: skip
