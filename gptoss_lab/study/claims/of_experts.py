"""Claim 3: what experts add, and whether it matters which of them answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...config import NAMED
from ...cost import active_parameters, bytes_by_part, human, parameters
from ...training.ladder import plan
from ...training.ladder_numbers import signed
from ...training.queue import best_rates
from .of_runs import compared, part
from .parts import FALSE, HOLDS, PARTLY, UNSEEN, Claim, Part, change, table

OSS = NAMED["gpt-oss-20b"]
NEAR = 0.05  # bits per byte below which another choice counts as nearly as good
ALONE = "two at random in layer "  # begins the names of choices in one layer


def claim(found: Mapping[str, Any], runs: Mapping[str, Any]) -> Claim:
    """The claim, from what was measured and from the results of training runs."""
    return Claim(3, "Experts", (*experts(runs), *routing(found["routing"])))


def rates(runs: Mapping[str, Any]) -> str:
    """At which rates the models with experts and without were trained, as far as that is known."""
    best = best_rates(plan(), runs)
    chosen = [f"{best[anchor]:g}" for anchor in ("mxfp4", "swiglu") if anchor in best]
    told = f" ({chosen[0]} with, {chosen[1]} without)" if len(chosen) == 2 else ""
    return f"With experts and without, each model takes the rate that its anchor does best at{told}."


def slowly(runs: Mapping[str, Any]) -> str:
    """What experts change at the rate of the rung below them, as far as that is in."""
    lead = compared("experts-slowly", "sinks", runs).lead
    if lead is None:
        return ""
    over = "one seed, ± over windows alone" if lead.over_seeds is None else f"{len(lead.each)} seeds"
    return (f"On the step the rate changes with them; at the rate of the rung below they changed the loss by "
            f"{signed(lead.mean, 4)} ± {lead.within:.4f} ({over}). ")  # fmt: skip


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
            "3b",
            f"The rung changes experts, and with them the rate, at equal work a token. {rates(runs)}",
            {HOLDS: "At equal work a token experts changed the loss by {mean}, for the better.",
             UNSEEN: "At equal work a token experts changed the loss by {mean}, by at most 1 % of it either "
                     "way: no gain was seen.",
             FALSE: "At equal work a token experts changed the loss by {mean}, for the worse."},
            runs, f"{slowly(runs)}Whether a gain is knowledge was not asked.",
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
    layers = [name for name in choices if name.startswith(ALONE)]

    def row(name: str) -> list[str]:
        entry = choices[name]
        return [name, f"{entry['bits']:.3f}", change(entry) if "more" in entry else "–"]

    two = ["as trained", "the best alone", "third instead of the second", "the best and one at random",
           "third instead of the best", "third and fourth", "two at random", "the two worst",
           "no expert at all"]  # fmt: skip
    one = ["second-best alone", "third alone", "one at random alone", "the worst alone"]
    head = ["who answers a token", "bits per byte", "more than as trained"]
    seeds = len(choices["two at random"]["seeds"])
    how = (
        f"mini-oss (8 experts, 2 answer), in every layer, {found['windows']} held-out windows of "
        f"{found['context']} tokens of each of {len(found['domains'])} domains. Weights follow the choice. "
        f"± is half the 95 % interval over windows. Random choices are means over {seeds} seeds."
    )
    alone = ["alone", "bits per byte", "more than the best alone"]
    in_one = table(head, [row(name) for name in layers])
    second, random = choices["second-best alone"], choices["two at random"]
    return (
        Part(
            "Choosing the second-best expert is nearly as good", nearly(second["more"], second["within"]),
            "\n\n".join((table(head, [row(name) for name in two]),
                         table(alone, [row(name) for name in one]), how)),
            f"In this model the best expert carries {found['best_weight']:.0%} of the weight on average. "
            f"{weighed(choices)} The model learned with its own router: what it would have become with "
            "another one is a question for training runs, and in none of the ladder's.",
        ),
        Part(
            "Choosing a random expert is nearly as good", nearly(random["more"], random["within"]),
            f"Two at random, in one layer alone (one seed):\n\n{in_one}",
            f"At random in every layer costs {random['more']:.2f} bits per byte. {by_layer(choices)} "
            f"{without_any(choices)}",
        ),
    )  # fmt: skip


def nearly(more: float, within: float, near: float = NEAR) -> str:
    """The verdict on "nearly as good": the cost, with its interval, is below so many bits per byte."""
    return HOLDS if more + within < near else UNSEEN


def weighed(choices: Mapping[str, Any]) -> str:
    """What it costs to pass over the best expert, and to pass over the second."""
    best, kept = choices["third instead of the best"], choices["the best and one at random"]
    much = lambda entry: "little" if nearly(entry["more"], entry["within"]) == HOLDS else "much"
    return (f"Whether it answers matters {much(best)}: the third in its place costs {best['more']:.2f} bits "
            f"per byte, and the second-best alone {choices['second-best alone']['more']:.2f} more than the "
            f"best alone. Who answers beside it matters {much(kept)}: one at random costs {kept['more']:.3f} "
            f"(less than {NEAR:g} with its interval is called little).")  # fmt: skip


def by_layer(choices: Mapping[str, Any]) -> str:
    """Where random experts cost most, and whether it is one layer above all: five times any other."""
    costs = {name.removeprefix(ALONE).split()[0]: entry["more"]
             for name, entry in choices.items() if name.startswith(ALONE)}  # fmt: skip
    (layer, most), (_, second), *_ = sorted(costs.items(), key=lambda item: -item[1])
    if most > 5 * max(second, 0):
        return (f"It hangs on layer {layer} above all: there alone it costs {most:.2f}, in any other alone "
                f"at most {second:.2f}.")  # fmt: skip
    return f"In one layer alone it costs {min(costs.values()):.2f} to {most:.2f}, most in layer {layer}."


def without_any(choices: Mapping[str, Any]) -> str:
    """No expert at all beside random ones: far worse is twice the cost."""
    none, random = choices["no expert at all"], choices["two at random"]
    apart = none["more"] - random["more"]
    how = ("no better than none" if apart <= none["within"] + random["within"]
           else "far better than none" if none["more"] > 2 * random["more"]
           else "better than none")  # fmt: skip
    return f"Without any expert at all it is {none['more']:.2f}: experts at random are {how}."
