"""Claims 1, 2 and 4 to 6: dropout, GELU and Swish, attention, norms, positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...config import NAMED
from ...cost import parameters
from ...training.corpus import DOMAINS
from ...training.ladder import READ, REPEATED, first_rung, plan
from ...training.ladder_costs import ratio as times_as_fast
from ...training.ladder_costs import speed
from ...training.ladder_numbers import Difference, difference, pools, signed
from ...training.scatter import Pool, Runs
from . import beyond, formulas
from .of_runs import capital, decided, part
from .of_runs import runs as runs_of
from .parts import FALSE, HOLDS, MISLEADING, PARTLY, UNSEEN, Claim, Part, change, table

Found = Mapping[str, Any]
OSS, GPT2 = NAMED["gpt-oss-20b"], NAMED["gpt2"]
SAID = (4.2, 5.2, -41.4)


def claims(found: Found, runs: Found) -> tuple[Claim, ...]:
    """The five, from what was measured and from the results of training runs."""
    return (
        Claim(1, "Dropout", dropout(runs)),
        Claim(2, "GELU, GLU, Swish", gelu(found, runs)),
        Claim(4, "Grouped queries and windows", attention(runs)),
        Claim(5, "LayerNorm and RMSNorm", norms(found, runs)),
        Claim(6, "RoPE", positions(runs)),
    )


def ratio(found: Found, name: str) -> str:
    """A ratio of times: its median, and its quartiles in brackets."""
    low, middle, high = found["times"]["ratios"][name]
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def middle(found: Found, name: str) -> float:
    """The median of a ratio of times."""
    return float(found["times"]["ratios"][name][1])


def paid(timed: Found | None) -> str:
    """What compute dropout costs in training, as measured; "" where it never was. timed: see
    `training.ladder_costs.speed`."""
    if timed is None or not {"no-dropout", "gpt2"} <= timed["training"].keys():
        return ""
    times = times_as_fast(timed["training"]["no-dropout"], timed["training"]["gpt2"])
    threads = timed["made_with"]["threads"]
    return (f" On {threads} CPU thread{'s' * (threads > 1)} a training step of “no dropout” is {times} times "
            "as fast as one of “GPT-2” (the median of rounds, and their middle half), at width "
            f"{first_rung().d_model}; how much of that is the dice, and how much that attention without "
            "dropout runs fused, was not measured apart.")  # fmt: skip


def by_domain(
    ours: Runs, theirs: Runs, alike: Iterable[Pool] = (), domain: str = "arithmetic"
) -> tuple[Difference, Difference] | None:
    """How two models differ in one domain alone, and in the mean of the others; None where no seed has
    both."""
    others = [name for name in DOMAINS if name != domain]
    alone, rest = (difference(ours, theirs, alike, domains=names) for names in ([domain], others))
    return None if alone is None or rest is None else (alone, rest)


def arithmetic(number: str, runs: Found) -> str:
    """The lead in arithmetic and in the other domains, for the places of a trial that have seeds enough."""
    told, alike = [], [*pools(plan(), runs).values()]
    for place in decided(number, runs)[1]:
        both = by_domain(runs_of(place.ours, runs), runs_of(place.theirs, runs), alike)
        if place.enough and both is not None:
            alone, others = (f"{signed(less.mean, 4)} ± {less.within:.4f}" for less in both)
            told.append(f"{place.name}, {alone} in arithmetic alone and {others} as the mean of the other "
                        f"{len(DOMAINS) - 1} domains")  # fmt: skip
    why = "Arithmetic, whose few forms come back often, can dominate the mean."
    return f" {why} {capital('; '.join(told))} (± both intervals together)." if told else ""


def dropout(runs: Found) -> tuple[Part, ...]:
    """Claim 1."""
    answers = "Dropout is paid for in training alone; a model that answers does without."
    return (
        part(
            "1a",
            "The second rung removes dropout alone; at the top dropout is put back. A run reads "
            f"{READ:,} bytes, {READ // len(DOMAINS):,} of each kind on average, which is less than one epoch "
            "of any. From the configs: GPT-2 drops 0.1 in three places (the embedding, the pattern, what "
            f"joins the residual), gpt-oss nowhere.{paid(speed())}{arithmetic('1a', runs)}",
            {HOLDS: "Removing dropout changed the loss by {mean}, for the better.",
             UNSEEN: "Removing dropout changed the loss by {mean}, by at most 1 % of it either way: neither "
                     "a benefit of dropout nor a gain without it was seen.",
             FALSE: "Removing dropout changed the loss by {mean}, for the worse: it was of use."},
            runs, f"The models are small and read their text on average less than once. {answers}",
        ),
        part(
            "1b",
            f"Both are the ladder's top, and read the first {REPEATED:,} bytes of each of {len(DOMAINS)} "
            f"corpora alone, {READ / len(DOMAINS) / REPEATED:.0f} times over; held-out text is as for all.",
            {HOLDS: "Where little text is read many times, removing dropout changed the loss by {mean}: "
                    "dropout brought no benefit that can be told from zero, and none beyond 1 % of the loss.",
             PARTLY: "Where little text is read many times, removing dropout changed the loss by {mean}, for "
                     "the worse: dropout brought a benefit, of 1 % of the loss at most.",
             FALSE: "Where little text is read many times, removing dropout changed the loss by {mean}, for "
                    "the worse: dropout brought a benefit of more than 1 % of the loss."},
            runs, answers,
        ),
    )  # fmt: skip


def gelu(found: Found, runs: Found) -> tuple[Part, ...]:
    """Claim 2."""
    tanh_at, tanh = formulas.farthest(formulas.gelu_tanh, formulas.gelu_erf)
    quick_at, quick = formulas.farthest(formulas.gelu_sigmoid, formulas.gelu_erf)
    swish_at, swish = formulas.farthest(formulas.swish, formulas.gelu_erf)
    swap, times = found["erf_for_tanh"], found["times"]
    forms = table(["beside the erf form", "farthest apart by", "at x = ±"], [
        ["tanh form (GPT-2)", f"{tanh:.6f}", f"{tanh_at:.2f}"],
        ["x · sigmoid(1.702 x) (gpt-oss's gate)", f"{quick:.4f}", f"{quick_at:.2f}"],
        ["Swish, x · sigmoid(x)", f"{swish:.4f}", f"{swish_at:.2f}"],
    ])  # fmt: skip
    share = ("GELU, tanh / Swish", "GELU, erf / Swish", "clamped SwiGLU / SwiGLU", "product / Swish",
             "product / GELU, tanh")  # fmt: skip
    shown = table(["time over time", "median (quartiles)"], [[name, ratio(found, name)] for name in share])
    return (
        Part(
            "GPT-2's GELU is (x/2)(1 + erf(x/√2))", PARTLY,
            f"{forms}\n\nLargest differences from −12 to 12, float64. With the erf form in the place of the "
            f"tanh form in every layer of mini-gpt2, {found['windows']} held-out windows a domain: "
            f"{signed(swap['more'], 6)} ± {swap['within']:.6f} bits per byte, of {swap['bits']:.3f}.",
            "That is GELU's definition. GPT-2 computes the tanh form, which is never more than "
            f"{tanh:.4f} away; to agree with its published logits one has to use it.",
        ),
        Part(
            "GELU or GLU: two names for one thing", FALSE,
            "GELU is a function of one number. A GLU multiplies two numbers, a gate through some function "
            "and an up: it takes a second matrix. By the definitions.",
            "GPT-2 has GELU without a gate. gpt-oss has a GLU whose gate goes through x · sigmoid(1.702 x), "
            "clamped.",
        ),
        Part(
            "Swish is significantly cheaper than GELU", MISLEADING,
            f"{shown}\n\n“Product” is the matrix product of {times['tokens']} × {times['width']} by "
            f"{times['width']} × {4 * times['width']} that makes the activation's input. {times['rounds']} "
            "rounds of eager float32 CPU kernels on one thread, ratios within a round, the thread's own "
            "processor time; the machine did other things too.",
            "As a kernel alone Swish takes a little less time than GELU's erf form (which takes "
            f"{middle(found, share[1]):.1f} times as long), and much less than GPT-2's tanh form "
            f"({middle(found, share[0]):.1f} times). But the product that feeds it takes "
            f"{middle(found, share[3]):.0f} times as long as Swish and {middle(found, share[4]):.0f} times "
            "as long as GPT-2's GELU, and a second product follows. On a GPU, or compiled, these ratios are "
            "others; that was not measured.",
        ),
        part(
            "2d",
            "The other is the ladder's last rung with GELU; both have no gate, are as wide and as deep, and "
            "have that rung's rate, which was not searched for anew.",
            {HOLDS: "A model that learned with Swish in GELU's place differs in its loss by {mean}: if for "
                    "the worse, then by 1 % of the loss at most.",
             FALSE: "A model that learned with Swish in GELU's place differs in its loss by {mean}: for the "
                    "worse, and by more than 1 % of the loss."},
            runs,
        ),
    )  # fmt: skip


def attention(runs: Found) -> tuple[Part, ...]:
    """Claim 4, from configs; the parts about quality from runs."""
    lengths = (1024, 8192, 131072)
    kinds = list(formulas.caches(OSS, 1024))
    rows = []
    for kind in kinds:
        sizes = [formulas.caches(OSS, tokens)[kind] for tokens in lengths]
        rows.append([kind, *(f"{size:,}" for size in sizes)])
    shown = table(["bytes of cache", *(f"{tokens:,} tokens" for tokens in lengths)], rows)
    saved = parameters(formulas.multi_head(OSS)) - parameters(OSS)
    work = ", ".join(f"{formulas.work_without_windows(OSS, n):.2f} at {n:,}" for n in lengths)
    memory = ", ".join(
        f"{formulas.caches(OSS, n)['no windows'] / formulas.caches(OSS, n)['as it is']:.2f} at {n:,}"
        for n in lengths
    )
    every = OSS.n_heads // OSS.n_kv_heads
    return (
        Part(
            "Grouped queries save memory massively", HOLDS,
            f"gpt-oss-20b, bfloat16, from its config:\n\n{shown}\n\n“Neither” is multi-head attention, dense "
            f"in every layer. With {OSS.n_heads} key/value heads the model would also have {saved:,} "
            "parameters more.",
            f"The cache is {every} times smaller, as many as query heads share a key/value head, at every "
            "length.",
        ),
        part(
            "4b",
            "The rung changes grouped queries alone: one key/value head for four query heads of 16 channels, "
            "and the MLP or the experts widened by what that saves.",
            {HOLDS: "Sharing one key/value head among four query heads of 16 channels changed the loss by "
                    "{mean} at equal work: if for the worse, then by 1 % of the loss at most.",
             FALSE: "Sharing one key/value head among four query heads of 16 channels changed the loss by "
                    "{mean} at equal work: for the worse, and by more than 1 % of the loss."},
            runs,
        ),
        Part(
            "Windows save compute and memory", HOLDS,
            f"gpt-oss-20b without its windows, times as much as with them. Cache: {memory} tokens. FLOP to "
            f"decode a token: {work} tokens before it. From its config.",
            "Every second layer has a window, so that neither can be more than halved. In a short text "
            "windows save next to no compute: there the weights' products are nearly all of the work.",
        ),
        part(
            "4d",
            "The rung changes windows in every second layer alone, 64 bytes wide; the loss is that of texts "
            "of 256 bytes.",
            {HOLDS: "Windows of 64 bytes in every second layer changed the loss by {mean} in texts of 256 "
                    "bytes: no cost that can be told from zero, and none beyond 1 % of the loss.",
             PARTLY: "Windows of 64 bytes in every second layer changed the loss by {mean} in texts of 256 "
                     "bytes: a cost, of 1 % of the loss at most.",
             FALSE: "Windows of 64 bytes in every second layer changed the loss by {mean} in texts of 256 "
                    "bytes: a cost of more than 1 % of the loss."},
            runs,
        ),
    )  # fmt: skip


def negative(gpt2: int, oss: int) -> str:
    """How many of the scales of both models' norms are negative, in a sentence."""
    if gpt2 == oss == 0:
        return "No scale of either model is negative."
    return f"Of their scales {gpt2 or 'none'} of mini-gpt2 and {oss or 'none'} of mini-oss are negative."


