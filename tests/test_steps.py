"""Half a block in one call, for one token: the same answers, and the model's own form where it cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from test_kernels import normal, off, threads_as_before  # noqa: F401
from test_seams import published  # noqa: F401

import gptoss_lab as lab
from gptoss_lab.kernels import FORMS, available, form, quicken
from gptoss_lab.kernels.steps import AttentionStep, ExpertsStep, TokenStep
from gptoss_lab.model import Transformer
from gptoss_lab.model.attention import Attention
from gptoss_lab.model.cache import Cache
from gptoss_lab.model.experts import Experts
from gptoss_lab.model.linear import Linear
from gptoss_lab.model.transformer import Block
from gptoss_lab.tap import SILENT, Recorder
from gptoss_lab.weights import load

pytestmark = pytest.mark.skipif(available() == ("torch",), reason="needs numba")
NEAR = 1e-3  # logits: some forms round activations to 16 bits, and a whole model multiplies errors


@pytest.fixture(params=FORMS[:-1])
def compiled(request: pytest.FixtureRequest) -> Any:
    """Every form with kernels that can run here."""
    if request.param not in available():
        pytest.skip(f"{request.param} cannot run here: {available()}")
    return form(request.param)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How many times the modules' own forward answered."""
    calls = {"attention": 0, "experts": 0}

    def counting(room: str, own: Any) -> Any:
        def forward(*given: Any, **more: Any) -> Any:
            calls[room] += 1
            return own(*given, **more)

        return forward

    with monkeypatch.context() as patched:
        patched.setattr(Attention, "forward", counting("attention", Attention.forward))
        patched.setattr(Experts, "forward", counting("experts", Experts.forward))
        yield calls


def fast(folder: Path, form: Any = None) -> Transformer:
    """The model with the kernels of one form."""
    model = load(folder, kernels="exact", dtype="stored")
    quicken(model, form)
    return model


def prompted(model: Transformer, count: int) -> tuple[Cache, torch.Tensor]:
    """A cache after a prompt of 3, and the logits of `count` tokens more, one at a time."""
    cache, found = Cache(model.config, 3 + count), []
    with torch.no_grad():
        model(torch.tensor([[5, 6, 7]]), cache=cache)
        for token in range(count):
            found.append(model(torch.tensor([[token]]), cache=cache)[0, 0])
    return cache, torch.stack(found)


@pytest.mark.parametrize("changes", [
    {}, {"window": None}, {"window": 1}, {"yarn": None}, {"experts_per_token": 1}, {"experts_per_token": 7},
], ids=str)  # fmt: skip
def test_tokens_one_by_one_are_as_the_exact_model_has_them(compiled, published, changes, monkeypatch) -> None:  # noqa: F811
    """Through rings that come round, with every window and number of experts; and so are the caches."""
    ours = fast(published, compiled).with_config(**changes)
    exact = load(published, dtype=torch.float32).with_config(**changes)
    with counted(monkeypatch) as calls:
        cache, logits = prompted(ours, 12)
    assert calls == {"attention": 3, "experts": 3}  # the prompt alone
    kept, right = prompted(exact, 12)
    assert off(logits, right.double()) < NEAR
    for one, other in zip(cache.layers, kept.layers):
        assert off(one.k, other.k.double()) < NEAR and off(one.v, other.v.double()) < NEAR
        assert torch.equal(one.positions, other.positions) and one.seen == other.seen == 15


def test_attention_is_exact_but_for_the_order_of_sums(compiled, published) -> None:  # noqa: F811
    model, x = fast(published, compiled), normal(1, 1, 32)
    exact = load(published, dtype=torch.float32)
    for layer in (0, 1):
        caches = [Cache(model.config, 9) for _ in range(2)]
        for position in (0, 1, 2, 40, 299):  # no need to follow one another
            at = torch.tensor([[position]])
            with torch.no_grad():
                ours, right = (one.blocks[layer].attention(x * position, at, cache.layers[layer])
                               for one, cache in zip((model, exact), caches))  # fmt: skip
            assert off(ours, right.double()) < 1e-5


def test_router_choices_are_kept_from_the_fast_form_and_leave_the_bits(published, monkeypatch) -> None:  # noqa: F811
    model, prompt = fast(published), [1, 2, 3]
    kept = ["blocks.*.experts.choice", "blocks.*.experts.weight", "blocks.*.attention.out"]
    silent = lab.generate(model, prompt, max_tokens=9, keep="logits").trace
    with counted(monkeypatch) as calls:
        watched = lab.generate(model, prompt, max_tokens=9, keep=[*kept, "logits"]).trace
    assert calls == {"attention": 3, "experts": 3}
    assert torch.equal(silent["logits"], watched["logits"]) and torch.equal(silent.tokens, watched.tokens)
    exact = load(published, dtype=torch.float32)
    right = lab.watch(exact, watched.tokens, keep="*")
    for name in watched:
        if name.endswith("choice"):
            assert torch.equal(watched[name], right[name])
        elif name != "logits":
            assert off(watched[name], right[name].double()) < NEAR


