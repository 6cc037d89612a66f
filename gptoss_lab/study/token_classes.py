"""What kind of token one is, by its bytes alone: letters, a digit, a sign, spaces, a line end."""

from __future__ import annotations

import tiktoken
import torch
from torch import Tensor

from ..text.tokens import token_bytes

CLASSES = (
    "space and letters", "letters", "sign and letters", "digits", "punctuation", "other signs", "spaces",
    "line end", "part of a character", "special",
)  # fmt: skip
PUNCTUATION = set(".,;:!?'\"()-¿¡«»“”‘’—–…")


def class_of(data: bytes) -> str:
    """The class of a token's bytes, one of `CLASSES` but the last.

    "letters" begin a line, or go on with a word; "space and letters" begin a word. A sign with spaces or line
    ends around it is a sign; "sign and letters" is such as `_name` or `"The`. "other signs" are those of code
    and sums, and where both kinds stand in one token.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "part of a character"
    bare = text.strip()
    if not bare:
        return "line end" if "\n" in text or "\r" in text else "spaces"
    if any(char.isnumeric() for char in bare):
        return "digits"
    if any(char.isalpha() for char in bare):
        if not bare[0].isalpha():
            return "sign and letters"
        return "letters" if text[0] == bare[0] else "space and letters"
    return "punctuation" if set(bare) <= PUNCTUATION else "other signs"


def classes(encoding: tiktoken.Encoding, ids: Tensor) -> Tensor:
    """The index in `CLASSES` of every id, in the same shape."""
    special = {encoding.encode_single_token(name) for name in encoding.special_tokens_set}
    distinct, place = ids.unique(return_inverse=True)
    names = ["special" if i in special else class_of(token_bytes(i, encoding) or b"")
             for i in distinct.tolist()]  # fmt: skip
    return torch.tensor([CLASSES.index(name) for name in names])[place]
