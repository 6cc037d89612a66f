"""How fast a run went: progress of the prompt, tokens a second, and what Ctrl-C leaves of both."""

from __future__ import annotations

import time

import pytest
import toys
from toys import one_thread  # noqa: F401

from gptoss_lab import generation, pace
from gptoss_lab.generation import generate
from gptoss_lab.kernels import available, compile_seconds, form
from gptoss_lab.pace import Pace

PROMPT = list(range(20))


@pytest.fixture(scope="module")
def model():
    return toys.random_model(toys.gpt_oss(context=64))


def test_the_tokens_are_the_runs_and_the_counts_are_theirs(model):
    watched = Pace(model, generate(model, PROMPT, max_tokens=7))
    assert [t.id for t in watched] == [t.id for t in generate(model, PROMPT, max_tokens=7)]
    told = watched.figures()
    assert (told["prompt_tokens"], told["decode_tokens"]) == (20, 6)  # the first comes with the prompt
    for part in ("prompt", "decode"):
        rate = told[f"{part}_tokens"] / watched.parts[part].seconds
        assert told[f"{part}_tokens_per_second"] == pytest.approx(rate, abs=0.01)
    assert told["compile_seconds"] == 0 and told["peak_memory_bytes"] > 1e6


@pytest.mark.parametrize("chunk", [3, 8, 64])
def test_progress_grows_layer_by_layer_to_the_whole_prompt(model, monkeypatch, chunk):
    monkeypatch.setattr(generation, "CHUNK", chunk)
    told = []
    list(Pace(model, generate(model, PROMPT, max_tokens=3), tell=lambda *now: told.append(now)))
    done = [now[0] for now in told]
    assert len(told) == model.config.n_layers * -(-20 // chunk)
    assert done == sorted(done) and done[-1] == 20 and {now[1] for now in told} == {20}
    assert all(before[2] <= after[2] for before, after in zip(told, told[1:]))
    assert not any(block._forward_hooks for block in model.blocks)


def test_time_is_spent_where_the_clock_says(model, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: clock[0])
    run = generate(model, PROMPT, max_tokens=5)
    steps = iter(run)

    def slow():
        for n in range(5):
            clock[0] += 2.0 if n == 0 else 0.5
            yield next(steps)

    monkeypatch.setattr(type(run), "__iter__", lambda self: slow())
    watched = Pace(model, run)
    for _ in watched:
        clock[0] += 100.0  # what is done with a token does not count
    told = watched.figures()
    assert (told["prompt_seconds"], told["decode_seconds"]) == (2.0, 2.0)
    assert (told["prompt_tokens_per_second"], told["decode_tokens_per_second"]) == (10.0, 2.0)
    said = "prompt: 20 tokens in 2.00 s (10.0 tokens/s); decoding: 4 tokens in 2.00 s (2.0 tokens/s)"
    assert watched.report().startswith(f"{said}; peak memory ")


def test_compiling_is_counted_apart(monkeypatch):
    clock, compiled = [0.0], [3.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(pace, "compile_seconds", lambda: compiled[0])
    stretch = pace.Stretch()
    with stretch:
        clock[0], compiled[0] = 10.0, 12.0
    assert (stretch.compiling, stretch.seconds, stretch.rate(4)) == (9.0, 1.0, 4.0)


@pytest.mark.skipif("numba" not in available(), reason="needs numba")
def test_the_seconds_of_compiling_are_those_that_numba_took():
    import numba

    form()  # from now on they are counted
    before, start = compile_seconds(), time.perf_counter()
    inner = numba.njit(lambda x: x + 1)
    numba.njit(lambda x: inner(x) * 2)(3)  # one inside the other counts once
    assert 0 < compile_seconds() - before <= time.perf_counter() - start


def test_a_prompt_that_is_stopped_tells_how_far_it_came(model, monkeypatch):
    monkeypatch.setattr(generation, "CHUNK", 8)

    def stop(done, total, seconds):
        if done >= 10:
            raise KeyboardInterrupt

    watched = Pace(model, generate(model, PROMPT, max_tokens=5), tell=stop)
    with pytest.raises(KeyboardInterrupt):
        list(watched)
    assert watched.figures()["prompt_tokens"] == 10
    assert watched.figures()["decode_tokens_per_second"] is None
    assert watched.report().startswith("prompt: 10 of 20 tokens in ")
    assert "decoding" not in watched.report()
    assert not any(block._forward_hooks for block in model.blocks)


def test_without_a_single_token_nothing_is_divided(model):
    watched = Pace(model, generate(model, PROMPT, max_tokens=5))
    assert watched.figures()["prompt_tokens_per_second"] is None