def test_what_lies_within_is_made_by_the_model_itself_and_by_no_other_layer(published, monkeypatch) -> None:  # noqa: F811
    model = fast(published)
    for name, room in {"attention.q_rotated": "attention", "experts.each": "experts"}.items():
        cache = Cache(model.config, 5)
        with torch.no_grad():
            model(torch.tensor([[5, 6]]), cache=cache)
            recorder = Recorder([f"blocks.1.{name}"])
            with counted(monkeypatch) as calls:
                model(torch.tensor([[7]]), cache=cache, tap=recorder)
        assert calls == {"attention": 0, "experts": 0} | {room: 1} and len(recorder.kept) == 1


class Plain:
    """A tap of somebody's own, which says that it wants nothing, and looks all the same."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, name: str, value: torch.Tensor) -> torch.Tensor:
        self.seen.append(name)
        return value

    def wants(self, name: str) -> bool:
        return False

    def within(self, room: str) -> Plain:
        return self

    def at(self, positions: Any = None, keys: Any = None) -> Plain:
        return self


@pytest.mark.parametrize("why", [
    "two tokens", "two rows", "no cache", "gradients", "edits", "own tap", "bf16 cache",
])  # fmt: skip
def test_the_models_own_form_answers_where_the_kernels_cannot(published, why, monkeypatch) -> None:  # noqa: F811
    model, exact = fast(published), load(published, dtype=torch.float32)
    tokens = {"two tokens": [[1, 2]], "two rows": [[1], [2]]}.get(why, [[1]])
    edits = {"blocks.0.residual": [lambda value, here: value + 0 * here["attention.q"].sum()]}
    taps = {"edits": Recorder(edits=edits), "own tap": Plain()}
    dtype = torch.bfloat16 if why == "bf16 cache" else torch.float32

    def run(one: Transformer) -> torch.Tensor:
        cache = None if why == "no cache" else Cache(one.config, 4, batch=len(tokens), dtype=dtype)
        embedded = one.embed(torch.tensor(tokens)).detach().requires_grad_(why == "gradients")
        positions = torch.arange(len(tokens[0])).expand(len(tokens), -1)
        with torch.set_grad_enabled(why == "gradients"):
            tap = taps.get(why, SILENT).within("blocks.0")
            return one.blocks[0](embedded, positions, cache.layers[0] if cache else None, tap)

    with counted(monkeypatch) as calls:
        found = run(model)
    fast_experts = why in ("no cache", "bf16 cache")
    assert calls == {"attention": 1, "experts": 0 if fast_experts else 1}
    assert off(found.detach(), run(exact).detach().double()) < 1e-2
    if why == "gradients":
        assert found.requires_grad
    if why == "own tap":
        assert {"norm", "q", "each"} <= set(taps[why].seen)


KEPT = ("logits", "blocks.*.residual", "blocks.*.attention.out", "blocks.*.experts.norm",
        "blocks.*.attention.norm", "blocks.1.experts.each", "blocks.2.attention.visible",
        "blocks.0.attention.pattern", "*")  # fmt: skip


def test_two_traces_that_tell_the_same_forms_have_the_same_bits(published) -> None:  # noqa: F811
    model, found = fast(published), {}
    edits = [None, {"blocks.0.residual": lambda value, here: value}, {"logits": lambda value, here: value}]
    for keep in KEPT:
        for edit in edits if keep == "logits" else edits[:1]:
            trace = lab.generate(model, [1, 2, 3], 6, keep=[keep, "logits"], edit=edit).trace
            assert trace is not None
            found.setdefault(tuple(trace.source["forms"]), []).append(trace["logits"])
    assert all(torch.equal(one, same[0]) for same in found.values() for one in same)
    silent = found[(form_of := next(iter(found)))]
    assert len(silent) == 5 and all("one token: in one call" in one for one in form_of)
    assert sum("by parts" in one for forms in found for one in forms) > 5


def test_an_edit_in_one_block_leaves_the_others_fast(published, monkeypatch) -> None:  # noqa: F811
    edit = {"blocks.1.residual": lambda value, here: value}
    with counted(monkeypatch) as calls:
        run_ = lab.generate(fast(published), [1], 4, keep="logits", edit=edit)
        assert run_.trace is not None and calls == {"attention": 4, "experts": 4}  # of one block in three
    whole, parts = "(one token: in one call)", "(one token: by parts)"
    assert [one.count(whole) for one in run_.trace.source["forms"]] == [2, 0, 2]
    assert [one.count(parts) for one in run_.trace.source["forms"]] == [0, 2, 0]


def test_weights_that_change_are_seen_in_place_or_replaced(published) -> None:  # noqa: F811
    model = fast(published)
    _, before = prompted(model, 2)
    with torch.no_grad():
        model.blocks[0].attention.o.weight.mul_(-1)
    _, turned = prompted(model, 2)
    assert not torch.allclose(before, turned)
    block = model.blocks[0].attention
    block.o.weight = torch.nn.Parameter(-block.o.weight.detach())
    assert torch.equal(prompted(model, 2)[1], before)
    block.o = Linear(*reversed(block.o.shape), bias=False)
    with torch.no_grad():
        block.o.weight.zero_()
    _, without = prompted(model, 2)
    assert not torch.allclose(before, without)


def test_a_seam_that_somebody_replaces_is_used(published) -> None:  # noqa: F811
    model = fast(published)
    _, before = prompted(model, 2)
    block = model.blocks[1]
    block.attention.attend = lambda q, *given, **more: torch.zeros_like(q)
    block.experts.answers = lambda x, choice, tap=SILENT: torch.zeros(*choice.shape, x.shape[-1])
    _, after = prompted(model, 2)
    assert not torch.allclose(before, after)


def test_another_config_has_steps_of_its_own_or_none(published) -> None:  # noqa: F811
    model = fast(published)
    other = model.with_config(window=None)
    step = vars(other.blocks[0].attention)["forward"]
    assert isinstance(step, AttentionStep) and step.module is other.blocks[0].attention
    step = vars(other.blocks[0].experts)["forward"]
    assert isinstance(step, ExpertsStep) and step.module is other.blocks[0].experts
    assert "forward" not in vars(model.with_config(dropout=0.1).blocks[0].attention)


@pytest.mark.parametrize(("logits", "first"), [
    ([0, 3, 1, 3, 2, -9, 0], [1, 3, 4]), ([0, math.nan, 5, 1, 0, 0, 0], [1, 2, 3]),
    ([-math.inf] * 6 + [0], [6, 0, 1]), ([0] * 7, [0, 1, 2]),
])  # fmt: skip
def test_of_equal_logits_the_first_is_chosen_and_nan_before_all(published, logits, first) -> None:  # noqa: F811
    import numpy as np

    form = vars(fast(published).blocks[0].experts)["forward"].form
    made = [np.zeros((1, 16), np.float32), np.zeros((1, 7), np.float32), np.zeros((1, 3), np.int64),
            np.zeros((1, 3), np.float32)]  # fmt: skip
    bias = torch.tensor(logits, dtype=torch.bfloat16).view(torch.uint16).numpy()
    nothing = np.zeros((7, 16), np.uint16)
    form.run(form.single.route_one, np.ones((1, 16), np.float32), nothing[0], 1e-5, nothing, bias, *made)
    assert made[2].tolist() == [first]
    chosen = torch.tensor(logits, dtype=torch.float32)[first]
    assert torch.allclose(torch.from_numpy(made[3][0]), chosen.softmax(-1), atol=1e-6, equal_nan=True)


whole = pytest.mark.skipif("avx512" not in available(), reason="needs AVX-512")


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """How many blocks ran by themselves, for every call of the model's own forward."""
    made: list[int] = []
    own, block = Transformer.forward, Block.forward
    monkeypatch.setattr(Transformer, "forward", lambda *a, **k: (made.append(0), own(*a, **k))[1])

    def counting(*given: Any, **more: Any) -> Any:
        if made:
            made[-1] += 1
        return block(*given, **more)

    monkeypatch.setattr(Block, "forward", counting)
    return made


