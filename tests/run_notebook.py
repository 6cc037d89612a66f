"""Run notebooks and save them with their outputs: `python tests/run_notebook.py notebooks/NN_*.ipynb`.

What is saved holds text and pictures alone, as the other notebooks: no times, no widgets' state.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from gptoss_lab.files import whole

KEPT = ("image/png", "text/plain")


def run(file: Path) -> None:
    """Run one in its folder, in this Python's kernel, and save it over itself once all cells have run."""
    notebook = nbformat.read(file, 4)
    place = {"metadata": {"path": str(file.parent)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=place).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data = {kind: value for kind, value in output.data.items() if kind in KEPT}
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    with whole(file) as beside:
        beside.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    print(f"ran {file}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        run(Path(argument))
