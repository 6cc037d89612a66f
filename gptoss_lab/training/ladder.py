"""The ladder: from GPT-2's architecture to gpt-oss's, one named change at a time, and the plan of its runs.

Every rung is a `Config`. It differs from the one below by its named change, and by the width of its MLP or
experts, which follows from it: `fit` chooses `d_ff` so that as many parameters are multiplied with a token as
on the first rung (`multiplied`). That is the matching, not a second change. Dense widths come in steps of 4,
experts' in steps of 32, which MXFP4 packs; what is then left over is at most 3.5 % of the first rung's (a
test).

All rungs read the same bytes in the same order: nine tenths of the steps in windows of 256, the last tenth
in windows of 1,024. There YaRN is switched on and experts are rounded to MXFP4, on the rungs that have them.
GPT-2's table of positions has 1,024 rows for that. (All runs of one seed, that is; a few that ask what
repetition does read little text over and over: `aside`.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import tiktoken

from ..config import Config, Yarn, require
from ..cost import active_parameters, parameters
from ..text.tokens import END
from .recipes import Phase, Recipe

SHORT, LONG, BATCH = 256, 1024, 8        # tokens (bytes) a window in the two phases; short windows a step
STEPS = 1500                             # of BATCH · SHORT tokens each
READ = STEPS * BATCH * SHORT             # bytes that a run reads: 3,072,000
PACKED = 32                              # MXFP4 packs widths that are multiples of it
LAYERS, OTHER_LAYERS = 6, (2, 12)
THRICE = ("no-dropout", "rmsnorm", "grouped", "windows", "experts")  # left out with three seeds, for claims
REPEATED = 25_600                        # bytes of each corpus, read 20 times over by the runs that repeat
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
GRIDS = {"gpt2": RATES[:5], "swiglu": RATES[:5], "mxfp4": RATES}  # went on while the best was at an end
ANCHORS = tuple(GRIDS)                   # rungs whose learning rate is searched for; see `anchor_of`


@dataclass(frozen=True)
class Rung:
    """One named change: its short `name`, what to call it in a table, the fields that it sets, and what to
    call a model in which it is `undone`."""

    name: str
    title: str
    changes: dict[str, object]
    undone: str = ""


RUNGS = (
    Rung("gpt2", "GPT-2", {}),
    Rung("no-dropout", "no dropout", {"dropout": 0.0}, "dropout again"),
    Rung("rmsnorm", "RMSNorm", {"norm": "rms"}, "LayerNorm again"),
    Rung("rope", "RoPE", {"positions": "rope"}, "learned positions again"),
    Rung("yarn", "YaRN in the long phase", {"yarn": Yarn(factor=LONG / SHORT, original_context=SHORT)},
         "no YaRN"),
    Rung("swiglu", "clamped SwiGLU", {"activation": "clamped_swiglu"}, "GELU again"),
    Rung("grouped", "grouped queries", {"n_kv_heads": 1}, "4 key/value heads again"),
    Rung("windows", "windows in every second layer", {"window": 64}, "no windows"),
    Rung("sinks", "sinks", {"sinks": True}, "no sinks"),
    Rung("experts", "experts", {"n_experts": 8, "experts_per_token": 2}, "one MLP again"),
    Rung("untied", "untied embeddings", {"tied": False}, "tied again"),
    Rung("mxfp4", "MXFP4 experts", {"stored_experts": "mxfp4"}),
)  # fmt: skip
NUMBER = {rung.name: n for n, rung in enumerate(RUNGS)}
LEFT_OUT = "without-"  # begins the name of the top with a change left out
TOP = "untied"  # where one change is left out: MXFP4's widths in steps of 32 are too coarse to match there
NEEDS: dict[str, dict[str, object]] = {"rope": {"yarn": None}}  # what cannot stay when the change is undone


def first_rung(layers: int = LAYERS) -> Config:
    """GPT-2 in very small, over bytes: width 64, 4 heads of 16, an MLP four times as wide."""
    return Config(
        name="gpt2", family="gpt2", n_layers=layers, d_model=64, n_heads=4, n_kv_heads=4, d_head=16, d_ff=256,
        vocab_size=257, context=LONG, norm="layer", positions="learned", rope_theta=10000.0,
        activation="gelu", tied=True, dropout=0.1, stop_ids=(256,),
    )  # fmt: skip


def multiplied(config: Config) -> int:
    """How many parameters one token is multiplied with: the active ones, less learned positions, of which a
    row is looked up."""
    table = config.context * config.d_model if config.positions == "learned" else 0
    return active_parameters(config) - table


def fit(config: Config, like: Config, step: int = 4, count: Callable[[Config], int] = multiplied) -> Config:
    """`config` with the `d_ff`, a multiple of `step`, that brings it nearest to `like` in `count`, which
    grows in a straight line with `d_ff`."""
    small, large = count(config.with_changes(d_ff=step)), count(config.with_changes(d_ff=2 * step))
    steps = 1 + round((count(like) - small) / (large - small))
    return config.with_changes(d_ff=step * max(1, steps))


@cache
def ladder(layers: int = LAYERS) -> tuple[Config, ...]:
    """The config of every rung, in order."""
    configs = [first_rung(layers)]
    for rung in RUNGS[1:]:
        family = "gpt-oss"  # the name of a layout on disk; no number depends on it
        changed = configs[-1].with_changes(name=rung.name, family=family, d_ff=PACKED, **rung.changes)
        configs.append(fit(changed, configs[0], step=PACKED if changed.n_experts else 4))
    return tuple(configs)


def rung(name: str, layers: int = LAYERS) -> Config:
    """The config of one rung by its name. ValueError for a name that there is none of."""
    require(name in NUMBER, f"no rung {name!r}; there are {', '.join(NUMBER)}")
    return ladder(layers)[NUMBER[name]]


@cache
def without(name: str) -> Config:
    """The rung `TOP` with one change undone, and what cannot stand without it."""
    below, top = ladder()[NUMBER[name] - 1], rung(TOP)
    undone = {field: getattr(below, field) for field in RUNGS[NUMBER[name]].changes}
    return fit(top.with_changes(name=f"{LEFT_OUT}{name}", **undone | NEEDS.get(name, {})), top)


@cache
def spread(experts: int, chosen: int) -> Config:
    """The rung `TOP` with `chosen` of `experts` answering, each of the width that keeps a token's work."""
    name = f"experts-{chosen}-of-{experts}"
    top = rung(TOP)
    return fit(top.with_changes(name=name, n_experts=experts, experts_per_token=chosen), top)


