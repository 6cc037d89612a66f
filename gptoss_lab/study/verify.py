"""Whether a model on this machine is the one it should be, checked and written down in a report to send back.

    files → config → every number → strict loading → bits per byte of held-out text → a greedy continuation

Sizes and sha256 are compared where they are published. Where the package has an earlier report of a model of
this name (`assets/reports/NAME.json`), hashes, bits per byte and the continuation are compared with that:
right files may still be computed wrongly. A report holds no path, no user's and no computer's name.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..config import NAMED, Config, differing
from ..cost import SMALL, checkpoint_bytes, flop_per_token, human, parameters
from ..files import without_nan, writable
from ..generation import generate
from ..mistakes import in_a_line
from ..model import Transformer
from ..text.tokenizer_json import write_whole
from ..text.tokens import encode
from ..training.corpus import DOMAINS, heldout_text, heldout_windows, token_ids
from ..training.measure import losses
from ..weights import load
from ..weights.checkpoint import Checkpoint, open_checkpoint
from ..weights.devices import usable
from ..weights.hub import PUBLISHED
from ..weights.mxfp4 import LARGEST_SCALE
from ..weights.places import ASSETS, SHIPPED, find
from ..weights.plans import arithmetic
from ..weights.reader import CheckpointError
from .findings import Findings, machine, main_memory, now, sha256_of, versions

Stated = tuple[int | None, str]  # bytes, where they are stated, and sha256
REPORTS = ASSETS / "reports"
CONTEXT = 256  # tokens of a window
PROMPT, IDS, NEW = "It is a truth universally acknowledged, that a single man in", range(1, 9), 16
TOLERANCE = 0.002  # bits per byte that two machines may differ by
FILES = (".safetensors", ".safetensors.index.json")
BESIDES = ("config.json", "generation_config.json", "tokenizer.json")


def verify(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    windows: int = 2,
    device: str | torch.device = "cpu",
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Check a model, say each result, write the report to `out` (None: verify-NAME.json here) and return it.

    source: a known name or a folder. windows: of 256 tokens, of each domain's held-out text. A report that
    has not "passed" has a check that failed, or could not be made; checks that this makes impossible are left
    out. A number that is none is null.

    ValueError for a name, a folder, arguments or a place for the report that cannot be.
    """
    name, folder = find(source)
    file = Path(out) if out is not None else Path(f"verify-{name}.json")
    writable(file)
    if windows < 1:
        raise ValueError(f"windows={windows}; expected at least 1")
    device, named = usable(device), isinstance(source, str) and source in (*NAMED, *SHIPPED)
    earlier = REPORTS / f"{name}.json"
    before = json.loads(earlier.read_text("utf-8")) if named and earlier.is_file() else {}
    found = Findings(say, (folder.resolve(), folder.absolute()))
    report: dict[str, Any] = {
        "model": name, "asked_for": "a name" if named else "a folder", "date": now(), "passed": False,
        "versions": versions(), "machine": machine(device), "checks": found.checks, "seconds": {},
    }  # fmt: skip
    opened, trouble = None, ""
    try:
        opened = open_checkpoint(folder, name)
    except CheckpointError as error:
        trouble = str(error)
    known = (path for path in folder.iterdir() if path.name.endswith(FILES) or path.name in BESIDES)
    paths = sorted(path for path in known if path.is_file())  # not a pipe, not a link to nothing
    total = sum(path.stat().st_size for path in paths)
    say(f"{name}: {cost(opened.config if opened else None, total, windows)}")
    fits = f"{len(opened.shards)} tensors, named and shaped as config.json asks" if opened else trouble
    found.judge(opened is not None, "headers", fits)
    with trying("files", report, found):
        report["files"] = check_files(paths, stated_for(name, named, opened, before), named, found)
    if opened:
        report["config"] = asdict(opened.config)
        if name in NAMED and named:
            check_config(opened.config, NAMED[name], found)
        with trying("numbers", report, found):
            check_numbers(opened, found)
        model = None
        with trying("load", report, found):
            model = loaded(source, device, found)
        if model:
            report["how"] = {
                "held_in": sorted({str(weight.dtype)[6:] for weight in model.state_dict().values()}),
                "kernels": arithmetic(model),
                "threads": torch.get_num_threads(),
            }
            with trying("text", report, found):
                report["bits_per_byte"] = check_text(model, windows, before, found)
            with trying("continuation", report, found):
                report["continuation"] = check_continuation(model, before, found)
    report = without_nan(report | {"passed": found.passed})
    write_whole(file, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode(errors="replace"))
    say(f"{'all checks passed' if found.passed else 'NOT all checks passed'}; the report is in {file}")
    return report


