"""How much memory there is, and temporary directories in it.

Trees of thousands of files are unpacked in memory where there is plenty. On a disk they are slow,
and make others slow: ext4 uses no inode again that was freed in the last minutes, and looks at all
of those for each new file (fs/ext4/ialloc.c, `recently_deleted`).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GIB = 1 << 30
SHARED = Path("/dev/shm")  # noqa: S108  a tmpfs, on every Linux
DISK = Path("/var/tmp")  # noqa: S108  /tmp may be a small tmpfs
_RESERVE = 2 * GIB  # for machines and other programs
_CGROUPS = Path("/sys/fs/cgroup")


def available() -> int:
    """The bytes of memory that programs here can take without swapping: of the machine, or of the
    container, if that has fewer.

    >>> from rfe_helpers.core import memory
    >>> memory.available() > 10_000_000
    True
    """
    text = Path("/proc/meminfo").read_text()
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    free = int(match[1]) * 1024 if match else 0
    return min([free, *_left_by_limits()])


def directory(size: int | None, *, devices: bool = False, attributes: bool = False) -> Path:
    """Where a temporary directory of `size` bytes is to be: in memory, or in DISK if the size is
    not known, memory is scarce, or its file system is small, as in containers, or does not run
    programs, or lacks what is needed: `devices`, or extended `attributes` of users (Linux 6.6).

    >>> from rfe_helpers.core import memory
    >>> memory.directory(10**15)
    PosixPath('/var/tmp')
    """
    if size is None:
        return DISK
    try:
        file_system = os.statvfs(SHARED)
    except OSError:
        return DISK
    unusable = os.ST_RDONLY | os.ST_NOEXEC | (os.ST_NODEV if devices else 0)
    free = file_system.f_bavail * file_system.f_frsize
    fits = min(free, available() - _RESERVE) >= size
    usable = fits and not file_system.f_flag & unusable and (not attributes or _has_attributes())
    return SHARED if usable else DISK


def _has_attributes() -> bool:
    try:
        with tempfile.TemporaryFile(dir=SHARED) as file:
            os.setxattr(file.fileno(), "user.rfe", b"1")
    except OSError:
        return False
    return True


def _left_by_limits() -> Iterator[int]:
    """What the limits of this process's control groups leave (cgroups(7), version 2)."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                group = _CGROUPS / line.removeprefix("0::/")
                for place in (group, *group.parents):
                    if place.is_relative_to(_CGROUPS):
                        yield from _left(place)


def _left(group: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):  # "max"
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        # What was read from files is given up first.
        cached = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.M)
        yield max(0, limit - used + (int(cached[1]) if cached else 0))
