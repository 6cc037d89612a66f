"""Dials: what a claim's verdict hangs on, as the arguments of a function that makes the verdict anew.

    print(dials.windows(window=128, tokens=1024))
    4c “Windows save compute and memory”
    cache 1.78 and work 1.02 times as much without windows, at 1,024 tokens
    → holds

Each returns a `Reading`; at its defaults the verdict is the one on the page (a test). What a word means, as
"massively", is an argument too. These follow from configs and definitions; `live` runs the miniatures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...config import NAMED, Config, require
from ...cost import active_parameters, bytes_per_token, cache_bytes, checkpoint_bytes, human, parameters
from ...terminal import in_lines
from ...training.corpus import DOMAINS, training_text
from ...training.ladder import BATCH, REPEATED, SHORT, STEPS
from ...training.ladder_numbers import Found
from ...training.queue import results
from . import beyond, formulas, of_parts
from .of_runs import SEEDS, SMALL, TRIALS, decided
from .parts import FALSE, HOLDS, MISLEADING, OPEN, PARTLY, UNSEEN, UNTESTABLE

OSS, QWEN = NAMED["gpt-oss-20b"], NAMED["qwen3-30b-a3b"]
CLAIMED = (0.14, 0.24, -0.80)


@dataclass(frozen=True)
class Reading:
    """A dial's position read off: the statement's number and words, the value, what it is, the verdict."""

    number: str
    said: str
    value: float
    found: str
    verdict: str

    def beside(self, guess: float) -> str:
        """The value beside a guess of it."""
        told = lambda x: f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"
        ratio = self.value / guess if guess else float(self.value == guess)
        near = abs(ratio - 1) < 0.02
        far = ", as you said" if near else f", {told(ratio)} times that" if ratio > 0 else ""
        return f"you guessed {told(guess)}; it is {told(self.value)}{far}"

    def __str__(self) -> str:
        return f"{self.number} “{self.said}”\n{in_lines(self.found, '    ')}\n→ {self.verdict}"

    __repr__ = __str__


def from_runs(number: str, small: float = SMALL, found: Found | None = None) -> Reading:
    """1a, 1b, 2d, 3b, 4b, 4d, 5b, 8b: the lead, at the step up the ladder where there are two places. small:
    the share of the loss that still counts as small."""
    trial, (verdict, places) = TRIALS[number], decided(number, found, small)
    told, means = [], [place.lead.mean for place in places[:1] if place.lead is not None]
    for place in places:
        limit = f"; small is up to {small * place.lead.level:.4f}" if place.lead is not None else ""
        waits = "; a verdict needs two seeds, and no run that diverged"
        waits = waits if place.lead is not None and not place.enough else ""
        told.append(f"{place.told()}{limit}{waits}")
    return Reading(number, trial.said, means[0] if means else float("nan"), "\n".join(told), verdict)


def epochs(steps: int = STEPS, domain: str = "arithmetic", read: int | None = None) -> Reading:
    """1b. How often a run of so many steps reads one corpus ("arithmetic" is the smallest), or the first
    `read` bytes of it; the verdict is that of the runs that read little text many times."""
    size = len(training_text(domain).encode())
    size = size if read is None else min(size, read)
    times = steps * BATCH * SHORT / len(DOMAINS) / size
    many = STEPS * BATCH * SHORT / len(DOMAINS) / REPEATED
    told = (f"{steps:,} steps read {size:,} bytes of {domain} {times:.2f} times; the runs that answer it "
            f"read {REPEATED:,} bytes {many:.0f} times")  # fmt: skip
    return Reading("1b", TRIALS["1b"].said, times, told, decided("1b")[0])


def form(name: str = "tanh form") -> Reading:
    """2a. If GPT-2 computed this form: "erf form", "tanh form", "x sigmoid(1.702 x)", "Swish" or "ReLU"."""
    curves = {"erf form": formulas.gelu_erf, "tanh form": formulas.gelu_tanh,
              "x sigmoid(1.702 x)": formulas.gelu_sigmoid, "Swish": formulas.swish,
              "ReLU": formulas.relu}  # fmt: skip
    require(name in curves, f"no form {name!r}; there are {', '.join(curves)}")
    at, apart = formulas.farthest(curves[name], formulas.gelu_erf, steps=120_001)
    verdict = HOLDS if apart < 1e-12 else PARTLY if apart < 1e-3 else FALSE
    told = f"the {name.removesuffix(' form')} form is at most {apart:.6f} from the definition"
    where = f", at x = ±{at:.2f}" if apart else ""
    return Reading("2a", "GPT-2's GELU is (x/2)(1 + erf(x/√2))", apart, told + where, verdict)


def gate(activation: str = "clamped_swiglu") -> Reading:
    """2b. The parameters of GPT-2's MLPs with this activation over those with GELU, at one width."""
    one = NAMED["gpt2"]
    more = parameters(one.with_changes(activation=activation)) - parameters(one)
    per = more / one.n_layers / one.d_model / one.d_ff
    matrix = "matrix" if round(per) == 1 else "matrices"
    told = f"{activation} takes {round(per)} {matrix} of {one.d_model} × {one.d_ff} more a layer than gelu"
    return Reading("2b", "GELU or GLU: two names for one thing", round(per), told,
                   FALSE if more else HOLDS)  # fmt: skip


