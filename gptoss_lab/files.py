"""Files written whole: beside their place first, renamed into it when nothing went wrong; and folders."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def writable(path: str | os.PathLike[str]) -> Path:
    """Where a file named `path` would lie: `path`, or the place that it links to. Nothing is made.

    ValueError where the folder does not exist or may not be written to, and where there is something that is
    no ordinary file (a folder, a pipe, a device), or a file that is write-protected.
    """
    path, place = Path(path), Path(os.path.realpath(path))
    if place.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; name a file in it")
    if not place.parent.is_dir():
        raise ValueError(f"no folder {str(path.parent)!r} to write {path.name!r} into; make it first")
    if os.path.lexists(place) and not place.is_file():
        raise ValueError(f"{str(path)!r} is no ordinary file, and stays as it is; name another")
    if place.is_file() and not (place.stat().st_mode & 0o222 and os.access(place, os.W_OK)):
        raise ValueError(f"{str(path)!r} is write-protected; make it writable, or name another file")
    if not os.access(place.parent, os.W_OK):
        raise ValueError(f"the folder of {str(path)!r} may not be written to; name a file elsewhere")
    return place


def spare_weights(path: str | os.PathLike[str], format: str | None = None) -> None:
    """ValueError where `path` holds a safetensors file that is not of our `format`: it may be a model's."""
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        return
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("format")
    except (SafetensorError, OSError):  # no safetensors file, or a damaged one
        return
    if format is None or found != format:
        raise ValueError(f"{os.fspath(path)!r} holds tensors, perhaps a model's weights, and stays as it is; "
                         "name another file, or delete it first")  # fmt: skip


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; it takes its place when the block ends, and is removed if that fails.

    Where `path` is a link, the file that it leads to is written. A file that is replaced keeps its
    permissions, another gets those that any new file gets here (safetensors would make it private).
    ValueError as from `writable`.
    """
    place = writable(path)
    beside = place.with_name(f".{place.name[:40]}.{secrets.token_hex(8)}.part")
    beside.touch(exist_ok=False)  # made here and now, never a file or a link that somebody else has put there
    try:
        mode = (place if place.exists() else beside).stat().st_mode
        yield beside
        beside.chmod(mode)
        os.replace(beside, place)
    finally:
        beside.unlink(missing_ok=True)


def save_tensors(
    tensors: dict[str, Tensor], path: str | os.PathLike[str], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole. OSError that names it where the disk is full, which safetensors tells
    with an error of its own; ValueError as from `writable`."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with whole(path) as beside:
        try:
            save_file(tensors, beside, metadata)
        except SafetensorError as error:
            if "I/O error" not in str(error):
                raise
            raise OSError(f"{os.fspath(path)!r} could not be written: {error}") from error


def without_nan(value: Any) -> Any:
    """The same, with None for numbers that are none: JSON knows no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_object(path: Path, way_on: str) -> dict[str, Any]:
    """The JSON object in a file of ours. ValueError, with a way on, where it holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}); {way_on}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, expected a JSON object; {way_on}")
    return found


def require_folder(path: str | os.PathLike[str]) -> None:
    """ValueError where `path` cannot be a folder: something else is in its place, or in that of a folder
    around it."""
    path = Path(path)
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), None)
    if there is not None and not there.is_dir():
        inside = "" if there == path else f", and {str(path)!r} would lie in it"
        raise ValueError(f"{str(there)!r} is not a folder{inside}; name another place")


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder, and those around it, unless it is there. ValueError as from `require_folder`, and where
    it may not be made; nothing is made then."""
    require_folder(path)
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except PermissionError as error:
        raise ValueError(f"the folder {str(path)!r} may not be made here; name another place") from error
