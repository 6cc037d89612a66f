"""Tokens: byte-level BPE through tiktoken, from rank files that lie in the package.

A rank file lists byte strings in the order in which training merged them: `base64(bytes) rank`. Encoding cuts
the text with a pattern, then, inside each piece, keeps merging the neighbouring pair whose union has the
lowest rank. Ranks are the token ids. Any bytes can be encoded, so nothing is ever unknown, and a token may
well end inside a character.

Agrees with: tiktoken's own `gpt2` and `o200k_harmony` (`tiktoken_ext.openai_public`); `mini` is ours, made by
`gptoss_lab.training.tokenizer`. Nothing here touches the network.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import lzma
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path

import tiktoken

from .tokenizer_json import encoding_from, no_panic

RANKS = Path(__file__).resolve().parents[1] / "assets" / "tokenizers"
SHA256 = {  # of the unpacked rank files; the last two are the hashes that tiktoken states
    "mini.tiktoken": "ad00283737905871eed4454592c9ead6f177cce94f1eff6f3804503252fc36e6",
    "r50k_base.tiktoken": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    "o200k_base.tiktoken": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}

END = "<|endoftext|>"
LONGEST_GAP = 200_000   # spaces in a row; from about a million on, tiktoken's matcher panics

MINI_PATTERN = "|".join((
    r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+",    # a word, with the one space or sign before it: " word", "'ll"
    r"\p{N}",                                   # each digit by itself: no number is one id, and
    #                                             sums can be worked out column by column
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",          # signs, with the line end after them
    r"\s*[\r\n]+",                              # line ends, blank lines
    r"\s+(?!\S)",                               # spaces up to the last, which belongs to the next word
    r"\s+",
))
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
O200K_PATTERN = "|".join((
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
))

HARMONY_NAMED = {
    "startoftext": 199998, "endoftext": 199999, "return": 200002, "constrain": 200003, "channel": 200005,
    "start": 200006, "end": 200007, "message": 200008, "call": 200012,
}  # fmt: skip
HARMONY_SPECIAL = {
    **{f"<|{name}|>": token for name, token in HARMONY_NAMED.items()},
    **{f"<|reserved_{i}|>": i for i in range(200000, 201088) if i not in HARMONY_NAMED.values()},
    "<|endofprompt|>": 200018,  # the one id with two names: reserved_200018 is the other
}

# name: rank file, pattern, special tokens, ids in all
SHIPPED = {
    "mini": ("mini.tiktoken", MINI_PATTERN, {END: 4095}, 4096),
    "gpt2": ("r50k_base.tiktoken", GPT2_PATTERN, {END: 50256}, 50257),
    "o200k_harmony": ("o200k_base.tiktoken", O200K_PATTERN, HARMONY_SPECIAL, 201088),
}


def parse_ranks(data: bytes) -> dict[bytes, int]:
    """The ranks in a file of lines `base64(bytes) rank`. ValueError where a line is something else."""
    ranks = {}
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise ValueError(f"line {number} of a rank file is {line[:40]!r}, not base64 rank") from error
    return ranks


def read_ranks(file: str) -> dict[bytes, int]:
    """The ranks of one shipped file (plain or .xz), its hash checked.

    ValueError where its bytes are not those released with this version; FileNotFoundError where it is
    missing.
    """
    plain = RANKS / file
    data = plain.read_bytes() if plain.exists() else lzma.decompress((RANKS / f"{file}.xz").read_bytes())
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[file]:
        raise ValueError(f"{file} has sha256 {found}, expected {SHA256[file]}; install the package again")
    return parse_ranks(data)


@cache
def encoding(name: str) -> tiktoken.Encoding:
    """A shipped encoding: `mini` (4096 ids), `gpt2` (50257), `o200k_harmony` (201088; gpt-oss).

    Made once and kept. ValueError for another name.
    """
    if name not in SHIPPED:
        raise ValueError(f"no encoding {name!r}; there are {', '.join(SHIPPED)}")
    file, pattern, special, total = SHIPPED[name]
    return tiktoken.Encoding(
        name, pat_str=pattern, mergeable_ranks=read_ranks(file), special_tokens=special,
        explicit_n_vocab=total if len(special) == 1 else None,  # it counts names, and harmony has one more
    )  # fmt: skip


def encoding_of(folder: str | Path | None, model_type: str, vocab_size: int) -> tiktoken.Encoding | None:
    """The encoding of a model: by its kind and vocabulary, else from `tokenizer.json` in its folder.

    `model_type` as in config.json (gpt_oss, gpt2, qwen3_moe, ...). None where there is no tokenizer that
    tiktoken can stand for exactly; everything then works with ids. ValueError where the file is damaged, or
    has ids that the model has no rows for.
    """
    kind = model_type.replace("-", "_")
    if (kind, vocab_size) == ("gpt_oss", 201088):
        return encoding("o200k_harmony")
    if (kind, vocab_size) == ("gpt2", 50257):
        return encoding("gpt2")
    file = Path(folder) / "tokenizer.json" if folder is not None else None
    if file is None or not file.is_file():
        return None
    made = encoding_from(file)
    if made is not None and made.n_vocab > vocab_size:
        raise ValueError(
            f"{file} has ids up to {made.max_token_value}, but the model's vocabulary is {vocab_size}; "
            "they belong to different models: take the tokenizer.json that came with the weights"
        )
    return made


def encode(text: str, encoding: tiktoken.Encoding | None, allow_special: bool = False) -> list[int]:
    """The ids of `text`. What looks like a special token is plain text unless `allow_special`.

    ValueError where there is no encoding, `text` is not a string, has `LONGEST_GAP` spaces in a row, or the
    encoding's pattern gives it up.
    """
    if encoding is None:
        raise ValueError("this model has no tokenizer; give token ids instead of text")
    if not isinstance(text, str):
        raise ValueError(f"text to encode is {type(text).__name__}, expected str")
    if len(text) > LONGEST_GAP and re.search(rf"\s{{{LONGEST_GAP}}}", text):
        raise ValueError(f"text holds a run of {LONGEST_GAP} spaces or more; shorten it")
    with no_panic(f"cutting this text of {len(text)} characters with the pattern of its tokenizer.json"):
        if allow_special:
            return encoding.encode(text, allowed_special="all")
        return encoding.encode_ordinary(text)


@lru_cache(maxsize=8)
def special_names(encoding: tiktoken.Encoding) -> dict[int, str]:
    """Id to name of the special tokens; of two names for one id, the one that is not `reserved`."""
    names = sorted(encoding.special_tokens_set, key=lambda name: "reserved" not in name)
    return {encoding.encode_single_token(name): name for name in names}


def token_bytes(token: int, encoding: tiktoken.Encoding) -> bytes | None:
    """The bytes one id stands for (a special token: its name), or None where the encoding has no such id."""
    try:
        return encoding.decode_single_token_bytes(token)
    except (KeyError, OverflowError):
        return None


SHOWN = {" ": "·", "\n": "⏎", "\t": "⇥"}    # all in DejaVu Sans, where the control pictures are not
OURS = set("·⏎⇥⟨⟩◌")                        # escaped where the text has them, so that labels stay distinct
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"}


def label(data: bytes) -> str:
    """How the bytes of one token are shown: every byte can be seen, and different bytes look different.

    Space is ·, newline ⏎, tab ⇥; other characters without a shape are ⟨U+00A0⟩; bytes that are no whole
    character are ⟨C3⟩ or ⟨E2 80⟩; an accent on nothing stands on ◌.
    """
    out, loose, bare = [], [], True
    for char in [*data.decode("utf-8", "surrogateescape"), ""]:
        if "\udc80" <= char <= "\udcff":        # how surrogateescape hands over a byte that it cannot read
            loose.append(f"{ord(char) - 0xDC00:02X}")
            continue
        if loose:
            out.append(f"⟨{' '.join(loose)}⟩")
            loose, bare = [], True
        kind = unicodedata.category(char) if char else ""
        if char in SHOWN:
            out.append(SHOWN[char])
        elif char in OURS or kind in UNSEEN:
            out.append(f"⟨U+{ord(char):04X}⟩")
        else:
            out.append("◌" + char if bare and kind.startswith("M") else char)
        bare = char in SHOWN or char in OURS or kind in UNSEEN
    return "".join(out)


def labels(ids: Iterable[int], encoding: tiktoken.Encoding | None) -> list[str]:
    """One printable label per id (a list, or a tensor of one axis), for axes and tables.

    Special tokens are shown by name, spelled as `label` spells text, an id that the encoding lacks as
    ⟨id 4711⟩; without an encoding the ids themselves.
    """
    ids = [int(i) for i in ids]
    if encoding is None:
        return [str(i) for i in ids]
    special = special_names(encoding)
    shown = []
    for i in ids:
        data = special[i].encode() if i in special else token_bytes(i, encoding)
        shown.append(f"⟨id {i}⟩" if data is None else label(data))
    return shown


class TextStream:
    """Ids in, text out, never half a character.

        stream = TextStream(encoding)
        for token in tokens:
            print(stream.push(token), end="")
        print(stream.flush())

    Without an encoding the text is the ids, each followed by a space.
    """

    def __init__(self, encoding: tiktoken.Encoding | None) -> None:
        self.encoding = encoding
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that is complete with this id: often a word, "" inside a character.

        Bytes that can never become a character give U+FFFD, as does an id that the encoding lacks.
        """
        if self.encoding is None:
            return f"{int(token)} "
        data = token_bytes(int(token), self.encoding)
        return self.flush() + "\ufffd" if data is None else self.decoder.decode(data)

    def flush(self) -> str:
        """What is still held back, as U+FFFD; the stream is then new."""
        text = self.decoder.decode(b"", final=True)
        self.decoder.reset()
        return text


def decode_stream(ids: Iterable[int], encoding: tiktoken.Encoding | None) -> Iterator[str]:
    """The pieces of text that `ids` turn into as they come; together they are the whole text."""
    stream = TextStream(encoding)
    for token in ids:
        yield stream.push(token)
    yield stream.flush()
