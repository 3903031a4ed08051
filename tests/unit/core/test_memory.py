"""Memory that is free, and when temporary directories are in it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from rfe_helpers.core import memory

GIB = 1 << 30


@pytest.fixture
def plenty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with 8 GiB of free memory, and a file system in it with 4 GiB."""
    monkeypatch.setattr(memory, "SHARED", tmp_path)
    monkeypatch.setattr(memory, "available", lambda: 8 * GIB)
    _file_system(monkeypatch)
    return tmp_path


def _file_system(monkeypatch: pytest.MonkeyPatch, *, flags: int = 0, free: int = 4 * GIB) -> None:
    status = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_flag=flags)
    monkeypatch.setattr(os, "statvfs", lambda path: status)


def test_what_fits_is_in_memory_with_two_gib_left_for_others(plenty: Path) -> None:
    assert memory.directory(4 * GIB) == plenty
    assert memory.directory(4 * GIB + 4096) == memory.DISK, "its file system is smaller"


def test_the_disk_is_used_where_memory_is_scarce(
    plenty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 3 * GIB)
    assert memory.directory(GIB) == plenty
    assert memory.directory(GIB + 1) == memory.DISK


def test_an_unknown_size_may_be_large(plenty: Path) -> None:
    assert memory.directory(None) == memory.DISK


def test_a_file_system_without_programs_or_devices_is_not_used_for_them(
    plenty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _file_system(monkeypatch, flags=os.ST_NOEXEC)
    assert memory.directory(1) == memory.DISK
    _file_system(monkeypatch, flags=os.ST_NODEV | os.ST_NOSUID)
    assert memory.directory(1) == plenty
    assert memory.directory(1, devices=True) == memory.DISK


def test_attributes_are_tried(plenty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # That of this test's directory may have them or not: what is said is what can be done.
    try:
        with tempfile.TemporaryFile(dir=plenty) as file:
            os.setxattr(file.fileno(), "user.test", b"1")
        expected = plenty
    except OSError:
        expected = memory.DISK
    assert memory.directory(1, attributes=True) == expected

    def refuse(*arguments: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    assert memory.directory(1, attributes=True) == memory.DISK


def test_a_machine_without_it_uses_the_disk(
    plenty: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(memory, "SHARED", tmp_path / "nothing")
    assert memory.directory(1) == memory.DISK


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    group = tmp_path / "seat"
    group.mkdir()
    (group / "memory.max").write_text("3000000\n")
    (group / "memory.current").write_text("2500000\n")
    (group / "memory.stat").write_text("active_file 1\ninactive_file 200000\n")
    assert list(memory._left(group)) == [700_000]
    (group / "memory.max").write_text("max\n")
    assert list(memory._left(group)) == [], "no limit"
    assert list(memory._left(tmp_path)) == [], "the root of all groups has no such file"
