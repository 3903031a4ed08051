"""How a matrix ended: the table in the terminal, report.html, Markdown, and JUnit XML.

report.html loads nothing from elsewhere. It begins with a grid, a cell for each combination, in
columns by the last axis; each cell leads to the report of its run, in the directory beside it.
"""

from __future__ import annotations

import html
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from junitparser import Error, JUnitXml, Skipped, TestCase, TestSuite

from rfe_helpers.core import files
from rfe_helpers.core.units import elapsed
from rfe_helpers.workbook import markdown
from rfe_helpers.workbook.junit import END
from rfe_helpers.workbook.matrix.plan import label
from rfe_helpers.workbook.matrix.state import CombinationResult, Matrix
from rfe_helpers.workbook.report import STYLE
from rfe_helpers.workbook.results import FACTS, SIGNS, readable
from rfe_helpers.workbook.show import Table

# The facts in the terminal and in a cell of the grid; the table in the report has all.
IMPORTANT = ("packages", "tree_bytes", "artifact_bytes", "update_bytes")
# An axis may be called packages, too.
_HEADS = {name: title.lower() for name, title in FACTS.items()} | {"packages": "number of packages"}
_STYLE = """
th, td { white-space: nowrap }
.grid { border-collapse: separate; border-spacing: 4px; margin: 1rem -4px }
.grid th { border: 0; padding: .2rem .6rem .2rem 0; font-weight: 600; vertical-align: middle }
.grid td { border: 0; border-radius: 6px; padding: .5rem .7rem; min-width: 9rem;
  background: var(--soft); border-left: 5px solid var(--line) }
.grid td.passed { background: #1b7f3b22; border-left-color: var(--good) }
.grid td.failed, .grid td.interrupted { background: #b3261e22; border-left-color: var(--bad) }
.grid b, .grid span { display: block } .grid span { color: CanvasText; font-size: .9em }
.bar { height: 4px; margin-top: .4rem; border-radius: 2px; background: currentColor; opacity: .5 }
"""


def table(matrix: Matrix, facts: Iterable[str] = IMPORTANT) -> Table:
    """A row for each combination, with those facts that one of them has recorded."""
    results = matrix.results
    facts = [fact for fact in facts if any(fact in result.facts for result in results)]
    axes = [axis.name for axis in matrix.plan.axes]
    heads = ("", *axes, "result", "time", *(_HEADS[fact] for fact in facts))
    rows = [
        (
            str(result.number),
            *(result.values[axis] for axis in axes),
            f"{SIGNS[result.status]} {result.status}",
            _time(result),
            *(_fact(result, fact) for fact in facts),
        )
        for result in results
    ]
    return Table(heads, rows)


def _time(result: CombinationResult) -> str:
    return elapsed(result.seconds) if result.seconds else "–"


def _fact(result: CombinationResult, fact: str) -> str:
    return readable(fact, result.facts[fact]) if fact in result.facts else "–"


def render(matrix: Matrix) -> str:
    """The report as HTML."""
    results = matrix.results
    started = matrix.started.astimezone().strftime("%Y-%m-%d %H:%M")
    passed = sum(result.status == "passed" for result in results)
    notebooks = ", ".join(html.escape(Path(n.path).stem) for n in matrix.plan.notebooks)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>RHEL for Edge workbook, a matrix: {matrix.status}</title>
