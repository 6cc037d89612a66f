"""The miniatures' tokenizer: byte-level BPE of 4096 ids, learned from the training texts alone.

256 bytes, 3839 merges, and `<|endoftext|>` last (4095). Every domain gives the same number of bytes, in
pieces from all over its text, so that no language's words crowd out the others'; arithmetic gives all it has,
which is less. Digits never merge (see `MINI_PATTERN`).

`python -m gptoss_lab.training.tokenizer` makes `assets/tokenizers/mini.tiktoken` again, to the byte. It needs
the `tokenizers` library (the extra `train`); using the tokenizer does not.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

from ..text.tokenizer_json import byte_letters, write_whole
from ..text.tokens import MINI_PATTERN, RANKS, SHIPPED
from .corpus import DOMAINS, training_text

BYTES = 1_500_000       # a domain, at most
PIECE = 20_000          # characters


def sample(text: str, size: int = BYTES, piece: int = PIECE) -> Iterator[str]:
    """Pieces of whole lines from all over `text`, evenly spaced, `size` bytes in all (or the whole text)."""
    total = len(text.encode())
    step = max(piece, piece * total // size)
    for start in range(0, len(text), step):
        first = text.rfind("\n", 0, start) + 1
        last = text.rfind("\n", 0, start + piece) + 1
        if last > first:
            yield text[first:last]


def learn(texts: Iterator[str], size: int) -> list[bytes]:
    """`size` byte strings in the order of their ranks: all 256 bytes, then the merges.

    ImportError without the `tokenizers` library.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(MINI_PATTERN), behavior="isolated")
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([split, spell])
    alphabet = sorted(byte_letters().values())
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet))
    of_letter = {letter: byte for byte, letter in byte_letters().items()}
    vocab = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    return [bytes(of_letter[letter] for letter in token) for token, _ in vocab]


def main(arguments: list[str] | None = None) -> None:
    """`python -m gptoss_lab.training.tokenizer`: learn the miniatures' tokenizer and write its ranks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=RANKS / "mini.tiktoken", help="the rank file to write")
    options = parser.parse_args(arguments)
    _, _, special, total = SHIPPED["mini"]
    ranks = learn((piece for name in DOMAINS for piece in sample(training_text(name))), total - len(special))
    data = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks))
    write_whole(options.out, data)
    print(f"{len(ranks)} ranks in {options.out}, sha256 {hashlib.sha256(data).hexdigest()}")
    print("a new file takes effect when SHA256 in gptoss_lab/text/tokens.py says its hash")


if __name__ == "__main__":
    main()
