"""Reading a safetensors file as input from strangers: what its header claims is checked before a tensor is
used.

    file = 8 bytes (header length, little endian) + header (a JSON object) + tensors, end to end

A header names each tensor's dtype, shape and place. The places must tile the rest of the file exactly, as the
format asks, and sizes must follow from shapes. Nothing here executes anything; what is wrong raises one
`CheckpointError`.

Source: the safetensors format, https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
import reprlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# dtype → the bytes an item takes, and what it is here (None: not read)
DTYPES: dict[str, tuple[int, torch.dtype | None]] = {
    "F32": (4, torch.float32), "BF16": (2, torch.bfloat16), "F16": (2, torch.float16), "U8": (1, torch.uint8),
    "F64": (8, None), "C64": (8, None), "F8_E4M3": (1, None), "F8_E5M2": (1, None), "F8_E8M0": (1, None),
    "BOOL": (1, None), "I8": (1, None), "I16": (2, None), "I32": (4, None), "I64": (8, None),
    "U16": (2, None), "U32": (4, None), "U64": (8, None),
}  # fmt: skip
JSON_LIMIT = 16_000_000  # bytes of a header or an index: five times Qwen3-235B's
CONFIG_LIMIT = 1_000_000
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
    """One tensor of one file: its dtype as the header spells it, and the place of its `size` bytes in
    `path`."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


BRIEF = reprlib.Repr()
BRIEF.maxstring = BRIEF.maxother = 100


def shown(text: object) -> str:
    """A stranger's words, quoted, and cut to a length that fits into a message."""
    return BRIEF.repr(text)


def listed(names: Iterable[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + rest


def size_of(path: Path) -> int:
    """Bytes of a regular file; CheckpointError for what is missing, unreadable, or no file."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(
            f"{path}: is {'a folder' if stat.S_ISDIR(status.st_mode) else 'no ordinary file'}"
        )
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
        "".join(text for pair in pairs for text in pair if isinstance(text, str)).encode()  # half characters
        return found

    def integer(digits: str) -> int:
        if len(digits) > 20:
            raise ValueError(f"a whole number of {len(digits)} digits")
        return int(digits)

    def constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")

    try:
        found = json.loads(
            text.decode("utf-8"), object_pairs_hook=unique, parse_int=integer, parse_constant=constant
        )
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
        raise CheckpointError(f"{path}: not a whole safetensors file: {size} bytes, of which the header "
                              f"claims {length} (at most {JSON_LIMIT})")  # fmt: skip
    header = parse_object(read_start(path, 8 + length)[8:], f"{path}, header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ is {shown(metadata)}; expected an object of texts")
    entries = {name: entry(path, name, claim, 8 + length, size) for name, claim in header.items()}
    at = 8 + length
    for name, e in sorted(entries.items(), key=lambda item: (item[1].start, item[1].size)):
        if e.start != at:
            kind = "overlaps the one before it" if e.start < at else "leaves a gap before it"
            raise CheckpointError(
                f"{path}: tensor {shown(name)} {kind}: begins at byte {e.start}, expected {at}"
            )
        at += e.size
    if at != size:
        raise CheckpointError(f"{path}: {size} bytes, but header and tensors end at {at}")
    return entries


def entry(path: Path, name: str, claim: Any, data: int, size: int) -> Entry:
    """One tensor's claim, checked: a known dtype, whole sizes, and bytes inside the file that fit them."""
    where = f"{path}: tensor {shown(name)}"
    if not isinstance(claim, dict) or set(claim) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: expected dtype, shape and data_offsets, found {shown(claim)}")
    dtype, shape, offsets = claim["dtype"], claim["shape"], claim["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{where}: dtype {shown(dtype)}; known are {', '.join(DTYPES)}")
    if not whole_numbers(shape) or len(shape) > DIMENSION_LIMIT:
        raise CheckpointError(
            f"{where}: shape {shown(shape)}; expected at most {DIMENSION_LIMIT} whole numbers"
        )
    if not whole_numbers(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size - data:
        raise CheckpointError(
            f"{where}: data_offsets {shown(offsets)}; expected [begin, end] within {size - data} bytes"
        )
    needed = math.prod(shape) * DTYPES[dtype][0]
    if offsets[1] - offsets[0] != needed:
        raise CheckpointError(f"{where}: {offsets[1] - offsets[0]} bytes; {dtype} {shape} takes {needed}")
    return Entry(path, dtype, tuple(shape), data + offsets[0], needed)


def whole_numbers(value: Any) -> bool:
    """Whether this is a list of integers from 0 on (true and false are none)."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def plain_name(name: str) -> bool:
    """Whether this names a file of the folder itself: no separator, drive, control character, leading dot."""
    return name.isprintable() and not name.startswith(".") and not set(name) & set("/\\:") and len(name) < 256
