"""docs/performance.md, made from the results of `gptoss-lab bench` alone.

python -m gptoss_lab.bench.page docs/performance.md
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from ..cost import human
from ..files import whole
from . import report
from .report import Found

RESULTS = Path(__file__).resolve().parents[1] / "assets" / "results" / "performance"
LARGE, MINI = "gpt-oss-20b", "mini-oss"

PAGE = """# Performance

    make performance CHECKPOINT=folder-of-gpt-oss-20b          # measures, and writes this page
    python -m gptoss_lab.bench.page docs/performance.md        # this page, from the results that are in

Every figure here was measured by `gptoss-lab bench` and is kept in `gptoss_lab/assets/results/performance`,
one file a model, with date, machine, versions and command. None is a promise for another machine, and a machine's
memory may be a third slower an hour later: only what ran side by side, in turn, should be compared.

## What was to be reached, and what was

On two cores, within 16e9 bytes, the pages of files included.

{goals}

## gpt-oss-20b on a CPU

{large_about}

{large_weights}

{machine}

{compared}

Rounds are {rounds}: every side in each, in a process and a memory group of its own, the order turned from round to
round. The two files of 13.8 GB do not fit into this machine's memory together, so before a side starts its file is
put out of memory; it is then read through once, a short text is run and thrown away, and only what follows is
timed. A cell is the median over the rounds, with the least and the most; a ratio is taken within its round, and
above one ours is faster. “Decode” is {tokens} tokens after a prompt of 128, one at a time, the likeliest each time.
“Of what memory allows” divides by the bandwidth measured right before that side ran. The peak is the memory group's,
pages of files included{peaks}.

llama.cpp reads a GGUF file written from the same checkpoint, every weight as it is: experts in MXFP4, the rest in
bfloat16 (`--gguf`). “llama.cpp” is as it comes: it repacks experts in memory, at the start. “llama.cpp-mapped” leaves
them in the file. It rounds activations to 8 bits before MXFP4 and to bfloat16 before bfloat16; ours are int16
before MXFP4 and float32 else.

### The first token

{first}

After a prompt of one token, from starting Python on. “Cold”: the file not in memory. “Nothing compiled”: the kernels
are compiled for this processor first, which happens once.

### Less memory than the weights

{less}

Within less, pages of the file come and go: what a token needs and is not there is read from disk again, here at
about 1.6 GB/s. A laptop holds more than this program.

### A long context

{context}

### Fast kernels against exact ones

{accuracy}

## mini-oss beside transformers

{mini_about}

{mini_compared}

The same folder; transformers unpacks it to float32, as ours does at this size. “transformers” is its `generate`,
“transformers-loop” the barest loop around its forward pass. Ours is `generate`.

{mini_first}

## What was not measured

The published weights, which were not at hand: random ones cost the same, but trained ones choose some experts more
often than others, which helps where memory is short. Any GPU. Windows and macOS, where memory cannot be held to a
limit this way. With cgroup v2 the limits are written from its documentation and were not tried.

## Measuring your own machine

    gptoss-lab bench                                           # mini-oss, half a minute
    gptoss-lab bench gpt-oss-20b                               # the real weights, some minutes
    gptoss-lab bench gpt-oss-20b --device cuda                 # on a card
    gptoss-lab bench gpt-oss-20b --limit 16e9                  # within 16 GB, where Linux lets us hold it to that
    gptoss-lab bench gpt-oss-20b --whole --out mine.json       # everything here; Ctrl-C, and the same command goes on

