"""Runs of a matrix: combinations are handed to Dask, and their ends noted."""

from __future__ import annotations

import itertools
import secrets
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rfe_helpers.core import files, signals
from rfe_helpers.core.progress import OnProgress, Say, say
from rfe_helpers.core.units import elapsed
from rfe_helpers.core.wait import Deadline
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import headless
from rfe_helpers.workbook.matrix import cluster, report, state
from rfe_helpers.workbook.matrix.combination import (
    CombinationOutcome,
    Job,
    remove_lab,
    run_combination,
    sweep_lab,
)
from rfe_helpers.workbook.matrix.plan import MatrixPlan
from rfe_helpers.workbook.matrix.state import CombinationResult, Matrix

if TYPE_CHECKING:
    from distributed import Client, Future

_TOPIC = "rfe-matrix"
_SECONDS_TO_END = 90


def run_matrix(
    plan: MatrixPlan,
    lab: Lab,
    on_progress: OnProgress = None,
    *,
    scheduler: str = "",
    workers: int = 0,
) -> Matrix:
    """Run the combinations of a plan, or those that the last run of the same plan has left; one
    that fails does not end the others. At most `workers` run at a time, 0 for as many as fit.

    Raises LabError while another run is in progress in the lab, and RfeError if there is too little
    memory or no scheduler of Dask at the address `scheduler`. Everything after that, including
    Ctrl-C, is reported in the Matrix, which is on disk with the report when this returns.

        plan = make_plan(parse_axes(["packages=tmux,jq"]), find_notebooks(["20"]), "sandbox", {})
        print(run_matrix(plan, Lab("~/rfe-lab"), print).status)
    """
    tell = say(on_progress)
    with headless.running(lab), signals.ending_once():
        for directory in _labs(lab):  # what a killed command left takes memory
            sweep_lab(directory)
        matrix = state.unfinished(lab, plan)
        open_results = [r for r in matrix.results if r.status != "passed"] if matrix else []
        count = len(open_results) if matrix else len(plan.combinations())
        with _connected(lab, scheduler, min(workers or count, count), tell) as (client, most):
            if matrix is None:
                matrix = _begin(lab, plan, tell)
            else:
                tell(f"continuing {matrix.directory}: {count} of {len(matrix.results)} are left")
            try:
                _Runs(matrix, lab, client, tell).run(most)
            finally:
                _end(matrix, lab)
    return matrix


@contextmanager
def _connected(lab: Lab, scheduler: str, most: int, tell: Say) -> Iterator[tuple[Client, int]]:
    if scheduler:
        with cluster.remote(scheduler) as client:
            yield client, most
    else:
        with cluster.local(lab.folder("matrix", "dask"), most, tell) as connected:
            yield connected


def _begin(lab: Lab, plan: MatrixPlan, tell: Say) -> Matrix:
    """A new matrix, after the labs of the last one have been removed."""
    for directory in _labs(lab):
        tell(f"removing {directory}, of an earlier matrix")
        remove_lab(directory)
    matrix = state.new_matrix(lab, plan)
    tell(f"{len(matrix.results)} combinations: {matrix.directory}")
    return matrix


def _end(matrix: Matrix, lab: Lab) -> None:
    """Write how a matrix has ended, and end what still runs in its labs."""
    matrix.is_running = False
    files.write(matrix.report, report.render(matrix))
    matrix.save()
    for directory in _labs(lab):
        sweep_lab(directory)


def _labs(lab: Lab) -> list[Path]:
    """The labs of combinations."""
    return sorted(path for path in lab.folder("matrix", "labs").iterdir() if path.is_dir())


class _Runs:
    """The runs of one command."""

    def __init__(self, matrix: Matrix, lab: Lab, client: Client, tell: Say) -> None:
        self.matrix = matrix
        self.client = client
        self.tell = tell
        self.labs = lab.folder("matrix", "labs")
        self.lock = lab.path("matrix", "lock")
        self.word = secrets.token_hex(8)
        self.futures: dict[Future[CombinationOutcome], CombinationResult] = {}

    def run(self, most: int) -> None:
        """Run what has not passed, `most` at a time, and note each end."""
        self.client.subscribe_topic(_TOPIC, self._begun)
        self.matrix.is_running = True
        try:
            with files.locked(self.lock):
                self.lock.write_text(self.word)
                self._run_all(most)
        except KeyboardInterrupt:
            # The lock is free now: those that run end themselves.
            self.tell("interrupted: ending what runs")
            deadline = Deadline(_SECONDS_TO_END)
            for future in list(self.futures):
                self._ended(future, _outcome(future, deadline.left))
        finally:
            self.client.unsubscribe_topic(_TOPIC)

    def _run_all(self, most: int) -> None:
        from distributed import as_completed

        waiting = (result for result in self.matrix.results if result.status != "passed")
        first = [self._submit(result) for result in itertools.islice(waiting, most)]
        completed = as_completed(first, loop=self.client.loop)
        for future in completed:
            self._ended(future, _outcome(future, None))
            for following in itertools.islice(waiting, 1):
                completed.add(self._submit(following))

    def _submit(self, result: CombinationResult) -> Future[CombinationOutcome]:
        job = Job(
            number=result.number,
            profile=self.matrix.plan.profile_of(result.values),
            arguments=tuple(self.matrix.plan.arguments(result.values)),
            lab=self.labs / str(result.number),
            results=self.matrix.folder(result.number),
            lock=self.lock,
            word=self.word,
        )
        future = self.client.submit(
            _run_on_worker,
            job,
            key=f"combination-{result.number}-{self.word}",
            resources=cluster.reservation(),
        )
        self.futures[future] = result
        return future

    def _begun(self, event: tuple[float, dict[str, object]]) -> None:
        """Called in a thread of Dask's."""
        message = event[1]
        if message.get("word") == self.word:
            number = int(str(message["number"]))
            self.matrix.begun(number)
            self.tell(f"{self.matrix.results[number - 1].name}: begins")

    def _ended(self, future: Future[CombinationOutcome], outcome: CombinationOutcome) -> None:
        result = self.futures.pop(future)
        values = {name: getattr(outcome, name) for name in outcome.__struct_fields__}
        self.matrix.changed(result.number, **values)
        self.tell(f"{result.name}: {outcome.status} in {elapsed(outcome.seconds)}")
        if outcome.status == "failed":
            for line in outcome.message.splitlines():
                self.tell(f"{result.name}: {line}")


def _run_on_worker(job: Job) -> CombinationOutcome:
    from distributed import get_worker

    worker = get_worker()
    message = {"number": job.number, "word": job.word}
    return run_combination(job, lambda: worker.log_event(_TOPIC, message))


def _outcome(future: Future[CombinationOutcome], seconds: float | None) -> CombinationOutcome:
    """How a combination ended; waits for it so many seconds, None for as long as it takes."""
    try:
        error = future.exception(timeout=seconds)
    except TimeoutError:
        return CombinationOutcome("interrupted", message="it has not ended yet")
    except CancelledError:
        return CombinationOutcome("failed", message="the scheduler has lost it")
    if error is not None:
        return CombinationOutcome("failed", message=f"{type(error).__name__}: {error}")
    outcome: CombinationOutcome = future.result()
    return outcome
