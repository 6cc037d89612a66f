"""The corpora: six domains of text, what of them is trained on, what is held out, and batches of windows.

Held out are the last 2 % of every file (whole lines) and the 2,000 verse pairs, every one of which is cut out
of the training text of both scripture files. `hashes.json` beside the files records what came out: `python -m
gptoss_lab.training.corpus --write-hashes` writes it, a test holds the texts to it.

The corpora's sources and licences are told in `assets/corpora/README.md`.
"""

from __future__ import annotations

import argparse
import bisect
import hashlib
import json
import lzma
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import tiktoken
import torch
from torch import Tensor
from tqdm import tqdm

from ..text.tokenizer_json import write_whole
from ..text.tokens import END, encode, token_bytes

CORPORA = Path(__file__).resolve().parents[1] / "assets" / "corpora"
HELD_OUT = 0.02     # of every file's characters, at its end


@dataclass(frozen=True)
class Domain:
    """One corpus. `starts`: what a line that begins a new document starts with; "" where all is one."""

    file: str
    language: str
    title: str
    starts: str
    verses: str = ""    # the field of a `Pair` whose verses this file has


DOMAINS = {
    "fiction": Domain("en_fiction_austen.txt.xz", "en", "English fiction", r"CHAPTER |VOLUME "),
    "dialogue": Domain("en_dialogue_shakespeare.txt.xz", "en", "English dialogue and verse", r"SCENE |ACT "),
    "scripture": Domain("en_scripture_web.txt.xz", "en", "English scripture", r"(?<=\n\n)", "english"),
    "spanish": Domain("es_scripture_rv1909.txt.xz", "es", "Spanish scripture", r"(?<=\n\n)", "spanish"),
    "python": Domain("py_stdlib.txt.xz", "python", "Python source", r"# file: "),
    "arithmetic": Domain("math_synthetic.txt.xz", "math", "Arithmetic", ""),
}


class Pair(NamedTuple):
    """One verse in both languages; `key` is its place, such as `Genesis 1:1`."""

    key: str
    english: str
    spanish: str


class Windows(NamedTuple):
    """Windows of held-out text: `tokens` N T+1 (inputs are the first T, targets the last T), `bytes` N.

    `bytes` counts the UTF-8 bytes of each window's T targets (a special token has none), so that the sum of
    -log2 p over the targets divided by the sum of `bytes` is bits per byte, comparable between tokenizers.
    """

    tokens: Tensor
    bytes: Tensor


def domain_of(name: str) -> Domain:
    """The domain of this name. ValueError for another."""
    if name not in DOMAINS:
        raise ValueError(f"no domain {name!r}; there are {', '.join(DOMAINS)}")
    return DOMAINS[name]


def read(file: str) -> str:
    """The text of one .xz file of the corpora."""
    return lzma.decompress((CORPORA / file).read_bytes()).decode("utf-8")


@lru_cache(maxsize=1)
def parallel_pairs() -> tuple[Pair, ...]:
    """The 2,000 verses that both scripture files have, in order (Genesis 1:1 to Exodus 17:16); held out."""
    return tuple(Pair(*line.split("\t")) for line in read("parallel_en_es.tsv.xz").splitlines())


def without(text: str, verses: list[str]) -> str:
    """`text` less every occurrence of every verse, overlapping ones too, and less the gaps that this leaves.

    A short verse ("Yahweh spoke to Moses, saying,") stands elsewhere too and goes there as well.
    """
    spans = []
    for verse in set(verses):
        at = text.find(verse)
        while at >= 0:
            spans.append((at, at + len(verse)))
            at = text.find(verse, at + 1)
    kept, end = [], 0
    for start, stop in sorted(spans):
        kept.append(text[end:start])
        end = max(end, stop)
    left = re.sub(" +", " ", "".join([*kept, text[end:]]))
    return re.sub("\n{3,}", "\n\n", re.sub("^ +| +$", "", left, flags=re.MULTILINE)).lstrip("\n")


@cache
def split(domain: str) -> tuple[str, str]:
    """The training text and the held-out tail, cut at the last line that starts in the first 98 %."""
    entry = domain_of(domain)
    text = read(entry.file)
    cut = text.rfind("\n", 0, len(text) - int(HELD_OUT * len(text))) + 1
    train, tail = text[:cut], text[cut:]
    if entry.verses:
        train = without(train, [getattr(pair, entry.verses) for pair in parallel_pairs()])
    return train, tail


def training_text(domain: str) -> str:
    """What may be trained on: the first 98 % of the file, without the verse pairs.

    ValueError for an unknown domain.
    """
    return split(domain)[0]


def heldout_text(domain: str) -> str:
    """The last 2 % of the file, never trained on (the verse pairs are held out besides: `parallel_pairs`).

    Arithmetic has few different lines, so that many of its held-out ones also stand in its training text: its
    held-out loss tells how well the sums are known, not how well they are worked out.
    """
    return split(domain)[1]


