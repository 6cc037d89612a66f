"""What a miniature is and how it was made: from its config, that of what it is small of, and its log."""

from __future__ import annotations

import copy
import json
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from ..config import NAMED, Config, require
from ..cost import active_parameters, checkpoint_bytes, human, parameters
from ..training.corpus import DOMAINS
from ..training.recipes import RECIPES, Recipe
from ..training.runs import Run
from ..weights.places import ASSETS
from .words import number, table

LARGE = {"gpt-oss": "gpt-oss-20b", "gpt2": "gpt2"}
RATES = ASSETS / "results" / "rates"
TITLE = {"gpt-oss-20b": "gpt-oss-20b", "gpt2": "GPT-2 (124M)"}


def log_of(name: str) -> dict[str, Any]:
    """What training wrote beside a shipped model's weights. ValueError where there is none."""
    path = ASSETS / name / "training.json"
    require(path.is_file(), f"no log of {name}'s training at {str(path)!r}")
    return dict(json.loads(path.read_text("utf-8")))


def run_of(log: Mapping[str, Any]) -> Run:
    """The run that a log tells of."""
    made = {key: value for key, value in log.items() if key != "bits_per_byte"}
    return Run.from_json(copy.deepcopy(made))  # which it takes apart


def positions(config: Config) -> str:
    """RoPE and its stretching, or a table."""
    if config.positions == "learned":
        return f"learned, {config.context:,}"
    yarn = config.yarn
    stretched = "" if yarn is None else f", YaRN × {yarn.factor:g} from {yarn.original_context:,}"
    return f"RoPE θ {config.rope_theta:,.0f}{stretched}"


def stored(config: Config) -> str:
    """How the weights are kept."""
    return "experts in MXFP4" if config.stored_experts == "mxfp4" else config.stored


def architecture(config: Config) -> str:
    """The miniature beside what it is a miniature of."""
    large = NAMED[LARGE[config.family]]
    lines: list[tuple[str, Callable[[Config], str]]] = [
        ("layers, width", lambda c: f"{c.n_layers}, {c.d_model}"),
        ("query / key-value heads", lambda c: f"{c.n_heads} / {c.n_kv_heads} of {c.d_head} channels"),
    ]
    if config.window is not None:
        lines.append(("window on even layers", lambda c: str(c.window)))
    if config.n_experts:
        lines.append(("experts, of which answer",
                      lambda c: f"{c.n_experts}, {c.experts_per_token} of width {c.d_ff}"))  # fmt: skip
    else:
        lines.append(("MLP", lambda c: f"{c.d_ff}, {c.activation.upper()}"))
    lines += [
        ("vocabulary", lambda c: f"{c.vocab_size:,}, {'tied' if c.tied else 'untied'}"),
        ("positions", positions),
        ("parameters", lambda c: human(parameters(c), "").strip()),
        ("of which at work on a token", lambda c: human(active_parameters(c), "").strip()),
        ("weights as stored", lambda c: f"{human(checkpoint_bytes(c))}, {stored(c)}"),
    ]
    rows = [[name, line(config), line(large)] for name, line in lines]
    return table(["", config.name, TITLE[large.name]], rows)


def share(part: float) -> str:
    """0.88 as "88 % of the steps"."""
    return "All steps" if part == 1 else f"{100 * part:.0f} % of the steps"


def phases(recipe: Recipe) -> str:
    """The stretches of the training, a sentence each."""
    told = []
    for phase in recipe.phases:
        extra = (", with YaRN" if phase.yarn else "") + (
            ", every matrix of an expert rounded to MXFP4 on its way forward and the gradient passed "
            "straight "
            "through" if phase.rounded else "")  # fmt: skip
        told.append(f"{share(phase.share)} took {phase.batch} windows of {phase.context:,} tokens"
                    f"{extra}")  # fmt: skip
    return "; ".join(told) + "."


def balance(run: Run, last: int = 100) -> str:
    """Where the term that spreads tokens over the experts stood at the end of every phase; "" without one."""
    starts = run.recipe.starts(run.steps)
    if not run.recipe.config.n_experts or len(run.balance) < run.steps:
        return ""
    ends = [statistics.fmean(run.balance[max(start, end - last) : end]) for start, end in
            zip(starts, starts[1:]) if end > start]  # fmt: skip
    shown = [number(end, 2) for end in ends]
    told = shown[0] if len(shown) == 1 else f"{', then '.join(shown)} at the ends of the phases"
    return f" The balance term (1 is an even spread over the experts) stood at {told}."


