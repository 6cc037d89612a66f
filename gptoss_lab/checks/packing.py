"""Checks of MXFP4: from bytes to weights, and what a token reads of the experts."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import config as known
from ..weights import mxfp4
from . import judging
from .judging import Answer, Own


def unpack(own: Own) -> Answer:
    """own(blocks N n 16, scales N n) → N 32n: the weights that packed bytes stand for."""
    dice = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (5, 3, 16), generator=dice, dtype=torch.uint8)
    scales = torch.randint(115, 126, (5, 3), generator=dice, dtype=torch.uint8)
    low, high = blocks & 15, blocks >> 4
    codes = torch.stack((low, high), -1).flatten(-2).long()  # N n 32, in the weights' order
    values, power = torch.tensor(mxfp4.NIBBLES), torch.exp2(scales.float() - mxfp4.BIAS)[..., None]
    made = lambda codes, by=power: (values[codes.long()] * by).flatten(-2)
    signed = torch.where(codes < 8, codes, codes - 16)
    return judging.judge(
        own(blocks.clone(), scales.clone()), mxfp4.unpack(blocks, scales),
        "bytes, codes, values, and one scale for 32 of them.",
        {
            "You took the high four bits first; weight 2j is the low four bits of byte j.":
                made(torch.stack((high, low), -1).flatten(-2)),
            "You put all low halves before all high ones (files of another format, GGUF, pair so); here "
            "the two weights of a byte are neighbours.": made(torch.cat((low, high), -1)),
            "Your weights are never negative: codes 8 to 15 are the first eight with a minus.":
                made(codes % 8),
            "You read the codes as the numbers 0 to 15; look each up in the table of values.":
                (codes * power).flatten(-2),
            "You read the codes as whole numbers from −8 to 7; look each up in the table of values.":
                (signed * power).flatten(-2),
            "The scale is missing: times 2^(scale − 127).": made(codes, 1.0),
            "You multiplied with the scale byte itself; it is an exponent: 2^(scale − 127).":
                made(codes, scales.float()[..., None]),
            "You multiplied with scale − 127; that is the exponent: 2^(scale − 127).":
                made(codes, scales.float()[..., None] - mxfp4.BIAS),
            "The 127 is missing: 2^(scale − 127).": made(codes, torch.exp2(scales.float())[..., None]),
            "Half of what is right: the scale is 2^(scale − 127), not 128.": made(codes, power / 2),
            "You divided by the scale; multiply.": made(codes, 1 / power),
            "You used the first scale of each row for all its blocks; every block of 32 has its own.":
                made(codes, power[:, :1]),
        },
    )  # fmt: skip


def expert_bytes(own: Own) -> Answer:
    """own(config) → bytes of expert matrices (MXFP4, without biases) that decoding one token reads."""
    small = known.NAMED["gpt-oss-20b"].with_changes(
        n_layers=6, d_model=192, d_ff=256, n_experts=8, experts_per_token=3
    )
    configs = (known.NAMED["gpt-oss-20b"], known.NAMED["gpt-oss-120b"], small)

    def read(matrices: int = 3, layers: int | None = None, kept: int | None = None, every: bool = False,
             bits: float = 4.25) -> Tensor:  # fmt: skip
        sizes = []
        for c in configs:
            experts = (c.n_experts or 0) if every else kept or c.experts_per_token
            sizes.append((layers or c.n_layers) * experts * matrices * c.d_model * c.d_ff * bits / 8)
        return torch.tensor(sizes, dtype=torch.float64)

    given = [own(c) for c in configs]
    return judging.judge(
        None if None in given else torch.tensor([float(one) for one in given], dtype=torch.float64), read(),
        f"{float(read()[0]) / 1e9:.2f} GB of the 3.7 that a token of gpt-oss-20b reads.",
        {
            "You counted all experts; a token reads experts_per_token of them.": read(every=True),
            "You counted one expert a layer; a token reads experts_per_token of them.": read(kept=1),
            "The scales are missing: a block of 32 has 16 bytes and one scale byte, 4.25 bits a weight.":
                read(bits=4),
            "These are bits; eight are a byte.": read(bits=8 * 4.25),
            "That is bfloat16: in MXFP4 a weight takes 4.25 bits.": read(bits=16),
            "That is one layer; every layer has its experts.": read(layers=1),
            "You counted two matrices an expert; it has three of D × F: gate, up and down.": read(2),
            "You counted one matrix an expert; it has three of D × F: gate, up and down.": read(1),
        },
        atol=0.5,
    )  # fmt: skip