@cache
def as_large(small: str, large: str) -> Config:
    """The rung `small` with its MLP widened until it has as many parameters in all as the rung `large`."""
    named = rung(small).with_changes(name=f"{small}-as-large-as-{large}")
    return fit(named, rung(large), count=parameters)


@cache
def of_depth(name: str, layers: int) -> Config:
    """A rung with another number of layers."""
    return rung(name, layers).with_changes(name=f"{name}-{layers}-layers")


ASIDES: dict[str, tuple[str, Callable[[], Config]]] = {  # models with a question of their own: title, base
    "experts-slowly": ("experts at the dense rate", lambda: rung("experts")),
    "swish": ("YaRN with Swish", lambda: rung("yarn").with_changes(activation="silu")),
    "repeated": ("little text over and over, no dropout", lambda: rung(TOP)),
    "repeated-with-dropout": ("little text over and over, dropout", lambda: without("no-dropout")),
}


@cache
def aside(name: str) -> Config:
    """A model of `ASIDES`. ValueError for a name that there is none of.

    experts-slowly: the rung "experts" at the rate of the rung below it, since the two rungs differ in that as
    well. swish: the last rung with GELU, with Swish in its place. repeated, repeated-with-dropout: the rung
    `TOP`, and that with GPT-2's dropout, of which every run reads `REPEATED` bytes of each corpus over and
    over.
    """
    require(name in ASIDES, f"no model {name!r}; there are {', '.join(ASIDES)}")
    return ASIDES[name][1]().with_changes(name=name)


def title_of(config: Config) -> str:
    """What a model of the plan is called in a table."""
    name, layers = config.name, config.n_layers
    if name in ASIDES:
        return ASIDES[name][0]
    if "-as-large-as-" in name:
        small, large = (RUNGS[NUMBER[one]].title for one in name.split("-as-large-as-"))
        return f"{small}, as large as {large}"
    if "-of-" in name:
        return f"{config.experts_per_token} of {config.n_experts} experts"
    if name.startswith(LEFT_OUT):
        return f"{RUNGS[NUMBER[TOP]].title}, but {RUNGS[NUMBER[name.removeprefix(LEFT_OUT)]].undone}"
    short = name.removesuffix(f"-{layers}-layers")
    title = RUNGS[NUMBER[short]].title if short in NUMBER else short
    return title if short == name else f"{title}, {layers} layers"


