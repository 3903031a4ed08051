"""Files that are replaced as a whole (a temporary name beside the target, fsync, rename), locks
between programs, and free disk space."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rfe_helpers.errors import RfeError


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary name beside `path`, which is renamed to `path` at the end of the block.

    If the block raises, the temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
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
    """Replace the content of `path` with `data`, all or nothing."""
    content = data.encode() if isinstance(data, str) else data
    with replacing(path, mode=mode) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Replace the content of `path` with `value` as indented JSON, all or nothing."""
    write(path, json.dumps(value, indent=2, sort_keys=True) + "\n", mode=mode)


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
    """
    kind = os.O_RDONLY | os.O_DIRECTORY if directory else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, kind | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def room(directory: Path) -> int:
    """The free bytes of the file system that a directory is on."""
    return shutil.disk_usage(directory).free


def check_room(
    directory: Path, size: int, what: str, error: type[RfeError], *, remedy: str
) -> None:
    """Raise `error` if fewer than `size` bytes, which `what` needs, are free for `directory`."""
    free = room(directory)
    if free < size:
        raise error(
            f"{directory} has {free / 1e9:.1f} GB free, {what} needs {size / 1e9:.1f} GB",
            remedy=remedy,
        )
