"""MXFP4: blocks of 32 neighbours, 4 bits each, that share one power of two: 4.25 bits a weight.

    value = (−1)^sign · {0, ½, 1, 1½, 2, 3, 4, 6} · 2^(scale − 127)

A block is 16 bytes and one scale byte; element 2j is the low nibble of byte j, element 2j + 1 the high one; a
scale of 255 is NaN. Values are exact in float32 and in bfloat16 (from scale 253 on the largest are beyond
both: infinite).

Source: OCP Microscaling Formats (MX) v1.0, E2M1 with E8M0 scales. Agrees with the unpacking in openai/gpt-oss
`torch/weights.py` and in transformers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 32
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # nibbles 0 to 7; 8 to 15 are their negatives, −0 first
BIAS = 127
NAN = 255
LARGEST_SCALE = 252  # 6 · 2^(253 − 127) is beyond float32
LARGEST_EXPONENT = 2  # of a magnitude: 4 and 6 are 2² and 1½ · 2²


def constant(values: list[Any]) -> Tensor:
    """A small table: float32 on the CPU, whatever the defaults are."""
    return torch.tensor(values, dtype=torch.float32, device="cpu")


NIBBLES = [*MAGNITUDES, *(-magnitude for magnitude in MAGNITUDES)]
PAIRS = constant([[NIBBLES[byte & 15], NIBBLES[byte >> 4]] for byte in range(256)])  # a byte's two values
FACTORS = constant([2.0 ** (byte - BIAS) for byte in range(NAN)] + [float("nan")])  # a scale byte's value

# Where rounding goes over to the next magnitude: a tie stays below, unless the code above is the even one.
HALF_WAY = constant([(low + high) / 2 for low, high in zip(MAGNITUDES, MAGNITUDES[1:])])
HALF_WAY[1::2] = torch.nextafter(HALF_WAY[1::2], HALF_WAY.new_zeros(()))


def unpack(
    blocks: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32,
    tables: tuple[Tensor, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """The values of packed weights: blocks uint8 … n 16, scales uint8 … n → … 32n, float32 or bfloat16.

    tables: PAIRS and FACTORS where the weights lie, which whoever unpacks often keeps there. With them
    float16 is allowed too, for weights that are known to fit it (`half`).

    ValueError where shapes or dtypes do not fit together.
    """
    if blocks.dtype != torch.uint8 or scales.dtype != torch.uint8:
        raise ValueError(f"blocks are {blocks.dtype} and scales {scales.dtype}; both must be torch.uint8")
    if blocks.shape[-1:] != (BLOCK // 2,) or blocks.shape[:-1] != scales.shape:
        raise ValueError(f"blocks of shape {tuple(blocks.shape)} with scales of shape {tuple(scales.shape)}; "
                         "expected … n 16 and … n")  # fmt: skip
    if dtype not in (torch.float32, torch.bfloat16) and tables is None:
        raise ValueError(f"MXFP4 is exact in torch.float32 and torch.bfloat16, not in {dtype}")
    pairs, factors = (table.to(blocks.device, dtype) for table in tables or (PAIRS, FACTORS))
    value = F.embedding(blocks.int(), pairs).flatten(-2)  # … n 32: a byte is two values, a scale one factor
    return value.mul_(factors[scales.int()][..., None]).flatten(-2)


def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round weights to MXFP4 along their last axis: … 32n → blocks uint8 … n 16, scales uint8 … n.

    As the MX standard proposes: a block's scale is 2^(⌊log₂ largest⌋ − 2), each value goes to the nearest
    magnitude (a tie to the even code), and what exceeds 6 after scaling becomes 6. What MXFP4 can hold is
    kept exactly, −0 included; a block of zeros has scale 1. Computed in float32. ValueError for NaN,
    infinity, or a last axis that is no multiple of 32.
    """
    if not weight.is_floating_point() or weight.ndim == 0 or weight.shape[-1] % BLOCK:
        raise ValueError(f"cannot pack {weight.dtype} of shape {tuple(weight.shape)}; expected floating "
                         f"point whose last axis is a multiple of {BLOCK}")  # fmt: skip
    blocked = weight.detach().float().contiguous().unflatten(-1, (-1, BLOCK))  # … n 32
    largest = blocked.abs().amax(-1)
    if not bool(largest.isfinite().all()):
        raise ValueError("cannot pack NaN or infinity: MXFP4 has neither")
    exponent = torch.frexp(largest).exponent - 1 - LARGEST_EXPONENT  # frexp's mantissa is in [½, 1)
    exponent = torch.where(largest > 0, exponent.clamp(min=-BIAS), 0)
    # 2^exponent may be subnormal and 2^−exponent too large for one factor: two exact steps instead
    half = exponent // 2
    scaled = torch.ldexp(torch.ldexp(blocked.abs(), -half[..., None]), (half - exponent)[..., None])
    code = torch.bucketize(scaled, HALF_WAY.to(weight.device)) + 8 * torch.signbit(blocked)
    blocks = (code[..., 0::2] | code[..., 1::2] << 4).to(torch.uint8)
    return blocks, (exponent + BIAS).to(torch.uint8)


def round_to_mxfp4(weight: Tensor) -> Tensor:
    """The nearest weights that MXFP4 can hold, in the dtype they came in: … 32n → … 32n. See `pack`."""
    return unpack(*pack(weight)).to(weight.dtype)


class PackedStack(nn.Module):
    """One packed matrix per expert, in the place of `model.linear.Stack`: the same call, the same attributes.

    blocks: E O n 16 and scales: E O n, uint8, with I = 32n inputs; bias: E O or None. Only the experts asked
    for are unpacked, and only while they multiply. The tables lie where the weights lie.
    """

    compute: torch.dtype = torch.float32
    blocks: Tensor
    scales: Tensor
    pairs: Tensor
    factors: Tensor

    def __init__(self, blocks: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("blocks", blocks)
        self.register_buffer("scales", scales)
        self.register_buffer("pairs", PAIRS, persistent=False)
        self.register_buffer("factors", FACTORS, persistent=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """E O I, however the matrices are kept."""
        return (*self.scales.shape[:2], BLOCK * self.scales.shape[2])

    def matrix(self, index: int | Tensor) -> Tensor:
        """The matrices of the experts `index` (one number, or a tensor of any shape): … O I, in `compute`."""
        return unpack(self.blocks[index], self.scales[index], self.compute, (self.pairs, self.factors))

    def forward(self, x: Tensor, index: int | Tensor) -> Tensor:
        """x N I through the matrix of one expert → N O; or x … I, each row through its own of `index` … → …
        O."""
        if isinstance(index, int):
            bias = None if self.bias is None else self.bias[index].to(self.compute)
            return F.linear(x.to(self.compute), self.matrix(index), bias)
        y = torch.einsum("...oi,...i->...o", self.matrix(index), x.to(self.compute))
        return y if self.bias is None else y + self.bias[index].to(self.compute)
