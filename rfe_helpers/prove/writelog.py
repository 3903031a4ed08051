"""The log of a disk's writes that QEMU's blklogwrites keeps, and the disk at any point of it.

Its format is that of Linux' dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst),
little endian: a sector with the superblock (magic, version, number of entries, sector size), then
for each request a sector with its entry (sector, number of sectors, flags, length of a mark's
text) and the data of a write or the text. Sectors in the entries are of the superblock's size.

What a disk may hold after a loss of power: everything that was complete when the last flush began
that ended before, and of what came later any part. Writes with FUA are on the disk when they end.
A disk that has lost power may hold half of a request; 4096 bytes of it are taken to be one.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.errors import InputError

MAGIC = 0x6A736677736872
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
ATOMIC_BYTES = 4096
Pieces = tuple[tuple[int, int, int], ...]  # index of the entry, first byte, bytes


@dataclass(frozen=True)
class Entry:
    """One request: where in bytes, how many, its flags, and where in the log its data lies."""

    offset: int
    size: int
    flags: int
    at: int

    @property
    def is_write(self) -> bool:
        return self.size > 0 and not self.flags & (DISCARD | MARK)


@dataclass(frozen=True)
class DiskState:
    """A disk after a loss of power: all requests before `flushed` are on it, of those up to
    `point`, `unflushed` bytes, the pieces in `kept` (index of the entry, first byte, bytes)."""

    point: int
    flushed: int
    kept: Pieces
    kind: str
    unflushed: int = 0


def read(path: Path) -> list[Entry]:
    """The entries of a log. Raises InputError if it is none."""
    entries = []
    with path.open("rb") as log:
        head = log.read(_SUPER.size)
        if len(head) < _SUPER.size:
            raise InputError(f"{path} is no log of writes: it is too short")
        magic, version, count, sector = _SUPER.unpack(head)
        if magic != MAGIC or version != 1:
            raise InputError(f"{path} is no log of writes: its magic is {magic:#x}")
        position = sector
        for _ in range(count):
            log.seek(position)
            first, sectors, flags, length = _ENTRY.unpack(log.read(_ENTRY.size))
            position += sector
            entries.append(Entry(first * sector, sectors * sector, flags, position))
            data = length if flags & MARK else sectors * sector
            position += 0 if flags & DISCARD else -(-data // sector) * sector
    return entries


def states(entries: Sequence[Entry], number: int, seed: int, start: int = 0) -> list[DiskState]:
    """So many states, in the order of their flushes, half of them the disk just before a flush.

    The others are at any point, with what was not flushed there partly missing; of every fifth of
    these an early part is missing and the later is whole, where most was not flushed.
    The same seed chooses the same states. Points lie after `start`, the index of the first entry
    that counts.
    """
    chance = random.Random(seed)  # noqa: S311
    writes = [i for i, entry in enumerate(entries) if entry.is_write and i >= start]
    flushes = [i for i, entry in enumerate(entries) if entry.flags & FLUSH]
    if not writes or not flushes:
        raise InputError("the log has no writes or no flushes: nothing was updated in it")
    flushes_after = [i for i in flushes if i > writes[0]]
    whole = min(number // 2, len(flushes_after))
    chosen = [_whole(entries, point) for point in chance.sample(flushes_after, whole)]
    points = range(writes[0], len(entries) + 1)
    waiting = _unflushed(entries)
    half = max(waiting[point] for point in points) / 2
    most = [point for point in points if waiting[point] >= half]
    while len(chosen) < number:
        early = (len(chosen) - whole) % 5 == 4
        point = chance.choice(most if early else points)
        flushed = _last_flush(entries, point)
        keep, kind = (_later, "early part lost") if early else (_torn, "partly written")
        kept = keep(entries, range(flushed, point), chance)
        chosen.append(DiskState(point, flushed, kept, kind, waiting[point]))
    return sorted(chosen, key=lambda state: (state.flushed, state.point))


def _unflushed(entries: Sequence[Entry]) -> list[int]:
    """How many bytes are not flushed before each entry, and after the last one."""
    found = [0]
    for entry in entries:
        waiting = found[-1] + (entry.size if entry.is_write else 0)
        found.append(0 if entry.flags & FLUSH else waiting)
    return found


def _last_flush(entries: Sequence[Entry], point: int) -> int:
    """The index after the last flush before `point`, 0 if there is none."""
    for index in range(point - 1, -1, -1):
        if entries[index].flags & FLUSH:
            return index + 1
    return 0


def _whole(entries: Sequence[Entry], point: int) -> DiskState:
    return DiskState(point, point, (), "before a flush")


def _torn(entries: Sequence[Entry], since: range, chance: random.Random) -> Pieces:
    """Any part of the requests since the last flush."""
    kept: list[tuple[int, int, int]] = []
    share = chance.random()
    for index in since:
        entry = entries[index]
        if not entry.is_write:
            continue
        if entry.flags & FUA:
            kept.append((index, 0, entry.size))
            continue
        if chance.random() < share:
            pieces = entry.size // ATOMIC_BYTES
            torn = pieces > 1 and chance.random() < 0.2
            size = chance.randrange(1, pieces) * ATOMIC_BYTES if torn else entry.size
            kept.append((index, 0, size))
    return tuple(kept)


def _later(entries: Sequence[Entry], since: range, chance: random.Random) -> Pieces:
    """Of the requests since the last flush those after some moment."""
    writes = [index for index in since if entries[index].is_write]
    first = chance.choice(writes)
    return tuple(
        (index, 0, entries[index].size)
        for index in writes
        if index >= first or entries[index].flags & FUA
    )


class Rebuilder:
    """Rolls a raw image of the disk, as it was before the log, from state to state.

    States must come in the order of their `flushed`. The image holds what was flushed, what else
    a state holds goes into a file of its own.
    """

    def __init__(self, image: Path, log: Path) -> None:
        self.image = image
        self.log = log
        self.entries = read(log)
        self._done = 0

    def roll(self, state: DiskState) -> None:
        """Bring the image to what is certain in `state`."""
        if state.flushed < self._done:
            raise InputError("states must be rebuilt in the order of their flushes")
        with self.image.open("r+b") as disk:
            for entry in self.entries[self._done : state.flushed]:
                if entry.is_write:
                    disk.seek(entry.offset)
                    disk.write(self._data(entry, 0, entry.size))
        self._done = state.flushed

    def pieces(self, state: DiskState) -> Iterator[tuple[int, bytes]]:
        """What `state` holds beyond that: (where, bytes)."""
        for index, first, size in state.kept:
            entry = self.entries[index]
            yield entry.offset + first, self._data(entry, first, size)

    def _data(self, entry: Entry, first: int, size: int) -> bytes:
        with self.log.open("rb") as log:
            log.seek(entry.at + first)
            return log.read(size)
