"""Positions as rotations: RoPE's pairs as hands on dials, the score by distance, the wavelengths.

A head's vector x of C channels is C/2 hands: pair i is (x[i], x[i + C/2]), the half-split convention of
gpt-oss and GPT-NeoX, and at position p it turns by the angle p f[i]:

    (x1, x2) -> c (x1 cos - x2 sin, x2 cos + x1 sin),    c: YaRN's concentration, 1 without it

so that the score of a query at m and a key at n depends on m - n alone (Su et al., 2021; YaRN: Peng et al.,
2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Arc, Circle
from matplotlib.ticker import MaxNLocator

from .style import COLOUR, SMALL, TEXT, Still, array, begin, finish, headline, inked, sheet

HANDS: dict[str, dict[str, Any]] = {  # before and after the rotation
    "before": {"linewidth": 1.4, "markersize": 6, "markerfacecolor": "white"},
    "turned": {"linewidth": 3.4, "markersize": 8},
}


def _tokens(length: float) -> str:
    """A length in tokens to three digits."""
    if length >= 1e6:
        return f"{length / 1e6:.3g} million"
    return f"{length:.1f}" if length < 99.95 else f"{float(f'{length:.3g}'):,.0f}"


def _turns(angle: float) -> str:
    """An angle in radians as turns, to two decimals."""
    turns = abs(angle) / (2 * np.pi)
    return "<0.01" if 0 < turns < 0.005 else f"{turns:.2f}"


def _vectors(frequencies: Any, **vectors: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """frequencies C/2 and each vector C as complex hands x[i] + 1j x[i + C/2], checked against each other."""
    f = array(frequencies, "frequencies", "C/2").astype(float)
    if not (np.isfinite(f).all() and (f > 0).all()):
        raise ValueError(f"frequencies must be positive radians a token, came {f.min():.3g} to {f.max():.3g}")
    found = [array(v, name, "C", (2 * len(f),)).astype(float) for name, v in vectors.items()]
    return f, [v[: len(f)] + 1j * v[len(f) :] for v in found]


def describe_rope(frequencies: Any, query_position: int, key_position: int) -> str:
    """The dials in two lines of text: the fastest and the slowest pair, and what the distance is to each."""
    f, _ = _vectors(frequencies)
    apart = query_position - key_position
    return "\n".join(
        f"The {word} pair ({i}) turns once in {_tokens(2 * np.pi / f[i])} tokens: query {query_position} and "
        f"key {key_position} are {_turns(apart * f[i])} turns apart."
        for word, i in (("fastest", int(f.argmax())), ("slowest", int(f.argmin())))
    )


@inked
def rope(
    q: Any,
    q_rotated: Any,
    k: Any,
    k_rotated: Any,
    frequencies: Any,
    query_position: int,
    key_position: int,
    pairs: Sequence[int] | None = None,
    title: str | None = None,
    source: str = "",
) -> Still:
    """Some pairs of one query and one key as hands on dials, before the rotation (thin) and after (thick).

    q, q_rotated, k, k_rotated: C, one head at one token, as the points `attention.q`, `.q_rotated`, `.k` and
    `.k_rotated` hold them; frequencies: C/2, radians a token; pairs: at most 8, by default spread from the
    first to the last. A dial's ring is as long as its longest hand; arcs show position x frequency, less
    whole turns.
    """
    f, hands = _vectors(frequencies, q=q, q_rotated=q_rotated, k=k, k_rotated=k_rotated)
    if min(query_position, key_position) < 0:
        raise ValueError(f"positions count from 0, came query {query_position} and key {key_position}")
    if pairs is None:
        pairs = np.unique(np.linspace(0, len(f) - 1, 8).round().astype(int)).tolist()
    if not 1 <= len(pairs) <= 8 or min(pairs) < 0 or max(pairs) >= len(f):
        raise ValueError(f"pairs must be 1 to 8 numbers in 0..{len(f) - 1}, came {list(pairs)}")
    columns = len(pairs) if len(pairs) <= 3 else -(-len(pairs) // 2)
    made = sheet()
    grid = made.subplots(-(-len(pairs) // columns), columns, squeeze=False)
    for ax, i in zip(grid.flat, pairs):
        _dial(ax, f[i], [hand[i] for hand in hands], query_position, key_position)
        ax.set_xlabel(f"x[{i}]", fontsize=TEXT)
        ax.set_ylabel(f"x[{i + len(f)}]", fontsize=TEXT)
        turned = f"query {_turns(query_position * f[i])}, key {_turns(key_position * f[i])} turns"
        ax.set_title(f"pair {i}: {_tokens(2 * np.pi / f[i])} tokens a turn\n{turned}", fontsize=SMALL)
    for ax in grid.flat[len(pairs) :]:
        ax.set_axis_off()
    entries = [
        Line2D([], [], color=COLOUR[name], ls=dash, marker="o", label=f"{name} at {at}, {when}", **how)
        for name, dash, at in (("query", "-", query_position), ("key", "--", key_position))
        for when, how in HANDS.items()
    ]
    made.legend(handles=entries, loc="upper left", ncols=4, fontsize=SMALL)
    apart = query_position - key_position
    far = ", ".join(f"{_turns(apart * f[i])} turns in pair {i}" for i in dict.fromkeys([pairs[0], pairs[-1]]))
    found = f"{abs(apart)} token{'s' * (abs(apart) != 1)} apart: {far}"
    alt = describe_rope(f, query_position, key_position)
    return headline(made, grid, title or found, source, alt)


def _dial(ax: Axes, frequency: float, hands: list[complex], query_position: int, key_position: int) -> None:
    """One pair: its ring, thin hands before, thick hands after, and arcs for the angles between."""
    ring = max(abs(hand) for hand in hands) or 1.0
    ax.add_patch(Circle((0, 0), ring, fill=False, edgecolor=COLOUR["muted"], linewidth=1))
    for name, (before, after), position, dash, reach in (
        ("query", hands[:2], query_position, "-", 0.72 * ring),
        ("key", hands[2:], key_position, "--", 0.52 * ring),
    ):
        for hand, how in ((after, HANDS["turned"]), (before, HANDS["before"])):
            line = ax.plot([0, hand.real], [0, hand.imag], dash, color=COLOUR[name], **how)[0]
            line.set(marker="o", markevery=[1], label=name)
        start, angle = np.degrees(np.angle(before)), np.degrees(position * frequency) % 360
        if abs(before) > 0 and angle > 1:
            arc = Arc((0, 0), reach, reach, theta1=start, theta2=start + angle, linewidth=1.8)
            arc.set(edgecolor=COLOUR[name], linestyle=dash)
            ax.add_patch(arc)
    ax.set(xlim=(-1.1 * ring, 1.1 * ring), ylim=(-1.1 * ring, 1.1 * ring), yticks=[0], aspect="equal")
    ax.set_xticks([-ring, 0, ring], [f"{-ring:.2g}", "0", f"{ring:.2g}"], fontsize=SMALL)
    ax.tick_params(labelsize=SMALL)


def score_by_distance(
    q: Any, k: Any, frequencies: Any, distances: Any, concentration: float = 1.0
) -> np.ndarray:
    """The scaled score of a query with a key so many tokens behind it: N distances x C/2 pairs.

    q, k: C, before the rotation. A row sums to the score, `attention.scores` at that distance: 1/sqrt(C) is
    in it, and the concentration squared, since it stretches both vectors.
    """
    f, (query, key) = _vectors(frequencies, q=q, k=k)
    away = array(distances, "distances", "N").astype(float)
    turned = query * key.conj() * np.exp(1j * away[:, None] * f)
    return np.real(turned) * concentration**2 / np.sqrt(2 * len(f))


@inked
def rope_score(
    q: Any,
    k: Any,
    frequencies: Any,
    concentration: float = 1.0,
    distance: int | None = None,
    reach: int = 256,
    window: int | None = None,
    title: str | None = None,
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """How the same query and key score at each distance 0..reach, and the slower half of the pairs alone.

    q, k: C, before the rotation; frequencies: C/2; distance: the one they really have, marked. Returns the
    figure it made, or `ax`.
    """
    if reach < 1:
        raise ValueError(f"reach must be at least 1 token, came {reach}")
    away = np.arange(reach + 1)
    parts = score_by_distance(q, k, frequencies, away, concentration)
    slow = np.argsort(array(frequencies, "frequencies", "C/2"))[: max(1, parts.shape[1] // 2)]
    score = parts.sum(1)
    made, ax = begin(ax)
    ax.axhline(0, color=COLOUR["muted"], linewidth=0.8)
    ax.plot(away, score, color=COLOUR["position"], linewidth=2.2, label="all pairs")
    rest = parts[:, slow].sum(1)
    ax.plot(away, rest, "--", color=COLOUR["muted"], linewidth=2.2, label="the slower half alone")
    if window is not None and window <= reach:
        edge = f"edge of a window of {window}"
        ax.axvline(window - 0.5, color=COLOUR["window"], linewidth=2.2, linestyle="-.", label=edge)
    if distance is not None:
        here = float(score_by_distance(q, k, frequencies, [distance], concentration).sum())
        label = f"this query and key: {here:.2f} at {distance}"
        ax.plot([distance], [here], "o", color=COLOUR["ink"], markersize=9, label=label)
    ax.set_xlabel("distance from query back to key (tokens)", fontsize=TEXT)
    ax.set_ylabel("score before the softmax", fontsize=TEXT)
    ax.tick_params(labelsize=SMALL)
    ax.margins(x=0.01)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.2 * (high - low))  # room for the legend
    ax.legend(fontsize=SMALL, loc="upper center", ncols=2, frameon=True, framealpha=1.0, edgecolor="white")
    found = f"By distance alone, the same query and key score from {score.min():.2f} to {score.max():.2f}"
    best = int(score.argmax())
    alt = f"{found}: highest {best} tokens apart, {score[0]:.2f} at 0, {score[-1]:.2f} at {reach}."
    return finish(made, ax, title or found, source, alt)


@inked
def wavelengths(
    frequencies: Any,
    plain_frequencies: Any = None,
    window: int | None = None,
    original_context: int | None = None,
    context: int | None = None,
    title: str | None = None,
    source: str = "",
    ax: Axes | None = None,
) -> Still | Axes:
    """Tokens for one full turn, pair by pair, on a log scale; with `plain_frequencies`, what YaRN stretched.

    frequencies, plain_frequencies: C/2, radians a token. window, original_context, context: lengths in
    tokens, each a line to measure the turns by. Returns the figure it made, or `ax`.
    """
    f, _ = _vectors(frequencies)
    pairs, long = np.arange(len(f)), 2 * np.pi / f
    span = f"One turn takes from {_tokens(long.min())} to {_tokens(long.max())} tokens"
    found, ours = span, "as the model turns"
    made, ax = begin(ax)
    if plain_frequencies is not None:
        plain = _vectors(array(plain_frequencies, "plain_frequencies", "C/2", f.shape))[0]
        slower = plain / f
        kept, whole = (np.isclose(slower, by, rtol=1e-3).sum() for by in (1.0, slower.max()))
        if slower.max() > 1.001:
            found = f"YaRN leaves {kept} of {len(f)} pairs alone and slows {whole} by {slower.max():.3g}"
        line = ax.plot(pairs, 2 * np.pi / plain, "s--", color=COLOUR["muted"], label="plain RoPE")[0]
        line.set_markerfacecolor("white")
    ax.plot(pairs, long, "o-", color=COLOUR["position"], label=ours)
    for length, name, colour, dash in (
        (window, "window", "window", "-."),
        (original_context, "context before YaRN", "muted", ":"),
        (context, "context", "dense", "-"),
    ):
        if length is not None:
            label = f"{name}: {length:,} tokens"
            ax.axhline(length, color=COLOUR[colour], linestyle=dash, linewidth=1.8, label=label)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    ax.yaxis.set_minor_formatter(lambda value, _: "")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(-0.5, len(f) - 0.5)
    ax.set_xlabel("pair (fastest first)" if (np.diff(f) <= 0).all() else "pair", fontsize=TEXT)
    ax.set_ylabel("wavelength (tokens a turn)", fontsize=TEXT)
    ax.tick_params(labelsize=SMALL)
    ax.legend(fontsize=SMALL, loc="lower right", frameon=True, framealpha=1.0, edgecolor="white")
    return finish(made, ax, title or found, source, f"{found}. {span} over {len(f)} pairs.")
