"""Write a checkpoint of seeded random weights in gpt-oss's published layout, at its full size.

    python benchmarks/random_checkpoint.py FOLDER                        # gpt-oss-20b: 13,761,264,768 bytes
    gptoss-lab generate --model FOLDER --prompt "..."                    # costs what the real one costs

What a model costs to run does not depend on what it has learned, so that this stands in where the real
weights are not at hand. It says nothing sensible. The real ones: gptoss-lab download gpt-oss-20b.

Names, shapes and dtypes come from the table that `load` reads by. Every tensor has its own seed, made from
--seed and its name: the same command writes the same bytes. Shards are written beside and renamed when whole,
config.json last; after an interruption the same command keeps the whole shards and goes on with the next.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from gptoss_lab.config import NAMED, Config
from gptoss_lab.cost import human
from gptoss_lab.files import whole
from gptoss_lab.model import Transformer
from gptoss_lab.weights import names
from gptoss_lab.weights.checkpoint import what_is_stored
from gptoss_lab.weights.saving import as_json, write_config

SHARD = 5_000_000_000  # bytes of tensors in a file, at most
PIECE = 1 << 24  # values made at a time
SCALES = (119, 122)  # so that MXFP4 weights vary by about 1/√2880, as a trained model's do
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Planned:
    """A tensor to write: its published name, its shape, and "U8" or "BF16"."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def values(self) -> int:
        """How many values it has."""
        return int(np.prod(self.shape))

    @property
    def size(self) -> int:
        """Bytes."""
        return self.values * (1 if self.dtype == "U8" else 2)


def plan(config: Config) -> list[Planned]:
    """All tensors of a gpt-oss, as published."""
    with torch.device("meta"):
        stored = what_is_stored(Transformer(config))
    theirs = names.to_theirs(names.rows(config.family, config, stored), stored)
    kinds = {torch.uint8: "U8", torch.float32: "BF16"}  # the meta model's float32 is written as bfloat16
    return [Planned(name, tuple(like.shape), kinds[like.dtype]) for name, like in theirs.items()]


def shards(tensors: list[Planned], largest: int) -> dict[str, list[Planned]]:
    """File name → its tensors: in order, at most `largest` bytes in a file (one tensor may be larger)."""
    groups: list[list[Planned]] = [[]]
    for tensor in tensors:
        if groups[-1] and sum(one.size for one in groups[-1]) + tensor.size > largest:
            groups.append([])
        groups[-1].append(tensor)
    last = len(groups) - 1
    return {f"model-{n:05d}-of-{last:05d}.safetensors": group for n, group in enumerate(groups)}


def header(tensors: list[Planned], seed: int) -> bytes:
    """The start of a safetensors file."""
    said: dict[str, object] = {"__metadata__": {"format": "pt", "weights": f"random, seed {seed}"}}
    at = 0
    for one in tensors:
        said[one.name] = {"dtype": one.dtype, "shape": one.shape, "data_offsets": [at, at + one.size]}
        at += one.size
    text = json.dumps(said).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def contents(tensor: Planned, seed: int) -> Iterator[bytes]:
    """The tensor's bytes, some at a time."""
    draw = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
    spread = 1.0 / np.sqrt(tensor.shape[-1]) if tensor.name.endswith("weight") else 0.1
    if tensor.name.endswith("embed_tokens.weight") or tensor.name.endswith("sinks"):
        spread = 1.0
    for start in range(0, tensor.values, PIECE):
        count = min(PIECE, tensor.values - start)
        if tensor.name.endswith("blocks"):
            yield draw.bytes(count)
        elif tensor.name.endswith("scales"):
            yield draw.integers(*SCALES, count, dtype=np.uint8).tobytes()
        elif tensor.name.endswith("norm.weight"):
            yield as_bfloat16(np.ones(count, np.float32))
        else:
            yield as_bfloat16(draw.standard_normal(count, np.float32) * np.float32(spread))


def as_bfloat16(values: np.ndarray) -> bytes:
    """The bytes of float32 values, rounded to bfloat16."""
    return torch.from_numpy(values).bfloat16().view(torch.uint16).numpy().tobytes()


def write(config: Config, folder: Path, seed: int = 0, largest: int = SHARD) -> Path:
    """Write the checkpoint, or what is missing of it; the folder.

    ValueError for a model that is no packed gpt-oss, a folder that holds other weights, and too little disk.
    """
    if config.family != "gpt-oss" or config.stored_experts != "mxfp4":
        raise ValueError(f"{config.name} is not published with experts in MXFP4; choose a gpt-oss")
    folder.mkdir(parents=True, exist_ok=True)
    files = shards(plan(config), largest)
    starts = {file: header(tensors, seed) for file, tensors in files.items()}
    sizes = {file: len(starts[file]) + sum(one.size for one in files[file]) for file in files}
    there = {path.name for path in folder.glob("*.safetensors")}
    for file in sorted(there):
        if file not in files or not is_ours(folder / file, starts[file], sizes[file]):
            raise ValueError(f"{folder / file} is not of this model with seed {seed}: choose another folder")
    left = {file: size for file, size in sizes.items() if file not in there}
    free = shutil.disk_usage(folder).free
    if (needed := sum(left.values()) + 1_000_000) > free:
        raise ValueError(f"{human(needed)} are still to be written, but {folder} has {human(free)} free")
    with tqdm(total=sum(sizes.values()), unit="B", unit_scale=True, desc=config.name) as bar:
        bar.update(sum(sizes.values()) - sum(left.values()))
        for file in left:
            with whole(folder / file) as beside, beside.open("wb") as out:
                bar.update(out.write(starts[file]))
                for tensor in files[file]:
                    for piece in contents(tensor, seed):
                        bar.update(out.write(piece))
    where = {one.name: file for file, tensors in files.items() for one in tensors}
    total = sum(one.size for tensors in files.values() for one in tensors)
    said = write_config(config, packed=True, dtype="bfloat16")
    index = {"metadata": {"total_size": total}, "weight_map": where}
    stops = {"eos_token_id": said["eos_token_id"]}
    for file, text in {INDEX: index, "generation_config.json": stops, "config.json": said}.items():
        with whole(folder / file) as beside:
            beside.write_bytes(as_json(text))
    return folder


def is_ours(path: Path, start: bytes, size: int) -> bool:
    """Whether a file begins with this header and has this size."""
    with path.open("rb") as file:
        return path.stat().st_size == size and file.read(len(start)) == start


def main(argv: list[str] | None = None) -> int:
    """Write what the command line asks for; 2 for what cannot be, 130 when stopped."""
    ask = argparse.ArgumentParser(description="Random weights in gpt-oss's published layout, at full size.")
    ask.add_argument("folder", type=Path)
    ask.add_argument("--model", default="gpt-oss-20b", choices=["gpt-oss-20b", "gpt-oss-120b"])
    ask.add_argument("--seed", type=int, default=0)
    args = ask.parse_args(argv)
    if args.seed < 0:
        ask.error(f"--seed {args.seed}; expected a number from 0 on")
    try:
        write(NAMED[args.model], args.folder, args.seed)
    except KeyboardInterrupt:
        print("stopped; the same command goes on after the last whole shard", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"random_checkpoint: {error}", file=sys.stderr)
        return 2
    print(f"{args.folder}: random weights (seed {args.seed}) in the layout of {args.model}. "
          f"For the real ones: gptoss-lab download {args.model}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
