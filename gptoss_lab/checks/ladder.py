"""Checks of what a comparison needs: an interval of paired differences, a width that keeps the work alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import judging
from .judging import Answer, Own, made_up

T = {2: 12.706, 3: 4.303, 4: 3.182}  # 97.5 % of Student's t, by the number of values


def paired(own: Own) -> Answer:
    """own(ours N, theirs N) → (mean, half): the mean of ours − theirs, seed by seed, and half the width of
    its 95 % interval, Student's."""
    ours = made_up(3) * 0.01 + 2.30 + torch.tensor([0.0, 0.05, -0.02])
    theirs = made_up(3, seed=1) * 0.01 + 2.33 + torch.tensor([0.0, 0.05, -0.02])
    given = own(ours.clone(), theirs.clone())
    if not isinstance(given, tuple) or len(given) != 2:
        return Answer(False, f"Return two numbers, `mean, half`; yours returned {type(given).__name__}.")
    each = ours - theirs
    mean, sd, n = each.mean(), each.std(), len(each)
    right = T[n] * sd / math.sqrt(n)
    apart = (ours.var() / n + theirs.var() / n).sqrt()
    pair = lambda mean, half: torch.stack([torch.as_tensor(x, dtype=torch.float64) for x in (mean, half)])
    return judging.judge(
        pair(*given), pair(mean, right),
        "seeds are paired, so that what a seed does to both sides drops out.",
        {
            "The sign: ours less theirs, so that negative means that ours is better.": pair(-mean, right),
            "You compared two groups. The seeds are paired: subtract first, then take the standard deviation "
            "of the differences.": pair(mean, T[n] * apart),
            "You compared two groups, with 1.96. The seeds are paired, and few: subtract first, then use "
            "Student's t, 4.303 for three seeds.": pair(mean, 1.96 * apart),
            "1.96 is for many values. With three the standard deviation is itself uncertain: 4.303.":
                pair(mean, 1.96 * sd / math.sqrt(n)),
            "That is t for four values; three leave two degrees of freedom: 4.303.":
                pair(mean, T[4] * sd / math.sqrt(n)),
            "That is the spread of one seed; the mean of n is √n times surer.": pair(mean, T[n] * sd),
            "Divide by √n, not by n.": pair(mean, T[n] * sd / n),
            "That is the standard error. The interval is t times as wide: 4.303 for three seeds.":
                pair(mean, sd / math.sqrt(n)),
            "You divided the squares by n; from a sample it is n − 1 (torch's `std` does).":
                pair(mean, T[n] * each.std(correction=0) / math.sqrt(n)),
            "Give half the width: from the mean to one end.": pair(mean, 2 * right),
            "You took the variance; its root is the standard deviation.":
                pair(mean, T[n] * sd**2 / math.sqrt(n)),
        },
        atol=1e-7,
    )  # fmt: skip


def width(own: Own) -> Answer:
    """own(D, F) → the width of a gated MLP (gate, up and down, with biases) that has as many parameters as
    GPT-2's of width F (two matrices, with biases): the nearest whole number."""
    shapes = [(8, 32), (16, 100), (64, 256), (48, 333)]
    found = []
    for d, f in shapes:
        value = own(d, f)
        if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
            return Answer(False, f"Your function returned {type(value).__name__}; expected a whole number.")
        found.append(float(value))
    if any(value != round(value) for value in found):
        return Answer(False, "A width is a whole number: round it.")

    def told(rule: Callable[[int, int], float]) -> Tensor:
        return torch.tensor([float(round(rule(d, f))) for d, f in shapes])

    return judging.judge(
        torch.tensor(found), told(lambda d, f: f * (2 * d + 1) / (3 * d + 2)),
        "three matrices where there were two, biases and all.",
        {
            "You kept the width: the gate is a third matrix, so the layer got half as large again.":
                told(lambda d, f: f),
            "You halved it. There are three matrices where there were two, not four: about two thirds.":
                told(lambda d, f: f / 2),
            "Two thirds, but for the biases: gate and up bring one each, a third of F more. (At a width in "
            "the thousands nobody would see it.)": told(lambda d, f: 2 * f / 3),
            "Upside down: the gated layer must become narrower.": told(lambda d, f: 3 * f / 2),
            "You rounded down; take the nearest.": torch.tensor(
                [float(int(f * (2 * d + 1) / (3 * d + 2))) for d, f in shapes]),
            "Gate and up have a bias each: 3D + 2 parameters a unit, not 3D + 1.":
                told(lambda d, f: f * (2 * d + 1) / (3 * d + 1)),
        },
        atol=0.4,
    )  # fmt: skip
