"""The queue of the ladder's runs: what is made next, what survives an interruption, what a result holds."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import one_thread

from gptoss_lab import cli
from gptoss_lab.config import Config
from gptoss_lab.model import Transformer
from gptoss_lab.training import ladder, outcome, queue
from gptoss_lab.training import train as training
from gptoss_lab.training.corpus import DOMAINS, heldout_windows
from gptoss_lab.training.ladder import Entry, byte_encoding, first_rung, plan, recipe_for, rung
from gptoss_lab.training.objective import gradients, in_phase
from gptoss_lab.training.queue import best_rates, listing, results, run_queue, score, waiting
from gptoss_lab.training.runs import Run, read_run, write_checkpoint
from gptoss_lab.training.train import Diverged, train

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
STEPS = 10


def small(name: str, **changes: object) -> Config:
    """A rung with one layer and little width."""
    shape = {"d_model": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "d_head": 8, "d_ff": 32}
    return rung("mxfp4").with_changes(name=name, **shape | changes)


GRID = [Entry(small("a"), 0, rate, "learning rate") for rate in (1e-3, 4e-3)]
ENTRIES = [*GRID, Entry(small("a"), 0, "a", "rungs"), Entry(small("b", sinks=False), 0, "a", "rungs")]
TEXTS = {"up": (torch.arange(3000) % 257).int(), "down": (torch.arange(3000, 0, -1) % 257).int()}


def brief(run: Run, folder: Path, entry: Entry, before: Any) -> dict[str, Any]:
    """A stand-in for the measurements: the last loss for bits per byte."""
    bits = {"near": {"up": run.loss[-1]}}
    return {"bits_per_byte": bits, "loss": run.loss, "untaught": before, "rate": run.recipe.peak}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure next to nothing, and time nothing."""
    monkeypatch.setattr(queue, "measured", brief)
    monkeypatch.setattr(queue, "untaught", lambda run, folder: {"at": run.done})
    for home in (queue, training):
        monkeypatch.setattr(home, "seconds_a_step", lambda model, recipe, texts: [0.1, 0.2])


def go(folder: Path, entries: list[Entry] = ENTRIES, **more: Any) -> int:
    """Run the queue in `folder`; results go to `folder`/results."""
    more = {"texts": TEXTS, "steps": STEPS, "quiet": True} | more
    return run_queue(folder, entries=entries, into=folder / "results", **more)


def with_score(bits: float) -> dict[str, Any]:
    """A result of so many bits per byte."""
    return {"bits_per_byte": {"near": dict.fromkeys(DOMAINS, bits)}}


def test_the_best_rate_is_known_when_the_whole_grid_is_in():
    found = {GRID[0].id({}): with_score(2.0)}
    assert best_rates(ENTRIES, found) == {}
    found[GRID[1].id({})] = with_score(1.9)
    assert best_rates(ENTRIES, found) == {"a": 4e-3}
    found[GRID[1].id({})] = {"diverged": "the loss is nan at step 7"}
    assert best_rates(ENTRIES, found) == {"a": 1e-3}


def test_a_run_of_the_grid_is_not_made_again_for_its_rung():
    assert waiting(ENTRIES, {}) == [*GRID, ENTRIES[3]] == waiting(ENTRIES * 2, {})
    found = {entry.id({}): with_score(2.0) for entry in GRID}
    assert waiting(ENTRIES, found) == [ENTRIES[3]]
    assert waiting(ENTRIES, found | {"b.seed0.lr0.001": with_score(3.0)}) == []


def test_the_plan_has_its_runs_in_the_order_of_what_they_tell():
    left = waiting(plan(), {})
    assert len(left) == 118
    purposes = [entry.purpose for entry in left]
    assert purposes[:16] == ["learning rate"] * 16 and purposes[16:49] == ["rungs"] * 33
    assert [entry.seed for entry in left[16:49]] == [0] * 9 + [1] * 12 + [2] * 12
    assert purposes[49:74] == ["leave one out"] * 25 and purposes[-20:-12] == ["shape"] * 8
    assert purposes[-12:] == ["Swish", "the experts' rate", "many epochs", "many epochs"] * 3
    assert left[-21].seed == 1


