"""Recorded executions of the notebooks: how they are kept, and how they become pages of the site.

    recorded/<notebook>.ipynb   the code cells of an execution with their outputs, and in its
                                metadata when that was, with which profile

A page has the prose and the code of the notebook as it is, and the outputs of the recording in
those cells whose code is the same. A cell that has changed since says so.

`python docs/sphinx/recordings.py LAB` records the last run of a lab (`make record` runs all
notebooks first). What is particular to the machine is replaced: the home directory by ~.
"""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from nbformat import NotebookNode, v4
from PIL import Image
from sphinx.util.docutils import SphinxDirective

RECORDED = Path(__file__).parents[1] / "recorded"
# Of several forms of an output the first is kept; plain text only where there is nothing better.
FORMS = ("text/html", "text/plain")
_PNG = re.compile(r"(?<=data:image/png;base64,)[\w+/=]+")
# What a serial console sends besides text and colours: questions to the terminal, its title.
CONTROL = re.compile(r"\x1b\][^\x07]*\x07|\x1b\[[0-?]*[ -/]*[@-ln-~]")
CHANGED = "*This cell has changed since the recording.*"


def record(lab: Path) -> list[Path]:
    """Keep the last run of a lab; returns the files."""
    directory = (lab / "runs" / "latest").resolve()
    summary = json.loads((directory / "summary.json").read_text())
    if summary["status"] != "passed":
        sys.exit(f"the last run of {lab} {summary['status']}: {directory / 'report.html'}")
    places = {str(Path(__file__).parents[2]): "~/workbook", str(Path.home()): "~"}
    paths = []
    for result in summary["notebooks"]:
        executed = nbformat.read(directory / f"{result['name']}.ipynb", as_version=4)
        cells = [_recorded(cell) for cell in executed.cells if cell.cell_type == "code"]
        book = v4.new_notebook(cells=cells)
        book.metadata["recorded"] = {
            "started": summary["started"],
            "profile": summary["profile"],
        }
        text = nbformat.writes(book)
        for place, name in places.items():
            text = text.replace(place, name)
        RECORDED.mkdir(exist_ok=True)
        paths.append(RECORDED / f"{result['name']}.ipynb")
        paths[-1].write_text(text + "\n")
    return paths


def _recorded(cell: NotebookNode) -> NotebookNode:
    outputs = [_small(output) for output in cell.outputs]
    return v4.new_code_cell(cell.source, id=cell.id, outputs=outputs)


def _small(output: NotebookNode) -> NotebookNode:
    """An output in one form, its pictures compact."""
    data = output.get("data")
    if not data:
        return output
    form = next(form for form in FORMS if form in data)
    content = _PNG.sub(
        lambda png: base64.b64encode(compact(base64.b64decode(png[0]))).decode(), data[form]
    )
    return v4.new_output("display_data", {form: content})


def compact(png: bytes) -> bytes:
    """A picture with at most 256 colours."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def page(name: str, source: str) -> str:
    """The notebook `name` with the outputs of its recording, as a notebook for MyST-NB."""
    book = nbformat.reads(source, as_version=4)
    path = RECORDED / f"{name}.ipynb"
    recording = nbformat.read(path, as_version=4) if path.exists() else v4.new_notebook()
    recorded = {cell.id: cell for cell in recording.cells}
    cells: list[NotebookNode] = []
    for cell in book.cells:
        cells.append(cell)
        if cell.cell_type != "code":
            cell.source = _prose(cell.source)
            continue
        # They are for tests and papermill; MyST-NB has meanings of its own for some.
        cell.metadata["tags"] = []
        if cell.id in recorded and recorded[cell.id].source == cell.source:
            cell.outputs = [_shown(output) for output in recorded[cell.id].outputs]
        elif recorded:
            cells.append(v4.new_markdown_cell(CHANGED))
    book.cells = cells
    book.cells[0].source += _origin(recording.metadata.get("recorded"))
    return nbformat.writes(book)


def _prose(text: str) -> str:
    """Prose for a page: anchors of headings as MyST has them, not JupyterLab, and solutions in the
    language of IPython."""
    text = re.sub(r"\]\(#([^)]+)\)", lambda link: f"](#{link[1].lower()})", text)
    return text.replace("```python", "```ipython3")


def _shown(output: NotebookNode) -> NotebookNode:
    """An output for a page."""
    if "text" in output:
        output.text = CONTROL.sub("", output.text)
    return output


def _origin(recorded: dict[str, Any] | None) -> str:
    if recorded is None:
        return "\n\n*This notebook has not been recorded yet: its outputs are missing here.*"
    started = datetime.fromisoformat(recorded["started"])
    day = f"{started.day} {started:%B %Y}"
    return f"\n\n*The outputs are those of a run on {day} with the profile {recorded['profile']}.*"


def _read(app: Any, name: str, source: list[str]) -> None:
    directory, _, stem = name.rpartition("/")
    if directory == "notebooks":
        source[0] = page(stem, source[0])


class Twin(SphinxDirective):
    """The directive `twin`: the recorded output of a cell, by the notebook and the cell's id."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        name, identity = self.arguments
        path = RECORDED / f"{name}.ipynb"
        cells = nbformat.read(path, as_version=4).cells if path.exists() else []
        outputs = [each for cell in cells if cell.id == identity for each in cell.outputs]
        if not outputs:
            raise self.error(f"{path} has no output of a cell {identity}: make record")
        self.env.note_dependency(path)
        texts = [_shown(output).data.get("text/html", "") for output in outputs]
        return [nodes.raw("", f'<div class="cell_output">{"".join(texts)}</div>', format="html")]


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _read)
    app.add_directive("twin", Twin)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    for file in record(Path(sys.argv[1]).expanduser()):
        print(f"{file.stat().st_size / 1e3:8.0f} kB  {file}")
