"""MXFP4 against the definition of the MX standard, written out as loops in float64."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from gptoss_lab.model.linear import Stack
from gptoss_lab.weights.mxfp4 import PackedStack, pack, round_to_mxfp4, unpack


def meaning(nibble: int, scale: int) -> float:
    """E2M1 with bias 1, times E8M0 with bias 127, from the bits."""
    if scale == 255:
        return math.nan
    sign, exponent, mantissa = nibble >> 3, nibble >> 1 & 3, nibble & 1
    magnitude = mantissa / 2 if exponent == 0 else 2.0 ** (exponent - 1) * (1 + mantissa / 2)
    return (-1) ** sign * magnitude * 2.0 ** (scale - 127)


def random_weights(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal weights whose blocks differ in size by many powers of two."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator).unflatten(-1, (-1, 32))
    return (
        weight * torch.exp2(torch.randint(-20, 20, weight.shape[:-1], generator=generator))[..., None]
    ).flatten(-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_byte_under_every_scale_means_what_the_standard_says(dtype: torch.dtype) -> None:
    blocks = (
        torch.arange(256, dtype=torch.uint8).repeat(256, 1).unflatten(-1, (16, 16))
    )  # 256 scales, 16 blocks of 16
    scales = torch.arange(256, dtype=torch.uint8)[:, None].expand(256, 16)
    ours = unpack(blocks, scales.contiguous(), dtype)
    by_definition = torch.tensor(
        [
            [meaning(nibble, scale) for byte in range(256) for nibble in (byte & 15, byte >> 4)]
            for scale in range(256)
        ],
        dtype=torch.float64,
    )
    fits = by_definition.abs() <= torch.finfo(dtype).max
    assert torch.equal(ours.double()[fits], by_definition[fits])
    assert torch.equal(ours.signbit()[fits], by_definition.signbit()[fits])  # −0 stays −0
    assert ours[255].isnan().all() and not ours[:255].isnan().any()
    assert ours[:255][~fits[:255]].isinf().all() and set(torch.nonzero(~fits[:255])[:, 0].tolist()) == {
        253,
        254,
    }


def test_the_low_nibble_comes_first() -> None:
    blocks = torch.zeros(1, 16, dtype=torch.uint8)
    blocks[0, 0] = 0x72  # low nibble 2 is 1, high nibble 7 is 6
    assert unpack(blocks, torch.tensor([128], dtype=torch.uint8))[:4].tolist() == [2.0, 12.0, 0.0, 0.0]


def test_rounding_takes_the_nearest_value_under_the_standard_scale() -> None:
    weight = random_weights(7, 96)
    rounded = round_to_mxfp4(weight).double()
    for block, after in zip(weight.double().reshape(-1, 32), rounded.reshape(-1, 32)):
        scale = 2.0 ** (math.floor(math.log2(block.abs().max().item())) - 2)
        grid = [sign * scale * m for m in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0) for sign in (1, -1)]
        for before, got in zip(block.tolist(), after.tolist()):
            assert got in grid and abs(got - before) == min(abs(value - before) for value in grid)


def test_ties_go_to_the_even_code_and_what_is_too_large_saturates() -> None:
    ties = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.9, -0.25, -0.75, -5.0, -7.9]
    weight = torch.tensor(ties + [4.0] * 20)
    assert round_to_mxfp4(weight)[:12].tolist() == [0, 1, 1, 2, 2, 4, 4, 6, 0, -1, -4, -6]


def test_what_the_format_can_hold_survives() -> None:
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(0, 256, (5, 3, 7, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(0, 253, (5, 3, 7), dtype=torch.uint8, generator=generator)
    scales[0, 0] = torch.tensor([0, 1, 2, 3, 250, 251, 252], dtype=torch.uint8)
    value = unpack(blocks, scales)
    again = round_to_mxfp4(value)
    assert torch.equal(again, value) and torch.equal(again.signbit(), value.signbit())


def test_the_smallest_values_have_the_smallest_scale() -> None:
    weight = torch.zeros(32)
    weight[3], weight[4], weight[5] = 2.0**-128, -(2.0**-127), 2.0**-140
    blocks, scales = pack(weight)
    assert scales.tolist() == [0]
    assert unpack(blocks, scales)[3:6].tolist() == [2.0**-128, -(2.0**-127), 0.0]


def test_packing_twice_gives_the_same_bytes() -> None:
    blocks, scales = pack(random_weights(11, 64))
    again = pack(unpack(blocks, scales))
    assert torch.equal(again[0], blocks) and torch.equal(again[1], scales)


def test_zeros_keep_their_sign_and_take_scale_one() -> None:
    blocks, scales = pack(torch.tensor([0.0, -0.0] * 16))
    assert scales.tolist() == [127] and set(blocks.flatten().tolist()) == {0x80}


def test_packed_weights_take_four_and_a_quarter_bits() -> None:
    blocks, scales = pack(random_weights(6, 160))
    assert 8 * (blocks.nbytes + scales.nbytes) == 4.25 * 6 * 160


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    weight = torch.ones(3, 64)
    weight[2, 40] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        pack(weight)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        pack(torch.ones(3, 33))
    with pytest.raises(ValueError, match=r"expected … n 16"):
        unpack(torch.zeros(3, 2, 16, dtype=torch.uint8), torch.zeros(2, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        unpack(torch.zeros(3, 16, dtype=torch.uint8), torch.zeros(3))
    with pytest.raises(ValueError, match="not in torch.float16"):
        unpack(torch.zeros(3, 16, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8), torch.float16)


@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_stack_answers_as_the_plain_one_does(bias: bool) -> None:
    plain = Stack(experts=5, inputs=64, outputs=9, bias=bias)
    with torch.no_grad():
        plain.weight.copy_(round_to_mxfp4(random_weights(5, 9, 64, seed=2)))
        if bias:
            plain.bias.copy_(random_weights(5, 32, seed=3)[:, :9])
    packed = PackedStack(*pack(plain.weight), plain.bias)
    x, index = torch.randn(2, 3, 4, 64), torch.randint(0, 5, (2, 3, 4))
    assert packed.shape == plain.shape == (5, 9, 64)
    assert torch.equal(packed.matrix(3), plain.matrix(3)) and torch.equal(
        packed.matrix(index), plain.matrix(index)
    )
    assert torch.equal(packed(x, index), plain(x, index)) and torch.equal(
        packed(x[0, 0], 2), plain(x[0, 0], 2)
    )
    packed.compute = plain.compute = torch.bfloat16
    assert packed(x, index).dtype == torch.bfloat16 and torch.equal(packed(x, index), plain(x, index))


def test_packed_experts_compile_into_one_graph() -> None:
    packed = PackedStack(*pack(random_weights(5, 9, 64)), None)
    compiled = torch.compile(packed, backend="eager", fullgraph=True)
    x, index = torch.randn(1, 2, 3, 64), torch.randint(0, 5, (1, 2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(compiled(x, index), packed(x, index))
