"""Fast forms in the seams: attention by parts and by a kernel; q, k, v in one call; experts in one call."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import toys
from test_kernels import TOLERANCE, any_form, normal, off  # noqa: F401
from toy_checkpoints import model_of

from gptoss_lab.kernels import available, quicken, seams
from gptoss_lab.kernels.seams import Answers, Attend, Project, attend_by_parts
from gptoss_lab.model import attend, clamped_swiglu
from gptoss_lab.model.experts import Experts
from gptoss_lab.trace import watch
from gptoss_lab.weights import load, save


def asked(
    batch: int,
    new: int,
    keys: int,
    heads: int = 8,
    groups: int = 2,
    width: int = 16,
    window: int | None = None,
) -> tuple[torch.Tensor, ...]:
    """q, k, v, what is seen, sinks; keys in any order, as a ring has them, and some that nobody may see."""
    generator = torch.Generator().manual_seed(keys)
    order = torch.randperm(keys, generator=generator).expand(batch, -1)
    queries = torch.arange(keys - new, keys).expand(batch, -1)[..., None]
    seen = (order[:, None] <= queries) & (queries - order[:, None] < (window or keys))
    seen &= torch.rand(batch, 1, keys, generator=generator) > 0.1
    q, sink = normal(batch, new, heads, width), 2 * normal(batch, heads, new, seed=2)
    k = normal(batch, groups, keys + 3, width, seed=3).transpose(1, 2)[:, :keys]  # as a cache has them
    v = normal(batch, keys, groups, 2 * width, seed=4)[..., :width]  # cut out of something wider
    return q, k, v, seen, sink


SHAPES = [
    {"batch": 1, "new": 1, "keys": 1}, {"batch": 1, "new": 1, "keys": 130},
    {"batch": 2, "new": 3, "keys": 77}, {"batch": 1, "new": 2, "keys": 50, "heads": 20, "groups": 2},
    {"batch": 1, "new": 4, "keys": 9, "width": 64}, {"batch": 1, "new": 1, "keys": 40, "window": 7},
    {"batch": 2, "new": 40, "keys": 70, "window": 9}, {"batch": 1, "new": 90, "keys": 90},
    {"batch": 1, "new": 30, "keys": 31, "heads": 3, "groups": 3, "width": 5},
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sinks", [True, False])
@pytest.mark.parametrize("scores", [1, 1000, 1 << 22])
def test_attention_is_as_in_float64(any_form, shape, sinks, scores, monkeypatch) -> None:  # noqa: F811
    """By the kernel where there are few queries, else by parts, however many scores a part may have."""
    monkeypatch.setattr(seams, "SCORES", scores)
    q, k, v, seen, sink = asked(**shape)
    exact = attend(q.double(), k.double(), v.double(), seen, sink.double() if sinks else None)
    for ours in (Attend(any_form), attend_by_parts):
        assert off(ours(q, k, v, seen, sink if sinks else None), exact) < 1e-5


@pytest.mark.parametrize("new", [1, 20])
def test_a_query_that_sees_nothing_gives_zeros_and_nan_stays(any_form, new) -> None:  # noqa: F811
    q, k, v, seen, sink = asked(1, new, 30)
    seen[:, -1] = False
    for given in (None, sink):
        mixed = Attend(any_form)(q, k, v, seen, given)
        assert not mixed[:, -1].any() and (new == 1 or mixed[:, 0].any())
    q[:, 0, 0] = math.nan
    seen[:] = True
    mixed = Attend(any_form)(q, k, v, seen, sink)
    assert mixed[:, 0, 0].isnan().all() and mixed[:, :, 1:].isfinite().all()


def test_scores_far_apart_overflow_nowhere(any_form) -> None:  # noqa: F811
    for new in (1, 20):
        q, k, v, seen, sink = asked(1, new, 64)
        exact = attend(300 * q.double(), k.double(), v.double(), seen, sink.double())
        assert off(Attend(any_form)(300 * q, k, v, seen, sink), exact) < 1e-4


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small gpt-oss in the published layout, its heads as wide as the kernel asks."""
    config = toys.mxfp4(stored="bfloat16", d_head=16, n_heads=16, n_kv_heads=2, context=300)
    return save(model_of(config), tmp_path_factory.mktemp("models") / "small")


