"""The experts and the verse pairs in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..training.corpus import DOMAINS
from .words import listed, number, ranged, signed, table

SPREADS = 3  # standard deviations of the shuffled values: told beyond chance
OWN, TIMES = 0.3, 2.5  # a share of a domain's choices, and how many times any other domain's


def beyond(told: Mapping[str, Any], n: int) -> bool:
    """Whether more is told in layer n than by shuffled labels."""
    return bool(told["bits"][n] > told["shuffled"][n] + SPREADS * told["spread"][n])


def layers(numbers: list[int], every: int) -> str:
    """ "every layer", "layers 1 and 2", "no layer"."""
    if len(numbers) == every:
        return "every layer"
    return f"layer{'s' * (len(numbers) > 1)} {listed(map(str, numbers))}" if numbers else "no layer"


def information(found: Mapping[str, Any], language: Mapping[str, Any]) -> str:
    """What an expert's number tells, beside shuffled labels."""
    labels = {"domain": found["domain"], "kind of token": found["kind"], "language": language}
    L = len(found["domain"]["bits"])
    head = ["", "an expert's number has"]
    for name, told in labels.items():
        head += [name, "shuffled"] + (["equal tokens"] if "identity" in told else [])
    rows = []
    for n in range(L):
        row = [f"layer {n}", number(found["domain"]["expert_bits"][n], 2)]
        for told in labels.values():
            row += [number(told["bits"][n]), f"{number(told['shuffled'][n])} ± {number(told['spread'][n])}"]
            row += [number(told["identity"]["shuffled"][n])] if "identity" in told else []
        rows.append(row)
    rows.append(["most there is to tell", "", *(cell for told in labels.values() for cell in
                 (number(told["label_bits"], 2), "", *([""] if "identity" in told else [])))])  # fmt: skip
    lines = []
    for name, told in labels.items():
        there = [n for n in range(L) if beyond(told, n)]
        top = max(range(L), key=lambda n: told["bits"][n])
        one = (f"Of the **{name}** more is told than by shuffled labels in {layers(there, L)}, most in layer "
               f"{top}: {number(told['bits'][top])} of {number(told['label_bits'], 2)} bits")  # fmt: skip
        if "identity" in told:
            same, low = told["identity"]["shuffled"], min(range(L), key=lambda n: told["bits"][n])
            one += (f", of which the token's identity alone tells {number(same[top])}. In layer {low}, "
                    f"where least is "
                    f"told, it is {number(told['bits'][low])}, of which {number(same[low])} by identity "
                    f"alone")
        lines.append(one + ".")
    tokens, verse, kinds = found["domain"]["tokens"], language["tokens"], found["kind"]["counts"]
    used = {kind: count for kind, count in kinds.items() if count}
    how = (
        f"Bits that the number of one of a token's experts tells of its label. Domain ({len(DOMAINS)}) and "
        f"kind of "
        f"token ({len(used)}: {', '.join(used)}) over {found['windows']} held-out windows, {tokens:,} "
        f"tokens; "
        f"language (English or Spanish) over the verse pairs below, {verse:,} tokens, so that both "
        f"languages say "
        "the same. Estimates from counts are too high, by about "
        f"{number(found['domain']['bias'], 4)} bits (domain), {number(found['kind']['bias'], 4)} (kind) and "
        f"{number(language['bias'], 4)} (language) if tokens were independent; they are not, so “shuffled” "
        f"is "
        "the same estimate with the labels of whole windows, single tokens and whole verses shuffled, mean "
        "and "
        "standard deviation of 20 times. “Equal tokens” shuffles labels among the occurrences of each token: "
        "what its identity alone tells. (A token that occurs once keeps its label there, so this is rather "
        "too "
        "much than too little.)"
    )
    return f"{how}\n\n{table(head, rows)}\n\n" + "\n".join(f"- {line}" for line in lines)


def owners(found: Mapping[str, Any]) -> list[tuple[float, int, int, str, float]]:
    """Experts that one domain has for its own: (share, layer, expert, domain, the most of another)."""
    shares, rows = found["share"], []
    L, E = len(shares[next(iter(DOMAINS))]), len(shares[next(iter(DOMAINS))][0])
    for n in range(L):
        for e in range(E):
            of = sorted(((shares[domain][n][e], domain) for domain in DOMAINS), reverse=True)
            if of[0][0] >= OWN and of[0][0] >= TIMES * of[1][0]:
                rows.append((of[0][0], n, e, of[0][1], of[1][0]))
    return sorted(rows, reverse=True)