def norms(found: Found, runs: Found) -> tuple[Part, ...]:
    """Claim 5."""
    layer, rms = formulas.by_both_norms(SAID)
    told = lambda values: "<" + ", ".join(f"{value:.4f}".replace("-", "−") for value in values) + ">"
    gpt2, oss = found["normalising"]["mini-gpt2"], found["normalising"]["mini-oss"]
    rows = [
        ["divided by the root mean square", f"{gpt2['divided']:.2%}", f"{oss['divided']:.2%}"],
        ["mean taken away (LayerNorm without scale and bias)", f"{gpt2['centred']:.2%}",
         f"{oss['centred']:.2%}"],
        ["the model's own norm, scale and bias", f"{gpt2['own']:.2%}", f"{oss['own']:.2%}"],
        ["pre-activations of the next matrix, with the norm and without", f"{gpt2['units']:.2%}",
         f"{oss['units']:.2%}"],
    ]  # fmt: skip
    signs = table(["share of signs that change", "mini-gpt2 (LayerNorm)", "mini-oss (RMSNorm)"], rows)
    most = max(oss["along_ones"].values())
    scales = negative(gpt2["negative_scales"], oss["negative_scales"])
    changed = any(one[kind] > 0 for one in (gpt2, oss) for kind in ("centred", "own", "units"))
    neurons = "the norm decided none in these two"
    if max(gpt2["units"], oss["units"]) > 0:
        neurons = "a norm can decide some, since it changes how much a bias weighs: in mini-gpt2 "
        neurons += f"{gpt2['units']:.2%}, in mini-oss {oss['units']:.2%}"
    without = found["without_mean"]
    times = table(["time over time", "median (quartiles)"], [
        [f"{name}", ratio(found, name)]
        for name in ("LayerNorm / RMSNorm", "LayerNorm, torch's / RMSNorm, torch's", "product / RMSNorm")
    ])  # fmt: skip
    return (
        Part(
            "RMSNorm is cheaper than LayerNorm", PARTLY,
            f"{times}\n\nMeasured as in claim 2, on {found['times']['tokens']} × {found['times']['width']}. "
            "The first line is this package's two functions, written out alike; the second torch's own, of "
            "which LayerNorm has a fused CPU kernel.",
            "It needs one mean instead of two and no bias, so written alike it takes less time. Which is "
            "faster in practice is decided by the kernel. Either is small beside one matrix product.",
        ),
        part(
            "5b", "The rung changes the norm alone, at the same learning rate.",
            {HOLDS: "RMSNorm in LayerNorm's place changed the loss by {mean}: for the worse, by 1 % of it at "
                    "most.",
             PARTLY: "RMSNorm in LayerNorm's place changed the loss by {mean}: for the worse, and by more "
                     "than 1 % of it.",
             UNSEEN: "RMSNorm in LayerNorm's place changed the loss by {mean}, by at most 1 % of it either "
                     "way: no difference was seen.",
             FALSE: "RMSNorm in LayerNorm's place changed the loss by {mean}: for the better."},
            runs,
        ),
        Part(
            "Normalising <4.2, 5.2, −41.4> gives <0.14, 0.24, −0.80>", FALSE,
            f"LayerNorm gives {told(layer)}, RMSNorm {told(rms)} (without scale, bias and eps; float64).",
            "No norm without a scale of its own for every channel gives the numbers claimed: both norms are "
            "straight lines, and a line through the first two pairs has a slope of 0.1 and would give −4.42 "
            "for the third.",
        ),
        Part(
            "Normalising does not change which neurons are active", PARTLY if changed else HOLDS,
            f"{signs}\n\n{gpt2['tokens']:,} held-out tokens, means over all norms of a model; the last line "
            f"over all feed-forward halves. {scales} Of the squared length of "
            f"mini-oss's residual at most {most:.2%} (mean over tokens, the point with the most) lies along "
            f"the all-ones direction; a random direction would have {oss['chance']:.2%}. What is lost in "
            f"bits per byte when it is taken away: by mini-oss {change(without['mini-oss'])}, by mini-gpt2 "
            f"{change(without['mini-gpt2'])}.",
            "RMSNorm changes a channel's sign only where its scale is negative. LayerNorm can: in mini-gpt2 "
            f"{gpt2['centred']:.2%} of them before its scale and bias, {gpt2['own']:.2%} with both. But a "
            f"channel of the residual is no neuron: those come after the next matrix, and there {neurons}.",
        ),
    )  # fmt: skip


