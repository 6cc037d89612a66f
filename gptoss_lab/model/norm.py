"""LayerNorm and RMSNorm: a token's vector brought to unit size, then scaled per channel.

    LayerNorm(x) = (x - mean) / sqrt(var + eps) · scale + bias       arXiv 1607.06450, GPT-2
    RMSNorm(x)   = x / sqrt(mean(x²) + eps) · scale                  arXiv 1910.07467, gpt-oss and Qwen3

Both are computed in float32 and cast down last: a scale applied after the cast would be rounded twice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def layer_norm(x: Tensor, scale: Tensor, bias: Tensor, eps: float) -> Tensor:
    """x … D with mean 0 and variance 1 over D (variance with divisor D), then · scale D + bias D."""
    wide = x.float()
    centred = wide - wide.mean(-1, keepdim=True)
    unit = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return (unit * scale.float() + bias.float()).to(x.dtype)


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x … D with mean square 1 over D, then · scale D."""
    wide = x.float()
    unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (unit * scale.float()).to(x.dtype)


class LayerNorm(nn.Module):
    """LayerNorm with its scale and bias."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """x … D → … D."""
        return layer_norm(x, self.scale, self.bias, self.eps)


class RMSNorm(nn.Module):
    """RMSNorm with its scale."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """x … D → … D."""
        return rms_norm(x, self.scale, self.eps)


def make_norm(kind: str, width: int, eps: float) -> LayerNorm | RMSNorm:
    """The norm that a config names: "layer" or "rms"."""
    return (LayerNorm if kind == "layer" else RMSNorm)(width, eps)
