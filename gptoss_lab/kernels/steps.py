"""Decoding, half a block a call: forms of `Attention` and `Experts` for one token and a cache.

Each stands on one module, in the place of its `forward`, and takes over where it can: one token, on the CPU,
without gradients, in a layer of which nobody asks for what lies within. Otherwise the module's own `forward`
answers. What a router chose may be kept without leaving the fast form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..config import Config
from ..model.attention import Attention
from ..model.cache import LayerCache
from ..model.experts import Experts
from ..points import CATALOGUE
from ..tap import SILENT, Recorder, Tap
from .forms import NumbaForm, bits
from .holders import FastLinear, here
from .seams import Answers, Attend, Project


def hidden(room: str, *shown: str) -> tuple[str, ...]:
    """The names of a room's points, less those that are shown."""
    parts = [point.name.rsplit(".", 1) for point in CATALOGUE if f".{room}." in point.name]
    return tuple(name for _, name in parts if name not in shown)


def asks(tap: Tap, names: tuple[str, ...]) -> bool:
    """Whether a tap asks for any of these, or may: an edit may read all that its block made before it, and a
    tap of another kind sees everything that passes."""
    if tap is SILENT:
        return False
    return not isinstance(tap, Recorder) or bool(tap.edits) or any(map(tap.wants, names))


def like_gpt_oss(config: Config) -> bool:
    """Whether blocks have what these kernels know: RMSNorm, RoPE, heads of 16n channels, no dropout."""
    plain = config.norm == "rms" and config.positions == "rope" and not config.qk_norm and not config.dropout
    return plain and config.d_head % 16 == 0


class Step:
    """What both forms share: the module, the kernels, and the module's weights as numpy sees them.

    The views share memory with the weights, so that one changed in its place is seen; where the module holds
    others they are made anew.
    """

    hidden: tuple[str, ...] = ()

    def __init__(self, module: Any, form: NumbaForm) -> None:
        self.module, self.form = module, form
        self.places: tuple[int, ...] = ()
        self.views: list[Any] | None = None

    def on(self, module: Any) -> Step | None:
        """The same, for another module that holds these weights; None where its config asks for others."""
        return type(self)(module, self.form) if self.fits(module) else None

    @staticmethod
    def fits(module: Any) -> bool:
        """Whether the kernels know how to answer for this module."""
        raise NotImplementedError

    def tensors(self) -> list[Tensor | None] | None:
        """The module's weights; None where something else stands in its parts than `attach` put there."""
        raise NotImplementedError

    def weights(self) -> list[Any] | None:
        """The same for numpy; None where the kernels cannot read them (not bfloat16, not on the CPU)."""
        tensors = self.tensors()
        if tensors is None:
            return None
        places = tuple([0 if one is None else one.data_ptr() for one in tensors])
        if places != self.places:
            self.places, kinds = places, (torch.bfloat16, torch.uint8)
            readable = all(one is None or one.is_cpu and one.dtype in kinds for one in tensors)
            self.views = [view(one) for one in tensors] if readable else None
        return self.views

    def usable(self, x: Tensor, tap: Tap) -> bool:
        """Whether this is one token, on the CPU, for which no gradient and nothing hidden is asked."""
        if x.shape[:2] != (1, 1) or x.dtype != torch.float32 or asks(tap, self.hidden):
            return False
        return here(x, x) and not torch.compiler.is_compiling()


def view(tensor: Tensor | None) -> Any:
    """A weight for numpy: packed bytes as they are, bfloat16 as its bits."""
    packed = tensor is not None and tensor.dtype == torch.uint8
    return tensor.numpy() if packed and tensor is not None else bits(tensor)


