"""The recorded executions that the site shows, and the pages that come from them."""

import base64
import io
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from PIL import Image

from rfe_helpers.core.masking import secrets_in
from rfe_helpers.workbook.notebooks import all_notebooks
from rfe_helpers.workbook.show import Picture

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS / "sphinx"))
import recordings  # noqa: E402

RECORDED = sorted(recordings.RECORDED.glob("*.ipynb"))


def png(colours: int) -> str:
    picture = Image.new("RGB", (colours, 1))
    picture.putdata([(n % 256, n // 256, 0) for n in range(colours)])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A lab whose last run was of one notebook with an error-free cell of two outputs."""
    monkeypatch.setattr(recordings, "RECORDED", tmp_path / "recorded")
    directory = tmp_path / "lab" / "runs" / "latest"
    directory.mkdir(parents=True)
    data = {"text/html": f"<b>{Path.home()}/rfe-lab</b>", "text/plain": "in a terminal"}
    picture = Picture(base64.b64decode(png(1000)), 'a "plot"', 300)
    drawing = {"text/html": picture._repr_html_(), "text/plain": picture.text}
    outputs = [
        v4.new_output("execute_result", data),
        v4.new_output("display_data", drawing),
    ]
    cells = [v4.new_markdown_cell("# Title"), v4.new_code_cell("1 + 1", id="a", outputs=outputs)]
    nbformat.write(v4.new_notebook(cells=cells), directory / "00-first.ipynb")
    summary = {
        "status": "passed",
        "started": "2026-11-28T10:00:00+00:00",
        "profile": "sandbox",
        "notebooks": [{"name": "00-first", "seconds": 61.2}],
    }
    (directory / "summary.json").write_text(json.dumps(summary))
    return tmp_path / "lab"


def source(code: str) -> str:
    cells = [v4.new_markdown_cell("# Title"), v4.new_code_cell(code, id="a")]
    return nbformat.writes(v4.new_notebook(cells=cells))


def test_a_recording_has_each_output_in_one_small_form(lab):
    (path,) = recordings.record(lab)
    (cell,) = nbformat.read(path, as_version=4).cells
    text, picture = (output.data for output in cell.outputs)
    assert text == {"text/html": "<b>~/rfe-lab</b>"}
    assert set(picture) == {"text/html"}
    (drawn,) = re.findall('data:image/png;base64,([^"]+)"', picture["text/html"])
    colours = Image.open(io.BytesIO(base64.b64decode(drawn))).getcolors(100_000)
    assert 2 <= len(colours) <= 256


def test_a_page_has_the_outputs_of_cells_that_are_the_same(lab):
    recordings.record(lab)
    book = nbformat.reads(recordings.page("00-first", source("1 + 1")), as_version=4)
    title, cell = book.cells
    assert "28 November 2026" in title.source
    assert "profile sandbox" in title.source
    assert cell.outputs[0].data == {"text/html": "<b>~/rfe-lab</b>"}
    assert 'alt="a &quot;plot&quot;" width="300"' in cell.outputs[1].data["text/html"]


def test_a_page_says_which_cells_have_changed_since(lab):
    recordings.record(lab)
    book = nbformat.reads(recordings.page("00-first", source("1 + 2")), as_version=4)
    assert book.cells[1].outputs == []
    assert book.cells[2].source == recordings.CHANGED


def test_a_page_without_a_recording_says_so(lab):
    book = nbformat.reads(recordings.page("00-first", source("1 + 1")), as_version=4)
    assert "not been recorded" in book.cells[0].source


def test_a_run_that_failed_is_not_recorded(lab):
    path = lab / "runs" / "latest" / "summary.json"
    path.write_text(path.read_text().replace("passed", "failed"))
    with pytest.raises(SystemExit, match="failed"):
        recordings.record(lab)
    assert not recordings.RECORDED.exists()


def test_every_notebook_is_recorded():
    assert {path.name for path in RECORDED} == {path.name for path in all_notebooks()}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recording_is_small_without_errors_and_names_no_machine(path):
    text = path.read_text()
    assert len(text) < 600_000
    assert secrets_in(text) == []
    assert "/root/" not in text
    assert "/home/" not in text
    for cell in nbformat.reads(text, as_version=4).cells:
        assert [each for each in cell.outputs if each.output_type == "error"] == []
