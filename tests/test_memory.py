"""What running takes: the arithmetic is held to measured allocations, and what cannot fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import toys
from torch.profiler import ProfilerActivity, profile
from toy_checkpoints import model_of
from toys import one_thread  # noqa: F401

from gptoss_lab import cli
from gptoss_lab.config import NAMED, Config
from gptoss_lab.cost import PROGRAM_BYTES, bytes_by_part, human, memory_parts, work_bytes
from gptoss_lab.generation import generate
from gptoss_lab.kernels import form, quicken
from gptoss_lab.model import Cache
from gptoss_lab.weights import load, save


def peak(run: Callable[[], object]) -> int:
    """The most bytes that torch held at once for a run, beside what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen, torch.no_grad():
        run()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


WIDE = dict(d_model=96, d_ff=160, d_head=16, vocab_size=3000, context=600, stored="bfloat16")
SHAPES = {
    "gpt-oss": toys.mxfp4(n_heads=16, n_kv_heads=4, **WIDE),
    "qwen3-moe": toys.qwen3(n_heads=16, n_kv_heads=4, **WIDE),
    "gpt2": toys.gpt2(n_heads=6, n_kv_heads=6, **WIDE),
    "few heads, many experts": toys.mxfp4(n_heads=4, n_kv_heads=2, experts_per_token=5, **WIDE),
}


@pytest.mark.parametrize("kernels", ["exact", "fast", "torch"])
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_no_pass_takes_more_than_the_arithmetic_says(config: Config, kernels: str, tmp_path: Path) -> None:
    """torch: fast kernels where there is no numba, whose attention alone holds scores."""
    asked = "fast" if kernels == "fast" else "exact"
    model = load(save(model_of(config), tmp_path / "model"), dtype="stored", kernels=asked)
    if kernels == "torch":
        quicken(model, form("torch"))
    widened = kernels == "exact" or config.stored_experts == "same" and config.n_experts is not None
    for before, new in ((0, 1), (0, 4), (0, 5), (0, 64), (400, 1), (300, 128)):
        cache = Cache(config, before + new)
        tokens = toys.random_tokens(config, batch=1, count=before + new)
        with torch.no_grad():
            if before:
                model(tokens[:, :before], last=0, cache=cache)
        took = peak(lambda cache=cache, now=tokens[:, before:]: model(now, last=1, cache=cache))
        said = work_bytes(config, new, before + new, widened, fast=kernels != "exact")
        assert took <= said, (before, new)
        least = {"exact": 0.4, "torch": 0.2, "fast": 0.0}[kernels]  # what kernels hold torch does not see
        assert took > least * said or new < 128, "the arithmetic says far too much"


def test_the_20b_fits_into_16_gb_with_fast_kernels_and_not_with_exact_ones() -> None:
    config = NAMED["gpt-oss-20b"]
    held = {"weights": sum(bytes_by_part(config).values())}
    for context, most in ((640, 14.7e9), (2048, 14.8e9), (8192 + 64, 15.1e9), (16384, 16e9)):
        assert sum(memory_parts(config, held, context, 512, widened=False, fast=True).values()) < most
    assert sum(memory_parts(config, held, 40_000, 512, widened=False, fast=True).values()) > 16e9
    assert sum(memory_parts(config, held, 4096, 512, widened=False).values()) > 16e9
    assert sum(memory_parts(config, held, 1, 1, widened=True).values()) > 16e9


def test_a_run_that_does_not_fit_is_refused_before_it_starts(tmp_path: Path) -> None:
    config = toys.mxfp4(stored="bfloat16")
    model = load(save(model_of(config), tmp_path / "model"), kernels="fast")
    held = sum(tensor.nbytes for tensor in model.state_dict().values())
    need = sum(memory_parts(config, {"weights": held}, 3 + 7, 3, widened=False, fast=True).values())
    assert len(list(generate(model, [1, 2, 3], 7, memory_limit=need))) == 7
    model.forward = lambda *args, **more: pytest.fail("it ran")  # type: ignore[method-assign]
    expected = r"weights .*, cache of 10 tokens .*, work on 3 .*, the program .*; memory_limit is .*Shorten"
    with pytest.raises(ValueError, match=expected):
        generate(model, [1, 2, 3], 7, memory_limit=need - 1)
    with pytest.raises(ValueError, match="expected bytes, as 16e9"):
        generate(model, [1, 2, 3], 7, memory_limit=-1)


def test_tied_weights_count_once(tmp_path: Path) -> None:
    model = load(save(model_of(toys.gpt2(d_model=24, n_heads=4, n_kv_heads=4)), tmp_path / "model"))
    with pytest.raises(ValueError) as refused:
        generate(model, [1], 1, memory_limit=1)
    assert f"(weights {human(sum(p.nbytes for p in model.parameters()))}, " in str(refused.value)


def test_the_command_takes_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    said = ["generate", "--model", "mini-oss", "--prompt", "Once", "--max-tokens", "3", "--memory-limit"]
    assert cli.main([*said, "2e9"]) == 0
    capsys.readouterr()
    assert cli.main([*said, str(PROGRAM_BYTES)]) == 2
    out, error = capsys.readouterr()
    assert not out and "mini-oss takes 4" in error and "memory_limit is 450.0 MB" in error
    with pytest.raises(SystemExit):
        cli.main([*said, "much"])


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_nothing_of_the_published_layout_is_copied(tmp_path: Path) -> None:
    """Every weight, as large as it is, lies in the file's mapping; bfloat16 and MXFP4 stay what they are."""
    config = toys.mxfp4(stored="bfloat16")
    folder = save(model_of(config), tmp_path / "model")
    model = load(folder, kernels="fast")
    file = folder / "model.safetensors"
    maps = Path("/proc/self/maps").read_text().splitlines()
    places = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps if str(file) in line]
    weights = model.state_dict()
    assert places and len(weights) == 3 + 19 * config.n_layers  # every tensor of the file
    for name, weight in weights.items():
        first, last = weight.data_ptr(), weight.data_ptr() + weight.nbytes
        assert any(start <= first and last <= end for start, end in places), f"{name} was copied"
        assert weight.dtype == (torch.uint8 if name.endswith(("blocks", "scales")) else torch.bfloat16), name
    with torch.no_grad():
        model(toys.random_tokens(config))
    assert {name: weight.data_ptr() for name, weight in weights.items()} == {
        name: tensor.data_ptr() for name, tensor in model.state_dict().items()
    }