class AttentionStep(Step):
    """`Attention.forward` for one token and a cache."""

    hidden = hidden("attention", "out")

    @staticmethod
    def fits(module: Attention) -> bool:
        """Where the block is like gpt-oss's."""
        return like_gpt_oss(module.config)

    def tensors(self) -> list[Tensor | None] | None:
        """Norm, the weights of q, k, v and o, their biases, sinks."""
        layer = self.module
        lines = [layer.q, layer.k, layer.v, layer.o]
        if any(type(line) is not FastLinear for line in lines):
            return None
        if type(layer.attend) is not Attend or type(layer.project) is not Project:
            return None
        biases = [line.bias for line in lines]
        sinks = layer.sinks if layer.config.sinks else None
        return [layer.norm.scale, *(line.weight for line in lines), *biases, sinks]

    def __call__(
        self, x: Tensor, positions: Tensor, cache: LayerCache | None = None, tap: Tap = SILENT
    ) -> Tensor:
        """As `Attention.forward`."""
        layer = self.module
        usable = cache is not None and cache.k.dtype == torch.float32 and self.usable(x, tap)
        weights = self.weights() if usable else None
        if cache is None or weights is None or positions.shape != (1, 1):
            return Attention.forward(layer, x, positions, cache, tap)
        scale, q, k, v, o, *biases, o_bias, sinks = weights
        slot, out = cache.seen % cache.size, torch.empty(1, x.shape[-1])
        cache.seen += 1
        held = (cache.k.numpy(), cache.v.numpy(), cache.positions.numpy())
        numbers = (slot, min(cache.seen, cache.size), layer.window or 0)
        self.form.run(
            self.form.single.attend_one, x[0].numpy(), positions.numpy(), scale, layer.norm.eps, (q, k, v),
            tuple(biases), o, o_bias, sinks, layer.frequencies.numpy(), layer.concentration, *held, *numbers,
            out.numpy(),
        )  # fmt: skip
        return tap("out", out[None])


class ExpertsStep(Step):
    """`Experts.forward` for one token: the router in one call, and where `Answers` stands in its seam, all
    chosen experts and their sum in another."""

    hidden = hidden("experts", "norm", "logits", "choice", "weight", "out")

    @staticmethod
    def fits(module: Experts) -> bool:
        """Where the block is like gpt-oss's."""
        return like_gpt_oss(module.config)

    def tensors(self) -> list[Tensor | None] | None:
        """Norm, router and its bias; both stacks, where `Answers` would read them."""
        layer = self.module
        if type(layer.router) is not FastLinear:
            return None
        stacks = [layer.gate_up, layer.down] if type(layer.answers) is Answers else []
        packed = [part for one in stacks for part in (one.blocks, one.scales, one.bias)]
        return [layer.norm.scale, layer.router.weight, layer.router.bias, *packed]

    def __call__(self, x: Tensor, tap: Tap = SILENT) -> Tensor:
        """As `Experts.forward`."""
        layer, config, run = self.module, self.module.config, self.form.run
        weights = self.weights() if self.usable(x, tap) else None
        if weights is None:
            return Experts.forward(layer, x, tap)
        scale, router, bias, *stacks = weights
        normed, logits = torch.empty(x.shape), torch.empty(1, 1, config.n_experts)
        weight = torch.empty(1, 1, config.experts_per_token)
        choice = torch.empty(weight.shape, dtype=torch.int64)
        made = [one[0].numpy() for one in (normed, logits, choice, weight)]
        run(self.form.single.route_one, x[0].numpy(), scale, layer.norm.eps, router, bias, *made)
        for name, value in {"norm": normed, "logits": logits, "choice": choice, "weight": weight}.items():
            tap(name, value)
        if not stacks:
            each = layer.answers(normed, choice, tap)
            return tap("out", torch.einsum("btkd,btk->btd", each.float(), weight))
        out = torch.empty(x.shape)
        numbers = (config.swiglu_limit, config.swiglu_alpha, self.form.threads)
        run(self.form.mixture, made[0], made[2], made[3], *stacks, *numbers, out[0].numpy())
        return tap("out", out)
