"""docs/conformance.md, made from the figures of docs/conformance.json alone."""

from __future__ import annotations

from typing import Any

from proof_bf16 import AGREED, LARGEST, MARGIN, RMS, ROUNDED

OPENING = """# Conformance

Is the lab's model the model? `python tests/conformance.py` measured every figure here and wrote
[conformance.json](conformance.json) beside it. `make test` holds each to its bound, on toys whose sizes all
differ and whose weights make both clamps bind and sinks take a tenth of the attention.

{when}

Deviations are the largest differences, of a value beyond one relative; in float32 unless said otherwise.
"""
OPERATIONS = """## Operations, against loops in double precision

Test: `tests/test_faults.py::test_an_operation_is_its_definition[OPERATION-TOY]`.
"""
MODELS = """## Whole models, however they are run, against transformers' logits

Test: `tests/test_faults.py::test_a_model_however_run_is_transformers_model[MODEL]`.
"""
CHUNKS = """A text may come in any chunks: all ways to cut {tokens} tokens, past a window and past the
original context of YaRN, against the whole text. Test:
`tests/test_proof.py::test_a_text_may_come_in_any_chunks`.
"""
SHAPES = """## Every point that a reference shows

transformers' GptOss, GPT2 and Qwen3Moe in their explicit forms, and the torch part of OpenAI's `gpt-oss`,
with the same weights, in float32. Test: `tests/test_reference.py`, by shape. The sink's share is what the
pattern of transformers lacks to one. No reference shows {hidden}; what stands before and after them is
shown.
"""
POINTS = """By point, the largest over all shapes (0: the same bits):
"""
BF16 = """## bfloat16

With `dtype=torch.bfloat16` every product takes bfloat16 and gives bfloat16: projections, router, experts and
unembedding, their sums being torch's own. These points are bfloat16, and all others float32: {rounded}.
So the residual, its norms, scores, both softmaxes and the sum over experts are float32.

Ours is compared with transformers in float32, over the same weights, which bfloat16 holds exactly, on 408
tokens. One rounding can flip an expert where two router logits nearly tie, and what follows differs. A token
is *agreed* while it and all before it chose the same experts. At agreed tokens: the rms of the difference
over that of the value, for the residual of the worst layer and for the logits, and the largest difference. A
flip's *margin*: by how much the last chosen logit led. Last: our logits and those of transformers' own
bfloat16, where both agreed. Bounds: rms {rms}, largest {largest}, margin {margin}, agreed {agreed:.0%} or
more. Test: `tests/test_proof.py`.
"""
FAULTS = """## {count} faults, each caught twice

Each is planted in a right model (`gptoss_lab.study.faults`): as another config, as changed weights, or as a
function replaced while the model is built and run. Tests:
`tests/test_faults.py::test_its_operation_shows_a_fault[FAULT]` and
`tests/test_faults.py::test_the_whole_model_shows_a_fault[FAULT]`. Both ask for ten times the bound of the
operation and of the model named here, which the right model keeps, in the tables above.
"""


def page(found: dict[str, Any]) -> str:
    """The whole page."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    machine = "{system} on {processor}, {cores} cores".format(**found["machine"])
    rounded = ", ".join(f"`{name}`" for name in sorted(ROUNDED))
    bounds = {"rms": RMS, "largest": LARGEST, "margin": MARGIN, "agreed": AGREED}
    hidden = ", ".join(f"`{name}`" for name in found["hidden"])
    return "\n".join([
        OPENING.format(when=f"{found['date']}: {versions}; {machine}."),
        OPERATIONS,
        table("operation | what | toy | bound | measured", [
            [r["name"], r["what"], r["toy"], *measured(r, r["unit"])] for r in found["operations"]
        ]),
        MODELS,
        table("model | what | bound | measured", [
            [r["name"], r["what"], *measured(r)] for r in found["models"]
        ]),
        CHUNKS.format(tokens=found["chunks"][0]["tokens"]),
        table("family | ways | bound | measured", [
            [r["name"], r["ways"], *measured(r)] for r in found["chunks"]
        ]),
        SHAPES.format(hidden=hidden),
        table("reference | family | shape | points | bound | measured | at", [
            [r["reference"], r["family"], r["name"], sum(count for count, _ in r["points"].values()),
             *measured(r), f"`{r['at']}`"] for r in found["shapes"]
        ]),
        POINTS,
        table("point | transformers | openai", by_point(found["shapes"])),
        BF16.format(rounded=rounded, **bounds),
        table("toy | residual | logits | largest | agreed | flips | margin | ours | transformers'", [
            [r["name"], *(number(r[x]) for x in ("residual", "logits", "largest")), f"{r['agreed']:.0%}",
             r["flips"], *(number(r[x]) for x in ("margin", "ours", "theirs"))] for r in found["bf16"]
        ]),
        FAULTS.format(count=len(found["faults"])),
        table("fault | what is wrong | family | planted as | operation | differs by | model | differs by", [
            [r["name"], r["what"], r["family"], r["kind"], r["operation"], number(r["deviation"], r["unit"]),
             r["model"], number(r["model deviation"])] for r in found["faults"]
        ]),
    ]).rstrip() + "\n"  # fmt: skip


def number(value: float, unit: str = "") -> str:
    """A deviation in two digits, or a count of something."""
    if unit:
        return f"{value:,.0f} {unit}"
    return "0" if value == 0 else f"{value:.1e}"


def measured(row: dict[str, Any], unit: str = "") -> list[str]:
    """A row's bound and deviation."""
    return [number(row["bound"], unit), number(row["deviation"], unit)]


def table(head: str, rows: list[list[Any]]) -> str:
    """A table; its head says the columns."""
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def by_point(shapes: list[dict[str, Any]]) -> list[list[str]]:
    """For each kind of point: the largest deviation from each reference, by name."""
    most: dict[str, dict[str, float]] = {}
    for row in shapes:
        for kind, (_, apart) in row["points"].items():
            there = most.setdefault(kind, {})
            there[row["reference"]] = max(apart, there.get(row["reference"], 0.0))
    return [
        [f"`{kind}`", *(number(there[name]) if name in there else "" for name in ("transformers", "openai"))]
        for kind, there in sorted(most.items())
    ]
