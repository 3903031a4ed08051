"""A lab, and a real service with small packages and builds for its panels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import sandbox_service
from support.greeting import greeting
from support.sandbox_service import Running

from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.build.client import Client
from rfe_helpers.core import journal
from rfe_helpers.lab.lab import Lab
from rfe_helpers.sandbox.service.packages import Index


@pytest.fixture
def service(tmp_path: Path, index: Index) -> Iterator[Running]:
    with sandbox_service.running(tmp_path, index) as service:
        yield service


@pytest.fixture
def client(service: Running) -> Client:
    client = Client(service.socket)
    client.push(Blueprint("edge", version="0.0.1", packages=(PackageSpec("tmux"),)))
    return client


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield Lab(tmp_path / "lab")
    journal.open_journal(None)


def deployment(checksum: str, *, booted: bool = False, staged: bool = False) -> dict[str, object]:
    return {
        "checksum": checksum * 64,
        "version": f"13.{checksum}",
        "origin": "edge:x",
        "osname": "debian-edge",
        "timestamp": 1795468038,
        "booted": booted,
        "staged": staged,
        "pinned": False,
    }


@pytest.fixture
def sshd() -> Iterator[int]:
    with greeting() as port:
        yield port


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake ssh that records the command and answers as a system does after one update."""
    commands = tmp_path / "commands"
    status = json.dumps(
        {"deployments": [deployment("2", staged=True), deployment("1", booted=True)]}
    )
    binary = tmp_path / "bin" / "ssh"
    binary.parent.mkdir()
    binary.write_text(f"""#!/bin/sh
for c; do :; done
echo "$c" >> {commands}
case "$c" in
  *status*) echo '{status}' ;;
  *timers*) echo 'Tue 03:00 rpm-ostreed-automatic.timer' ;;
  *podman*) echo 'no podman on this system' ;;
  *boot_id*) echo "boot-$(grep -c reboot {commands})" ;;
  *rollback*) ;;
  *upgrade*) echo Staged deployment; echo 'Run "systemctl reboot" to start it' ;;
esac
""")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}:/usr/bin:/bin")
    return commands
