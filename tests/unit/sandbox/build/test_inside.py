"""The program in the chroot of a compose: its parts that need no chroot. Commands are recorded."""

import os
from pathlib import Path
from typing import Any

import pytest

from rfe_helpers.sandbox.build import inside

HASH = "$6$aL2sQQ2D$IzsJy1OAzNenC0S.nLi4TEpnAGkmO6E3XRiSWSlZ6qs7"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    commands: list[str] = []
    monkeypatch.setattr(inside, "run", lambda *words, **_: commands.append(" ".join(words)))
    return commands


def test_only_the_requested_properties_of_an_existing_user_change(ran: list[str]) -> None:
    inside.users([{"name": "root", "password": HASH}])
    assert ran == ["chpasswd --encrypted"]
    ran.clear()
    inside.users([{"name": "root", "home": "/root", "shell": "/bin/sh"}])
    assert ran == ["usermod --shell /bin/sh -d /root root"]


def test_a_new_user_is_added(ran: list[str]) -> None:
    inside.users([{"name": "nobody-yet", "home": "/var/home/x", "groups": ["wheel"]}])
    (command,) = ran
    assert command.startswith("useradd --create-home --shell /bin/bash ")
    assert "-d /var/home/x" in command


@pytest.mark.parametrize("entry", [{"user": os.getuid()}, {"group": os.getgid()}, {}])
def test_special_bits_survive_a_change_of_the_owner(tmp_path: Path, entry: Any) -> None:
    path = tmp_path / "tool"
    path.write_text("x")
    inside.own(path, {"mode": "4755", **entry}, default_mode=0o644)
    assert path.stat().st_mode & 0o7777 == 0o4755
