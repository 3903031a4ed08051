"""A run as Markdown, which CI servers show on the page of a job: `rfe run --markdown FILE`.

A failure comes first, then the notebooks with their results and times, and the facts of the run. It
is in GitHub's dialect: tables, folded parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from rfe_helpers.core.units import elapsed
from rfe_helpers.workbook.results import SIGNS, Failure, NotebookResult, Summary, plain

MOST = 500_000  # bytes
_LONGEST = 10_000  # characters of one text, such as a cell
_LEFT_OUT = "The rest is left out here: it is in the report.\n"
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!&$@]|:(?![\s\d]|$))")


def render(summary: Summary, most: int = MOST) -> str:
    """The summary as Markdown, in at most `most` bytes."""
    return within(_parts(summary), most)


def within(parts: Iterable[str], most: int) -> str:
    """Pieces of Markdown as one text of at most `most` bytes, without those that do not fit. None
    may begin in a fence or a table and end outside it."""
    text, size = "", len(_LEFT_OUT)
    for part in parts:
        size += len(part.encode()) + 2
        if size > most:
            return text + _LEFT_OUT if most >= len(_LEFT_OUT) else ""
        text += part + "\n\n"
    return text


def _parts(summary: Summary) -> Iterator[str]:
    started = summary.started.astimezone().strftime("%Y-%m-%d %H:%M")
    took = elapsed(summary.seconds)
    yield f"## RHEL for Edge workbook: {SIGNS[summary.status]} {summary.status}"
    yield f"Profile {inline(summary.profile)}, started {started}, took {took}."
    failures = [result for result in summary.notebooks if result.failure is not None]
    for result in failures[:1]:
        yield _failure(result)
    yield table(("Notebook", "Result", "Time"), map(_row, summary.notebooks))
    if facts := summary.readable_facts():
        yield table(("Fact", "Value"), facts.items())
    for result in failures[1:]:
        yield _failure(result)


def _row(result: NotebookResult) -> tuple[str, str, str]:
    reason = f": {result.reason}" if result.reason else ""
    took = elapsed(result.seconds) if result.executed else "–"
    return result.name, f"{SIGNS[result.status]} {result.status}{reason}", took


def _failure(result: NotebookResult) -> str:
    failure: Failure | None = result.failure
    assert failure is not None
    place = f"{result.name}, {failure.place}: {failure.error}"
    parts = [f"### {SIGNS[result.status]} {inline(place)}", fence(failure.message)]
    if failure.remedy:
        parts.append(f"**To do:** {inline(failure.remedy)}")
    if failure.tail:
        parts += [f"The end of {inline(failure.log)}:", fence(failure.tail)]
    parts.append(_folded("The cell", fence(failure.source, "python")))
    if failure.output:
        parts.append(_folded("Its output", fence(failure.output)))
    return "\n\n".join(parts)


def inline(text: str) -> str:
    """A text in one line, with nothing that Markdown or HTML would take for more than text."""
    return _SPECIAL.sub(r"\\\1", " ".join(_cut(plain(text)).split()))


def fence(text: str, language: str = "") -> str:
    """A text as it is, in a fence that is longer than any in it."""
    content = _cut(plain(text).strip("\n"))
    longest = max(map(len, re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        list(map(inline, columns)),
        ["---"] * len(columns),
        *(map(inline, row) for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"
