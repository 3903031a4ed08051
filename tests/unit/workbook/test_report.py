"""The report of a headless run: what is folded in it, and what is not."""

import re
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest

from rfe_helpers.workbook import report
from rfe_helpers.workbook.results import Failure, NotebookResult, Summary

FACTS = {
    "commit": "0123456789abcdef" * 4,
    "version": "0.0.1",
    "packages": 226,
    "artifact_bytes": 158_000_000,
    "update_bytes": 667_277,
    "reboot_seconds": 41,
}


def executed(directory: Path, name: str) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# Title of {name}")])
    notebook.metadata["papermill"] = {"input_path": str(directory / f"{name}.ipynb")}
    path = directory / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def page(tmp_path: Path) -> str:
    failure = Failure(
        3, "check(False)", "CheckFailedError", "this does not hold: <it>", 2, "/x.log", "E: <gone>"
    )
    results = (
        NotebookResult("10-good", "passed", 2.0, None, executed(tmp_path, "10-good")),
        NotebookResult("20-bad", "failed", 1.0, failure, executed(tmp_path, "20-bad")),
        NotebookResult("30-later", "not run", reason="it needs 20-bad, which failed"),
    )
    return report.render(Summary(tmp_path, "sandbox", datetime.now(UTC), 3.0, results, FACTS))


def test_notebooks_that_passed_are_folded_and_the_one_that_failed_is_open(page: str) -> None:
    folds = dict(re.findall(r'<details class="notebook" id="([^"]+)"( open)?>', page))
    assert folds == {"10-good": "", "20-bad": " open"}


def test_the_failure_stands_above_the_notebooks(page: str) -> None:
    assert "this does not hold: &lt;it&gt;" in page
    assert page.index("20-bad stopped, cell [2]") < page.index("Title of 10-good")
    assert page.index("The end of /x.log") < page.index("E: &lt;gone&gt;") < page.index("<table")
    assert "30-later" in page
    assert "not run: it needs 20-bad, which failed" in page


def test_the_facts_of_the_run_stand_in_a_box_and_none_that_was_not_recorded(page: str) -> None:
    box = re.search(r'<dl class="facts">(.*?)</dl>', page)
    assert box is not None
    pairs = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", box[1]))
    assert pairs == {
        "Commit": "0123456789ab",
        "Version": "0.0.1",
        "Packages": "226",
        "Size of the archive": "158.0 MB",
        "Bytes of the update": "667.3 kB",
        "Reboot into it": "41 s",
    }
    assert page.index(box[0]) < page.index("<table")


def test_a_run_without_facts_has_no_box(tmp_path: Path) -> None:
    assert "<dl" not in report.render(Summary(tmp_path, "sandbox", datetime.now(UTC), 3.0, ()))


def test_solutions_are_folded_and_pictures_of_the_text_embedded(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "life.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    text = "![a life](pictures/life.svg)\n\n<details><summary>How</summary>\n\nSo.\n\n</details>"
    path = executed(tmp_path, "10-good")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell(text))
    nbformat.write(notebook, path)
    result = NotebookResult("10-good", "passed", 2.0, None, path)
    summary = Summary(tmp_path, "sandbox", datetime.now(UTC), 2.0, (result,), {})
    page = report.render(summary)
    assert re.search(r"<details><summary>How</summary>\s*<p>So.</p>\s*</details>", page)
    assert re.search('<img[^>]+src="data:image/svg\\+xml;base64,', page)