@whole
def test_a_token_goes_through_all_blocks_in_one_call(published, passes) -> None:  # noqa: F811
    model, exact = fast(published), load(published, dtype=torch.float32)
    right = lab.generate(exact, [1, 2, 3], max_tokens=12, keep="*").trace
    passes.clear()
    keep = ["embedding", "final_norm", "logits", "blocks.*.experts.choice", "blocks.*.experts.logits",
            "blocks.1.experts.weight"]  # fmt: skip
    found = lab.generate(model, [1, 2, 3], max_tokens=12, keep=keep).trace
    assert passes == [3]  # the prompt
    assert torch.equal(found.tokens, right.tokens) and len(found) == 3 + 3 + 3 + 1
    for name in found:
        assert off(found[name].float(), right[name].double()) < NEAR
    every = lab.generate(model, [1, 2, 3], max_tokens=12, keep="*").trace
    assert torch.equal(found["embedding"], every["embedding"])


@whole
@pytest.mark.parametrize(("name", "apart"), [
    ("blocks.1.attention.q", 3), ("blocks.0.residual", 3), ("blocks.2.experts.each", 3), ("logits", 0),
])  # fmt: skip
def test_a_tap_that_looks_into_a_block_has_them_run_one_by_one(published, passes, name, apart) -> None:  # noqa: F811
    model = fast(published)
    trace = lab.generate(model, [1, 2, 3], max_tokens=3, keep=name).trace
    assert passes == [3] + 2 * [apart] * bool(apart) and trace[name].shape[1] == 5 - 2 * (name == "logits")


