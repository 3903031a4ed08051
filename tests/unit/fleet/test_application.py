"""The application's start script, run with fakes of the programs of its image."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import CommandFailedError, InputError
from rfe_helpers.fleet import application
from rfe_helpers.lab.lab import Lab

NC = """\
import socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.sendto(sys.stdin.buffer.read(), sys.argv[-1])
"""


def start(tmp_path: Path, script: str, *, answers: bool = True) -> subprocess.Popen[bytes]:
    """Run the script with a page that answers, or does not, and systemd's socket; its output goes
    to the file `output`."""
    fakes = tmp_path / "bin"
    fakes.mkdir()
    (tmp_path / "nc.py").write_text(NC)
    for name, text in {
        "httpd": f"echo httpd >> {tmp_path}/calls",
        "wget": f"echo wget >> {tmp_path}/calls; exit {0 if answers else 1}",
        "nc.openbsd": f'echo notify >> {tmp_path}/calls; python3 {tmp_path}/nc.py "$@"',
    }.items():
        (fakes / name).write_text(f"#!/bin/sh\n{text}\n")
        (fakes / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{fakes}:{os.environ['PATH']}"}
    with (tmp_path / "output").open("wb") as output:
        return subprocess.Popen(
            ["sh", "-c", script],
            env={**env, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def wait_for_lines(tmp_path: Path, *lines: str) -> None:
    output = tmp_path / "output"
    wait_for(
        lambda: output.read_text().splitlines() == list(lines), Deadline(30), f"output of {lines}"
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End it with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def calls(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls"
    return path.read_text().split() if path.exists() else []


def test_it_is_ready_once_its_page_answers_and_ends_when_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        process = start(tmp_path, application.start_script("2", broken=False))
        try:
            assert systemd.recv(100) == b"READY=1"
            assert calls(tmp_path) == ["httpd", "wget", "notify"]
            wait_for_lines(tmp_path, "application 2 starts", "application 2 is ready")
            process.terminate()
            assert process.wait(30) == 0  # not by the signal: its own trap
        finally:
            end(process)


@pytest.mark.parametrize(("broken", "answers"), [(True, True), (False, False)])
def test_a_bad_version_ends_without_reporting_that_it_is_ready(
    tmp_path: Path, broken: bool, answers: bool
) -> None:
    process = start(tmp_path, application.start_script("3", broken=broken), answers=answers)
    assert process.wait(30) == 1
    output = (tmp_path / "output").read_text()
    assert "application 3 starts" in output
    assert "notify" not in calls(tmp_path)
    assert ("finds no price list" in output) is broken


def test_it_runs_without_systemd_too(tmp_path: Path) -> None:
    script = "unset NOTIFY_SOCKET\n" + application.start_script("1", broken=False)
    process = start(tmp_path, script)
    try:
        wait_for_lines(tmp_path, "application 1 starts", "application 1 is ready")
        assert calls(tmp_path) == ["httpd", "wget"]
    finally:
        end(process)


def test_packages_are_extracted_and_not_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFE_DEBIAN_MIRROR", "http://mirror.example/debian")
    argv = application.extract_argv(tmp_path / "programs.tar")
    assert "--variant=extract" in argv
    assert "--include=busybox-static,netcat-openbsd" in argv
    assert argv[-3:] == ["trixie", f"{tmp_path}/programs.tar", "http://mirror.example/debian"]


@pytest.mark.parametrize("version", ["", "../x", "a b", "-1"])
def test_a_version_must_be_able_to_be_a_tag(tmp_path: Path, version: str) -> None:
    with pytest.raises(InputError, match="cannot be a version"):
        application.build(Lab(tmp_path / "lab"), version)


def test_only_the_first_image_downloads_its_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that fails leaves nothing behind that the next one would take for its programs."""
    fake = tmp_path / "bin" / "mmdebstrap"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n"
        f"echo call >> {tmp_path}/calls\n"
        'for target; do :; done; tar -cf "$target" -T /dev/null\n'
        f"[ $(wc -l < {tmp_path}/calls) -gt 1 ]\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("RFE_DEBIAN_MIRROR", raising=False)
    lab = Lab(tmp_path / "lab")
    with pytest.raises(CommandFailedError):
        application.build(lab, "1")
    images = [application.build(lab, version) for version in ("1", "2")]
    assert all(image.is_file() for image in images)
    assert (tmp_path / "calls").read_text().count("call") == 2
