"""The feed-forward half of a block: one dense MLP, or a router that chooses K of E small ones for each token.

    GELU(x)  = x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³)))       GPT-2 uses the tanh form      arXiv 1606.08415
    SwiGLU   = SiLU(gate) · up;  SiLU(x) = x·sigmoid(x)        Qwen3; SiLU is Swish          arXiv 2002.05202
    clamped  = g·sigmoid(1.702 g) · (u + 1)                    gpt-oss; g = min(gate, 7), u = clamp(up, −7, 7)
    mixture  = Σ weight_k · expert_k(x)         the K largest logits, softmax over those K arXiv 1701.06538

Agrees with transformers' GptOssMLP and Qwen3MoeSparseMoeBlock and with openai/gpt-oss `torch/model.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Config
from ..tap import SILENT, Tap
from .linear import Linear, Stack
from .norm import make_norm


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return F.gelu(x, approximate="tanh")


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Plain SwiGLU: silu(gate) · up."""
    return F.silu(gate) * up


def clamped_swiglu(gate: Tensor, up: Tensor, limit: float = 7.0, alpha: float = 1.702) -> Tensor:
    """gpt-oss's SwiGLU: the gate is clamped from above only, up on both sides and shifted by one."""
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)


def halves(gate_up: Tensor) -> Tensor:
    """Even rows are gates, odd rows ups: … 2F → 2 … F, each laid out densely, so that a tap, which may copy
    them, leaves the bits (silu rounds otherwise on strided numbers).
    """
    return gate_up.unflatten(-1, (-1, 2)).movedim(-1, 0).contiguous()


def activate(config: Config, gate: Tensor, up: Tensor | None = None) -> Tensor:
    """The activation that a config names, of a gate and an up, or of one number where there is no gate."""
    if up is None:
        return F.silu(gate) if config.activation == "silu" else gelu(gate)
    plain = config.activation == "swiglu"
    return swiglu(gate, up) if plain else clamped_swiglu(gate, up, config.swiglu_limit, config.swiglu_alpha)


class MLP(nn.Module):
    """One dense MLP with its norm: up, GELU or SiLU, down; or gate and up, SwiGLU, down."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.norm = make_norm(config.norm, config.d_model, config.norm_eps)
        if config.gated:
            self.gate = Linear(config.d_model, config.d_ff, config.bias)
        self.up = Linear(config.d_model, config.d_ff, config.bias)
        self.down = Linear(config.d_ff, config.d_model, config.bias)

    def forward(self, x: Tensor, tap: Tap = SILENT) -> Tensor:
        """x: B T D → B T D, what the MLP adds to the residual."""
        x = tap("norm", self.norm(x))
        if self.config.gated:
            gate, up = tap("gate", self.gate(x)), tap("up", self.up(x))  # B T F
            act = tap("act", activate(self.config, gate, up))
        else:
            act = tap("act", activate(self.config, tap("pre", self.up(x))))
        return tap("out", self.down(act))


class Experts(nn.Module):
    """A router and its experts, with their norm. Rows of `gate_up` alternate: gate 0, up 0, gate 1, up 1, …;
    with GELU or SiLU there is no gate, and every row is an up.

    `answers` is a seam: a faster form with its signature may be put there. This one gathers the matrices for
    up to `few` tokens (static shapes, so it compiles whole) and walks over the experts for more.
    """

    few = 4

    def __init__(self, config: Config) -> None:
        super().__init__()
        assert config.n_experts is not None
        self.config = config
        self.norm = make_norm(config.norm, config.d_model, config.norm_eps)
        self.router = Linear(config.d_model, config.n_experts, config.bias)
        into = config.d_ff * (2 if config.gated else 1)
        self.gate_up = Stack(config.n_experts, config.d_model, into, config.bias)
        self.down = Stack(config.n_experts, config.d_ff, config.d_model, config.bias)

    def forward(self, x: Tensor, tap: Tap = SILENT) -> Tensor:
        """x: B T D → B T D, what the experts add to the residual."""
        x = tap("norm", self.norm(x))
        logits = tap("logits", self.router(x).float())  # B T E
        choice = tap("choice", logits.topk(self.config.experts_per_token).indices)  # B T K
        weight = tap("weight", logits.gather(-1, choice).softmax(-1))  # weights follow an edited choice
        each = tap("each", self.answers(x, choice, tap))  # B T K D, the down bias included
        return tap("out", torch.einsum("btkd,btk->btd", each.float(), weight))

    def answers(self, x: Tensor, choice: Tensor, tap: Tap = SILENT) -> Tensor:
        """What each chosen expert answers, before its weight. x: B T D, choice: B T K → B T K D."""
        if x.shape[:-1].numel() > self.few:
            return self.walk(x, choice, tap)
        gate_up = self.gate_up(x[:, :, None].expand(-1, -1, choice.shape[-1], -1), choice)
        return self.down(self.activated(gate_up, tap), choice)

    def activated(self, gate_up: Tensor, tap: Callable[[str, Tensor], Tensor]) -> Tensor:
        """gate and up, … 2F, or what GELU or SiLU is taken of, … F → … F."""
        if not self.config.gated:
            return tap("act", activate(self.config, tap("pre", gate_up)))
        gate, up = halves(gate_up)
        return tap("act", activate(self.config, tap("gate", gate), tap("up", up)))

    def walk(self, x: Tensor, choice: Tensor, tap: Tap = SILENT) -> Tensor:
        """The same, one expert at a time: a row for each token and choice, sorted by expert."""
        order = choice.flatten().argsort(stable=True)  # sorted row → token · K + k
        back = order.argsort()
        counts = choice.flatten().bincount().tolist()

        def through(stack: Stack, rows: Tensor) -> Tensor:
            return torch.cat([stack(part, e) for e, part in enumerate(rows.split(counts)) if len(part)])

        def shown(name: str, rows: Tensor) -> Tensor:  # B T K F while the tap looks, sorted rows otherwise
            if not tap.wants(name):
                return rows
            return tap(name, rows[back].unflatten(0, choice.shape)).flatten(0, 2)[order]

        rows = x.flatten(0, 1)[order // choice.shape[-1]]
        act = self.activated(through(self.gate_up, rows), shown)
        return through(self.down, act)[back].unflatten(0, choice.shape)
