"""Files that are replaced as a whole (a temporary name beside the target, fsync, rename), locks
between programs, free disk space and full disks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rfe_helpers.core.units import size as as_text
from rfe_helpers.errors import DiskFullError, RfeError

# What commands print when a disk is full; the last one is ostree's own limit.
_FULL = re.compile(
    r"no space left on device|disk quota exceeded|min-free-space-\w+\b.*would be exceeded", re.I
)
_VIRTUAL = (("dev",), ("proc",), ("sys",))


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary name beside `path`, which is renamed to `path` at the end of the block.

    If the block raises, the temporary file is removed and `path` stays as it was. Raises
    DiskFullError.

    >>> from pathlib import Path
    >>> from rfe_helpers.core import files
    >>> with files.replacing(Path("report.txt")) as temporary:
    ...     temporary.write_text("all or nothing")
    14
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write(path: Path, data: str | bytes, *, mode: int = 0o644) -> None:
    """Replace the content of `path` with `data`, all or nothing.

    >>> from pathlib import Path
    >>> from rfe_helpers.core import files
    >>> files.write(Path("token"), "for the owner only", mode=0o600)
    """
    content = data.encode() if isinstance(data, str) else data
    with replacing(path, mode=mode) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Replace the content of `path` with `value` as indented JSON, all or nothing.

    >>> from pathlib import Path
    >>> from rfe_helpers.core import files
    >>> files.write_json(Path("state.json"), {"commit": "0f3a"})
    >>> print(Path("state.json").read_text())
    {
      "commit": "0f3a"
    }
    """
    write(path, json.dumps(value, indent=2, sort_keys=True) + "\n", mode=mode)


def read_owned(path: Path, owner: int, most: int) -> str:
    """The text of a regular file of that user, in a directory that they may have prepared; "" of
    anything else: a link, a pipe, a file of another owner, one of more than `most` bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == owner and status.st_size <= most:
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(most).decode(errors="replace")
    finally:
        os.close(descriptor)
    return ""


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, directory: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a lock (flock(2)) on a file, which is created if it does not exist, or on a directory,
    which is not. Links are not followed.

    The kernel releases the lock however the program ends. With `wait=False`, BlockingIOError is
    raised if another program holds it; OSError if it cannot be opened.

    >>> from pathlib import Path
    >>> from rfe_helpers.core import files
    >>> with files.locked(Path("lab.lock")):
    ...     files.write(Path("counter"), "1")
    """
    kind = os.O_RDONLY | os.O_DIRECTORY if directory else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, kind | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def room(directory: Path) -> int:
    """The free bytes of the file system that a directory is on.

    >>> from pathlib import Path
    >>> from rfe_helpers.core import files
    >>> files.room(Path("/var/tmp")) > 1_000_000
    True
    """
    return shutil.disk_usage(directory).free


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Within the block a full disk is a DiskFullError that names `directory`."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise disk_full([Path(error.filename or directory), directory]) from None


def is_full(failure: OSError | str) -> bool:
    """Whether an error, or the output of a command, says that a disk is full."""
    if isinstance(failure, str):
        return _FULL.search(failure) is not None
    return failure.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(paths: Iterable[Path]) -> DiskFullError:
    """The error for a disk that is full: that of `paths` with the least room."""
    places = [path.absolute() for path in paths]
    directories = [next(d for d in (path, *path.parents) if d.is_dir()) for path in places]
    real = (d for d in directories if d.parts[1:2] not in _VIRTUAL or d.parts[2:3] == ("shm",))
    directory = min(real, key=room)
    return DiskFullError(
        f"the disk of {directory} is full ({as_text(room(directory))} free)",
        remedy=_more_room(directory),
    )


def _more_room(directory: Path) -> str:
    place = directory.absolute()
    disk = next(path for path in (place, *place.parents) if path.is_mount())
    return (
        f"free some space on it (`du -xhd1 {shlex.quote(str(disk))}` shows what takes it), or "
        "choose another directory with --lab, RFE_CACHE or TMPDIR"
    )


def check_room(
    directory: Path, size: int, what: str, error: type[RfeError], *, remedy: str = ""
) -> None:
    """Raise `error` if fewer than `size` bytes, which `what` needs, are free for `directory`."""
    free = room(directory)
    if free < size:
        raise error(
            f"{directory} has {free / 1e9:.1f} GB free, {what} needs {size / 1e9:.1f} GB",
            remedy=remedy or _more_room(directory),
        )
