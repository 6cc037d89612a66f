"""The fast kernels against float64: every form, and the holders that use them."""

from __future__ import annotations

import copy
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import toys
from torch import Tensor, nn
from toy_checkpoints import model_of, rewrite

from gptoss_lab import points
from gptoss_lab.config import NAMED
from gptoss_lab.kernels import FORMS, FastLinear, FastStack, available, form, quicken
from gptoss_lab.kernels.holders import TILE
from gptoss_lab.trace import watch
from gptoss_lab.weights import CheckpointError, load, save
from gptoss_lab.weights.mxfp4 import PackedStack, unpack
from gptoss_lab.weights.plans import arithmetic

TOLERANCE = 1e-4  # relative to the whole answer
FINER = {"avx512": 3e-6, "numba": 3e-6, "torch": 3e-6}  # the forms that lose no more than float32 sums do
OWN = ("blocks", "scales", "bias")
ROOT = Path(__file__).parent.parent


@pytest.fixture(params=FORMS)
def any_form(request: pytest.FixtureRequest) -> object:
    """Every form that can run here."""
    if request.param not in available():
        pytest.skip(f"{request.param} cannot run here: {available()}")
    return form(request.param)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def unaligned(values: Tensor, by: int) -> Tensor:
    """The same values, `by` bytes after an address that is a multiple of 64."""
    room = torch.zeros(values.nbytes + 128, dtype=torch.uint8)
    start = -room.data_ptr() % 64 + by
    there = room[start : start + values.nbytes].view(values.dtype).view(values.shape)
    assert there.data_ptr() % 64 == by
    return there.copy_(values)


