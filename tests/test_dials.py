"""Dials: at their defaults they say what the page says, and turned they say something else."""

from __future__ import annotations

import math
import statistics

import pytest
import test_claims_runs as made_runs
import torch

import gptoss_lab as lab
from gptoss_lab import cost
from gptoss_lab.config import NAMED
from gptoss_lab.study.claims import dials, live, measured, of_experts, page, routing
from gptoss_lab.study.claims.parts import FALSE, HOLDS, MISLEADING, OPEN, PARTLY, UNSEEN
from gptoss_lab.terminal import COLUMNS
from gptoss_lab.training.corpus import training_text
from gptoss_lab.training.forms import attach

COUNTED = (dials.epochs, dials.form, dials.gate, dials.experts, dials.many, dials.grouped, dials.windows,
           dials.normed, dials.stored_positions, dials.turns, dials.stretched, dials.fits, dials.caches,
           dials.smaller, dials.questions)  # fmt: skip


@pytest.fixture(scope="module")
def verdicts() -> dict[str, str]:
    """The page's, by number."""
    return {f"{claim.number}{letter}": part.verdict for claim in page.every_claim(measured.recorded())
            for letter, part in zip("abcdefgh", claim.parts)}  # fmt: skip


@pytest.fixture(scope="module")
def mini_gpt2():
    return lab.load("mini-gpt2")


@pytest.mark.parametrize("dial", COUNTED, ids=lambda dial: dial.__name__)
def test_a_dial_at_its_default_says_what_the_page_says(dial, verdicts):
    reading = dial()
    assert reading.verdict == verdicts[reading.number]
    assert str(reading).startswith(f"{reading.number} “") and str(reading).endswith(f"→ {reading.verdict}")


@pytest.mark.parametrize("dial", (*COUNTED, lambda: dials.from_runs("4b")), ids=lambda dial: dial.__name__)
def test_a_reading_is_broken_between_words(dial):
    reading = dial()
    first, *found, last = str(reading).splitlines()
    assert (first, last) == (f"{reading.number} “{reading.said}”", f"→ {reading.verdict}")
    assert all(len(line) <= COLUMNS for line in found)
    assert " ".join(found).split() == reading.found.split()


def test_every_statement_has_a_dial(verdicts):
    live_ones = {"2c", "3d", "3e", "5a", "5d"}
    numbers = {dial().number for dial in COUNTED} | set(dials.TRIALS) | live_ones
    assert numbers | {dials.fits("gpt-oss-120b", 80e9).number} == set(verdicts)


@pytest.mark.parametrize("number", dials.TRIALS)
def test_a_dial_over_runs_says_what_the_page_says(number, verdicts):
    assert dials.from_runs(number).verdict == verdicts[number]
    assert math.isnan(dials.from_runs(number, found={}).value)


@pytest.mark.parametrize(("reading", "value", "verdict"), [
    (dials.form("erf form"), 0.0, HOLDS), (dials.form("Swish"), 0.1930, FALSE),
    (dials.form("ReLU"), 0.16997, FALSE), (dials.smaller(["cache"], tokens=1024), 188 / 27, FALSE),
    (dials.smaller(["cache"]), 7.80285, HOLDS),
    (dials.gate("gelu"), 0, HOLDS),
    (dials.experts(64, 4), 1.0006, PARTLY), (dials.experts(64, 8), 1.6630, MISLEADING),
    (dials.experts(16, 4), 0.9997, UNSEEN), (dials.experts(64, 2), 0.6695, HOLDS),
    (dials.many(100, 8), 3, PARTLY), (dials.many(32, 8), 4, HOLDS),
    (dials.grouped(64), 1, UNSEEN), (dials.grouped(32), 2, PARTLY),
    (dials.grouped(8, massively=9), 8, PARTLY),
    (dials.windows(128, 128), 1, UNSEEN), (dials.windows(128, 256), 4 / 3, PARTLY),
    (dials.stored_positions("gpt2"), 786_432, HOLDS),
    (dials.turns(131_072, 1e4), 0, OPEN),
    (dials.fits("gpt-oss-20b", 17e9), 131_072, HOLDS), (dials.fits("gpt-oss-20b", 13e9), 0, FALSE),
    (dials.smaller(["parameters"]), 11.2405, HOLDS), (dials.smaller(["active a token"]), 5.9774, FALSE),
    (dials.smaller(["active a token"], times=6), 5.9774, HOLDS),
])  # fmt: skip
def test_a_dial_turned_says_something_else(reading, value, verdict):
    assert reading.value == pytest.approx(value, rel=1e-4, abs=1e-9) and reading.verdict == verdict


