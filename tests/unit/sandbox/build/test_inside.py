"""What runs in the chroot of a compose: the parts that need no chroot."""

import os
import py_compile
from pathlib import Path
from typing import Any

import pytest

from rfe_helpers.sandbox.build import inside

HASH = "$6$aL2sQQ2D$IzsJy1OAzNenC0S.nLi4TEpnAGkmO6E3XRiSWSlZ6qs7"


class Commands:
    """Commands at the front of PATH that only write down how they are called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "bin"
        self.directory.mkdir()
        self._calls = directory / "calls"
        for name, answer in (("useradd", ""), ("usermod", ""), ("chpasswd", "cat")):
            command = self.directory / name
            command.write_text(f'#!/bin/sh\necho {name} "$@" >>{self._calls}\n{answer}\n')
            command.chmod(0o755)

    def calls(self) -> list[str]:
        """The calls since the last time this was asked."""
        calls = self._calls.read_text().splitlines()
        self._calls.unlink()
        return calls


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands(tmp_path)
    monkeypatch.setenv("PATH", f"{commands.directory}:/usr/bin:/bin")
    return commands


def test_a_user_that_is_there_is_changed_as_far_as_asked_for(
    commands: Commands, capfd: pytest.CaptureFixture[str]
) -> None:
    inside.users([{"name": "root", "password": HASH}])
    assert commands.calls() == ["chpasswd --encrypted"]
    assert capfd.readouterr().out == f"root:{HASH}\n"
    inside.users([{"name": "root", "home": "/root", "shell": "/bin/sh"}])
    assert commands.calls() == ["usermod --shell /bin/sh -d /root root"]


def test_a_new_user_is_added(commands: Commands) -> None:
    inside.users([{"name": "nobody-yet", "home": "/var/home/x", "groups": ["wheel"]}])
    (command,) = commands.calls()
    assert command.startswith("useradd --create-home --shell /bin/bash ")
    assert "-d /var/home/x" in command


@pytest.mark.parametrize("entry", [{"user": os.getuid()}, {"group": os.getgid()}, {}])
def test_special_bits_outlive_the_change_of_the_owner(tmp_path: Path, entry: Any) -> None:
    path = tmp_path / "tool"
    path.write_text("x")
    inside.own(path, {"mode": "4755", **entry}, default_mode=0o644)
    assert path.stat().st_mode & 0o7777 == 0o4755


@pytest.mark.parametrize(
    ("mode", "hash_based"),
    [
        (py_compile.PycInvalidationMode.TIMESTAMP, False),
        (py_compile.PycInvalidationMode.UNCHECKED_HASH, True),
    ],
)
def test_bytecode_that_goes_by_the_time_of_its_source_is_told_from_the_other(
    tmp_path: Path, mode: py_compile.PycInvalidationMode, hash_based: bool
) -> None:
    (tmp_path / "x.py").write_text("x = 1\n")
    py_compile.compile(str(tmp_path / "x.py"), str(tmp_path / "x.pyc"), invalidation_mode=mode)
    assert inside.is_hash_based(tmp_path / "x.pyc") is hash_based
