"""Verdicts from training runs, with made-up results: rules, words, what is said while runs lack."""

from __future__ import annotations

import math

import pytest

from gptoss_lab.study.claims import beyond, measured, of_runs, page
from gptoss_lab.study.claims.of_runs import Lead, decided, gains, lead, little, nothing, slightly
from gptoss_lab.study.claims.parts import HOLDS, OPEN, PARTLY, UNSEEN
from gptoss_lab.training import shapes
from gptoss_lab.training.corpus import DOMAINS
from gptoss_lab.training.ladder import RATES, Entry, anchor_of, plan, rung


def result(bits: float) -> dict:
    """A result whose windows all have these bits per byte, but for a little."""
    windows = {domain: [bits - 0.01, bits, bits + 0.01] for domain in DOMAINS}
    return {"windows": {"near": windows}, "bits_per_byte": {"near": dict.fromkeys(DOMAINS, bits)}}


def found_with(levels: dict[str, list[float]]) -> dict:
    """Results: the whole grid, of which the second rate is best, and a run for each level, by seed."""
    found = {entry.id({}): result(3.0) for entry in plan() if not isinstance(entry.rate, str)
             and entry.purpose != "shape"}  # fmt: skip
    rates = dict.fromkeys(("gpt2", "swiglu", "mxfp4"), RATES[1])
    for anchor in rates:
        found[Entry(rung(anchor), 0, RATES[1], "").id({})] = result(2.0)
    for name, each in levels.items():
        for seed, bits in enumerate(each):
            entry = (Entry(shapes.shape(name), seed, shapes.RATE, "") if name in shapes.NAMES
                     else Entry(rung(name), seed, anchor_of(name), ""))  # fmt: skip
            found[entry.id(rates)] = result(bits)
    return found


def between(low: float, high: float) -> Lead:
    return Lead((low + high) / 2, (high - low) / 2, 0.0, 2, 2.0)


@pytest.mark.parametrize(("rule", "ends", "verdict"), [
    (gains, (-0.3, -0.1), HOLDS), (gains, (0.1, 0.3), UNSEEN), (gains, (-0.01, 0.01), UNSEEN),
    (gains, (-0.5, 0.01), OPEN), (gains, (-0.01, 0.5), OPEN),
    (little, (-0.3, -0.1), HOLDS), (little, (-0.5, 0.01), HOLDS), (little, (0.005, 0.01), HOLDS),
    (little, (0.1, 0.3), UNSEEN), (little, (-0.1, 0.3), OPEN), (little, (0.01, 0.3), OPEN),
    (nothing, (-0.3, -0.1), HOLDS), (nothing, (-0.01, 0.01), HOLDS), (nothing, (0.005, 0.01), PARTLY),
    (nothing, (0.1, 0.3), UNSEEN), (nothing, (-0.1, 0.3), OPEN), (nothing, (0.005, 0.3), OPEN),
    (slightly, (0.005, 0.01), HOLDS), (slightly, (0.1, 0.3), PARTLY), (slightly, (0.005, 0.3), OPEN),
    (slightly, (-0.3, -0.1), UNSEEN), (slightly, (-0.01, 0.01), UNSEEN), (slightly, (-0.1, 0.3), OPEN),
])
def test_a_rule_reads_the_interval(rule, ends, verdict):
    assert rule(between(*ends), 0.02) == verdict


def test_a_lead_is_the_mean_over_seeds_that_both_have():
    ours = {0: result(2.1), 1: result(2.3), 2: {"diverged": "x"}}
    theirs = {0: result(2.0), 1: result(2.0), 2: result(2.0), 3: result(9.0)}
    ahead = lead(ours, theirs)
    assert ahead.mean == pytest.approx(0.2) and ahead.seeds == 2 and ahead.level == pytest.approx(2.0)
    assert ahead.within == pytest.approx(12.706 * 0.1 * math.sqrt(2) / math.sqrt(2))
    assert (ahead.low, ahead.high) == (ahead.mean - ahead.within, ahead.mean + ahead.within)
    assert lead({}, theirs) is None and lead({2: {"diverged": "x"}}, theirs) is None


@pytest.mark.parametrize("number", of_runs.TRIALS)
def test_a_trial_waits_for_two_seeds_and_then_decides(number):
    trial = of_runs.TRIALS[number]
    one = found_with({trial.ours: [1.5], trial.theirs: [1.6]})
    verdict, ahead = decided(number, one)
    assert verdict == OPEN and ahead.seeds == 1 and ahead.within is None and "one seed" in ahead.told()
    assert "Waits for the ladder's runs" in of_runs.part(number, "", "", one).found
    two = found_with({trial.ours: [1.5, 1.5001], trial.theirs: [1.6, 1.6]})  # better, beyond doubt
    verdict, ahead = decided(number, two)
    assert verdict == (UNSEEN if number == "5b" else HOLDS) and ahead.high < 0
    part = of_runs.part(number, "More.", "Of this alone.", two)
    assert part.verdict == verdict and "−0.09" in part.found and part.precisely == "Of this alone."
    unsure = found_with({trial.ours: [1.5, 1.9], trial.theirs: [1.6, 1.6]})
    part = of_runs.part(number, "", "Of this alone.", unsure)
    assert part.verdict == OPEN and part.precisely == "The seeds that are in do not decide it."


def test_what_counts_as_small_is_a_share_of_the_loss():
    found = found_with({"grouped": [2.021, 2.021], "swiglu": [2.0, 2.0]})
    assert decided("4b", found, small=0.02)[0] == HOLDS and decided("4b", found, small=0.005)[0] == UNSEEN


def test_the_page_turns_with_the_runs():
    made = measured.recorded()
    levels = {"no-dropout": [1.8, 1.8], "gpt2": [2.0, 2.0], "qwen3-shaped": [1.4], "gpt-oss-shaped": [1.5]}
    rows = [line for line in page.report(made, found_with(levels)).splitlines() if line.startswith("| ")]
    verdicts = {cells[0]: cells[-1] for cells in (row.strip("| ").split(" | ") for row in rows)}
    assert verdicts["1a"] == HOLDS and verdicts["8b"] == OPEN and verdicts["4b"] == OPEN
    assert "| 6b | RoPE lengthens the context | open |" in page.report(made, {})


def early(within: float, far: float, yarn: float) -> dict:
    """What a run found before its long windows, in bins of different widths."""
    bins = lambda near, *far: {"128-255": near, "256-383": far[0], "384-1023": far[1]}
    return {"untaught": {"plain": bins(within, far, far + 0.6), "yarn": bins(within, yarn, yarn)}}


def test_the_loss_beyond_the_trained_length_counts_positions():
    assert beyond.steps(early(1.5, 3.0, 1.7)["untaught"]) == pytest.approx((1.5, 3.0 + 0.6 * 640 / 768, 1.7))


def test_rope_is_judged_by_the_worst_of_its_runs():
    names = [f"swiglu.seed0.lr{rate:g}" for rate in RATES[:2]]
    found = dict(zip(names, (early(1.5, 3.0, 1.7), early(1.6, 2.5, 1.8)))) | {"swiglu.seed1.lr0.002": {}}
    part = beyond.part(found, "Pairs.")
    assert part.verdict == PARTLY
    assert "1.40 nats a byte" in part.precisely and "at least 1.20" in part.precisely
    worse = beyond.part(found | {names[1]: early(1.6, 1.0, 1.8)}, "Pairs.")
    assert worse.verdict == OPEN
    assert beyond.part({}, "Pairs.").verdict == OPEN
