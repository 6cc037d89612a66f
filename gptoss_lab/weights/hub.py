"""Downloading a published checkpoint from the Hugging Face hub, with what was interrupted taken up again.

    the repository's list → what loading needs → fetched to HASH.incomplete → its hash checked → put in place

What is kept of an interrupted file is decided here, since huggingface_hub's own downloads begin such a file
again, and a shard of gpt-oss-20b is 4.8 GB. A file is put in place when its hash is right, and config.json
last, so that a folder with a config.json is whole. Files lie as in the hub's cache (blobs/HASH,
snapshots/COMMIT/NAME, refs/main), where other tools find them, or plainly in a folder.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .places import REPOSITORIES, SHIPPED, find, find_named, hub_cache
from .reader import listed, shown
from .remote import (
    DownloadError,
    Remote,
    amount,
    asking,
    choose,
    endpoint,
    look_up,
    refuse_offline,
    transfer,
)

PUBLISHED: dict[str, dict[str, tuple[int | None, str]]] = {  # file → bytes (None: not stated) and sha256
    "gpt-oss-20b": {
        "model-00000-of-00002.safetensors": (
            4_792_272_488, "16d0f997dcfc4462089d536bffe51b4bcea2f872f5c430be09ef8ed392312427"),
        "model-00001-of-00002.safetensors": (
            4_798_702_184, "4fbe328ab445455d6f58dc73852b85873bd626986310abd91cd4d2ce3245eaea"),
        "model-00002-of-00002.safetensors": (
            4_170_342_232, "a18106b209e9ab35c3406db4f6f12a927364a058b21e9d1373d682e20674b303"),
        "original/model.safetensors": (
            13_761_300_984, "3340a61d1a0391e8c5b5d3463d18d4c48129a84bbc04a554c762c99020aa06ed"),
        "tokenizer.json": (None, "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3"),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where files go. `folder` is what `load` opens; with `blobs`, the contents lie there, linked from it."""

    folder: Path
    blobs: Path | None = None

    @property
    def root(self) -> Path:
        """The folder that holds everything, partial files too."""
        return self.blobs.parent if self.blobs else self.folder

    def content(self, file: Remote) -> Path:
        """Where the whole file comes to lie."""
        return self.blobs / file.hash if self.blobs else self.folder / file.name

    def partial(self, file: Remote) -> Path:
        """Where it is collected; the hash in the name keeps versions apart."""
        name = file.hash if self.blobs else f"{file.name}.{file.hash[:12]}"
        return self.content(file).with_name(f"{name}.incomplete")

    def kept(self, file: Remote) -> int:
        """How many of its bytes an earlier download has left."""
        return self.partial(file).stat().st_size if self.partial(file).exists() else 0

    def holds(self, file: Remote) -> bool:
        """Whether the file is here. In the cache contents are named by a hash that was checked when they
        came, and their size is enough; in a plain folder anyone may have put it, so its hash is taken."""
        if self.blobs:
            return file.size in (size(self.folder / file.name), size(self.content(file)))
        return size(self.content(file)) == file.size and digest(self.content(file), file.hash) == file.hash

    def settle(self, file: Remote) -> None:
        """Link the content of a file that is here, or move it where links cannot be made. What is damaged
        goes aside."""
        link = self.folder / file.name
        if not self.blobs or size(link) == file.size:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(link):
            os.replace(link, link.with_name(f"{link.name}.wrong"))
        try:
            link.symlink_to(os.path.relpath(self.content(file), self.folder))
        except (OSError, NotImplementedError):
            os.replace(self.content(file), link)


def published_folder(name: str) -> Path | None:
    """Where the published weights of a model lie on this machine, or None: files of another size are others.

    Nothing is read but sizes; `gptoss-lab verify` takes the hashes. ValueError where sizes are not known for
    a model of this name.
    """
    known = {file: there for file, (there, _) in PUBLISHED.get(name, {}).items() if there is not None}
    if not known:
        raise ValueError(f"the sizes of {shown(name)} are not known; they are for {', '.join(PUBLISHED)}")
    try:
        folder = find_named(name)
    except ValueError:
        return None
    whole = folder.name == "original"
    wanted = {Path(file).name: there for file, there in known.items() if ("/" in file) == whole}
    return folder if all(size(folder / file) == there for file, there in wanted.items()) else None


