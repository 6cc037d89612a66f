"""docs/performance.md, made from the results of `gptoss-lab bench` alone.

    python -m gptoss_lab.bench.page docs/performance.md

What is not in is said to be missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

from ..cost import human
from ..files import whole
from ..mistakes import told_by
from . import report
from .report import Found

RESULTS = Path(__file__).resolve().parents[1] / "assets" / "results" / "performance"
LARGE, MINI = "gpt-oss-20b", "mini-oss"
Say = Callable[[float], str]
OTHERS = ("numba", "llama_cpp_python", "transformers")
WAITS = "Not measured yet."

PAGE = """# Performance

    make performance CHECKPOINT=FOLDER                     # measures (pip installs the extra `bench` first)
    python -m gptoss_lab.bench.page docs/performance.md    # this page, from the results that are in

Every figure was measured by `gptoss-lab bench` and is kept in `gptoss_lab/assets/results/performance`,
one file a model, with date, machine, versions and command. None is a promise for another machine, and
one machine's memory may be a third slower an hour later: compare only what ran side by side, in turn.

## What was to be reached, and what was

On two cores, within 16e9 bytes, pages of files included. “llama.cpp” stands for the faster of its two
forms, and “transformers” for the faster of two ways to call it. A ratio is the median of the rounds' own
ratios, so that it need not be the ratio of two medians that stand further down.

{goals}

## gpt-oss-20b on a CPU

{large_about}

{large_weights}

{machine}

{compared}

Rounds: {rounds}. A round runs the sides one after the other, each in a process and a memory group of its
own; the order turns from round to round. Two files of 13.8 GB do not fit into this machine's memory
together, so before a side starts its file is put out of memory. The side then reads it through once and
runs a short text that is thrown away; only what follows is timed. A cell is the median over the rounds,
with the least and the most. A ratio is taken within its round; above one, ours is faster.

“Decode” is 63 tokens, one at a time, the likeliest each time, after a prompt of 128 and a first token. “Of
what memory allows” divides by the mean of the bandwidths measured right before and right after; where
another program disturbs these two moments more than the decoding between them, it may exceed one. The peak
is the memory group's, pages of files included.

llama.cpp reads a GGUF file written from the same checkpoint, every weight as it is: experts in MXFP4, the
rest in bfloat16. “llama.cpp” is as it comes: it repacks the experts when it starts, in memory of its own.
“llama.cpp-mapped” leaves them in the file; it runs in the first round. Before it multiplies, llama.cpp
rounds activations to 8 bits (MXFP4) or to bfloat16; ours are rounded to 22 bits before MXFP4 (16 where there
is AVX2 alone), and not before bfloat16. On small random models both answer alike to a hundredth
(`tests/test_bench.py`).

### The first token

{first}

From starting Python to the first token after a prompt of one. “Cold”: the file is not in memory. “Nothing
compiled”: the kernels are compiled for this processor first, as happens once.

### Less memory than the weights

{less}

Within less, pages of the file come and go: what a token needs and is not there is read from disk again. The
last rows tell what a laptop does that holds more than us.

### A long context

{context}

### Fast kernels against exact ones

{accuracy}

## mini-oss beside transformers

{mini_about}

{mini_machine}

{mini_compared}

The same folder. transformers unpacks it to float32; ours is `load("mini-oss", dtype="stored",
kernels="fast")`, which multiplies weights as they are stored. (Without these two words ours unpacks it as
well, and sums as torch does: the exact arithmetic, several times slower.) “transformers” is its `generate`;
“transformers-loop” is the barest loop around its forward pass. Ours is `generate`.

{mini_first}

{mini_context}

## What was not measured

The published weights, which were not at hand: random ones cost the same, but trained ones choose some
experts more often than others, which helps where memory is short. Any GPU. Windows and macOS. Memory limits
with cgroup v2: they are written from its documentation and were not tried.

## Measuring your own machine

    gptoss-lab bench                                        # mini-oss, half a minute
    gptoss-lab bench gpt-oss-20b                            # the real weights, some minutes
    gptoss-lab bench gpt-oss-20b --device cuda              # on a card
    gptoss-lab bench gpt-oss-20b --limit 16e9               # within 16 GB (Linux)
    gptoss-lab bench gpt-oss-20b --whole --out mine.json    # all of this, in as many goes as you like

