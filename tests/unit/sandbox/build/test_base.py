"""The base in the cache: what it is made of, and when it is removed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from rfe_helpers.core.wait import Deadline
from rfe_helpers.sandbox.build import base, tree


def test_the_guest_files_are_the_same_bytes_every_time_and_belong_to_root() -> None:
    first = base.guest_files()
    assert first == base.guest_files()
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        entries = {entry.name: entry for entry in tar}
    assert entries["./usr/bin/rpm-ostree"].mode == 0o755
    assert {(entry.uid, entry.gid) for entry in entries.values()} == {(0, 0)}


def test_a_base_that_is_being_made_is_not_removed(tmp_path: Path) -> None:
    work = tree.Work(tmp_path, tmp_path / "cache", tmp_path / "log", Deadline(5))
    cache = tmp_path / "bases"
    ours, theirs, old = (base.Base(cache / f"base-{name}") for name in ("ours", "theirs", "old"))
    for place in (ours, theirs, old):
        (place.directory / "build").mkdir(parents=True)
    with tree.locked(work, theirs.directory):
        base.forget_others(cache, ours)
    assert theirs.directory.exists()
    assert not old.directory.exists()
    base.forget_others(cache, ours)
    assert [path.name for path in cache.iterdir()] == ["base-ours"]
