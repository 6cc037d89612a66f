"""docs/ladder.md from the results that are in: `python -m gptoss_lab.training.ladder_report docs/ladder.md`.

`make ladder` does that, draws the page's pictures, and remakes what else shows results: docs/claims.md and
notebooks 07 to 09.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import require
from ..files import whole
from ..mistakes import told_by
from .corpus import DOMAINS
from .ladder import NUMBER, READ, REPEATED, RUNGS, STEPS, TOP, Entry, plan
from .ladder_beside import (
    ASIDE,
    SIZES,
    others_table,
    pairs_in_words,
    shapes_in_words,
    shapes_table,
)  # fmt: skip
from .ladder_costs import costs_table, noise, speed, speed_table
from .ladder_numbers import VERDICTS, Found, Row, left_out, progress, rungs
from .ladder_page import MEASURE, ORDER, PAGE, SHUFFLED
from .ladder_tables import (
    BEYOND_COLUMNS,
    DOMAIN_COLUMNS,
    POSITION_COLUMNS,
    ROUTED,
    ROUTER_COLUMNS,
    TRAINING_COLUMNS,
    apart,
    beside_bigrams,
    bigrams_table,
    by_rate,
    changes_table,
    details_table,
    domains_table,
    falls,
    in_short,
    in_words,
    left_out_table,
    lookback_tables,
    rates_table,
    rungs_table,
    scatter_in_words,
    untaught_columns,
)  # fmt: skip
from .lookback import even
from .queue import RESULTS, results


def shuffled(rows: list[Row]) -> list[str]:
    """What was measured of the order of bytes, or that it was not."""
    lines, costs = lookback_tables(rows)
    if len(lines) == 2:
        return [f"(Not measured yet: {MEASURE} does.)"]
    return [SHUFFLED.format(even=100 * even(), rungs=MEASURE), "", *lines, "", *costs, "", ORDER]


def report(found: Found, entries: list[Entry] | None = None) -> str:
    """The page, from the results that are in."""
    entries = plan() if entries is None else entries
    done, all_of = progress(entries, found)
    rows, timed = rungs(entries, found), speed()
    out, untaught = left_out(entries, found), untaught_columns()
    rated, (fallen, falling) = by_rate(entries, found), falls(rows)
    state = (f"**{done} of {all_of} runs are in.** "
             + ("A dash is a run that is not." if done < all_of else "These are all of them.")
             + " Nothing should be concluded from a row with one seed.")  # fmt: skip
    parts = {
        "rates": rates_table(entries, found), "rungs": rungs_table(entries, found),
        "same_rate": [rated["step"]], "values_by_rate": [rated["values"]],
        "changes": changes_table(),
        "rungs_said": in_words(rows[1:]), "domains": details_table(rows, DOMAIN_COLUMNS),
        "domains_less": domains_table(rows[1:]),
        "positions": details_table(rows, POSITION_COLUMNS),
        "beyond": details_table(rows[NUMBER["rope"] :], BEYOND_COLUMNS),
        "untaught": details_table(rows[NUMBER["rope"] :], untaught),
        "bigrams": bigrams_table(rows), "lookback": shuffled(rows),
        "training": details_table(rows, TRAINING_COLUMNS, 2),
        "router": details_table(rows[ROUTED:], ROUTER_COLUMNS),
        "left_out": left_out_table(entries, found), "left_out_said": in_words(out),
        "others": others_table(SIZES, entries, found), "others_said": pairs_in_words(SIZES, entries, found),
        "asides": others_table(ASIDE, entries, found), "asides_said": pairs_in_words(ASIDE, entries, found),
        "shapes": shapes_table(found), "shapes_said": shapes_in_words(entries, found),
        "costs": costs_table(), "speed": speed_table(timed),
        "steps_short": [in_short(rows[1:])], "undone_short": [in_short(out)],
        "scatter": scatter_in_words(entries, found), "noise": [noise(timed)],
        "bigrams_said": [beside_bigrams(rows)], "falls": fallen, "falls_said": [falling],
        "positions_range": [apart(rows, POSITION_COLUMNS)],
        "beyond_range": [apart(rows[NUMBER["rope"] :], BEYOND_COLUMNS)],
        "untaught_range": [apart(rows[NUMBER["rope"] :], untaught)],
        "training_range": [apart(rows, TRAINING_COLUMNS, 2, alike=False)],
        "router_range": [apart(rows[ROUTED:], ROUTER_COLUMNS, alike=False)],
    }  # fmt: skip
    lists = [parts[name] for name in ("rungs_said", "others_said", "asides_said", "shapes_said")]
    lists.append(in_words([row for row in out if row.name != TOP]))  # TOP without its own change: no new pair
    return PAGE.format(
        state=state, steps=STEPS, tokens=READ, millions=READ / 1e6,
        repeated=REPEATED, times=READ // (REPEATED * len(DOMAINS)), top=RUNGS[NUMBER[TOP]].title,
        judged=sum(any(said in line for said in VERDICTS) for lines in lists for line in lines),
        rounds=timed["rounds"] if timed else "–", threads=timed["made_with"]["threads"] if timed else "–",
        **{name: "\n".join(lines) for name, lines in parts.items()},
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """`python -m gptoss_lab.training.ladder_report PAGE`: write the page from the results that are in."""
    program = "python -m gptoss_lab.training.ladder_report"
    parser = argparse.ArgumentParser(prog=program, description=main.__doc__)
    parser.add_argument("page", type=Path, help="the Markdown file to write")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="the package's own")
    options = parser.parse_args(arguments)
    with told_by(program), whole(options.page) as beside:
        require(options.results.is_dir(), f"no folder {str(options.results)!r} with results")
        beside.write_text(report(results(options.results)), encoding="utf-8")
    print(f"wrote {options.page}")


if __name__ == "__main__":
    main()
