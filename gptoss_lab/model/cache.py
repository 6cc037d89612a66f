"""Keys and values of the tokens so far: growing for dense layers, a ring of `window` for banded ones.

Both return keys, values and the keys' *positions* (−1 where there is nothing), so one rule, `visible`, serves
prompt, decoding, padding and every cache. Slots are filled in order of arrival; pad on the left, so that the
newest slots of every row are its newest tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import Config


class LayerCache:
    """One layer's keys and values. `size` slots in a ring: the context for a dense layer, its window for a
    banded one.
    """

    def __init__(
        self, size: int, batch: int, config: Config, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        shape = (batch, config.n_kv_heads, size, config.d_head)  # a head's keys lie together
        self.size = size
        self.k = torch.zeros(shape, dtype=dtype, device=device).transpose(1, 2)  # B S G C
        self.v = torch.zeros(shape, dtype=dtype, device=device).transpose(1, 2)
        self.positions = torch.full((batch, size), -1, dtype=torch.int64, device=device)
        self.seen = 0

    def extend(self, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add T tokens (k, v: B T G C; positions B T); return all keys, values and positions that they may
        see.

        A ring that has come round returns its slots as they lie, not in order of position.
        """
        old, new = min(self.seen, self.size), k.shape[1]
        if (
            old + new > self.size and new > 1
        ):  # a chunk that overflows the ring sees the old keys and all its own
            order = (torch.arange(old, device=k.device) + max(self.seen - self.size, 0)) % self.size
            seen_k = torch.cat((self.k[:, order], k), dim=1)
            seen_v = torch.cat((self.v[:, order], v), dim=1)
            seen_positions = torch.cat((self.positions[:, order], positions), dim=1)
            self.write(
                k[:, -self.size :],
                v[:, -self.size :],
                positions[:, -self.size :],
                skipped=max(new - self.size, 0),
            )
            return seen_k, seen_v, seen_positions
        self.write(k, v, positions)
        filled = min(self.seen, self.size)
        return self.k[:, :filled], self.v[:, :filled], self.positions[:, :filled]

    def write(self, k: Tensor, v: Tensor, positions: Tensor, skipped: int = 0) -> None:
        """Put tokens into the next slots, over the oldest once the ring is full."""
        self.seen += skipped
        new, first = k.shape[1], self.seen % self.size
        slots: slice | Tensor = slice(first, first + new)
        if first + new > self.size:  # round the ring's end
            slots = (torch.arange(new, device=k.device) + first) % self.size
        self.k[:, slots], self.v[:, slots] = k.to(self.k.dtype), v.to(self.v.dtype)
        self.positions[:, slots] = positions
        self.seen += new


class Cache:
    """A LayerCache for every layer: `length` slots where the layer is dense, its window where it is banded.

    length: the most tokens that it can hold; `cache.tokens` have come so far.
    """

    def __init__(
        self,
        config: Config,
        length: int,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.length, self.tokens = length, 0
        sizes = [min(length, window or length) for window in config.windows]
        self.layers = [LayerCache(size, batch, config, dtype, device) for size in sizes]

    def reserve(self, new: int) -> None:
        """Count `new` tokens in; ValueError where they do not fit."""
        if self.tokens + new > self.length:
            per_token = sum(2 * layer.k[0, 0].numel() * layer.k.element_size() for layer in self.layers)
            raise ValueError(
                f"{self.tokens + new} tokens exceed the cache's {self.length}; make it with "
                f"length={self.tokens + new} (at most {per_token / 1e3:.1f} KB a token)"
            )
        self.tokens += new
