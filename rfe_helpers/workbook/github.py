"""A run in GitHub Actions: an annotation for each failure, and a summary on the page of the job.

GitHub reads annotations from the output of a step, as lines that it calls workflow commands, and
the summary from a file that GITHUB_STEP_SUMMARY names. Its documentation has both under "Workflow
commands for GitHub Actions", with the limits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat

from rfe_helpers.workbook import markdown
from rfe_helpers.workbook.results import NotebookResult, Summary, plain

# GitHub refuses a file over 1 MiB, what earlier commands of the step wrote included.
_MOST_SUMMARY = 1024 * 1024
_LONGEST_MESSAGE = 4000


def workflow_commands(summary: Summary) -> Iterator[str]:
    """An annotation for each notebook that failed: GitHub shows it at the cell, and on the page of
    the job."""
    for result in summary.notebooks:
        if result.failure is not None:
            failure = result.failure
            place = {**_place(result), "title": f"{result.name}, {failure.place}: {failure.error}"}
            settings = ",".join(f"{name}={_property(text)}" for name, text in place.items())
            yield f"::error {settings}::{_message(failure.text)}"
        elif result.status == "interrupted":
            yield f"::error title={_property(result.name)}::interrupted"


def append_summary(render: Callable[[int], str]) -> None:
    """Append to the summary of this step, if GitHub has named its file, the Markdown that `render`
    makes in at most so many bytes. Raises OSError."""
    if name := os.environ.get("GITHUB_STEP_SUMMARY"):
        path = Path(name)
        taken = path.stat().st_size if path.exists() else 0
        text = render(min(markdown.MOST, _MOST_SUMMARY - taken - 1))
        if text:
            with path.open("a", encoding="utf-8") as file:
                file.write(f"\n{text}" if taken else text)


def _place(result: NotebookResult) -> dict[str, str]:
    """The file in the repository, and the line of the cell in it; {} for one from elsewhere."""
    workspace = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    if result.path is None or not result.path.resolve().is_relative_to(workspace):
        return {}
    place = {"file": str(result.path.resolve().relative_to(workspace))}
    line = _line(result)
    return place | ({"line": str(line)} if line else {})


def _line(result: NotebookResult) -> int:
    """The line of the file at which the failing cell begins, 0 if it is not known."""
    if result.path is None or result.executed is None or result.failure is None:
        return 0
    cell = nbformat.read(result.executed, as_version=4).cells[result.failure.cell]
    identity = f'"id": "{cell.get("id")}"'
    lines = result.path.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines, 1) if identity in line), 0)


def _message(text: str) -> str:
    text = plain(text)
    if len(text) > _LONGEST_MESSAGE:
        text = text[:_LONGEST_MESSAGE] + " …"
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
