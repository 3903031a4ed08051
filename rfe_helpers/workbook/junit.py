"""A run as JUnit XML, which CI servers show as tests: `rfe run --junit FILE`.

Each notebook is a test suite, each check that holds is a case. The last case of a notebook is the
check that does not hold, or its end. Each case has the seconds since the one before. The one that
failed has the message, the remedy, the cell and what it has shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from junitparser import Error, JUnitXml, Skipped, TestCase, TestSuite
from junitparser import Failure as Failed

from rfe_helpers.core import files
from rfe_helpers.workbook.engine import SENT
from rfe_helpers.workbook.progress import PROGRESS
from rfe_helpers.workbook.results import NotebookResult, Summary, plain

END = "runs to its end"
_BROKEN = "this does not hold: "  # as check() begins


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
    """The checks that hold, then the case that says how the notebook ended."""
    left = result.seconds
    names: Counter[str] = Counter()  # CI servers merge cases of one name
    for promise, seconds in _checks(result.executed):
        left -= seconds
        yield TestCase(_distinct(promise, names), result.name, round(seconds, 3))
    case = TestCase(_distinct(_last(result), names), result.name, round(max(0.0, left), 3))
    if result.failure is not None:
        _fail(case, result)
    elif result.status == "interrupted":
        case.result = [Error("interrupted")]
    elif result.status == "not run":
        case.result = [Skipped(result.reason)]
    yield case


def _distinct(name: str, names: Counter[str]) -> str:
    names[name] += 1
    return f"{name} ({names[name]})" if names[name] > 1 else name


def _last(result: NotebookResult) -> str:
    """The name of the last case: the check that does not hold, or the end."""
    first = result.failure.message.partition("\n")[0] if result.failure is not None else ""
    return plain(first.removeprefix(_BROKEN)) if first.startswith(_BROKEN) else END


def _fail(case: TestCase, result: NotebookResult) -> None:
    failure = result.failure
    assert failure is not None
    first = failure.message.partition("\n")[0]
    remedy = f" (to do: {failure.remedy})" if failure.remedy else ""
    failed = Failed(plain(f"{failure.place}: {first}{remedy}"), failure.error)
    parts = [result.explanation(), f"The cell:\n{failure.source}"]
    if failure.output:
        # Where JUnit has it, and again for servers that show nothing but the failure.
        case.system_out = plain(failure.output)
        parts.append(f"Its output:\n{failure.output}")
    failed.text = plain("\n\n".join(parts))
    case.result = [failed]


def _checks(executed: Path | None) -> Iterator[tuple[str, float]]:
    """The promises that held, with the seconds since the one before."""
    if executed is None or not executed.is_file():
        return
    notebook = nbformat.read(executed, as_version=4)
    before = _time(notebook.metadata.papermill.start_time)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            text = data.get("text/plain", "")
            if text.startswith("✔ ") and PROGRESS not in data and SENT in output.metadata:
                sent = _time(output.metadata[SENT])
                yield plain(text.removeprefix("✔ ")), max(0.0, (sent - before).total_seconds())
                before = sent


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
