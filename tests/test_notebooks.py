"""The notebooks as they are saved: run whole, with text and pictures alone."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import run_notebook
from nbformat.v4 import new_output

FILES = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem[:2])
def test_a_saved_notebook_was_run_and_holds_no_widgets(file):
    code = [cell for cell in nbformat.read(file, 4).cells if cell.cell_type == "code"]
    assert code and all(cell.execution_count for cell in code), "run it: python tests/run_notebook.py"
    for cell in code:
        assert run_notebook.kept(list(cell.outputs)) == cell.outputs, "".join(cell.source)[:80]


def test_outputs_are_saved_without_widgets_and_prints_in_one_piece():
    picture = {"image/png": "cGljdHVyZQ==", "text/plain": "<Still>"}
    outputs = [
        new_output("stream", name="stdout", text="a\n"), new_output("stream", name="stdout", text="b\n"),
        new_output("stream", name="stderr", text="c\n"),
        new_output("display_data", data={"text/plain": "interactive(children=(…))", "text/html": "<p>"}),
        new_output("display_data", data=picture | {"text/html": "<b>"}),
        new_output("stream", name="stdout", text="d\n"),
    ]  # fmt: skip
    saved = run_notebook.kept(outputs)
    assert [output.get("text") for output in saved] == ["a\nb\n", "c\n", None, "d\n"]
    assert saved[2].data == picture
