"""report.html: a report about a headless run, in one file that loads nothing from elsewhere.

A failing cell comes first, then the facts of the run, the result of each notebook, and the executed
notebooks as nbconvert renders them, with their pictures embedded. It fits a window of 375 pixels:
what is wider scrolls by itself.
"""

from __future__ import annotations

import base64
import html
import mimetypes
import re
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import ansi2html
from pygments.formatters import HtmlFormatter

from rfe_helpers.core.units import elapsed
from rfe_helpers.workbook.results import SIGNS, NotebookResult, Summary

_PAPERMILL_MARKER = "papermill-error-cell-tag"
_PICTURE = re.compile(r"!\[[^]]*\]\(([^):]+)\)")

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --good: #1b7f3b; --bad: #b3261e;
  --jp-success-color0: var(--good); --jp-border-color1: var(--line) }
@media (prefers-color-scheme: dark) { :root { --good: #6fd08c; --bad: #ff8a80 }
  .highlight * { color: inherit !important } }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: break-word; -webkit-text-size-adjust: 100% }
h1, h2, h3 { line-height: 1.25 } a { color: inherit }
table { border-collapse: collapse; margin: .5rem 0; font-size: .92em; display: block;
  overflow-x: auto; max-width: 100% }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .8rem .2rem 0; text-align: left;
  vertical-align: top }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: .85em }
code { font-size: .9em; overflow-wrap: anywhere } img, svg { max-width: 100%; height: auto }
svg, img[src$=".svg"], img[src^="data:image/svg"] { background: #fff }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); margin: 1rem 0;
  gap: .6rem 1rem; padding: .8rem 1rem; border: 1px solid var(--line); border-radius: 6px }
.facts dt { font-size: .85em; opacity: .75 }
.facts dd { margin: 0; font-size: .9em; font-weight: 600 }
.highlight { background: var(--soft); padding: .6rem .8rem; border-radius: 4px }
.jp-InputPrompt, .jp-OutputPrompt, .prompt, .anchor-link { display: none }
.jp-Cell, .cell { margin: .7rem 0 }
.jp-OutputArea-child, .output_subarea, .output_area { margin: .4rem 0 .4rem .8rem; min-width: 0;
  max-width: 100%; overflow-x: auto }
details.notebook { border-top: 1px solid var(--line); padding: .6rem 0 }
details.notebook > summary { cursor: pointer; font-size: 1.15em; font-weight: 600 }
.passed { color: var(--good) } .failed, .interrupted { color: var(--bad) }
.failure { border-left: 4px solid var(--bad); padding: .2rem 1rem; margin: 1rem 0 }
"""


def render(summary: Summary) -> str:
    """The report as HTML."""
    started = summary.started.astimezone().strftime("%Y-%m-%d %H:%M")
    rows = "".join(_row(result) for result in summary.notebooks)
    failures = "".join(_failure(result) for result in summary.notebooks)
    bodies = "".join(_notebook(result) for result in summary.notebooks)
    code_style = HtmlFormatter(style="default").get_style_defs(".highlight")
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>RHEL for Edge workbook: {summary.status}</title>
<style>{code_style}{STYLE}</style></head><body>
<h1>RHEL for Edge workbook: <span class="{summary.status}">{summary.status}</span></h1>
<p>Profile {html.escape(summary.profile)}, started {started}, took {elapsed(summary.seconds)}.</p>
{failures}{_facts(summary)}
<table><thead><tr><th>Notebook</th><th>Result</th><th>Time</th></tr></thead>
<tbody>{rows}</tbody></table>
{bodies}
</body></html>
"""


def _facts(summary: Summary) -> str:
    """The facts of the run as a box, without those that its notebooks did not record."""
    pairs = "".join(
        f"<div><dt>{title}</dt><dd>{html.escape(value)}</dd></div>"
        for title, value in summary.readable_facts().items()
    )
    return f'<dl class="facts">{pairs}</dl>' if pairs else ""


def _row(result: NotebookResult) -> str:
    name = html.escape(result.name)
    link = f'<a href="#{name}">{name}</a>' if result.executed else name
    took = elapsed(result.seconds) if result.executed else "–"
    reason = f": {result.reason}" if result.reason else ""
    label = html.escape(f"{SIGNS[result.status]} {result.status}{reason}")
    return f'<tr><td>{link}</td><td class="{result.status}">{label}</td><td>{took}</td></tr>'


def _failure(result: NotebookResult) -> str:
    if result.failure is None:
        return ""
    failure = result.failure
    title = html.escape(f"{result.name} stopped, {failure.place}")
    log = ""
    if failure.tail:
        log = f"<p>The end of {html.escape(failure.log)}:</p><pre>{ansi2html(failure.tail)}</pre>"
    return (
        f'<section class="failure"><h2>{title}</h2>'
        f"<p><b>{html.escape(failure.error)}</b></p><pre>{ansi2html(failure.text)}</pre>"
        f"{log}<p>The cell:</p><pre>{html.escape(failure.source)}</pre></section>"
    )


def _notebook(result: NotebookResult) -> str:
    """An executed notebook, folded if it passed."""
    if result.executed is None or not result.executed.is_file():
        return ""
    state = "" if result.status == "passed" else " open"
    name = html.escape(result.name)
    return (
        f'<details class="notebook" id="{name}"{state}><summary>{name}</summary>'
        f"{_body(result.executed)}</details>"
    )


def _body(executed: Path) -> str:
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [
        cell for cell in notebook.cells if _PAPERMILL_MARKER not in cell.metadata.get("tags", ())
    ]
    # Pictures in the text are relative to the notebook, not to its executed copy.
    source = Path(notebook.metadata.papermill.input_path).parent
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            _attach_pictures(cell, source)
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    return str(body)


def _attach_pictures(cell: nbformat.NotebookNode, directory: Path) -> None:
    """Put the pictures of a text into it. HTMLExporter's embed_images does so, too, but it closes
    each HTML element at the end of its block: what is in <details> would stand below it."""
    for name in set(_PICTURE.findall(cell.source)):
        picture = directory / name
        if picture.is_file():
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            data = base64.b64encode(picture.read_bytes()).decode()
            cell.setdefault("attachments", {})[picture.name] = {kind: data}
            cell.source = cell.source.replace(f"]({name})", f"](attachment:{picture.name})")
