"""What somebody has done in a lab, as their trainer sees it: which notebooks are done, which one is
being worked on, what failed, and whether they ask for help.

On disk, in the lab:

    logs/activity.jsonl    what ran, one JSON object a line: at, notebook, event, and of an error
                           its cell and message; the kernels of `rfe lab open` (workbook/kernel.py)
                           and headless runs append to it
    hand.json              while a hand is up: since when, and what for

`of` reads both, and lab.json. Its reader may be root and its writer somebody else: links, devices
and files of other owners are not read, nothing large is, and texts are cut.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from rfe_helpers.core import files
from rfe_helpers.core.masking import mask
from rfe_helpers.errors import RfeError
from rfe_helpers.lab.lab import NOTEBOOK_OF

LOG = ("logs", "activity.jsonl")
HAND = "hand.json"
# Without an event for so long nobody works; a cell that runs is work, however long it takes.
IDLE_SECONDS = 600.0
_LONGEST_TEXT = 300
_LONGEST_LOG = 1_000_000  # bytes; then its older half goes
_LONGEST_STATE = 4_000_000
_NUMBER = re.compile(r"[0-9]{2,3}")  # of a notebook
_STEPS = frozenset(NOTEBOOK_OF.values())

Event = Literal["running", "ran", "failed", "done", "reset"]
Status = Literal["done", "failing", "begun"]


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the log; `at` in seconds since 1970."""

    at: float
    notebook: str
    event: Event
    cell: str = ""
    error: str = ""


@dataclass(frozen=True)
class NotebookError:
    """An error in a notebook; `cell` is its id, "" in a headless run, `at` seconds since 1970."""

    notebook: str
    cell: str
    error: str
    at: float


@dataclass
class NotebookActivity:
    """One notebook of one person. `seconds` are those of work: cells that ran, and what lies
    between two of them, up to IDLE_SECONDS."""

    status: Status = "begun"
    error: str = ""
    seconds: float = 0.0
    at: float = 0.0


@dataclass(frozen=True)
class Activity:
    """All that is known of one lab. `notebook` is the one worked on last, at `at` (seconds since
    1970, 0 for never); `running` says that a cell of it is still busy. `hand` is what help is asked
    for, None while nobody asks."""

    notebooks: Mapping[str, NotebookActivity] = field(default_factory=dict)
    notebook: str = ""
    at: float = 0.0
    running: bool = False
    hand: str | None = None
    hand_at: float = 0.0
    failures: tuple[NotebookError, ...] = ()
    machines: tuple[str, ...] = ()
    disk_free: int = 0
    disk_size: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def decode(data: bytes) -> Activity:
    """The activity in JSON from somewhere else, in the bounds of `of`; of text that is something
    else, an empty one."""
    try:
        seen = msgspec.json.decode(data, type=Activity)
    except (msgspec.DecodeError, RecursionError):
        return Activity()
    notebooks = {
        number: replace(each, error=_line(each.error), seconds=_number(each.seconds))
        for number, each in seen.notebooks.items()
        if _NUMBER.fullmatch(number)
    }
    failures = [
        NotebookError(_number_at(f.notebook), _line(f.cell), _line(f.error), _number(f.at))
        for f in seen.failures[-50:]
    ]
    return replace(
        seen,
        notebooks=notebooks,
        notebook=_number_at(seen.notebook),
        at=_number(seen.at),
        hand=None if seen.hand is None else _line(seen.hand),
        hand_at=_number(seen.hand_at),
        failures=tuple(failures),
        machines=tuple(map(_line, seen.machines[:50])),
    )


def read(path: Path) -> Activity:
    """The activity that was kept in a file; without one, an empty one."""
    return decode(files.read_owned(path, os.getuid(), _LONGEST_STATE).encode())


