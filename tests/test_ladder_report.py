"""docs/ladder.md: every number is worked out again here, and what is not in is said to be missing."""

from __future__ import annotations

import json
import math
import random
import re
from typing import Any

import ladder_pictures
import made_results
import pytest

from gptoss_lab.cost import bytes_per_token
from gptoss_lab.training import ladder_numbers as numbers
from gptoss_lab.training import ladder_report, ladder_tables, shapes
from gptoss_lab.training.corpus import DOMAINS
from gptoss_lab.training.ladder import RATES, ladder, plan, rung, title_of, without
from gptoss_lab.training.ladder_costs import noise, ratio, speed_table
from gptoss_lab.training.ladder_numbers import (
    Difference,
    Row,
    by_position,
    bytes_read,
    difference,
    flop,
    interval,
    over_windows,
    runs_of,
    signed,
    whole,
)
from gptoss_lab.training.ladder_report import report
from gptoss_lab.training.ladder_tables import (
    apart,
    compared,
    compared_rows,
    details_table,
    domains_table,
    falls,
    in_short,
    in_words,
    level,
    spikes,
)
from gptoss_lab.training.queue import results, score
from gptoss_lab.training.scatter import LATE, Pool, student


def result(*near: float) -> dict[str, Any]:
    """A result whose every domain has these windows."""
    mean = round(sum(near) / len(near), 4)
    return made_results.made(rung("rope"), 0, RATES[3]) | {
        "windows": dict.fromkeys(("near", "far"), {domain: list(near) for domain in DOMAINS}),
        "bits_per_byte": dict.fromkeys(("near", "far"), dict.fromkeys(DOMAINS, mean)),
    }


def all_in() -> dict[str, dict[str, Any]]:
    """A result for every run."""
    return made_results.every()


