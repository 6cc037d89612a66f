"""Reading safetensors as input from strangers: every claim of a header is checked before a byte of a tensor is touched.

    file = 8 bytes (header length, little endian) + header (a JSON object) + tensors, end to end

A header names each tensor's dtype, shape and place. Here the places must tile the rest of the file exactly, as the format
asks, and sizes must follow from shapes. Tensors are mapped, not read: they cost memory when used, and writing to one
changes this process's copy alone. Nothing here executes anything; what is wrong raises one `CheckpointError`.

Source: the safetensors format, https://huggingface.co/docs/safetensors (text and limits; this reader is our own).
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# bytes an item takes; every type that fills whole bytes
DTYPES: dict[str, tuple[int, torch.dtype | None]] = {
    "BOOL": (1, torch.bool), "U8": (1, torch.uint8), "I8": (1, torch.int8), "I16": (2, torch.int16), "U16": (2, None),
    "F16": (2, torch.float16), "BF16": (2, torch.bfloat16), "I32": (4, torch.int32), "U32": (4, None),
    "F32": (4, torch.float32), "I64": (8, torch.int64), "U64": (8, None), "F64": (8, torch.float64),
    "F8_E4M3": (1, None), "F8_E5M2": (1, None), "F8_E8M0": (1, None), "C64": (8, None),
}  # fmt: skip
JSON_LIMIT = 16_000_000  # bytes of a header or an index: five times Qwen3-235B's
CONFIG_LIMIT = 1_000_000
HASH_LIMIT = 1_000_000_000  # larger checkpoints are known by their headers and sizes
SHARD_LIMIT = 10_000
DIMENSION_LIMIT = 8
OTHER_FORMATS = {
    b"\x80": "a pickle, which could run code",
    b"PK": "a zip archive, as torch.save writes, with a pickle that could run code",
    b"version https://git-lfs": "a git-lfs pointer, not the file it stands for",
    b"GGUF": "a GGUF file",
    b"<": "a page of HTML",
}


class CheckpointError(ValueError):
    """Something is wrong with a checkpoint's files; the message says what and where."""


@dataclass(frozen=True)
class Entry:
    """One tensor of one file: dtype as the header spells it, shape, and where its `size` bytes begin in `path`."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def shown(text: object) -> str:
    """A stranger's words, quoted, and cut to a length that fits in a message."""
    quoted = repr(text) if not isinstance(text, str) else repr(text[:100])
    return quoted if len(quoted) <= 120 else quoted[:110] + "…'"