def record(
    directory: Path, notebook: str, event: Event, *, cell: str = "", error: str = ""
) -> None:
    """Append an event, such as

        record(lab.directory, "20", "failed", cell="nb20-12-code", error="no repository has hotp")

    Nothing happens where the lab cannot be written, as this is only a note.
    """
    entry = _Entry(
        at=round(time.time(), 2),
        notebook=_number_at(notebook),
        event=event,
        cell=cell[:_LONGEST_TEXT],
        error=mask(error)[:_LONGEST_TEXT],
    )
    path = directory.joinpath(*LOG)
    with suppress(OSError, RfeError):
        if path.exists() and path.stat().st_size > _LONGEST_LOG:
            lines = path.read_text(errors="replace").splitlines(keepends=True)
            files.write(path, "".join(lines[len(lines) // 2 :]), mode=0o600)
        with path.open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")


def raise_hand(directory: Path, words: str = "") -> None:
    """Ask the trainer for help, and say what for."""
    entry = {"at": round(time.time(), 2), "words": mask(words)[:_LONGEST_TEXT]}
    files.write_json(directory / HAND, entry, mode=0o600)


def lower_hand(directory: Path) -> None:
    (directory / HAND).unlink(missing_ok=True)


def of(directory: Path) -> Activity:
    """What the files of a lab say, for example

        activity.of(Path("~/rfe-lab").expanduser()).notebooks["20"].status

    Of a directory that is not a lab it is empty.
    """
    try:
        owner = directory.lstat().st_uid
    except OSError:
        return Activity()
    notebooks: dict[str, NotebookActivity] = {}
    failures = []
    last: _Entry | None = None
    for entry in _entries(files.read_owned(directory.joinpath(*LOG), owner, 2 * _LONGEST_LOG)):
        if entry.event == "reset":  # this notebook and those after it begin again
            for later in [n for n in notebooks if int(n) >= int(entry.notebook) and n in _STEPS]:
                del notebooks[later]
            last = None
            continue
        each = notebooks.setdefault(entry.notebook, NotebookActivity())
        if last is not None and last.notebook == entry.notebook:
            pause = max(0.0, entry.at - last.at)
            # A cell that has not ended was interrupted, or its kernel is gone.
            busy = last.event == "running" and entry.event != "running"
            each.seconds += pause if busy or pause <= IDLE_SECONDS else 0.0
        each.at = entry.at
        if entry.event == "failed":
            each.status, each.error = "failing", entry.error
            failures.append(NotebookError(entry.notebook, entry.cell, entry.error, entry.at))
        elif entry.event == "done":
            each.status, each.error = "done", ""
        elif entry.event == "ran" and each.status == "failing":
            each.status, each.error = "begun", ""
        last = entry
    state = _json(directory / "lab.json", owner, _LONGEST_STATE)
    _add_steps(notebooks, state)
    hand = _json(directory / HAND, owner, 10_000)
    usage = os.statvfs(directory)
    return Activity(
        notebooks=dict(sorted(notebooks.items(), key=lambda item: int(item[0]))),
        notebook=last.notebook if last else "",
        at=last.at if last else 0.0,
        running=last is not None and last.event == "running",
        hand=_line(hand.get("words", "")) if hand else None,
        hand_at=_number(hand.get("at")),
        failures=tuple(failures[-50:]),
        machines=_machines(state),
        disk_free=usage.f_bavail * usage.f_frsize,
        disk_size=usage.f_blocks * usage.f_frsize,
    )


def _add_steps(notebooks: dict[str, NotebookActivity], state: Mapping[str, Any]) -> None:
    """What was recorded in the lab is done, unless its notebook has failed since."""
    steps = state.get("steps")
    for step, number in NOTEBOOK_OF.items():
        result = steps.get(step) if isinstance(steps, dict) else None
        if isinstance(result, dict):
            each = notebooks.setdefault(number, NotebookActivity())
            with suppress(ValueError):
                at = datetime.fromisoformat(str(result.get("at"))).timestamp()
                each.at = max(each.at, at)
            if each.status == "begun":
                each.status = "done"


def _machines(state: Mapping[str, Any]) -> tuple[str, ...]:
    processes = state.get("processes")
    names = processes if isinstance(processes, dict) else {}
    return tuple(_line(n.removeprefix("machine-")) for n in names if n.startswith("machine-"))[:50]


def _entries(text: str) -> Iterator[_Entry]:
    """The lines that are entries, in bounds; others are skipped, such as one that was cut off."""
    for line in text.splitlines():
        with suppress(msgspec.DecodeError, RecursionError):  # ValidationError is one
            entry = msgspec.json.decode(line, type=_Entry)
            if number := _number_at(entry.notebook):
                yield _Entry(
                    _number(entry.at),
                    number,
                    entry.event,
                    _line(entry.cell),
                    _line(entry.error),
                )


def _number_at(name: str) -> str:
    """The number at the beginning of a notebook's name, "" if there is none."""
    number = _NUMBER.match(name)
    return number[0] if number else ""


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e11 else 0.0


def _line(value: object) -> str:
    """A text of somebody else: cut, and without what would steer a terminal."""
    text = str(value)[:_LONGEST_TEXT]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _json(path: Path, owner: int, most: int) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        value = json.loads(files.read_owned(path, owner, most))
        return value if isinstance(value, dict) else {}
    return {}
