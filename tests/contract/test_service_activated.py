"""The service on a socket that systemd passes to it, as in a guest of the sandbox."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from rfe_helpers.build.client import Client
from rfe_helpers.core.wait import Deadline, wait_for

SERVICE = Path(__file__).parents[2] / "rfe_helpers/sandbox/guest/image-builder"
# systemd sets LISTEN_PID to the process that gets the socket.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def command(state: Path) -> list[str]:
    return [sys.executable, "-m", "rfe_helpers.sandbox", "--activated", "--state", str(state)]


def test_it_answers_on_a_passed_socket_and_does_not_remove_it(tmp_path: Path) -> None:
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


def test_without_a_socket_from_systemd_it_does_not_start(tmp_path: Path) -> None:
    result = subprocess.run(command(tmp_path / "state"), capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("error: systemd has passed no socket")


def test_its_units_pass_systemd_analyze_verify(tmp_path: Path) -> None:
    """The program that the unit starts is replaced by one that exists here."""
    for unit in SERVICE.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text())
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.glob("osbuild-composer.*"))],
        capture_output=True,
        text=True,
        timeout=120,
    )
    complaints = [line for line in result.stderr.splitlines() if "osbuild-composer" in line]
    assert (complaints, result.returncode) == ([], 0)
    assert len(list(tmp_path.iterdir())) == 2
