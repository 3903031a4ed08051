"""Exercises at the end of notebooks: their check, and their solutions.

A section `## Exercise` says what to do, and its folded part how, with the code of the solution in
a fence of its own:

    <details><summary>How</summary>

    ```python
    client.push(build.Blueprint("training", packages=["htop"]))
    ```

    </details>

A reader puts that into a cell. `insert_solutions` does the same before a run, so that exercises are
tested, too: the code stands in front of the cell with the check.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rfe_helpers.errors import RfeError
from rfe_helpers.workbook.show import Markup

if TYPE_CHECKING:
    from nbformat import NotebookNode

TAG = "solution"
_OPEN = "○ still open: "


def exercise(task: str, done: Callable[[], object], to_do: str) -> Markup:
    """Whether an optional exercise is done, and if not, what to do. It never fails a run, whatever
    `done()` returns or raises of the errors that an open exercise causes.

    >>> from rfe_helpers.workbook import exercise
    >>> names = ["tmux"]
    >>> exercise("htop is in the commit", lambda: "htop" in names, "Add it to the blueprint.")
    ○ still open: htop is in the commit. Add it to the blueprint.
    """
    reason = ""
    try:
        solved = bool(done())
    except RfeError as error:
        solved, reason = False, f" ({error.message})"
    except (LookupError, TypeError, ValueError) as error:  # an answer of another type
        solved, reason = False, f" ({type(error).__name__}: {error})"
    if solved:
        green = "var(--jp-success-color0, #1b7f3b)"
        return Markup(f'<b style="color: {green}">✔</b> {html.escape(task)}', f"✔ {task}")
    text = f"{_OPEN}{task}. {to_do}{reason}"
    return Markup(html.escape(text), text)


def solution(markdown: str) -> str:
    """The code in the folded part of an exercise, "" for other texts."""
    _, _, folded = markdown.partition("<details>")
    return "\n".join(_fenced(folded.split("\n"))).rstrip()


def _fenced(lines: Iterable[str]) -> Iterator[str]:
    """The text of each fence of Python, which begins and ends with a line of its own."""
    fenced: list[str] | None = None
    for line in lines:
        if fenced is None:
            fenced = [] if line == "```python" else None
        elif line == "```":
            yield "".join(f"{each}\n" for each in fenced)
            fenced = None
        else:
            fenced.append(line)


def is_solution(cell: NotebookNode) -> bool:
    return TAG in cell.metadata.get("tags", ())


def insert_solutions(notebook: NotebookNode) -> None:
    """Put the solution of each exercise into a cell in front of its check."""
    from nbformat.v4 import new_code_cell  # here: a notebook that only checks needs nothing of it

    cells: list[NotebookNode] = []
    code = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            code = solution(cell.source)
        elif code and "exercise(" in cell.source:
            identity = f"{cell.get('id', 'exercise')[:50]}-solution"  # of at most 64 characters
            cells.append(new_code_cell(code, id=identity, metadata={"tags": [TAG]}))
            code = ""
        cells.append(cell)
    notebook.cells = cells


def open_exercise(notebook: NotebookNode) -> tuple[int, str] | None:
    """The first cell whose exercise is still open although the solution before it has run: its
    index and what it shows. None if each solution solves its exercise."""
    for index, cell in enumerate(notebook.cells[1:], 1):
        if is_solution(notebook.cells[index - 1]):
            for text in map(_shown, cell.get("outputs", ())):
                if text.startswith(_OPEN):
                    return index, text
    return None


def _shown(output: Any) -> str:
    return str(output.get("data", {}).get("text/plain", ""))
