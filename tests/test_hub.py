"""Downloading, from a hub on this machine: whole, interrupted, truncated, wrong, too large, refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
import toys
from safetensors.torch import load_file, save_file
from standin import COMMIT, Hub
from toys import one_thread, random_model, random_tokens, run  # noqa: F401

from gptoss_lab import cli
from gptoss_lab.config import NAMED, Yarn
from gptoss_lab.weights import hub as room
from gptoss_lab.weights import load, places, remote, save
from gptoss_lab.weights.hub import download

PUBLISHED = Path(__file__).parent / "data" / "published"
GPT2 = "openai-community/gpt2"
SMALL = toys.gpt2(d_model=24, n_heads=4, n_kv_heads=4)
LISTED = f"/api/models/{GPT2}/revision/main"
NEEDED = ["model.safetensors", "generation_config.json", "config.json"]
DECOYS = [
    "pytorch_model.bin",
    "README.md",
    "original/model.safetensors",
    "metal/model.bin",
    "onnx/model.onnx",
    "vocab.json",
]


def files_of(folder: Path) -> dict[str, bytes]:
    """A folder's files by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small GPT-2, as its repository would hold it, between files that nobody here needs."""
    folder = save(random_model(SMALL), tmp_path_factory.mktemp("made") / "gpt2")
    return files_of(folder) | {name: name.encode() * 50 for name in DECOYS}


