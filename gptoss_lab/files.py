"""Files written whole: beside their place first, renamed into it when nothing went wrong; and folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; it takes its place when the block ends, and is removed if that fails.

    The file gets the permissions that any new file gets here (safetensors would make it private). ValueError
    where the folder does not exist, or `path` is one.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"no folder {str(path.parent)!r} to write {path.name!r} into; make it first")
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.touch()
        mode = beside.stat().st_mode
        yield beside
        beside.chmod(mode)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder, and those around it, unless it is there. ValueError where something else is in its
    place, or in that of a folder around it; nothing is made then."""
    path = Path(path)
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), None)
    if there is not None and not there.is_dir():
        inside = "" if there == path else f", and {str(path)!r} would lie in it"
        raise ValueError(f"{str(there)!r} is not a folder{inside}; name another place")
    path.mkdir(parents=True, exist_ok=True)
