"""Verdicts from training runs, with made-up results: rules, words, what is said while runs lack."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gptoss_lab.study.claims import beyond, measured, of_experts, of_parts, of_runs, page, parts
from gptoss_lab.study.claims.of_runs import decided, gains, little, nothing, slightly
from gptoss_lab.study.claims.parts import FALSE, HOLDS, OPEN, PARTLY, UNSEEN
from gptoss_lab.training import ladder_costs, shapes
from gptoss_lab.training.corpus import DOMAINS
from gptoss_lab.training.ladder import (
    NUMBER,
    RATES,
    REPEATED,
    RUNGS,
    TOP,
    Entry,
    anchor_of,
    ladder,
    plan,
    rung,
)
from gptoss_lab.training.ladder_numbers import Difference


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
    chosen = {entry.config.name: entry for entry in plan() if isinstance(entry.rate, str)}
    for name, each in levels.items():
        for seed, bits in enumerate(each):
            entry = (Entry(shapes.shape(name), seed, shapes.RATE, "") if name in shapes.NAMES
                     else replace(chosen[name], seed=seed))  # fmt: skip
            found[entry.id(rates)] = result(bits)
    return found


def between(low: float, high: float) -> Difference:
    middle = (low + high) / 2
    return Difference((middle, middle), (high - low) / 2, 2.0)


RULES = [
    (gains, (-0.3, -0.1), HOLDS), (gains, (0.1, 0.3), FALSE), (gains, (0.001, 0.01), FALSE),
    (gains, (-0.01, 0.01), UNSEEN), (gains, (-0.5, 0.01), OPEN), (gains, (-0.01, 0.5), OPEN),
    (little, (-0.3, -0.1), HOLDS), (little, (-0.5, 0.01), HOLDS), (little, (0.005, 0.01), HOLDS),
    (little, (0.1, 0.3), FALSE), (little, (-0.1, 0.3), OPEN), (little, (0.01, 0.3), OPEN),
    (nothing, (-0.3, -0.1), HOLDS), (nothing, (-0.01, 0.01), HOLDS), (nothing, (0.005, 0.01), PARTLY),
    (nothing, (0.1, 0.3), FALSE), (nothing, (-0.1, 0.3), OPEN), (nothing, (0.005, 0.3), OPEN),
    (slightly, (0.005, 0.01), HOLDS), (slightly, (0.1, 0.3), PARTLY), (slightly, (0.005, 0.3), OPEN),
    (slightly, (-0.3, -0.1), FALSE), (slightly, (-0.01, 0.01), UNSEEN), (slightly, (-0.1, 0.3), OPEN),
    (slightly, (-0.5, 0.01), OPEN),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "ends", "verdict"), RULES)
def test_a_rule_reads_the_interval(rule, ends, verdict):
    assert rule(between(*ends), 0.02) == verdict


def test_what_a_rule_can_say_is_listed_and_is_on_the_page():
    for rule, verdicts in of_runs.CAN.items():
        assert {verdict for other, _, verdict in RULES if other is rule} - {OPEN} == set(verdicts)
        assert all(f"“{verdict}”" in of_runs.ASKS[rule] for verdict in verdicts if rule is not nothing)
    text = page.report(measured.recorded())
    for rule, says in of_runs.ASKS.items():
        numbers = ", ".join(number for number, trial in of_runs.TRIALS.items() if trial.rule is rule)
        assert f"- {numbers}: {says};" in text


def over_seeds(mean: float, within: float, windows: float) -> Difference:
    """Two seeds whose interval has this half, which is 12.706 times half of how far they lie apart."""
    return Difference((mean - within / 12.706, mean + within / 12.706), windows, 2.0)


def test_a_rule_reads_the_interval_of_seeds_and_windows_together():
    sure, unsure = over_seeds(-0.051, 0.03, 0.04), over_seeds(-0.049, 0.03, 0.04)
    assert (sure.low, sure.high) == pytest.approx((-0.101, -0.001)) and gains(sure, 0.02) == HOLDS
    assert (unsure.low, unsure.high) == pytest.approx((-0.099, 0.001)) and gains(unsure, 0.02) == OPEN
    both = "95 % over 2 seeds: ±0.0300, over windows alone: ±0.0400"
    assert of_runs.told(unsure) == ("−0.0490 bits per byte of 2.000 "
                                    f"({both}; of both together: −0.0990 to +0.0010)")  # fmt: skip
    alone = Difference((-0.05,), 0.04, 2.0)
    assert of_runs.told(alone).endswith("(one seed; 95 % over windows alone: ±0.0400)")
    assert "√(seeds² + windows²)" in page.report(measured.recorded(), {})


def test_the_page_says_how_many_pass_by_chance():
    text = " ".join(page.report(measured.recorded(), {}).split())
    assert "of twenty changes that do nothing, about one would pass for one that does something." in text


def uneven(bits: float, by: float) -> dict:
    """A result whose windows differ from `bits` by this much, up and down."""
    made = result(bits)
    made["windows"]["near"] = {domain: [bits - by, bits, bits + by] for domain in DOMAINS}
    return made


def test_windows_that_disagree_leave_a_claim_open_though_seeds_agree():
    found = found_with({"qwen3-shaped": [1.5, 1.5], "gpt-oss-shaped": [1.6, 1.6]})
    assert decided("8b", found)[0] == HOLDS
    for seed in (0, 1):
        found[Entry(shapes.shape("qwen3-shaped"), seed, shapes.RATE, "").id({})] = uneven(1.5, 1.0)
    assert decided("8b", found)[0] == OPEN


def pairs(number: str, ours: list[float], theirs: list[float], top: list[float] | None = None,
          undone: list[float] | None = None) -> dict:  # fmt: skip
    """Results of the models that a trial compares; where it has two places, at the top as well, the same
    unless given."""
    trial = of_runs.TRIALS[number]
    levels = {trial.ours: ours, trial.theirs: theirs}
    if trial.also:
        levels |= {TOP: ours if top is None else top}
        levels |= {f"without-{trial.also}": theirs if undone is None else undone}
    return found_with(levels)


SAID = {verdict: f"It was {{mean}}: {verdict}." for verdict in (HOLDS, PARTLY, UNSEEN, FALSE)}


def told(number: str) -> dict[str, str]:
    """Sentences for a trial, each of which tells its verdict."""
    return {verdict: SAID[verdict] for verdict in of_runs.CAN[of_runs.TRIALS[number].rule]}


@pytest.mark.parametrize("number", of_runs.TRIALS)
def test_a_trial_waits_for_two_seeds_and_then_decides(number):
    one = pairs(number, [1.5], [1.6])
    verdict, places = decided(number, one)
    assert verdict == OPEN and all(place.lead.over_seeds is None for place in places)
    assert "one seed" in places[0].told() and not places[0].enough
    assert "Waits for the ladder's runs" in of_runs.part(number, "", told(number), one).found
    two = pairs(number, [1.5, 1.5002], [1.6, 1.6])  # better, beyond doubt
    verdict, places = decided(number, two)
    assert verdict == (FALSE if number == "5b" else HOLDS) and all(place.lead.high < 0 for place in places)
    part = of_runs.part(number, "More.", told(number), two, "And so on.")
    assert part.verdict == verdict and part.found.count("−0.09") >= len(places)
    better = of_runs.TRIALS[number].rule in (little, nothing)
    assert part.precisely.endswith("And so on.") and f": {verdict}. " in part.precisely
    assert ("for the better" in part.precisely) is better
    assert "It was −0.0999 bits per byte" in part.precisely
    unsure = pairs(number, [1.5, 1.9], [1.6, 1.6])
    part = of_runs.part(number, "", told(number), unsure, "And so on.")
    ends = "the interval reaches from −2.4412 to +2.6412"  # 0.1 ± 12.706 · 0.2
    said = [f"{ends} ({place.name})" if place.name else ends for place in places]
    assert part.verdict == OPEN and part.precisely == f"These runs do not decide it: {'; '.join(said)}."


def test_five_claims_are_asked_at_two_places():
    twice = [number for number, trial in of_runs.TRIALS.items() if trial.also]
    assert twice == ["1a", "3b", "4b", "4d", "5b"]
    for number in twice:
        trial = of_runs.TRIALS[number]
        assert trial.also == trial.ours and rung(trial.theirs) == ladder()[NUMBER[trial.ours] - 1]
        names = [place.name for place in decided(number, {})[1]]
        assert names == ["the step up the ladder", "left out at the top"]


def test_at_the_top_the_lead_is_with_the_change_less_without_it():
    found = pairs("1a", [1.5, 1.5], [1.6, 1.6], top=[1.2, 1.2], undone=[1.25, 1.25])
    step, top = decided("1a", found)[1]
    assert step.lead.mean == pytest.approx(-0.1) and top.lead.mean == pytest.approx(-0.05)
    text = of_runs.part("1a", "", told("1a"), found)
    assert "The step up the ladder, “no dropout” less “GPT-2”: −0.1000" in text.found
    pair = "“untied embeddings” less “untied embeddings, but dropout again”"
    assert f"Left out at the top, {pair}: −0.0500" in text.found
    assert text.precisely == ("It was −0.1000 bits per byte (the step up the ladder) and −0.0500 bits per "
                              "byte (left out at the top): holds.")  # fmt: skip


@pytest.mark.parametrize(("verdicts", "verdict"), [
    ([HOLDS], HOLDS), ([OPEN], OPEN), ([HOLDS, HOLDS], HOLDS), ([UNSEEN, UNSEEN], UNSEEN),
    ([PARTLY, PARTLY], PARTLY), ([FALSE, FALSE], FALSE), ([HOLDS, UNSEEN], PARTLY), ([FALSE, HOLDS], PARTLY),
    ([PARTLY, UNSEEN], UNSEEN), ([HOLDS, PARTLY], PARTLY), ([UNSEEN, FALSE], UNSEEN),
    ([PARTLY, FALSE], FALSE),
    ([HOLDS, OPEN], OPEN), ([OPEN, FALSE], OPEN), ([OPEN, OPEN], OPEN),
])
def test_two_places_make_one_verdict(verdicts, verdict):
    assert of_runs.together(verdicts) == of_runs.together(verdicts[::-1]) == verdict


@pytest.mark.parametrize("number", ["1a", "3b", "4b", "4d", "5b"])
def test_a_place_that_says_otherwise_or_lacks_seeds_takes_the_verdict_back(number):
    trial, better, worse = of_runs.TRIALS[number], ([1.5, 1.5], [1.6, 1.6]), ([1.6, 1.6], [1.5, 1.5])
    differ = pairs(number, *better, *worse)
    part = of_runs.part(number, "", told(number), differ)
    below, above = (trial.rule(between(*ends), 0.015) for ends in ((-0.1, -0.1), (0.1, 0.1)))
    assert decided(number, differ)[0] == part.verdict == (PARTLY if below == HOLDS else FALSE)
    gain = " By more than chance the change is for the better: the step up the ladder."
    assert part.precisely == (
        f"The two places differ. The step up the ladder: It was −0.1000 bits per byte: {below}. "
        f"Left out at the top: It was +0.1000 bits per byte: {above}."
        f"{gain if trial.rule in (little, nothing) else ''}"
    )
    lacks, wide = "2 seeds of both models are not in", "the interval reaches from −2.4412 to +2.6412"
    for top, undone, why in ([1.5], [1.6], lacks), ([1.5, 1.9], [1.6, 1.6], wide), ([], [], lacks):
        short = pairs(number, *better, top, undone)
        part = of_runs.part(number, "", told(number), short)
        assert decided(number, short)[0] == part.verdict == OPEN
        assert part.precisely == (f"The step up the ladder alone would say “{below}”; left out at the top is "
                                  f"not decided ({why}).")  # fmt: skip
        assert "−0.1000" in part.found and "Left out at the top" in part.found


def test_a_run_that_diverged_leaves_its_claim_open_and_is_told():
    found = pairs("8b", [1.5, 1.5], [1.6, 1.6])
    assert decided("8b", found)[0] == HOLDS
    third = Entry(shapes.shape("qwen3-shaped"), 2, shapes.RATE, "").id({})
    part = of_runs.part("8b", "", told("8b"), found | {third: {"diverged": "the loss is nan"}})
    assert part.verdict == OPEN and "; 1 of the runs has diverged." in part.found
    assert part.precisely == "These runs do not decide it: 1 of the runs has diverged."
    lost = {name: {"diverged": "x"} for name in found if name.startswith("qwen3-shaped")}
    part = of_runs.part("8b", "", told("8b"), found | lost)
    assert part.verdict == OPEN and "no seed has both runs; 2 of the runs have diverged" in part.found


def test_no_effect_in_one_place_and_the_opposite_in_the_other_is_not_seen():
    found = pairs("1a", [1.5, 1.5], [1.5, 1.5], [1.6, 1.6], [1.5, 1.5])
    part = of_runs.part("1a", "", told("1a"), found)
    assert part.verdict == UNSEEN and part.precisely.startswith("The two places differ.")


def test_experts_at_the_rate_of_the_rung_below_are_told_and_decide_nothing():
    found = pairs("3b", [1.5, 1.5], [1.6, 1.6])
    part = of_runs.part("3b", "", told("3b"), found)
    pair = "“experts at the dense rate” less “sinks”"
    assert f"{pair}: no seed has both runs" in part.found and of_experts.slowly(found) == ""
    found |= found_with({"experts-slowly": [1.7, 1.7], "sinks": [1.6, 1.6]})
    part = of_runs.part("3b", "", told("3b"), found)
    assert part.verdict == HOLDS
    assert f"Beside it, and no part of the verdict, {pair}: +0.1000 bits per byte" in part.found
    precisely = of_experts.experts(found)[1].precisely
    assert "for the better. On the step the rate changes with them" in precisely
    assert "they changed the loss by +0.1000 ± 0.00" in precisely and "(2 seeds)" in precisely
    one = found_with({"experts-slowly": [1.7], "sinks": [1.6]})
    assert "(one seed, ± over windows alone)" in of_experts.slowly(one)


def test_a_trial_calls_its_models_what_the_ladder_calls_them():
    assert of_runs.title("without-rmsnorm") == "“untied embeddings, but LayerNorm again”"
    names = [name for trial in of_runs.TRIALS.values() for name in (trial.ours, trial.theirs)]
    for name in (*names, "experts-slowly"):
        assert of_runs.title(name).count("“") == of_runs.title(name).count("”") == 1


def test_arithmetic_is_told_apart_from_the_other_domains():
    found = pairs("1a", [1.5, 1.5], [1.6, 1.6], undone=[1.6])
    for name, run in found.items():
        if name.startswith("no-dropout"):  # loses 0.5 in arithmetic, and wins 0.1 in what else there is
            run["bits_per_byte"]["near"] = run["bits_per_byte"]["near"] | {"arithmetic": 2.1}
    told = of_parts.arithmetic("1a", found)
    assert "The step up the ladder, +0.5000 ± " in told and "−0.1000 ± " in told
    assert "as the mean of the other 5 domains" in told and "left out" not in told  # one seed alone
    assert told in of_parts.dropout(found)[0].found and of_parts.arithmetic("1a", {}) == ""
    top = of_parts.arithmetic("1a", pairs("1a", [1.5, 1.5], [1.6, 1.6]))
    assert "; left out at the top, −0.1000 ± " in top


def test_the_mean_of_the_other_domains_has_their_interval():
    ours, theirs = ({seed: uneven(bits + seed * step, by) for seed in (0, 1)}
                    for bits, step, by in ((1.5, 0.02, 0.3), (1.6, 0.0, 0.1)))  # fmt: skip
    alone, others = of_parts.by_domain(ours, theirs)
    assert alone.each == pytest.approx((-0.1, -0.08)) and others.each == pytest.approx((-0.1, -0.08))
    assert alone.windows == pytest.approx(1.96 * 0.2 / math.sqrt(3))  # three windows: −0.2, 0, +0.2
    assert others.windows == pytest.approx(alone.windows / math.sqrt(5))
    assert others.level == pytest.approx(1.6) and of_parts.by_domain({}, theirs) is None


def test_what_dropout_costs_is_told_where_it_was_measured():
    seconds = {"gpt2": [2.0, 4.0, 6.0], "no-dropout": [1.0, 2.0, 3.0]}
    timed = {"made_with": {"threads": 1}, "training": seconds}
    cost = "On 1 CPU thread a training step of “no dropout” is 2.00 (2.00 to 2.00) times as fast"
    assert cost in of_parts.paid(timed)
    assert of_parts.paid(None) == of_parts.paid(timed | {"training": {"gpt2": [1.0]}}) == ""
    assert of_parts.paid(ladder_costs.speed()) in of_parts.dropout({})[0].found


def test_what_rounds_to_nothing_has_no_sign():
    assert beyond.spread([-0.001, 0.002]) == "0.00" and beyond.spread([-0.2, 0.1]) == "−0.20 to +0.10"
    assert parts.change({"more": -0.00002, "within": 0.1}) == "0.0000 ± 0.1000"
    assert parts.change({"more": -0.002, "within": 0.1}) == "−0.0020 ± 0.1000"


def test_runs_that_are_aside_are_those_of_the_plan():
    entries = {entry.config.name: entry for entry in plan()}
    for number, ours, theirs in (("1b", "repeated", "repeated-with-dropout"), ("2d", "swish", "yarn")):
        trial = of_runs.TRIALS[number]
        assert (trial.ours, trial.theirs) == (ours, theirs) and {ours, theirs} <= set(entries)
    assert entries["repeated"].read == entries["repeated-with-dropout"].read == REPEATED
    dropped = entries["repeated-with-dropout"].config, entries["repeated"].config
    assert [config.dropout for config in dropped] == [0.1, 0.0]
    swish, gelu = entries["swish"].config, entries["yarn"].config
    assert swish == gelu.with_changes(name="swish", activation="silu") and gelu.activation == "gelu"


@pytest.mark.parametrize("number", of_runs.TRIALS)
def test_the_page_has_a_whole_sentence_for_every_verdict(number):
    """Every verdict that a rule can give, brought about by made-up results."""
    small = 1.6 * of_runs.SMALL
    apart = {HOLDS: -0.1, FALSE: 0.1, UNSEEN: 0.0, PARTLY: small / 2}
    if of_runs.TRIALS[number].rule is slightly:
        apart = {HOLDS: small / 2, FALSE: -0.1, UNSEEN: 0.0, PARTLY: 0.1}
    said: dict[str, str] = {}
    for verdict in of_runs.CAN[of_runs.TRIALS[number].rule]:
        ours = [1.6 + apart[verdict]] * 2
        every = page.every_claim(measured.recorded(), pairs(number, ours, [1.6, 1.6]))
        claim = next(claim for claim in every if claim.number == int(number[0]))
        part = claim.parts["abcdefgh".index(number[1])]
        assert part.verdict == verdict
        said[verdict] = text = part.precisely
        sign = "+" if apart[verdict] > 0 else "−" if apart[verdict] < 0 else ""
        assert f"{sign}{abs(apart[verdict]):.4f} bits per byte" in text and "{" not in text
        assert text.endswith(".") and any(f" {verb} " in text for verb in ("changed", "is", "differs"))
        assert "for the better" not in text or apart[verdict] < 0
        assert "for the worse" not in text.replace("if for the worse", "") or apart[verdict] > 0
        assert "more than 1 %" not in text or apart[verdict] > small
    assert len(set(said.values())) == len(said)


def test_what_counts_as_small_is_a_share_of_the_loss():
    found = pairs("4b", [2.021, 2.021], [2.0, 2.0])
    assert decided("4b", found, small=0.02)[0] == HOLDS and decided("4b", found, small=0.005)[0] == FALSE


def test_the_page_turns_with_the_runs():
    made = measured.recorded()
    levels = {"no-dropout": [1.8, 1.8], "gpt2": [2.0, 2.0], TOP: [1.8, 1.8], "without-no-dropout": [2.0, 2.0],
              "qwen3-shaped": [1.4], "gpt-oss-shaped": [1.5],
              "repeated": [1.8, 1.8], "repeated-with-dropout": [1.7, 1.7]}  # fmt: skip
    rows = [line for line in page.report(made, found_with(levels)).splitlines() if line.startswith("| ")]
    verdicts = {cells[0]: cells[-1] for cells in (row.strip("| ").split(" | ") for row in rows)}
    assert verdicts["1a"] == HOLDS and verdicts["8b"] == OPEN and verdicts["4b"] == OPEN
    assert verdicts["1b"] == FALSE and verdicts["2d"] == OPEN
    assert "| 6b | RoPE lengthens the context | open |" in page.report(made, {})


def early(within: float, far: float, yarn: float, costs: float = 0.0) -> dict:
    """What a run found before its long windows, in bins of different widths."""
    bins = lambda near, *far: {"128-255": near, "256-383": far[0], "384-1023": far[1]}
    return {"plain": bins(within, far, far), "yarn": bins(within + costs, yarn, yarn)}


def with_early(found: dict, name: str, *each: dict) -> dict:
    """The results, with runs of a rung at its own rate that found this, a seed each."""
    rates = dict.fromkeys(("gpt2", "swiglu", "mxfp4"), RATES[1])
    for seed, one in enumerate(each):
        found[Entry(rung(name), seed, anchor_of(name), "").id(rates)] = result(2.0) | {"untaught": one}
    return found


def test_the_loss_beyond_the_trained_length_counts_positions():
    bins = {"128-255": 1.5, "256-383": 3.0, "384-1023": 3.6}
    assert beyond.outside(bins) == pytest.approx((128 * 3.0 + 640 * 3.6) / 768)


def test_a_rung_that_is_another_until_windows_grow_is_counted_once():
    assert rung("yarn") == rung("rope").with_changes(name="yarn", yarn=rung("yarn").yarn)
    assert "yarn" not in beyond.NAMES and len(beyond.NAMES) == len(ladder()) - NUMBER["rope"] - 2
    found = with_early(found_with({}), "rope", early(1.5, 3.0, 1.7))
    part = beyond.part(with_early(found, "yarn", early(1.5, 3.0, 1.7)), "Pairs.")
    assert "on 1 dense rung " in part.precisely
    assert "“YaRN in the long phase” with “RoPE” and “MXFP4 experts” with “untied embeddings” " in part.found
    assert "| YaRN in the long phase |" not in part.found and "1 runs" not in part.found


def test_rungs_that_are_one_model_until_then_are_counted_once():
    for name, other in beyond.TWINS.items():
        changes = {field: getattr(rung(other), field) for field in RUNGS[NUMBER[name]].changes}
        assert rung(other) == rung(name).with_changes(name=other, **changes)
        assert set(changes) <= {"yarn", "stored_experts"}  # which the phase before does not have
    found = with_early(found_with({}), TOP, early(1.5, 2.5, 1.7))
    more = with_early(found, "mxfp4", early(1.4, 2.2, 1.7))
    assert beyond.part(more, "").found == beyond.part(found, "").found



def test_every_rung_with_rope_is_read_at_its_own_rate_over_its_seeds():
    found = with_early(found_with({}), "rope", early(1.5, 3.0, 1.7, 0.2), early(1.7, 3.4, 1.7, 0.4))
    found = with_early(found, "windows", early(1.5, 1.8, 1.6))
    found[f"rope.seed2.lr{RATES[0]:g}"] = result(2.0) | {"untaught": early(9.0, 9.0, 9.0)}  # another rate
    found = with_early(found, "swiglu")  # the grid's runs are in and found nothing
    rope, windows = beyond.reaches(found)
    assert (rope.name, rope.seeds, rope.dense, windows.dense) == ("rope", 2, True, False)
    assert (rope.within, rope.beyond, rope.stretched) == pytest.approx((1.6, 3.2, 1.7))
    assert (rope.worse, rope.back, rope.costs) == pytest.approx((1.6, 1.5, 0.3))
    part = beyond.part(found, "Pairs.")
    assert "| RoPE | dense | 2 | 1.60 | 3.20 | 1.70 | 1.90 |" in part.found and "3 runs" in part.found
    assert "| windows in every second layer | windows | 1 | 1.50 | 1.80 | 1.60 | 1.50 |" in part.found


def dense(**each: dict) -> dict:
    """Results with two seeds of the three dense rungs, and of a rung with windows."""
    seen = {"rope": early(1.5, 3.0, 1.7), "swiglu": early(1.6, 2.5, 1.9, 0.1),
            "grouped": early(1.5, 2.9, 1.7), "experts": early(1.5, 1.6, 1.7)} | each  # fmt: skip
    found = found_with({})
    for name, one in seen.items():
        found = with_early(found, name, one, one)
    return found


def test_rope_is_judged_on_dense_rungs_and_all_of_them():
    part = beyond.part(dense(), "Pairs.")
    assert part.verdict == PARTLY
    apart = "on 3 dense rungs +0.90 to +1.50 with plain RoPE and +0.20 to +0.30 with YaRN put on"
    windows = "on 1 rung with windows +0.10 with plain RoPE and +0.20 with YaRN put on"
    assert f": {apart}; {windows}." in part.precisely
    assert "On “experts” (by 0.10) YaRN makes what lies beyond worse" in part.precisely
    assert part.precisely.endswith("changes the loss within the trained length by 0.00 to +0.10.")
    no_worse = beyond.part(dense(swiglu=early(1.6, 1.5, 1.5)), "Pairs.")
    assert no_worse.verdict == OPEN and "do not agree" in no_worse.precisely  # rungs that differ
    half = beyond.part(dense(swiglu=early(1.6, 2.6, 2.2)), "Pairs.")
    assert half.verdict == OPEN  # YaRN takes back less than half on one of them
    for back in (1.6, 1.604):  # as bad as before, or nothing that shows
        helped = beyond.part(dense(experts=early(1.5, 1.6, back)), "Pairs.")
        assert "makes what lies beyond worse" not in helped.precisely
    assert beyond.part({}, "Pairs.").verdict == OPEN


@pytest.mark.parametrize("name", ["rope", "swiglu", "grouped", "experts"])
def test_every_dense_rung_needs_two_seeds(name):
    found = {key: run for key, run in dense().items() if not key.startswith(f"{name}.seed1")}
    part = beyond.part(found, "Pairs.")
    assert part.verdict == beyond.decided(found) == (PARTLY if name == "experts" else OPEN)
    lacks = "It is not decided: 2 seeds of every dense rung are not in." in part.precisely
    assert lacks == (name != "experts")
    assert "+0.20 to +0.30 with YaRN put on" in part.precisely


def test_the_verdict_on_some_rungs():
    run = lambda within, far, yarn: beyond.Seen(within, far, yarn, within)
    one = lambda *seen: beyond.Reach(*seen, seen[0], "rope", (run(*seen),))
    two = beyond.Reach(1.5, 2.2, 1.7, 1.5, "rope", (run(1.5, 3.0, 1.7), run(1.5, 1.4, 1.7)))
    assert beyond.judged([two]) == OPEN  # its seeds differ, whatever their mean says
    assert beyond.judged([one(1.5, 3.0, 1.7)]) == PARTLY and beyond.judged([one(1.5, 1.5, 1.7)]) == HOLDS
    assert beyond.judged([one(1.5, 3.0, 2.4)]) == UNSEEN and beyond.judged([]) == OPEN
    assert beyond.judged([one(1.5, 1.6, 1.7)]) == UNSEEN and beyond.judged([one(1.5, 1.6, 1.7)], 0.2) == HOLDS
    assert beyond.judged([one(1.5, 3.0, 1.7), one(1.5, 1.4, 1.4)]) == OPEN
