"""Making checkpoints from strangers: valid folders with one thing changed, with several, or what never was
one.

Four strata: headers, index and paths, config, tensor semantics. A case is a function of its stratum and
number.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import toys
from safetensors.torch import load_file, save_file
from toy_checkpoints import write_original

from gptoss_lab.weights import save

NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 31, 2**31, 2**40, 10**12, 10**18, 10**25, 0.5, -0.0, 1e308, "", "a",
    "1", "../x", "\ud800", "\x00", "é" * 300, "nan", [], [1], [None], [[[[]]]], [10**12] * 9,
    list(range(300)), {}, {"a": 1},
]  # fmt: skip
DEEP = ("[" * 5000 + "]" * 5000, '{"a":' * 3000 + "1" + "}" * 3000)
RAW = ["NaN", "-Infinity", "1e999", "9" * 5000, *DEEP, "01", '"\\ud800"', ""]
NAMES: list[Any] = [  # of shards; all but the last three are no plain names of a safetensors file
    "../outside.safetensors", "/outside.safetensors", "./model-0.safetensors", "..", "", ".", "/dev/zero",
    "model-0.safetensors/", "..\\outside.safetensors", "C:outside.safetensors", "a\x00.safetensors",
    ".safetensors", "x" * 5000 + ".safetensors", "model-0.bin", "config.json", "\ud800.safetensors", 7, None,
    ["model-0"],
    "model-1.safetensors", "MODEL-0.safetensors", "nowhere.safetensors",
]  # fmt: skip
Change = Callable[[random.Random, Path], None]


def bases(into: Path) -> list[Path]:
    """A valid folder of each layout, as small as can be."""
    configs = [
        toys.mxfp4(n_layers=2, n_experts=2, d_ff=32, vocab_size=7),
        toys.gpt2(n_layers=2, d_model=8, n_heads=2, n_kv_heads=2, d_head=4, vocab_size=7),
        toys.qwen3(n_layers=2, n_experts=3, vocab_size=7),
        toys.gpt_oss(n_layers=2, n_experts=3, vocab_size=7),
    ]
    models = [toys.random_model(config) for config in configs]
    made = [save(model, into / "base" / model.config.name, dtype=torch.float32) for model in models]
    for folder in made[:2]:
        made.append(folder.with_name(f"{folder.name}-shards"))
        shutil.copytree(folder, made[-1])
        shard(made[-1])
    original = into / "base" / "original"
    write_original(made[0], original, configs[0])
    return [*made, original]


def shard(folder: Path) -> None:
    """Divide a folder's file into three and write their index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: f"model-{i % 3}.safetensors" for i, name in enumerate(tensors)}
    for name in set(where.values()):
        save_file({tensor: tensors[tensor] for tensor in tensors if where[tensor] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


# --- what can be changed ---------------------------------------------------------------------------------


def weights(rng: random.Random, folder: Path) -> Path:
    """One of the folder's safetensors files."""
    return rng.choice(sorted(folder.glob("*.safetensors")))


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and data."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(path: Path, header: dict[str, Any] | str, data: bytes) -> None:
    """Write a safetensors file from both."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def truncate(rng: random.Random, path: Path) -> None:
    """Cut off the end; somewhere."""
    data = path.read_bytes()
    path.write_bytes(data[: rng.choice([0, 1, 7, 8, 9, len(data) - 1, rng.randrange(len(data))])])


def flip(rng: random.Random, path: Path) -> None:
    """Flip a bit, more likely near the beginning."""
    data = bytearray(path.read_bytes())
    if data:
        at = rng.randrange(rng.choice([min(8, len(data)), min(200, len(data)), len(data)]))
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(data))


def splice(rng: random.Random, path: Path) -> None:
    """Remove, repeat or insert a few bytes."""
    data = path.read_bytes()
    at, size = rng.randrange(len(data) + 1), rng.randrange(1, 20)
    middle = rng.choice([b"", data[at : at + size] * 2, rng.randbytes(size)])
    path.write_bytes(data[:at] + middle + data[at + size :])


def change_json(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """A JSON value with one place in it removed, doubled, renamed, or replaced by something nasty."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.7):
        key, new = rng.choice(list(value)), dict(value)
        what = rng.randrange(6)
        if what == 0:
            del new[key]
        elif what == 1:
            new[rng.choice(["x", "", "\ud800", key + "x", key.upper(), key * 20])] = new.pop(key)
        elif what == 2:
            new[key] = rng.choice(NASTY)
        else:
            new[key] = change_json(rng, new[key], depth + 1)
        return new
    if isinstance(value, list) and value and rng.random() < 0.8:
        at, new = rng.randrange(len(value)), list(value)
        new[at : at + 1] = rng.choice([[], [new[at]] * 2, [change_json(rng, new[at], depth + 1)]])
        return new
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.6:
        return value + rng.choice([-1, 1, 2, 8, 100, -value, 2**32, 2**63])
    return rng.choice(NASTY)


def raw_json(rng: random.Random, text: str) -> str:
    """JSON text with something in it that no value can express."""
    where = [i for i, letter in enumerate(text) if letter in "0123456789"] or [0]
    at = rng.choice(where)
    if rng.random() < 0.3 and text.startswith("{") and len(text) > 2:  # a key that stands there twice
        key = json.dumps(rng.choice(list(json.loads(text))))
        return "{" + f"{key}: {json.dumps(rng.choice(NASTY))}, " + text[1:]
    return text[:at] + rng.choice(RAW) + text[at + 1 :]


def not_a_checkpoint(rng: random.Random, path: Path) -> None:
    """Something else under a checkpoint's name."""
    length = rng.choice([0, 2, 100, 2**20, 2**40, 2**63, 2**64 - 1])
    path.write_bytes(rng.choice([
        b"", rng.randbytes(rng.randrange(300)), pickle.dumps({"a": [1, 2]}), b"PK\x03\x04" + bytes(80),
        b"GGUF" + bytes(60), b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>",
        struct.pack("<Q", length) + b"{}" + bytes(rng.randrange(200)), struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}", struct.pack(">Q", 2) + b"{}", struct.pack("<Q", 4096) + b"{" * 4096,
        struct.pack("<Q", 9) + b'{"a":1}  ', b"\xef\xbb\xbf" + path.read_bytes(),
    ]))  # fmt: skip


def something_else(rng: random.Random, path: Path) -> None:
    """A folder, a pipe, a dead or circular link where a file should be."""
    path.unlink()
    kind = rng.randrange(4)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(path.name)
    else:
        path.symlink_to("/nowhere/at/all")


# --- the strata ------------------------------------------------------------------------------------------


def header(rng: random.Random, folder: Path) -> None:
    """One change to a safetensors file's frame or header."""
    path = weights(rng, folder)
    what = rng.randrange(10)
    if what < 4:
        head, data = parts(path)
        join(path, change_json(rng, head), data)
    elif what < 6:
        head, data = parts(path)
        join(path, raw_json(rng, json.dumps(head)), data)
    else:
        [truncate, flip, flip, splice][what - 6](rng, path)


def header_from_nothing(rng: random.Random, folder: Path) -> None:
    """No checkpoint at all, or a header made up."""
    path = weights(rng, folder)
    if rng.random() < 0.5:
        return not_a_checkpoint(rng, path)
    size, made = rng.randrange(0, 64), {}
    for i in range(rng.randrange(1, 6)):
        begin, end = sorted(rng.choices([0, 4, 8, size, size + 1, 2**62, 2**63, 2**64], k=2))
        shape = rng.choices([0, 1, 2, 4, 2**31, 2**32, 2**63], k=rng.randrange(4))
        dtype = rng.choice(["F32", "U8", "BF16", "F4", "", "f32"])
        made[f"t{i}"] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    return join(path, made, bytes(size))


def index(rng: random.Random, folder: Path) -> None:
    """One change to the index or to which files there are."""
    path, outside = folder / "model.safetensors.index.json", folder.parent / "outside.safetensors"
    if not path.exists():
        shard(folder)
    said, what = json.loads(path.read_text()), rng.randrange(9)
    tensor, victim = rng.choice(list(said["weight_map"])), weights(rng, folder)
    if what == 0:
        path.write_text(json.dumps(change_json(rng, said)))
    elif what == 1:
        path.write_text(raw_json(rng, json.dumps(said)))
    elif what == 2:
        shutil.copy(folder / said["weight_map"][tensor], outside)
        said["weight_map"][tensor] = rng.choice([*NAMES, str(outside)])
        path.write_text(json.dumps(said))
    elif what == 3:
        said["weight_map"] = dict.fromkeys(said["weight_map"], rng.choice(NASTY))
        path.write_text(json.dumps(said))
    elif what == 4:
        new = rng.choice(["model-9.safetensors", "model.safetensors", "x.safetensors", "x.bin"])
        victim.rename(folder / new)
    elif what == 5:
        copy = folder / rng.choice(["model.safetensors", "model-9.safetensors", "model-0.safetensors"])
        copy.write_bytes(victim.read_bytes())
    elif what == 6:
        path.unlink()
    elif what == 7:
        new = rng.choice(["x.safetensors.index.json", "model.safetensors.index.json.bak"])
        shutil.copy(path, folder / new)
    else:
        something_else(rng, rng.choice([path, victim]))


def index_from_nothing(rng: random.Random, folder: Path) -> None:
    """An index, or what stands in its place, damaged as bytes."""
    if not (folder / "model.safetensors.index.json").exists():
        shard(folder)
    rng.choice([truncate, flip, splice, not_a_checkpoint])(rng, folder / "model.safetensors.index.json")


def config(rng: random.Random, folder: Path) -> None:
    """One change to config.json, generation_config.json or tokenizer.json."""
    path = folder / rng.choice(["config.json"] * 8 + ["generation_config.json", "tokenizer.json"])
    if path.name == "tokenizer.json":
        bpe = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
        path.write_text(json.dumps({"added_tokens": [], "pre_tokenizer": None, "model": bpe}))
    elif not path.exists():  # OpenAI's own layout has none
        path.write_text('{"eos_token_id": [1, 2]}')
    said, what = json.loads(path.read_text()), rng.randrange(8)
    if what < 5:
        path.write_text(json.dumps(change_json(rng, said)))
    elif what < 6:
        path.write_text(raw_json(rng, json.dumps(said)))
    elif what < 7:
        sizes = [key for key, value in said.items() if type(value) is int] or list(said)
        said[rng.choice(sizes)] = rng.choice([10**6, 10**9, 10**12, 2**39, 2**31, 2**62])
        path.write_text(json.dumps(said))
    else:
        flip(rng, path)


def config_from_nothing(rng: random.Random, folder: Path) -> None:
    """A config.json that is none, or has been cut, or belongs to another model."""
    path, what = folder / "config.json", rng.randrange(4)
    if what == 0:
        something_else(rng, path)
    elif what == 1:
        shutil.copy(rng.choice(sorted(folder.parent.glob("base/*/config.json"))), path)
    elif what == 2:
        gpt2 = '{"model_type": "gpt2"}'
        path.write_text(rng.choice(["", "[]", "{}", gpt2, "null", "[" * 100000, "\ufeff{}", "{'a': 1}"]))
    else:
        rng.choice([truncate, splice])(rng, path)


def tensors(rng: random.Random, folder: Path) -> None:
    """One tensor that is whole as a file has it, and wrong for the model; or a value in it."""
    path = weights(rng, folder)
    held = load_file(path)
    name, what = rng.choice(list(held)), rng.randrange(9)
    t = held[name]
    if what == 0:
        del held[name]
    elif what == 1:
        held[rng.choice(["x", name + "x", name.upper(), "model." + name, "lm_head.weight"])] = t.clone()
    elif what == 2:
        held[name] = t.mT.contiguous() if t.ndim > 1 else t[:, None].clone()
    elif what == 3:
        held[name] = t.flatten()[: rng.choice([0, 1, t.numel() - 1])].clone()
    elif what == 4:
        kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.bool)
        held[name] = t.to(rng.choice(kinds))
    elif what == 5:
        bad = 255 if t.dtype == torch.uint8 else rng.choice([float("nan"), float("inf"), -float("inf")])
        t.view(-1)[rng.randrange(t.numel())] = bad
    elif what == 6:
        other = rng.choice(list(held))
        held[name], held[other] = held[other], held[name]
    elif what == 7:
        held[name] = torch.stack([t, t])
    else:
        t.view(torch.uint8).view(-1)[rng.randrange(t.nbytes)] ^= 1 << rng.randrange(8)
    save_file(held, path)


def tensors_from_nothing(rng: random.Random, folder: Path) -> None:
    """A header and data that agree, of sizes that nobody has; the data is a hole in the file."""
    path = weights(rng, folder)
    head, data = parts(path)
    head.pop("__metadata__", None)
    name, size = rng.choice(list(head)), rng.choice([2**20, 2**33, 2**40])
    head = {key: value for key, value in head.items() if key == name or rng.random() < 0.5}
    at = 0
    for key, value in head.items():
        shape = [size // 4] if key == name else value["shape"]
        count = size if key == name else value["data_offsets"][1] - value["data_offsets"][0]
        dtype = "F32" if key == name else value["dtype"]
        head[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + count]}
        at += count
    join(path, head, b"")
    os.truncate(path, path.stat().st_size + at)


STRATA: dict[str, tuple[Change, Change]] = {
    "headers": (header, header_from_nothing),
    "index and paths": (index, index_from_nothing),
    "config": (config, config_from_nothing),
    "tensor semantics": (tensors, tensors_from_nothing),
}


def make(stratum: str, number: int, base: list[Path], into: Path) -> Path:
    """The folder of one case: valid but for one change where the number is even."""
    rng = random.Random(f"{stratum} {number}")
    folder = into / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(rng.choice(base), folder)
    change, from_nothing = STRATA[stratum]
    if number % 2 == 0:
        change(rng, folder)
    elif rng.random() < 0.6:
        from_nothing(rng, folder)
    else:
        for _ in range(rng.randrange(2, 5)):
            if not all(path.is_file() for path in folder.iterdir()):
                break  # a pipe or a folder would stop the next change, not the reader
            try:
                change(rng, folder)
            except Exception:
                break  # the change before left nothing that can be changed
    return folder
