"""How far a matrix is: matrix.json, and which matrix a command continues."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from rfe_helpers.core import files
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.headless import new_directory
from rfe_helpers.workbook.matrix.plan import MatrixPlan, label

CombinationStatus = Literal["not run", "running", "passed", "failed", "interrupted"]


class NotebookTime(Struct, frozen=True):
    """How a notebook of a combination ended, and in how many seconds."""

    name: str
    status: str
    seconds: float


class CombinationResult(Struct, frozen=True):
    """A combination and its last run, if there was one. `message` says what went wrong; `facts` are
    those of `Summary`."""

    number: int
    values: dict[str, str]
    status: CombinationStatus = "not run"
    started: datetime | None = None
    seconds: float = 0.0
    message: str = ""
    facts: dict[str, Any] = {}
    notebooks: tuple[NotebookTime, ...] = ()

    @property
    def name(self) -> str:
        return label(self.values)


class _State(Struct, frozen=True):
    plan: MatrixPlan
    started: datetime
    seconds: float
    combinations: tuple[CombinationResult, ...]


class Matrix:
    """A matrix on disk. `changed` and `begun` may be called in several threads."""

    def __init__(self, directory: Path, state: _State) -> None:
        self.directory = directory
        self.plan = state.plan
        self.started = state.started
        self.is_running = False
        self._results = {result.number: result for result in state.combinations}
        self._seconds_before = state.seconds
        self._began = time.monotonic()
        self._lock = threading.Lock()

    @property
    def results(self) -> list[CombinationResult]:
        return [self._results[number] for number in sorted(self._results)]

    @property
    def seconds(self) -> float:
        """The time that commands have worked on it."""
        return self._seconds_before + time.monotonic() - self._began

    @property
    def status(self) -> str:
        """Running while a command works on it, passed if all combinations have passed, interrupted
        if some were not run to their end, else failed."""
        statuses = {result.status for result in self._results.values()}
        if self.is_running:
            return "running"
        if statuses & {"not run", "running", "interrupted"}:
            return "interrupted"
        return "passed" if statuses == {"passed"} else "failed"

    @property
    def report(self) -> Path:
        """The path of report.html."""
        return self.directory / "report.html"

    def folder(self, number: int) -> Path:
        """The directory of what the last run of a combination left."""
        return self.directory / str(number)

    def changed(self, number: int, **values: Any) -> CombinationResult:
        """Set what is known of a combination, and save it."""
        with self._lock:
            self._results[number] = structs.replace(self._results[number], **values)
            self._save()
            return self._results[number]

    def begun(self, number: int) -> None:
        """Note that a combination has begun, unless it has ended: such a message may be late."""
        with self._lock:
            if self._results[number].status == "not run":
                self._results[number] = structs.replace(
                    self._results[number], status="running", started=datetime.now(UTC)
                )
                self._save()

    def save(self) -> None:
        with self._lock:
            self._save()

    def _save(self) -> None:
        files.write_json(self.directory / "matrix.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The content of matrix.json."""
        state = _State(self.plan, self.started, round(self.seconds, 1), tuple(self.results))
        content: dict[str, Any] = msgspec.to_builtins(state)
        for entry, result in zip(content["combinations"], self.results, strict=True):
            report = self.folder(result.number) / "report.html"
            entry["name"] = result.name
            entry["report"] = str(report) if report.is_file() else None
        return {**content, "status": self.status, "report": str(self.report)}


def unfinished(lab: Lab, plan: MatrixPlan) -> Matrix | None:
    """The last matrix of the lab, to be continued; None if it has another plan or has passed.
    Combinations that have not passed are "not run" again."""
    directory = lab.directory / "matrix" / "latest"
    try:
        directory = directory.resolve(strict=True)
        state = msgspec.convert(json.loads((directory / "matrix.json").read_text()), _State)
    except (OSError, ValueError):  # none yet, or of another version of the workbook
        return None
    passed = [result for result in state.combinations if result.status == "passed"]
    if state.plan != plan or len(passed) == len(state.combinations):
        return None
    # The values by axis in the order of the axes, which JSON does not keep.
    again = tuple(
        structs.replace(result, values=values)
        if result.status == "passed"
        else CombinationResult(result.number, values)
        for result, values in zip(state.combinations, plan.combinations(), strict=True)
    )
    return Matrix(directory, structs.replace(state, combinations=again))


def new_matrix(lab: Lab, plan: MatrixPlan) -> Matrix:
    """A matrix of which nothing has been run, the last one from now on."""
    started = datetime.now(UTC)
    combinations = tuple(
        CombinationResult(number, values)
        for number, values in enumerate(plan.combinations(), start=1)
    )
    state = _State(plan, started.replace(microsecond=0), 0.0, combinations)
    matrix = Matrix(new_directory(lab.folder("matrix"), started), state)
    matrix.save()
    return matrix