It says what it will do and how long that takes before it starts. Beside llama.cpp: `pip install 'gptoss-lab[bench]'`
(pip compiles llama.cpp for the processor it runs on), then `--beside llama.cpp --gguf FILE`; the file is written where it
is missing. Without the real weights: `python benchmarks/random_checkpoint.py FOLDER`. A memory limit needs the
right to make a memory group (root, or a user's own group); otherwise the program says so, and
`systemd-run --user --scope -p MemoryMax=16000000000 gptoss-lab bench gpt-oss-20b` holds all of it to one.

Close everything else first; a laptop on its battery, or hot, is another machine.
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


def least(found: Found, of: report.Of, single: bool = False) -> float | None:
    """Ours over the strongest of the others: the smallest median of ratios; None where nothing is in."""
    blocks = report.rounds(found)
    medians = [statistics.median(ratios) for kind in found["asked"]["sides"][1:]
               if (ratios := report.ratios(blocks, kind, of))]  # fmt: skip
    return min(medians, default=None)


def goals(found: dict[str, Found]) -> list[list[str]]:
    """What was to be reached, what was, and whether."""
    large, mini = found.get(LARGE), found.get(MINI)
    rows: list[list[str]] = []

    def add(
        what: str, bound: float, got: float | None, at_least: bool = True, form: Any = "{:.2f}".format
    ) -> None:
        reached = "–" if got is None else "yes" if (got >= bound if at_least else got <= bound) else "no"
        sign = "≥" if at_least else "≤"
        rows.append([what, f"{sign} {form(bound)}", "–" if got is None else form(got), reached])

    if large:
        blocks, parts = report.rounds(large), large["parts"]
        peaks = report.values(blocks, "ours", report.peak)
        shares = report.values(blocks, "ours", report.share_of_memory(large))
        warm = parts.get("first token: ours", {}).get("warm", {})
        add("decode, ours / llama.cpp", 1.0, least(large, report.decode))
        add("decode, of what memory allows", 0.85, statistics.median(shares) if shares else None)
        for length in (128, 512):
            add(f"prompt of {length}, ours / llama.cpp", 1.1, least(large, report.prompt(length)))
        add("peak", 14.3e9, max(peaks, default=None), False, human)
        add("first token, warm, compiled, seconds", 2.0, warm.get("all"), False)
        add(
            "decode at 4,096 tokens of context against at 128",
            0.9,
            parts.get("long context", {}).get("ratio"),
        )
        add("logits, relative error where all choices agree", 1e-3,
            parts.get("accuracy", {}).get("worst agreed"), False, "{:.1e}".format)  # fmt: skip
    if mini:
        add("mini-oss decode, ours / transformers", 3.0, least(mini, report.decode))
        for length in (128, 512):
            add(f"mini-oss prompt of {length}, ours / transformers", 1.5, least(mini, report.prompt(length)))
    return rows


def heading(found: Found | None) -> str:
    """Model, machine, versions, dates and command of one file of results."""
    if found is None:
        return "Not measured yet."
    parts = found["parts"]
    dates = sorted({part["at"][:10] for part in parts.values()})
    others: dict[str, str] = {}
    for block in report.rounds(found)[:1]:
        for kind in found["asked"]["sides"]:
            said = block.get(kind, {}).get("about", {})
            others |= {
                name: said[name] for name in ("numba", "llama_cpp_python", "transformers") if name in said
            }
    versions = ", ".join(f"{name} {version}" for name, version in (found["versions"] | others).items())
    memory = found["machine"]["memory"]
    return (
        f"{report.about(found)}, {human(memory)} of memory; {versions}; {' to '.join(dict.fromkeys(dates[:1] + dates[-1:]))}."
        f"\n\n    {found['command']}"
    )


def page(found: dict[str, Found]) -> str:
    """The whole page; what is not in is said to be missing."""
    large, mini = found.get(LARGE), found.get(MINI)
    waits = "Not measured yet."
    texts = {
        "goals": report.aligned(["", "to reach", "measured", "reached"], goals(found)) if found else waits,
        "large_about": heading(large), "mini_about": heading(mini), "tokens": "64",
        "rounds": str(len(report.rounds(large))) if large else "–",
        "large_weights": waits, "machine": "", "compared": "", "first": waits, "less": waits, "context": waits,
        "accuracy": waits, "mini_compared": "", "mini_first": "", "peaks": "",
    }  # fmt: skip
    if large:
        random = large["weights"].startswith("random")
        texts |= {
            "large_weights": "The weights are random values in the published layout, of the published size: they cost "
            "what the real ones cost, and say nothing sensible." if random else "The published weights.",
            "machine": report.of_the_machine(large), "compared": report.compared(large) if report.rounds(large) else waits,
            "first": report.first_tokens(large) or waits, "less": report.less_memory(large) or waits,
            "context": report.of_the_context(large) or waits, "accuracy": report.of_accuracy(large) or waits,
        }  # fmt: skip
    if mini:
        texts |= {"mini_compared": report.compared(mini), "mini_first": report.first_tokens(mini)}
    return PAGE.format(**texts)


def main(arguments: list[str] | None = None) -> None:
    """`python -m gptoss_lab.bench.page PAGE`: write the page from the results that are in."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("page", type=Path, help="the Markdown file to write")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="the package's own")
    options = parser.parse_args(arguments)
    with whole(options.page) as beside:
        beside.write_text(page(results(options.results)), encoding="utf-8")
    print(f"wrote {options.page}")


if __name__ == "__main__":
    main()
