"""docs/ladder.md: every number is worked out again here, and what is not in is said to be missing."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from gptoss_lab.training import ladder_report
from gptoss_lab.training.corpus import DOMAINS
from gptoss_lab.training.ladder import RATES, plan, rung, without
from gptoss_lab.training.ladder_report import compared, interval, level, over_windows, report, runs_of


def result(*near: float) -> dict[str, Any]:
    """A result whose every domain has these windows."""
    mean = round(sum(near) / len(near), 4)
    names = ("0-7", "8-31", "32-63", "64-127", "128-255", "256-383", "512-767", "768-1023")
    return {
        "windows": {"near": {domain: list(near) for domain in DOMAINS}},
        "bits_per_byte": {"near": dict.fromkeys(DOMAINS, mean)},
        "nats_by_position": {"far": dict.fromkeys(names, 1.25)},
    }


def all_in() -> dict[str, dict[str, Any]]:
    """A result for every run; the third rate of the grid is the best; later rungs are better."""
    found = {entry.id({}): result(2.5, 2.5) for entry in plan() if not isinstance(entry.rate, str)}
    rates = dict.fromkeys(("gpt2", "swiglu", "mxfp4"), RATES[2])
    for entry in plan():
        if isinstance(entry.rate, str):
            base = 2.0 - 0.001 * len(entry.config.name) + 0.01 * entry.seed
            found[entry.id(rates)] = result(base, base + 0.2)
    return found


def row(page: str, heading: str, name: str) -> list[str]:
    """The cells of a row of the section with this heading."""
    part = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    (line,) = [line for line in part.split("By domain")[0].splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_page_without_results_is_all_dashes_and_says_so():
    page = report({})
    assert "**0 of 98 runs are in.**" in page and "Nothing should be concluded" in page
    assert row(page, "The rungs", "RoPE") == ["RoPE", "–", "0", "–", "–", "–"]
    assert row(page, "Learning rates", "GPT-2") == ["GPT-2", "–", "–", "–", "–", "–", "–"]


def test_a_page_with_every_result_has_no_dash_but_for_the_first_rung():
    page = report(all_in())
    assert "**98 of 98 runs are in.** These are all of them." in page
    assert row(page, "The rungs", "GPT-2")[3:] == ["–", "–", "–"]
    rope, rms = 2.0 - 0.004, 2.0 - 0.007
    cells = row(page, "The rungs", "RoPE")
    assert cells[1:4] == [f"{rope + 0.01 + 0.1:.4f}", "3", f"{rope - rms:+.4f}"]
    assert cells[4] == "+0.0030 to +0.0030" and cells[5] == "±0.0000"
    assert row(page, "Learning rates", "GPT-2")[-1] == "0.004"
    assert len(row(page, "One left out", "sinks")) == 6
    assert "{" not in page


def test_one_seed_has_no_interval_over_seeds():
    cells = compared({0: result(2.0, 2.1)}, {0: result(2.1, 2.2)}).split(" | ")
    assert cells[0] == "-0.1000" and cells[1] == "–"


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
    assert compared({0: lost}, {0: result(2.0, 2.2)}) == "– | – | –"


def test_results_count_only_at_the_rate_that_was_taken():
    found = all_in()
    found["rope.seed0.lr0.001"] = result(9.0, 9.0)  # somebody's own run
    assert sorted(runs_of(rung("rope"), plan(), found)) == [0, 1, 2]
    assert sorted(runs_of(without("rope"), plan(), found)) == [0, 1]
    assert "9.0" not in report(found).split("## The rungs")[1].split("## One left out")[0]


def test_the_command_writes_the_page(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    for name, value in all_in().items():
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    page = tmp_path / "ladder.md"
    ladder_report.main([str(page), "--results", str(tmp_path / "results")])
    assert page.read_text(encoding="utf-8") == report(all_in())
    assert capsys.readouterr().out == f"wrote {page}\n"
