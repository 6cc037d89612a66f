"""`tokenizer.json`, the format of the `tokenizers` library: read into tiktoken, and written from it.

There, bytes are spelled as visible letters (GPT-2's table), and merging follows a list of pairs. tiktoken
merges by the rank of the *result*, and its ranks are the ids. The two agree where the ids follow the order of
the merges; that is checked, and a file of another kind is left alone rather than read nearly right.

Source: Radford et al. 2019, section 2.2, for byte-level BPE; agrees with `tokenizers` id for id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import tiktoken

from ..config import is_whole
from ..files import whole

BYTE_LEVEL_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"    # GPT-2's
IDS = 2**31    # no id is as large
PROBE = "Word wörter ñ 12345 +-*/ don't\n\n\t  x  \r\n日本語 \u0301 😀 <|x|>   "    # every kind of text


@contextmanager
def no_panic(doing: str) -> Iterator[None]:
    """ValueError where tiktoken panics, which is no Exception and would end the program. It does so where a
    pattern goes back and forth too often, or cannot be compiled. doing: what failed, in words."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{doing} failed: {str(error)[:200]}") from None


@lru_cache(maxsize=1)
def byte_letters() -> dict[int, str]:
    """The letter that stands for each byte: itself where it is visible, else one from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(0x100 + i) for i, byte in enumerate(hidden)}


def split_pattern(spec: Any) -> str | None:
    """The regular expression that a pre-tokenizer cuts with, or None where it does something else.

    ValueError for one that is no text, or empty.
    """
    steps = spec.get("pretokenizers", []) if spec and spec.get("type") == "Sequence" else [spec]
    steps = [step or {} for step in steps]
    kinds = [step.get("type") for step in steps]
    if not steps or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space", True):
        return None
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return BYTE_LEVEL_PATTERN
    if kinds != ["Split", "ByteLevel"] or steps[1].get("use_regex", True):
        return None
    plain = steps[0].get("behavior") == "Isolated" and not steps[0].get("invert", False)
    pattern = steps[0].get("pattern", {}).get("Regex") if plain else None
    if pattern is not None and not (isinstance(pattern, str) and pattern):
        raise ValueError(f"its pattern is {pattern!r}, expected a regular expression")
    return pattern


def ids_by_name(pairs: Iterable[tuple[Any, Any]]) -> dict[str, int]:
    """Ids by their tokens. ValueError for a token that is no text, or an id that is none."""
    found = {}
    for name, token in pairs:
        if not (isinstance(name, str) and name):
            raise ValueError(f"a token is {name!r}, expected a text")
        if not (is_whole(token) and 0 <= token < IDS):
            raise ValueError(f"the id of {name!r} is {token!r}, expected a whole number from 0 to 2^31 - 1")
        found[name] = token
    return found


def is_plain(spec: dict[str, Any]) -> bool:
    """Whether a file says byte-level BPE and nothing besides: no dropout, no affixes, at most NFC before.

    NFC is let pass: text that is in this form already, as nearly all text is, gets the same ids without it.
    """
    model = spec["model"]
    odd = ("dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")
    normal = (spec.get("normalizer") or {}).get("type") in (None, "NFC")
    return model.get("type", "BPE") == "BPE" and normal and not any(model.get(name) for name in odd)


def ranks_in_order(vocab: dict[str, int], merges: list[Any]) -> dict[bytes, int] | None:
    """Ranks equal to the ids, or None: letters that are no bytes, ids not in the merges' order.

    ValueError where a merge makes a token that the vocabulary lacks.
    """
    of_letter = {letter: byte for byte, letter in byte_letters().items()}
    made: set[str] = set()
    last = -1
    for number, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if len(pair) != 2 or "".join(pair) not in vocab:
            raise ValueError(f"merge {number}, {merge!r}, is not two parts of a token of its vocabulary")
        token = "".join(pair)
        if token in made:
            continue
        if vocab[token] <= last:
            return None
        made.add(token)
        last = vocab[token]
    if set(vocab) != made | set(of_letter) or len(set(vocab.values())) != len(vocab):
        return None
    return {bytes(of_letter[letter] for letter in token): i for token, i in vocab.items()}


def encoding_from(file: str | Path) -> tiktoken.Encoding | None:
    """The tiktoken encoding that gives the ids of a `tokenizer.json`, or None where none does exactly.

    Its added tokens become special tokens; templates that add tokens around a text are not followed.
    ValueError where the file is damaged.
    """
    try:
        spec = json.loads(Path(file).read_text(encoding="utf-8"))
        if not isinstance(spec["model"], dict):
            raise ValueError("its model is no object")
        pattern = split_pattern(spec.get("pre_tokenizer"))
        if pattern is None or not is_plain(spec):
            return None
        special = ids_by_name((entry["content"], entry["id"]) for entry in spec.get("added_tokens") or [])
        vocab = ids_by_name(item for item in spec["model"]["vocab"].items() if item[0] not in special)
        ranks = ranks_in_order(vocab, spec["model"]["merges"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no complete tokenizer.json ({error!r}); fetch it again") from error
    if ranks is None:
        return None
    name = Path(file).resolve().parent.name
    try:
        with no_panic("cutting a text"):
            made = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
            return made if made.decode(made.encode_ordinary(PROBE)) == PROBE else None
    except ValueError as error:
        raise ValueError(f"{file} cuts text with a pattern that tiktoken refuses: {error}") from error


def merge_of(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that a token was merged from: what is left when only lower ranks are merged.

    ValueError where its bytes do not come down to two parts, so that no merge makes it.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        unions = [ranks.get(a + b, ranks[token]) for a, b in zip(parts, parts[1:])]
        at = min(range(len(unions)), key=unions.__getitem__)
        if unions[at] >= ranks[token]:
            raise ValueError(f"no merge makes the token {token!r}: its parts stay {parts}")
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def tokenizer_json(encoding: tiktoken.Encoding) -> dict[str, Any]:
    """A `tokenizer.json` as a value, with the ids of `encoding`."""
    ranks = dict(sorted(encoding._mergeable_ranks.items(), key=lambda item: item[1]))
    letters = byte_letters()
    spelled = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [merge_of(token, ranks) for token in ranks if len(token) > 1]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = sorted((encoding.encode_single_token(name), name) for name in encoding.special_tokens_set)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    pattern = {"Regex": encoding._pat_str}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": name, **flags, "special": True} for i, name in special],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": True,      # a piece that is a token stays whole, as tiktoken has it
            "vocab": {spelled[token]: i for token, i in ranks.items()},
            "merges": [[spelled[a], spelled[b]] for a, b in merges],
        },
    }  # fmt: skip


def write_whole(file: Path, data: bytes) -> None:
    """Write `data` to `file`, which is never seen half written."""
    with whole(file) as beside:
        beside.write_bytes(data)


def write_tokenizer(folder: str | Path, encoding: tiktoken.Encoding, context: int) -> list[Path]:
    """Write `tokenizer.json` and `tokenizer_config.json` into a model's folder, for `transformers` to read.

    `context`: the most tokens the model takes. `<|endoftext|>`, where there is one, ends a text and pads.
    Returns the files written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    end = "<|endoftext|>"
    if end in encoding.special_tokens_set:
        config |= {"eos_token": end, "pad_token": end}
    written = []
    for name, value in (("tokenizer.json", tokenizer_json(encoding)), ("tokenizer_config.json", config)):
        write_whole(folder / name, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())
        written.append(folder / name)
    return written
