"""From a training run to a model: the weights rounded as they are stored, a Hugging Face folder, a README.

`python -m gptoss_lab.training.publish RUN FOLDER` writes it from a run's checkpoint; of a run that is not
finished the README says so.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from ..cost import active_parameters, parameters
from ..mistakes import told_by
from ..model.transformer import Transformer
from ..text.tokens import encoding as encoding_named
from ..weights import round_to_mxfp4, save
from .forms import attach
from .measure import evaluate
from .runs import Run, read_checkpoint, read_run

WINDOWS = 48  # held-out windows a domain, in the README's table
STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def finished(folder: str | Path) -> tuple[Transformer, Run]:
    """The model of a run's checkpoint, float32, exactly as trained, and the run. ValueError where there is
    none."""
    run = read_run(Path(folder))
    if run is None:
        raise ValueError(f"{folder} holds no training run")
    model = Transformer.random(run.recipe.config, run.seed)
    read_checkpoint(Path(folder), model)
    model.weights_from = f"{run.recipe.name}, seed {run.seed}, step {run.done} of {run.steps}"
    model.tokenizer = encoding_named(run.recipe.encoding)
    return model, run


@torch.no_grad()
def as_stored(model: Transformer) -> Transformer:
    """A copy of `model` with the values that its checkpoint can hold: MXFP4 for packed experts, else
    bfloat16."""
    copy = Transformer(model.config)
    copy.load_state_dict(model.state_dict())
    packs = model.config.stored_experts == "mxfp4"
    for name, weight in copy.named_parameters():
        packed = name.endswith(("gate_up.weight", "experts.down.weight")) and packs
        weight.copy_(round_to_mxfp4(weight) if packed else weight.to(STORED[model.config.stored]))
    copy.tokenizer, copy.weights_from = model.tokenizer, f"{model.weights_from}, rounded as stored"
    return copy.eval()


def publish(run_folder: str | Path, folder: str | Path, windows: int = WINDOWS) -> Path:
    """Write the model of a run to `folder`: weights, tokenizer, README.md, and the run's log,
    training.json."""
    model, run = finished(run_folder)
    stored = as_stored(model)
    encoding = encoding_named(run.recipe.encoding)
    columns = {}
    for context in sorted({phase.context for phase in run.recipe.phases}):
        limit = max(1, windows * run.recipe.phases[0].context // context)
        for way, kind in (("float32", model), ("as stored", stored)):
            fast = attach(kind.with_config())
            columns[f"{way}, {context} tokens"] = evaluate(fast, encoding, context, limit, batch=4)
    log = json.dumps(run.to_json() | {"bits_per_byte": columns}, indent=1) + "\n"
    said = {"README.md": card(run, columns).encode(), "training.json": log.encode()}
    return save(stored, folder, extra_files=said)


def card(run: Run, columns: dict[str, dict[str, float]]) -> str:
    """The model's README. columns: bits per byte by domain, for each way of measuring."""
    recipe, config = run.recipe, run.recipe.config
    early = "" if run.done == run.steps else (
        f"**An early version**, taken at step {run.done} of {run.steps}, before the learning rate had come "
        "down. The finished model replaces it.\n\n"
    )  # fmt: skip
    phases = "\n".join(
        f"- {phase.share:.0%} of the steps: {phase.batch} windows of {phase.context} tokens a step"
        f"{', YaRN on' if phase.yarn else ''}"
        f"{', experts rounded to MXFP4 on their way forward' if phase.rounded else ''}"
        for phase in recipe.phases
    )
    head = "| held-out text | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns)
    rows = "\n".join(
        f"| {domain} | " + " | ".join(f"{column[domain]:.3f}" for column in columns.values()) + " |"
        for domain in next(iter(columns.values()))
    )
    size, active, made = parameters(config) / 1e6, active_parameters(config) / 1e6, run.made_with
    command = f"gptoss-lab train {recipe.name} --out FOLDER --steps {run.steps} --seed {run.seed}"
    packed = config.stored_experts == "mxfp4"
    kept = f"experts in MXFP4, the rest in {config.stored}" if packed else config.stored
    form = f"{config.n_experts} experts (top {config.experts_per_token}), " if config.n_experts else ""
    return f"""# {recipe.name}

{early}A miniature of {config.family}'s architecture, trained from nothing on the corpora of `gptoss_lab`:
{config.n_layers} layers, width {config.d_model}, {form}{size:.1f} M parameters
of which {active:.1f} M take part in a token, context {config.context}.
It has seen {run.tokens / 1e6:.1f} M tokens of six kinds of text. It is made to be looked into; it knows
nothing and answers no questions.

## How it was trained

`{command}`, step {run.done:,} of {run.steps:,}: {run.tokens:,} tokens,
{run.seconds / 60:.0f} minutes ({made.get("processor")}, threads: {made.get("threads")}).
{recipe.stepped_by}; peak learning rate {recipe.peak:g}, {recipe.warmup} steps of warm-up,
then in a straight line to zero; weight decay {recipe.decay:g} on matrices, gradients clipped at
{recipe.clip:g}, load balancing {recipe.balance:g}.

{phases}

Every loss of every step is in `training.json`, with versions.

## Bits per byte of held-out text

With the weights as training left them in float32, and as they are stored ({kept}).
Held out is the last 2 % of every corpus.

{head}
{rows}

## Licence

The weights are Apache-2.0, as the package is. The corpora's licences and attributions stand in its NOTICE.
"""


def main(arguments: list[str] | None = None) -> None:
    """`python -m gptoss_lab.training.publish RUN FOLDER`: write the model of a training run."""
    parser = argparse.ArgumentParser(prog="python -m gptoss_lab.training.publish", description=main.__doc__)
    parser.add_argument("run", type=Path, help="the folder that was trained in")
    parser.add_argument("folder", type=Path, help="where the model goes")
    options = parser.parse_args(arguments)
    with told_by(parser.prog):
        print(f"wrote {publish(options.run, options.folder)}")


if __name__ == "__main__":
    main()