@pytest.mark.skipif("avx512" not in available(), reason="needs AVX-512")
@pytest.mark.parametrize("tokens", [1, 3, 60])
def test_experts_in_one_call_answer_as_one_by_one(published, tokens) -> None:
    """Against float64: gate, up, SwiGLU and down of the unpacked weights."""
    experts = load(published, kernels="fast").blocks[1].experts
    exact = load(published, dtype=torch.float32).blocks[1].experts.double()
    exact.gate_up.compute = exact.down.compute = torch.float64
    x = normal(2, tokens, experts.config.d_model)
    choice = torch.randint(0, 7, (2, tokens, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = experts.answers(x, choice)
        rows = exact.gate_up(x.double()[:, :, None].expand(-1, -1, 3, -1), choice)
        gate, up = rows.unflatten(-1, (-1, 2)).unbind(-1)
        theirs = exact.down(clamped_swiglu(gate, up), choice)
    assert (gate > 7).any() and (up < -7).any() and off(ours, theirs) < TOLERANCE
    with pytest.raises(IndexError, match="there are 0 to 6"):
        experts.answers(x, choice + 5)


def test_q_k_and_v_in_one_call_are_those_of_three(any_form, published) -> None:  # noqa: F811
    model = load(published, kernels="exact", dtype="stored")
    quicken(model, any_form)
    attention = model.blocks[0].attention
    for tokens in (1, 4, 9):
        x = normal(1, tokens, model.config.d_model)
        for one, line in zip(attention.project(x), (attention.q, attention.k, attention.v)):
            assert torch.equal(one, line(x))


def test_another_config_over_the_same_weights_keeps_the_forms_and_uses_its_own(published) -> None:
    model = load(published, kernels="fast")
    block = model.with_config(swiglu_limit=1.0, experts_per_token=1).blocks[0]
    project = block.attention.project
    assert isinstance(project, Project) and project.attention is block.attention
    assert isinstance(block.attention.attend, Attend)
    if "avx512" in available():
        assert isinstance(block.experts.answers, Answers) and block.experts.answers.experts is block.experts
        x, choice = normal(1, 1, 32), torch.tensor([[[3]]])
        with torch.no_grad():
            found = block.experts.answers(x, choice)
            assert off(found, Experts.answers(block.experts, x, choice).double()) < 1e-3
            assert not torch.allclose(found, model.blocks[0].experts.answers(x, choice), rtol=1e-2)
        plain = model.with_config(activation="swiglu").blocks[0].experts
        assert "answers" not in vars(plain)


def test_where_a_tap_looks_inside_the_explicit_form_runs_and_elsewhere_the_fast_one(published) -> None:
    model = load(published, kernels="fast")
    kept = ["blocks.0.attention.pattern", "blocks.1.experts.act", "logits"]
    for count in (3, 9):
        trace = watch(model, list(range(count)), keep=kept)
        forms = trace.source["forms"]
        assert [one.split()[0] for one in forms] == ["explicit", "fused", "fused"]
        if "avx512" in available():
            explicit = "walked" if count > 4 else "gathered"
            assert [one.split()[2] for one in forms] == ["fused", explicit, "fused"]
        silent = watch(model, list(range(count)), keep="logits")
        assert off(trace["logits"], silent["logits"].double()) < 1e-3
        assert trace["blocks.1.experts.act"].any() and trace["blocks.0.attention.pattern"].any()


@pytest.mark.skipif("numba" not in available(), reason="needs numba")
def test_the_kernels_own_exponential_and_swiglu_are_as_in_float64() -> None:
    import numba
    import numpy as np

    from gptoss_lab.kernels import plain

    x = np.linspace(-87, 88, 20001).astype(np.float32)
    ours = numba.vectorize(nopython=True)(lambda one: plain.exponential(one))(x)
    assert np.abs(ours / np.exp(x.astype(np.float64)) - 1).max() < 3e-7
    call = numba.njit(lambda gate, up: plain.clamped_swiglu(gate, up, np.float32(7), np.float32(1.702)))
    for gate, up in [(9.0, 1.0), (-50.0, -9.0), (0.5, 20.0), (-3.0, 0.25), (7.0, -7.0)]:
        exact = clamped_swiglu(torch.tensor(gate).double(), torch.tensor(up).double())
        assert abs(call(np.float32(gate), np.float32(up)) - exact) <= 1e-6 * abs(exact) + 1e-12
    assert math.isnan(call(np.float32(math.nan), np.float32(0)))
    assert math.isnan(call(np.float32(0.5), np.float32(math.nan)))
