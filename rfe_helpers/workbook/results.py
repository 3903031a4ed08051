"""The results of headless runs of notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

Status = Literal["passed", "failed", "interrupted", "not run"]


@dataclass(frozen=True)
class Failure:
    """The cell that failed: its index in the executed copy, its source, and the error.

    `number` is what JupyterLab shows in brackets beside the cell after Run All, None if the cell
    has none. `tail` is the end of `log`: of the log that the error names, or of the kernel's.
    """

    cell: int
    source: str
    error: str
    message: str
    number: int | None = None
    log: str = ""
    tail: str = ""

    @property
    def place(self) -> str:
        return "before its first cell" if self.number is None else f"cell [{self.number}]"


@dataclass(frozen=True)
class NotebookResult:
    """The result of one notebook. `executed` is its copy with outputs, None if it was not run;
    `reason` says why it was not."""

    name: str
    status: Status
    seconds: float = 0.0
    failure: Failure | None = None
    executed: Path | None = None
    reason: str = ""

    def explanation(self) -> str:
        """What failed, in lines for a terminal, the end of the log last; "" if nothing did."""
        if self.failure is None:
            return ""
        lines = [f"✘ {self.name}, {self.failure.place}: {self.failure.error}"]
        lines += [f"  {line}" for line in self.failure.message.splitlines()]
        if self.failure.tail:
            lines.append(f"  the end of {self.failure.log}:")
            lines += [f"  | {line}" for line in self.failure.tail.splitlines()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Summary:
    """The result of a run, which has passed if every notebook has; `directory` has its files.

    `facts` are figures that its notebooks recorded in the lab: docs/ci.md lists them.
    """

    directory: Path
    profile: str
    started: datetime
    seconds: float
    notebooks: tuple[NotebookResult, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

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
            "facts": dict(self.facts),
            "notebooks": [
                {
                    "name": result.name,
                    "status": result.status,
                    "seconds": round(result.seconds, 1),
                    "failure": asdict(result.failure) if result.failure else None,
                    "reason": result.reason,
                }
                for result in self.notebooks
            ],
        }
