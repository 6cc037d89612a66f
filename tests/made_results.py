"""Made-up results of the ladder, with every field of a real one: for tests and for trying the pictures out.

    python tests/made_results.py FOLDER [SHARE]     # the first SHARE of the plan's runs, 1 by default

Never in the package.
"""

from __future__ import annotations

import json
import random
import sys
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gptoss_lab.config import Config
from gptoss_lab.training.corpus import DOMAINS
from gptoss_lab.training.ladder import ANCHORS, NUMBER, RATES, plan
from gptoss_lab.training.outcome import EDGES

TAKEN = RATES[3]
STEP = {"no-dropout": -0.02, "rmsnorm": 0.004, "rope": -0.85, "yarn": -0.001, "swiglu": -0.03,
        "grouped": 0.02, "windows": 0.006, "sinks": -0.01, "experts": -0.12, "untied": -0.015,
        "mxfp4": 0.003}  # fmt: skip


def by_edges(bits: float, length: int, config: Config) -> dict[str, float]:
    """Loss that falls with the position where there is RoPE, and rises beyond 1,024."""
    falls = 0.1 if config.positions == "rope" else 0.01
    return {f"{a}-{b - 1}": round(0.69 * bits + falls * (6 - b.bit_length()) + (0.4 if a >= 1024 else 0), 4)
            for a, b in zip(EDGES, EDGES[1:]) if b <= length}  # fmt: skip


def level_of(config: Config) -> float:
    """Bits per byte of a made-up model."""
    name = config.name.removeprefix("without-")
    if config.name.startswith("without-"):
        return 2.25 - STEP[name]
    if name in NUMBER:
        return 3.3 + sum(list(STEP.values())[: NUMBER[name]])
    base = 3.3 if "gpt2" in name or name.startswith("rope-as") else 2.3
    return base - 0.1 * (config.n_layers - 6) / 6 - 0.002 * (config.n_experts or 0)


def made(config: Config, seed: int, rate: float) -> dict[str, Any]:
    """One result."""
    dice = random.Random(zlib.crc32(f"{config.name} {seed} {rate}".encode()))
    bits = level_of(config) + 0.1 * abs(RATES.index(rate) - 3) + dice.gauss(0, 0.004) + 0.01 * seed
    windows = {domain: [round(bits + 0.2 * (n % 7 - 3) + dice.gauss(0, 0.01), 4) for n in range(21)]
               for domain in DOMAINS}  # fmt: skip
    longer = {name: [round(x - 0.05 + dice.gauss(0, 0.01), 4) for x in each]
              for name, each in windows.items()}  # fmt: skip
    far = {name: by_edges(bits, length, config) for name, length in (("near", 256), ("far", 1024))}
    if config.positions == "rope":
        far["beyond"] = by_edges(bits, 2048, config)
    result: dict[str, Any] = {
        "config": json.loads(json.dumps(asdict(config))),  # as a file gives it back
        "seed": seed, "rate": rate, "windows": {"near": windows, "far": longer},
        "spikes": [700] * dice.randint(0, 3) + [1352] * dice.randint(0, 1),
        "bits_per_byte": {kind: {name: round(sum(x) / 21, 4) for name, x in each.items()}
                          for kind, each in (("near", windows), ("far", longer))},
        "nats_by_position": far, "untaught": None, "balance": 1.05,
        "curve": {"steps": 15, "nats": [round(0.69 * bits + 4 / (n + 1), 4) for n in range(100)]},
        "activations": {"largest": [round(10 * dice.random() + 5 * n, 2) for n in range(config.n_layers)],
                        "rms": [1.0] * config.n_layers},
    }  # fmt: skip
    if config.n_experts:
        layers = range(config.n_layers)
        result["router"] = {"evenness": [0.99 - 0.01 * n * dice.random() for n in layers],
                            "about_domain": [0.2 + 0.1 * dice.random() for n in layers]}  # fmt: skip
    return result


def every(share: float = 1.0) -> dict[str, dict[str, Any]]:
    """The first `share` of the plan's runs, by id."""
    rates, found = dict.fromkeys(ANCHORS, TAKEN), {}
    for entry in plan():
        rate = TAKEN if isinstance(entry.rate, str) else entry.rate
        found.setdefault(entry.id(rates), made(entry.config, entry.seed, rate))
    kept = list(found)[: round(share * len(found))]
    return {name: found[name] for name in kept}


def write(folder: Path, share: float = 1.0) -> None:
    """The results as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in every(share).items():
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
