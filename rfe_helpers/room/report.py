"""What a room has done: the time that notebooks took, and where people failed."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core.units import elapsed
from rfe_helpers.workbook import activity


@dataclass(frozen=True)
class NotebookReport:
    """One notebook: how many people began and finished it, and the seconds of work of those who
    finished, the median and the longest; None if nobody did."""

    number: str
    begun: int
    done: int
    median: float | None
    longest: float | None


@dataclass(frozen=True)
class Report:
    """Of a room: its notebooks, and the errors with how many people met each, the most first.

    >>> from rfe_helpers.room.report import NotebookReport, Report
    >>> report = Report(12, (NotebookReport("20", 12, 11, 300.0, 420.0),), errors=())
    >>> print(report.markdown())
    # A room of 12
    ...
    | 20 | 12 | 11 | 5:00 | 7:00 |
    ...
    """

    people: int
    notebooks: tuple[NotebookReport, ...]
    errors: tuple[tuple[str, str, int], ...]

    def markdown(self) -> str:
        """The report as Markdown, which reads well in a terminal, too."""
        lines = [f"# A room of {self.people}", ""]
        lines += ["| Notebook | begun | done | median | longest |", "|---|---|---|---|---|"]
        lines += [
            f"| {n.number} | {n.begun} | {n.done} | {_time(n.median)} | {_time(n.longest)} |"
            for n in self.notebooks
        ]
        lines += ["", "## Where people failed", ""]
        if self.errors:
            lines += ["| Notebook | People | Error |", "|---|---|---|"]
        for number, error, count in self.errors:
            lines.append(f"| {number} | {count} | {_cell(error)} |")
        return "\n".join(lines if self.errors else [*lines, "Nobody did."]) + "\n"


def read_report(directory: Path) -> Report:
    """The report of the seats whose activity was kept in a directory, a file for each:

    >>> from rfe_helpers import room
    >>> report = room.read_report(room.Room("room").directory / "activity")
    >>> report.people  # nobody has begun yet
    0

    A file that cannot be read is a seat that has not begun.
    """
    seats = [activity.read(path) for path in sorted(directory.glob("*.json"))]
    numbers = sorted({number for seat in seats for number in seat.notebooks}, key=int)
    notebooks = []
    for number in numbers:
        each = [seat.notebooks[number] for seat in seats if number in seat.notebooks]
        seconds = [one.seconds for one in each if one.status == "done" and one.seconds]
        notebooks.append(
            NotebookReport(
                number=number,
                begun=len(each),
                done=sum(one.status == "done" for one in each),
                median=statistics.median(seconds) if seconds else None,
                longest=max(seconds, default=None),
            )
        )
    met = Counter(
        error for seat in seats for error in {(f.notebook, f.error) for f in seat.failures}
    )
    errors = tuple((number, error, count) for (number, error), count in met.most_common(50))
    return Report(len(seats), tuple(notebooks), errors)


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else elapsed(seconds)


def _cell(text: str) -> str:
    """A text for a cell of a table, where bars and markup would be something else."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "/").split()) + "`"
