"""Where a model's files are: shipped with the package, in GPTOSS_LAB_HOME, or in the Hugging Face cache.

Nothing is fetched. The cache's layout (models--OWNER--NAME/refs/main, snapshots/COMMIT) is the one that
huggingface_hub documents; its files are links out of the snapshot.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ..config import NAMED
from ..terminal import printable
from .reader import CheckpointError, plain_name, read_start

ASSETS = Path(__file__).parent.parent / "assets"
SHIPPED = ("mini-oss", "mini-gpt2", "mini-oss-chat")
REPOSITORIES = {
    "gpt-oss-20b": ("openai/gpt-oss-20b",),
    "gpt-oss-120b": ("openai/gpt-oss-120b",),
    "gpt2": ("openai-community/gpt2", "gpt2"),
    "gpt2-medium": ("openai-community/gpt2-medium", "gpt2-medium"),
    "gpt2-large": ("openai-community/gpt2-large", "gpt2-large"),
    "gpt2-xl": ("openai-community/gpt2-xl", "gpt2-xl"),
    "qwen3-30b-a3b": ("Qwen/Qwen3-30B-A3B",),
    "qwen3-235b-a22b": ("Qwen/Qwen3-235B-A22B",),
}
assert REPOSITORIES.keys() == NAMED.keys()


def find(source: str | os.PathLike[str]) -> tuple[str, Path]:
    """The name and the folder of a model. A known name wins over a folder of that name: write ./gpt2 for the
    folder. Control characters in a folder's name are spelled out.

    ValueError for an unknown name (with the nearest) or files that are not there (with the places looked at).
    """
    shipped = [name for name in SHIPPED if (ASSETS / name / "config.json").is_file()]
    if isinstance(source, str) and source in SHIPPED:
        if source not in shipped:
            raise ValueError(
                f"{source!r} is not shipped with this version; it has {', '.join(shipped) or 'no models'}"
            )
        return source, ASSETS / source
    if isinstance(source, str) and source in REPOSITORIES:
        return source, find_named(source)
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"a model is named by a text or a path; this is {type(source).__name__}")
    if source == "":
        raise ValueError("the model's name is empty; give a known name, or a folder ('.' is this one)")
    folder = Path(source).expanduser()
    if os.path.isdir(folder):
        if not (folder / "config.json").exists():
            inner = (
                " (its folder 'original' has one: load that)"
                if (folder / "original" / "config.json").exists()
                else ""
            )
            raise CheckpointError(f"{folder}: no config.json here{inner}")
        return printable(folder.resolve().name), folder
    known = [*shipped, *REPOSITORIES]
    near = difflib.get_close_matches(str(source), known, n=1)
    raise ValueError(f"no model {str(source)!r}: neither a folder nor one of {', '.join(known)}."
                     + (f" Did you mean {near[0]!r}?" if near else ""))  # fmt: skip


def find_named(name: str) -> Path:
    """The folder of a published model on this machine."""
    looked = []
    for folder in candidates(name):
        for inner in (folder, folder / "original"):
            if (inner / "config.json").is_file():
                return inner
        looked.append(str(folder))
    if not os.environ.get("GPTOSS_LAB_HOME"):
        looked.append(f"$GPTOSS_LAB_HOME/{name} (GPTOSS_LAB_HOME is not set)")
    raise ValueError(f"the files of {name!r} are not on this machine; looked in {', '.join(looked)}. "
                     f"To fetch them: gptoss-lab download {name}. If you have them (config.json, the "
                     f"safetensors files, their index), load('PATH/TO/FOLDER'), or name that folder {name!r} "
                     "and set GPTOSS_LAB_HOME to the one around it.")  # fmt: skip


def candidates(name: str) -> list[Path]:
    """The folders in which a published model may lie, first come first served."""
    home = os.environ.get("GPTOSS_LAB_HOME")
    found = [Path(home).expanduser() / name] if home else []
    for repository in REPOSITORIES[name]:
        found += snapshots(hub_cache() / f"models--{repository.replace('/', '--')}")
    return found


def hub_cache() -> Path:
    """The hub's cache, by the environment variables that huggingface_hub reads."""
    for variable, inner in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub"),
                            ("XDG_CACHE_HOME", "huggingface/hub")):  # fmt: skip
        if value := os.environ.get(variable):
            return Path(value).expanduser() / inner
    return Path("~/.cache/huggingface/hub").expanduser()


def snapshots(repository: Path) -> list[Path]:
    """The snapshots of a cached repository, the one that `main` points to first; itself where there are
    none."""
    main, inside = repository / "refs" / "main", repository / "snapshots"
    found = sorted(inside.iterdir()) if inside.is_dir() else []
    if main.is_file():
        commit = read_start(main, 100).decode("ascii", "replace").strip()
        if plain_name(commit):
            found.sort(key=lambda folder: folder.name != commit)
    return found or [repository]
