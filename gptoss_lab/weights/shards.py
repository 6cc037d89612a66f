"""A folder's tensors: in one safetensors file, or in the shards that an index names, which must agree with
it.

Tensors are mapped, not read: they cost memory when used, and writing to one changes this process's copy
alone. Shards are named plainly; where links end is not looked at, because the hub's cache consists of links
that lead out of the folder.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .reader import (
    DTYPES,
    JSON_LIMIT,
    CheckpointError,
    Entry,
    listed,
    plain_name,
    read_header,
    read_json,
    read_start,
    shown,
    size_of,
)

HASH_LIMIT = 1_000_000_000  # bytes; larger checkpoints are known by their headers and sizes
SHARD_LIMIT = 10_000


class Shards(Mapping[str, Entry]):
    """The tensors of a folder: name → Entry, from one file or from the shards that an index names.

    `tensor(name)` maps one. CheckpointError where files are missing, lie about themselves, or disagree with
    the index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.entries, self.maps = folder, dict[str, Entry](), dict[Path, mmap.mmap]()
        index = find_index(folder)
        shards = read_index(index) if index else {find_single(folder).name: None}
        for shard, promised in shards.items():
            found = read_header(folder / shard)
            if promised is not None and found.keys() != promised:
                lacking = promised - found.keys()
                what = f"lacks {listed(sorted(lacking))}, which" if lacking else \
                    f"holds {listed(sorted(found.keys() - promised))}, which not"  # fmt: skip
                raise CheckpointError(f"{folder / shard}: {what} the index puts there")
            self.entries |= found
        self.paths = [folder / shard for shard in sorted(shards)]
        if not self.entries:
            raise CheckpointError(f"{self.paths[0]}: holds no tensors")

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def tensor(self, name: str) -> Tensor:
        """One tensor, mapped from its file (copied only where the file does not align it)."""
        at = self.entries[name]
        item, dtype = DTYPES[at.dtype]
        if dtype is None:
            raise CheckpointError(f"{at.path}: tensor {shown(name)} is {at.dtype}, which is not read")
        if not at.size:
            return torch.empty(at.shape, dtype=dtype)
        if at.path not in self.maps:
            try:
                with at.path.open("rb") as file:
                    self.maps[at.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{at.path}: cannot be mapped: {error}") from error
        if len(self.maps[at.path]) < at.start + at.size:
            raise CheckpointError(f"{at.path}: shrank to {len(self.maps[at.path])} bytes while it was read")
        raw = torch.frombuffer(self.maps[at.path], dtype=torch.uint8, count=at.size, offset=at.start)
        return (raw.clone() if raw.data_ptr() % item else raw).view(dtype).reshape(at.shape)

    def fingerprint(self) -> str:
        """What these files are: sha256 of their bytes, or beyond HASH_LIMIT of their headers and sizes."""
        digest, whole = hashlib.sha256(), sum(size_of(path) for path in self.paths) <= HASH_LIMIT
        for path in self.paths:
            if whole:
                with path.open("rb") as file:
                    while piece := file.read(1 << 20):
                        digest.update(piece)
            else:
                start = read_start(path, 8)
                digest.update(
                    read_start(path, 8 + int.from_bytes(start, "little")) + str(size_of(path)).encode()
                )
        return f"sha256 {'' if whole else 'of headers and sizes '}{digest.hexdigest()[:8]}…"


def files_like(folder: Path, ending: str) -> list[Path]:
    """The folder's files whose names end so, sorted."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(ending))
    except OSError as error:
        raise CheckpointError(f"{folder}: {error.strerror}") from error


def find_index(folder: Path) -> Path | None:
    """The folder's index of shards, or None where there is one file."""
    indexes, single = files_like(folder, ".safetensors.index.json"), folder / "model.safetensors"
    if len(indexes) > 1 or indexes and single.exists():
        both = [path.name for path in [*indexes, single] if path.exists()]
        raise CheckpointError(f"{folder}: {' and '.join(both)}: which of them counts? Keep one.")
    return indexes[0] if indexes else None


def find_single(folder: Path) -> Path:
    """The one safetensors file of a folder without an index."""
    files = files_like(folder, ".safetensors")
    if (folder / "model.safetensors") in files or len(files) == 1:
        return folder / "model.safetensors" if len(files) > 1 else files[0]
    if files:
        found = f"{len(files)} safetensors files ({listed(path.name for path in files)})"
        raise CheckpointError(f"{folder}: {found}, and no *.safetensors.index.json that says what is where")
    endings = (".bin", ".pt", ".pth", ".gguf", ".h5")
    others = [path.name for ending in endings for path in files_like(folder, ending)]
    hint = f" ({listed(others)}: only safetensors is read)" if others else ""
    raise CheckpointError(f"{folder}: no safetensors file here{hint}")


def read_index(path: Path) -> dict[str, set[str]]:
    """Shard → the tensors that the index puts there. Shards are named plainly, never by a path."""
    weight_map = read_json(path, JSON_LIMIT).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{path}: expected a weight_map of tensor names to file names, found {shown(weight_map)}"
        )
    shards: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or not plain_name(shard):
            raise CheckpointError(f"{path}: tensor {shown(tensor)} is put in {shown(shard)}; expected a "
                                  "safetensors file of this folder, named without a path")  # fmt: skip
        shards.setdefault(shard, set()).add(tensor)
    if len(shards) > SHARD_LIMIT:
        raise CheckpointError(f"{path}: names {len(shards)} shards; at most {SHARD_LIMIT} are read")
    return shards
