"""Talking to the Hugging Face hub: what a repository holds, its bytes, and what goes wrong, said in words.

huggingface_hub is imported when a download begins. It knows the addresses, the login and how to go on within
a file. HF_ENDPOINT names another hub; nothing else is asked than the repository's list and its files (the hub
may send on to the servers where it keeps large ones).
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .reader import JSON_LIMIT, listed, parse_object, plain_name, shown

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
BESIDES = ("generation_config.json", "tokenizer.json")  # fetched where the repository has them


class DownloadError(ValueError):
    """A download that cannot begin or go on; the message says why, what is kept, and a way on."""


@dataclass(frozen=True)
class Remote:
    """One file of a repository. hash: sha256 for what the hub keeps as large files, else git's of its
    content."""

    name: str
    size: int
    hash: str


def endpoint() -> str:
    """The hub's address, without a slash at its end."""
    said = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if not re.match(r"https?://\w", said):
        raise DownloadError(f"HF_ENDPOINT is {shown(said)}; expected an address, as https://huggingface.co")
    return said


def refuse_offline(command: str) -> None:
    """DownloadError where the environment forbids the network (huggingface_hub reads the same variables)."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if said := os.environ.get(variable):
            if said.upper() in ("1", "ON", "YES", "TRUE"):
                raise DownloadError(
                    f"{variable} is set, so nothing is fetched. To do it all the same: {variable}=0 {command}"
                )
            return


@contextmanager
def asking(repository: str, revision: str, partial: Path | None = None) -> Iterator[None]:
    """Use huggingface_hub: without telemetry, and with what may go wrong turned into a DownloadError."""
    from huggingface_hub import constants, errors

    telemetry, constants.HF_HUB_DISABLE_TELEMETRY = constants.HF_HUB_DISABLE_TELEMETRY, True
    try:
        yield
    except (errors.HTTPError, OSError) as error:  # the hub's own errors are both
        raise DownloadError(in_words(error, repository, revision, partial)) from error
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = telemetry


def in_words(error: Exception, repository: str, revision: str, partial: Path | None) -> str:
    """What an error of huggingface_hub or of the disk means, and a way on."""
    from huggingface_hub import errors

    hub, status = endpoint(), getattr(getattr(error, "response", None), "status_code", None)
    kept = f"{amount(partial.stat().st_size)} of the file are kept. " if partial and partial.exists() else ""
    again = f"{kept}The same command goes on from there."
    if isinstance(error, errors.GatedRepoError):
        return f"{repository} has terms to accept: see {hub}/{repository}, then log in (`hf auth login`)"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {shown(revision)} at {hub}; without one, it is main"
    if status in (401, 404) and not isinstance(error, errors.EntryNotFoundError):
        return f"{hub} has no repository {repository}, or hides it without a login (`hf auth login`)"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "huggingface_hub was imported while HF_HUB_OFFLINE was set; start Python again without it"
    if status == 416:
        return f"{hub} has no more of {partial} than is kept, yet lists more. Delete that file and try later."
    if status:
        return f"{hub} answered {status} for {repository}; try later. {again}"
    if isinstance(error, errors.HTTPError):
        return f"no connection to {hub}, or a broken one ({type(error).__name__}). {again}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1)):
        return f"the disk is full ({partial}); make room. {again}"
    if isinstance(error, OSError) and error.errno:
        return f"{error.filename or partial}: {error.strerror}. {again}"
    return f"{hub} sent another number of bytes than it lists ({partial}). {again}"


def look_up(repository: str, revision: str) -> tuple[str, dict[str, Remote]]:
    """The commit that a revision stands for, and the files it has, by name."""
    from huggingface_hub import HfApi, errors

    try:
        asked = HfApi(endpoint=endpoint()).model_info
        info = asked(repository, revision=revision, files_metadata=True, timeout=30)
        offered = {}
        for one in info.siblings or []:
            content = one.lfs.sha256 if one.lfs else one.blob_id
            if not isinstance(one.size, int) or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", content or ""):
                raise ValueError("a file without size or hash")
            offered[one.rfilename] = Remote(one.rfilename, one.size, str(content))
        if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):
            raise ValueError("a commit that is none")
    except errors.HfHubHTTPError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DownloadError(
            f"{endpoint()} answers, but not as the hub does ({str(error)[:60] or type(error).__name__}); "
            "is HF_ENDPOINT right, is there a page to log in to?"
        ) from error
    return str(info.sha), offered


def choose(repository: str, commit: str, offered: dict[str, Remote]) -> list[Remote]:
    """The files that loading needs, config.json last. Other formats and layouts stay where they are."""
    weights = [SINGLE]
    if INDEX in offered:
        weights = [*read_shards(repository, commit, offered[INDEX]), INDEX]
    if lacking := [one for one in (*weights, CONFIG) if one not in offered]:
        raise DownloadError(f"{repository} ({commit[:8]}) has no {listed(lacking)}, which loading would need")
    return [offered[one] for one in (*weights, *(one for one in BESIDES if one in offered), CONFIG)]


def read_shards(repository: str, commit: str, index: Remote) -> list[str]:
    """The shards that the repository's index names, read in memory."""
    where = f"{repository}, {INDEX}"
    if index.size > JSON_LIMIT:
        raise DownloadError(f"{where}: {index.size} bytes; at most {JSON_LIMIT} are read")
    held = io.BytesIO()
    transfer(repository, commit, index, held)
    found = parse_object(held.getvalue(), where).get("weight_map")
    shards = {str(one) for one in found.values()} if isinstance(found, dict) else set()
    odd = [one for one in shards if not (one.endswith(".safetensors") and plain_name(one))]
    if odd or not shards:
        named = listed(odd) or "no files"
        raise DownloadError(f"{where}: names {named}; expected plain names of safetensors files")
    return sorted(shards)


def transfer(repository: str, commit: str, file: Remote, into: BinaryIO, have: int = 0) -> None:
    """Stream a file, from its byte `have` on, to where `into` stands."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    http_get(
        hf_hub_url(repository, file.name, revision=commit, endpoint=endpoint()),
        into,
        resume_size=have,
        headers={**build_hf_headers(library_name="gptoss-lab"), "Accept-Encoding": "identity"},
        expected_size=file.size,
        displayed_filename=file.name,
    )


def amount(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size:,} bytes"


