"""The ladder's stills show the numbers they were given, and say what is missing. No model, no results."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from gptoss_lab import figures
from gptoss_lab.figures import COLOUR, ladder, ladder_runs

ROWS = {
    "names": ["first", "second", "third", "fourth"],
    "levels": [[3.0, 3.1, 3.2], [2.0, 2.1, 2.2], [2.05], []],
    "each": [[], [-1.0, -1.01, -0.99], [0.02], []],
    "over_seeds": [None, 0.025, None, None],
    "over_windows": [None, 0.01, 0.004, None],
    "significant": [None, True, None, None],
}


def said(ax):
    return [text.get_text() for text in ax.texts]


def empty(n=3):
    none = [None] * n
    return {"names": list("abc"), "levels": [[]] * n, "each": [[]] * n, "over_seeds": none,
            "over_windows": none, "significant": none}  # fmt: skip


def test_a_significant_difference_is_full_and_dark_and_any_other_hollow_and_grey():
    left, right = ladder.differences(**ROWS).axes
    dots = {line.get_ydata()[0]: line for line in right.lines if line.get_marker() == "o"}
    assert (dots[1].get_fillstyle(), dots[1].get_color()) == ("full", COLOUR["dense"])
    assert (dots[2].get_fillstyle(), dots[2].get_color()) == ("none", COLOUR["muted"])
    assert dots[1].get_xdata()[0] == pytest.approx(-1.0) and sorted(dots) == [1, 2]
    wide = [line for line in right.lines if line.get_linewidth() == 9]
    assert [list(line.get_xdata()) for line in wide] == [pytest.approx([-1.025, -0.975])]
    assert "−1.000 ± 0.027" in said(right) and "+0.020, one seed" in said(right)
    assert ladder.MISSING in said(right)
    means = next(line for line in left.lines if line.get_marker() in ("None", ""))
    assert list(means.get_xdata()) == pytest.approx([3.1, 2.1, 2.05, math.nan], nan_ok=True)


def test_what_is_not_significant_says_so():
    rows = {name: values[1:2] for name, values in ROWS.items()} | {"significant": [False]}
    figure = ladder.differences(**rows)
    assert "not significant" in said(figure.axes[1])[0] and "not significant" in figure.alt


def test_the_words_are_those_of_the_picture():
    lines = ladder.describe(**ROWS).splitlines()
    assert lines[1:] == ["first: 3.100, not compared.",
                         "second: −1.000 ± 0.027.", "third: +0.020, one seed.", "fourth: no runs yet."]


def test_every_interval_lies_within_the_picture():
    wild = ROWS | {"over_seeds": [None, 0.6, None, None]}
    right = ladder.differences(**wild).axes[1]
    low, high = right.get_xlim()
    (wide,) = [line for line in right.lines if line.get_linewidth() == 9]
    assert low <= min(wide.get_xdata()) and max(wide.get_xdata()) <= high


EMPTY = {
    "differences": lambda: ladder.differences(**empty()),
    "rates": lambda: ladder.rates({"a": {0.1: None, 0.2: None}}),
    "cost": lambda: ladder.cost({"a": [(1.0, [], "small")]}, "FLOP"),
    "curves": lambda: ladder_runs.curves({"a": ([], [])}),
    "positions": lambda: ladder_runs.positions([(0, 8), (8, 32)], {"a": [None, None]}, {8: "x"}),
    "stability": lambda: ladder_runs.stability(["a"], [[]], [[]]),
    "router": lambda: ladder_runs.router({"a": ([], [])}, 2.58),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_picture_without_runs_says_so(name):
    figure = EMPTY[name]()
    figure.draw_without_rendering()
    assert any(ladder.MISSING in said(ax) for ax in figure.axes) and ladder.MISSING in figure.alt


def test_the_best_rate_is_ringed_and_a_run_that_diverged_is_no_point():
    ax = ladder.rates({"a": {0.1: 2.0, 0.2: 1.9, 0.4: math.inf, 0.8: None}}).axes[0]
    line = next(line for line in ax.lines if "a (3 of 4 in)" in line.get_label())
    assert list(line.get_xdata()) == [0.1, 0.2]
    assert not [line for line in ax.lines if line.get_markersize() == 15], "not while a run is missing"
    assert "diverged" in ax.get_xlabel()
    ax = ladder.rates({"a": {0.1: 2.0, 0.2: 1.9, 0.4: math.inf}}).axes[0]
    (ring,) = [line for line in ax.lines if line.get_markersize() == 15]
    assert ring.get_xydata()[0] == pytest.approx([0.2, 1.9])


def test_cost_is_drawn_through_the_means():
    points = [(10.0, [2.0, 2.2], "small"), (100.0, [1.5], "large"), (1e3, [], "none")]
    ax = ladder.cost({"a": points}, "FLOP").axes[0]
    line = ax.lines[0]
    assert line.get_label() == "a (2 of 3 in)"
    assert line.get_xydata() == pytest.approx(np.array([[10, 2.1], [100, 1.5]]))
    assert said(ax) == ["small", "large"]


def test_the_live_curve_is_drawn_over_the_recorded_one():
    figure = ladder_runs.curves({"a": ([1, 2], [3.0, 2.0])}, live=([1, 2], [3.1, 2.1]))
    rings = figure.axes[0].lines[1]
    assert list(rings.get_ydata()) == [3.1, 2.1] and rings.get_fillstyle() == "none"
    figure.draw_without_rendering()


def test_names_at_the_ends_of_lines_do_not_cover_each_other():
    figure = ladder_runs.curves({f"line {n}": ([1, 2], [3.0, 2.0 + n / 1000]) for n in range(8)})
    figure.draw_without_rendering()
    boxes = sorted((t.get_window_extent() for t in figure.axes[0].texts), key=lambda box: box.y0)
    places = [text.xyann[1] for text in figure.axes[0].texts]
    low, high = figure.axes[0].get_ylim()
    assert len(boxes) == 8 and min(np.diff(sorted(places))) > 0.99 * (high - low) / 24


def test_an_axes_handed_in_is_used():
    ax = Figure(figsize=(8, 6)).subplots()
    assert ladder_runs.curves({"a": ([1], [2.0])}, title="x", ax=ax) is ax
    assert figures.ladder.rates({"a": {0.1: 2.0}}, ax=Figure().subplots()).lines


def test_longer_windows_are_lines_of_their_own():
    edges, lines = [(0, 8), (8, 16), (16, 32)], {"a": [3.0, 2.0, None], "b": [3.0, 2.5, None]}
    ax = ladder_runs.positions(edges, lines, {8: "x"}, longer={"a": [None, 1.9, 2.4]}).axes[0]
    marked = [line for line in ax.lines if line.get_marker() != "None"]
    drawn = [list(line.get_ydata()) for line in marked if len(line.get_ydata()) > 1]
    assert drawn == [[3.0, 2.0], [1.9, 2.4], [3.0, 2.5]]
    words = ladder_runs.positions(edges, lines, {8: "x"}, longer={"a": [None, 1.9, 2.4]}).alt
    assert "a: 2.40 at the end" in words and "b: 2.50 at the end" in words


def test_ticks_of_a_wide_scale_do_not_touch():
    for most in (0.05, 0.9, 5.0):
        rows = {name: values[1:2] for name, values in ROWS.items()}
        rows |= {"over_seeds": [most], "each": [[most / 2, most]], "significant": [False]}
        rows["names"] = ["windows in every second layer"]  # both ends say much, and the middle is narrow
        figure = ladder.differences(**rows)
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in figure.axes[1].get_xticklabels() if label.get_text()]
        assert len(boxes) >= 5 and all(a.x1 + 8 < b.x0 for a, b in zip(boxes, boxes[1:])), most