def anchor_of(name: str) -> str:
    """The anchor whose learning rate a rung takes: the last one at or below it, and the highest from the
    experts on."""
    if NUMBER[name] >= NUMBER["experts"]:
        return "mxfp4"
    return "swiglu" if NUMBER[name] >= NUMBER["swiglu"] else "gpt2"


def anchor_without(name: str) -> str:
    """The anchor whose rate `TOP` takes with a change undone: its own, and the dense one's without
    experts."""
    return "swiglu" if name == "experts" else "mxfp4"


def recipe_for(config: Config, rate: float) -> Recipe:
    """How every run of the ladder is trained; configs differ, and nothing else."""
    long = Phase(0.1, LONG, BATCH * SHORT // LONG, yarn=config.yarn is not None,
                 rounded=config.stored_experts == "mxfp4")  # fmt: skip
    return Recipe(config, (Phase(0.9, SHORT, BATCH), long), peak=rate, encoding="bytes")


@dataclass(frozen=True)
class Entry:
    """One run of the plan: `rate` is its peak learning rate, or the anchor whose best one it takes;
    `purpose` is the comparison that it is for; `matching` says what it has in common with the others; of each
    corpus it reads the first `read` bytes alone, or all."""

    config: Config
    seed: int
    rate: float | str
    purpose: str
    matching: str = "parameters that a token is multiplied with"
    read: int | None = None

    def id(self, rates: Mapping[str, float]) -> str:
        """Its name on disk; rates: the best rate of each anchor. KeyError while that is not known."""
        rate = rates[self.rate] if isinstance(self.rate, str) else self.rate
        return f"{self.config.name}.seed{self.seed}.lr{rate:g}"


@cache
def byte_encoding() -> tiktoken.Encoding:
    """Every byte is a token, and `<|endoftext|>` is 256."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    return tiktoken.Encoding("bytes", pat_str=r"[^\n]*\n|[^\n]+", mergeable_ranks=ranks,
                             special_tokens={END: 256})  # fmt: skip


def plan() -> list[Entry]:
    """Every run, the most telling first. The same run may serve two ends; it is made once."""
    entries = [Entry(rung(name), 0, rate, "learning rate") for name in ANCHORS for rate in GRIDS[name]]

    def rungs(seed: int) -> list[Entry]:
        return [Entry(config, seed, anchor_of(config.name), "rungs") for config in ladder()]

    def left_out(seed: int) -> list[Entry]:
        names = [name for name in NUMBER if 0 < NUMBER[name] <= NUMBER[TOP]]
        return [Entry(without(name), seed, anchor_without(name), "leave one out") for name in names]

    ends = ("gpt2", "mxfp4")
    sizes = [(of_depth(name, layers), anchor_of(name)) for layers in OTHER_LAYERS for name in ends]
    routed = [spread(4, 1), spread(16, 4), *(spread(experts, 2) for experts in (4, 16, 32, 64))]
    totals = [as_large("rope", "rmsnorm"), as_large("sinks", "experts")]
    totals_of = dict(zip(totals, ("gpt2", "swiglu")))
    entries += rungs(0) + rungs(1) + rungs(2) + left_out(0) + left_out(1)
    entries += [entry for entry in left_out(2) if entry.config.name.removeprefix(LEFT_OUT) in THRICE]
    for seed in (0, 1):
        entries += [Entry(config, seed, anchor, "size") for config, anchor in sizes]
        entries += [Entry(config, seed, "mxfp4", "number of experts") for config in routed]
        entries += [Entry(config, seed, totals_of[config], "equal totals", "parameters in all")
                    for config in totals]  # fmt: skip
    from .shapes import entries as shapes  # which is made of this file's parts

    entries += shapes()
    for seed in (0, 1, 2):
        entries.append(Entry(aside("swish"), seed, anchor_of("yarn"), "Swish"))
        entries.append(Entry(aside("experts-slowly"), seed, "swiglu", "the experts' rate"))
        entries += [Entry(aside(name), seed, "mxfp4", "many epochs", read=REPEATED)
                    for name in ("repeated", "repeated-with-dropout")]  # fmt: skip
    return entries
