"""What a training run leaves on disk: one checkpoint that holds everything, and a log that people can read.

`checkpoint.safetensors` holds the weights, the optimizer's averages and, as JSON in its header, the recipe,
the seed, how far the run has come and every loss so far. It is written beside the old one and renamed over
it, so that there is always one whole checkpoint. `log.json` is the same story without the tensors.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from .. import __version__
from ..config import Config
from ..files import save_tensors, whole
from ..machine import processor
from .recipes import Phase, Recipe

CHECKPOINT, LOG = "checkpoint.safetensors", "log.json"
KINDS = ("step", "exp_avg", "exp_avg_sq", "momentum")  # of an optimizer's state, a tensor each


@dataclass
class Run:
    """A training run: its recipe, seed and length in steps, and what happened in the first `done` of them.

    loss and balance: a number for each step done (nats a token; 1 is an even spread over experts); heldout:
    bits per byte by domain, and the step after which they were measured; seconds: time spent training;
    stops: the steps at which the run was gone on with.
    """

    recipe: Recipe
    seed: int
    steps: int
    done: int = 0
    seconds: float = 0.0
    loss: list[float] = field(default_factory=list)
    balance: list[float] = field(default_factory=list)
    heldout: list[dict[str, Any]] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    made_with: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A value that JSON can hold; `from_json` reads it back."""
        return asdict(self) | {"tokens": self.tokens}

    @property
    def tokens(self) -> int:
        """How many tokens it has been trained on so far."""
        return self.recipe.tokens(self.steps) - self.recipe.tokens(self.steps, self.done)

    @classmethod
    def from_json(cls, made: dict[str, Any]) -> Run:
        """The run that `to_json` described."""
        recipe, rest = made["recipe"], {k: v for k, v in made.items() if k not in ("recipe", "tokens")}
        config = Config.from_json(recipe["config"])
        phases = tuple(Phase(**phase) for phase in recipe["phases"])
        recipe |= {"config": config, "phases": phases, "betas": tuple(recipe["betas"])}
        return cls(Recipe(**recipe), **rest)


def machine() -> dict[str, Any]:
    """What a run begins on, and when: versions, kind of processor, threads; nothing that names a computer."""
    here = processor()
    return {
        "gptoss_lab": __version__, "torch": torch.__version__, "python": platform.python_version(),
        "processor": here.name, "instructions": list(here.instructions), "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def averages(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's state by name: `adam.exp_avg.<weight>`, `adam.exp_avg_sq.<weight>` and
    `adam.step.<weight>`; `adam.momentum.<weight>` where Muon steps it."""
    for name, weight in model.named_parameters():
        for kind, value in optimizer.state.get(weight, {}).items():
            yield f"adam.{kind}.{name}", value


def write_checkpoint(folder: Path, run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the run, weights and optimizer into `folder`, in place of what was there. OSError where the disk
    is full."""
    tensors = {f"model.{name}": weight.detach() for name, weight in model.named_parameters()}
    tensors |= dict(averages(model, optimizer))
    on_cpu = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    save_tensors(on_cpu, folder / CHECKPOINT, {"run": json.dumps(run.to_json())})
    with whole(folder / LOG) as beside:
        beside.write_text(json.dumps(run.to_json(), indent=1) + "\n", encoding="utf-8")


def read_run(folder: Path) -> Run | None:
    """The run that `folder` holds, without its tensors; None where there is none. ValueError where it is
    damaged."""
    file = folder / CHECKPOINT
    if not file.exists():
        return None
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            return Run.from_json(json.loads(opened.metadata()["run"]))
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no whole checkpoint ({error}); delete it to begin anew") from error


def read_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Run:
    """Fill `model`, and the optimizer's averages, from `folder`. ValueError where no checkpoint is there, or
    of another model."""
    run = read_run(folder)
    if run is None:
        raise ValueError(f"{folder} holds no {CHECKPOINT}; train there first")
    with safetensors.safe_open(folder / CHECKPOINT, framework="pt") as opened, torch.no_grad():
        names = set(opened.keys())
        for name, weight in model.named_parameters():
            if f"model.{name}" not in names:
                raise ValueError(f"{folder / CHECKPOINT} lacks {name}: it is of another model")
            weight.copy_(opened.get_tensor(f"model.{name}"))
            if optimizer is not None and run.done:
                kinds = [kind for kind in KINDS if f"adam.{kind}.{name}" in names]
                if not kinds:
                    lacks = f"{folder / CHECKPOINT} lacks the averages of {name}"
                    raise ValueError(f"{lacks}; delete it to begin anew")
                kept = {kind: opened.get_tensor(f"adam.{kind}.{name}").to(weight.device) for kind in kinds}
                optimizer.state[weight] = kept
    return run
