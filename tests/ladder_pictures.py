"""The pictures of docs/ladder.md, from the results that are in: `make ladder`.

    python tests/ladder_pictures.py [FOLDER] [--results FOLDER]     # docs/pictures, the package's results
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from gptoss_lab.figures import Still, ladder, ladder_runs
from gptoss_lab.training import ladder_numbers as numbers
from gptoss_lab.training import live
from gptoss_lab.training.corpus import DOMAINS
from gptoss_lab.training.ladder import LONG, NUMBER, RUNGS, SHORT, TOP, Entry, multiplied, plan
from gptoss_lab.training.ladder_numbers import Found, Row
from gptoss_lab.training.ladder_tables import spikes
from gptoss_lab.training.lookback import bigrams, bigrams_by_position
from gptoss_lab.training.outcome import EDGES
from gptoss_lab.training.queue import RESULTS, results

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SHOWN = ("gpt2", "rmsnorm", "rope", "yarn", "swiglu", "windows", "sinks", "mxfp4")  # eight of twelve


def state(entries: list[Entry], found: Found) -> str:
    """The source line: how much is in."""
    done, all_of = numbers.progress(entries, found)
    return f"the ladder's results, {done} of {all_of} runs"


def differences(entries: list[Entry], found: Found) -> Still:
    """Rung less the rung before."""
    return ladder.differences(**numbers.drawn(numbers.rungs(entries, found)), source=state(entries, found),
                              title="What each change bought, one after another")  # fmt: skip


def left_out(entries: list[Entry], found: Found) -> Still:
    """The top without one change."""
    (top,) = [row for row in numbers.rungs(entries, found) if row.name == TOP]
    rows = numbers.left_out(entries, found)
    return ladder.differences(
        **numbers.drawn(rows), less="less the whole", whole=numbers.whole(rows),
        source=state(entries, found), title=f"One change undone in “{top.title}”: right means missed",
    )  # fmt: skip


def rates(entries: list[Entry], found: Found) -> Still:
    """The grid."""
    grid = {RUNGS[NUMBER[name]].title: row for name, row in numbers.grid(entries, found).items()}
    return ladder.rates(grid, "The learning rate of every anchor was searched for", state(entries, found))


def shown(entries: list[Entry], found: Found) -> list[Row]:
    """The rungs that are drawn as lines."""
    return [row for row in numbers.rungs(entries, found) if row.name in SHOWN]


def curves(entries: list[Entry], found: Found) -> Still:
    """Training loss."""
    lines = {}
    for row in shown(entries, found):
        ended = numbers.ended(row.runs)
        lines[row.title] = live.recorded(ended[min(ended)]) if ended else ([], [])
    level = sum(bigrams().values()) / len(DOMAINS) * math.log(2)
    return ladder_runs.curves(lines, levels={"bigrams (held-out text)": level}, source=state(entries, found),
                              title="The training loss of eight of the rungs (one seed of each)")  # fmt: skip


def positions(entries: list[Entry], found: Found) -> Still:
    """Loss by position: windows of 1,024, and beyond."""
    rows = shown(entries, found)
    lines, longer = ({row.title: numbers.by_position(row, windows) for row in rows}
                     for windows in ("far", "beyond"))  # fmt: skip
    lines["table of bigrams"] = bigrams_by_position()
    marks = {SHORT: "nine tenths of training", LONG: "the longest that was trained"}
    source = state(entries, found) + "; the short lines at the right: longer windows, of other text"
    return ladder_runs.positions(list(zip(EDGES, EDGES[1:])), lines, marks, longer=longer, source=source,
                                 title="Loss by position, within and beyond the training length")  # fmt: skip


def costs(entries: list[Entry], found: Found) -> Still:
    """FLOP against loss, over sizes."""
    rows = numbers.rungs(entries, found)
    sizes = rows + numbers.others("size", entries, found)
    series = {}
    for name in ("gpt2", "mxfp4"):
        same = [row for row in sizes if row.name.split("-")[0] == name]
        same.sort(key=lambda row: row.config.n_layers)
        series[RUNGS[NUMBER[name]].title] = [
            (numbers.flop(row.config), row.levels, f"{row.config.n_layers} layers") for row in same
        ]
    return ladder.cost(series, f"FLOP a byte, with {LONG:,} in view", source=state(entries, found),
                       title="Cost against loss: the first and the last rung in three sizes")  # fmt: skip


def experts(entries: list[Entry], found: Found) -> Still:
    """Numbers of experts, and of those that answer, at equal work."""
    rows = [row for row in numbers.rungs(entries, found) if row.name == TOP]
    rows += numbers.others("number of experts", entries, found)
    series = {}
    for k in sorted({row.config.experts_per_token or 0 for row in rows}):
        same = sorted((row for row in rows if row.config.experts_per_token == k), key=numbers.size_of)
        series["1 answers" if k == 1 else f"{k} answer"] = [
            (numbers.size_of(row), row.levels, f"of {row.config.n_experts}") for row in same
        ]
    assert all(abs(multiplied(row.config) / multiplied(rows[0].config) - 1) < 0.05 for row in rows)
    return ladder.cost(series, "parameters in all", source=state(entries, found),
                       title="More experts at the same work for a byte")  # fmt: skip


def stability(entries: list[Entry], found: Found) -> Still:
    """Spikes and largest values."""
    rows = numbers.rungs(entries, found)
    runs = [list(numbers.ended(row.runs).values()) for row in rows]
    return ladder_runs.stability(
        [row.title for row in rows], [[spikes(run)[0] for run in each] for each in runs],
        [[run["activations"]["largest"] for run in each] for each in runs],
        source=state(entries, found),
        title="Spikes of the loss (but for those at the switch), and the residual's largest value",
    )  # fmt: skip


def router(entries: list[Entry], found: Found) -> Still:
    """Evenness and specialisation."""
    series = {}
    for row in numbers.rungs(entries, found)[NUMBER["experts"] :]:
        routed = [run["router"] for run in numbers.ended(row.runs).values()]
        series[row.title] = tuple([each[key] for each in routed] for key in ("evenness", "about_domain"))
    return ladder_runs.router(series, math.log2(len(DOMAINS)), source=state(entries, found),
                              title="How evenly bytes fall on the experts, and what that tells")  # fmt: skip


DRAWN: tuple[Callable[[list[Entry], Found], Still], ...] = (
    differences, left_out, rates, curves, positions, costs, experts, stability, router,
)  # fmt: skip


def main() -> None:
    """Draw all of them."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("folder", type=Path, nargs="?", default=PICTURES)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    entries, found = plan(), results(options.results)
    for draw in DRAWN:
        still = draw(entries, found)
        file = options.folder / f"ladder_{draw.__name__}.png"
        still.savefig(file, dpi=still.dpi)
        print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
