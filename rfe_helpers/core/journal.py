"""The journal: everything that was run, so that a person can run it again.

A JSON-lines file chosen with `open_journal` (a lab opens its own `logs/commands.jsonl`), one Record
a line, appended as each one ends. Keys that are not set are left out:

    {"at": 1764244800.1, "seconds": 4.2, "status": 0, "argv": ["skopeo", "copy", …],
     "env": {…}, "cwd": "/…", "stdin": true, "value": "…",
     "place": {"notebook": "40", "began": 1764244790.0, "section": "Run the container"}}
    {"at": …, "seconds": …, "status": 200, "request": {"method": "POST", "path": "/api/v1/…", …}}
    {"at": …, "shell": "tar -xf …"}
    {"at": …, "file": "/…/edge.ks", "text": "…"}

Secrets are never in it: what a command reads from stdin is not recorded, and what looks like a
secret in the rest is masked.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import DecodeError, Struct, json, structs

from rfe_helpers.core import files
from rfe_helpers.core.masking import mask

# Variables that a command needs besides those of the caller, and that say where something is.
_VARIABLES = ("CONTAINERS_CONF", "GNUPGHOME", "TMPDIR", "XDG_RUNTIME_DIR")
_PASSWORD = re.compile(
    r"""(?i)((?:password|passwd|secret|token)["']?\s*[:=]\s*)(["'])(?:(?!\2).)*\2"""
)
_TEXT_LIMIT = 64 << 10  # bytes of a file or a body; what is longer is cut
_READ_LIMIT = 64 << 20  # bytes of a journal that are read, the newest
_ID = re.compile(r"[0-9a-f]{64}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ApiRequest(Struct, frozen=True, omit_defaults=True):
    """An HTTP request over a unix socket: `path` with its query, `body` as text with its `type`,
    `saved_in` the directory of the file that the answer was written to."""

    socket: str
    method: str
    path: str
    body: str = ""
    type: str = ""
    saved_in: str = ""


class Place(Struct, frozen=True, omit_defaults=True):
    """A place in the workbook: the number of a notebook, when this run of it began in Unix seconds,
    and the heading of the section or the title of the panel."""

    notebook: str
    began: float
    section: str = ""


class Record(Struct, frozen=True, omit_defaults=True):
    """Something that was run: a command (`argv`), a `request`, a `file` that was written with
    `text`, or `shell`, the command that does what this package did in Python.

    `at` is in Unix seconds, `status` None for a command that was started or ended by force. `value`
    is the id that it gave (of a commit or a compose), which later entries use. `place` is where in
    the workbook it was run.
    """

    at: float
    seconds: float = 0
    status: int | None = None
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str = ""
    stdin: bool = False
    request: ApiRequest | None = None
    shell: str = ""
    file: str = ""
    text: str = ""
    value: str = ""
    place: Place | None = None


_path: Path | None = None
_lock = threading.Lock()
_place: Place | None = None
_of_thread = threading.local()
_recent: deque[Record] = deque(maxlen=2000)


def open_journal(path: Path | None) -> None:
    """Append entries to `path` from now on; None closes the journal."""
    global _path
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    _path = path


def set_place(place: Place | None) -> None:
    """Where in the workbook the following entries belong, in all threads."""
    global _place
    _place = place


@contextmanager
def section(title: str) -> Iterator[None]:
    """Within the block entries of this thread belong to a section of their own."""
    before = getattr(_of_thread, "place", None)
    _of_thread.place = structs.replace(_here() or Place("", 0), section=title)
    try:
        yield
    finally:
        _of_thread.place = before


def since(at: float, section: str) -> list[Record]:
    """The entries of a section that this program recorded from a time on, in Unix seconds; at most
    2,000."""
    with _lock:
        entries = [entry for entry in _recent if entry.at >= round(at, 3)]
    return [entry for entry in entries if entry.place and entry.place.section == section]


def read(path: Path) -> list[Record]:
    """The entries of a journal in the order in which they began; lines that are cut off or not
    entries are passed over. Of a file that is larger than 64 MB, the end is read."""
    entries = []
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ_LIMIT))
            for line in file:
                with suppress(DecodeError):  # ValidationError is one
                    entries.append(json.decode(line, type=Record))
    except FileNotFoundError:
        return []
    return sorted(entries, key=lambda entry: entry.at)


def record_command(
    argv: Sequence[str],
    at: float,
    seconds: float,
    status: int | None,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bool = False,
    output: str = "",
) -> None:
    """Record a command that has ended or, with status None, one that was started; of its output
    only the id of a commit is kept, from ostree."""
    value = output.strip() if argv[0] == "ostree" else ""
    _record(
        Record(
            round(at, 3),
            round(seconds, 3),
            status,
            argv=tuple(map(_hide, argv)),
            env={key: value for key, value in (env or {}).items() if key in _VARIABLES},
            cwd=str(cwd) if cwd else "",
            stdin=stdin,
            value=value if _ID.fullmatch(value) else "",
        )
    )


def record_request(
    request: ApiRequest, at: float, seconds: float, status: int, *, value: str = ""
) -> None:
    """Record a request that was answered; `value` is the id in the answer."""
    hidden = structs.replace(request, path=_hide(request.path), body=_hide(request.body))
    _record(Record(round(at, 3), round(seconds, 3), status, request=hidden, value=value))


def record_shell(line: str, *, value: str = "") -> None:
    """Record what this package does in Python, as the shell command that does the same."""
    _record(Record(round(time.time(), 3), shell=_hide(line), value=value))


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace the content of a file, and record it."""
    files.write(path, text, mode=mode)
    record_file(path, text)


def record_file(path: Path, text: str) -> None:
    """Record a file that this package wrote and that the next commands read."""
    _record(Record(round(time.time(), 3), file=str(path), text=_hide(text)))


def _record(entry: Record) -> None:
    """Add an entry. One that cannot be written, on a full disk or in a lab that has been removed,
    is dropped: what it records must not fail for it."""
    entry = structs.replace(entry, place=_here())
    with _lock:
        _recent.append(entry)
        if _path is not None:
            with suppress(OSError), _path.open("ab") as file:
                file.write(json.encode(entry) + b"\n")


def _here() -> Place | None:
    return getattr(_of_thread, "place", None) or _place


def _hide(text: str) -> str:
    if len(text) > _TEXT_LIMIT:
        text = text[:_TEXT_LIMIT] + "\n# … cut off here\n"
    return _PASSWORD.sub(r"\1\2(hidden)\2", mask(text))
