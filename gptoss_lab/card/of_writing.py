"""What a model writes, in the words of the card: samples by a rule, circles, sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .words import code, listed, number, table

KNOWS = 0.5  # of the lines answered rightly: it can do them


def samples(found: Mapping[str, Any], name: str) -> str:
    """The best and the worst of every prompt, and the likeliest continuation."""
    told, lines = found["samples"], []
    for domain, entry in told["prompts"].items():
        lines.append(f"- {domain}, {code(entry['prompt'])}")
        for kind in ("best", "worst"):
            one = entry[kind]
            lines.append(f"    - {kind} (seed {one['seed']}, {number(one['logprob'], 2)}): "
                         f"{code(one['text'])}")
        lines.append(f"    - temperature 0: {code(entry['likeliest']['text'])}")
    again = told["again"]
    circles = again["likeliest"] > max(0.1, 2 * again["drawn"], 2 * again["held-out text"])
    went = "At temperature 0 it goes in circles" if circles else "Whether it goes in circles"
    return (
        f"    gptoss-lab generate --model {name} --prompt PROMPT --max-tokens {told['tokens']} --temperature "
        f"{told['temperature']} --seed SEED\n\n"
        f"Of {told['seeds']} samples of every prompt (seeds 0 to {told['seeds'] - 1}) two are shown, chosen "
        f"by "
        "the model itself: the highest and the lowest mean log-probability of a token, which stands behind "
        "the "
        "seed. So “best” is what it found likeliest, which is not always what a reader likes best. ⏎ is a "
        "line "
        f"end.\n\n{chr(10).join(lines)}\n\n"
        f"{went}: {number(again['likeliest'], 2)} of all runs of four tokens stood before in the same "
        f"{told['tokens']} tokens, against {number(again['drawn'], 2)} in the samples and "
        f"{number(again['held-out text'], 2)} in pieces of held-out text as long."
    )


def percent(one: Mapping[str, Any]) -> str:
    """A share of lines, its interval, and of how many."""
    if not one["lines"]:
        return "–"
    return (f"{100 * one['right']:.0f} % ({100 * one['low']:.0f} to {100 * one['high']:.0f}) "
            f"of {one['lines']}")  # fmt: skip


def sums(found: Mapping[str, Any]) -> str:
    """How well sums are known, and how well they are worked out."""
    told = found["sums"]
    rows = [[kind, percent(ways["known"]), percent(ways["new"])] for kind, ways in told.items()]
    able = [kind for kind, ways in told.items() if ways["new"]["lines"] and ways["new"]["low"] >= KNOWS]
    differ = [kind for kind, ways in told.items()
              if ways["new"]["lines"] and ways["new"]["high"] < ways["known"]["low"]]  # fmt: skip
    worked = (f"It answers {listed(able)} that it has not seen rightly more often than not." if able else
              "Of no kind does it answer most of those that it has not seen.")  # fmt: skip
    recall = (f" {listed(differ).capitalize()} that it has seen it knows better." if differ else
              " That it answers lines it has seen better cannot be told from chance.")  # fmt: skip
    return (
        "Lines of held-out arithmetic answered rightly to the last sign at temperature 0, after the lines "
        "before them; 95 % intervals (Wilson). Most held-out lines also stand in the training text; “not "
        "seen” is a line that does not, though the same numbers the other way round may. (A sum that stands "
        "alone, without lines before it, is often answered wrongly: see the samples.)\n\n"
        f"{table(['', 'seen in training', 'not seen'], rows)}\n\n{worked}{recall}"
    )
