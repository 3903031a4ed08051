"""Papermill's engine with a client that reports its progress, for headless runs."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

from jupyter_core.utils import ensure_event_loop
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from traitlets.config import Config

from rfe_helpers.core.progress import Say
from rfe_helpers.workbook import exercises
from rfe_helpers.workbook.exercises import is_solution
from rfe_helpers.workbook.progress import PROGRESS, Sparing

NAME = "rfe"
# In the metadata of what a cell displays, such as a check: when the kernel sent it, as ISO 8601.
SENT = "sent"


class Engine(NBClientEngine):  # type: ignore[misc]
    """The engine `NAME`. It takes `tell`, which gets each line of progress, `kernel_log`, the file
    for the output of the kernel, and `solve`, which does the exercises, too."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, *, solve: bool, **options: Any) -> Any:
        if solve:
            exercises.insert_solutions(nb)
        return super().execute_notebook(nb, kernel_name, **options)

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, tell: Say, kernel_log: Path, **options: Any
    ) -> None:
        settings = {key: options[key] for key in ("log_output", "stdout_file", "stderr_file")}
        # Other users of the host cannot reach a kernel on Unix sockets.
        with tempfile.TemporaryDirectory(prefix="rfe-kernel-") as sockets:
            transport = {"transport": "ipc", "ip": f"{sockets}/kernel"}
            client = _Client(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=options["start_timeout"],
                timeout=None,
                config=Config({"KernelManager": transport}),
                **settings,
            )
            client.tell, client.worth_telling = tell, Sparing()
            client.count = sum(has_number(cell) for cell in nb_man.nb.cells)
            # Nobody clicks in a run, even if it was started from an open notebook.
            environment = {k: v for k, v in os.environ.items() if k != "JPY_SESSION_NAME"}
            with kernel_log.open("ab") as log:
                client.execute(stdout=log, stderr=log, env=environment)


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    """Runs cells, and reports their titles and the progress that they display."""

    tell: Say
    worth_telling: Sparing
    count: int
    _number = 0
    _title = ""
    _shown = ""

    def execute_cell(self, cell: Any, index: int, **options: Any) -> Any:
        if cell.cell_type == "markdown":
            self._title = title_of(cell.source) or self._title
            return cell
        # Cells keep the numbers that they get in JupyterLab, where nothing is injected.
        counts = has_number(cell)
        self._number += counts
        if self._title and counts:
            self.tell(f"    [{self._number:2}/{self.count}] {self._title}")
            self._title = ""
        try:
            return super().execute_cell(cell, index, store_history=counts, **options)
        except KeyboardInterrupt:
            _abandon_tasks()
            raise
        finally:
            if not counts:
                cell.execution_count = None

    def process_message(self, message: Any, cell: Any, index: int) -> Any:
        line = message["content"].get("data", {}).get(PROGRESS, "")
        ends = line[:1] in ("✔", "✘")
        if line and line != self._shown and (ends or self.worth_telling(line)):
            self._shown = line
            self.tell(f"            {line}")
        output = super().process_message(message, cell, index)
        if output is not None and output.output_type == "display_data":
            output.metadata[SENT] = message["header"]["date"].isoformat()
        return output


def has_number(cell: Any) -> bool:
    """Whether it is a code cell of the notebook itself with something in it, which JupyterLab
    numbers, not one that is inserted for a run."""
    injected = "injected-parameters" in cell.metadata.get("tags", ()) or is_solution(cell)
    return cell.cell_type == "code" and bool(cell.source.strip()) and not injected


def _abandon_tasks() -> None:
    """Retrieve the results of the cell's tasks after Ctrl-C: asyncio prints a traceback for tasks
    that fail, here because their kernel ends, unless their results are retrieved."""
    for task in asyncio.all_tasks(ensure_event_loop()):
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


def title_of(markdown: str) -> str:
    """The text of the first heading of a markdown cell, "" if it has none."""
    return next((line.lstrip("# ") for line in markdown.splitlines() if line.startswith("#")), "")


papermill_engines.register(NAME, Engine)