def test_a_run_that_repeats_reads_the_beginning_of_each_corpus_alone(tmp_path, quick, monkeypatch):
    seen = {}

    def trained(recipe, place, texts, **more):
        seen.update(texts)
        place.mkdir()
        raise Diverged("enough")

    monkeypatch.setattr(queue, "train", trained)
    texts = {"a": torch.arange(90_000), "b": torch.arange(5)}
    entry = next(entry for entry in plan() if entry.purpose == "many epochs")
    queue.run_one(entry, 1e-3, tmp_path, tmp_path / "into", texts, 10, True)
    assert {name: len(ids) for name, ids in seen.items()} == {"a": ladder.REPEATED, "b": 5}
    assert ladder.STEPS * ladder.BATCH * ladder.SHORT == 20 * ladder.REPEATED * len(DOMAINS)


def test_the_listing_tells_hours_and_what_is_in():
    found = {GRID[0].id({}): with_score(2.0)}
    each = {"a": 1800.0, "b": 3600.0}
    text = listing(ENTRIES, found, each)
    assert "1 of 3 runs are in; the other 2 take about 1.5 hours" in text
    assert "rate best of a" in text and "  30.0 min  learning rate" in text


def test_the_queue_makes_every_run_once_and_then_nothing(tmp_path, quick, monkeypatch, capsys):
    assert go(tmp_path) == 0
    found = results(tmp_path / "results")
    best = min((score(found[entry.id({})]), entry.rate) for entry in GRID)[1]
    assert sorted(found) == sorted([*(entry.id({}) for entry in GRID), f"b.seed0.lr{best:g}"])
    assert all(len(result["loss"]) == STEPS and result["untaught"] == {"at": 9} for result in found.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "results", "speeds.json"]
    for spent in ("train", "seconds", "tokens_by_domain"):
        monkeypatch.setattr(queue, spent, lambda *given, **named: pytest.fail("trained or timed again"))
    capsys.readouterr()
    assert go(tmp_path, texts=None) == 0 and capsys.readouterr().out == "all 3 runs are in\n"


def test_a_run_is_made_again_elsewhere_at_the_rate_that_the_package_has(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(queue, "RESULTS", tmp_path / "package")
    assert run_queue(tmp_path, entries=ENTRIES, into=tmp_path / "package", texts=TEXTS, steps=STEPS,
                     quiet=True) == 0  # fmt: skip
    made = results(tmp_path / "package")
    assert go(tmp_path, only="b") == 0
    (again,) = results(tmp_path / "results").items()
    assert again[0].startswith("b.seed0.lr") and again[1] == made[again[0]]


def test_what_was_measured_of_a_run_whose_checkpoint_is_gone_is_not_taken_for_the_next_ones(tmp_path, quick):
    place = tmp_path / GRID[0].id({})
    place.mkdir()
    (place / "untaught.json").write_text('{"at": 0}', encoding="utf-8")
    go(tmp_path, GRID[:1])
    assert results(tmp_path / "results")[GRID[0].id({})]["untaught"] == {"at": 9}


def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path, quick, monkeypatch):
    one = GRID[:1]
    go(tmp_path / "once", one)

    def interrupted(model: Transformer, *given: Any) -> Any:
        steps.append(1)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return gradients(model, *given)

    steps: list[int] = []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "gradients", interrupted)
        go(tmp_path / "twice", one)
    place = tmp_path / "twice" / one[0].id({})
    assert read_run(place).done == 4 and not results(tmp_path / "twice" / "results")
    assert go(tmp_path / "twice", one) == 0
    once, twice = (results(tmp_path / n / "results")[one[0].id({})] for n in ("once", "twice"))
    assert once == twice and not place.exists()