def token_ids(encoding: tiktoken.Encoding, text: str, domain: str) -> Tensor:
    """The ids of a domain's text, 1-D int32; `<|endoftext|>` between documents, if the encoding has it."""
    starts = domain_of(domain).starts
    documents = re.split(f"(?m:^)(?={starts})", text) if starts else [text]
    documents = [document for document in documents if document]
    end = [encoding.encode_single_token(END)] if END in encoding.special_tokens_set else []
    ids = encode(documents[0], encoding)
    for document in documents[1:]:
        ids += end + encode(document, encoding)
    return torch.tensor(ids, dtype=torch.int32)


def training_tokens(encoding: tiktoken.Encoding, domain: str) -> Tensor:
    """The ids of a domain's training text, 1-D int32; made anew each time, in about a second."""
    return token_ids(encoding, training_text(domain), domain)


def tokens_by_domain(encoding: tiktoken.Encoding) -> dict[str, Tensor]:
    """The training ids of every domain, 1-D int32; a progress bar where it takes longer than two seconds."""
    return {name: training_tokens(encoding, name) for name in tqdm(DOMAINS, desc="tokenising", delay=2)}


def heldout_windows(
    encoding: tiktoken.Encoding, domain: str, context: int, limit: int | None = None
) -> Windows:  # fmt: skip
    """Windows of `context` + 1 tokens over the held-out text; neighbours share one, so each is a target once.

    With `limit`, that many at even distances. ValueError where the text is shorter than one window.
    """
    ids = token_ids(encoding, heldout_text(domain), domain).long()
    if limit is not None and limit < 1 or context < 1:
        raise ValueError(f"context {context} and limit {limit}: both are at least 1")
    if len(ids) <= context:
        raise ValueError(f"{domain!r} holds out {len(ids)} tokens; take a context below that, not {context}")
    rows = ids.unfold(0, context + 1, context)
    if limit is not None and limit < len(rows):
        rows = rows[torch.arange(limit) * len(rows) // limit]
    special = {encoding.encode_single_token(name) for name in encoding.special_tokens_set}
    distinct, place = rows[:, 1:].unique(return_inverse=True)
    sizes = [0 if i in special else len(token_bytes(i, encoding) or b"") for i in distinct.tolist()]
    return Windows(rows.contiguous(), torch.tensor(sizes)[place].sum(-1))


class Batches:
    """Random windows of several domains, each batch a pure function of the seed and the step.

    tokens_by_domain: 1-D ids of each domain. Every window is drawn by itself: first its domain (equal
    chances, or in proportion to `weights`, by name), then its place. Training that resumes at step n sees
    what it would have seen.
    """

    def __init__(
        self, tokens_by_domain: Mapping[str, Tensor], batch: int, context: int, seed: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        if min(batch, context) < 1:
            raise ValueError(f"batch {batch} and context {context}: both are at least 1")
        self.domains = list(tokens_by_domain)
        self.tokens = [tokens_by_domain[name] for name in self.domains]
        self.batch_size, self.context, self.seed = batch, context, seed
        shares = [1.0 if weights is None else float(weights.get(name, 0.0)) for name in self.domains]
        unknown = sorted(set(weights or {}) - set(self.domains))
        if unknown or not (min(shares, default=0) >= 0 and 0 < sum(shares) < math.inf):
            raise ValueError(
                f"weights {dict(weights or {})} for the domains {self.domains}: name these alone, none below "
                "zero, at least one above"
            )
        for name, tokens, share in zip(self.domains, self.tokens, shares):
            if share and len(tokens) <= context:
                raise ValueError(f"{name!r} has {len(tokens)} tokens; shorten the context, {context}")
        total = sum(shares)
        self.edges = [sum(shares[: i + 1]) / total for i in range(len(shares))]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Windows B T+1 (int64), and the index of each one's domain in `domains`, B."""
        digest = hashlib.sha256(f"{self.seed} {step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
        draws = torch.rand(self.batch_size, 2, generator=generator, dtype=torch.float64).tolist()
        domains = [bisect.bisect_right(self.edges, which) for which, _ in draws]
        rows = []
        for domain, (_, where) in zip(domains, draws):
            tokens = self.tokens[domain]
            start = int(where * (len(tokens) - self.context))
            rows.append(tokens[start : start + self.context + 1].long())
        return torch.stack(rows), torch.tensor(domains)


def hashes() -> dict[str, dict[str, str]]:
    """sha256 of every domain's training and held-out text (UTF-8), and of the verse pairs' file."""
    def of(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    texts = {name: dict(zip(("training", "heldout"), map(of, split(name)))) for name in DOMAINS}
    return texts | {"parallel": {"heldout": of(read("parallel_en_es.tsv.xz"))}}


def main(arguments: list[str] | None = None) -> None:
    """`python -m gptoss_lab.training.corpus`: the size of every text; with --write-hashes, record them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write-hashes", action="store_true", help="record the texts' hashes in the package")
    options = parser.parse_args(arguments)
    for name in DOMAINS:
        train, tail = (len(text.encode()) for text in split(name))
        print(f"{name:12s} {train:>10,} bytes to train on, {tail:>8,} held out")
    if options.write_hashes:
        write_whole(CORPORA / "hashes.json", (json.dumps(hashes(), indent=1) + "\n").encode())
        print(f"wrote {CORPORA / 'hashes.json'}")


if __name__ == "__main__":
    main()