def experts(n_experts: int = 128, chosen: int = 4) -> Reading:
    """3a. gpt-oss-20b with another number of experts, of which `chosen` answer."""
    other = OSS.with_changes(n_experts=n_experts, experts_per_token=chosen)
    more, work = parameters(other) / parameters(OSS), active_parameters(other) / active_parameters(OSS)
    added = HOLDS if work <= 1 else PARTLY if work <= 1.01 else MISLEADING
    verdict = added if more > 1 else UNSEEN
    told = (f"{chosen} of {n_experts} experts: {more:.2f} times the parameters of 4 of 32, "
            f"{work:.4f} times as many at work on a token")  # fmt: skip
    return Reading("3a", "Experts add parameters without adding compute", work, told, verdict)


def many(at_least: int = 1000, answer: int = 2) -> Reading:
    """3c. What "thousands" means, and how many may answer."""
    known = [config for config in NAMED.values() if config.n_experts]
    fit = [c.name for c in known if c.n_experts >= at_least and c.experts_per_token <= answer]  # type: ignore
    verdict = UNSEEN if not fit else HOLDS if len(fit) == len(known) else PARTLY
    told = f"{at_least:,} experts or more, {answer} or fewer answering: {len(fit)} of {len(known)} models"
    said = "Mixtures have thousands of experts, of which one or two answer"
    return Reading("3c", said, len(fit), told + (f" ({', '.join(fit)})" if fit else ""), verdict)


def grouped(kv_heads: int = 8, tokens: int = 8192, massively: float = 4.0) -> Reading:
    """4a. gpt-oss-20b's cache if it had a key/value head for every query head, over that with `kv_heads`."""
    own, less = (cache_bytes(OSS.with_changes(n_kv_heads=n), tokens) for n in (OSS.n_heads, kv_heads))
    ratio = own / less
    verdict = HOLDS if ratio >= massively else PARTLY if ratio > 1 else UNSEEN
    told = f"{kv_heads} key/value heads instead of 64: {human(less)}, not {human(own)}, at {tokens:,} tokens"
    return Reading("4a", "Grouped queries save memory massively", ratio, told, verdict)


def windows(window: int = 128, tokens: int = 8192, felt: float = 1.02) -> Reading:
    """4c. gpt-oss-20b without windows over it with windows so wide; from `felt` on it counts as saving."""
    config = OSS.with_changes(window=window)
    memory = cache_bytes(config.with_changes(window=None), tokens) / cache_bytes(config, tokens)
    work = formulas.work_without_windows(config, tokens)
    verdict = {2: HOLDS, 1: PARTLY, 0: UNSEEN}[(memory >= felt) + (work >= felt)]
    told = f"cache {memory:.2f} and work {work:.2f} times as much without windows, at {tokens:,} tokens"
    return Reading("4c", "Windows save compute and memory", memory, told, verdict)