def row(page: str, heading: str, name: str) -> list[str]:
    """The cells of a row of the section with this heading."""
    part = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    (line,) = [line for line in part.split("By domain")[0].splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_page_without_results_is_all_dashes_and_says_so():
    page = report({})
    assert "**0 of 118 runs are in.**" in page and "Nothing should be concluded" in page
    assert row(page, "The rungs", "RoPE") == ["RoPE", "–", "0"] + ["–"] * 4
    assert row(page, "Learning rates", "GPT-2") == ["GPT-2"] + ["–"] * 5 + ["not asked", "–"]


def test_a_page_with_every_result_has_no_dash_but_where_there_is_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(ladder_tables, "lookback", dict)
    found = all_in()
    page = report(found)
    assert "**118 of 118 runs are in.** These are all of them." in page
    assert row(page, "The rungs", "GPT-2")[3:] == ["–"] * 4
    rope, rms = ([score(found[f"{name}.seed{seed}.lr0.008"]) for seed in range(3)]
                 for name in ("rope", "rmsnorm"))  # fmt: skip
    mean = sum(a - b for a, b in zip(rope, rms)) / 3
    cells = row(page, "The rungs", "RoPE")
    assert cells[1:4] == [f"{sum(rope) / 3:.4f}", "3", f"{mean:+.4f}".replace("-", "−")]
    assert "- RoPE: differs by −0.85" in page and "with 3 seeds; all seeds agree." in page
    assert row(page, "Learning rates", "GPT-2")[-1] == "0.008"
    assert len(row(page, "One left out", "no sinks")) == 7
    assert row(page, "The router", "experts")[1] == "1.050"
    assert "{" not in page and "not enough runs" not in page


def test_what_the_order_of_bytes_is_worth_stands_rung_by_rung(monkeypatch):
    bits = {"whole": 2.0, "shuffled": 2.5, "alone": 3.0}
    by_domain = {name: bits for name in DOMAINS} | {"python": bits | {"shuffled": 1.9}}
    told = {"seed": 1, "steps": 1500, "bits_per_byte": 2.3, **bits, "by_domain": by_domain,
            "before": [[0.1, 0.2], [0.46, 0.3]]}  # fmt: skip
    of = {"gpt2": told | {"done": 150}, "rope": told | {"done": 1500}}
    monkeypatch.setattr(ladder_tables, "lookback", lambda: of)
    found = all_in()
    page = report(found)
    stored = score(found["rope.seed1.lr0.008"])
    assert f"| RoPE | 2.3000 ({stored:.4f}) | 2.000 | 2.500 | 3.000 | 46.0 % |" in page
    assert "| GPT-2, after 150 of 1,500 steps | 2.3000 (–) |" in page and "Not measured yet" not in page
    costs = ["−0.10" if name == "python" else "+0.50" for name in DOMAINS]
    assert f"| RoPE | +0.50 | {' | '.join(costs)} |" in page
    assert "gives it 1.3 %." in page and "no-dropout" in page


def test_a_step_of_the_rate_is_told_beside_the_step_of_the_ladder():
    found = all_in()
    slow, fast = made_results.TAKEN, RATES[4]
    for seed in range(3):  # the last anchor, and the rungs that take its rate, do best at a higher one
        for name in ("experts", "untied", "mxfp4", *(entry.config.name for entry in plan())):
            low = f"{name}.seed{seed}.lr{slow:g}"
            if low in found:
                found[f"{name}.seed{seed}.lr{fast:g}"] = found[low]
    for rate, largest in ((slow, 12.0), (fast, 77.0)):
        name = f"swiglu.seed0.lr{rate:g}"
        found[name] = found[name] | {"activations": {"largest": [largest, 99.0], "rms": [1.0, 1.0]}}
    found[f"mxfp4.seed0.lr{slow:g}"] = result(2.5, 2.5)
    found[f"mxfp4.seed0.lr{fast:g}"] = result(2.25, 2.25)
    told = ladder_tables.by_rate(plan(), found)
    own, there = (score(found[f"swiglu.seed0.lr{rate:g}"]) for rate in (slow, fast))
    assert f"“clamped SwiGLU” loses {there - own:.3f} at 0.016" in told["step"]
    assert "“MXFP4 experts” loses 0.250 at 0.008" in told["step"]
    assert told["values"].endswith("of “clamped SwiGLU” is 12 at 0.008 and 77 at 0.016.")
    assert ladder_tables.by_rate(plan(), {}) == {"step": "", "values": ""}
    found[f"mxfp4.seed0.lr{RATES[5]:g}"] = result(1.0, 1.0)  # a rate that the other anchor was not asked for
    assert ladder_tables.by_rate(plan(), found) == {"step": "", "values": ""}


def test_differences_are_told_by_domain_and_in_long_windows():
    ours, theirs = ({0: result(2.0, 2.1), 1: result(2.0, 2.1)}, {0: result(2.1, 2.2), 1: result(2.2, 2.3)})
    for run in ours.values():
        run["bits_per_byte"] = {"near": run["bits_per_byte"]["near"] | {"python": 9.2},
                                "far": dict.fromkeys(DOMAINS, 1.0)}  # fmt: skip
        run["windows"] = {"near": run["windows"]["near"] | {"python": [9.0, 9.4]},
                          "far": dict.fromkeys(DOMAINS, [0.9, 1.1])}  # fmt: skip
    one = Row("a", "A", rung("rope"), ours, theirs)
    (line,) = domains_table([one])[2:]
    seeds = 12.706 * 0.1 / 2  # of -0.1 and -0.2 over two seeds: a spread of 0.1/√2, over √2
    assert line.count(f"−0.150 ± {seeds:.3f}") == len(DOMAINS) - 1
    python = math.hypot(seeds, 1.96 * math.sqrt(0.045 / 2))  # windows differ by 6.85 and 7.15
    assert f" +7.000 ± {python:.3f} " in line
    far = math.hypot(seeds, 1.96 * math.sqrt(6 * 0.005 / 2) / 6)  # by −1.25 and −1.15, in each domain
    assert compared_rows([one])[0].endswith(f" | −1.2000 ± {far:.4f} |")
    assert Difference((0.1,), 0.2).within == 0.2
    less = Difference((0.1, 0.3), 1.0)
    assert (less.low, less.high) == pytest.approx((0.2 - 1.6169, 0.2 + 1.6169), abs=1e-3)


def test_what_rounds_to_nothing_has_no_sign():
    assert [signed(x) for x in (-0.0004, 0.0, 0.0004, -0.0006)] == ["0.000", "0.000", "0.000", "−0.001"]


def test_spikes_at_the_switch_are_counted_apart():
    assert spikes({"spikes": [60, 1349, 1350, 1374, 1375]}) == (3, 2)


def test_the_whole_is_over_the_seeds_of_what_is_compared_with_it():
    top = {0: result(2.0, 2.0), 1: result(2.2, 2.2), 2: result(9.0, 9.0)}
    rows = [Row("a", "A", rung("rope"), {0: result(3.0, 3.0)}, top),
            Row("b", "B", rung("rope"), {1: {"diverged": "x"}}, top)]  # fmt: skip
    assert whole(rows) == 2.0 and whole([rows[1]]) is None and whole([]) is None


def test_long_windows_are_told_apart_from_longer_ones():
    page = report(all_in())
    first, second = (page.split(heading)[1].split("\n\n")[1].splitlines()[0]
                     for heading in ("in windows of 1,024 (means", "In windows of 2,048"))  # fmt: skip
    assert first.endswith("| 768–1023 |") and second == "| rung | 768–1023 | 1024–1535 | 1536–2047 |"
    row = runs_of(rung("rope"), plan(), all_in())
    far, beyond = (by_position(Row("", "", rung("rope"), row), windows) for windows in ("far", "beyond"))
    assert [x is None for x in far] == [False] * 9 + [True] * 2
    assert [x is None for x in beyond] == [True] * 8 + [False] * 3


def test_every_model_of_the_plan_has_a_title_of_its_own():
    titles = {entry.config.name: title_of(entry.config) for entry in plan()}
    assert len(set(titles.values())) == len(titles)
    assert titles["gpt2-2-layers"] == "GPT-2, 2 layers" and titles["experts-4-of-16"] == "4 of 16 experts"
    assert titles["sinks-as-large-as-experts"] == "sinks, as large as experts"
    assert titles["without-sinks"] == "untied embeddings, but no sinks"
    page = report(all_in())
    assert "- “4 of 16 experts” less “untied embeddings” (2 of 8): " in page
    assert "- “4 of 16 experts” less “2 of 16 experts”: " in page
    assert "- “YaRN with Swish” less “YaRN in the long phase”: " in page


def test_one_seed_has_no_interval_over_seeds_and_no_verdict():
    less = difference({0: result(2.0, 2.1)}, {0: result(2.1, 2.2)}, ())
    assert less is not None and less.significant is None
    assert compared(less).split(" | ")[:2] == ["−0.1000", "–"]
    assert str(less).startswith("−0.100 with one seed") and str(less).endswith("no verdict")


@pytest.mark.parametrize(
    ("each", "windows", "significant", "said"),
    [
        ((-0.030, -0.031, -0.029), 0.01, True,
         "differs by −0.030 ± 0.010 with 3 seeds; all seeds agree"),
        ((-0.030, -0.031, -0.029), 0.04, False,
         "not significant: −0.030 ± 0.040 with 3 seeds, though all have one sign"),
        ((-0.03, -0.01, -0.05), 0.01, False,
         "not significant: −0.030 ± 0.051 with 3 seeds, though all have one sign"),
        ((-0.030, -0.027, -0.033), 0.0295, False,
         "not significant: −0.030 ± 0.030 with 3 seeds, though all have one sign"),
        ((0.03, -0.01, 0.02), 0.01, False, "not significant: +0.013 ± 0.053 with 3 seeds"),
        ((0.03, 0.04), 0.01, False, "not significant: +0.035 ± 0.064 with 2 seeds, though all have one sign"),
        ((0.03, 0.03), 0.01, True, "differs by +0.030 ± 0.010 with 2 seeds; all seeds agree"),
    ],
)  # fmt: skip
def test_a_verdict_needs_both_intervals_together(each, windows, significant, said):
    less = Difference(each, windows)
    assert less.significant is significant and str(less) == said


def test_one_in_twenty_changes_that_do_nothing_is_called_significant():
    dice = random.Random(0)
    drawn = [Difference(tuple(dice.gauss(0, 0.01) for _ in range(3)), 0.0) for _ in range(4000)]
    assert 0.04 < sum(bool(less.significant) for less in drawn) / 4000 < 0.06


def test_the_interval_is_students():
    values = [0.1, 0.2, 0.6]
    spread = math.sqrt(sum((x - 0.3) ** 2 for x in values) / 2)
    assert interval(values) == pytest.approx(4.303 * spread / math.sqrt(3))
    assert interval([1.0]) is None


def test_the_interval_over_windows_pairs_them():
    ours, theirs = {0: result(1.0, 2.0, 3.0)}, {0: result(1.1, 2.1, 3.4)}
    variance = 0.03 / 3  # of -0.1, -0.1, -0.4, over their number, in each of six domains
    assert over_windows(ours, theirs, [0]) == pytest.approx(1.96 * math.sqrt(6 * variance) / 6)


def test_a_run_that_diverged_is_counted_and_compared_with_nothing():
    lost = {"diverged": "the loss is nan at step 3"}
    assert level({0: result(2.0, 2.2), 1: lost}) == "2.1000 | 1, 1 diverged"
    assert level({0: lost}) == "– | 0, 1 diverged"
    assert difference({0: lost}, {0: result(2.0, 2.2)}, ()) is None
    said = in_words([Row("a", "A", rung("rope"), {0: lost}, {0: result(2.0, 2.2)}),
                     Row("b", "B", rung("rope"), {}, {0: result(2.0, 2.2)})])  # fmt: skip
    assert said == ["- A: no pair of runs ended, 1 diverged.", "- B: not enough runs yet."]
    assert compared(None) == "– | – | –"


@pytest.mark.parametrize(("df", "t"), [
    (1, 12.706), (2, 4.303), (5, 2.571), (6, 2.447), (10, 2.228), (30, 2.042),
])  # fmt: skip
def test_student_s_t_is_that_of_the_tables(df, t):
    assert student(df) == pytest.approx(t, rel=1e-3)


def runs_with(bits: dict[str, list[float]]) -> dict[str, dict[int, dict[str, Any]]]:
    """Runs of models with these bits per byte, by seed; their windows agree."""
    return {name: {seed: result(x - 1, x + 1) | {"config": {"name": name, "d_ff": n}, "rate": 0.008}
                   for seed, x in enumerate(each)}
            for n, (name, each) in enumerate(bits.items())}  # fmt: skip


def test_chance_is_what_neither_model_nor_seed_explains():
    runs = runs_with({"a": [2.0, 2.1, 2.3], "b": [1.0, 1.1, 1.3], "c": [1.5, 1.6]})
    sd, df = Pool(runs).scatter() or (9.0, 0)
    assert sd < 1e-9 and df == 8 - 3 - 3 + 1
    apart = Pool(runs_with({"a": [2.0, 2.1], "b": [2.0, 2.0]}))
    assert apart.scatter() == pytest.approx((0.05, 1)) and Pool().scatter() is None  # ± 0.025 in four runs
    assert apart.chance()["a"] == pytest.approx([-0.025, 0.025])
    less = difference(apart.runs["a"], apart.runs["b"], [Pool(), apart])
    assert less is not None and less.over_seeds == pytest.approx(12.706 * 0.05)


def test_a_pool_calls_one_in_twenty_changes_that_do_nothing_significant():
    dice, called = random.Random(1), 0
    for _ in range(300):
        seeds = [dice.gauss(2.0, 0.1) for _ in range(2)]
        pool = Pool(runs_with({name: [x + dice.gauss(0, 0.02) for x in seeds] for name in "abcdefgh"}))
        less = difference(pool.runs["a"], pool.runs["b"], [pool])
        assert less is not None
        called += bool(less.significant)
    assert 0.02 < called / 300 < 0.09


def test_models_outside_the_pool_and_twins_are_judged_by_themselves():
    pool = Pool(runs_with({"a": [2.0, 2.1], "b": [2.0, 2.0], "c": [3.0, 3.3]}))
    outside = runs_with({"z": [2.0, 2.1]})["z"]
    assert pool.tells(pool.runs["a"], pool.runs["b"]) and not pool.tells(pool.runs["a"], outside)
    assert not pool.tells({}, pool.runs["a"])
    slower = {seed: run | {"rate": 0.001} for seed, run in pool.runs["b"].items()}
    assert not pool.tells(pool.runs["a"], slower)  # another rate
    slow = [{seed: run | {"rate": 0.001} for seed, run in pool.runs[name].items()} for name in "ab"]
    assert not pool.tells(*slow)  # both at a rate that is not the pool's
    assert not pool.tells(pool.runs["a"], {0: {**pool.runs["a"][0], "config": {"name": "b", "d_ff": 0}}})
    found = all_in()
    pools = numbers.pools(plan(), found)
    dense, routed = (pools[routed, made_results.TAKEN] for routed in (False, True))
    assert {"yarn", "sinks", "swish", "without-experts"} <= dense.runs.keys() and dense.also == {"rope"}
    assert {"experts", "untied", "experts-4-of-16"} <= routed.runs.keys()
    assert {"mxfp4", "without-yarn"} <= routed.also
    others = {"gpt2", "without-rope", "mxfp4-2-layers", "repeated"}
    assert not (dense.runs.keys() | routed.runs.keys()) & others
    assert pools[True, shapes.RATE].runs.keys() == {"gpt-oss-shaped", "qwen3-shaped"}
    alone = [row.name for row in numbers.rungs(plan(), found)[1:] if row.less.scatter is None]
    assert alone == ["no-dropout", "rmsnorm", "rope", "yarn", "experts", "mxfp4"]
    assert [row.name for row in numbers.left_out(plan(), found) if row.less.scatter is None] == [
        "rope", "yarn", "experts"]  # fmt: skip
    page = report(found)
    for kind in ("dense models, at 0.008", "models with experts, at 0.008", "models with experts, at 0.016"):
        assert f"- {kind}: a standard deviation of 0.0" in page
    assert "yarn" in LATE


def test_what_is_significant_by_its_pool_alone_is_said_to_be():
    each = (-0.02, -0.04, -0.06)  # their own interval: 4.303 · 0.02 / √3
    pooled, own = Difference(each, 0.001, 2.0, (0.002, 30)), Difference(each, 0.001, 2.0)
    assert pooled.alone == own.alone == own.over_seeds == pytest.approx(0.04968, abs=1e-5)
    assert pooled.significant and pooled.borrowed and not own.significant and not own.borrowed
    told = "differs by −0.040 ± 0.003 with 3 seeds; all seeds agree"
    assert str(pooled) == f"{told}; ±0.050 by these seeds alone"
    assert not Difference((-0.2, -0.21, -0.22), 0.001, 2.0, (0.002, 30)).borrowed  # by its own seeds as well
    assert not Difference(each, 0.001, 2.0, (0.1, 30)).borrowed  # by neither
    borrowed = [row for row in numbers.rungs(plan(), results())[1:] if row.less.borrowed]
    assert [row.name for row in borrowed] == ["swiglu", "sinks"]
    assert in_short(borrowed).endswith("sinks (+0.047, by its pool alone).")
    pool = Pool(runs_with({"a": [2.0, 2.1], "b": [2.0, 2.0], "c": [3.0, 3.3]}))
    squares = {name: sum(x * x for x in left) for name, left in pool.chance().items()}
    assert max(squares, key=squares.__getitem__) == "c"
    lines = "".join(ladder_tables.scatter_in_words(plan(), all_in()))
    shares = [int(share) for share in re.findall(r"makes (\d+) % of the sum of squares", lines)]
    assert len(shares) == 3 and all(0 < share < 100 for share in shares) and "50 %" in lines  # of two shapes


def test_two_shapes_are_told_with_the_seeds_that_both_rates_have():
    found = all_in()
    each = ", ".join(f"“{name}” {score(found[f'{name}.seed0.lr0.016']):.4f}" for name in shapes.NAMES)
    assert f"- At 0.016 with the seeds that there are at 0.008: {each}." in report(found)
    lacking = {name: run for name, run in found.items() if "-shaped.seed0.lr0.008" not in name}
    assert "with the seeds that there are" not in report(lacking)


def test_how_far_seeds_lie_apart_is_told_beside_a_table():
    row = Row("a", "A", rung("rope"), {0: {"balance": 1.0}, 1: {"balance": 1.5}})
    columns = {"x": lambda one: one.mean("balance"), "y": lambda one: 2.0}
    assert details_table([row], columns)[-1] == "| A | 1.250 | 2.000 |"
    both = "0.250 in the median, 0.500 at most (“A”, x)"
    head = "Between the seeds of a model one and the same entry of the table differs by"
    assert apart([row], columns) == f"{head}: {both}." and apart([], columns) == ""
    each = "x 0.50 in the median, 0.50 at most (“A”); y 0.00 in the median, 0.00 at most (“A”)"
    assert apart([row], columns, 2, alike=False) == f"{head}: {each}."


def test_how_the_first_rungs_fall_along_a_window_is_told_in_numbers():
    made = {0: {"nats_by_position": {"far": {"8-31": 2.1, "32-63": 2.0, "128-255": 1.75}}}}
    rows = [Row("a", "A", rung("rope"), made), Row("b", "B", rung("rope"), {})]
    lines, said = falls(rows)
    assert lines[-1] == "| rung “B” | – | – | – | – | – |" and said.endswith("falls: rung “A”.")
    assert lines[-2] == "| rung “A” | 2.100 | 2.000 | 1.750 | −0.350 | −0.250 |"
    table = [float(cell.replace("−", "-")) for cell in lines[2].split("|")[2:-1]]
    assert table[3] == pytest.approx(table[2] - table[0], abs=2e-3) and -0.1 < table[4] < table[3] < 0
    assert falls([])[1].endswith("falls: none.") and len(falls([])[0]) == 3


def test_what_stands_out_is_told_in_short():
    apart = {0: result(2.0, 2.2), 1: result(2.1, 2.3)}
    rows = [Row("a", "A", rung("rope"), {0: result(1.5, 1.7), 1: result(1.6, 1.8)}, apart),
            Row("b", "B", rung("rope"), {0: result(2.0, 2.2), 1: result(2.2, 2.4)}, apart),
            Row("c", "C", rung("rope"), {0: result(1.0, 1.2)}, apart)]  # fmt: skip
    assert in_short(rows) == "beyond chance: A (−0.500); not told from nothing: B; no verdict: C."
    assert in_short(rows[:1]) == "beyond chance: A (−0.500)."


def test_the_shapes_are_on_the_page_at_both_rates():
    page = report(all_in())
    for rate in ("0.016", "0.008"):
        assert f"| qwen3-shaped | {rate} | " in page and f"less “gpt-oss-shaped” at {rate}: " in page
    assert "not enough runs yet" not in page and page.count("with one seed (±") == 1
    assert "These are all of them." in page and " not asked | 0.0" in page


def test_results_count_only_at_the_rate_that_was_taken():
    found = all_in()
    found["rope.seed0.lr0.001"] = result(9.0, 9.0)  # somebody's own run
    assert sorted(runs_of(without("rope"), plan(), found)) == [0, 1]
    assert runs_of(rung("rope"), plan(), found) == runs_of(rung("rope"), plan(), all_in())
    assert report(found) == report(all_in())


def test_the_command_writes_the_page(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    for name, value in all_in().items():
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    page = tmp_path / "ladder.md"
    ladder_report.main([str(page), "--results", str(tmp_path / "results")])
    assert page.read_text(encoding="utf-8") == report(all_in())
    assert capsys.readouterr().out == f"wrote {page}\n"


@pytest.mark.parametrize(("where", "page", "said"), [
    ("nowhere", "ladder.md", "no folder .*nowhere' with results"),
    (".", "missing/ladder.md", "no folder .*missing' to write"),
    (".", "ladder.md", "a.json is no JSON"),
])  # fmt: skip
def test_a_page_that_cannot_be_made_is_a_line_and_no_page(tmp_path, where, page, said):
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(SystemExit, match=said):
        ladder_report.main([str(tmp_path / page), "--results", str(tmp_path / where)])
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_ratios_are_taken_round_by_round():
    assert ratio([1.0, 2.0, 1.0, 2.0, 1.0], [5.0, 2.0, 3.0, 8.0, 2.0]) == "3.00 (2.00 to 4.00)"
    timed = {"bytes": {"training": 100, "decoding": 8},
             "training": {"gpt2": [2.0, 4.0, 8.0], "rope": [1.0, 2.0, 4.0]},
             "decoding": {"gpt2": [1.0, 1.0, 1.0], "rope": [2.0, 2.0, 2.0]}}  # fmt: skip
    lines = speed_table(timed)
    assert "| GPT-2 | 25 | 1 | 8 | 1 |" in lines
    assert "| RoPE | 50 | 2.00 (2.00 to 2.00) | 4 | 0.50 (0.50 to 0.50) |" in lines
    timed["decoding"]["no-dropout"] = [1.0, 0.8, 0.5]
    alike = "decoding by “no dropout” 1.25 (1.00 to 2.00) times as fast as by “GPT-2”"
    assert noise(timed) == f"Rungs that compute the very same tell how sure that is: {alike}."
    assert noise(None) == ""
    assert "| sinks | – | – | – | – |" in lines and "| sinks | – | – | – | – |" in speed_table(None)


def test_of_a_table_of_positions_one_row_is_read_and_none_multiplied():
    first, rope = ladder()[0], rung("rope")
    assert bytes_read(rung("untied")) == bytes_read(rung("experts")) + 2 * first.d_model  # a row
    assert bytes_read(rope) == sum(bytes_per_token(rope).values())
    table = 2 * first.context * first.d_model
    assert bytes_read(first) == sum(bytes_per_token(first).values()) - table + 2 * first.d_model
    seen = first.with_changes(positions="rope", family="gpt-oss")
    assert flop(first) == flop(seen)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_every_picture_of_the_page_is_drawn_from_few_results_and_from_all(share):
    found = made_results.every(share)
    for draw in ladder_pictures.DRAWN:
        still = draw(plan(), found)
        still.draw_without_rendering()
        for text in still.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= still.bbox.x1, (draw.__name__, text.get_text())
        for ax in still.axes:
            box = ax.get_tightbbox(still.canvas.get_renderer())
            assert box.x0 >= 0 and box.x1 <= still.bbox.x1 + 1, (draw.__name__, box, still.bbox)
            assert box.y0 >= 0 and box.y1 <= still.bbox.y1, (draw.__name__, box)
        assert "of 118 runs" in still.get_supxlabel()


def test_the_page_is_made_from_the_results_that_are_in():
    page = (ladder_pictures.PICTURES.parent / "ladder.md").read_text("utf-8")
    assert page == report(results()), "run: make ladder"
