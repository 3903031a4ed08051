"""How a blueprint is applied to a tree: the parts that need no chroot."""

import os
from pathlib import Path
from typing import Any

import pytest

from rfe_helpers.sandbox.build import customize

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
    customize.users([{"name": "root", "password": HASH}])
    assert commands.calls() == ["chpasswd --encrypted"]
    assert capfd.readouterr().out == f"root:{HASH}\n"
    customize.users([{"name": "root", "home": "/root", "shell": "/bin/sh"}])
    assert commands.calls() == ["usermod --shell /bin/sh -d /root root"]


def test_a_new_user_is_added(commands: Commands) -> None:
    customize.users([{"name": "nobody-yet", "home": "/var/home/x", "groups": ["wheel"]}])
    (command,) = commands.calls()
    assert command.startswith("useradd --create-home --shell /bin/bash ")
    assert "-d /var/home/x" in command


@pytest.mark.parametrize("entry", [{"user": os.getuid()}, {"group": os.getgid()}, {}])
def test_special_bits_outlive_the_change_of_the_owner(tmp_path: Path, entry: Any) -> None:
    path = tmp_path / "tool"
    path.write_text("x")
    customize.own(path, {"mode": "4755", **entry}, default_mode=0o644)
    assert path.stat().st_mode & 0o7777 == 0o4755


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with some of what Debian has in /etc."""
    root = tmp_path / "root"
    for name in ("etc/alternatives", "etc/systemd/system", "usr/bin", "usr/lib/systemd/system"):
        (root / name).mkdir(parents=True)
    for name in ("etc/passwd", "usr/bin/mawk", "usr/lib/os-release"):
        (root / name).write_text("the vendor's\n")
    (root / "usr/lib/systemd/system/ssh.service").write_text("[Unit]\n")
    (root / "usr/lib/systemd/system/getty@.service").write_text("[Unit]\n")
    (root / "etc/alternatives/awk").symlink_to("../../usr/bin/mawk")
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (root / "etc/systemd/system/sshd.service").symlink_to(
        "../../../usr/lib/systemd/system/ssh.service"
    )
    (root / "etc/out").symlink_to("../usr/bin")
    monkeypatch.setattr(customize, "ROOT", root)
    return root


@pytest.mark.parametrize(
    ("path", "vendors"),
    [
        ("/etc/alternatives/awk", "usr/bin/mawk"),
        ("/etc/os-release", "usr/lib/os-release"),
        ("/etc/systemd/system/sshd.service", "usr/lib/systemd/system/ssh.service"),
    ],
)
def test_a_file_replaces_a_link_and_is_not_written_through_it(
    root: Path, path: str, vendors: str
) -> None:
    before = (root / vendors).read_text()
    request = {"files": [{"path": path, "data": "mine\r\n", "mode": "0640"}]}
    assert list(customize.problems(request)) == []
    customize.customize(request)
    assert (root / vendors).read_text() == before
    written = root / path.lstrip("/")
    assert not written.is_symlink()
    assert written.read_bytes() == b"mine\r\n"
    assert written.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"files": [{"path": "/etc/out/tool"}]}, "files[0].path: "),
        ({"files": [{"path": "/etc/app/settings"}]}, "add it to customizations.directories"),
        ({"files": [{"path": "/etc/systemd"}]}, "/etc/systemd is a directory in this tree"),
        ({"files": [{"path": "/etc/x", "user": "nobody-yet"}]}, "there is no user nobody-yet"),
        ({"files": [{"path": "/etc/x", "group": "nothing"}]}, "there is no group nothing"),
        ({"directories": [{"path": "/etc/out/more"}]}, "leads to"),
        ({"directories": [{"path": "/etc/out"}]}, "leads to"),
        ({"directories": [{"path": "/etc/passwd"}]}, "/etc/passwd is not a directory"),
        ({"directories": [{"path": "/etc/a/b"}]}, "set ensure_parents = true"),
        ({"user": [{"name": "core", "groups": ["nothing"]}]}, "there is no group nothing"),
        ({"user": [{"name": "core", "gid": 54321}]}, "no group has the id 54321"),
        ({"group": [{"name": "ops", "gid": 0}]}, "the group root has the id 0"),
        ({"group": [{"name": "root", "gid": 54321}]}, "the group root has the id 0"),
        ({"sshkey": [{"user": "nobody-yet"}]}, "there is no user nobody-yet"),
        ({"services": {"enabled": ["nothing"]}}, "the tree has no unit nothing.service"),
        ({"services": {"disabled": ["nothing.timer"]}}, "the tree has no unit nothing.timer"),
        ({"timezone": {"timezone": "Mars/Base"}}, "the tree has no time zone Mars/Base"),
    ],
    ids=str,
)
def test_what_the_tree_cannot_take_is_said_before_anything_is_changed(
    root: Path, request_: dict[str, Any], message: str
) -> None:
    (problem,) = customize.problems(request_)
    assert problem.startswith("customizations.")
    assert message in problem


def test_what_one_customization_brings_another_may_use(root: Path) -> None:
    request = {
        "group": [{"name": "ops", "gid": 54321}],
        "user": [
            {"name": "core", "groups": ["ops", "other"], "gid": 54321},
            {"name": "other"},
        ],
        "sshkey": [{"user": "core"}],
        "directories": [
            {"path": "/etc/app/conf.d", "ensure_parents": True},
            {"path": "/etc/app/more", "user": "core", "group": "ops"},
        ],
        "files": [
            {"path": "/etc/app/conf.d/x", "user": "core"},
            {"path": "/etc/app/settings"},
            {"path": "/etc/systemd/system/own.service"},
        ],
        "services": {
            "enabled": ["own.service", "ssh", "getty@tty2.service"],
            "masked": ["nothing.service"],
        },
    }
    assert list(customize.problems(request)) == []
