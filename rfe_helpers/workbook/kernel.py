"""The IPython extension of the kernels of `rfe lab open`: what a reader sees below a cell, beside
its own output.

JupyterLab loads it through `jupyter_settings/kernels/python3`, a kernelspec that it finds through
JUPYTER_PATH. What is to happen after a cell is a function in AFTER_CELL, which gets IPython's
ExecutionResult: of the cell as it ran, with its id and its error. Headless runs have none of it.
What ran is noted in the lab for a trainer (workbook/activity.py).
"""

from __future__ import annotations

import html
import json
import os
import symtable
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rfe_helpers.workbook import activity
from rfe_helpers.workbook.chapters import number_of
from rfe_helpers.workbook.show import Markup, display

# Set by Jupyter's server for the kernel of a document: the path of its file.
DOCUMENT = "JPY_SESSION_NAME"
JAVASCRIPT = "application/javascript"
TRANSIENT = "rfe-transient"  # metadata of an output that jupyter_server_config.py does not save
# Run All leaves the window at the end of the notebook, far below a cell that fails: show the error,
# unless it is on the screen. Once: an output is drawn again when its cell moves.
_GO_TO_ERROR = """(window.rfeErrors ??= new Set()).has(ID) || setTimeout(() => {
  const cell = element.closest('.jp-Cell');
  const errors = cell.querySelectorAll('[data-mime-type="application/vnd.jupyter.stderr"]');
  const error = errors[errors.length - 1] || cell, box = error.getBoundingClientRect();
  if (box.bottom < 0 || box.top > window.innerHeight) error.scrollIntoView({block: 'center'});
}, 300);
window.rfeErrors.add(ID);"""


def load_ipython_extension(shell: Any) -> None:
    """Called by IPython when the kernel starts."""
    if DOCUMENT in os.environ:
        shell.events.register("pre_run_cell", note_beginning)
        for function in AFTER_CELL:
            shell.events.register("post_run_cell", function)


def note_beginning(info: Any) -> None:
    """Before a cell: note that it runs."""
    _note("running", info.cell_id)


def note_end(result: Any) -> None:
    """After a cell: note whether it failed, or was the last one that the notebook needs."""
    cell = result.info.cell_id
    error = result.error_before_exec or result.error_in_exec
    if error is not None:
        _note("failed", cell, _first_line(error))
    else:
        _note("done" if cell and cell == _last_cell() else "ran", cell)


def _note(event: activity.Event, cell: str | None, error: str = "") -> None:
    lab, number = os.environ.get("RFE_LAB"), number_of(Path(os.environ[DOCUMENT]).name)
    if lab and number.isdigit():
        activity.record(Path(lab), number, event, cell=cell or "", error=error)


def say_run_above(result: Any) -> None:
    """After a NameError for something that a cell above defines: say what to do."""
    error = result.error_in_exec
    if type(error) is NameError and error.name in set(_names_above(result.info.cell_id)):
        text = (
            f"A cell above defines {error.name}, and has not been run since the kernel started.\n"
            "to do: run the cells above (Run → Run All Above Selected Cell), then this one again"
        )
        display(Markup(f"<pre><b>{html.escape(text)}</b></pre>", text))


def go_to_error(result: Any) -> None:
    """Scroll to a cell that failed."""
    if result.error_in_exec is not None or result.error_before_exec is not None:
        script = _GO_TO_ERROR.replace("ID", f"'{time.time_ns()}'")
        display({JAVASCRIPT: script}, raw=True, metadata={TRANSIENT: True})


AFTER_CELL = (note_end, say_run_above, go_to_error)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _cells() -> list[Any]:
    """The cells of the notebook, as it was last saved."""
    try:
        cells = json.loads(Path(os.environ[DOCUMENT]).read_text())["cells"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return list(cells)


def _last_cell() -> str:
    """The id of the last cell with code in front of the exercise."""
    last = ""
    for each in _cells():
        source = "".join(each.get("source", ()))
        if each.get("cell_type") == "markdown" and source.startswith("## Exercise"):
            break
        if each.get("cell_type") == "code" and source.strip():
            last = each.get("id", "")
    return last


def _names_above(cell: str) -> Iterator[str]:
    """The names that cells above `cell` define."""
    for each in _cells():
        if each.get("id") == cell:
            return
        if each.get("cell_type") == "code":
            yield from _defined("".join(each.get("source", ())))


def _defined(source: str) -> set[str]:
    """The names that a cell gives a value to, outside of functions and classes."""
    try:
        symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    except SyntaxError:
        return set()
    return {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}
