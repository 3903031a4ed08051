"""Papermill's engine with a client that reports its progress, for headless runs."""

from __future__ import annotations

import ast
import asyncio
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop, run_sync
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from rfe_helpers.core.progress import Say
from rfe_helpers.workbook import exercises
from rfe_helpers.workbook.exercises import is_solution
from rfe_helpers.workbook.progress import PROGRESS, Sparing

NAME = "rfe"
# In the metadata of what a cell displays, such as a check: when the kernel sent it, as ISO 8601.
SENT = "sent"
_IMPORTS = (ast.Import, ast.ImportFrom)


class Kernel:
    """A kernel in a directory, which starts at once, with its output in a log. It runs the Python
    code `first` before any cell, which does not see the names that this defines."""

    def __init__(self, name: str, directory: Path, log: Path, first: str = "") -> None:
        # Other users of the host cannot reach a kernel on Unix sockets.
        self._sockets = tempfile.TemporaryDirectory(prefix="rfe-kernel-")
        transport = {"transport": "ipc", "ip": f"{self._sockets.name}/kernel"}
        self.manager = AsyncKernelManager(kernel_name=name, **transport)
        # Nobody clicks in a run, even if it was started from an open notebook.
        environment = {k: v for k, v in os.environ.items() if k != "JPY_SESSION_NAME"}
        with log.open("ab") as output:
            start = run_sync(self.manager.start_kernel)
            arguments = [f"--IPKernelApp.exec_lines=exec({first!r}, {{}})"] if first else []
            start(
                cwd=str(directory),
                stdout=output,
                stderr=output,
                env=environment,
                extra_arguments=arguments,
            )

    def close(self) -> None:
        """End the kernel, if it still runs."""
        with suppress(RuntimeError):  # it has ended
            run_sync(self.manager.shutdown_kernel)(now=True)
        self._sockets.cleanup()


class Kernels:
    """The kernels of a run: one for each of `notebooks`, with their logs in `directory`. That of
    the next notebook starts while one runs, and imports what it imports: nothing waits for it."""

    def __init__(self, name: str, notebooks: Sequence[Path], directory: Path) -> None:
        self._name, self._notebooks, self._directory = name, notebooks, directory
        self._ahead: dict[int, Kernel] = {}

    @contextmanager
    def of(self, number: int) -> Iterator[Kernel]:
        """The kernel of a notebook, by its place among them, until the block ends."""
        ahead = self._ahead.pop(number) if number in self._ahead else self._start(number)
        with closing(ahead) as kernel:
            self.close()
            if number + 1 < len(self._notebooks):
                self._ahead[number + 1] = self._start(number + 1)
            yield kernel

    def close(self) -> None:
        """End a kernel whose notebook does not run."""
        while self._ahead:
            number, kernel = self._ahead.popitem()
            kernel.close()
            self._log(number).unlink()

    def _start(self, number: int) -> Kernel:
        notebook = self._notebooks[number]
        return Kernel(self._name, notebook.parent, self._log(number), imports(notebook))

    def _log(self, number: int) -> Path:
        return self._directory / f"{self._notebooks[number].stem}.log"


class Engine(NBClientEngine):  # type: ignore[misc]
    """The engine `NAME`. It takes `tell`, which gets each line of progress, `kernel`, and `solve`,
    which does the exercises, too."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, *, solve: bool, **options: Any) -> Any:
        if solve:
            exercises.insert_solutions(nb)
        return super().execute_notebook(nb, kernel_name, **options)

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, tell: Say, kernel: Kernel, **options: Any
    ) -> None:
        settings = {key: options[key] for key in ("log_output", "stdout_file", "stderr_file")}
        client = _Client(
            nb_man,
            km=kernel.manager,
            startup_timeout=options["start_timeout"],
            timeout=None,
            **settings,
        )
        client.tell, client.worth_telling = tell, Sparing()
        client.count = sum(has_number(cell) for cell in nb_man.nb.cells)
        client.execute(cleanup_kc=True)


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


def imports(notebook: Path) -> str:
    """The statements of a notebook's cells that import, a line each."""
    lines: list[str] = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            with suppress(SyntaxError):  # the cell reports it
                body = ast.parse(cell.source).body
                lines += [ast.unparse(each) for each in body if isinstance(each, _IMPORTS)]
    return "\n".join(lines)


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
