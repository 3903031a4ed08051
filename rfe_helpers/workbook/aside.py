"""Notebooks of a run that nothing builds on (chapters.ASIDE): they run beside the next ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace

from jupyter_core.utils import ensure_event_loop

from rfe_helpers.core.progress import Say
from rfe_helpers.workbook.engine import Kernel
from rfe_helpers.workbook.results import NotebookResult

# Runs a notebook in the kernel of the context, and tells its progress.
Run = Callable[[Callable[[], AbstractContextManager[Kernel]], Say], NotebookResult]


class Aside:
    """Runs notebooks in a thread, one after the other, each by its number in the run. After an
    error in its block nothing runs on."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._runs: dict[int, Future[NotebookResult]] = {}
        self._kernel: Kernel | None = None

    def __enter__(self) -> Aside:
        return self

    def __exit__(self, *error: object) -> None:
        self.wait(interrupted=any(error))

    def start(self, number: int, kernel: Callable[[], Kernel], run: Run, tell: Say) -> None:
        """Begin a notebook, with a kernel that is made in the thread. What it says is told when it
        ends, in one piece, as the one beside it has its own to say."""

        def run_it() -> NotebookResult:
            lines: list[str] = []
            with closing(ensure_event_loop()):  # this thread's
                result = run(lambda: self._running(kernel()), lines.append)
            tell("\n".join(lines))
            return result

        self._runs[number] = self._thread.submit(run_it)

    @contextmanager
    def _running(self, kernel: Kernel) -> Iterator[Kernel]:
        with closing(kernel) as self._kernel:
            try:
                yield kernel
            finally:
                self._kernel = None

    def results(self) -> dict[int, NotebookResult]:
        """Those of the notebooks that have ended."""
        return {number: run.result() for number, run in self._runs.items() if run.done()}

    def wait(self, *, interrupted: bool) -> dict[int, NotebookResult]:
        """Wait for what still runs, until Ctrl-C, or end it with `interrupted`; returns all."""
        running = {number: run for number, run in self._runs.items() if not run.done()}
        try:
            if not interrupted:
                wait(running.values())
        except KeyboardInterrupt:
            interrupted = True
        while interrupted and wait(running.values(), timeout=0.5).not_done:
            if kernel := self._kernel:
                kernel.interrupt()
        self._thread.shutdown()
        results = self.results()
        for number in running if interrupted else ():
            if results[number].status == "failed":
                results[number] = replace(results[number], status="interrupted", failure=None)
        return results
