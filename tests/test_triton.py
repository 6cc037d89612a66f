"""The Triton kernel in Triton's interpreter, against float64. Skipped where triton is not installed.

    pip install triton && pytest tests/test_triton.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if "triton" in sys.modules:  # it was read, and decided how to run, before this file could say so
    pytest.skip("triton is loaded already: run this file alone", allow_module_level=True)
os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton")

import torch
import toys
from toy_checkpoints import model_of

from gptoss_lab.kernels import triton as kernels
from gptoss_lab.model import Transformer
from gptoss_lab.trace import watch
from gptoss_lab.weights import load, save
from gptoss_lab.weights.mxfp4 import PackedStack, pack, unpack

BOUND = 1e-5  # relative, of float32 sums


def packed(experts: int, height: int, n: int, seed: int = 0, low: int = 100, high: int = 130) -> Any:
    """Random bytes, and scales from `low` to below `high`."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (experts, height, n, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(low, high, (experts, height, n), dtype=torch.uint8, generator=generator)
    return blocks, scales


def check(blocks: torch.Tensor, scales: torch.Tensor, x: torch.Tensor, jobs: list[Any]) -> torch.Tensor:
    """What the kernel answers, held to float64; what belongs to no job is left alone."""
    out = torch.full((len(x), scales.shape[1]), 77.0)
    kernels.multiply(blocks, scales, x, torch.tensor(jobs, dtype=torch.int64).reshape(-1, 3), out)
    left = set(range(len(x)))
    for expert, first, count in jobs:
        for vector in range(first, first + count):
            left.remove(vector)
            terms = unpack(blocks[expert], scales[expert]).double() * x[vector].double()
            error = (out[vector].double() - terms.sum(-1)).abs()
            assert bool((error <= BOUND * terms.abs().sum(-1) + 1e-37).all()), (expert, vector)
    assert all(bool((out[vector] == 77).all()) for vector in left)
    return out


@pytest.mark.parametrize(("height", "n"), [(1, 1), (16, 2), (17, 3), (33, 4), (48, 5), (5, 9)])
def test_sizes_that_fill_a_tile_and_that_do_not(height: int, n: int) -> None:
    x = torch.randn(9, 32 * n, generator=torch.Generator().manual_seed(1))
    check(*packed(4, height, n), x, [(2, 0, 1), (0, 1, 5), (3, 7, 2)])
    check(*packed(4, height, n), x, [])


@pytest.mark.parametrize(("low", "high"), [(0, 3), (1, 60), (127, 128), (180, 200)])
def test_scales_from_the_smallest_to_large_ones(low: int, high: int) -> None:
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(2)) * 2.0 ** (100 - low)
    check(*packed(2, 20, 2, low=low, high=high), x, [(1, 0, 3)])


def test_every_byte_means_what_the_table_says() -> None:
    blocks = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 1, 16)
    scales = torch.full((1, 16, 1), 127, dtype=torch.uint8)
    x = torch.eye(32)
    out = check(blocks, scales, x, [(0, 0, 32)])
    assert torch.equal(out.T, unpack(blocks, scales)[0])


def test_a_scale_of_255_is_nan_and_254_reaches_infinity() -> None:
    blocks, scales = torch.full((1, 2, 1, 16), 0x77, dtype=torch.uint8), torch.tensor([[[255], [254]]])
    out = torch.zeros(1, 2)
    kernels.multiply(blocks, scales.to(torch.uint8), torch.ones(1, 32), torch.tensor([[0, 0, 1]]), out)
    assert bool(out[0, 0].isnan()) and bool(out[0, 1].isinf())


def test_it_agrees_with_the_numba_form() -> None:
    pytest.importorskip("numba")
    from gptoss_lab.kernels.forms import form

    blocks, scales = packed(3, 40, 3)
    x, jobs = torch.randn(6, 96, generator=torch.Generator().manual_seed(3)), [(2, 0, 4), (1, 4, 2)]
    other = form("numba").multiply(blocks, scales, x, jobs)
    ours, largest = check(blocks, scales, x, jobs), float(other.abs().max())
    assert torch.allclose(ours, other, rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.parametrize("bias", [True, False])
def test_a_stack_answers_as_the_exact_one_does(bias: bool) -> None:
    torch.manual_seed(0)
    exact = PackedStack(*pack(torch.randn(5, 9, 64)), torch.randn(5, 9) if bias else None)
    fast = kernels.TritonStack(exact.blocks, exact.scales, exact.bias)
    x, index = torch.randn(1, 3, 1, 64).expand(-1, -1, 2, -1), torch.randint(0, 5, (1, 3, 2))
    assert torch.allclose(fast(x, index), exact(x, index), rtol=1e-5, atol=1e-4)
    assert torch.equal(fast(x[0, :, 0], 3), exact(x[0, :, 0], 3))
    lone = x[:, :1]  # a row that is repeated, not copied, for its experts
    assert torch.allclose(fast(lone, index[:, :1]), exact(lone, index[:, :1]), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("dtype", "bound"), [("stored", 2e-5), (torch.bfloat16, 0.1), (torch.float16, 1e-2)])
def test_a_model_with_it_answers_as_without(dtype: Any, bound: float, tmp_path: Path) -> None:
    folder = save(model_of(toys.mxfp4(stored="bfloat16")), tmp_path / "model")
    exact, fast = load(folder, dtype=dtype), load(folder, dtype=dtype)
    kernels.quicken(fast)
    assert isinstance(fast, Transformer) and type(fast.blocks[0].experts.down) is kernels.TritonStack
    with torch.no_grad():
        for count in (1, 4, 9):
            tokens = toys.random_tokens(exact.config, 1, count)
            assert float((fast(tokens) - exact(tokens)).abs().max()) < bound
    assert "fast (triton)" in watch(fast, [1, 2]).source["forms"][0]


def test_it_compiles_for_cards(capfd: pytest.CaptureFixture[str]) -> None:
    """Triton's compiler needs no card: machine code comes out for Turing, Ampere and Hopper."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env={
        **{name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    })  # fmt: skip
    assert done.returncode == 0, done.stderr
    sizes = [int(size) for size in done.stdout.split()]
    assert len(sizes) == 3 and min(sizes) > 1000


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gptoss_lab.kernels.triton import BYTES, ROWS, TOGETHER, rows_times_vectors as kernel
kinds = dict(blocks="*u8", scales="*u8", x="*fp32", jobs="*i64", out="*fp32", height="i32", n="i32")
fixed = dict(ROWS=ROWS, BYTES=BYTES, TOGETHER=TOGETHER)
for capability in (75, 80, 90):
    source = ASTSource(kernel, {**kinds, **dict.fromkeys(fixed, "constexpr")}, fixed)
    print(len(triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]))
"""
