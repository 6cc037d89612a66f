"""The stills show the arrays they were given: checked on the artists, with made-up numbers and no model."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from gptoss_lab import figures
from gptoss_lab.figures import experts, style

HARD = ["$x$", "100%", "a_b", "\\frac{1}{2}", "<|end|>", "$", "\\$", "·ñandú", "Ω≠", "…", "你好", "a" * 60]
HARD += ["\n", "^_", ""]
SOURCE = "mini-oss (random, seed 0, float32) · $7 of 100% · tokens 1_2 · " + "attention explicit " * 12
WORDS = [*HARD, *"It ·is ·a ·truth ·univers ally ·acknowledged , ·that".split()]


def words(n):
    return [WORDS[i % len(WORDS)] for i in range(n)]


def routing(tokens, n_experts, k, seed=0):
    draw = torch.Generator().manual_seed(seed)
    logits, choice = torch.randn(tokens, n_experts, generator=draw).topk(k)
    return choice, logits.softmax(-1)


def attending(n_queries, n_keys, window=None, seed=0):
    """A pattern T S and sink T that sum to 1, zero where nothing is seen."""
    back = np.arange(n_keys - n_queries, n_keys)[:, None] - np.arange(n_keys)
    seen = (back >= 0) & (back < (window or n_keys))
    scores = np.where(seen, np.random.default_rng(seed).normal(size=seen.shape) * 2, -np.inf)
    joined = np.exp(np.concatenate([np.full((n_queries, 1), 1.0), scores], 1))
    joined /= joined.sum(1, keepdims=True)
    return joined[:, 1:], joined[:, 0], seen


def rotate(x, position, frequencies, concentration=1.0):
    """The rotation from its definition, pair by pair."""
    half, out = len(frequencies), np.zeros_like(x)
    for i in range(half):
        angle = position * frequencies[i]
        out[i] = concentration * (x[i] * np.cos(angle) - x[i + half] * np.sin(angle))
        out[i + half] = concentration * (x[i + half] * np.cos(angle) + x[i] * np.sin(angle))
    return out


FREQUENCIES = np.array([1.0, 0.4, 0.09, 0.02, 0.003])
VECTORS = np.random.default_rng(1).normal(size=(2, 10))


def dials(**how):
    q, k = VECTORS
    turned = rotate(q, 17, FREQUENCIES, 1.2), rotate(k, 12, FREQUENCIES, 1.2)
    return figures.rope(q, turned[0], k, turned[1], FREQUENCIES, 17, 12, source=SOURCE, **how)


def pair(tokens, window):
    near, near_sink, _ = attending(tokens, tokens, window)
    far, far_sink, _ = attending(tokens, tokens, None, 1)
    said = {"labels": words(tokens), "window_layer": 2, "dense_layer": 3, "head": "mean of 8 heads"}
    return figures.attention_pair(near, far, window, near_sink, far_sink, source=SOURCE, **said)


def one(tokens, keys, **how):
    pattern, sink, _ = attending(tokens, keys, how.get("window"))
    return figures.attention(pattern, sink, labels=words(keys), layer=4, head=5, source=SOURCE, **how)


def shares(n_layers, n_heads, maps=4):
    draw = np.random.default_rng(n_layers)
    named = {f"to the {what}": draw.uniform(0, 0.9, (n_layers, n_heads)) ** 3
             for what in ["token before", "sink", "first token", "token after the earlier one"][:maps]}
    return figures.head_maps(named, source=SOURCE)


def told(n_layers):
    bits = np.random.default_rng(2).uniform(0.1, 2.1, n_layers)
    lot = {"bits": bits, "identity": bits / 2, "shuffled": bits / 50, "spread": bits / 90}
    less = {key: lot[key] for key in ("bits", "shuffled", "spread")}
    return figures.told_bars({"domain": lot, "kind of token": less, "language": lot}, source=SOURCE)


def lines(n_lines, spans):
    draw = np.random.default_rng(3)
    kinds = ["English fiction", "dialogue", "scripture", "Spanish", "Python", "arithmetic"]
    one = {name: np.stack([draw.uniform(2, 6, len(spans)), draw.uniform(0, 1, len(spans))], 1)
           for name in kinds[:n_lines]}  # fmt: skip
    other = {"another verse, in the same language": one["English fiction"]}
    panels, names = {"nats a token": one, "in common": other}, {"nats a token": spans, "in common": spans}
    return figures.curves(panels, names, "position", "What comes of it", SOURCE, zero=["in common"])


def layers(n, tokens, n_experts, k):
    choices, weights = zip(*(routing(tokens, n_experts, k, seed) for seed in range(n)))
    return figures.router_layers(choices, weights, n_experts, words(tokens), source=SOURCE)


BLOCK = np.random.default_rng(2).integers(0, 256, 16)
GRID = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
SIZES = {"as published": [13.8e9, 4e8, 65e9, 16e9], "in bfloat16": [41.8e9, 2e8, 233e9, 17e9]}


def line_of_values():
    x = np.linspace(0.01, 7.9, 800)
    return x, GRID[np.abs(x[:, None] - GRID).argmin(1)]


def held(tokens, size, window=None):
    """Positions in slots after each token, a ring written slot by slot."""
    slots, rows = [-1] * size, []
    for t in range(tokens):
        slots[t % (window or size)] = t
        rows.append(list(slots))
    return rows


def budget(n=3, **how):
    made = {"experts": 10e9, "attention": 1.3e9, "embedding": 1.2e9, "unembedding": 1.2e9}
    made |= {"cache of 8192 tokens": 4e8, "work on 512": 7e8, "the program": 4.5e8}
    rows = {("100%_$x$" if i else "gpt-oss-20b") + "·" * i: made for i in range(n)}
    return figures.parts(rows, 16e9, source=SOURCE, **how)


RATES = {
    "decode": {"ours": 5.1, "llama.cpp": 5.3, "100%_$x$": 4.0},
    "prompt of 128": {"ours": 14.9, "llama.cpp": 12.0},
    "prompt of 2,048": {"ours": 16.0},
}
def dialled(settings, at=10.0, **how):
    verdicts = ["holds", "holds partly", "does not hold", "open"][: len(settings)]
    numbers = [1e5 * x for x in settings]
    return figures.dial(settings, numbers, verdicts, at, what="what is turned", source=SOURCE, **how)


def two_trained(runs):
    draw = np.random.default_rng(0)
    names = ("one-shaped", "other-shaped")
    lines = lambda n: {name: [draw.random(n) + 1 for _ in range(runs)] for name in names}
    return figures.trained(lines(100), lines(6), lines(6), steps=15, source=SOURCE)


PICTURES = {
    "speeds": lambda: figures.speeds(RATES, {"decode": 6.4, "prompt of 128": 24.0}, source=SOURCE),
    "speed of one": lambda: figures.speeds({"decode": {"ours": 0.03}}, source=SOURCE),
    "block": lambda: figures.packed_block(BLOCK, 120, np.linspace(-6, 6, 32) / 128, source=SOURCE),
    "rounding": lambda: figures.rounding(GRID, *line_of_values(), source=SOURCE),
    "budgets": lambda: figures.budgets(["a", "$b$", "c_d", "e" * 30], SIZES, 16e9, source=SOURCE),
    "budgets of 8": lambda: figures.budgets([f"model {i}" for i in range(8)], {
        name: np.geomspace(1e8, 9e11, 8) for name in ("as published", "in bfloat16", "in float32")
    }, 16e9, source=SOURCE),
    "parts of one": lambda: budget(1),
    "parts of five": lambda: budget(5),
    "parts past the end": lambda: budget(2, end=12e9),
    "slots": lambda: figures.cache_slots({"growing": held(16, 16), "ring": held(16, 5)}, source=SOURCE),
    "slots of 200": lambda: figures.cache_slots({"$ring$": held(200, 32)}, source=SOURCE),
    "router of 1 token": lambda: figures.router(*routing(1, 5, 2), 5, words(1), layer=0, source=SOURCE),
    "router of 9 tokens": lambda: figures.router(*routing(9, 32, 4), 32, words(9), layer=3, source=SOURCE),
    "router of 256 tokens": lambda: figures.router(*routing(256, 128, 4), 128, words(256), source=SOURCE),
    "router of 1 layer": lambda: layers(1, 1, 3, 2),
    "router of 7 layers": lambda: layers(7, 23, 16, 4),
    "router of 24 layers": lambda: layers(24, 256, 32, 4),
    "attention of 1 token": lambda: one(1, 1),
    "attention of 1 token to 19": lambda: one(1, 19, window=6),
    "attention of 9 tokens": lambda: one(9, 9, window=4),
    "attention of 256 tokens": lambda: one(256, 256, window=128),
    "pair of 1 token": lambda: pair(1, 4),
    "pair of 24 tokens": lambda: pair(24, 8),
    "pair of 100 tokens": lambda: pair(100, 32),
    "heads of 1": lambda: shares(1, 1, 1),
    "heads of 6 layers": lambda: shares(6, 6),
    "heads of 24 layers": lambda: shares(24, 64),
    "told in 1 layer": lambda: told(1),
    "told in 6 layers": lambda: told(6),
    "told in 24 layers": lambda: told(24),
    "curves of 1 place": lambda: lines(1, ["0–7"]),
    "curves of 7 places": lambda: lines(6, [f"{n}–{n + 255}" for n in range(0, 1792, 256)]),
    "curves of 24 places": lambda: lines(3, [str(n) for n in range(24)]),
    "dials": dials,
    "one dial": lambda: dials(pairs=[3]),
    "score": lambda: figures.rope_score(*VECTORS, FREQUENCIES, 1.2, 5, 64, window=16, source=SOURCE),
    "wavelengths": lambda: figures.wavelengths(
        FREQUENCIES / 3, FREQUENCIES, 128, 4096, 131072, source=SOURCE
    ),
    "next tokens": lambda: figures.next_tokens([0.4, 0.3, 0.1], HARD[:3], [0.1, 0.3, 0.6], source=SOURCE),
    "next of many": lambda: figures.next_tokens(np.full(len(WORDS), 1 / 90), WORDS, source=SOURCE),
    "dial": lambda: dialled([1, 10, 100, 1000], log="x"),
    "dial of one verdict": lambda: dialled([0.5, 0.25], at=None),
    "ratios": lambda: figures.ratios([0.25, 1, 3.5], ["a", "$x$", "b" * 60], "this over that", source=SOURCE),
    "ratios above 1": lambda: figures.ratios([9.0], ["a"], "this over that", source=SOURCE),
    "trained": lambda: two_trained(2),
    "trained once": lambda: two_trained(1),
    "next of one": lambda: figures.next_tokens([1.0], ["你" * 30], source=SOURCE),
}


def written(figure):
    """Every text that is visible and says something, with its extent in pixels."""
    renderer = figure.canvas.get_renderer()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    hidden = [ax for ax in figure.findobj(matplotlib.axes.Axes) if not ax.axison]
    texts = [t for t in texts if t.axes not in hidden]
    shown = []
    for ax in figure.findobj(matplotlib.axes.Axes):
        for axis in (ax.xaxis, ax.yaxis):
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                low, high = sorted(axis.get_view_interval())
                if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    shown += [tick.label1, tick.label2]
    return [(t, t.get_window_extent(renderer)) for t in texts if t not in shown]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", PICTURES)
def test_nothing_is_clipped_or_overlaps_and_all_can_be_read(name):
    before = dict(matplotlib.rcParams)
    figure = PICTURES[name]()
    figure.draw_without_rendering()
    assert dict(matplotlib.rcParams) == before
    width, height = figure.bbox.size
    assert width <= 1600 and height <= 900
    texts = written(figure)
    assert all(t.get_fontsize() >= 11 for t, _ in texts)
    for text, box in texts:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text.get_text()!r} is clipped: {box}"
    for i, (one_text, a) in enumerate(texts):
        for other, b in texts[:i]:
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            down = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across <= 2 or down <= 2, f"{one_text.get_text()!r} lies on {other.get_text()!r}"
    said = [t.get_text() for t, _ in texts]
    assert figure.get_suptitle() in said and len(figure.get_suptitle()) > 10
    assert any("random" in text for text in said), "no source line"
    assert figure.alt


@pytest.mark.parametrize("name", ["router of 1 token", "attention of 9 tokens", "next tokens"])
def test_every_pixel_row_is_drawn_the_same_under_foreign_settings(name):
    def pixels():
        figure = PICTURES[name]()
        FigureCanvasAgg(figure).draw()
        return np.asarray(figure.canvas.buffer_rgba()).copy()

    usual = pixels()
    with matplotlib.rc_context(
        {"text.color": "red", "font.size": 30, "xtick.color": "red", "axes.grid": True}
    ):
        assert (pixels() == usual).all()


def test_router_cells_are_the_weights_and_unchosen_cells_are_masked_not_zero():
    choice, weight = (
        torch.tensor([[2, 0], [4, 2], [3, 4]]),
        torch.tensor([[0.7, 0.3], [1.0, 0.0], [0.6, 0.4]]),
    )
    figure = figures.router(choice, weight.bfloat16(), 6, ["a", "b", "$c$"], layer=1)
    cells = figure.axes[0].images[0].get_array()
    for t in range(3):
        for e in range(6):
            if e in choice[t]:
                assert cells[t, e] == pytest.approx(float(weight[t][choice[t] == e]), abs=4e-3)
            else:
                assert cells.mask[t, e]
    assert not cells.mask[1, 2] and cells[1, 2] == 0  # chosen with no weight is another thing than not chosen
    assert figure.axes[0].images[0].norm.vmin == 0
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["a", "b", "$c$"]


def test_router_takes_bf16_tensors_and_lists():
    choice, weight = routing(4, 7, 3)
    want = experts.spread(choice, weight.bfloat16().float().numpy(), 7)
    assert (experts.spread(choice.tolist(), weight.bfloat16(), 7) == want).all()


def test_load_counts_choices_and_sums_weights():
    chosen, carried = experts.load([[0, 2], [2, 3], [2, 0]], [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]], 5)
    assert chosen == pytest.approx([2 / 6, 0, 3 / 6, 1 / 6, 0])
    assert carried == pytest.approx([1.7 / 3, 0, 0.8 / 3, 0.5 / 3, 0])
    figure = figures.router([[0, 2], [2, 3], [2, 0]], [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]], 5)
    bars = figure.axes[0].child_axes[1]
    assert [b.get_height() for b in bars.patches] == pytest.approx([100 * x for x in (*chosen, *carried)])
    assert bars.lines[0].get_ydata()[0] == pytest.approx(20)  # the even share, in per cent


def test_router_layers_share_one_scale_and_say_which_is_most_uneven():
    choices = np.array([[[0, 1], [2, 3], [4, 0]], [[1, 0], [1, 2], [1, 4]]])
    weights = np.array([[[0.5, 0.5], [0.6, 0.4], [0.5, 0.5]], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]])
    figure = figures.router_layers(choices, weights, 5, ["a", "b", "c"], layers=[6, 11])
    first, second = (ax.images[0] for ax in figure.axes[:2])
    assert first.get_clim() == second.get_clim() == (0, 0.9)
    assert "layer is 11" in figure.get_suptitle() and "expert 1 takes 80 %" in figure.get_suptitle()
    assert [ax.get_title()[:8].strip(":") for ax in figure.axes[:2]] == ["layer 6", "layer 11"]


def test_attention_cells_are_the_pattern_and_unseen_cells_are_masked():
    pattern, sink, seen = attending(7, 7, 3)
    figure = figures.attention(pattern, sink, labels=list("abcdefg"), window=3, layer=2, head=1)
    ax = figure.axes[0]
    figure.draw_without_rendering()
    cells = ax.images[0].get_array()
    assert (cells.mask == ~seen).all()
    assert np.asarray(cells)[seen] == pytest.approx(pattern[seen])
    column = next(child for child in ax.child_axes if child.images)
    assert np.asarray(column.images[0].get_array())[:, 0] == pytest.approx(sink)
    assert column.get_xticklabels()[0].get_text() == "sink"
    assert column.images[0].get_clim() == ax.images[0].get_clim()
    assert column.get_position().x1 < ax.get_position().x0, "the sink stands apart, on the left"
    assert [t.get_text() for t in ax.get_xticklabels()] == list("abcdefg")
    assert [t.get_text() for t in column.get_yticklabels()] == list("abcdefg")
    assert ax.yaxis_inverted() and not ax.xaxis_inverted()


def test_the_edge_of_a_window_of_three_runs_between_the_third_and_the_fourth_key_back():
    pattern, _, _ = attending(6, 6, 3)
    line = figures.attention(pattern, labels=list("abcdef"), window=3).axes[0].lines[0]
    # row q: keys q-2, q-1, q are seen, so the edge is at q - 2.5; rows 0 to 2 see everything before them
    assert {(y, x) for x, y in line.get_xydata()} == {
        (q + s, q - 2.5) for q in (3, 4, 5) for s in (-0.5, 0.5)
    }
    whole, _, _ = attending(6, 6)
    assert not figures.attention(whole, labels=list("abcdef"), window=6).axes[0].lines


def test_given_visibility_wins_over_the_window():
    pattern, sink, _ = attending(4, 6)
    seen = np.random.default_rng(0).random((4, 6)) < 0.5
    cells = figures.attention(pattern, sink, torch.from_numpy(seen), window=2).axes[0].images[0].get_array()
    assert (cells.mask == ~seen).all()


def test_while_decoding_the_queries_are_the_last_of_the_keys():
    pattern, _, seen = attending(2, 5)
    figure = figures.attention(pattern, labels=list("abcde"))
    assert (figure.axes[0].images[0].get_array().mask == ~seen).all() and not seen[0, 4] and seen[1, 4]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["d", "e"]
    assert [t.get_text() for t in figures.attention(pattern).axes[0].get_yticklabels()] == ["3", "4"]


def test_a_pair_shares_its_colours_and_names_layers_heads_and_window():
    figure = pair(11, 4)
    first, second = figure.axes[:2]
    assert first.images[0].get_clim() == second.images[0].get_clim()
    assert first.images[0].get_clim()[0] == 0
    assert first.get_title() == "layer 2, mean of 8 heads, window of 4"
    assert second.get_title() == "layer 3, mean of 8 heads, dense"
    assert first.lines and not second.lines
    assert first.get_window_extent().size == pytest.approx(second.get_window_extent().size)


def test_a_row_that_sees_nothing_is_drawn_hatched():
    figure = figures.attention(np.zeros((3, 3)), visible=np.zeros((3, 3), dtype=bool))
    assert figure.axes[0].images[0].get_array().mask.all()


def test_values_above_the_scale_are_said_by_an_arrow():
    pattern, sink, _ = attending(5, 5)
    bars = [figures.attention(pattern, sink, vmax=v).axes[0].child_axes[-1] for v in (0.2, 1.0)]
    assert [bar.get_ylim()[1] for bar in bars] == pytest.approx([0.2, 1.0])
    assert [bar._colorbar.extend for bar in bars] == ["max", "neither"]


def test_the_mean_look_back_and_the_sink_are_in_words():
    pattern = np.array([[0.5, 0, 0], [0.25, 0.25, 0], [0.6, 0.1, 0.1]])  # back: 0.25 by 1; 0.6 by 2, 0.1 by 1
    said = figures.describe_attention(pattern, 1 - pattern.sum(1), labels=["x", "y", "$z$"], layer=5, head=0)
    assert said.splitlines() == [
        "Layer 5, head 0: 3 queries, 3 keys.",
        "The sink takes 40 % on average, most from 'x' (50 %).",
        f"Looks go {(0.25 + 1.2 + 0.1) / 1.8:.1f} tokens back on average; "
        "the strongest goes from '$z$' to 'x' (60 %).",
    ]


def test_the_router_in_words():
    said = figures.describe_router([[0, 2], [2, 3]], [[0.9, 0.1], [0.6, 0.4]], 5, ["a", "b"], 7)
    assert said.splitlines() == [
        "Layer 7: 2 tokens, 2 of 5 experts each; an even share is 20 %.",
        "Busiest by weight: expert 0 (45 %), 2 (35 %), 3 (20 %); 2 never chosen.",
        "Strongest margin: 'a' gives expert 0 0.90, 0.80 more than the next.",
    ]


def test_hands_end_where_the_vectors_say():
    q, k = VECTORS
    ends = {}
    for ax, i in zip(dials(pairs=[0, 3]).axes, (0, 3)):
        for line in ax.lines:
            ends.setdefault((i, line.get_label()), []).append(line.get_xydata()[1])
    for i in (0, 3):
        for name, x, position in (("query", q, 17), ("key", k, 12)):
            turned = rotate(x, position, FREQUENCIES, 1.2)
            after, before = ends[i, name]
            assert before == pytest.approx([x[i], x[i + 5]]) and after == pytest.approx(
                [turned[i], turned[i + 5]]
            )


def test_arcs_open_by_position_times_frequency():
    arcs = [p for p in dials(pairs=[1]).axes[0].patches if hasattr(p, "theta1")]
    opened = [np.radians(arc.theta2 - arc.theta1) for arc in arcs]
    assert opened == pytest.approx([17 * 0.4 % (2 * np.pi), 12 * 0.4 % (2 * np.pi)])


def test_score_by_distance_is_the_product_of_rotated_vectors():
    q, k = VECTORS
    scores = figures.score_by_distance(q, k, FREQUENCIES, [0, 3, 40], 1.2).sum(1)
    for distance, score in zip((0, 3, 40), scores):
        for n in (0, 11):  # wherever the key is
            m = n + distance
            product = rotate(q, m, FREQUENCIES, 1.2) @ rotate(k, n, FREQUENCIES, 1.2) / np.sqrt(10)
            assert score == pytest.approx(product)
    line = figures.rope_score(q, k, FREQUENCIES, 1.2, reach=40).axes[0].lines[1]
    assert line.get_ydata()[[0, 3, 40]] == pytest.approx(scores)


def test_wavelengths_of_yarn_are_counted_in_the_title():
    i = np.arange(32)  # gpt-oss: from 4096 to 131072 tokens
    plain = 150000.0 ** (-2 * i / 64)
    ramp = np.clip((i - 8.092779115512402) / (17.39802450158856 - 8.092779115512402), 0, 1)
    figure = figures.wavelengths(ramp * plain / 32 + (1 - ramp) * plain, plain, 128, 4096, 131072)
    assert figure.get_suptitle() == "YaRN leaves 9 of 32 pairs alone and slows 14 by 32"
    ax = figure.axes[0]
    assert ax.lines[0].get_ydata() == pytest.approx(2 * np.pi / plain)
    assert ax.lines[1].get_ydata()[[0, 31]] == pytest.approx([2 * np.pi, 2 * np.pi / 3.0235114e-7])
    assert [line.get_ydata()[0] for line in ax.lines[2:]] == [128, 4096, 131072]


def test_next_tokens_are_the_most_probable_now_or_before():
    now, was = np.array([0.05, 0.5, 0.2, 0.01, 0.24]), np.array([0.05, 0.1, 0.1, 0.7, 0.05])
    figure = figures.next_tokens(now, ["a", "$b$", "c", "d", "e"], was, top=3)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["$b$", "e", "d"]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.5, 0.24, 0.01, 0.1, 0.05, 0.7])
    assert figure.get_suptitle() == "The edit takes 'd' from 70 % to 1.0 %"
    assert "25 %" in ax.get_xlabel()
    assert (
        figures.describe_next_tokens(now, list("abcde"), top=1)
        == "Most likely next: 'b' 50 %; all others 50 %."
    )


def test_a_block_shows_the_high_digit_first_and_the_low_code_first():
    block = [0x3A, 0x0F, *[0] * 14]
    figure = figures.packed_block(block, 125, np.zeros(32))
    cells = sorted((round(t.get_position()[1], 1), t.get_position()[0], t.get_text())
                   for t in figure.axes[0].texts)  # fmt: skip
    below, above = [[c[2] for c in cells if c[0] == y][:4] for y in (0.3, 2.7)]
    assert above == ["3", "A", "0", "F"] and below == ["A", "3", "F", "0"]
    ties = {tuple(np.floor(line.get_xdata()).astype(int)) for line in figure.axes[0].lines}
    assert {(0, 1), (1, 0), (2, 3), (3, 2)} <= ties and len(ties) == 32
    assert "2⁻²" in figure.get_suptitle() and "3A 0F 00" in figure.alt


def test_bars_of_a_block_are_its_weights():
    values = np.arange(-16, 16) / 64
    bars = figures.packed_block(BLOCK, 121, values).axes[1].patches
    assert [bar.get_height() for bar in bars] == pytest.approx(values)


def test_rounding_is_told_in_per_cent_of_the_weight():
    x = np.array([0.2, 0.75, 1.25, 2.5, 5.0, 6.0, 7.5])
    became = np.array([0.0, 1.0, 1.0, 2.0, 4.0, 6.0, 6.0])
    figure = figures.rounding([*GRID, *-GRID], x, became)
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx([100, 100 / 3, 20, 20, 20, 0, 20])
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == "0 0.5 1 1.5 2 3 4 6".split()
    assert figure.get_suptitle() == "A weight from 1 on is off by at most 20 %; one below 0.2 becomes 0"


def test_budgets_are_cut_off_but_their_numbers_are_not():
    figure = figures.budgets(["a", "b", "c", "d"], SIZES, 16e9)
    ax = figure.axes[0]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx([13.8, 0.4, 48, 16, 41.8, 0.2, 48, 17])
    said = {t.get_text() for t in ax.texts}
    assert {"13.8 GB", "0.40 GB", "65.0 GB →", "233 GB →", "41.8 GB"} <= said
    assert figure.get_suptitle() == "Within 16 GB: 3 of 4 as published, 1 of 4 in bfloat16"
    assert figure.alt.splitlines()[0] == "as published: a, b, d within 16.0 GB."


def test_parts_lie_end_to_end_and_sum_to_the_bar():
    rows = {"one": {"experts": 3e9, "cache of 8 tokens": 1e9}, "two": {"experts": 5e9}}
    figure = figures.parts(rows, 4.5e9)
    bars = [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
    assert np.array(bars) == pytest.approx(np.array([(0, 3), (3, 1), (0, 5)]))
    first, _, last = (bar.get_facecolor() for bar in figure.axes[0].patches)
    assert first == last
    assert {"4.00 GB", "5.00 GB"} <= {t.get_text() for t in figure.axes[0].texts}
    assert figure.get_suptitle() == "two: 5.00 GB, of which experts 100 %"
    said, over = figure.alt.splitlines()
    assert said == "one: 4.00 GB, within 4.50 GB (experts 3.00 GB, cache of 8 tokens 1.00 GB)."
    assert over.startswith("two: 5.00 GB, over 4.50 GB")


def test_speeds_stand_beside_what_the_machine_allows():
    figure = figures.speeds(RATES, {"decode": 6.0, "prompt of 128": 24.0})
    ax = figure.axes[0]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([5.1, 14.9, 16.0, 5.3, 12.0, 4.0])
    assert [line.get_xdata()[0] for line in ax.lines] == [6.0, 24.0]
    rows = [np.mean(line.get_ydata()) for line in ax.lines]
    assert rows == pytest.approx([0, 1])
    assert figure.get_suptitle() == "decode: ours 5.1 tokens a second, 85 % of what the machine allows"
    assert figure.alt.splitlines()[0] == (
        "decode: ours 5.1, llama.cpp 5.3, 100%_$x$ 4; at most 6 here (tokens a second)."
    )


def test_slots_show_how_old_their_positions_are():
    figure = figures.cache_slots({"growing": held(7, 7), "ring": held(7, 3)})
    growing, ring = (ax.images[0].get_array() for ax in figure.axes[:2])
    assert growing.mask.tolist() == (~np.tri(7, dtype=bool)).tolist()
    assert ring[6].tolist() == ring[3].tolist() == [0, 2, 1] and ring.mask[1].tolist() == [0, 0, 1]
    assert figure.axes[0].images[0].get_clim() == figure.axes[1].images[0].get_clim() == (0, 6)
    assert [t.get_text() for t in figure.axes[1].texts[-3:]] == ["6", "4", "5"]
    assert "3 slots; after 7 tokens they hold positions 4 to 6" in figure.alt


def test_labels_are_never_read_as_formulas():
    figure = figures.router(*routing(len(HARD), 8, 2), 8, HARD)
    shown = {t.get_text(): t for t in figure.axes[0].get_yticklabels()}
    for label in ("$x$", "100%", "a_b", "\\$", "<|end|>", "$"):
        assert not shown[label].get_parse_math()
    assert "U+4F60U+597D" in shown and "U+000A" in shown and "a" * 11 + "…" in shown


def test_maps_of_heads_show_the_shares_on_one_scale_and_write_them_where_there_is_room():
    maps = {"before": np.array([[0.1, 0.65], [0.0, 0.02]]), "sink": np.array([[0.5, 0.0], [0.3, 0.2]])}
    figure = figures.head_maps(maps)
    panels = [ax for ax in figure.axes if ax.images]
    for panel, values in zip(panels, maps.values()):
        assert np.allclose(panel.images[0].get_array(), values)
        assert (panel.images[0].norm.vmin, panel.images[0].norm.vmax) == (0, 1)
        assert [t.get_text() for t in panel.texts] == [f"{v:.2f}"[1:] for v in values.ravel()]
    assert figure.alt.splitlines()[0] == "before: most in layer 0 head 1 (0.65), mean 0.19."
    assert not [ax for ax in shares(24, 64).axes if ax.texts]


def test_bars_of_what_is_told_stand_beside_shuffled_labels_on_one_scale():
    given = {"bits": [0.5, 0.2], "identity": [0.4, 0.1], "shuffled": [0.05, 0.01], "spread": [0.02, 0.005]}
    less = {key: given[key] for key in ("bits", "shuffled", "spread")}
    figure = figures.told_bars({"domain": given, "kind": less})
    first, second = figure.axes
    assert [round(bar.get_height(), 3) for bar in first.patches] == [0.5, 0.2, 0.4, 0.1, 0.05, 0.01]
    assert [round(bar.get_height(), 3) for bar in second.patches] == [0.5, 0.2, 0.05, 0.01]
    assert first.get_ylim() == second.get_ylim() and first.get_ylim()[0] == 0
    words = [f"{name}: most in layer 0, 0.50 bits; shuffled 0.05." for name in ("domain", "kind")]
    assert figure.alt.splitlines() == words
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["told", "by which token it is",
                                                                    "shuffled labels"]  # fmt: skip


def test_curves_are_means_with_half_their_intervals():
    values = np.array([[4.0, 0.5], [3.0, 0.25], [3.5, 0.0]])
    names = {"nats": ["0", "1", "2"]}
    figure = figures.curves({"nats": {"python": values}}, names, "layer", "The loss falls")
    (panel,) = figure.axes
    line, _, (bars,) = panel.containers[0].lines
    assert line.get_ydata().tolist() == [4.0, 3.0, 3.5]
    ends = [segment[:, 1] for segment in bars.get_segments()]
    assert np.allclose(ends, [[3.5, 4.5], [2.75, 3.25], [3.5, 3.5]])
    assert figure.alt == "nats, python: 4 at 0, 3.5 at 2."


def test_names_thin_out_evenly_when_there_are_many():
    figure = figures.router(*routing(256, 8, 2), 8, [f"t{i}" for i in range(256)])
    ticks = figure.axes[0].get_yticks()
    assert len(set(np.diff(ticks))) == 1 and 8 < len(ticks) < 64
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [f"t{i}" for i in ticks]
    assert f"1 in {ticks[1]} named" in figure.axes[0].get_ylabel()


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda ax: figures.router(*routing(5, 6, 2), 6, layer=4, ax=ax), "Layer 4: expert"),
        (lambda ax: figures.attention(attending(5, 5)[0], ax=ax, head=3), "Head 3: the looks"),
        (lambda ax: figures.rope_score(*VECTORS, FREQUENCIES, ax=ax), "By distance"),
        (lambda ax: figures.wavelengths(FREQUENCIES, ax=ax), "One turn"),
        (lambda ax: figures.next_tokens([0.5, 0.2], ["a", "b"], ax=ax), "Most likely"),
        (lambda ax: figures.rounding(GRID, *line_of_values(), ax=ax), "A weight from 1 on"),
        (lambda ax: figures.speeds({"decode": {"ours": 2.0}}, ax=ax), "decode: ours 2 tokens"),
        (lambda ax: figures.budgets(["a"], {"x": [1e9]}, 2e9, ax=ax), "Within 2 GB: 1 of 1 x"),
        (lambda ax: figures.parts({"a": {"experts": 1e9}}, ax=ax), "a: 1.00 GB"),
    ],
)
def test_an_axes_handed_in_is_drawn_into_and_returned(draw, said):
    figure = Figure(figsize=(8, 6))
    ax = figure.subplots()
    assert draw(ax) is ax
    assert ax.get_title(loc="left").startswith(said)
    figure.draw_without_rendering()


def test_a_figure_shows_itself_once_as_a_picture_with_words():
    figure = figures.next_tokens([0.5, 0.2], ["a", "b"])
    shown, about = figure._repr_mimebundle_()
    assert shown["image/png"].startswith("iVBOR") and about["image/png"]["alt"] == figure.alt


def test_figures_leave_pyplot_and_the_model_alone():
    code = "import sys, gptoss_lab.figures; print({'matplotlib.pyplot', 'gptoss_lab.model'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_ideas_have_colours_that_differ_in_grey_where_they_meet():
    def grey(name):
        r, g, b = (int(style.COLOUR[name][i : i + 2], 16) for i in (1, 3, 5))
        return 0.299 * r + 0.587 * g + 0.114 * b

    assert len({*style.COLOUR.values()}) == len(style.COLOUR) - 1  # residual and muted are one
    meet = "query key, window dense, position window, sink masked, output ink"
    for a, b in (two.split() for two in meet.split(", ")):
        assert abs(grey(a) - grey(b)) > 30, (a, b)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: figures.router(np.zeros((1, 9, 2), int), np.zeros((1, 9, 2)), 4),
            r"T K, came .*\(1, 9, 2\).*choice\[0\]",
        ),
        (
            lambda: figures.router(np.zeros((9, 2), int), np.zeros((9, 3)), 4),
            r"weight .* must be 9 2 .* \(9, 3\)",
        ),
        (lambda: figures.router([[0, 4]], [[0.5, 0.5]], 4), r"choice must lie in 0\.\.3, came from 0 to 4"),
        (
            lambda: figures.router([[0.0, 1.0]], [[0.5, 0.5]], 4),
            "choice holds the experts' indices, came with dtype",
        ),
        (lambda: figures.router([[0, 1]], [[-0.5, 1.5]], 4), "not experts.logits"),
        (
            lambda: figures.router([[0, 1]], [[0.5, 0.5]], 4, ["a", "b"]),
            "labels must name 1 tokens, came with 2",
        ),
        (lambda: figures.router(np.zeros((0, 2), int), np.zeros((0, 2)), 4), "choice is empty"),
        (lambda: figures.router_layers([[[0]], [[0], [1]]], [[[1]], [[1], [1]]], 2), "rows differ in length"),
        (lambda: figures.router_layers([[[0]]], [[[1.0]]], 2, layers=[1, 2]), "layers must number 1"),
        (
            lambda: figures.attention(np.zeros((2, 3, 3))),
            r"pattern must have axes T S, came with shape \(2, 3, 3\)",
        ),
        (
            lambda: figures.attention(np.eye(3), np.zeros(4)),
            r"sink has axes T and must be 3 here, came with shape \(4,\)",
        ),
        (lambda: figures.attention(np.eye(3), visible=np.ones((3, 4))), r"visible .* \(3, 4\)"),
        (lambda: figures.attention(np.eye(3)[:, :2]), "came 3 x 2"),
        (lambda: figures.attention(np.eye(3) * 4), "probabilities"),
        (lambda: figures.attention(np.eye(3) * np.nan), "probabilities"),
        (lambda: figures.attention(np.eye(3), window=0), "window counts the query itself"),
        (lambda: figures.attention(np.eye(3), labels=["a"]), "labels must name 3 tokens, came with 1"),
        (
            lambda: figures.attention_pair(np.eye(3), np.eye(4), 2),
            r"same T S, came with \(3, 3\) and \(4, 4\)",
        ),
        (
            lambda: figures.rope(*[np.zeros(8)] * 4, FREQUENCIES, 1, 0),
            r"q has axes C and must be 10 here, came with shape \(8,\)",
        ),
        (lambda: figures.rope(*[np.zeros(10)] * 4, FREQUENCIES, 1, 0, pairs=[5]), r"in 0\.\.4, came \[5\]"),
        (lambda: figures.rope(*[np.zeros(10)] * 4, FREQUENCIES, 1, -1), "positions count from 0"),
        (lambda: figures.rope_score(*VECTORS, -FREQUENCIES), "positive radians"),
        (lambda: figures.rope_score(*VECTORS, FREQUENCIES, reach=0), "at least 1 token, came 0"),
        (
            lambda: figures.wavelengths(FREQUENCIES, FREQUENCIES[:4]),
            "plain_frequencies has axes C/2 and must be 5",
        ),
        (lambda: figures.next_tokens([3.0, -1.0], ["a", "b"]), "not logits"),
        (lambda: figures.next_tokens([0.3, 0.1], ["a"]), "labels must name 2 tokens, came with 1"),
        (lambda: figures.next_tokens([0.3], ["a"], top=0), "top must be at least 1"),
        (lambda: figures.packed_block([0] * 15, 120, np.zeros(32)), "block has axes bytes and must be 16"),
        (lambda: figures.packed_block([256] * 16, 120, np.zeros(32)), "bytes, 0 to 255; came .*256"),
        (lambda: figures.packed_block([0] * 16, 255, np.zeros(32)), "255 is NaN"),
        (lambda: figures.packed_block([0] * 16, 120, np.zeros(16)), "values has axes 32 and must be 32"),
        (lambda: figures.rounding(GRID, [0.0, 1.0], [0.0, 1.0]), "x must be above 0"),
        (lambda: figures.rounding(GRID, [1.0], [1.0, 1.0]), "rounded has axes T and must be 1 here"),
        (lambda: figures.budgets(["a"], {}, 1e9), "1 to 3 ways, came with 0"),
        (lambda: figures.budgets(["a"], {"x": [1, 2]}, 1e9), "x has axes N and must be 1"),
        (lambda: figures.budgets(["a"], {"x": [-1]}, 1e9), "bytes, 0 or more; came from -1"),
        (lambda: figures.parts({}), "rows is empty"),
        (lambda: figures.parts({"a": {}}), "a row without parts"),
        (lambda: figures.parts({"a": {"x": float("nan")}}), "bytes, 0 or more"),
        (lambda: figures.speeds({}), "1 to 4 sides, came with 0"),
        (lambda: figures.speeds({"decode": {"ours": 0.0}}), "tokens a second, above 0"),
        (lambda: figures.speeds({"decode": {"ours": 1.0}}, {"decode": -1.0}), "tokens a second, above 0"),
        (lambda: figures.cache_slots({}), "held is empty"),
        (lambda: figures.cache_slots({"a": [[0]], "b": [[0], [1]]}), "b has axes T S and must be 1 any here"),
        (lambda: figures.cache_slots({"a": [[0], [2]]}), "a holds positions from −1 to 1, came 0 to 2"),
        (lambda: figures.head_maps({}), "nothing to draw"),
        (lambda: figures.head_maps({"x": [[3.0]]}), r"x must hold shares in 0\.\.1, came from 3"),
        (lambda: figures.head_maps({"x": [[0.0]], "y": [[0.0, 1.0]]}), r"y .* must be 1 1 .*\(1, 2\)"),
        (lambda: figures.told_bars({}), "nothing to draw"),
        (lambda: figures.told_bars({"d": {"bits": [1.0], "shuffled": [1.0, 2.0], "spread": [0.0]}}),
         r"d: shuffled has axes L and must be 1"),
        (lambda: figures.curves({"a": {}}, {"a": []}, "x", "y"), "nothing to draw"),
        (
            lambda: figures.curves({"a": {"l": [[1.0, 0.1]]}}, {"a": ["0", "1"]}, "x", "y"),
            "l has axes P 2 .* 2 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_source_line_keeps_clear_of_a_figure_that_lays_itself_out():
    still = figures.Still(figsize=(6, 3), layout="constrained")
    axes = still.subplots(1, 2)
    for ax in axes:
        ax.set_xticks([0, 1], ["a long name", "another"], rotation=45, ha="right")
        ax.set_xlabel("what stands across")
    figures.write_source(still, "made up for this test")
    still.draw_without_rendering()
    (line,) = still.findobj(lambda t: isinstance(t, Text) and t.get_text().startswith("made up"))
    line = line.get_window_extent()
    assert line.y0 >= 0
    assert all(line.y1 <= ax.get_tightbbox(still.canvas.get_renderer()).y0 for ax in axes)


def test_a_dial_marks_every_setting_by_its_verdict_and_says_where_they_turn():
    shown = ([1, 2, 3, 4], [5, 6, 7, 8], ["open", "holds", "holds", "open"])
    figure = figures.dial(*shown, at=2.5, here="now")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert [list(lines[name].get_xdata()) for name in ("open", "holds")] == [[1, 4], [2, 3]]
    assert lines["open"].get_markerfacecolor() == "white" and lines["now"].get_xdata() == [2.5, 2.5]
    said = "from 1 on (5): open; from 2 on (6): holds; from 4 on (8): open."
    assert figure.alt == said == figures.describe_dial(*shown)
    with pytest.raises(ValueError, match="verdicts must be 2 of holds, .* came 2 with 'true'"):
        figures.dial([1, 2], [3, 4], ["open", "true"])


def test_a_ratio_is_as_long_as_its_logarithm():
    figure = figures.ratios([0.25, 8.0], ["less", "more"], "one over other")
    assert [bar.get_width() for bar in figure.axes[0].patches] == [-2, 3]
    assert figure.alt == "one over other: less 0.25; more 8.00."
    with pytest.raises(ValueError, match="above 0, came 0"):
        figures.ratios([0, 1], ["a", "b"], "one over other")


def test_every_run_is_a_line_at_its_steps():
    routers = [{"a": [[share] * 3] * 2} for share in (0.5, 0.1)]
    figure = figures.trained({"a": [[3, 2], [3, 1]], "b": []}, *routers, steps=10)
    loss, even, _ = figure.axes
    assert [list(line.get_xdata()) for line in loss.lines] == [[5, 15]] * 2
    assert [list(line.get_ydata()) for line in even.lines] == [[0.5] * 3] * 2
    assert figure.alt == "a ends at 1.500 nats a byte."
    with pytest.raises(ValueError, match="no run to draw"):
        figures.trained({"a": []}, {}, {}, 10)