def download(
    name: str,
    to: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    say: Callable[[str], object] = print,
) -> Path:
    """Fetch what `load(name)` needs, checked, and return its folder. What is here is not fetched again.

    name: a known name. to: a folder; None: GPTOSS_LAB_HOME/NAME where that is set, else the hub's cache.
    revision: a branch, tag or commit. None: main, and files with a published sha256 must have that one. say:
    is given every line; the progress bars are huggingface_hub's own. HF_ENDPOINT names another hub.

    ValueError for an unknown name, DownloadError (a ValueError) for everything that goes wrong on the way.
    After it, or after Ctrl-C, the same call goes on where this one stopped.
    """
    if name in SHIPPED:
        say(f"{name} comes with this package: there is nothing to download")
        return find(name)[1]
    if name not in REPOSITORIES:
        near = difflib.get_close_matches(name, REPOSITORIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no model {shown(name)} to download; there are {', '.join(REPOSITORIES)}.{hint}")
    refuse_offline(f"gptoss-lab download {name}")
    repository, wanted = REPOSITORIES[name][0], revision or "main"
    if not re.fullmatch(r"\w[\w./-]*", wanted) or ".." in wanted:
        raise ValueError(f"revision {shown(wanted)}; expected a branch, a tag or a commit")
    with asking(repository, wanted):
        commit, offered = look_up(repository, wanted)
        files = choose(repository, commit, offered)
    if revision is None:
        refuse_other_versions(name, files)
    place = choose_place(name, repository, commit, to)
    say(f"{name}: {repository} at {endpoint()}, {wanted} ({commit[:8]}), into {place.folder}")
    with alone(place):
        missing = [file for file in files if not place.holds(file)]
        tell_and_refuse(name, files, missing, place, say)
        try:
            for file in files:
                if file in missing:
                    with asking(repository, wanted, place.partial(file)):
                        fetch(repository, commit, file, place)
                    say(f"{file.name}: whole, {'sha256' if len(file.hash) == 64 else 'git hash'} right")
                place.settle(file)
        except KeyboardInterrupt:
            say(f"stopped; what came is kept. `gptoss-lab download {name}` goes on from there")
            raise
        if place.blobs and commit != wanted:
            note_revision(place.root / "refs" / wanted, commit)
    say(f"{name} is whole: {len(files)} files, {amount(sum(file.size for file in files))}")
    return place.folder


def refuse_other_versions(name: str, files: list[Remote]) -> None:
    """DownloadError where the hub offers something else than what is known to be published."""
    for file in files:
        bytes_, sha256 = PUBLISHED.get(name, {}).get(file.name, (None, file.hash))
        if (bytes_ or file.size, sha256) != (file.size, file.hash):
            raise DownloadError(
                f"{endpoint()} offers {file.name} with hash {file.hash[:16]}… and {file.size:,} bytes, but "
                f"published for {name} is {sha256[:16]}…{f' and {bytes_:,}' if bytes_ else ''}. Nothing was "
                "fetched. If you trust what is offered, ask for it by name: --revision main"
            )


def choose_place(name: str, repository: str, commit: str, to: str | os.PathLike[str] | None) -> Place:
    """`to`, GPTOSS_LAB_HOME/NAME, or the hub's cache."""
    home = os.environ.get("GPTOSS_LAB_HOME")
    if to is not None or home:
        return Place(Path(to if to is not None else Path(str(home), name)).expanduser().absolute())
    root = hub_cache().absolute() / f"models--{repository.replace('/', '--')}"
    return Place(root / "snapshots" / commit, root / "blobs")


@contextmanager
def alone(place: Place) -> Iterator[None]:
    """Make the folders, and keep a second download from writing the same partial files."""
    from huggingface_hub.utils import WeakFileLock

    with ExitStack() as held:
        try:
            (place.blobs or place.folder).mkdir(parents=True, exist_ok=True)
            held.enter_context(WeakFileLock(place.root / ".gptoss-lab.lock", timeout=1))
        except TimeoutError as error:
            raise DownloadError(f"another download into {place.root} is under way; wait for it") from error
        except OSError as error:
            raise DownloadError(f"cannot write to {place.root}: {error.strerror}") from error
        yield


def tell_and_refuse(
    name: str, files: list[Remote], missing: list[Remote], place: Place, say: Callable[[str], object]
) -> None:
    """Say what will be fetched and what room there is; DownloadError where it does not fit, or where another
    file of that name would be replaced."""
    for file in files:
        kept = f"{amount(place.kept(file))} of it are here" if place.kept(file) else "to fetch"
        say(f"  {file.name:<36}{file.size:>16,} bytes  {kept if file in missing else 'here'}")
    if there := [file.name for file in missing if not place.blobs and place.content(file).exists()]:
        raise DownloadError(
            f"{place.folder} has {listed(there)} already, other than the hub's; nothing was changed. Choose "
            "another folder (--to), or move them away."
        )
    needed = sum(max(file.size - place.kept(file), 0) for file in missing)
    free = shutil.disk_usage(place.root).free
    say(f"{amount(needed)} to fetch; {amount(free)} free on that disk")
    if needed > free:
        raise DownloadError(
            f"{name} does not fit: {amount(needed)} to fetch, {amount(free)} free at {place.root}. Make "
            "room, or choose another disk (--to, GPTOSS_LAB_HOME or HF_HOME)."
        )


def fetch(repository: str, commit: str, file: Remote, place: Place) -> None:
    """Complete the partial file, check its hash, and move it into place; a wrong one is put aside."""
    partial = place.partial(file)
    with partial.open("ab") as into:
        if place.kept(file) < file.size:
            transfer(repository, commit, file, into, place.kept(file))
    if (found := digest(partial, file.hash)) != file.hash:
        aside = partial.with_suffix(".wrong")
        os.replace(partial, aside)
        raise DownloadError(
            f"{file.name} came with hash {found[:16]}…, expected {file.hash[:16]}…: damaged on the way, or "
            f"not what the hub lists. It was put aside as {aside}. Delete it, and give the same command to "
            "fetch it again; all other files are kept."
        )
    os.replace(partial, place.content(file))


def size(path: Path) -> int:
    """Bytes of a file, links followed; -1 where there is none."""
    return path.stat().st_size if path.is_file() else -1


def digest(path: Path, kind: str) -> str:
    """The hash of a file, of the kind that `kind` is: 64 digits for sha256, 40 for git's of its content."""
    found = hashlib.sha256() if len(kind) == 64 else hashlib.sha1(usedforsecurity=False)
    if len(kind) == 40:
        found.update(f"blob {size(path)}\0".encode())
    with path.open("rb") as content:
        while piece := content.read(1 << 22):
            found.update(piece)
    return found.hexdigest()


def note_revision(path: Path, commit: str) -> None:
    """Write which commit a revision stands for, beside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(commit)
    os.replace(beside, path)