def cost(config: Config | None, total: int, windows: int) -> str:
    """What the checks will take."""
    said = f"{human(total)} of files will be read"
    if config is None:
        return said
    held = 4 * parameters(config)
    held = held if held <= SMALL else checkpoint_bytes(config)
    tokens = windows * len(DOMAINS) * min(CONTEXT, config.context) + NEW
    memory = f" of this machine's {human(ram)}" if (ram := main_memory()) else ""
    work = human(tokens * flop_per_token(config, CONTEXT), "FLOP")
    return f"{said}, {human(held)}{memory} of memory filled, {tokens:,} tokens run through the model ({work})"


@contextmanager
def trying(what: str, report: dict[str, Any], found: Findings) -> Iterator[None]:
    """Note how long a check took, and where it could not be made, as on logits that are no numbers, why: it
    failed then."""
    began = time.monotonic()
    try:
        yield
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if (told := in_a_line(error)) is None:
            raise
        found.add("FAIL", what, told)
    report["seconds"][what] = round(time.monotonic() - began, 1)


def stated_for(
    name: str, named: bool, opened: Checkpoint | None, before: dict[str, Any]
) -> dict[str, Stated]:
    """The files of which size and sha256 are known: those of the earlier report, and published ones, found by
    the name or by the config, since a folder of any name may hold gpt-oss-20b."""
    stated = {one["name"]: (one["bytes"], one["sha256"]) for one in before.get("files", [])}
    for published, files in PUBLISHED.items():
        if name == published and named or opened and same(opened.config, NAMED[published]):
            stated |= files
    return stated


def check_files(
    paths: list[Path], stated: dict[str, Stated], named: bool, found: Findings
) -> list[dict[str, Any]]:
    """Size and sha256 of every file, against what is stated. What differs is wrong where the model was asked
    for by name; a folder may rightly hold other weights of the same shapes, and it is noted."""
    listed, silent = [], []
    for path in paths:
        size, sha256 = path.stat().st_size, sha256_of(path)
        listed.append({"name": path.name, "bytes": size, "sha256": sha256})
        said = f"{size:,} bytes, sha256 {sha256[:16]}…"
        should = stated.get(path.name) or stated.get(f"original/{path.name}")
        if should is None:
            silent.append(path.name)
        elif (should[0] or size, should[1]) == (size, sha256):
            found.add("PASS", path.name, f"{said}, as stated")
        else:
            other = f"{said}; stated {should[1][:16]}…{f' and {should[0]:,} bytes' if should[0] else ''}"
            meaning = "another version, or damage" if named else "a fine-tune, another version, or damage"
            found.add("FAIL" if named else "NOTE", path.name, f"{other}: {meaning}")
    if silent:
        more = f" and {len(silent) - 4} more" if len(silent) > 4 else ""
        found.add("NOTE", "files", f"nothing stated for {', '.join(silent[:4])}{more}: recorded alone")
    return listed


def same(config: Config, other: Config) -> bool:
    """Whether two configs differ in name and storage alone."""
    return not differing(config, other, aside=("name", "stored", "stored_experts"))


def check_config(config: Config, named: Config, found: Findings) -> None:
    """Whether config.json says what is known of the model of this name."""
    odd = differing(config, named, aside=("name", "stored"))
    said = "; ".join(f"{n} is {getattr(config, n)!r}, known is {getattr(named, n)!r}" for n in odd)
    found.judge(not odd, "config", said or f"says what is known of {named.name}")