@pytest.fixture
def hub(tmp_path: Path, tiny: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has the small GPT-2, and a machine that has nothing, asks this hub alone and knows gpt2 as
    that one."""
    from huggingface_hub import constants

    server = Hub()
    server.repositories[GPT2] = dict(tiny)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "GPTOSS_LAB_HOME", "HF_HOME", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setitem(NAMED, "gpt2", SMALL.with_changes(name="gpt2"))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(
        constants, "DOWNLOAD_CHUNK_SIZE", 512
    )  # what is kept is whole chunks, 10 MB otherwise
    monkeypatch.setattr(
        "huggingface_hub.file_download.time", type("Impatient", (), {"sleep": lambda seconds: None})
    )
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where the hub's cache keeps the small GPT-2."""
    return tmp_path / "cache" / "models--openai-community--gpt2"


def refused(message: str, name: str = "gpt2", **more: Any) -> str:
    """The message of a download that fails, which must match."""
    with pytest.raises(ValueError, match=message) as error:
        download(name, **more)
    return str(error.value)


# --- the ordinary way ---------------------------------------------------------------------------------------


def test_a_download_fetches_what_is_needed_and_the_name_then_loads(
    hub: Hub, cache: Path, tiny: dict[str, bytes]
) -> None:
    folder = download("gpt2")
    assert folder == cache / "snapshots" / COMMIT
    assert hub.fetched() == NEEDED and hub.asked[0][:2] == ("GET", LISTED)
    assert files_of(folder) == {name: tiny[name] for name in NEEDED}
    model, again = load("gpt2"), random_model(SMALL)
    tokens = random_tokens(again.config)
    assert (
        model.weights_from.startswith("gpt2, ")
        and (run(model, tokens) - run(again, tokens)).abs().max() < 0.1
    )


def test_what_is_here_is_not_fetched_again(hub: Hub) -> None:
    download("gpt2")
    hub.asked.clear()
    download("gpt2")
    assert [path for _, path, _ in hub.asked] == [LISTED]


def test_other_tools_find_what_was_downloaded_in_the_cache(hub: Hub, tmp_path: Path) -> None:
    import huggingface_hub

    folder = download("gpt2")
    assert huggingface_hub.try_to_load_from_cache(GPT2, "config.json", cache_dir=tmp_path / "cache") == str(
        folder / "config.json"
    )
    hub.asked.clear()
    found = huggingface_hub.hf_hub_download(
        GPT2, "model.safetensors", cache_dir=tmp_path / "cache", endpoint=hub.address
    )
    assert found == str(folder / "model.safetensors") and {method for method, _, _ in hub.asked} == {"HEAD"}


def test_what_other_tools_have_downloaded_is_found(hub: Hub, tmp_path: Path) -> None:
    import huggingface_hub

    for name in NEEDED:
        huggingface_hub.hf_hub_download(GPT2, name, cache_dir=tmp_path / "cache", endpoint=hub.address)
    load("gpt2")
    hub.asked.clear()
    download("gpt2")
    assert hub.fetched() == []


def test_a_plain_folder_or_the_home_takes_the_files_as_they_are(
    hub: Hub, tmp_path: Path, tiny: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert download("gpt2", to=tmp_path / "here") == tmp_path / "here"
    assert {name: data for name, data in files_of(tmp_path / "here").items() if name[0] != "."} == {
        n: tiny[n] for n in NEEDED
    }
    load(tmp_path / "here")
    monkeypatch.setenv("GPTOSS_LAB_HOME", str(tmp_path / "home"))
    assert download("gpt2") == tmp_path / "home" / "gpt2" == places.find("gpt2")[1]
    hub.asked.clear()
    download("gpt2")
    assert hub.fetched() == [] and not (tmp_path / "cache").exists()


def test_a_foreign_file_in_the_folder_is_left_alone(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    refused("has 'config.json' already, other than the hub's; nothing was changed", to=tmp_path)
    assert (tmp_path / "config.json").read_text() == "mine" and hub.fetched() == []


def test_without_links_the_files_lie_in_the_snapshot_itself(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*args: object, **more: object) -> None:
        raise OSError(errno.EPERM, "a privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", cannot)
    folder = download("gpt2")
    assert list((cache / "blobs").iterdir()) == [] and not any(path.is_symlink() for path in folder.iterdir())
    load("gpt2")
    hub.asked.clear()
    download("gpt2")
    assert hub.fetched() == []


def test_a_damaged_file_in_the_cache_is_fetched_again_and_the_old_one_kept(hub: Hub, cache: Path) -> None:
    folder = download("gpt2")
    weights = folder / "model.safetensors"
    blob = weights.resolve()
    whole = blob.read_bytes()
    weights.unlink()
    blob.unlink()
    weights.write_bytes(whole[:100])
    download("gpt2")
    assert weights.read_bytes() == whole and (folder / "model.safetensors.wrong").read_bytes() == whole[:100]


# --- the published 20b's names ------------------------------------------------------------------------------


@pytest.fixture
def small_20b(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The published 20b's file names, index and config keys over small content, in its repository; the name
    is known for that content."""
    small = toys.mxfp4(n_layers=24, window=128, yarn=Yarn(), rope_theta=150000.0, n_experts=2, d_ff=32)
    monkeypatch.setitem(NAMED, "gpt-oss-20b", small.with_changes(name="gpt-oss-20b"))
    made = save(random_model(small), tmp_path / "made")
    said = json.loads((PUBLISHED / "config.json").read_text()) | {"experts_per_token": 2}
    said |= json.loads((made / "config.json").read_text())
    where = json.loads((PUBLISHED / "model.safetensors.index.json").read_text())["weight_map"]
    tensors = load_file(made / "model.safetensors")
    for shard in set(where.values()):
        save_file({name: tensor for name, tensor in tensors.items() if where[name] == shard}, made / shard)
    shutil.copy(PUBLISHED / "model.safetensors.index.json", made)
    (made / "model.safetensors").unlink()
    (made / "config.json").write_text(json.dumps(said))
    hub.repositories["openai/gpt-oss-20b"] = files_of(made) | {
        "original/model.safetensors": b"x",
        "metal/model.bin": b"y",
    }
    return hub.repositories["openai/gpt-oss-20b"]


def test_a_sharded_checkpoint_with_the_published_names_comes_whole_and_loads(
    hub: Hub, small_20b: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = {name: data for name, data in small_20b.items() if name.startswith("model-")}
    assert sorted(shards) == [f"model-0000{n}-of-00002.safetensors" for n in range(3)]
    stated = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in shards.items()}
    monkeypatch.setitem(room.PUBLISHED, "gpt-oss-20b", stated)
    download("gpt-oss-20b")
    index = "model.safetensors.index.json"
    assert hub.fetched() == [index, *sorted(shards), "generation_config.json", "config.json"]
    assert load("gpt-oss-20b").config.n_layers == 24


def test_another_file_than_the_published_one_is_refused_before_it_is_fetched(
    hub: Hub, small_20b: dict[str, bytes]
) -> None:
    refused(
        "offers model-00000-of-00002.safetensors .* published for gpt-oss-20b is 16d0f997.* --revision main",
        "gpt-oss-20b",
    )
    assert hub.fetched() == ["model.safetensors.index.json"]
    download("gpt-oss-20b", revision="main")
    load("gpt-oss-20b")


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"x": "../../model.safetensors"}, "names '../../model.safetensors'"),
        ({"x": "model.bin"}, "names 'model.bin'"),
        ({"x": 3}, "names '3'"),
        ({}, "names no files"),
        ({"x": "model-9.safetensors"}, "has no 'model-9.safetensors', which loading would need"),
    ],
)
def test_an_index_that_names_other_files_is_refused(
    hub: Hub, small_20b: dict[str, bytes], weight_map: dict[str, Any], message: str, tmp_path: Path
) -> None:
    small_20b["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    refused(message, "gpt-oss-20b")
    assert not (tmp_path / "cache").exists()


# --- interrupted, truncated, wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
def test_a_broken_line_keeps_what_came_and_the_next_run_asks_for_the_rest(
    hub: Hub, cache: Path, tmp_path: Path, tiny: dict[str, bytes], plain: bool
) -> None:
    to = tmp_path / "here" if plain else None
    hub.cut["model.safetensors"] = 5000
    refused(
        r"a broken one \(\w+\)\. 4,608 bytes of the file are kept\. The same command goes on", to=to
    )  # nine chunks of 512
    assert [path.stat().st_size for path in tmp_path.rglob("*.incomplete")] == [4608]
    with pytest.raises(ValueError):
        load("gpt2" if to is None else to)
    hub.cut.clear()
    hub.asked.clear()
    folder = download("gpt2", to=to)
    assert [range_ for _, path, range_ in hub.asked if "/cdn/" in path] == ["bytes=4608-"]
    assert (folder / "model.safetensors").read_bytes() == tiny["model.safetensors"]
    assert not list(tmp_path.rglob("*.incomplete"))
    load("gpt2" if to is None else to)


def test_ctrl_c_keeps_what_came_and_the_next_run_asks_for_the_rest(hub: Hub, cache: Path) -> None:
    program = (  # a process started in the background is born deaf to Ctrl-C
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import sys, huggingface_hub.constants as c; c.DOWNLOAD_CHUNK_SIZE = 512; "
        "from gptoss_lab.cli import main; sys.exit(main(['download', 'gpt2']))"
    )
    hub.stall["model.safetensors"] = 5000
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    child = subprocess.Popen([sys.executable, "-c", program], env=environment, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    try:
        assert hub.stalled.wait(120)
        time.sleep(0.5)  # for the last bytes to be read
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 130, err
    assert (
        "to fetch; " in out
        and "`gptoss-lab download gpt2` goes on from there" in out
        and "Traceback" not in err
    )
    kept = [path.stat().st_size for path in (cache / "blobs").glob("*.incomplete")]
    assert len(kept) == 1 and 512 <= kept[0] <= 5000
    assert all(
        path.startswith((f"/api/models/{GPT2}", f"/{GPT2}/", "/cdn/")) for _, path, _ in hub.asked
    )  # no telemetry
    hub.stall.clear()
    hub.asked.clear()
    download("gpt2")
    assert [range_ for _, path, range_ in hub.asked if "/cdn/" in path] == [f"bytes={kept[0]}-"]
    load("gpt2")


def test_a_file_shorter_than_listed_is_told_and_nothing_is_in_place(hub: Hub, cache: Path) -> None:
    hub.short["model.safetensors"] = 3000
    refused("sent another number of bytes than it lists .*3,000 bytes of the file are kept")
    refused("has no more of .*incomplete than is kept, yet lists more. Delete that file")
    assert not (cache / "snapshots").exists() and not (cache / "refs").exists()
    hub.short.clear()
    download("gpt2")
    load("gpt2")


def test_a_wrong_hash_names_the_file_puts_it_aside_and_the_next_run_begins_it_again(
    hub: Hub, cache: Path, tiny: dict[str, bytes]
) -> None:
    flipped = bytearray(tiny["model.safetensors"])
    flipped[1234] ^= 1
    hub.wrong["model.safetensors"] = bytes(flipped)
    message = refused(
        "model.safetensors came with hash .* expected .* put aside as .* Delete it, and give the same command"
    )
    (aside,) = (cache / "blobs").glob("*.wrong")
    assert str(aside) in message and aside.read_bytes() == bytes(flipped)
    with pytest.raises(ValueError, match="gptoss-lab download gpt2"):
        load("gpt2")
    hub.wrong.clear()
    download("gpt2")
    load("gpt2")
    assert aside.exists()


def test_a_wrong_small_file_is_found_by_its_git_hash(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        remote, "transfer", lambda repository, commit, file, into, have=0: into.write(b"?" * file.size)
    )
    monkeypatch.setattr(room, "transfer", remote.transfer)
    hub.repositories[GPT2]["model.safetensors"] = b"?" * 70
    refused("generation_config.json came with hash")


# --- the disk -----------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_it_is_fetched(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needed = sum(len(hub.repositories[GPT2][name]) for name in NEEDED)
    usage = type("Usage", (), {"free": needed - 1})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    refused(
        rf"gpt2 does not fit: {needed:,} bytes to fetch, {needed - 1:,} bytes free .*--to, GPTOSS_LAB_HOME"
    )
    assert hub.fetched() == []
    usage.free = needed
    download("gpt2")


def test_only_the_missing_rest_must_fit(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.cut["model.safetensors"] = 5000
    refused("4,608 bytes of the file are kept")
    hub.cut.clear()
    needed = sum(len(hub.repositories[GPT2][name]) for name in NEEDED) - 4608
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: type("Usage", (), {"free": needed}))
    said: list[str] = []
    download("gpt2", say=said.append)
    assert any(
        "4,608 bytes of it are here" in line for line in said
    ) and f"{needed:,} bytes to fetch; " in "\n".join(said)


def test_a_disk_that_fills_up_on_the_way_is_told_and_what_came_is_kept(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def filling(repository: str, commit: str, file: remote.Remote, into: BinaryIO, have: int = 0) -> None:
        into.write(b"x" * 700)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(room, "transfer", filling)
        refused("the disk is full .*make room. 700 bytes of the file are kept. The same command goes on")
    assert [path.stat().st_size for path in (cache / "blobs").glob("*.incomplete")] == [700]


def test_a_place_that_cannot_be_written_to_is_told(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused("cannot write to .*file", to=tmp_path / "file" / "inside")


def test_two_downloads_into_one_place_do_not_mix(hub: Hub, cache: Path) -> None:
    from huggingface_hub.utils import WeakFileLock

    cache.mkdir(parents=True)
    with WeakFileLock(cache / ".gptoss-lab.lock"):
        refused("another download into .* is under way")
    download("gpt2")


# --- refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_means_that_nothing_is_asked(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    refused(f"{variable} is set, so nothing is fetched. .*{variable}=0 gptoss-lab download gpt2")
    assert hub.asked == []


def test_a_library_that_was_imported_offline_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("was imported while HF_HUB_OFFLINE was set")
    assert hub.asked == []


def test_an_unknown_repository_or_revision_is_told(hub: Hub) -> None:
    refused(f"{hub.address} has no repository Qwen/Qwen3-30B-A3B", "qwen3-30b-a3b")
    refused("openai-community/gpt2 has no revision 'older'", revision="older")
    refused("expected a branch, a tag or a commit", revision="../../x")
    assert hub.fetched() == []


def test_no_server_a_strange_page_and_a_strange_address_are_told(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.page = b"<html>please log in</html>"
    refused("answers, but not as the hub does .*is there a page to log in to")
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    refused("HF_ENDPOINT is 'huggingface.co'; expected an address")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused("no connection to http://127.0.0.1:9, or a broken one")


def test_names_that_need_no_download_or_have_none(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "ASSETS", tmp_path)
    (tmp_path / "mini-oss").mkdir()
    (tmp_path / "mini-oss" / "config.json").write_text("{}")
    said: list[str] = []
    assert download("mini-oss", say=said.append) == tmp_path / "mini-oss"
    assert said == ["mini-oss comes with this package: there is nothing to download"]
    refused("no model 'gpt-oss-2b' to download; there are .* Did you mean 'gpt-oss-20b'", "gpt-oss-2b")
    assert hub.asked == []


def test_a_model_that_is_not_here_names_the_one_command(hub: Hub) -> None:
    with pytest.raises(ValueError, match="gptoss-lab download gpt-oss-20b"):
        load("gpt-oss-20b")
    assert hub.asked == []


# --- the command, and what importing costs ------------------------------------------------------------------


def test_the_command_says_size_and_free_disk_before_it_fetches(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["download", "gpt2", "--to", str(tmp_path / "here")]) == 0
    lines = capsys.readouterr().out.splitlines()
    sizes = next(n for n, line in enumerate(lines) if " to fetch; " in line and " free on that disk" in line)
    fetched = next(
        n for n, line in enumerate(lines) if line.startswith("model.safetensors: whole, sha256 right")
    )
    assert sizes < fetched and lines[-1].startswith(f"load it: lab.load({str(tmp_path / 'here')!r})")
    assert cli.main(["download", "gpt-oss-20b"]) == 2
    assert capsys.readouterr().err.startswith(
        f"gptoss-lab: {hub.address} has no repository openai/gpt-oss-20b"
    )


def test_importing_the_rooms_does_not_import_the_hub_s_library() -> None:
    probe = "import sys, gptoss_lab.weights.hub, gptoss_lab.cli; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True,
                          cwd=Path(cli.__file__).parents[1])  # fmt: skip
    assert done.stdout.strip() == "False"


def test_the_published_hashes_name_the_files_of_the_published_index() -> None:
    index = json.loads((PUBLISHED / "model.safetensors.index.json").read_text())
    stated = room.PUBLISHED["gpt-oss-20b"]
    shards = {name: size for name, (size, _) in stated.items() if name.startswith("model-")}
    assert shards.keys() == set(index["weight_map"].values())
    headers = sum(size or 0 for size in shards.values()) - index["metadata"]["total_size"]
    assert 0 < headers < 100_000 and torch.iinfo(torch.int32).max < index["metadata"]["total_size"]
    assert all(len(sha256) == 64 and int(sha256, 16) for _, sha256 in stated.values())


@pytest.mark.parametrize("inner", ["", "original"])
def test_the_published_weights_are_known_by_their_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    """Of either layout; files of another size, as random ones of the same shapes, are others."""
    monkeypatch.setenv("GPTOSS_LAB_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert room.published_folder("gpt-oss-20b") is None
    folder = tmp_path / "gpt-oss-20b" / inner
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert room.published_folder("gpt-oss-20b") is None
    for name, (there, _) in room.PUBLISHED["gpt-oss-20b"].items():
        if there is not None and name.startswith("original/") == bool(inner):
            with (folder / Path(name).name).open("wb") as file:
                file.truncate(there)  # holes: no disk is taken
    assert room.published_folder("gpt-oss-20b") == folder
    with next(folder.glob("*.safetensors")).open("r+b") as file:
        file.truncate(4096)
    assert room.published_folder("gpt-oss-20b") is None
    with pytest.raises(ValueError, match="sizes of 'gpt2' are not known; they are for gpt-oss-20b"):
        room.published_folder("gpt2")