def packed(experts: int, height: int, blocks: int, low: int = 110, high: int = 130) -> PackedStack:
    """Random nibbles under random scales, at odd addresses."""
    generator = torch.Generator().manual_seed(0)
    nibbles = torch.randint(256, (experts, height, blocks, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(low, high, (experts, height, blocks), generator=generator, dtype=torch.uint8)
    return PackedStack(unaligned(nibbles, 1), unaligned(scales, 3), None)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exactly(stack: PackedStack, x: Tensor, index: Tensor, least: float = 0.0) -> Tensor:
    """The products in float64; weights smaller than `least` count as zeros."""
    weight = unpack(stack.blocks, stack.scales).double()[index]
    weight = weight.where(weight.abs() >= least, 0.0)
    return torch.einsum("noi,ni->no", weight, x.double())


def fast(stack: PackedStack, chosen: object) -> FastStack:
    return FastStack(stack.blocks, stack.scales, stack.bias, chosen)  # type: ignore[arg-type]


def off(ours: Tensor, exact: Tensor) -> float:
    """The relative error, over the whole answer."""
    assert ours.dtype == torch.float32 and ours.shape == exact.shape
    return float((ours.double() - exact).norm() / exact.norm())


SIZES = [(1, 1, 1), (3, 2, 1), (2, 67, 3), (5, 130, 7), (2, 9, 90)]


@pytest.mark.parametrize(("experts", "height", "blocks"), SIZES)
@pytest.mark.parametrize("vectors", [1, 2, 5, 16, 90])
def test_packed_rows_times_vectors_are_as_in_float64(any_form, experts, height, blocks, vectors) -> None:
    stack = packed(experts, height, blocks)
    x, index = normal(vectors, 32 * blocks), torch.arange(vectors) * 7 % experts
    within = FINER.get(any_form.name, TOLERANCE)
    assert off(fast(stack, any_form)(x, index), exactly(stack, x, index)) < within
    for expert in range(experts):
        ours = fast(stack, any_form)(x, expert)
        assert off(ours, exactly(stack, x, torch.full((vectors,), expert))) < TOLERANCE


def test_a_matrix_taller_than_a_tile_is_whole(any_form) -> None:
    stack, x = packed(1, 2 * TILE + 5, 2), normal(80, 64)
    assert off(fast(stack, any_form)(x, 0), exactly(stack, x, torch.zeros(80, dtype=torch.int64))) < TOLERANCE


@pytest.mark.parametrize(("scale", "size"), [(0, 1e4), (1, 1e4), (127, 1.0), (252, 1e-4)])
@pytest.mark.parametrize("vectors", [1, 3, 200])
@pytest.mark.parametrize("flush", [False, True])
def test_extreme_scales_keep_their_numbers(any_form, scale, size, vectors, flush) -> None:
    stack = packed(2, 67, 3, low=scale, high=scale + 1)
    x, index = size * normal(vectors, 96), torch.arange(vectors) % 2
    exact = exactly(stack, x, index)
    torch.set_num_threads(1)  # flushing is set for one thread
    possible = torch.set_flush_denormal(flush)
    try:
        ours = fast(stack, any_form)(x, index)
    finally:
        torch.set_flush_denormal(False)
    if flush and (not any_form.name.startswith("avx") or vectors > 2 * any_form.few_packed):
        if any_form.name == "torch" and scale == 0:  # 2⁻¹²⁷ itself is subnormal: to torch it is zero then
            assert possible and not ours.any()
            return
        exact = exactly(stack, x, index, least=2.0**-126)  # what float32 holds, unpacked
    assert possible and off(ours, exact) < TOLERANCE


@pytest.mark.parametrize("vectors", [1, 80])
def test_zeros_give_zeros(any_form, vectors) -> None:
    stack, index = packed(2, 67, 3), torch.zeros(vectors, dtype=torch.int64)
    assert not fast(stack, any_form)(torch.zeros(vectors, 96), index).any()
    for nibbles in (0x00, 0x88, 0x80):  # +0, −0, both
        stack.blocks.fill_(nibbles)
        assert not fast(stack, any_form)(normal(vectors, 96), index).any()


@pytest.mark.parametrize("vectors", [1, 80])
@pytest.mark.parametrize("outlier", [-1e5, 30.0, 1e3])
def test_one_large_activation_in_a_block_leaves_the_whole_within_bounds(any_form, vectors, outlier) -> None:
    stack, x, index = packed(2, 200, 3), normal(vectors, 96), torch.zeros(vectors, dtype=torch.int64)
    x[:, 33] = outlier
    assert off(fast(stack, any_form)(x, index), exactly(stack, x, index)) < TOLERANCE


def test_no_activation_is_off_by_more_than_a_65534th_of_its_blocks_largest(any_form) -> None:
    """Also where the largest meets a weight of zero, so that nothing hides what it does to its neighbours."""
    stack, x = packed(1, 200, 3), normal(1, 96)
    x[:, 40] = 500.0
    stack.blocks[..., 1, 4] &= 0xF0  # element 40: the low nibble of byte 4 in block 1
    weight = unpack(stack.blocks, stack.scales).double()[0]
    assert not weight[:, 40].any()
    largest = x.abs().unflatten(-1, (-1, 32)).amax(-1)[0].double()
    bound = (weight.abs().unflatten(-1, (-1, 32)).sum(-1) @ largest) / 65534
    ours = fast(stack, any_form)(x, 0)[0].double()
    assert bool(((ours - weight @ x[0].double()).abs() <= bound * 1.01).all())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("vectors", [1, 3, 80])
def test_what_is_not_finite_does_not_pass_for_a_number(any_form, bad, vectors) -> None:
    stack, x = packed(1, 67, 3), normal(vectors, 96)
    x[-1, 50] = bad
    ours = fast(stack, any_form)(x, 0)
    assert ours[:-1].isfinite().all() and not ours[-1].isfinite().any()
    stack.scales[0, 5, 1] = 255
    ours = fast(stack, any_form)(normal(vectors, 96), 0)
    assert ours[:, 5].isnan().all() and ours[:, torch.arange(67) != 5].isfinite().all()


def test_bits_depend_neither_on_threads_nor_on_the_run_nor_on_the_company(any_form) -> None:
    stack, x = packed(4, 300, 5), normal(4, 160)
    weight = unaligned(normal(700, 160).bfloat16(), 2)
    index = torch.tensor([3, 0, 3, 1])
    answers = []
    for threads in (1, 2, 1, 2):
        torch.set_num_threads(threads)
        line = FastLinear(nn.Parameter(weight, requires_grad=False), None, any_form)
        answers.append((fast(stack, any_form)(x, index), line(x)))
    for stacked, linear in answers[1:]:
        assert torch.equal(stacked, answers[0][0]) and torch.equal(linear, answers[0][1])
    if any_form.name != "torch":
        alone = torch.cat([fast(stack, any_form)(x[n : n + 1], index[n : n + 1]) for n in range(4)])
        assert torch.equal(alone, answers[0][0])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (67, 45), (130, 96), (TILE + 1, 33)])
@pytest.mark.parametrize("vectors", [0, 1, 3, 9])
def test_bfloat16_rows_times_vectors_are_as_in_float64(any_form, height, width, vectors) -> None:
    weight = nn.Parameter(unaligned(normal(height, width, seed=2).bfloat16(), 2), requires_grad=False)
    bias = nn.Parameter(normal(height, seed=3).bfloat16(), requires_grad=False)
    x = normal(1, vectors, width)
    ours = FastLinear(weight, bias, any_form)(x)
    exact = x.double() @ weight.double().T + bias.double()
    assert ours.shape == exact.shape
    assert vectors == 0 or off(ours, exact) < 1e-6