def normed(values: Sequence[float] = of_parts.SAID, claimed: Sequence[float] = CLAIMED) -> Reading:
    """5c. Both norms of some numbers beside what is claimed; right where all agree to two digits."""
    require(len(values) == len(claimed) > 1, "as many numbers as are claimed, from 2 on")
    both = dict(zip(("LayerNorm", "RMSNorm"), formulas.by_both_norms(values)))
    off = {name: max(abs(a - b) for a, b in zip(found, claimed)) for name, found in both.items()}
    tell = lambda row: "<" + ", ".join(f"{value:.2f}".replace("-", "−") for value in row) + ">"
    told = "; ".join(f"{name} {tell(found)}" for name, found in both.items()) + f"; claimed {tell(claimed)}"
    return Reading("5c", f"Normalising {tell(values)} gives {tell(claimed)}", min(off.values()), told,
                   HOLDS if min(off.values()) < 0.006 else FALSE)  # fmt: skip


def stored_positions(model: str = "gpt-oss-20b") -> Reading:
    """6a. Learned numbers that say where a token stands, for a known model."""
    require(model in NAMED, f"no model {model!r}; there are {', '.join(NAMED)}")
    kept, kind = formulas.position_parameters(NAMED[model]), NAMED[model].positions
    told = f"{model} ({kind}) has {kept:,} learned numbers for positions"
    return Reading("6a", "RoPE stores no positions", kept, told, FALSE if kind == "rope" and kept else HOLDS)


def turns(trained: int = 4096, theta: float = OSS.rope_theta) -> Reading:
    """6b. RoPE's pairs that never turn once in the trained length: what they do further on is new to them."""
    slow = formulas.pairs_within_a_turn(OSS.with_changes(rope_theta=theta), trained)
    told = f"θ = {theta:,.0f}: {slow} of {OSS.d_head // 2} pairs turn less than once in {trained:,} tokens"
    # With none the angles are known, and whether that is enough was not asked; else the losses decide.
    return Reading("6b", beyond.SAID, slow, told, stretched().verdict if slow else OPEN)


def stretched(rung: str | None = None, counts: float = 0.0, found: Found | None = None) -> Reading:
    """6b. What plain RoPE loses beyond the trained length, and what YaRN takes back of it: on one rung of the
    ladder, or on all that are dense, of which the worst is told and each needs two seeds. counts: how many
    nats a byte count as worse. ValueError for a rung without RoPE."""
    require(rung is None or rung in beyond.NAMES,
            f"no rung {rung!r} with RoPE; there are {', '.join(beyond.NAMES)}")  # fmt: skip
    every = beyond.reaches(results() if found is None else found)
    some = [one for one in every if (one.dense if rung is None else one.name == rung)]
    sure = beyond.enough(some) if rung is None else bool(some) and some[0].seeds >= SEEDS
    verdict = beyond.judged(some, counts) if sure else OPEN
    if not some:
        return Reading("6b", beyond.SAID, float("nan"), "no run is in yet", verdict)
    worst = max(some, key=lambda one: one.worse)
    where = f"“{worst.title}”" if len(some) == 1 else f"“{worst.title}”, the worst of {len(some)} dense rungs"
    plain, yarn = beyond.spread([worst.worse]), beyond.spread([worst.stretched - worst.within])
    told = (f"{where}: beyond the trained length {plain} nats a byte with plain RoPE, {yarn} with YaRN put "
            f"on; more than {counts:g} counts as worse (seeds: {worst.seeds})")  # fmt: skip
    if sure and verdict == OPEN:
        each = dict.fromkeys(beyond.verdict(run, counts) for one in some for run in one.runs)
        told += f"\nits runs do not agree: {', '.join(each)}"
    return Reading("6b", beyond.SAID, worst.worse, told, verdict)