def test_a_run_that_diverges_has_a_result_that_says_so(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(training, "gradients", lambda *given: (torch.tensor(math.nan), torch.ones(())))
    assert go(tmp_path, GRID[:1]) == 0
    (result,) = results(tmp_path / "results").values()
    assert result["diverged"].startswith("the loss is nan at step 0") and score(result) == math.inf
    with pytest.raises(Diverged):
        train(recipe_for(small("a"), 1e-3), tmp_path / "run", steps=2, texts=TEXTS, quiet=True)


def test_no_step_begins_while_the_pause_file_is_there(tmp_path, quick, monkeypatch):
    pause, recipe = tmp_path / queue.PAUSE, recipe_for(small("a"), 1e-3)
    pause.touch()

    def after_the_pause(*given: Any) -> Any:
        assert not pause.exists()
        return gradients(*given)

    threading.Timer(1.2, pause.unlink).start()
    monkeypatch.setattr(training, "gradients", after_the_pause)
    assert train(recipe, tmp_path / "run", steps=2, texts=TEXTS, quiet=True, pause=pause).done == 2


def test_a_pause_is_not_time_spent_training(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(training, "wait_while", lambda pause, asked: 1000.0)
    run = train(recipe_for(small("a"), 1e-3), tmp_path / "run", steps=2, texts=TEXTS, quiet=True)
    assert -2000 < run.seconds < -1900  # two waits of a thousand seconds that did not take place


def test_ctrl_c_ends_a_pause(tmp_path, quick):
    pause = tmp_path / queue.PAUSE
    pause.touch()
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        train(recipe_for(small("a"), 1e-3), tmp_path / "run", steps=2, texts=TEXTS, quiet=True, pause=pause)
    assert read_run(tmp_path / "run").done == 0


def test_two_queues_do_not_share_a_folder(tmp_path, quick):
    with queue.alone(tmp_path), pytest.raises(ValueError, match="a queue works in .* already"):
        go(tmp_path)
    assert go(tmp_path, GRID[:1]) == 0


def test_only_some_models_are_trained_when_asked(tmp_path, quick):
    assert go(tmp_path, only="b") == 1  # b waits for the grid of a
    assert not (tmp_path / "results").exists()
    assert go(tmp_path, only="a") == 0
    assert sorted(results(tmp_path / "results")) == sorted(entry.id({}) for entry in GRID)
    with pytest.raises(ValueError, match="--only 'c' picks no model of the plan; there are a, b"):
        go(tmp_path, only="c")


@pytest.mark.parametrize(("text", "said"), [("{", "is no JSON"), ("[]", "holds a list")])
def test_a_damaged_file_is_refused_by_name(tmp_path, quick, text, said):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"a.json {said}.* delete it, and its run is made again"):
        results(tmp_path)
    (tmp_path / "speeds.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"speeds.json {said}.* delete it to measure anew"):
        go(tmp_path)


def test_the_plan_alone_trains_nothing(tmp_path, quick, capsys):
    assert go(tmp_path, plan_only=True) == 3
    assert "0 of 3 runs are in" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()


def test_the_plan_of_what_is_all_in_makes_no_folder(tmp_path, capsys):
    assert run_queue(tmp_path / "ladder", plan_only=True) == 0
    assert capsys.readouterr().out == "all 118 runs are in\n" and not any(tmp_path.iterdir())


def test_a_folder_that_may_not_be_made_is_told(tmp_path, monkeypatch):
    def refuse(*given, **named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ValueError, match=r"the folder '.*/ladder' may not be made here; name another place"):
        run_queue(tmp_path / "ladder")


def test_the_plan_can_be_asked_for_while_a_queue_runs_and_times_nothing_twice(tmp_path, quick, monkeypatch):
    assert go(tmp_path, plan_only=True) == 3
    monkeypatch.setattr(queue, "seconds_a_step", lambda *given: pytest.fail("timed again"))
    before = (tmp_path / "speeds.json").stat().st_mtime_ns
    with queue.alone(tmp_path):
        assert go(tmp_path, plan_only=True) == 3
    assert (tmp_path / "speeds.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(("arguments", "message"), [
    (["ladder", "--steps", "5"], "--steps is for one model"),
    (["ladder", "--fresh"], "--fresh is for one model"),
    (["mini-oss", "--plan"], "--plan is for the ladder; leave it out for 'mini-oss'"),
    (["mini-oss", "--results", "x"], "--results is for the ladder; leave it out for 'mini-oss'"),
    (["ladder", "--only", "x*"], "--only 'x*' picks no model of the plan"),
])  # fmt: skip
def test_a_mistake_on_the_command_line_is_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and not out
    assert not list(tmp_path.iterdir())


# What is measured


def test_an_outcome_is_what_its_numbers_say(tmp_path, monkeypatch):
    """A model that knows nothing has log2 257 bits for every byte, wherever and whatever it is."""
    monkeypatch.setattr(outcome, "NEAR", (256, 2))
    monkeypatch.setattr(outcome, "FAR", (1024, 1))
    monkeypatch.setattr(outcome, "BEYOND", (2048, 1))
    config = small("a")
    recipe, model = recipe_for(config, 1e-3), Transformer.random(config)
    with torch.no_grad():
        model.unembed.weight.zero_()
    run = Run(recipe, seed=3, steps=STEPS, done=STEPS, loss=[5.0] * STEPS, balance=[1.5] * STEPS)
    write_checkpoint(tmp_path, run, model, torch.optim.AdamW(model.parameters()))
    entry = Entry(config, 3, 1e-3, "rungs")
    found = json.loads(json.dumps(outcome.measured(run, tmp_path, entry, None)))
    nothing = math.log2(257)
    windows = heldout_windows(byte_encoding(), "spanish", 256, 2)
    expected = [nothing * 256 / int(size) for size in windows.bytes]  # a verse's end has no bytes
    assert found["windows"]["near"]["spanish"] == pytest.approx(expected, abs=1e-4)
    for name, count in (("near", 2), ("far", 1)):
        for domain in DOMAINS:
            bits = found["windows"][name][domain]
            assert len(bits) == count
            assert found["bits_per_byte"][name][domain] == pytest.approx(sum(bits) / count, abs=1e-4)
    positions = found["nats_by_position"]
    assert list(positions) == ["near", "far", "beyond"] and "1536-2047" in positions["beyond"]
    assert all(x == pytest.approx(math.log(257), abs=1e-3) for x in positions["beyond"].values())
    assert found["curve"] == {"steps": 1, "nats": [5.0] * STEPS} and found["spikes"] == []
    assert Config.from_json(found["config"]) == config
    assert found["balance"] == 1.5 and found["tokens"] == STEPS * 2048
    assert all(0 <= x <= 1 for x in found["router"]["evenness"])
    assert all(0 <= x <= math.log2(6) for x in found["router"]["about_domain"])
    gpt2 = replace(run, recipe=recipe_for(first_rung(1), 1e-3))
    assert outcome.untaught(gpt2, tmp_path) is None


def test_a_run_is_measured_as_its_phases_ran_it(tmp_path, monkeypatch):
    """The last one has YaRN and rounds experts; before it, YaRN is off, and then on without having been
    taught."""
    monkeypatch.setattr(outcome, "NEAR", (256, 1))
    monkeypatch.setattr(outcome, "FAR", (1024, 1))
    monkeypatch.setattr(outcome, "BEYOND", (2048, 1))
    config = small("a")
    recipe, model = recipe_for(config, 1e-3), Transformer.random(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # so that what is between the phases shows
    run = Run(recipe, seed=0, steps=STEPS, done=STEPS, loss=[5.0] * STEPS, balance=[1.5] * STEPS)
    write_checkpoint(tmp_path, run, model, torch.optim.AdamW(model.parameters()))

    def far(form: Transformer) -> dict[str, float]:
        return outcome.by_edges(outcome.on_heldout(form.eval(), 1024, 1)[1])

    first, last = (in_phase(model, recipe, phase) for phase in (0, 1))
    entry = Entry(config, 0, 1e-3, "rungs")
    assert outcome.measured(run, tmp_path, entry, None)["nats_by_position"]["far"] == far(last) != far(first)
    monkeypatch.setattr(outcome, "UNTAUGHT", (1024, 1))
    found = outcome.untaught(run, tmp_path)
    stretched = far(first.with_config(yarn=config.yarn))
    assert found == {"plain": far(first), "yarn": stretched} and stretched not in (far(first), far(last))


def test_a_spike_is_found_and_noise_is_not():
    noise = torch.randn(400, generator=torch.Generator().manual_seed(1)).mul(0.05).add(2).tolist()
    assert outcome.spikes(noise) == []
    noise[200] += 1.0
    assert outcome.spikes(noise) == [200]


def test_positions_are_told_between_edges():
    curve = torch.arange(256).float()
    found = outcome.by_edges(curve)
    assert list(found) == ["0-7", "8-31", "32-63", "64-127", "128-255"]
    assert found["8-31"] == pytest.approx(19.5)


def test_what_the_router_tells_of_the_domain_is_mutual_information(monkeypatch):
    """Two layers: in one every domain has an expert to itself, in the other all share alike."""
    apart = iter(torch.eye(6))
    share = lambda model, windows: torch.stack([next(apart), torch.ones(6) / 6])
    monkeypatch.setattr(outcome, "expert_share", share)
    config = small("a", n_experts=6)
    found = outcome.routing(Transformer.random(config))
    assert found == {"evenness": [1.0, 1.0], "about_domain": [round(math.log2(6), 4), 0.0]}
