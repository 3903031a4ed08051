"""The report of a headless run: what is folded in it, and what is not."""

import re
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest

from rfe_helpers.workbook import report
from rfe_helpers.workbook.results import Failure, NotebookResult, Summary


def executed(directory: Path, name: str) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# Title of {name}")])
    notebook.metadata["papermill"] = {"input_path": str(directory / f"{name}.ipynb")}
    path = directory / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def page(tmp_path: Path) -> str:
    failure = Failure(3, "check(False)", "CheckFailedError", "this does not hold: <it>")
    results = (
        NotebookResult("10-good", "passed", 2.0, None, executed(tmp_path, "10-good")),
        NotebookResult("20-bad", "failed", 1.0, failure, executed(tmp_path, "20-bad")),
        NotebookResult("30-later", "not run"),
    )
    return report.render(Summary(tmp_path, "sandbox", datetime.now(UTC), 3.0, results))


def test_notebooks_that_passed_are_folded_and_the_one_that_failed_is_open(page: str) -> None:
    folds = dict(re.findall(r'<details class="notebook" id="([^"]+)"( open)?>', page))
    assert folds == {"10-good": "", "20-bad": " open"}


def test_the_failure_stands_above_the_notebooks(page: str) -> None:
    assert "this does not hold: &lt;it&gt;" in page
    assert page.index("20-bad stopped") < page.index("Title of 10-good")
    assert "30-later" in page
