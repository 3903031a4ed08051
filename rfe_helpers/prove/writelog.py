"""The log of a disk's writes that QEMU's blklogwrites keeps, and the disk at any point of it.

Its format is that of Linux' dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst),
little endian: a sector with the superblock (magic, version, number of entries, sector size), then
for each request a sector with its entry (sector, number of sectors, flags, length of a mark's
text) and the data of a write or the text. Sectors in the entries are of the superblock's size.

After a loss of power, a disk holds every write that was complete when the last finished flush
began, and any part of the later ones. A write with FUA is on the disk when it ends. A request may
be torn, but only between blocks of 4096 bytes, which are taken to be written as a whole.
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
    """One request: its offset and size on the disk in bytes, its flags, and the offset of its data
    in the log."""

    offset: int
    size: int
    flags: int
    at: int

    @property
    def is_write(self) -> bool:
        return self.size > 0 and not self.flags & (DISCARD | MARK)


@dataclass(frozen=True)
class DiskState:
    """A disk after a loss of power: all requests before the entry `flushed` are on it, and of those
    from there to `point`, `unflushed` bytes in all, only the pieces in `kept`."""

    point: int
    flushed: int
    kept: Pieces
    kind: str
    unflushed: int = 0


def read(path: Path) -> list[Entry]:
    """The entries of a log. Raises InputError if the file is not one."""
    entries = []
    with path.open("rb") as log:
        head = log.read(_SUPER.size)
        if len(head) < _SUPER.size:
            raise InputError(f"{path} is not a log of writes: it is too short")
        magic, version, count, sector = _SUPER.unpack(head)
        if magic != MAGIC or version != 1:
            raise InputError(f"{path} is not a log of writes: its magic is {magic:#x}")
        position = sector
        for _ in range(count):
            log.seek(position)
            first, sectors, flags, length = _ENTRY.unpack(log.read(_ENTRY.size))
            position += sector
            size = sectors * sector
            entries.append(Entry(offset=first * sector, size=size, flags=flags, at=position))
            data = length if flags & MARK else size
            position += 0 if flags & DISCARD else -(-data // sector) * sector
    return entries


def states(entries: Sequence[Entry], number: int, seed: int, start: int = 0) -> list[DiskState]:
    """Choose `number` states, in the order of their flushes; the same seed chooses the same ones.

    Half of them are the disk just before a flush. The others are at any point, with the unflushed
    requests partly missing; every fifth of these is at a point with much unflushed data, of which
    an early part is missing and the rest is complete. Points lie after `start`, the index of the
    first entry that counts. Raises InputError for a log without writes or flushes.
    """
    chance = random.Random(seed)  # noqa: S311
    writes = [i for i, entry in enumerate(entries) if entry.is_write and i >= start]
    flushes = [i for i, entry in enumerate(entries) if entry.flags & FLUSH]
    if not writes or not flushes:
        raise InputError("the log has no writes or no flushes: nothing was updated")
    flushes_after = [i for i in flushes if i > writes[0]]
    complete = min(number // 2, len(flushes_after))
    chosen = [_complete(point) for point in chance.sample(flushes_after, complete)]
    points = range(writes[0], len(entries) + 1)
    waiting = _unflushed(entries)
    half = max(waiting[point] for point in points) / 2
    most = [point for point in points if waiting[point] >= half]
    while len(chosen) < number:
        early = (len(chosen) - complete) % 5 == 4
        point = chance.choice(most if early else points)
        flushed = _last_flush(entries, point)
        keep, kind = (_later, "early part lost") if early else (_torn, "partly written")
        kept = keep(entries, range(flushed, point), chance)
        state = DiskState(point, flushed, kept=kept, kind=kind, unflushed=waiting[point])
        chosen.append(state)
    return sorted(chosen, key=lambda state: (state.flushed, state.point))


def _unflushed(entries: Sequence[Entry]) -> list[int]:
    """The number of unflushed bytes before each entry, and after the last one."""
    sizes = [0]
    for entry in entries:
        size = sizes[-1] + (entry.size if entry.is_write else 0)
        sizes.append(0 if entry.flags & FLUSH else size)
    return sizes


def _last_flush(entries: Sequence[Entry], point: int) -> int:
    """The index after the last flush before `point`, 0 if there is none."""
    for index in range(point - 1, -1, -1):
        if entries[index].flags & FLUSH:
            return index + 1
    return 0


def _complete(point: int) -> DiskState:
    return DiskState(point, flushed=point, kept=(), kind="before a flush")


def _torn(entries: Sequence[Entry], since: range, chance: random.Random) -> Pieces:
    """Any part of the requests since the last flush, some of them torn."""
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
    """Those of the requests since the last flush that come after some point."""
    writes = [index for index in since if entries[index].is_write]
    first = chance.choice(writes)
    return tuple(
        (index, 0, entries[index].size)
        for index in writes
        if index >= first or entries[index].flags & FUA
    )


class Rebuilder:
    """Rolls a raw image of the disk, at first as it was before the log, from state to state.

    States must come in the order of their `flushed`. The image holds only what was flushed;
    `pieces` gives the rest of a state.
    """

    def __init__(self, image: Path, log: Path) -> None:
        self.image = image
        self.log = log
        self.entries = read(log)
        self._done = 0

    def roll(self, state: DiskState) -> None:
        """Write to the image everything that was flushed in `state`. Raises InputError for a state
        before the last one."""
        if state.flushed < self._done:
            raise InputError("states must be rebuilt in the order of their flushes")
        with self.image.open("r+b") as disk:
            for entry in self.entries[self._done : state.flushed]:
                if entry.is_write:
                    disk.seek(entry.offset)
                    disk.write(self._data(entry, 0, entry.size))
        self._done = state.flushed

    def pieces(self, state: DiskState) -> Iterator[tuple[int, bytes]]:
        """(offset, data) of what `state` holds beyond the image."""
        for index, first, size in state.kept:
            entry = self.entries[index]
            yield entry.offset + first, self._data(entry, first, size)

    def _data(self, entry: Entry, first: int, size: int) -> bytes:
        with self.log.open("rb") as log:
            log.seek(entry.at + first)
            return log.read(size)
