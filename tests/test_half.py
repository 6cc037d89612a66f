"""Products in float16: as exact as float16 allows, and without overflow, whatever the activations are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import toys
from overflow import Overflow, Sentinel
from toy_checkpoints import model_of
from toys import one_thread  # noqa: F401

from gptoss_lab.model import Transformer
from gptoss_lab.model.linear import Linear, Stack
from gptoss_lab.weights import load, save
from gptoss_lab.weights.half import LARGEST, HalfLinear, HalfPackedStack, HalfStack, halve, reach
from gptoss_lab.weights.mxfp4 import PackedStack, pack
from gptoss_lab.weights.plans import holders

CONFIGS = {
    "gpt-oss": toys.mxfp4(stored="bfloat16"),
    "gpt2": toys.gpt2(d_model=24, n_heads=4, n_kv_heads=4),
    "qwen3-moe": toys.qwen3(),
}


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative, over all values together."""
    return float((got.double() - wanted).norm() / wanted.norm())


def made(kind: str) -> tuple[torch.nn.Module, torch.nn.Module, tuple[object, ...]]:
    """A holder in float16, the one that it stands for, in float64, and the index of its experts."""
    torch.manual_seed(0)
    room = torch.nn.Module()
    if kind == "linear":
        room.it = Linear(96, 50, bias=True)
        index: tuple[object, ...] = ()
    else:
        room.it = Stack(5, 96, 50, bias=True)
        index = (torch.randint(0, 5, (7,)),) if "gathered" in kind else (3,)
    with torch.no_grad():
        for weight in room.it.parameters():
            weight.normal_()
    if "packed" in kind:
        room.it = PackedStack(*pack(room.it.weight), room.it.bias)
    wide = Linear(96, 50, bias=True) if kind == "linear" else Stack(5, 96, 50, bias=True)
    wide.requires_grad_(False)
    wide.weight.data = (room.it.weight if kind == "linear" else room.it.matrix(torch.arange(5))).double()
    wide.bias.data, wide.compute = room.it.bias.double(), torch.float64
    halve(room)
    return room.it, wide, index


KINDS = ("linear", "stack", "stack gathered", "packed", "packed gathered")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 3e4, 1e30])
def test_a_product_keeps_float16s_precision_at_any_size(kind: str, size: float) -> None:
    half, wide, index = made(kind)
    assert type(half) is {"l": HalfLinear, "s": HalfStack, "p": HalfPackedStack}[kind[0]]
    x = size * torch.randn(7, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), Sentinel() as sentinel:
        got = half(x, *index)
    assert got.dtype == torch.float32 and sentinel.halves
    assert error(got, wide(x.double(), *index)) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_all_sizes_stand_beside_one_another(kind: str) -> None:
    half, wide, index = made(kind)
    x = torch.randn(7, 96) * torch.tensor([0.0, 1e-40, 1e-6, 1.0, 6e4, 1e20, 3e38])[:, None].clamp(max=1e37)
    with torch.no_grad(), Sentinel():
        got, wanted = half(x, *index), wide(x.double(), *index)
    assert torch.equal(got[0], wanted[0].float())  # of zeros, the bias
    for row in range(1, 7):
        assert error(got[row], wanted[row]) < 1e-3, row


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_model_answers_nearly_as_in_float32(config, tmp_path: Path) -> None:
    folder = save(model_of(config), tmp_path / "model")
    exact, half = load(folder, dtype="stored"), load(folder, dtype=torch.float16)
    assert {part.compute for part in holders(half)} <= {torch.float16, torch.float32}
    routers = [block.experts.router for block in half.blocks] if config.n_experts else []
    assert [part for part in holders(half) if part.compute == torch.float32] == routers
    tokens = toys.random_tokens(config)
    with torch.no_grad(), Sentinel():
        wanted, got = exact(tokens), half(tokens)
    assert got.dtype == torch.float32
    assert 0 < error(got, wanted.double()) < 4e-3


def with_large_activations() -> Transformer:
    """A model of whose residual float16 can hold no part: past 65504 from the first layer on."""
    model = model_of(toys.mxfp4(stored="bfloat16"))
    with torch.no_grad():
        model.token_embedding *= 5e4
        for block in model.blocks:
            block.experts.gate_up.bias *= 5  # the clamps hold: activations of 56 and −42
            block.experts.down.weight *= 1e4
    return model


def test_large_activations_overflow_in_a_float16_residual_and_not_in_ours(tmp_path: Path) -> None:
    folder = save(with_large_activations(), tmp_path / "model")
    exact, half = load(folder, dtype="stored"), load(folder, dtype=torch.float16)
    tokens = toys.random_tokens(exact.config)
    with torch.no_grad():
        residual = tokens_to_residuals(exact, tokens)
        assert min(float(x.abs().max()) for x in residual) > 2 * LARGEST
        with Sentinel() as sentinel:
            got = half(tokens)
        assert sentinel.halves > 20 * exact.config.n_layers
        assert error(got, exact(tokens).double()) < 4e-3
        with Sentinel(), pytest.raises(Overflow, match="_to_copy"):  # what a float16 residual would be
            half.blocks[0](half.embed(tokens)).half()
        for holder in holders(exact):
            holder.compute = torch.float16
        with Sentinel(), pytest.raises(Overflow, match="mm|addmm"):  # and what unscaled products would
            run_unscaled(exact, tokens)


def tokens_to_residuals(model: Transformer, tokens: torch.Tensor) -> list[torch.Tensor]:
    """What enters and leaves each block."""
    found = [model.embed(tokens)]
    for block in model.blocks:
        found.append(block(found[-1]))
    return found


def run_unscaled(model: Transformer, tokens: torch.Tensor) -> None:
    """The model with products in plain float16: norms keep small what goes in, not what comes out."""
    for block in model.blocks:
        for name in ("gate_up", "down"):
            packed = getattr(block.experts, name)
            packed.pairs, packed.factors = packed.pairs.half(), packed.factors.half()
    model(tokens)


def test_weights_with_which_float16_could_overflow_are_refused(tmp_path: Path) -> None:
    for name, size in (("attention.q", 3e4), ("experts.down", 3e6)):
        model = model_of(toys.mxfp4(stored="bfloat16"))
        with torch.no_grad():
            model.blocks[1].get_submodule(name).weight *= size
        folder = save(model, tmp_path / name)
        with pytest.raises(ValueError, match=rf"blocks.1.{name}: a row's magnitudes sum to .*65504.*float32"):
            load(folder, dtype=torch.float16)
        load(folder, dtype=torch.bfloat16)


def test_how_far_a_row_can_reach_is_never_said_too_low() -> None:
    torch.manual_seed(0)
    stack = Stack(3, 64, 9, bias=False)
    with torch.no_grad():
        stack.weight.copy_(torch.randn(3, 9, 64) * torch.randn(3, 9, 1).exp2())
        packed = PackedStack(*pack(stack.weight), None)
        assert reach(stack) == pytest.approx(float(stack.weight.abs().sum(-1).max()))
        true = float(packed.matrix(torch.arange(3)).abs().sum(-1).max())
        assert true <= reach(packed) < 8 * true