def test_a_holder_answers_as_the_one_it_stands_in_for(any_form) -> None:
    """Shapes as `Experts` asks: B T K I with an index B T K, and N I with one expert. The same attributes."""
    stack = packed(4, 67, 3)
    stack.bias = nn.Parameter(normal(4, 67).bfloat16(), requires_grad=False)
    ours = fast(stack, any_form)
    x = normal(2, 3, 96)[:, :, None].expand(-1, -1, 2, -1)
    index = torch.tensor([[[0, 3], [1, 1], [2, 0]]] * 2)
    assert off(ours(x, index), stack(x, index).double()) < TOLERANCE
    assert off(ours(x[0, :, 0], 2), stack(x[0, :, 0], 2).double()) < TOLERANCE
    assert ours.shape == stack.shape and torch.equal(ours.matrix(index), stack.matrix(index))
    assert all(getattr(ours, own).data_ptr() == getattr(stack, own).data_ptr() for own in OWN)
    with pytest.raises(IndexError, match="there are 0 to 3"):
        ours(x[0, 0], torch.tensor([0, 4]))


def test_a_gradient_is_that_of_the_exact_holder(any_form) -> None:
    stack = packed(4, 67, 3)
    x, index = normal(3, 96), torch.tensor([0, 2, 3])
    gradients = []
    for holder in (stack, fast(stack, any_form)):
        asked = x.clone().requires_grad_()
        holder(asked, index).square().sum().backward()
        gradients.append(asked.grad)
    assert torch.equal(gradients[0], gradients[1])


