"""The results of headless runs of notebooks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

Status = Literal["passed", "failed", "interrupted", "not run"]


@dataclass(frozen=True)
class Failure:
    """The cell that failed: its index in the executed copy, its source, and the error."""

    cell: int
    source: str
    error: str
    message: str


@dataclass(frozen=True)
class NotebookResult:
    """The result of one notebook. `executed` is its copy with outputs, None if it was not run."""

    name: str
    status: Status
    seconds: float = 0.0
    failure: Failure | None = None
    executed: Path | None = None


@dataclass(frozen=True)
class Summary:
    """The result of a run, which has passed if every notebook has; `directory` has its files."""

    directory: Path
    profile: str
    started: datetime
    seconds: float
    notebooks: tuple[NotebookResult, ...]

    @property
    def status(self) -> Status:
        """Interrupted if one notebook was, passed if all have passed, else failed."""
        statuses = {result.status for result in self.notebooks}
        if "interrupted" in statuses:
            return "interrupted"
        return "passed" if statuses == {"passed"} else "failed"

    @property
    def report(self) -> Path:
        """The path of report.html."""
        return self.directory / "report.html"

    def to_json(self) -> dict[str, Any]:
        """The content of summary.json; seconds as numbers, the failing cell under `failure`."""
        return {
            "status": self.status,
            "profile": self.profile,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "report": str(self.report),
            "notebooks": [
                {
                    "name": result.name,
                    "status": result.status,
                    "seconds": round(result.seconds, 1),
                    "failure": asdict(result.failure) if result.failure else None,
                }
                for result in self.notebooks
            ],
        }
