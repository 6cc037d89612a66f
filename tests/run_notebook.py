"""Run notebooks and save them with their outputs: `python tests/run_notebook.py notebooks/NN_*.ipynb`.

What is saved holds text and pictures alone, as the other notebooks: no times, no widgets' state.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from gptoss_lab.files import whole

KEPT, WIDGET = ("image/png", "text/plain"), "interactive("


def kept(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs as they are saved: no widgets, and what was printed in one piece however slowly it came."""
    saved: list[NotebookNode] = []
    for output in outputs:
        if "data" in output:
            output.data = {kind: value for kind, value in output.data.items() if kind in KEPT}
            if output.data.get("text/plain", "").startswith(WIDGET):
                continue
        same = saved and output.output_type == "stream" == saved[-1].output_type
        if same and saved[-1].name == output.name:
            saved[-1].text += output.text
        else:
            saved.append(output)
    return saved


def run(file: Path) -> None:
    """Run one in its folder, in this Python's kernel, and save it over itself once all cells have run."""
    notebook = nbformat.read(file, 4)
    place = {"metadata": {"path": str(file.parent)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=place).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = kept(cell.outputs)
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    with whole(file) as beside:
        beside.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    print(f"ran {file}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        run(Path(argument))