@whole
@pytest.mark.parametrize("where", [
    "blocks.1", "blocks.1.attention", "blocks.0.experts", "blocks.2.attention.o", "blocks.0.attention.norm",
    "blocks.1.experts.router",
])  # fmt: skip
def test_hooks_fire_on_every_token(published, where) -> None:  # noqa: F811
    model, calls = fast(published), []
    _, before = prompted(model, 4)
    hook = model.get_submodule(where).register_forward_hook(lambda *given: calls.append(where))
    _, after = prompted(model, 4)
    assert len(calls) == 5 and off(after, before.double()) < NEAR
    hook.remove()
    assert torch.equal(prompted(model, 4)[1], before) and len(calls) == 5


@whole
def test_the_whole_form_follows_the_config_and_what_a_block_holds(published) -> None:  # noqa: F811
    model = fast(published)
    step = vars(model)["forward"]
    other = model.with_config(experts_per_token=1, window=None)
    assert isinstance(step, TokenStep) and vars(other)["forward"].model is other
    assert "forward" not in vars(model.with_config(dropout=0.1))
    exact = load(published, dtype=torch.float32).with_config(experts_per_token=1, window=None)
    assert off(prompted(other, 9)[1], prompted(exact, 9)[1].double()) < NEAR
    with torch.no_grad():
        before = prompted(model, 2)[1]
        model.blocks[2].experts.down.bias.add_(1)
        assert not torch.allclose(prompted(model, 2)[1], before)
        model.blocks[2].experts.down.bias.sub_(1)
        assert off(prompted(model, 2)[1], before.double()) < 1e-2
        model.blocks[1].attention.frequencies.mul_(2)
        assert not torch.allclose(prompted(model, 2)[1], before, rtol=1e-3)
        model.blocks[1].attention.frequencies.div_(2)
        model.blocks[2].experts.norm.eps = 1.0
        assert not torch.allclose(prompted(model, 2)[1], before, rtol=1e-3)
        model.blocks[2].experts.norm.eps = model.config.norm_eps
        assert off(prompted(model, 2)[1], before.double()) < 1e-2
        shared = model.blocks[0]
        model.blocks[0] = model.blocks[1]
        assert not torch.allclose(prompted(model, 2)[1], before)
        model.blocks[0] = shared
    with pytest.raises(ValueError, match="tokens reach from 99 to 99"):
        model(torch.tensor([[99]]), cache=Cache(model.config, 3))
    with pytest.raises(ValueError, match="exceed the cache's 2"):
        prompted_into = Cache(model.config, 2)
        for _ in range(3):
            model(torch.tensor([[1]]), cache=prompted_into)
    assert prompted_into.tokens == 2


def alike(change: Any, folder: Path, within: float = NEAR) -> None:
    """Fast and exact kernels over stored weights, both after the same change, decode the same."""
    models = [fast(folder), load(folder, kernels="exact", dtype="stored")]
    prompted(models[0], 2)  # so that views of the weights as they were are there
    for one in models:
        with torch.no_grad():
            change(one)
    ours, right = (prompted(one, 3)[1] for one in models)
    assert ours.isfinite().all() and off(ours, right.double()) < within


def prune(model: Transformer) -> None:
    router = model.blocks[1].experts.router
    router.weight = torch.nn.Parameter(router.weight[:4].clone(), requires_grad=False)
    router.bias = torch.nn.Parameter(router.bias[:4].clone(), requires_grad=False)


def turn_around(model: Transformer) -> None:
    for name in ("q", "k", "v"):
        line = getattr(model.blocks[0].attention, name)
        rows, columns = line.weight.shape
        line.weight = torch.nn.Parameter(line.weight.as_strided((rows, columns), (0, 1)), requires_grad=False)