def test_norms_are_right_about_numbers_that_are_right():
    assert dials.normed((1.0, 2.0, 3.0), (-1.2247, 0.0, 1.2247)).verdict == HOLDS  # LayerNorm
    assert dials.normed((3.0, 4.0), (3 / 12.5**0.5, 4 / 12.5**0.5)).verdict == HOLDS  # RMSNorm
    assert dials.normed((3.0, 4.0), (0.6, 0.8)).verdict == FALSE  # a unit vector is neither


def test_a_dial_over_runs_tells_every_place_and_turns_with_what_is_small():
    trained = [(2.01, 2.01), (2.0, 2.0)]
    found = made_runs.found_with(dict(zip(("rmsnorm", "no-dropout"), trained))
                                 | dict(zip(("untied", "without-rmsnorm"), trained)))  # fmt: skip
    reading = dials.from_runs("5b", found=found)
    assert (reading.verdict, reading.value) == (HOLDS, pytest.approx(0.01))
    assert "the step up the ladder, " in reading.found and "left out at the top, " in reading.found
    assert reading.found.count("small is up to 0.0200") == 2
    assert dials.from_runs("5b", small=0.001, found=found).verdict == PARTLY
    assert "a verdict needs" not in reading.found
    alone = made_runs.found_with({"swish": [2.0], "yarn": [2.0]})
    assert "; a verdict needs two seeds" in dials.from_runs("2d", found=alone).found


def test_what_is_stretched_hangs_on_the_rung_and_on_what_counts_as_worse():
    seen = {"rope": (3.0, 1.7), "swiglu": (3.2, 1.8), "grouped": (2.9, 1.7), "experts": (1.6, 1.7)}
    found = made_runs.dense(**{name: made_runs.early(1.5, *each) for name, each in seen.items()})
    turn = lambda *position: dials.stretched(*position, found=found)
    dense, experts = turn(), turn("experts")
    assert (dense.value, dense.verdict) == (pytest.approx(1.7), PARTLY)
    assert (experts.value, experts.verdict) == (pytest.approx(0.1), UNSEEN)
    assert "the worst of 3 dense" in dense.found and "(seeds: 2)" in dense.found
    assert "+0.20 with YaRN" in experts.found
    assert turn("experts", 0.2).verdict == HOLDS and turn("rope", 2.0).verdict == HOLDS
    assert turn("windows").verdict == OPEN and math.isnan(turn("windows").value)
    short = {name: run for name, run in found.items() if not name.startswith("rope.seed1")}
    assert dials.stretched(found=short).verdict == OPEN  # as on the page, a dense rung has one seed alone
    assert dials.stretched("rope", found=short).verdict == OPEN  # and so has this one
    assert dials.stretched("swiglu", found=short).verdict == PARTLY
    (second,) = [name for name in found if name.startswith("rope.seed1")]
    apart = found | {second: found[second] | {"untaught": made_runs.early(1.5, 3.0, 2.9)}}
    unsure = dials.stretched("rope", found=apart)
    assert unsure.verdict == OPEN and unsure.found.endswith(f"its runs do not agree: {PARTLY}, {UNSEEN}")
    with pytest.raises(ValueError, match="no rung 'gpt2' with RoPE; there are rope, swiglu"):
        dials.stretched("gpt2")


def test_a_benchmarks_chance_is_said_of_independent_mistakes():
    told = dials.questions().found
    assert "if one model's mistakes tell nothing of the other's" in told and "20.2 points" in told
    assert "a smaller one tells them apart" in told


def test_epochs_are_bytes_read_over_bytes_there():
    size = len(training_text("arithmetic").encode())
    assert dials.epochs(3000).value == pytest.approx(3000 * 2048 / 6 / size)
    assert dials.epochs(1500, read=25_600).value == pytest.approx(20)
    assert dials.epochs(1500, read=10**9).value == dials.epochs(1500).value  # no more than there is


def test_chance_is_that_of_two_shares():
    spread = math.sqrt(0.7 * 0.3 / 100 + 0.7 * 0.3 / 100)
    assert dials.questions(100, 0.7).value == pytest.approx(1.96 * spread)


@pytest.mark.parametrize(("guess", "said"), [
    (2, "you guessed 2; it is 4, 2 times that"), (4.01, "as you said"), (0, "you guessed 0; it is 4"),
    (-1, "you guessed -1; it is 4"), (400_000, "you guessed 400,000; it is 4, 1e-05 times that"),
])
def test_a_guess_stands_beside_the_number(guess, said):
    assert dials.Reading("0a", "x", 4.0, "y", HOLDS).beside(guess).endswith(said)