def making(log: Mapping[str, Any]) -> str:
    """How the weights came about."""
    run = run_of(log)
    recipe, name, threads = run.recipe, run.recipe.name, run.made_with.get("threads", "?")
    stops = "" if not run.stops else (
        f" It was stopped and taken up again {'once' if len(run.stops) == 1 else f'{len(run.stops)} times'}."
    )  # fmt: skip
    early = "" if run.done == run.steps else f" These weights are of step {run.done:,}, an early version."
    fell = ""
    if len(run.heldout) > 1:
        means = [statistics.fmean(found[domain] for domain in DOMAINS) for found in run.heldout[-2:]]
        fell = (f" Between the last two looks at held-out text (steps {run.heldout[-2]['step']:,} and "
                f"{run.heldout[-1]['step']:,}) the mean over domains went from {means[0]:.3f} to "
                f"{means[1]:.3f} bits per byte.")  # fmt: skip
    command = f"    gptoss-lab train {name} --out FOLDER --steps {run.steps} --seed {run.seed}"
    return (
        f"{command}\n\n{run.tokens:,} tokens in {run.seconds / 60:,.0f} minutes, threads: {threads}."
        f"{stops}{early} {phases(recipe)} {recipe.stepped_by}; the learning rate rose over "
        f"{recipe.warmup} steps to {recipe.peak:g} and fell in a straight line to zero; weight decay "
        f"{recipe.decay:g} on matrices, gradients clipped at {recipe.clip:g}.{balance(run)}{fell} Every loss "
        f"of every step is in `training.json` beside the weights.{since(recipe)}{searched(recipe)}"
    )


def searched(recipe: Recipe) -> str:
    """What the short runs that its rate was chosen by came to (`benchmarks/rate_grid.py`); "" without any."""
    path = RATES / f"{recipe.name}.json"
    runs = json.loads(path.read_text("utf-8"))["runs"] if path.is_file() else []
    runs = sorted((run for run in runs if run["optimizer"] == recipe.optimizer), key=lambda run: run["peak"])
    if not runs:
        return ""
    best = min(runs, key=lambda run: run["mean"])
    taken = "the best" if best["peak"] == recipe.peak else f"the best, {best['peak']:g}, is not what it has"
    told = ", ".join(f"{run['peak']:g}: {number(run['mean'])}" for run in runs)
    return (f"\n\nThe peak rate is {taken} of a small grid, the same for both miniatures: bits per byte of "
            f"held-out text after {runs[0]['steps']} steps, by peak rate, {told} "
            f"(`python benchmarks/rate_grid.py --model {recipe.name}`).")  # fmt: skip


def since(recipe: Recipe) -> str:
    """In what the recipe of this name is another now, which the command would follow; "" where in nothing."""
    now = RECIPES.get(recipe.name, recipe)
    fields = {name: (getattr(now, name), getattr(recipe, name))
              for name in ("optimizer", "products", "peak", "warmup", "decay")}  # fmt: skip
    changed = [f"{name} {new} (then {old})" for name, (new, old) in fields.items() if new != old]
    if not changed:
        return ""
    return f" The recipe has changed since, and the command follows it as it is now: {', '.join(changed)}."


def storing(log: Mapping[str, Any], config: Config) -> str:
    """What the rounding to what the file holds costs, as it was measured when the model was published."""
    columns = log.get("bits_per_byte", {})
    contexts = [name.removeprefix("float32, ") for name in columns if name.startswith("float32, ")]
    pairs = [(columns[f"float32, {c}"][d], columns[f"as stored, {c}"][d]) for c in contexts for d in DOMAINS]
    if not pairs:
        return "What storing costs was not measured when this model was published."
    changes = [after - before for before, after in pairs]
    worst = max(changes, key=abs)
    trained, kept = (statistics.fmean(column) for column in zip(*pairs))
    rows = [[d, *(number(columns[f"{way}, {c}"][d], 4) for c in contexts for way in ("float32", "as stored"))]
            for d in DOMAINS]  # fmt: skip
    head = ["", *(f"{way}, {c}" for c in contexts for way in ("as trained", "as stored"))]
    what = "experts in MXFP4, the rest in " if config.stored_experts == "mxfp4" else "in "
    return (
        f"**What storing costs** ({what}{config.stored}), measured when the model was published: in the mean"
        f"{' over both lengths of window' * (len(contexts) > 1)} {number(trained, 4)} bits per byte before "
        f"and {number(kept, 4)} after, "
        f"{signed_share(kept / trained)}; "
        f"the largest change of any domain is {number(worst, 4)}.\n\n{table(head, rows)}"
    )


def signed_share(ratio: float) -> str:
    """1.002 as "+0.20 %"."""
    percent = round((ratio - 1) * 100, 2)
    return f"{percent:+.2f} %".replace("-", "−") if percent else "0.00 %"
