"""The queue of composes: builds one at a time, in a thread; the state is in the store.

A compose's directory is `composes/<id>/` in the state directory. Its log, osbuild.log, holds the
output of the build's commands, in one block for each stage:

    Pipeline: <pipeline>
    Stage: <stage>
    Output:
    …

When a service ends in an orderly way, its running compose goes back into the queue. When it was
killed, the next service ends the processes that are left of the build and queues the compose
again, once; after the second time it is FAILED, with the reason in its log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from rfe_helpers.core import files, run
from rfe_helpers.core.run import ProcessId
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError, RfeError
from rfe_helpers.sandbox.build.mmdebstrap import remove_abandoned
from rfe_helpers.sandbox.build.tree import Request, Work
from rfe_helpers.sandbox.service.store import (
    RUNNING,
    Store,
    StoredCompose,
    UnknownError,
    WrongStateError,
)

BUILD_SECONDS = 2 * 3600
MAXIMUM_ATTEMPTS = 2
LOG = "osbuild.log"
_log = logging.getLogger(__name__)


# Builds a compose (artifacts.build): returns the artifact, a file in `work.directory`, or raises
# RfeError. It reports each stage before it begins and each process that it starts, does not catch
# what these two callbacks raise, and may be killed at any moment and run again.
Builder = Callable[[Request, Work], Path]


class _StoppedError(Exception):
    """The running build should end: its compose was cancelled, or the service ends."""


class Queue:
    """Builds the composes that wait in the store. `start` it once, `stop` it at the end.

    `directory` holds the directories of composes, `cache` what builds share.
    """

    def __init__(self, store: Store, directory: Path, cache: Path, builder: Builder) -> None:
        self.store = store
        self.directory = directory
        self._cache = cache
        self._builder = builder
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="queue", daemon=True)
        self._guard = threading.Lock()
        self._ending = False
        self._current = ""
        self._stopped = False
        self._process: ProcessId | None = None

    def start(self) -> None:
        """Clean up after the last service, then begin to build."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for interrupted in self.store.composes(RUNNING):
            self._recover(interrupted)
        known = {compose.id for compose in self.store.composes()}
        for leftover in self.directory.iterdir():
            if leftover.name not in known:
                shutil.rmtree(leftover, ignore_errors=True)
        self._thread.start()

    def stop(self) -> None:
        """End the running build and put its compose back into the queue."""
        with self._guard:
            self._ending = True
        self._wake.set()
        self._interrupt(self._current)
        self._thread.join()

    def wake(self) -> None:
        """Tell the queue that a compose waits in the store."""
        self._wake.set()

    def cancel(self, identity: str) -> None:
        """Make a waiting or running compose FAILED at once; its build ends soon after.

        Raises UnknownError, WrongStateError.
        """
        self.store.fail(identity)
        self._note(identity, "Error: the compose was cancelled.")
        threading.Thread(target=self._interrupt, args=(identity,), daemon=True).start()

    def delete(self, identity: str) -> None:
        """Forget a compose that has ended, with all its files. Raises UnknownError,
        WrongStateError."""
        self.store.delete_compose(identity)
        with self._guard:
            ending = self._current == identity  # cancelled, or finished, a moment ago
        if not ending:
            shutil.rmtree(self.path(identity), ignore_errors=True)

    def path(self, identity: str, *parts: str) -> Path:
        """A path in the directory of a compose."""
        return self.directory.joinpath(identity, *parts)

    def log(self, identity: str) -> Path:
        return self.path(identity, LOG)

    # the thread -----------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._ending:
            self._wake.clear()
            try:
                compose = self._next()
                if compose is None:
                    self._wake.wait()
                else:
                    self._build(compose)
            except Exception:
                # For example a full disk: it may pass, and requests are answered meanwhile.
                _log.exception("the queue has stopped; it tries again in 10 s")
                self._wake.wait(10)

    def _next(self) -> StoredCompose | None:
        with self._guard:
            if self._ending:
                return None
            for interrupted in self.store.composes(RUNNING):
                self._recover(interrupted)
            compose = self.store.start_next()
            if compose is not None:
                self._current, self._stopped, self._process = compose.id, False, None
            return compose

    def _build(self, compose: StoredCompose) -> None:
        directory = self.path(compose.id)
        artifact = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            work = Work(
                directory=directory,
                cache=self._cache,
                log=self.log(compose.id),
                deadline=Deadline(BUILD_SECONDS),
                on_stage=lambda pipeline, stage: self._on_stage(compose.id, pipeline, stage),
                on_process=lambda process: self._on_process(compose.id, process),
            )
            artifact = self._builder(_request(compose), work)
            if artifact.parent != directory:
                raise BuilderError(f"the artifact {artifact} is not in {directory}")
            self.store.finish(compose.id, artifact=artifact.name)
        except Exception as error:
            self._failed(compose, error)
        finally:
            try:
                _tidy(directory, artifact)
            finally:
                with self._guard:
                    self._current, self._process = "", None
                self._remove_deleted(compose.id)

    def _remove_deleted(self, identity: str) -> None:
        """Remove the files of a compose that was deleted while its build ended."""
        try:
            self.store.compose(identity)
        except UnknownError:
            shutil.rmtree(self.path(identity), ignore_errors=True)

    def _failed(self, compose: StoredCompose, error: Exception) -> None:
        """Handle what a build raised: because it was stopped, or because it failed."""
        if self._stopped:
            if self._ending:
                self.store.requeue(compose.id, forgive=True)
            return
        if isinstance(error, UnknownError | WrongStateError):
            return  # cancelled, and maybe deleted, just as it ended
        if not isinstance(error, RfeError | OSError):
            _log.error("compose %s: unexpected error", compose.id, exc_info=error)
        if isinstance(error, OSError) and files.is_full(error):
            error = files.disk_full([Path(error.filename or self.path(compose.id))])
        _tidy(self.path(compose.id), None)  # first: the disk may have no room for the note
        self._note(compose.id, f"Error: {error}")
        with contextlib.suppress(UnknownError, WrongStateError):
            self.store.fail(compose.id)

    def _on_stage(self, identity: str, pipeline: str, stage: str) -> None:
        if self._stopped:
            raise _StoppedError
        block = f"Pipeline: {pipeline}\nStage: {stage}\nOutput:\n"
        with self.log(identity).open("a") as log:
            log.write(block)

    def _on_process(self, identity: str, process: ProcessId) -> None:
        self.store.set_process(identity, process)
        with self._guard:
            self._process = process
            stopped = self._stopped
        if stopped:
            raise _StoppedError

    def _interrupt(self, identity: str) -> None:
        """Stop the build of a compose if it is the running one."""
        with self._guard:
            if not identity or self._current != identity:
                return
            self._stopped = True
            process = self._process
        if process is not None:
            run.stop(process)

    # after a crash --------------------------------------------------------------------------------

    def _recover(self, compose: StoredCompose) -> None:
        if compose.process is not None:
            run.kill(compose.process)
        for process in _processes_of(self.path(compose.id)):
            run.kill(process)
        remove_abandoned()
        _tidy(self.path(compose.id), None)
        if compose.attempts < MAXIMUM_ATTEMPTS:
            self._note(
                compose.id, "The service was ended while this was building; it starts again."
            )
            self.store.requeue(compose.id, forgive=False)
        else:
            self._note(
                compose.id,
                f"Error: the service was ended {compose.attempts} times while this was building;"
                " it is not tried again.",
            )
            self.store.fail(compose.id)

    def _note(self, identity: str, text: str) -> None:
        """Add a line to a compose's log; a log that cannot be written is not a failure."""
        with contextlib.suppress(OSError, UnknownError):
            self.store.compose(identity)  # a compose that was deleted meanwhile gets no directory
            self.path(identity).mkdir(parents=True, exist_ok=True)
            with self.log(identity).open("a") as log:
                log.write(f"{text}\n")


def _request(compose: StoredCompose) -> Request:
    plan = compose.plan
    return Request(
        id=compose.id,
        image_type=plan.kind,
        ref=plan.ref,
        blueprint=plan.blueprint,
        packages=plan.packages,
        sources=plan.sources,
        parent=plan.parent,
        url=plan.url,
        kernel=plan.kernel,
        size=plan.size,
    )


def _tidy(directory: Path, artifact: Path | None) -> None:
    """Remove what a build leaves beside its results: a tree takes hundreds of megabytes."""
    for entry in directory.iterdir() if directory.is_dir() else ():
        if entry != artifact and entry.name not in ("manifest.json", LOG):
            with contextlib.suppress(OSError):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()


def _processes_of(directory: Path) -> list[ProcessId]:
    """Leaders of process groups that name a compose's directory on their command line.

    A process may have been started just before its identity was stored. Programs that read the
    log of a compose do not count.
    """
    leaders: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if os.fsencode(directory) in line.replace(os.fsencode(directory / LOG), b""):
                    leaders.add(os.getpgid(int(entry.name)))
    leaders.discard(os.getpgrp())
    return [identity for pid in leaders if (identity := ProcessId.of(pid)) is not None]
