"""From a command's options to what is to be measured, checked before anything runs."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ..cost import checkpoint_bytes, human
from ..machine import require_threads
from ..weights.checkpoint import open_checkpoint
from ..weights.loading import usable
from ..weights.places import find
from .groups import Unavailable, make
from .parts import PROMPT, TOKENS, Asked
from .side import KINDS

NEEDS = {"llama.cpp": "llama_cpp", "llama.cpp-mapped": "llama_cpp", "transformers": "transformers",
         "transformers-loop": "transformers"}  # fmt: skip
LIMITS = (16e9, 12e9, 10e9)  # of --whole, for a model that takes most of the last
LARGE = 8e9
MOST_ROUNDS = 1000


def asked_for(
    model: str,
    beside: list[str],
    limits: list[float],
    whole: bool = False,
    rounds: int | None = None,
    gguf: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    kernels: str | None = None,
    say: Callable[[str], object] = print,
) -> Asked:
    """What to measure; ValueError for options that cannot be.

    whole: all of `docs/performance.md`: five rounds, limits of 16, 12 and 10 GB for a large model, longer
    prompts, a long context, fast kernels against exact ones. A GGUF that is not there yet is written.
    """
    name, folder = find(model)
    opened = open_checkpoint(folder, name)
    config, on = opened.config, usable(device)
    asked = Asked(
        model, config, tuple(opened.shards.paths), tuple(dict.fromkeys(beside)), gguf, tuple(limits),
        5 if whole or beside else 1, device=str(on),
        threads=torch.get_num_threads() if threads is None else threads, kernels=kernels,
    )  # fmt: skip
    room = config.context - 1
    if room < PROMPT + TOKENS:
        raise ValueError(
            f"{config.name} has a context of {config.context}; {PROMPT} + {TOKENS} tokens are measured"
        )
    asked = replace(asked, prompts=tuple(length for length in asked.prompts if length <= room))
    if whole:
        large = checkpoint_bytes(config) >= LARGE
        asked = replace(
            asked, limits=asked.limits or (LIMITS if large and on.type == "cpu" else ()),
            long_prompts=(2048,) if room > 2048 else (),
            context=min(4096, (room - 100) // 512 * 512), accuracy=64 if on.type == "cpu" else 0,
        )  # fmt: skip
    asked = replace(asked, rounds=asked.rounds if rounds is None else rounds)
    check(asked)
    if any(kind.startswith("llama.cpp") for kind in beside):
        if gguf is None:
            raise ValueError(f"llama.cpp reads GGUF: say with --gguf FILE where it lies, or shall be written "
                             f"({human(checkpoint_bytes(config))})")  # fmt: skip
        from .gguf_file import write

        write(model, gguf, say)
    elif gguf is not None:
        raise ValueError("--gguf is the file that llama.cpp reads: add --beside llama.cpp, or leave it out")
    return asked


def check(asked: Asked) -> None:
    """ValueError for numbers out of range, for sides that cannot run here, and where no limit can be held."""
    if not 1 <= asked.rounds <= MOST_ROUNDS:
        raise ValueError(f"--rounds {asked.rounds}; expected 1 to {MOST_ROUNDS}")
    require_threads(asked.threads)
    for kind in asked.beside:
        if kind not in KINDS[1:]:
            raise ValueError(f"--beside {kind}; expected {', '.join(KINDS[1:])}")
        if importlib.util.find_spec(NEEDS[kind]) is None:
            raise ValueError(f"--beside {kind} needs the extra 'bench': pip install 'gptoss-lab[bench]'")
    for limit in asked.limits:
        if not 0 < limit < math.inf:
            raise ValueError(f"--limit {limit:g}; expected bytes, as 16e9")
        try:
            make(limit).remove()
        except Unavailable as error:
            raise ValueError(
                f"--limit {limit:g} cannot be held here: {error}. Leave it out to measure without"
            ) from None
