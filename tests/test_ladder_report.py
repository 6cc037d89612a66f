"""docs/ladder.md: every number is worked out again here, and what is not in is said to be missing."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import ladder_pictures
import made_results
import pytest

from gptoss_lab.cost import bytes_per_token
from gptoss_lab.training import ladder_report, ladder_tables
from gptoss_lab.training.corpus import DOMAINS
from gptoss_lab.training.ladder import RATES, ladder, plan, rung, without
from gptoss_lab.training.ladder_numbers import (
    Difference,
    bytes_read,
    difference,
    flop,
    interval,
    over_windows,
    runs_of,
)
from gptoss_lab.training.ladder_report import report
from gptoss_lab.training.ladder_tables import compared, level, ratio, speed_table
from gptoss_lab.training.queue import score


def result(*near: float) -> dict[str, Any]:
    """A result whose every domain has these windows."""
    mean = round(sum(near) / len(near), 4)
    return made_results.made(rung("rope"), 0, RATES[3]) | {
        "windows": {"near": {domain: list(near) for domain in DOMAINS}},
        "bits_per_byte": {"near": dict.fromkeys(DOMAINS, mean)},
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
    assert "**0 of 99 runs are in.**" in page and "Nothing should be concluded" in page
    assert row(page, "The rungs", "RoPE") == ["RoPE", "–", "0", "–", "–", "–"]
    assert row(page, "Learning rates", "GPT-2") == ["GPT-2"] + ["–"] * 7


def test_a_page_with_every_result_has_no_dash_but_where_there_is_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(ladder_tables, "lookback", dict)
    found = all_in()
    page = report(found)
    assert "**99 of 99 runs are in.** These are all of them." in page
    assert row(page, "The rungs", "GPT-2")[3:] == ["–", "–", "–"]
    rope, rms = ([score(found[f"{name}.seed{seed}.lr0.008"]) for seed in range(3)]
                 for name in ("rope", "rmsnorm"))  # fmt: skip
    mean = sum(a - b for a, b in zip(rope, rms)) / 3
    cells = row(page, "The rungs", "RoPE")
    assert cells[1:4] == [f"{sum(rope) / 3:.4f}", "3", f"{mean:+.4f}".replace("-", "−")]
    assert "- RoPE: differs by −0.85" in page and "3 seeds; all seeds agree." in page
    assert row(page, "Learning rates", "GPT-2")[-1] == "0.008"
    assert len(row(page, "One left out", "sinks")) == 6
    assert row(page, "The router", "experts")[1] == "1.050"
    assert "{" not in page and "not enough runs" not in page


def test_one_seed_has_no_interval_over_seeds_and_no_verdict():
    less = difference({0: result(2.0, 2.1)}, {0: result(2.1, 2.2)})
    assert less is not None and less.significant is None
    assert compared(less).split(" | ")[:2] == ["−0.1000", "–"]
    assert str(less).startswith("−0.100 with one seed") and str(less).endswith("no verdict yet")


@pytest.mark.parametrize(
    ("each", "windows", "significant", "said"),
    [
        ((-0.030, -0.031, -0.029), 0.01, True,
         "differs by −0.030 ± 0.002 over 3 seeds; all seeds agree"),
        ((-0.030, -0.031, -0.029), 0.04, False,
         "not significant: −0.030 ± 0.002 over 3 seeds, but ±0.040 over windows"),
        ((-0.03, -0.01, -0.05), 0.01, False,
         "not significant: −0.030 ± 0.050 over 3 seeds, though all have one sign"),
        ((0.03, -0.01, 0.02), 0.01, False, "not significant: +0.013 ± 0.052 over 3 seeds"),
        ((0.03, 0.04), 0.01, False, "not significant: +0.035 ± 0.064 over 2 seeds, though all have one sign"),
        ((0.03, 0.03), 0.01, True, "differs by +0.030 ± 0.000 over 2 seeds; all seeds agree"),
    ],
)  # fmt: skip
def test_a_verdict_needs_both_intervals(each, windows, significant, said):
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
    assert difference({0: lost}, {0: result(2.0, 2.2)}) is None
    assert compared(None) == "– | – | –"


def test_results_count_only_at_the_rate_that_was_taken():
    found = all_in()
    found["rope.seed0.lr0.001"] = result(9.0, 9.0)  # somebody's own run
    assert sorted(runs_of(rung("rope"), plan(), found)) == [0, 1, 2]
    assert sorted(runs_of(without("rope"), plan(), found)) == [0, 1]
    assert "9.0" not in report(found).split("## The rungs")[1].split("## How training went")[0]


def test_the_command_writes_the_page(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    for name, value in all_in().items():
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    page = tmp_path / "ladder.md"
    ladder_report.main([str(page), "--results", str(tmp_path / "results")])
    assert page.read_text(encoding="utf-8") == report(all_in())
    assert capsys.readouterr().out == f"wrote {page}\n"


def test_ratios_are_taken_round_by_round():
    assert ratio([1.0, 2.0, 1.0, 2.0, 1.0], [5.0, 2.0, 3.0, 8.0, 2.0]) == "3.00 (2.00 to 4.00)"
    timed = {"bytes": {"training": 100, "decoding": 8},
             "training": {"gpt2": [2.0, 4.0, 8.0], "rope": [1.0, 2.0, 4.0]},
             "decoding": {"gpt2": [1.0, 1.0, 1.0], "rope": [2.0, 2.0, 2.0]}}  # fmt: skip
    lines = speed_table(timed)
    assert "| GPT-2 | 25 | 1 | 8 | 1 |" in lines
    assert "| RoPE | 50 | 2.00 (2.00 to 2.00) | 4 | 0.50 (0.50 to 0.50) |" in lines
    assert "| sinks | – | – | – | – |" in lines and "| sinks | – | – | – | – |" in speed_table(None)


def test_of_a_table_of_positions_one_row_is_read_and_none_multiplied():
    first, rope = ladder()[0], rung("rope")
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
        assert "of 99 runs" in still.get_supxlabel()