<style>{STYLE}{_STYLE}</style></head><body>
<h1>RHEL for Edge workbook, a matrix: <span class="{matrix.status}">{matrix.status}</span></h1>
<p>{passed} of {len(results)} combinations passed. Started {started}, took \
{elapsed(matrix.seconds)}.</p>
{_grid(matrix)}
{"".join(_failure(result) for result in results)}
<h2>All combinations</h2>
{table(matrix, FACTS)._repr_html_()}
<p>Notebooks: {notebooks}. {_common(matrix)}</p>
</body></html>
"""


def _grid(matrix: Matrix) -> str:
    """A table with the values of the last axis as columns, if there are two or more axes."""
    *rows, last = matrix.plan.axes
    columns = last.values if rows else ("",)
    cells = {label(result.values): result for result in matrix.results}
    longest = max([result.seconds for result in matrix.results] or [0]) or 1
    lines = []
    if rows:
        heads = "".join(f"<th>{html.escape(f'{last.name}={value}')}</th>" for value in columns)
        lines.append(f"<tr><th></th>{heads}</tr>")
    results = iter(cells.values())
    for row in zip(*[results] * len(columns), strict=True):
        shared = {name: row[0].values[name] for name in [axis.name for axis in rows or [last]]}
        title = html.escape(label(shared)).replace(", ", "<br>")
        lines.append(f"<tr><th>{title}</th>{''.join(_cell(matrix, r, longest) for r in row)}</tr>")
    return f'<table class="grid">{"".join(lines)}</table>'


def _cell(matrix: Matrix, result: CombinationResult, longest: float) -> str:
    name = f"{SIGNS[result.status]} {result.status}"
    if (matrix.folder(result.number) / "report.html").is_file():
        name = f'<a href="{result.number}/report.html">{name}</a>'
    facts = [_time(result)] if result.seconds else []
    facts += [
        f"{_HEADS[fact]}: {_fact(result, fact)}" for fact in IMPORTANT if fact in result.facts
    ]
    lines = "".join(f"<span>{html.escape(fact)}</span>" for fact in facts)
    bar = f'<div class="bar" style="width: {100 * result.seconds / longest:.0f}%"></div>'
    return f'<td class="{result.status}"><b>{name}</b>{lines}{bar if result.seconds else ""}</td>'


def _failure(result: CombinationResult) -> str:
    if not result.message:
        return ""
    return (
        f'<section class="failure"><h3>{html.escape(result.name)}</h3>'
        f"<pre>{html.escape(result.message)}</pre></section>"
    )


def _common(matrix: Matrix) -> str:
    """What all combinations have."""
    plan = matrix.plan
    parts = {**plan.parameters}
    if all(axis.name != "profile" for axis in plan.axes):
        parts = {"profile": plan.profile, **parts}
    words = [label(parts), *plan.options]
    text = ", ".join(filter(None, words))
    return f"In all combinations: {html.escape(text)}." if text else ""


def render_markdown(matrix: Matrix, most: int = markdown.MOST) -> str:
    """The result as Markdown, in at most `most` bytes."""
    return markdown.within(_markdown_parts(matrix), most)


def _markdown_parts(matrix: Matrix) -> Iterator[str]:
    results = matrix.results
    passed = sum(result.status == "passed" for result in results)
    yield f"## RHEL for Edge workbook, a matrix: {SIGNS[matrix.status]} {matrix.status}"
    yield f"{passed} of {len(results)} combinations passed, in {elapsed(matrix.seconds)}."
    summary = table(matrix)
    rows = ([str(value) for value in row] for row in summary.rows)
    yield markdown.table(summary.columns, rows)
    for result in results:
        if result.message:
            yield f"### {markdown.inline(result.name)}\n\n{markdown.fence(result.message)}"


def copy(matrix: Matrix, out: Path) -> None:
    """Copy what a matrix has left to a directory."""
    shutil.copytree(matrix.directory, out, dirs_exist_ok=True)


def write_junit(matrix: Matrix, path: Path) -> None:
    """Write the result as JUnit XML: the suites of all combinations, each named "combination /
    notebook"."""
    document = JUnitXml("rfe run --matrix")
    for result in matrix.results:
        own = matrix.folder(result.number) / "junit.xml"
        suites = (
            list(JUnitXml.fromfile(str(own))) if own.is_file() else [_without_notebooks(result)]
        )
        for suite in suites:
            suite.name = f"{result.name} / {suite.name}"
            document.add_testsuite(suite)
    document.update_statistics()
    files.write(path, document.tostring())


def _without_notebooks(result: CombinationResult) -> TestSuite:
    """The suite of a combination that has not come to its first notebook."""
    case = TestCase(END, result.name)
    case.result = [Skipped("not run")]
    if result.status != "not run":
        case.result = [Error(result.message.partition("\n")[0] or result.status)]
    suite = TestSuite("rfe run")
    suite.add_testcase(case)
    return suite