def test_other_weights_and_unknown_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="float32; FastLinear reads torch.bfloat16"):
        FastLinear(nn.Parameter(torch.zeros(2, 2)), None, form("torch"))
    with pytest.raises(ValueError, match="'avx3' is not known; here are .*torch"):
        form("avx3")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small gpt-oss in the published layout: experts in MXFP4, the rest in bfloat16."""
    folder = tmp_path_factory.mktemp("models") / "small"
    return save(model_of(toys.mxfp4(stored="bfloat16")), folder)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_logits_are_those_of_the_exact_model(any_form, published, one_by_one) -> None:
    """At once (experts walked over) and token by token (gathered). Every choice of experts is the same."""
    exact, ours = (load(published, dtype="stored", kernels="exact") for _ in range(2))
    quicken(ours, any_form)
    tokens = toys.random_tokens(exact.config, batch=2, count=9)
    if one_by_one:
        theirs, mine = (toys.in_chunks(model, tokens, (1,) * 9) for model in (exact, ours))
    else:
        kept = ["blocks.*.experts.choice", "logits"]
        was, found = (toys.record(model, tokens, kept) for model in (exact, ours))
        assert all(torch.equal(found[name], was[name]) for name in was if name != "logits")
        theirs, mine = was["logits"], found["logits"]
    assert off(mine, theirs.double()) < 1e-3
    assert any_form.name == "torch" or not torch.equal(mine, theirs)  # the kernels did run


def test_fast_kernels_are_asked_for_at_load_and_stay_under_another_config(published) -> None:
    plain, model = load(published), load(published, kernels="fast")
    stacks = {"gate_up", "down"}
    for part in (model, model.with_config(experts_per_token=1)):
        fast_ones = {name.split(".")[-1] for name, one in part.named_modules() if hasattr(one, "arithmetic")}
        assert fast_ones == {"q", "k", "v", "o", "router", "unembed"} | stacks
    assert arithmetic(model) == f"fast ({available()[0]})" and arithmetic(plain) == "exact"
    forms = watch(model, [1, 2, 3, 4, 5, 6], keep="logits").source["forms"]
    experts = "fused" if form().fused else "walked"
    assert forms == [f"fused attention, {experts} experts, fast ({available()[0]})"] * 3


def test_a_tap_sees_every_point_and_changes_no_bit_unless_it_looks_into_a_fused_form(published) -> None:
    model = load(published, kernels="fast")
    within = {"scores", "pattern", "sink", "gate", "up", "act"}
    for count in (3, 9):
        tokens = toys.random_tokens(model.config, batch=1, count=count)
        seen, silent = toys.record(model, tokens), toys.run(model, tokens)
        assert set(seen) == set(points.names(model.config))
        assert off(seen["logits"], silent.double()) < 1e-3
        outside = [name for name in seen if name.split(".")[-1] not in within]
        assert torch.equal(toys.record(model, tokens, outside)["logits"], silent)
        zeroed = {"blocks.1.experts.act": lambda value, here: 0 * value}
        edited = toys.record(model, tokens, "logits", zeroed)["logits"]
        assert seen["blocks.1.experts.act"].any() and not torch.equal(edited, seen["logits"])


def test_a_fast_model_can_be_copied_and_sent(published) -> None:
    model, tokens = load(published, kernels="fast"), torch.tensor([[1, 2, 3]])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert arithmetic(other) == arithmetic(model)
        assert torch.equal(toys.run(other, tokens), toys.run(model, tokens))


def test_what_a_fast_model_saves_is_what_it_was_loaded_from(published, tmp_path) -> None:
    again = load(save(load(published, kernels="fast"), tmp_path / "again"))
    was, now = load(published).state_dict(), again.state_dict()
    assert was.keys() == now.keys() and all(torch.equal(was[name], now[name]) for name in was)


def test_a_scale_that_is_not_a_number_is_refused_by_name(published, tmp_path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(published, folder)

    def break_one(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.1.mlp.experts.down_proj_scales"][2, 3, 0] = 255

    rewrite(folder, break_one)
    with pytest.raises(CheckpointError, match="layers.1.mlp.experts.down_proj_scales.*255 is NaN"):
        load(folder, kernels="fast")


NAMES = [
    ("gpt-oss-20b", {}, True), ("gpt-oss-120b", {"dtype": "stored"}, True), ("small", {}, False),
    ("gpt-oss-20b", {"kernels": "exact"}, False), ("gpt-oss-20b", {"dtype": torch.float32}, False),
    ("gpt-oss-20b", {"dtype": torch.bfloat16}, False), ("small", {"kernels": "fast"}, True),
    ("by its path", {}, True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "more", "expected"), NAMES)
def test_the_large_models_are_fast_unless_asked_otherwise(
    published, monkeypatch, name, more, expected
) -> None:
    """Under their names and by a path, as told by the config; a small model stands in for them here."""
    monkeypatch.setenv("GPTOSS_LAB_HOME", str(published.parent))
    if name != "small":
        monkeypatch.setitem(NAMED, "gpt-oss-20b" if name == "by its path" else name, load(published).config)
    if name in NAMED and not (published.parent / name).exists():
        (published.parent / name).symlink_to(published)
    model = load(name if name in NAMED else published, **more)
    assert arithmetic(model).startswith("fast") is expected


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


ONE_PRODUCT = """
import torch
from gptoss_lab.kernels import form
weight = torch.ones(3, 5, dtype=torch.bfloat16)
print(form().name, form().dense([weight], [None], torch.ones(1, 5)).tolist())
"""


def test_importing_the_room_imports_no_numba() -> None:
    done = python("import sys, gptoss_lab.kernels; print('numba' in sys.modules)")
    assert done.stdout.split() == ["False"], done.stderr


def test_without_numba_torch_answers_and_the_others_say_what_to_install() -> None:
    done = python(
        "import sys; sys.modules['numba'] = None\n"
        "from gptoss_lab.kernels import available, form\n"
        "print(available(), form().name)\n"
        "try: form('avx2')\n"
        "except ValueError as error: print(error)"
    )
    assert done.stdout.splitlines()[0] == "('torch',) torch", done.stderr
    assert "pip install 'gptoss-lab[fast]'" in done.stdout


def test_a_numba_that_cannot_be_imported_is_told_of_and_torch_answers(tmp_path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('numba needs another numpy')")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = python("from gptoss_lab.kernels import available; print(available())", PYTHONPATH=path)
    assert done.stdout.strip() == "('torch',)" and "numba needs another numpy" in done.stderr, done.stderr


def test_two_threads_may_ask_at_once(any_form) -> None:
    stack, x = packed(4, 300, 5), normal(4, 160)
    holder, index = fast(stack, any_form), torch.tensor([3, 0, 3, 1])
    alone = holder(x, index)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(alone, y) for y in pool.map(lambda _: holder(x, index), range(40)))


needs_numba = pytest.mark.skipif("numba" not in available(), reason="needs numba")


@needs_numba
def test_the_first_use_says_that_it_compiles_and_where_that_is_kept_and_the_next_is_silent(tmp_path) -> None:
    first, second = (python(ONE_PRODUCT, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert first.stdout == second.stdout and "[[5.0, 5.0, 5.0]]" in first.stdout, first.stderr
    assert first.stderr.count("compiling the fast kernels") == 1 and str(tmp_path) in first.stderr
    assert second.stderr == ""


@needs_numba
def test_where_no_folder_can_be_written_kernels_are_compiled_for_the_session() -> None:
    done = python(ONE_PRODUCT, NUMBA_CACHE_LOCATOR_CLASSES="ZipCacheLocator")
    assert "[[5.0, 5.0, 5.0]]" in done.stdout and "for this session" in done.stderr, done.stderr


@needs_numba
def test_for_another_processor_plain_loops_are_compiled() -> None:
    done = python("from gptoss_lab.kernels import available; print(available())", NUMBA_CPU_NAME="generic")
    assert done.stdout.strip() == "('numba', 'torch')", done.stderr
