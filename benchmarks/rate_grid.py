"""The miniatures' learning rate: short runs over one grid, the same for both, judged by held-out text.

    python benchmarks/rate_grid.py --model mini-oss              # about a quarter of an hour on one core
    python benchmarks/rate_grid.py --model mini-gpt2

Every run has the recipe of the model, but for its peak rate, optimizer and number of steps; the rate falls to
zero within them. A short run likes a somewhat higher rate than a long one. Results go to `--out` (a JSON
file, by default among the package's), where runs that are in are not made again; Ctrl-C loses the run at
hand.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gptoss_lab.files import whole
from gptoss_lab.model import Transformer
from gptoss_lab.text.tokens import encoding
from gptoss_lab.training.corpus import tokens_by_domain
from gptoss_lab.training.measure import evaluate
from gptoss_lab.training.objective import in_phase
from gptoss_lab.training.recipes import RECIPES, recipe_of
from gptoss_lab.training.runs import machine, read_checkpoint
from gptoss_lab.training.train import train

OUT = Path(__file__).resolve().parents[1] / "gptoss_lab" / "assets" / "results" / "rates"
PEAKS = (2e-3, 4e-3, 8e-3, 1.6e-2)


def measured(model: str, optimizer: str, peak: float, steps: int) -> dict[str, Any]:
    """One run: the mean of the last losses, and bits per byte of held-out text by domain."""
    recipe = replace(recipe_of(model), optimizer=optimizer, peak=peak)
    with tempfile.TemporaryDirectory() as folder:
        texts = tokens_by_domain(encoding(recipe.encoding))
        run = train(recipe, folder, steps=steps, texts=texts, quiet=True)
        trained = Transformer.random(recipe.config)
        read_checkpoint(Path(folder), trained)
    bits = evaluate(in_phase(trained, recipe, len(recipe.phases) - 1), encoding(recipe.encoding))
    return {
        "optimizer": optimizer, "peak": peak, "steps": steps, "tokens": run.tokens,
        "loss": round(sum(run.loss[-20:]) / len(run.loss[-20:]), 4), "seconds": round(run.seconds, 1),
        "bits_per_byte": {domain: round(one, 4) for domain, one in bits.items()},
        "mean": round(sum(bits.values()) / len(bits), 4),
    }  # fmt: skip


def main() -> int:
    """Make what is not in yet; print the table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--model", choices=sorted(RECIPES), required=True)
    asked.add_argument("--optimizer", choices=("adamw", "muon"), default="muon")
    asked.add_argument("--peaks", type=float, nargs="+", default=PEAKS)
    asked.add_argument("--steps", type=int, default=250)
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--out", type=Path)
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    out: Path = given.out or OUT / f"{given.model}.json"
    found: dict[str, Any] = {"model": given.model, "runs": []}
    if out.exists():
        found = json.loads(out.read_text(encoding="utf-8"))
    if found["model"] != given.model:
        asked.error(f"{out} holds runs of {found['model']}; name another file with --out")
    made = {(run["optimizer"], run["peak"], run["steps"]) for run in found["runs"]}
    for peak in given.peaks:
        if (given.optimizer, peak, given.steps) in made:
            continue
        print(f"{given.model}, {given.optimizer}, peak {peak:g}: {given.steps} steps", flush=True)
        run = measured(given.model, given.optimizer, peak, given.steps)
        command = "python benchmarks/rate_grid.py " + " ".join(sys.argv[1:])
        run |= {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "command": command}
        found["runs"].append(run)
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole(out) as beside:
            beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("| optimizer | peak rate | steps | training loss | bits per byte |\n|---|---|---|---|---|")
    for run in sorted(found["runs"], key=lambda run: (run["optimizer"], run["steps"], run["peak"])):
        print(f"| {run['optimizer']} | {run['peak']:g} | {run['steps']} | {run['loss']} | {run['mean']} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
