"""The labs of a machine: where they are, what runs in them, and what is left of deleted ones.

Every lab is remembered by a link in the state directory of its user (XDG_STATE_HOME, or
~/.local/state), `rfe/labs/<id>`, which points to its directory. `Lab` makes it, `Lab.clean`
removes it.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfe_helpers.core import files
from rfe_helpers.core.run import ProcessId

_MOST_BYTES = 4_000_000  # of a lab.json, which another user may have written


@dataclass(frozen=True)
class LabEntry:
    """A lab of the user `uid` as its files show it. `state` is the content of lab.json, empty if
    the lab was deleted; `processes` are those that are alive, by name; `orphans` work in a
    directory that is gone."""

    directory: Path
    uid: int
    state: dict[str, Any]
    processes: dict[str, int]
    orphans: tuple[int, ...] = ()

    @property
    def user(self) -> str:
        """The name of the user, or the number where there is no name, as in some containers."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


def remember(directory: Path, identity: str) -> None:
    """Add a lab to those of this user; without a state directory it is not listed."""
    link = _own() / identity
    with suppress(OSError):
        if not link.is_symlink() or link.readlink() != directory:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(directory)


def forget(identity: str) -> None:
    """Remove a lab from those of this user."""
    with suppress(OSError):
        (_own() / identity).unlink()


def entries() -> Iterator[LabEntry]:
    """The labs of this user, for root those of all users. A deleted lab of which nothing runs is
    forgotten.

        for entry in entries():
            print(entry.directory, entry.user, entry.processes)
    """
    homes = {_own(): os.getuid()}
    if os.getuid() == 0:
        for user in pwd.getpwall():
            homes.setdefault(_of_home(Path(user.pw_dir), None), user.pw_uid)
    for directory, uid in homes.items():
        with suppress(OSError):
            for link in sorted(directory.iterdir()):
                if link.is_symlink() and (entry := _read(link.readlink(), uid)) is not None:
                    yield entry
                elif uid == os.getuid():
                    link.unlink(missing_ok=True)


def is_own(directory: Path) -> bool:
    """Whether this user has made the lab, as their state directory says."""
    with suppress(OSError):
        return directory in [link.readlink() for link in _own().iterdir() if link.is_symlink()]
    return False


def _own() -> Path:
    return _of_home(Path.home(), os.environ.get("XDG_STATE_HOME"))


def _of_home(home: Path, state: str | None) -> Path:
    return (Path(state) if state else home / ".local" / "state") / "rfe" / "labs"


def _read(directory: Path, uid: int) -> LabEntry | None:
    """The lab in a directory of a user; None if nothing is left of it."""
    path = directory / "lab.json"
    try:
        path.lstat()
    except FileNotFoundError:
        orphans = tuple(_processes_in(directory, uid))
        return LabEntry(directory, uid, {}, {}, orphans) if orphans else None
    except OSError:
        return None
    try:
        state = json.loads(files.read_owned(path, uid, _MOST_BYTES))
        known = {name: ProcessId(**entry) for name, entry in state["processes"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    alive = {name: process.pid for name, process in known.items() if process.alive}
    return LabEntry(directory, uid, state, alive)


def _processes_in(directory: Path, uid: int) -> Iterator[int]:
    """The processes of a user whose command lines name a file in a directory."""
    prefix = os.fsencode(f"{directory}/")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if process.stat().st_uid == uid and any(prefix in word for word in words):
                yield int(process.name)
