"""Decoding in few calls: forms of `Attention`, `Experts` and the `Transformer` for one token and a cache.

Each stands on one module, in the place of its `forward`, and takes over where it can: one token, on the CPU,
without gradients, where nobody asks for what lies within, and no part was replaced or has a hook. Otherwise
the module's own `forward` answers, whose parts may have forms of their own: a tap that looks into one layer
leaves the others fast. What routers chose may be kept from every form.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules import module as everywhere

from ..config import Config
from ..model.attention import Attention
from ..model.cache import Cache, LayerCache
from ..model.experts import Experts
from ..model.norm import RMSNorm
from ..model.transformer import Block, Transformer, check
from ..points import CATALOGUE, general
from ..tap import SILENT, Recorder, Tap
from ..weights.mxfp4 import BLOCK
from .forms import NumbaForm, bits
from .holders import FastLinear, FastStack, here
from .seams import Answers, Attend, Project

KINDS = (torch.bfloat16, torch.uint8)
ATTENTION, EXPERTS = 10, 9  # how many weights the two halves of a block have, norms included


def hidden(room: str, *shown: str) -> tuple[str, ...]:
    """The names of a room's points, less those that are shown."""
    parts = [point.name.rsplit(".", 1) for point in CATALOGUE if f".{room}." in point.name]
    return tuple(name for _, name in parts if name not in shown)


def asks(tap: Tap, names: tuple[str, ...]) -> bool:
    """Whether a tap asks for any of these, or may: an edit may read all that its block made before it, and a
    tap of another kind sees everything that passes."""
    if tap is SILENT:
        return False
    if type(tap) is not Recorder or any(map(tap.wants, names)):
        return True
    block = tap.prefix[: tap.prefix.find(".", len("blocks.")) + 1]  # "blocks.3." of "blocks.3.attention."
    return any(name.startswith(block) for name in tap.edits)


def like_gpt_oss(config: Config) -> bool:
    """Whether blocks have what these kernels know: RMSNorm, RoPE, heads of 16n channels, no dropout."""
    plain = config.norm == "rms" and config.positions == "rope" and not config.qk_norm and not config.dropout
    return plain and config.d_head % 16 == 0


def hooked(part: Any) -> bool:
    """Whether somebody hangs on a module, or on all of them."""
    return bool(part._forward_hooks or part._forward_pre_hooks or everywhere._global_forward_hooks
                or everywhere._global_forward_pre_hooks)  # fmt: skip


def untouched(part: Any, kind: type) -> bool:
    """Whether a part is of this very kind, answers as that does, and nobody hangs on it."""
    return type(part) is kind and "forward" not in vars(part) and not hooked(part)


class Step:
    """What both forms share: the module, the kernels, and the module's weights as numpy sees them.

    The views share memory with the weights, so that one changed in its place is seen; where the module holds
    others, or holds them in another way, they are made anew.
    """

    hidden: tuple[str, ...] = ()

    def __init__(self, module: Any, form: NumbaForm) -> None:
        self.module, self.form = module, form
        self.made: tuple[list[Any], list[Any] | None] = [], None  # what the weights were, and their views

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module, "form": self.form, "made": ([], None)}

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

    def wanted(self) -> list[Any]:
        """Their shapes, by the config; 0 for one that it does not have."""
        raise NotImplementedError

    def weights(self) -> list[Any] | None:
        """The same for numpy; None where the kernels cannot read them (not bfloat16, not on the CPU, of other
        shapes, not in a piece), or a gradient is asked for."""
        tensors = self.tensors()
        if tensors is None:
            return None
        if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors):
            return None
        lie = [one if one is None else (one.data_ptr(), one.dtype, one.shape, one.stride())
               for one in tensors]  # fmt: skip
        known, views = self.made
        if lie != known:
            readable = all(one is None or one.is_cpu and one.dtype in KINDS and one.is_contiguous()
                           for one in tensors)  # fmt: skip
            readable &= [0 if one is None else tuple(one.shape) for one in tensors] == self.wanted()
            views = [view(one) for one in tensors] if readable else None
            self.made = lie, views
        return views

    def takes(self, tap: Tap) -> bool:
        """Whether it answers beside this tap, which stands in the module's room; a trace tells it."""
        return not asks(tap, self.hidden)

    def usable(self, x: Tensor, tap: Tap) -> bool:
        """Whether this is one token, on the CPU, for which no gradient and nothing hidden is asked."""
        if x.shape[:2] != (1, 1) or x.dtype != torch.float32 or not self.takes(tap):
            return False
        return here(x, x) and not torch.compiler.is_compiling()


def view(tensor: Tensor | None) -> Any:
    """A weight for numpy: packed bytes as they are, bfloat16 as its bits."""
    packed = tensor is not None and tensor.dtype == torch.uint8
    return tensor.numpy() if packed and tensor is not None else bits(tensor)


def kept(cache: LayerCache) -> tuple[Any, Any, Any]:
    """A cache for numpy: keys and values 1 G S C, as they lie, and positions 1 S."""
    return cache.k.transpose(1, 2).numpy(), cache.v.transpose(1, 2).numpy(), cache.positions.numpy()