def check_numbers(opened: Checkpoint, found: Findings) -> None:
    """Whether every weight is a finite number: no NaN, no infinity, no scale that means one (255 is NaN)."""
    bad, least, most, scales = [], 255, 0, 0
    for name in opened.shards:
        tensor = opened.shards.tensor(name)
        if tensor.dtype == torch.uint8 and name.endswith("scales"):
            low, high = (int(end) for end in tensor.aminmax())
            least, most, scales = min(least, low), max(most, high), scales + tensor.numel()
            bad += [f"{name} has scales up to {high}"] if high > LARGEST_SCALE else []
        elif tensor.is_floating_point() and not tensor.isfinite().all():
            bad.append(f"{name} holds NaN or infinity")
    packed = f"; {scales:,} MXFP4 scales from 2^{least - 127} to 2^{most - 127}, none 255" if scales else ""
    said = "; ".join(bad[:4]) or f"all of {len(opened.shards)} tensors are finite{packed}"
    found.judge(not bad, "numbers", said)


def loaded(source: str | os.PathLike[str], device: torch.device, found: Findings) -> Transformer:
    """The model, strictly loaded."""
    model = load(source, device=device)
    found.add("PASS", "load", f"{parameters(model.config):,} parameters, each of them filled")
    return model


def check_text(model: Transformer, windows: int, before: dict[str, Any], found: Findings) -> dict[str, Any]:
    """Bits per byte of held-out text, by domain, against an earlier report and a table of token frequencies.

    The table is made of the very text that is measured, knows no order, and is beaten by every trained model.
    """
    if model.tokenizer is None:
        found.add("NOTE", "text", "the model has no tokenizer, so text was not measured")
        return {}
    context = min(CONTEXT, model.config.context)
    bits = table = bytes_ = 0.0
    report: dict[str, Any] = {"windows": windows, "context": context, "domains": {}}
    for domain in DOMAINS:
        tokens, sizes = heldout_windows(model.tokenizer, domain, context, windows)
        here = float(losses(model, tokens, batch=2).double().sum()) / math.log(2)
        counts = token_ids(model.tokenizer, heldout_text(domain), domain).long().bincount().double()
        table -= float((counts / counts.sum()).log2()[tokens[:, 1:]].sum())
        bits, bytes_ = bits + here, bytes_ + int(sizes.sum())
        report["domains"][domain] = round(here / int(sizes.sum()), 5)
        found.say(f"      {domain:<12}{here / int(sizes.sum()):8.3f} bits per byte")
    report |= {"all": round(bits / bytes_, 5), "token_frequencies": round(table / bytes_, 5)}
    said = f"{bits / bytes_:.3f} bits per byte; token frequencies alone give {table / bytes_:.3f}"
    found.judge(bits < table, "text", said)
    earlier = before.get("bits_per_byte") or {}
    if (earlier.get("windows"), earlier.get("context")) == (windows, context):
        apart = {domain: report["domains"][domain] - earlier["domains"][domain] for domain in DOMAINS}
        worst = max(apart, key=lambda domain: abs(apart[domain]))
        said = f"at most {apart[worst]:+.5f} bits per byte from the earlier report ({worst})"
        found.judge(abs(apart[worst]) <= TOLERANCE, "text as before", said)
    elif earlier:
        said = f"the earlier report has {earlier.get('windows')} windows a domain; not compared"
        found.add("NOTE", "text as before", said)
    return report


def check_continuation(model: Transformer, before: dict[str, Any], found: Findings) -> dict[str, Any]:
    """A greedy continuation of a fixed prompt, compared with an earlier report's."""
    config, speaks = model.config, model.tokenizer is not None
    prompt = encode(PROMPT, model.tokenizer) if speaks else [i % config.vocab_size for i in IDS]
    prompt = prompt[: max(config.context - NEW, 1)]
    run = generate(model, prompt, max_tokens=min(NEW, config.context - len(prompt)))
    said, tokens = repr(run.text), run.tokens
    report = {
        "prompt": prompt,
        "text": run.text,
        "ids": [token.id for token in tokens],
        "logprobs": [round(token.logprob, 4) for token in tokens],
    }
    earlier = before.get("continuation") or {}
    if not all(math.isfinite(token.logprob) for token in tokens):
        found.add("FAIL", "continuation", f"{said}, with log-probabilities that are no numbers")
    elif not earlier:
        found.add("NOTE", "continuation", f"{said}; no earlier report to compare with")
    elif earlier["ids"] == report["ids"]:
        found.add("PASS", "continuation", f"{said}, as in the earlier report")
    else:
        found.add("FAIL", "continuation", f"{said}; the earlier report has {earlier['text']!r}")
    return report