@pytest.mark.parametrize(("turn", "said"), [
    (lambda: dials.form("sine"), "no form 'sine'; there are erf form"),
    (lambda: dials.stored_positions("gpt3"), "no model 'gpt3'"),
    (lambda: dials.smaller(["weight"]), "no measure 'weight'; there are parameters"),
    (lambda: dials.smaller([]), "no measure to compare by"),
    (lambda: dials.normed((1.0,), (1.0,)), "as many"),
    (lambda: dials.questions(0), "0 questions"),
])
def test_a_dial_refuses_what_is_not_on_it(turn, said):
    with pytest.raises(ValueError, match=said):
        turn()


def test_costs_are_those_of_cost():
    config = NAMED["qwen3-30b-a3b"]
    assert dials.cost_of(config, "cache", 100) == cost.cache_bytes(config, 100)
    assert dials.cost_of(config, "bytes read a token") == sum(cost.bytes_per_token(config).values())


def test_live_dials_say_what_the_page_says(mini_oss, mini_gpt2, verdicts):
    alone, random = live.ranked(mini_oss), live.dealt(mini_oss)
    assert (alone.verdict, random.verdict) == (verdicts["3d"], verdicts["3e"])
    choices = measured.recorded()["routing"]["choices"]  # on four times the windows
    assert alone.value == pytest.approx(choices["second-best alone"]["more"], rel=0.15)
    assert random.value == pytest.approx(choices["two at random"]["more"], rel=0.15)
    assert live.ranked(mini_oss, rank=0).value == 0
    assert "over 2 windows a kind of text" in alone.found and "where 0 is the best" in alone.found
    edits = routing.everywhere(mini_oss, "experts.out", routing.nothing)
    plain = routing.difference(routing.bits(mini_oss, 2, edits), routing.bits(mini_oss, 2))
    wider = live.lost(attach(mini_oss.with_config()), edits, 2)
    assert wider[0] == pytest.approx(plain[0], abs=1e-3)
    assert wider[1] == pytest.approx(plain[1] * 2.447 / 1.96, rel=0.01)  # t with six degrees of freedom
    kept = choices["the best and one at random"]
    assert live.dealt(mini_oss, keep=1).verdict == of_experts.nearly(kept["more"], kept["within"])
    assert live.other_form(mini_gpt2, "erf")[0] < 1e-3 < live.other_form(mini_gpt2, "ReLU")[0]
    with pytest.raises(ValueError, match="windows=1; an interval takes two"):
        live.ranked(mini_oss, windows=1)
    with pytest.raises(ValueError, match="no form 'sine'; there are erf, Swish"):
        live.other_form(mini_gpt2, "sine")


def test_signs_are_those_of_the_record(mini_gpt2, verdicts):
    read = live.residuals(mini_gpt2)
    reading, recorded = live.signs(read), measured.recorded()["normalising"]["mini-gpt2"]
    assert reading.value == pytest.approx(recorded["centred"], rel=1e-3)
    assert reading.verdict == verdicts["5d"]
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    moved = x + 0.7 * x.square().mean(-1, keepdim=True).sqrt()
    rows = moved.flatten(0, 1).tolist()
    expected = statistics.fmean((a > 0) != (a - sum(row) / 8 > 0) for row in rows for a in row)
    assert live.signs([x], 0.7).value == pytest.approx(expected)
    assert live.signs([x - x.mean(-1, keepdim=True).double()]).verdict == HOLDS


def test_times_are_judged_by_their_ratios(verdicts):
    recorded = measured.recorded()["times"]["ratios"]
    assert live.cheaper_swish(recorded).verdict == verdicts["2c"]
    assert live.cheaper_norm(recorded).verdict == verdicts["5a"]
    made = lambda alike, kernels: {"LayerNorm / RMSNorm": [0, alike, 0],
                                   "LayerNorm, torch's / RMSNorm, torch's": [0, kernels, 0]}  # fmt: skip
    assert [live.cheaper_norm(made(*x)).verdict for x in ((2, 2), (1, 1), (2, 1))] == [HOLDS, UNSEEN, PARTLY]
    small = {"GELU, tanh / Swish": [0, 4.0, 0], "product / Swish": [0, 10.0, 0]}
    assert live.cheaper_swish(small).verdict == HOLDS
    assert live.cheaper_swish(small).value == pytest.approx(0.3)
    assert live.cheaper_swish(small, felt=0.4).verdict == MISLEADING
    ratios = live.clock(width=16, count=2)
    assert set(ratios) == set(recorded)
    assert all(low <= middle <= high for low, middle, high in ratios.values())
