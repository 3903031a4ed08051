"""What a room needs of podman, which is a fake command here; tests/browser/test_room.py has real
seats."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfe_helpers.errors import PodmanError
from rfe_helpers.room.seats import Containers
from rfe_helpers.room.settings import Settings


def test_a_room_whose_seats_get_no_network_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine where only root may use /dev/net/tun."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    script = """case "$*" in
    *--network=slirp4netns*) echo '/dev/net/tun: Permission denied' >&2; exit 126;;
    *image*) echo sha256:1;;
    esac"""
    for name in ("podman", "slirp4netns"):
        (binaries / name).write_text(f"#!/bin/sh\n{script}\n")
        (binaries / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
    (tmp_path / "room").mkdir()
    with pytest.raises(PodmanError, match="/dev/net/tun: Permission denied"):
        Containers(tmp_path / "room", "0f3a", Settings(seats=2)).prepare(print)
