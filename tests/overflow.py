"""A sentinel for float16: it raises where an operation makes infinity of finite numbers.

On a card what exceeds 65504 becomes infinite without a word; some operations later it is NaN, or is clamped
and merely wrong. Under the sentinel the first such operation is named.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Overflow(ArithmeticError):
    """A float16 result is infinite or NaN, though nothing that it was made of was."""


def finite(values: list[Any]) -> bool:
    """Whether all floating-point tensors are."""
    floats = (one for one in values if isinstance(one, torch.Tensor) and one.is_floating_point())
    return all(bool(one.isfinite().all()) for one in floats)


class Sentinel(TorchDispatchMode):
    """`with Sentinel() as sentinel:` every operation inside is looked at; `halves`: how many in float16."""

    def __init__(self) -> None:
        super().__init__()
        self.halves = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [one for one in tree_flatten(result)[0]
                if isinstance(one, torch.Tensor) and one.dtype == torch.float16]  # fmt: skip
        self.halves += bool(made)
        empty = func._schema.name.startswith(("aten::empty", "aten::new_empty"))  # not yet anything
        if made and not empty and not finite(made) and finite(tree_flatten((args, kwargs))[0]):
            raise Overflow(f"{func} in float16")
        return result