def as_made(cache: LayerCache, config: Config) -> bool:
    """Whether a cache is of one row, for this model, float32 on the CPU, a head's keys together."""
    shape, where = (1, config.n_kv_heads, cache.size, config.d_head), cache.positions
    for one in (cache.k.transpose(1, 2), cache.v.transpose(1, 2)):
        if one.dtype != torch.float32 or not one.is_cpu or one.shape != shape or not one.is_contiguous():
            return False
    return where.dtype == torch.int64 and where.shape == (1, cache.size) and where.is_contiguous()


def shapes(config: Config) -> list[Any]:
    """Of a block's weights in the order of both steps, 0 for what a model lacks: those of its norm, q, k, v,
    o, their biases, sinks; norm, router, its bias; two packed stacks."""
    D, F, E, C = config.d_model, config.d_ff, config.n_experts, config.d_head
    heads, groups = config.n_heads * C, config.n_kv_heads * C
    biases = [(heads,), (groups,), (groups,), (D,)] if config.bias else [0] * 4
    stacks = [((E, rows, width // BLOCK, BLOCK // 2), (E, rows, width // BLOCK), (E, rows))
              for rows, width in ((2 * F, D), (D, F))]  # fmt: skip
    return [
        (D,), (heads, D), (groups, D), (groups, D), (D, heads), *biases,
        (config.n_heads,) if config.sinks else 0, (D,), (E, D), (E,) if config.bias else 0, *stacks[0],
        *stacks[1],
    ]  # fmt: skip


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
        if not untouched(layer.norm, RMSNorm) or not all(untouched(line, FastLinear) for line in lines):
            return None
        if type(layer.attend) is not Attend or type(layer.project) is not Project:
            return None
        turns, biases = layer.frequencies, [line.bias for line in lines]
        if turns.dtype != torch.float32 or not (turns.is_cpu and turns.is_contiguous()):
            return None
        if turns.shape != (layer.config.d_head // 2,):
            return None
        sinks = layer.sinks if layer.config.sinks else None
        return [layer.norm.scale, *(line.weight for line in lines), *biases, sinks]

    def wanted(self) -> list[Any]:
        """Their shapes."""
        return shapes(self.module.config)[:ATTENTION]

    def __call__(
        self, x: Tensor, positions: Tensor, cache: LayerCache | None = None, tap: Tap = SILENT
    ) -> Tensor:
        """As `Attention.forward`."""
        layer = self.module
        usable = cache is not None and as_made(cache, layer.config) and self.usable(x, tap)
        weights = self.weights() if usable else None
        if cache is None or weights is None or positions.shape != (1, 1):
            return Attention.forward(layer, x, positions, cache, tap)
        scale, q, k, v, o, *biases, o_bias, sinks = weights
        slot, out = cache.seen % cache.size, torch.empty(1, x.shape[-1])
        cache.seen += 1
        held = kept(cache)
        numbers = (slot, min(cache.seen, cache.size), layer.window or 0)
        self.form.run(
            self.form.single.attend_one, x[0].contiguous().numpy(), positions.numpy(), scale, layer.norm.eps,
            (q, k, v), tuple(biases), o, o_bias, sinks, layer.frequencies.numpy(), layer.concentration, *held,
            *numbers, out.numpy(),
        )  # fmt: skip
        return tap.at(keys=cache.positions[:, : numbers[1]])("out", out[None])


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
        if not untouched(layer.norm, RMSNorm) or not untouched(layer.router, FastLinear):
            return None
        fused = type(layer.answers) is Answers
        if fused and not (untouched(layer.gate_up, FastStack) and untouched(layer.down, FastStack)):
            return None
        stacks = [layer.gate_up, layer.down] if fused else []
        packed = [part for one in stacks for part in (one.blocks, one.scales, one.bias)]
        return [layer.norm.scale, layer.router.weight, layer.router.bias, *packed]

    def wanted(self) -> list[Any]:
        """Their shapes."""
        every = shapes(self.module.config)
        return every[ATTENTION:] if type(self.module.answers) is Answers else every[ATTENTION : ATTENTION + 3]

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
        run(self.form.single.route_one, x[0].contiguous().numpy(), scale, layer.norm.eps, router, bias, *made)
        for name, value in {"norm": normed, "logits": logits, "choice": choice, "weight": weight}.items():
            tap(name, value)
        if not stacks:
            each = layer.answers(normed, choice, tap)
            return tap("out", torch.einsum("btkd,btk->btd", each.float(), weight))
        out = torch.empty(x.shape)
        numbers = (config.swiglu_limit, config.swiglu_alpha, self.form.threads)
        run(self.form.mixture, made[0], made[2], made[3], *stacks, *numbers, out[0].numpy())
        return tap("out", out)


class TokenStep:
    """`Transformer.forward` for one token and a cache: all blocks in one call, where every block has both
    forms above, and one kernel answers for its experts."""

    SHOWN = tuple(f"blocks.N.experts.{name}" for name in ("logits", "choice", "weight"))

    def __init__(self, model: Transformer, form: NumbaForm) -> None:
        self.model, self.form = model, form
        self.made: tuple[list[Any], Any] = [], None  # views of all weights, and their addresses

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "form": self.form, "made": ([], None)}

    def on(self, model: Transformer) -> TokenStep | None:
        """The same, for another model that holds these weights; None where its config asks for others."""
        return TokenStep(model, self.form) if self.fits(model) else None

    @staticmethod
    def fits(model: Transformer) -> bool:
        """Where all blocks have both forms, and experts in one kernel."""
        blocks: list[Any] = list(model.blocks) if model.config.n_experts else []
        halves = [(vars(block.attention), vars(block.experts)) for block in blocks]
        return bool(halves) and all("forward" in a and "forward" in e and "answers" in e for a, e in halves)

    def usable(self, tokens: Tensor, positions: Tensor | None, cache: Cache | None, tap: Tap) -> bool:
        """Whether this is one token for a cache, and all that the tap asks for is shown here."""
        blocks: list[Any] = list(self.model.blocks)
        if cache is None or tokens.shape != (1, 1) or len(cache.layers) != len(blocks):
            return False
        config = blocks[0].attention.config
        if not all(as_made(layer, config) for layer in cache.layers):
            return False
        if any(half.config is not config for block in blocks for half in (block.attention, block.experts)):
            return False
        if positions is not None and positions.shape != (1, 1) or torch.compiler.is_compiling():
            return False
        if torch.is_grad_enabled() and self.model.token_embedding.requires_grad:
            return False
        if tap is SILENT:
            return True
        if type(tap) is not Recorder or tap.edits or tap.prefix:
            return False
        return all(not name.startswith("blocks.") or general(name) in self.SHOWN for name in tap.keep)

    def weights(self) -> tuple[list[Any], Any]:
        """Views of all blocks' weights, and their addresses, L 19; None in place of these where those of one
        block cannot be read."""
        views: list[Any] = []
        for block in self.model.blocks:
            if not untouched(block, Block):
                return [], None
            for half, kind in ((block.attention, AttentionStep), (block.experts, ExpertsStep)):
                step = vars(half).get("forward")
                if type(step) is not kind or hooked(half) or (found := step.weights()) is None:
                    return [], None
                views.append(found)
        known, table = self.made
        if len(views) != len(known) or any(map(operator.is_not, views, known)):
            rows = [[one.ctypes.data if len(one) else 0 for one in a + b]
                    for a, b in zip(views[::2], views[1::2])]  # fmt: skip
            table = np.array(rows) if {len(row) for row in rows} == {ATTENTION + EXPERTS} else None
            self.made = views, table
        return views, table

    def __call__(
        self, tokens: Tensor, last: int | None = None, positions: Tensor | None = None,
        cache: Cache | None = None, tap: Tap = SILENT,
    ) -> Tensor:  # fmt: skip
        """As `Transformer.forward`."""
        model, table = self.model, None
        if self.usable(tokens, positions, cache, tap):
            views, table = self.weights()  # which stay as long as the kernel reads them
        if table is None or cache is None:
            return Transformer.forward(model, tokens, last, positions, cache, tap)
        check(tokens, model.config, last)
        if positions is None:
            positions = torch.full((1, 1), cache.tokens)
        tap = tap.at(positions=positions)
        x = model.embed(tokens, positions, tap).clone()
        cache.reserve(1)
        blocks: list[Any] = list(model.blocks)
        held, halves = cache.layers, [(block.attention, block.experts) for block in blocks]
        config = halves[0][0].config
        slots = np.array([one.seen % one.size for one in held])
        for one in held:
            one.seen += 1
        filled = np.array([min(one.seen, one.size) for one in held])
        rings = np.array([one.size for one in held])
        windows = np.array([half.window or 0 for half, _ in halves])
        numbers = np.array([(half.concentration, half.norm.eps, other.norm.eps) for half, other in halves])
        more = [(one.k.data_ptr(), one.v.data_ptr(), one.positions.data_ptr(), half.frequencies.data_ptr())
                for one, (half, _) in zip(held, halves)]  # fmt: skip
        sizes = np.array([config.d_model, config.n_heads, config.n_kv_heads, config.d_head, config.d_ff])
        logits = torch.empty(len(blocks), config.n_experts or 0)
        weight = torch.empty(len(blocks), config.experts_per_token)
        choice = torch.empty(weight.shape, dtype=torch.int64)
        self.form.run(
            self.form.blocks, x[0].numpy(), positions.numpy(), np.concatenate((table, more), axis=1), sizes,
            numbers, slots, filled, rings, windows, config.swiglu_limit, config.swiglu_alpha,
            self.form.threads, logits.numpy(), choice.numpy(), weight.numpy(),
        )  # fmt: skip
        for n in range(len(blocks) if tap is not SILENT else 0):
            room = tap.within(f"blocks.{n}").within("experts")
            for name, value in (("logits", logits), ("choice", choice), ("weight", weight)):
                room(name, value[None, n : n + 1])
        return model.read_out(x, last, tap)