def shares(found: Mapping[str, Any]) -> str:
    """The shares of the layer that tells most of the domain, and the experts that are one domain's own."""
    bits = found["domain"]["bits"]
    n = max(range(len(bits)), key=lambda layer: bits[layer])
    E = len(found["share"]["fiction"][n])
    rows = [[domain, *(number(x, 2) for x in found["share"][domain][n])] for domain in DOMAINS]
    own = owners(found)
    said = [f"expert {e} of layer {layer} for {domain} ({share:.2f} of its choices, at most {other:.2f} of "
            f"another's)" for share, layer, e, domain, other in own[:6]]  # fmt: skip
    kept = len({domain for _, _, _, domain, _ in own})
    told = ("No expert is one domain's own" if not own else
            f"{len(own)} experts are one domain's own, for {kept} of {len(DOMAINS)} domains. The clearest: "
            f"{listed(said)}")  # fmt: skip
    return (
        f"The share of choices that fell on each expert of layer {n}, which tells most of the domain; even "
        f"would "
        f"be {number(1 / E, 3)}:\n\n{table(['', *map(str, range(E))], rows)}\n\n{told}. (Called so: at least "
        f"{OWN} of a domain's choices, and {TIMES} times what any other domain gives it.) All layers' shares "
        "are in the JSON file."
    )


def verdict(found: Mapping[str, Any]) -> str:
    """What adds more in every layer: "by language", "by topic", or neither."""
    pairs = [(a, b) for (a, _), (b, _) in zip(found["by_language"], found["by_topic"])]
    if all(a > b for a, b in pairs):
        return "by language"
    return "by topic" if all(a < b for a, b in pairs) else "by language in some layers, by topic in others"


def verses(found: Mapping[str, Any]) -> str:
    """Language or topic."""
    pairs, tokens = found["pairs"], found["tokens"]
    intro = (
        f"{pairs} verses ({found['first']} to {found['last']}) of the 2,000 held-out ones, each read alone "
        f"in "
        f"English and in Spanish ({tokens[0]:.0f} and {tokens[1]:.0f} tokens in the mean)."
    )
    if "translation" not in found:
        return f"{intro} There are no experts to compare.\n\n{retrieval(found)}"
    L = len(found["translation"])
    head = ["", "a verse and its translation", "another verse, same language",
            "another verse, other language", "the same topic adds", "the same language adds"]  # fmt: skip
    rows = [[f"layer {n}", *(number(found[key][n][0]) for key in ("translation", "language", "neither")),
             *(signed(*found[key][n]) for key in ("by_topic", "by_language"))] for n in range(L)]  # fmt: skip
    more = {key: [pair[0] for pair in found[f"by_{key}"]] for key in ("topic", "language")}
    found_by = verdict(found)
    if found_by == "by topic":
        first, second = "topic", "language"
        lead = "**By topic.** In every layer the same topic adds more than the same language:"
    else:
        first, second = "language", "topic"
        larger = [n for n in range(L) if more["language"][n] > more["topic"][n]]
        lead = ("**By language.** In every layer the same language adds more than the same topic:"
                if found_by == "by language" else
                f"**It depends on the layer.** The same language adds more than the same topic in "
                f"{layers(larger, L)}:")
    there = [n for n in range(L) if found[f"by_{second}"][n][0] > found[f"by_{second}"][n][1]]
    told = (f"{lead} {ranged(more[first], 2)}. The same {second} adds {ranged(more[second], 3)}, more than "
            f"nothing "
            f"in {layers(there, L)}.")  # fmt: skip
    return (
        f"{intro} Two verses have in common Σ min of their shares of choices: 1 where they go to the same "
        f"experts "
        "alike. The other verse is one of about the same length; the last column but two is the pairs "
        "shuffled.\n\n"
        f"{table(head, rows)}\n\n{told} ± is half the 95 % interval over verses. Names and "
        f"punctuation are shared between the languages, so not all of what the topic adds is meaning.\n\n"
        f"{retrieval(found)}"
    )  # fmt: skip


def retrieval(found: Mapping[str, Any]) -> str:
    """Whether a translation is found again among all."""
    rows = found["residual"]
    top = max(range(len(rows)), key=lambda n: rows[n][0])
    name = lambda n: "the embedding" if n == 0 else f"the residual after layer {n - 1}"
    best, base, chance = rows[top], rows[0], found["chance"]
    gain = best[0] - base[0]
    better = top > 0 and gain > (best[1] ** 2 + base[1] ** 2) ** 0.5
    told = (
        f"A verse's translation is the most like it of all {found['pairs']} (cosine of mean residuals, each "
        f"language's mean taken away) in {number(base[0])} ± {number(base[1])} of cases by the embedding "
        f"alone, "
        f"which sees only shared tokens, such as names; chance is {number(chance)}. "
    )
    last = rows[-1]
    if better:
        told += f"By {name(top)} it is {number(best[0])} ± {number(best[1])}: the layers add something."
    else:
        told += (f"No layer does better (after the last: {number(last[0])} ± {number(last[1])}): nothing "
                 f"here "
                 "says that the model holds what is said apart from the language it is said in.")  # fmt: skip
    if "by_experts" in found:
        hits = [pair[0] for pair in found["by_experts"]]
        told += f" By the shares of experts it is {ranged(hits)}, layer by layer."
    return told