def positions(runs: Found) -> tuple[Part, ...]:
    """Claim 6, from configs and from runs."""
    yarn = OSS.yarn
    assert yarn is not None
    start = yarn.original_context
    slow, pairs = formulas.pairs_within_a_turn(OSS, start), OSS.d_head // 2
    return (
        Part(
            "RoPE stores no positions", HOLDS,
            f"GPT-2's table of {GPT2.context:,} positions has {formulas.position_parameters(GPT2):,} learned "
            f"numbers, gpt-oss-20b {formulas.position_parameters(OSS)}: its {pairs} frequencies follow from "
            f"θ = {OSS.rope_theta:,.0f}. From the configs.",
            "Nothing is learned and nothing is in the checkpoint. Programs may keep a table of cosines and "
            "sines; it is computed.",
        ),
        beyond.part(
            runs,
            f"Of gpt-oss-20b's {pairs} pairs {slow} turn less than once in the {start:,} tokens before it "
            "was stretched: past them they would stand at angles that no text had put them to. YaRN slows "
            f"these by {yarn.factor:g}, so that {start:,} × {yarn.factor:g} = {OSS.context:,} tokens take "
            "them no further. GPT-2 has no row for position 1,024 and cannot be asked. From the configs.",
        ),
    )  # fmt: skip
