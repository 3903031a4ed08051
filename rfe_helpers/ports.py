"""TCP ports that labs of this machine have chosen, so that no two choose the same.

A lab may have chosen a port long before it listens there, so looking for a free one is not enough.
On disk, for all users of the machine: one file per port in `DIRECTORY`, named by its number, with
the lab's directory in it. A file is put in place whole, under a lock of the directory; one whose
lab is gone is taken over.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Shared by all users of the machine, as ports are.
DIRECTORY = Path("/var/tmp/rfe-ports")  # noqa: S108


def reserve(port: int, lab: Path) -> bool:
    """Take a port for a lab; False if another lab has it. What the lab has already, it keeps."""
    with _alone() as directory:
        if directory is None:
            return True
        entry = directory / str(port)
        owner = _owner(entry)
        if owner == str(lab):
            return True
        if owner and not _gone(Path(owner)):
            return False
        try:
            entry.unlink(missing_ok=True)
            descriptor = os.open(entry, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError:  # left by a lab of another user
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(str(lab))
        return True


def release(port: int, lab: Path) -> None:
    """Give back a port; nothing happens if it is another lab's."""
    with _alone() as directory, suppress(OSError):
        if directory is not None and _owner(directory / str(port)) == str(lab):
            (directory / str(port)).unlink()


@contextmanager
def _alone() -> Iterator[Path | None]:
    """One program at a time looks and takes; None where the directory cannot be had."""
    try:
        with suppress(FileExistsError):
            DIRECTORY.mkdir()
            DIRECTORY.chmod(0o1777)
        descriptor = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield DIRECTORY
    finally:
        os.close(descriptor)


def _owner(entry: Path) -> str:
    try:
        return entry.read_text(errors="replace").strip()
    except OSError:
        return ""


def _gone(lab: Path) -> bool:
    """Whether there is no such lab any more; one that we may not look into is taken to be there."""
    try:
        (lab / "lab.json").stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
