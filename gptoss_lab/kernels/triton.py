"""MXFP4 × vectors on a card, in Triton: packed rows are read once and never written out unpacked.

    multiply   packed rows × float32 vectors: the call that `plain` and `avx2` answer on the CPU

A program takes one job (an expert, the first of its vectors, how many) and some rows; sums are float32, and
no number passes through subnormal float32. Held to float64 in Triton's interpreter (TRITON_INTERPRET=1) and
compiled for three generations of cards, both of which any machine can do; run on a card it never was.

Importing this file imports triton: only load(kernels="fast", device="cuda") does.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from ..model.experts import Experts
from ..weights.half import through
from ..weights.mxfp4 import PackedStack

ROWS = 16  # rows of a program
BYTES = 64  # of each row that it takes at a time: four blocks
TOGETHER = 4  # vectors that a row meets once it is unpacked


@triton.jit
def half(nibble):  # type: ignore[no-untyped-def]  # Triton reads annotations, and knows its own alone
    """Half the value of a nibble, −0 included."""
    m = nibble & 7  # 0 1 2 3 4 5 6 7 → 0 1 2 3 4 6 8 12, four times what is asked for
    four = (m + (m > 4) + (m > 5) + 3 * (m > 6)).to(tl.float32)
    return tl.where((nibble & 8) != 0, -0.25 * four, 0.25 * four)


@triton.jit
def twofold(scale):  # type: ignore[no-untyped-def]
    """2^(scale − 126), twice what a scale byte means, so that none is subnormal; 255 is NaN."""
    power = ((scale + 1) << 23).to(tl.float32, bitcast=True)
    return tl.where(scale == 255, float("nan"), power)


@triton.jit
def rows_times_vectors(  # type: ignore[no-untyped-def]
    blocks, scales, x, jobs, out, height, n,
    ROWS: tl.constexpr, BYTES: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """One job and ROWS rows: out[vector, row] for its vectors, TOGETHER of them at a time."""
    expert = tl.load(jobs + 3 * tl.program_id(0))
    first = tl.load(jobs + 3 * tl.program_id(0) + 1)
    count = tl.load(jobs + 3 * tl.program_id(0) + 2)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    there = row < height
    place = expert * height + row  # int64, as jobs are: blocks of 120 experts pass 2³¹ bytes
    for start in range(0, count, TOGETHER):
        vector = start + tl.arange(0, TOGETHER)
        asked = vector < count
        total = tl.zeros((ROWS, TOGETHER), tl.float32)
        for at in range(0, 16 * n, BYTES):
            byte = at + tl.arange(0, BYTES)
            inside = byte < 16 * n
            mask = there[:, None] & inside[None, :]
            packed = tl.load(blocks + place[:, None] * 16 * n + byte[None, :], mask=mask, other=0)
            scale = tl.load(scales + place[:, None] * n + (byte // 16)[None, :], mask=mask, other=0)
            packed, factor = packed.to(tl.int32), twofold(scale.to(tl.int32))
            shown = asked[:, None] & inside[None, :]
            entry = x + (first + vector)[:, None] * 32 * n + 2 * byte[None, :]
            even = tl.load(entry, mask=shown, other=0.0)
            odd = tl.load(entry + 1, mask=shown, other=0.0)
            low, high = half(packed & 15) * factor, half(packed >> 4) * factor  # ROWS BYTES
            total += tl.sum(low[:, None, :] * even[None, :, :] + high[:, None, :] * odd[None, :, :], axis=2)
        target = out + (first + vector)[None, :] * height + row[:, None]
        tl.store(target, total, mask=there[:, None] & asked[None, :])


def multiply(blocks: Tensor, scales: Tensor, x: Tensor, jobs: Tensor, out: Tensor) -> None:
    """Packed rows times float32 vectors, all on one device and contiguous.

    blocks: E O n 16 and scales: E O n, uint8; x: N 32n; out: N O; jobs: J 3 int64, each an expert, the first
    of its vectors, and how many they are.
    """
    assert all(tensor.is_contiguous() for tensor in (blocks, scales, x, jobs, out))
    height, n = scales.shape[1:]
    if len(jobs):
        grid = (len(jobs), triton.cdiv(height, ROWS))
        with torch.cuda.device(x.device) if x.is_cuda else nullcontext():  # Triton takes the current one
            rows_times_vectors[grid](blocks, scales, x, jobs, out, height, n, ROWS, BYTES, TOGETHER)


class TritonStack(PackedStack):
    """One packed matrix per expert, multiplied as it is for as few tokens as are gathered.

    Nothing is asked of the card: which experts were chosen stays there. The many vectors that a prompt has
    for an expert go through it unpacked, as in `PackedStack`.
    """

    arithmetic = "fast (triton)"

    def forward(self, x: Tensor, index: int | Tensor) -> Tensor:
        """x N I through the matrix of one expert → N O; or x … I, each row through its own of
        `index` … → … O, float32.
        """
        if isinstance(index, int):
            return through(self, x, index) if self.compute == torch.float16 else super().forward(x, index)
        lead = torch.broadcast_shapes(x.shape[:-1], index.shape)
        flat = x.expand(*lead, x.shape[-1]).reshape(-1, x.shape[-1]).float().contiguous()
        experts, every = index.expand(lead).flatten(), torch.arange(len(flat), device=x.device)
        jobs = torch.stack((experts, every, torch.ones_like(every)), dim=1)
        y = x.new_empty(len(flat), self.shape[1], dtype=torch.float32)
        multiply(self.blocks, self.scales, flat, jobs, y)
        y = y.reshape(*lead, self.shape[1])
        return y if self.bias is None else y + self.bias[index].float()


def quicken(model: nn.Module) -> None:
    """Put such holders where a model holds packed experts."""
    for part in model.modules():
        if isinstance(part, Experts):
            part.few = 4  # nothing is unpacked, so four tokens' experts may stand together
            for name, child in list(part.named_children()):
                if isinstance(child, PackedStack):
                    stack = TritonStack(child.blocks.contiguous(), child.scales.contiguous(), child.bias)
                    stack.pairs, stack.factors, stack.compute = child.pairs, child.factors, child.compute
                    setattr(part, name, stack)
