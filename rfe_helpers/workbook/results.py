"""The results of headless runs of notebooks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from nbconvert.filters import strip_ansi

from rfe_helpers.core.masking import mask
from rfe_helpers.core.units import size

Status = Literal["passed", "failed", "interrupted", "not run"]
SIGNS = {"passed": "✔", "failed": "✘", "interrupted": "■", "not run": "–", "running": "…"}
# The titles of facts.
FACTS = {
    "commit": "Commit",
    "version": "Version",
    "packages": "Packages",
    "tree_bytes": "Size",
    "artifact_bytes": "Size of the archive",
    "update": "Update",
    "update_bytes": "Bytes of the update",
    "reboot_seconds": "Reboot into it",
    "rollback_seconds": "Rollback",
}
# What neither XML nor a page can hold.
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Failure:
    """The cell that failed: its index in the executed copy, its source, and the error.

    `remedy` says what to do, "" if the error does not. `number` is what JupyterLab shows in
    brackets beside the cell after Run All, None if the cell has none. `tail` is the end of `log`:
    of the log that the error names, or of the kernel's. `output` is the end of what the cell has
    shown, as text without secrets.
    """

    cell: int
    source: str
    error: str
    message: str
    number: int | None = None
    log: str = ""
    tail: str = ""
    remedy: str = ""
    output: str = ""

    @property
    def text(self) -> str:
        """The message and the remedy, as the error itself prints them."""
        return f"{self.message}\nto do: {self.remedy}" if self.remedy else self.message

    @property
    def place(self) -> str:
        return "before its first cell" if self.number is None else f"cell [{self.number}]"


@dataclass(frozen=True)
class NotebookResult:
    """The result of one notebook. `executed` is its copy with outputs, None if it was not run;
    `reason` says why it was not; `path` is that of the notebook."""

    name: str
    status: Status
    seconds: float = 0.0
    failure: Failure | None = None
    executed: Path | None = None
    reason: str = ""
    path: Path | None = None

    def explanation(self) -> str:
        """What failed, in lines for a terminal, the end of the log last; "" if nothing did."""
        if self.failure is None:
            return ""
        lines = [f"✘ {self.name}, {self.failure.place}: {self.failure.error}"]
        lines += [f"  {line}" for line in self.failure.text.splitlines()]
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

    def readable_facts(self) -> dict[str, str]:
        """The facts by their titles, as texts with their units."""
        return {
            title: readable(fact, self.facts[fact])
            for fact, title in FACTS.items()
            if fact in self.facts
        }

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


def readable(name: str, value: Any) -> str:
    """A fact as people read it, by its name."""
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_seconds"):
        return f"{value} s"
    return str(value)[:12] if name in ("commit", "update") else str(value)


def plain(text: str) -> str:
    """A text for the files that others read: without the colours of terminals, characters that
    cannot be printed, and secrets."""
    return _UNPRINTABLE.sub("", mask(strip_ansi(text)))
