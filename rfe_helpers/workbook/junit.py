"""A run as JUnit XML, which CI servers show as tests: `rfe run --junit FILE`.

Each notebook is a test suite, each check that holds is a case. The last case of a notebook is the
check that does not hold, or its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from junitparser import Error, JUnitXml, Skipped, TestCase, TestSuite
from junitparser import Failure as Failed

from rfe_helpers.core import files
from rfe_helpers.workbook.progress import PROGRESS
from rfe_helpers.workbook.results import NotebookResult, Summary

END = "runs to its end"
_BROKEN = "this does not hold: "  # as check() begins
# What XML cannot hold, and the colours of terminals.
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;]*m|[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(summary: Summary, path: Path) -> None:
    """Write the result of a run to `path`, in place of what is there."""
    document = JUnitXml("rfe run")
    for result in summary.notebooks:
        suite = TestSuite(result.name)
        suite.timestamp = summary.started.isoformat(timespec="seconds")
        suite.add_testcases(list(_cases(result)))
        document.add_testsuite(suite)
    document.update_statistics()
    files.write(path, document.tostring())


def _cases(result: NotebookResult) -> Iterator[TestCase]:
    """The checks that hold, then the case that says how the notebook ended. Each has the seconds
    since the one before."""
    left = result.seconds
    for promise, seconds in _checks(result.executed):
        left -= seconds
        yield TestCase(promise, result.name, round(seconds, 3))
    case = TestCase(END, result.name, round(max(0.0, left), 3))
    if result.failure is not None:
        first = result.failure.message.partition("\n")[0]
        if first.startswith(_BROKEN):
            case.name = _plain(first.removeprefix(_BROKEN))
        failed = Failed(_plain(f"{result.failure.place}: {first}"), result.failure.error)
        failed.text = _plain(f"{result.explanation()}\n\nThe cell:\n{result.failure.source}")
        case.result = [failed]
    elif result.status == "interrupted":
        case.result = [Error("interrupted")]
    elif result.status == "not run":
        case.result = [Skipped(result.reason)]
    yield case


def _checks(executed: Path | None) -> Iterator[tuple[str, float]]:
    """The promises that held, with the seconds since the one before."""
    if executed is None or not executed.is_file():
        return
    seconds = 0.0
    for cell in nbformat.read(executed, as_version=4).cells:
        seconds += cell.metadata.get("papermill", {}).get("duration") or 0.0
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            text = data.get("text/plain", "")
            if text.startswith("✔ ") and PROGRESS not in data:
                yield _plain(text.removeprefix("✔ ")), seconds
                seconds = 0.0


def _plain(text: str) -> str:
    return _UNPRINTABLE.sub("", text)
