"""The service on a socket that systemd has opened, as in a guest of the sandbox."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from rfe_helpers.build.client import Client
from rfe_helpers.core.wait import Deadline, wait_for

SERVICE = Path(__file__).parents[2] / "rfe_helpers/sandbox/guest/image-builder"
# systemd says so in the environment of the very process that gets the socket.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def command(state: Path) -> list[str]:
    return [sys.executable, "-m", "rfe_helpers.sandbox", "--activated", "--state", str(state)]


def test_it_answers_on_the_socket_that_it_is_passed_and_leaves_it_there(tmp_path: Path) -> None:
    path = tmp_path / "api.socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, str(listener.fileno()), *command(tmp_path / "state")],
            env={**os.environ, "LISTEN_FDS": "1"},
            pass_fds=(listener.fileno(),),
        )
        try:
            client = Client(path)
            assert wait_for(client.status, Deadline(60), "it answers").api == "1"
            assert "guest-image" in client.types()
        finally:
            process.terminate()
            assert process.wait(timeout=60) == 0
    assert path.is_socket()


def test_without_systemd_it_says_so(tmp_path: Path) -> None:
    ran = subprocess.run(command(tmp_path / "state"), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: systemd has passed no socket")


def test_its_units_pass_systemd_analyze_verify(tmp_path: Path) -> None:
    """With a program that is here in place of the one in the guest."""
    for unit in SERVICE.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text())
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.glob("osbuild-composer.*"))],
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [line for line in ran.stderr.splitlines() if "osbuild-composer" in line]
    assert (lines, ran.returncode) == ([], 0)
    assert len(list(tmp_path.iterdir())) == 2