It says what it will do and how long that takes before it starts (`--plan`: and no more). Beside llama.cpp:
`pip install -e '.[bench]'` in the project's folder, which compiles it for the processor at hand, then
`--beside llama.cpp --gguf FILE`; the file is written where it is missing. Without the real weights: `python
benchmarks/random_checkpoint.py FOLDER`. A limit needs the right to make a memory group (root, or a group of
one's own). Without it the program says so, and `systemd-run --user --scope -p MemoryMax=16000000000
gptoss-lab bench gpt-oss-20b` holds all of it to a limit. Close everything else first: a laptop on its
battery, or a hot one, is another machine.
"""


def results(folder: Path = RESULTS) -> dict[str, Found]:
    """What is in, by the file's name. ValueError for a file that is damaged."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        try:
            found[file.stem] = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is no JSON ({error}); delete it and measure again") from error
    return found


def beside(what: str, bound: float, found: Found, of: report.Of) -> list[str]:
    """A row of ours over the strongest of the others: the smallest median of ratios. Where it was beside us
    in one round alone, the row says so."""
    blocks, sides = report.rounds(found), found["asked"]["sides"][1:]
    each = [some for some in (report.ratios(blocks, kind, of) for kind in sides) if some]
    strongest = min(each, key=statistics.median, default=[])
    row = goal(what, bound, statistics.median(strongest) if strongest else None)
    return [*row[:3], f"{row[3]}, in its one round"] if len(strongest) == 1 < len(blocks) else row


def goal(
    what: str, bound: float, got: float | None, most: bool = False, form: Say = "{:.2f}".format
) -> list[str]:
    """A row: what was to be reached (`most`: not to be exceeded), what was, and whether."""
    reached = "–" if got is None else "yes" if (got <= bound if most else got >= bound) else "no"
    return [what, f"{'≤' if most else '≥'} {form(bound)}", "–" if got is None else form(got), reached]


def of_large(found: Found) -> list[list[str]]:
    """The goals of gpt-oss-20b."""
    blocks, parts = report.rounds(found), found["parts"]
    shares = report.values(blocks, "ours", report.share_of_memory(found))
    peaks = report.values(blocks, "ours", report.peak)
    warm = parts.get("first token: ours", {}).get("warm")
    context = parts.get("long context", {}).get("ratio")
    error = parts.get("accuracy", {}).get("worst agreed")
    return [
        beside("decode, ours / llama.cpp", 1.0, found, report.decode),
        goal("decode, of what memory allows", 0.85, statistics.median(shares) if shares else None),
        *(beside(f"prompt of {length}, ours / llama.cpp", 1.1, found, report.prompt(length))
          for length in (128, 512)),
        goal("peak", 14.3e9, max(peaks, default=None), most=True, form=human),
        goal("first token, warm, seconds", 2.0, warm and warm["all"], most=True),
        goal("first token, warm, without starting Python and importing", 2.0,
             warm and warm["load"] + warm["first"], most=True),
        goal("decode with 4,096 tokens in the cache against with 128", 0.9, context),
        goal("logits, relative error where all choices agree", 1e-3, error, most=True, form="{:.1e}".format),
    ]  # fmt: skip


def of_mini(found: Found) -> list[list[str]]:
    """The goals of mini-oss."""
    return [
        beside("mini-oss, decode, ours / transformers", 3.0, found, report.decode),
        *(beside(f"mini-oss, prompt of {length}, ours / transformers", 1.5, found, report.prompt(length))
          for length in (128, 512)),
    ]  # fmt: skip


def goals(found: dict[str, Found]) -> str:
    """What was to be reached, what was, and whether."""
    rows = of_large(found[LARGE]) if LARGE in found else []
    rows += of_mini(found[MINI]) if MINI in found else []
    return report.aligned(["", "to reach", "measured", "reached"], rows) if rows else WAITS


def heading(found: Found | None) -> str:
    """Model, machine, versions, dates and command of one file of results."""
    if found is None:
        return WAITS
    days = sorted({part["at"][:10] for part in found["parts"].values()})
    versions = dict(found["versions"])
    for block in report.rounds(found)[:1]:
        for kind in found["asked"]["sides"]:
            said = block.get(kind, {}).get("about", {})
            versions |= {name: said[name] for name in OTHERS if name in said}
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    when = days[0] if len(days) < 2 else f"{days[0]} to {days[-1]}"
    memory = f"{human(found['machine']['memory'])} of memory, {found['asked']['threads']} threads"
    return f"{report.about(found)}, {memory}; {named}; {when}.\n\n    {found['command']}"


def weights_of(found: Found) -> str:
    """What the weights are."""
    if not found["weights"].startswith("random"):
        return "The published weights."
    return (
        "The weights are random values in the published layout, of the published size: they cost what the "
        "real ones cost, and say nothing sensible."
    )


def page(found: dict[str, Found]) -> str:
    """The whole page."""
    large, mini = found.get(LARGE), found.get(MINI)

    def of(results: Found | None, tell: Callable[[Found], str]) -> str:
        return (tell(results) if results else "") or WAITS

    return PAGE.format(
        goals=goals(found), large_about=heading(large), mini_about=heading(mini),
        large_weights=of(large, weights_of), machine=of(large, report.of_the_machine),
        compared=of(large, report.compared), rounds=len(report.rounds(large)) if large else 0,
        first=of(large, report.first_tokens), less=of(large, report.less_memory),
        context=of(large, report.of_the_context), accuracy=of(large, report.of_accuracy),
        mini_machine=of(mini, report.of_the_machine), mini_compared=of(mini, report.compared),
        mini_first=of(mini, report.first_tokens), mini_context=of(mini, report.of_the_context),
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """`python -m gptoss_lab.bench.page PAGE`: write the page from the results that are in."""
    parser = argparse.ArgumentParser(prog="python -m gptoss_lab.bench.page", description=main.__doc__)
    parser.add_argument("page", type=Path, help="the Markdown file to write")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="the package's own")
    options = parser.parse_args(arguments)
    with told_by(parser.prog), whole(options.page) as beside:
        beside.write_text(page(results(options.results)), encoding="utf-8")
    print(f"wrote {options.page}")


if __name__ == "__main__":
    main()
