"""How fast every rung of the ladder trains and decodes, side by side: in every round each rung has its turn.

    python benchmarks/ladder_speed.py                # minutes; the table, and the package's ladder_speed.json

A training step is the loop's own: gradients, clipping, AdamW, over 8 windows of 256 bytes (nine tenths of a
run) and over 2 of 1,024 (the last tenth); both are weighed as a run weighs them. Decoding is `generate`'s
own, 64 bytes after 64, greedy, from float32 weights as `load` makes them of small models; whether those came
from MXFP4 makes no difference then. Weights are random: what they have learned costs nothing.

Times are of this machine in these minutes. Ratios to the first rung are taken round by round; what is quoted
is their median, and the middle half of them. Run it while the machine does nothing else.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gptoss_lab.config import Config
from gptoss_lab.files import whole
from gptoss_lab.generation import generate
from gptoss_lab.model import Transformer
from gptoss_lab.training.corpus import Batches
from gptoss_lab.training.ladder import ladder, recipe_for
from gptoss_lab.training.ladder_costs import SPEED, speed_table
from gptoss_lab.training.live import byte_texts
from gptoss_lab.training.objective import gradients, in_phase, optimizer_for
from gptoss_lab.training.runs import machine

PROMPT, DECODED = 64, 64  # bytes


class Runner:
    """One rung, ready to be timed."""

    def __init__(self, config: Config) -> None:
        self.recipe = recipe_for(config, 1e-3)
        self.model = Transformer.random(config).train()
        self.optimizer = optimizer_for(self.model, self.recipe)
        self.phased = [in_phase(self.model, self.recipe, n) for n in range(len(self.recipe.phases))]
        self.windows = [Batches(byte_texts(), phase.batch, phase.context, seed=0).batch(0)[0]
                        for phase in self.recipe.phases]  # fmt: skip
        self.decoder = Transformer.random(config.with_changes(stop_ids=())).eval()
        self.prompt = self.windows[0][0, :PROMPT].tolist()

    def step(self, phase: int) -> float:
        """Seconds of one training step."""
        start = time.perf_counter()
        gradients(self.phased[phase], self.windows[phase], self.recipe.balance)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    def training(self) -> float:
        """Seconds of a step, weighed over the phases."""
        return sum(phase.share * self.step(n) for n, phase in enumerate(self.recipe.phases))

    def decoding(self) -> float:
        """Seconds to decode `DECODED` bytes."""
        start = time.perf_counter()
        made = list(generate(self.decoder, self.prompt, max_tokens=DECODED))
        assert len(made) == DECODED
        return time.perf_counter() - start


def measured(rounds: int, seed: int = 0) -> dict[str, Any]:
    """Seconds by kind and rung, a number a round; in every round the rungs come in another order."""
    runners = {config.name: Runner(config) for config in ladder()}
    dice, names = random.Random(seed), list(runners)
    found: dict[str, Any] = {kind: {name: [] for name in names} for kind in ("training", "decoding")}
    for turn in tqdm(range(rounds + 1)):  # the first one warms up
        for kind in ("training", "decoding"):  # apart: what a step leaves in caches is not the same for all
            dice.shuffle(names)
            for name in names:
                took = getattr(runners[name], kind)()
                if turn:
                    found[kind][name].append(round(took, 5))
    phase = runners[names[0]].recipe.phases[0]
    size = {"training": phase.batch * phase.context, "decoding": DECODED}
    return {"made_with": machine(), "rounds": rounds, "bytes": size} | found


def main() -> None:
    """Measure, print, keep."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="as the ladder was trained: 1")
    parser.add_argument("--out", type=Path, default=SPEED, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = measured(options.rounds)
    with whole(options.out) as beside:
        beside.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print("\n".join(speed_table(found)))


if __name__ == "__main__":
    main()
