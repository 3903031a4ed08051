"""Logs of writes, made here byte by byte, and the disks they describe."""

import struct
from pathlib import Path

import pytest

from rfe_helpers.errors import InputError
from rfe_helpers.prove import writelog
from rfe_helpers.prove.writelog import FLUSH, FUA, DiskState, Rebuilder

SECTOR = 512


def write_log(path: Path, requests: list[tuple[int, bytes, int]]) -> Path:
    """A log of (offset, data, flags)."""
    content = struct.pack("<QQQI", writelog.MAGIC, 1, len(requests), SECTOR).ljust(SECTOR, b"\0")
    for offset, data, flags in requests:
        row = struct.pack("<QQQQ", offset // SECTOR, len(data) // SECTOR, flags, 0)
        content += row.ljust(SECTOR, b"\0") + data
    path.write_bytes(content)
    return path


def block(letter: bytes, number: int = 1) -> bytes:
    return letter * SECTOR * 8 * number


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(
        tmp_path / "log",
        [
            (0, block(b"a"), 0),
            (4096, block(b"b"), 0),
            (0, b"", FLUSH),
            (0, block(b"c"), FUA),
            (8192, block(b"d", 4), 0),
            (4096, block(b"e"), 0),
            (0, b"", FLUSH),
            (0, block(b"f"), 0),
        ],
    )


def disk(rebuilder: Rebuilder, state: DiskState) -> str:
    """The disk in a state, one letter for 4096 bytes."""
    rebuilder.roll(state)
    content = bytearray(rebuilder.image.read_bytes())
    for offset, data in rebuilder.pieces(state):
        content[offset : offset + len(data)] = data
    return "".join(chr(content[offset] or 45) for offset in range(0, len(content), 4096))


@pytest.fixture
def rebuilder(log: Path, tmp_path: Path) -> Rebuilder:
    image = tmp_path / "image"
    image.write_bytes(bytes(4096 * 6))
    return Rebuilder(image, log)


def test_a_log_is_read(log: Path) -> None:
    entries = writelog.read(log)
    assert [(e.offset, e.size, e.flags) for e in entries[:4]] == [
        (0, 4096, 0),
        (4096, 4096, 0),
        (0, 0, FLUSH),
        (0, 4096, FUA),
    ]
    assert [entry.is_write for entry in entries] == [1, 1, 0, 1, 1, 1, 0, 1]


def test_before_a_flush_everything_is_there(rebuilder: Rebuilder) -> None:
    chosen = writelog.states(rebuilder.entries, 4, seed=1)
    complete = [state for state in chosen if state.kind == "before a flush"]
    assert [state.point for state in complete] == [2, 6]
    assert [disk(rebuilder, state) for state in complete] == ["ab----", "cedddd"]


def test_what_was_flushed_stays_and_of_the_rest_a_part(rebuilder: Rebuilder) -> None:
    chosen = writelog.states(rebuilder.entries, 400, seed=7)
    assert len(chosen) == 400
    assert chosen == writelog.states(rebuilder.entries, 400, seed=7)
    assert chosen != writelog.states(rebuilder.entries, 400, seed=8)
    after_first = {disk(rebuilder, s) for s in chosen if s.flushed == 3 and s.point == 6}
    # A write with FUA is always there once it has ended; d may be torn, and e may precede it.
    assert {content[0] for content in after_first} == {"c"}
    assert {content[1] for content in after_first} == {"b", "e"}
    assert {"cb----", "cbdddd", "ce----", "cedddd"} <= after_first
    assert any(0 < content.count("d") < 4 for content in after_first)


def test_of_some_only_the_early_part_of_what_was_not_flushed_is_lost(rebuilder: Rebuilder) -> None:
    chosen = writelog.states(rebuilder.entries, 400, seed=3)
    later = [state for state in chosen if state.kind == "early part lost"]
    assert len(later) == (400 - 2) // 5
    # c is certain, d comes before e.
    assert {disk(rebuilder, s) for s in later if s.point == 6} == {"cedddd", "ce----"}
    assert {s.unflushed for s in later if s.point == 6} == {4096 * 6}


def test_points_lie_after_the_start(rebuilder: Rebuilder) -> None:
    for state in writelog.states(rebuilder.entries, 50, seed=1, start=4):
        assert state.point >= 4


def test_states_come_in_the_order_of_their_flushes(rebuilder: Rebuilder) -> None:
    rebuilder.roll(DiskState(6, 6, (), ""))
    with pytest.raises(InputError, match="in the order"):
        rebuilder.roll(DiskState(2, 2, (), ""))


def test_what_is_not_a_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 512)
    with pytest.raises(InputError, match="its magic is 0x7878787878787878"):
        writelog.read(tmp_path / "log")
    (tmp_path / "log").write_bytes(b"x")
    with pytest.raises(InputError, match="too short"):
        writelog.read(tmp_path / "log")
    empty = write_log(tmp_path / "log", [(0, b"", FLUSH)])
    with pytest.raises(InputError, match="nothing was updated"):
        writelog.states(writelog.read(empty), 5, seed=1)