def replace_forward(model: Transformer) -> None:
    o = model.blocks[1].attention.o
    o.forward = lambda x: torch.zeros(*x.shape[:-1], o.shape[0])


def one_expert_in_one_block(model: Transformer) -> None:
    experts = model.blocks[1].experts
    experts.config = experts.config.with_changes(experts_per_token=1)


def one_wide_bias(model: Transformer) -> None:
    down = model.blocks[1].experts.down
    down.bias = torch.nn.Parameter(down.bias.float(), requires_grad=False)


@pytest.mark.parametrize("change", [
    prune, turn_around, replace_forward, one_expert_in_one_block, one_wide_bias, Transformer.float,
], ids=lambda change: change.__name__)  # fmt: skip
def test_what_is_done_to_a_model_shows_in_its_tokens(published, change) -> None:  # noqa: F811
    alike(change, published)


def test_frequencies_of_another_kind_are_not_read_as_float32(published) -> None:  # noqa: F811
    alike(lambda model: model.to(torch.bfloat16), published, within=0.1)  # keys and angles are bfloat16 then


def test_a_cache_of_another_model_is_refused_as_the_exact_model_refuses_it(published) -> None:  # noqa: F811
    model = fast(published)
    for changes in ({"n_kv_heads": 1}, {"n_kv_heads": 4}, {"d_head": 32}):
        with pytest.raises(RuntimeError), torch.no_grad():
            model(torch.tensor([[1]]), cache=Cache(model.config.with_changes(**changes), 9))


def test_rows_that_do_not_lie_in_a_piece_are_rounded_as_those_that_do(published) -> None:  # noqa: F811
    model = fast(published)

    def as_it_was(value: torch.Tensor, here: Any) -> torch.Tensor:
        return (value.mT.contiguous() * 1.0).mT

    plain = lab.watch(model, list(range(9)), keep="logits")["logits"]
    edited = lab.watch(model, list(range(9)), keep="logits", edit={"blocks.*.experts.norm": as_it_was})
    assert off(edited["logits"], plain.double()) < 1e-5


@pytest.mark.parametrize("name", ["blocks.0.attention.q.weight", "blocks.1.attention.sinks",
                                  "blocks.2.experts.norm.scale"])  # fmt: skip
@pytest.mark.parametrize("tokens", [1, 6])
def test_one_weight_alone_may_ask_for_a_gradient(published, name, tokens) -> None:  # noqa: F811
    model = fast(published)
    weight = model.get_parameter(name).requires_grad_()
    model(torch.arange(tokens)[None], cache=Cache(model.config, 9)).square().mean().backward()
    assert weight.grad is not None and (tokens == 1 or weight.grad.any())


def test_hooks_on_all_modules_fire(published) -> None:  # noqa: F811
    from torch.nn.modules.module import register_module_forward_hook

    model, seen = fast(published), set()
    prompted(model, 1)
    hook = register_module_forward_hook(lambda module, given, out: seen.add(type(module).__name__))
    try:
        with torch.no_grad():
            cache, _ = prompted(model, 1)
            seen.clear()
            model(torch.tensor([[1]]), cache=Cache(model.config, 2))
    finally:
        hook.remove()
    assert {"Block", "Attention", "Experts", "RMSNorm", "FastLinear"} <= seen


def test_what_attention_shows_comes_with_its_keys(published) -> None:  # noqa: F811
    model, cache, shown = fast(published), None, []
    cache = Cache(model.config, 5)
    with torch.no_grad():
        model(torch.tensor([[5, 6]]), cache=cache)
        tap = Recorder(["blocks.1.attention.out"], store=lambda name, value, at, keys: shown.append(keys))
        model(torch.tensor([[7]]), cache=cache, tap=tap)
    assert shown[0].tolist() == [[0, 1, 2]]


def test_views_of_weights_are_not_copied_along(published) -> None:  # noqa: F811
    import pickle

    model = fast(published)
    before = len(pickle.dumps(model))
    prompted(model, 2)
    assert len(pickle.dumps(model)) < 1.02 * before


def test_copies_and_pickles_keep_what_they_need(published) -> None:  # noqa: F811
    import copy
    import pickle

    model = fast(published)
    _, before = prompted(model, 2)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert vars(other.blocks[0].attention)["forward"].module is other.blocks[0].attention
        with torch.no_grad():
            other.blocks[0].attention.o.weight.zero_()
        assert not torch.allclose(prompted(other, 2)[1], before)
    assert torch.equal(prompted(model, 2)[1], before)