def listed(names: Iterable[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + rest


def size_of(path: Path) -> int:
    """Bytes of a regular file; CheckpointError for what is missing, unreadable, or something else than a file."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: is {'a folder' if stat.S_ISDIR(status.st_mode) else 'no ordinary file'}")
    return status.st_size


def read_start(path: Path, count: int) -> bytes:
    """The first `count` bytes, or all there are."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """A JSON object with unique keys, no NaN and no endless integers; CheckpointError for anything else."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ValueError(f"the key {shown(twice)} stands there twice")
        return found

    def integer(digits: str) -> int:
        if len(digits) > 20:
            raise ValueError(f"a whole number of {len(digits)} digits")
        return int(digits)

    def constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")

    try:
        found = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_int=integer, parse_constant=constant)
    except RecursionError:
        raise CheckpointError(f"{where}: nested too deeply") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError among them
        raise CheckpointError(f"{where}: not the JSON that was expected: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{where}: expected a JSON object, found {type(found).__name__}")
    return found


def read_json(path: Path, limit: int = CONFIG_LIMIT) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes."""
    if (size := size_of(path)) > limit:
        raise CheckpointError(f"{path}: {size} bytes; at most {limit} are read")
    return parse_object(read_start(path, limit), str(path))


def read_header(path: Path) -> dict[str, Entry]:
    """Name → Entry for every tensor of a safetensors file, after checking every claim the header makes."""
    size, start = size_of(path), read_start(path, 32)
    length = int.from_bytes(start[:8], "little")
    if size < 10 or not 2 <= length <= min(size - 8, JSON_LIMIT) or start[8:9] != b"{":
        kind = next((kind for magic, kind in OTHER_FORMATS.items() if start.startswith(magic)), None)
        if kind:
            raise CheckpointError(f"{path}: not a safetensors file but {kind}; only safetensors is read")
        raise CheckpointError(f"{path}: not a whole safetensors file: {size} bytes, of which the header claims {length} "
                              f"(at most {JSON_LIMIT})")  # fmt: skip
    header = parse_object(read_start(path, 8 + length)[8:], f"{path}, header")
    header.pop("__metadata__", None)
    entries = {name: entry(path, name, claim, 8 + length, size) for name, claim in header.items()}
    at = 8 + length
    for name, e in sorted(entries.items(), key=lambda item: (item[1].start, item[1].size)):
        if e.start != at:
            kind = "overlaps the one before it" if e.start < at else "leaves a gap before it"
            raise CheckpointError(f"{path}: tensor {shown(name)} {kind}: begins at byte {e.start}, expected {at}")
        at += e.size
    if at != size:
        raise CheckpointError(f"{path}: {size} bytes, but header and tensors end at {at}")
    return entries


def entry(path: Path, name: str, claim: Any, data: int, size: int) -> Entry:
    """One tensor's claim, checked: known dtype, shape of whole numbers, and bytes that lie inside and fit the shape."""
    where = f"{path}: tensor {shown(name)}"
    if not isinstance(claim, dict) or set(claim) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: expected dtype, shape and data_offsets, found {shown(claim)}")
    dtype, shape, offsets = claim["dtype"], claim["shape"], claim["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{where}: dtype {shown(dtype)}; known are {', '.join(DTYPES)}")
    if not whole_numbers(shape) or len(shape) > DIMENSION_LIMIT:
        raise CheckpointError(f"{where}: shape {shown(shape)}; expected at most {DIMENSION_LIMIT} whole numbers")
    if not whole_numbers(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size - data:
        raise CheckpointError(f"{where}: data_offsets {shown(offsets)}; expected [begin, end] within {size - data} bytes")
    needed = math.prod(shape) * DTYPES[dtype][0]
    if offsets[1] - offsets[0] != needed:
        raise CheckpointError(f"{where}: {offsets[1] - offsets[0]} bytes; {dtype} {shape} takes {needed}")
    return Entry(path, dtype, tuple(shape), data + offsets[0], needed)


def whole_numbers(value: Any) -> bool:
    """Whether this is a list of integers from 0 on (true and false are none)."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


class Shards(Mapping[str, Entry]):
    """The tensors of a folder: name → Entry, from one file or from the shards that an index names.

    `tensor(name)` maps one. CheckpointError where files are missing, lie about themselves, or disagree with the index.
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
                raise CheckpointError(f"{folder / shard}: {what} the index {index.name if index else ''} puts there")
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

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.size for entry in self.entries.values())

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
                digest.update(read_start(path, 8 + int.from_bytes(start, "little")) + str(size_of(path)).encode())
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
        raise CheckpointError(f"{folder}: {len(files)} safetensors files ({listed(path.name for path in files)}) and no index "
                              "(*.safetensors.index.json) that says what is where")  # fmt: skip
    others = [path.name for ending in (".bin", ".pt", ".pth", ".gguf", ".h5") for path in files_like(folder, ending)]
    hint = f" ({listed(others)}: only safetensors is read)" if others else ""
    raise CheckpointError(f"{folder}: no safetensors file here{hint}")


def read_index(path: Path) -> dict[str, set[str]]:
    """Shard → the tensors that the index puts there. Shards are named plainly, never by a path."""
    weight_map = read_json(path, JSON_LIMIT).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: expected a weight_map of tensor names to file names, found {shown(weight_map)}")
    shards: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or not plain_name(shard):
            raise CheckpointError(f"{path}: tensor {shown(tensor)} is put in {shown(shard)}; expected a safetensors file of "
                                  "this folder, named without a path")  # fmt: skip
        shards.setdefault(shard, set()).add(tensor)
    if len(shards) > SHARD_LIMIT:
        raise CheckpointError(f"{path}: names {len(shards)} shards; at most {SHARD_LIMIT} are read")
    return shards


def plain_name(name: str) -> bool:
    """Whether this names a file of the folder itself: no separator, drive, control character or leading dot."""
    return name.isprintable() and not name.startswith(".") and not set(name) & set("/\\:") and len(name) < 256