def fits(model: str = "gpt-oss-20b", bytes_of: float = 16e9, experts: str = "mxfp4") -> Reading:
    """7a, 7b. How many tokens of cache fit beside the weights; experts in "mxfp4", or the "same" bfloat16."""
    config = NAMED[model].with_changes(stored_experts=experts)
    most, size = formulas.longest(config, int(bytes_of)), checkpoint_bytes(config)
    verdict = FALSE if size > bytes_of else HOLDS if most == config.context else PARTLY
    told = (f"weights {human(size)} of {human(bytes_of)}; the cache of {most:,} of {config.context:,} tokens "
            "fits beside")  # fmt: skip
    number = "7b" if model == "gpt-oss-120b" else "7a"
    return Reading(number, f"{model}'s parameters fit", most, told, verdict)


def cost_of(config: Config, measure: str, tokens: int = 32768) -> int:
    """One cost of a model: "parameters", "active a token", "bytes as published", "bytes read a token", or
    "cache", in bfloat16 after `tokens`."""
    costs = {
        "parameters": lambda: parameters(config), "active a token": lambda: active_parameters(config),
        "bytes as published": lambda: checkpoint_bytes(config),
        "bytes read a token": lambda: sum(bytes_per_token(config).values()),
        "cache": lambda: cache_bytes(config, tokens),
    }  # fmt: skip
    require(measure in costs, f"no measure {measure!r}; there are {', '.join(costs)}")
    return costs[measure]()


def caches(tokens: int = 32768) -> Reading:
    """8a. The cache of Qwen3-30B-A3B over gpt-oss-20b's, beside the numbers of experts and heads."""
    ratio = cache_bytes(QWEN, tokens) / cache_bytes(OSS, tokens)
    told = "; ".join(f"{c.name}: {c.n_experts} experts, {c.n_heads} / {c.n_kv_heads} heads"
                     for c in (QWEN, OSS))  # fmt: skip
    said = "Qwen3-30B-A3B has 128 experts and 32 / 4 heads, gpt-oss-20b 32 experts and 64 / 8"
    return Reading("8a", said, ratio, f"{told}; cache {ratio:.2f} times as large at {tokens:,} tokens", HOLDS)


def smaller(measures: Sequence[str] = ("parameters", "active a token", "bytes as published"),
            times: float = 10.0, off: float = 0.25, tokens: int = 32768) -> Reading:  # fmt: skip
    """9a. Qwen3-235B over gpt-oss-20b in each measure (the cache after so many tokens); "ten times" is within
    a share `off` of `times`."""
    require(bool(measures), "no measure to compare by")
    large = NAMED["qwen3-235b-a22b"]
    ratios = {name: cost_of(large, name, tokens) / cost_of(OSS, name, tokens) for name in measures}
    near = [abs(ratio / times - 1) <= off for ratio in ratios.values()]
    verdict = HOLDS if all(near) else PARTLY if any(near) else FALSE
    at = {"cache": f"cache at {tokens:,} tokens"}
    told = ", ".join(f"{at.get(name, name)} {ratio:.1f}" for name, ratio in ratios.items())
    range_s = f"{times * (1 - off):g} to {times * (1 + off):g}"
    return Reading("9a", "gpt-oss-20b is ten times smaller than Qwen3-235B", next(iter(ratios.values())),
                   f"times as much: {told} (“ten times” is {range_s})", verdict)  # fmt: skip


def questions(number: int = 30, right: float = 0.8) -> Reading:
    """10a. How far apart two models' shares of right answers may lie by chance: half the 95 % interval of
    their difference, over so many questions, each answered once by each, of which a share is `right`. It
    takes the mistakes of one to be independent of the other's."""
    require(number > 0 and 0 < right < 1, f"{number} questions, {right:g} right; expected some, and 0 to 1")
    within = 1.96 * (2 * right * (1 - right) / number) ** 0.5
    told = (f"{number} questions, {right:.0%} right: a difference below {100 * within:.1f} points may be "
            "chance, if one model's mistakes tell nothing of the other's; if they answer the same questions "
            "and fail alike, a smaller one tells them apart")  # fmt: skip
    said = "gpt-oss stands near o3-mini and o4-mini, and beside Qwen3, on benchmarks"
    return Reading("10a", said, within, told, UNTESTABLE)
