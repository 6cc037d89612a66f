"""The committed table names what the proofs hold, no more and no less, and says that all of it held.

Its numbers are of the day and machine it names: `python tests/conformance.py` makes them again.
"""

from __future__ import annotations

import json
from pathlib import Path

import conformance
import pytest
from conformance_page import page
from proof_bf16 import TOYS
from proof_models import COMPARISONS
from proof_operations import OPERATIONS

from gptoss_lab.study.faults import FAULTS

DOCS = Path(__file__).parent.parent / "docs"
AGAIN = "run `python tests/conformance.py` and commit docs/conformance.md and docs/conformance.json"


@pytest.fixture(scope="module")
def found() -> dict:
    return json.loads((DOCS / "conformance.json").read_text("utf-8"))


def test_the_page_is_made_from_the_figures(found):
    assert page(found) == (DOCS / "conformance.md").read_text("utf-8"), AGAIN


def test_every_operation_is_in_the_table(found):
    held = [(op.name, op.what, toy, op.bound) for op in OPERATIONS.values() for toy in op.toys]
    assert [(r["name"], r["what"], r["toy"], r["bound"]) for r in found["operations"]] == held, AGAIN


def test_every_way_to_run_a_model_is_in_the_table(found):
    held = [(c.name, c.what) for c in COMPARISONS.values()]
    assert [(r["name"], r["what"]) for r in found["models"]] == held, AGAIN
    assert [r["name"] for r in found["bf16"]] == list(TOYS), AGAIN
    assert {r["name"] for r in found["chunks"]} == set(conformance.FOR_TRANSFORMERS), AGAIN


def test_every_shape_is_in_the_table(found):
    held = [
        (reference, family, shape)
        for reference, (_, families) in conformance.AGAINST.items()
        for family, (_, every) in families.items()
        for shape in every
    ]
    assert [(r["reference"], r["family"], r["name"]) for r in found["shapes"]] == held, AGAIN


def test_every_fault_is_in_the_table_with_what_catches_it(found):
    held = [(f.name, f.what, f.family, f.kind, f.operation, f.end) for f in FAULTS]
    listed = ("name", "what", "family", "kind", "operation", "model")
    assert [tuple(r[x] for x in listed) for r in found["faults"]] == held, AGAIN


def test_what_the_table_says_held(found):
    assert conformance.within_bounds(found)
    for kind in ("operations", "models", "shapes", "chunks"):
        assert len(found[kind]) >= 3
        for row in found[kind]:
            before, row["deviation"] = row["deviation"], row["bound"] + 1e-4
            assert not conformance.within_bounds(found), "a broken bound would pass"
            row["deviation"] = before


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "page.md"
    conformance.write(path, "before\n")
    with pytest.raises(UnicodeEncodeError):
        conformance.write(path, "half \ud800")
    assert path.read_text("utf-8") == "before\n"
