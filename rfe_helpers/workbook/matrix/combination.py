"""One combination of a matrix: `rfe run` in a lab of its own. This runs on a worker of Dask, which
may be on another machine that shares the file system of the labs.

`rfe run` gets SIGTERM when its worker dies. If that worker ran elsewhere, or if SIGTERM was not
enough, the next run of the combination finds the process in the lab's state.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from rfe_helpers import serve
from rfe_helpers.core import files, journal, run
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import LabError, RfeError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import headless
from rfe_helpers.workbook.matrix.state import CombinationStatus, NotebookTime
from rfe_helpers.workbook.results import Failure

_LONGEST = 7 * 86400  # seconds that a run may take
_GRACE = 20  # seconds for a run to end its kernel and to write its report after SIGTERM
_POLL = 1.0


class Job(Struct, frozen=True):
    """What a worker gets: the arguments of `rfe run`, the lab, the directory for what the run
    leaves, and the lock of the command with the word that it wrote into it."""

    number: int
    profile: str
    arguments: tuple[str, ...]
    lab: Path
    results: Path
    lock: Path
    word: str


class CombinationOutcome(Struct, frozen=True):
    """How the run of a combination ended, as `CombinationResult` has it."""

    status: CombinationStatus
    seconds: float = 0.0
    message: str = ""
    facts: dict[str, Any] = {}
    notebooks: tuple[NotebookTime, ...] = ()


def run_combination(job: Job, on_begin: Callable[[], object]) -> CombinationOutcome:
    """Run a combination to its end; what runs in its lab is ended then. It is ended before that,
    and "interrupted", if the command that asked for it ends."""
    began = time.monotonic()
    job.lab.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The worker of a command that was killed may still be at it, for a moment.
        with files.locked(lock_of(job.lab)):
            if not _is_held(job.lock, job.word):
                return CombinationOutcome("not run")
            on_begin()
            return _run(job, began)
    except (RfeError, OSError) as error:
        return CombinationOutcome("failed", time.monotonic() - began, str(error))


def _run(job: Job, began: float) -> CombinationOutcome:
    remove_lab(job.lab)
    shutil.rmtree(job.results, ignore_errors=True)
    job.results.mkdir(parents=True)
    lab = _opened(job.lab, job.profile)
    log = job.results / "output.log"
    watch = _Watch(job, lab)
    try:
        run.run(
            _command(job),
            seconds=_LONGEST,
            # The command itself says to GitHub how the matrix ended.
            env={k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")},
            log=log,
            check=False,
            on_start=watch.begin,
        )
    finally:
        watch.end()
        lab.sweep(serve.remove_container)
    outcome = _outcome(job.results, time.monotonic() - began)
    if watch.has_stopped:
        return CombinationOutcome("interrupted", outcome.seconds, notebooks=outcome.notebooks)
    return outcome


def _command(job: Job) -> list[str]:
    # fmt: off
    return [
        sys.executable, "-m", "rfe_helpers.cli", "run", *job.arguments, "--lab", str(job.lab),
        "--out", str(job.results), "--junit", str(job.results / "junit.xml"), "--json",
    ]
    # fmt: on


class _Watch:
    """Remembers a run in its lab, and ends it if the command no longer holds its lock."""

    def __init__(self, job: Job, lab: Lab) -> None:
        self.has_stopped = False
        self._job = job
        self._lab = lab
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, process: run.ProcessId) -> None:
        self._lab.add_process("run", process)
        self._thread = threading.Thread(target=self._watch, args=(process,), daemon=True)
        self._thread.start()

    def _watch(self, process: run.ProcessId) -> None:
        while not self._over.wait(_POLL):
            if not _is_held(self._job.lock, self._job.word):
                self.has_stopped = True
                run.stop(process, grace=_GRACE)
                return

    def end(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._lab.remove_process("run")


def _is_held(lock: Path, word: str) -> bool:
    """Whether a command holds its lock still."""
    try:
        if lock.read_text() != word:
            return False
        with files.locked(lock, wait=False):
            return False
    except BlockingIOError:
        return True
    except OSError:  # the lab has been removed
        return False


def _outcome(results: Path, seconds: float) -> CombinationOutcome:
    """What a run left in its directory."""
    try:
        summary = json.loads((results / "summary.json").read_text())
    except FileNotFoundError:  # it did not begin, or was killed
        output = (results / "output.log").read_text(errors="replace")
        return CombinationOutcome("failed", seconds, run.tail_of(output) or "the run was killed")
    return CombinationOutcome(
        status=summary["status"],
        seconds=seconds,
        message="; ".join(filter(None, map(_failure, summary["notebooks"]))),
        facts=summary["facts"],
        notebooks=tuple(
            NotebookTime(each["name"], each["status"], each["seconds"])
            for each in summary["notebooks"]
        ),
    )


def _failure(notebook: dict[str, Any]) -> str:
    """What failed in a notebook, in a line; "" if nothing did."""
    if notebook["failure"] is None:
        return ""
    failure = Failure(**notebook["failure"])
    first = failure.message.partition("\n")[0]
    return f"{notebook['name']}, {failure.place}: {failure.error}: {first}"


def sweep_lab(directory: Path) -> None:
    """End what runs in the lab of a combination, such as machines that a killed command left."""
    if (directory / "lab.json").exists():
        _opened(directory).sweep(serve.remove_container)


def remove_lab(directory: Path) -> None:
    """End what runs in the lab of a combination, and remove it. Raises DeadlineExceededError if a
    run keeps working in it."""
    sweep_lab(directory)
    if (directory / "lab.json").exists():
        lab = _opened(directory)
        wait_for(
            lambda: _is_idle(lab),
            Deadline(60),
            f"the run in {directory} ends",
            remedy="end it, and start the matrix again",
        )
        lab.clean(serve.remove_container)
    if directory.exists():
        shutil.rmtree(directory)


def _is_idle(lab: Lab) -> bool:
    """A run that was killed before it was remembered has got SIGTERM and ends soon."""
    try:
        with headless.running(lab):
            return True
    except LabError:
        return False


def lock_of(lab: Path) -> Path:
    return lab.with_name(f"{lab.name}.lock")


def _opened(directory: Path, profile: str | None = None) -> Lab:
    """A lab without a journal: this process has one, but works in several labs at a time."""
    lab = Lab(directory, profile)
    journal.open_journal(None)
    return lab
