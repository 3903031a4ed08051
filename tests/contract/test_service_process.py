"""The service as a process: its socket, its lock and its end."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sandbox_service import Process, processes_of, silent_server

from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import CommandFailedError


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    yield process
    run.stop(process.id)


def test_the_socket_was_never_open_to_others(tmp_path: Path) -> None:
    modes = set()
    path = tmp_path / "socket"
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                modes.add(stat.S_IMODE(path.lstat().st_mode))
            except FileNotFoundError:
                continue

    before = os.umask(0)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        process = Process(tmp_path)
    finally:
        os.umask(before)
        done.set()
        watcher.join()
    try:
        assert modes == {0o660}
        assert stat.S_IMODE(process.state.stat().st_mode) == 0o700
    finally:
        process.terminate()


def test_sigterm_ends_the_service_and_its_build_and_removes_the_socket(process: Process) -> None:
    process.post("/api/v1/blueprints/new", name="Edge")
    identity = process.post("/api/v1/compose", blueprint_name="Edge", compose_type="edge-commit")
    wait_for(
        lambda: process.ask("GET /api/v1/compose/queue").json["run"] and len(builds(process)) > 0,
        Deadline(10),
        "the build runs",
        every=0.02,
    )
    process.terminate()
    assert builds(process) == {}
    assert not process.socket.exists()
    again = Process(process.directory)
    again.builder.open()
    path = f"GET /api/v1/compose/info/{identity.json['build_id']}"
    wait_for(
        lambda: again.ask(path).json["queue_status"] == "FINISHED",
        Deadline(10),
        "the compose is finished by the next service",
    )
    again.terminate()


def test_sigterm_does_not_wait_for_another_server(process: Process) -> None:
    process.post("/api/v1/blueprints/new", name="Edge")
    running = process.post("/api/v1/compose", blueprint_name="Edge", compose_type="edge-commit")
    wait_for(lambda: builds(process), Deadline(10), "the build runs", every=0.02)
    with silent_server() as url:
        asking = threading.Thread(target=lambda: ask_in_vain(process, url), daemon=True)
        asking.start()
        time.sleep(1)
        process.terminate()
        asking.join(10)
    assert builds(process) == {}
    again = Process(process.directory)
    path = f"GET /api/v1/compose/info/{running.json['build_id']}"
    assert again.ask(path).json["queue_status"] in ("WAITING", "RUNNING"), "it is not lost"
    again.terminate()


def ask_in_vain(process: Process, url: str) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        process.post(
            "/api/v1/compose",
            blueprint_name="Edge",
            compose_type="edge-commit",
            ostree={"url": url},
        )


def builds(process: Process) -> dict[int, str]:
    return processes_of(process.state / "composes")


def test_a_second_service_on_the_same_state_gets_one_clear_error(process: Process) -> None:
    message = refused(process.directory / "other-socket", process.state)
    assert f"another sandbox Image Builder uses the state in {process.state}" in message
    assert process.ask("GET /api/status").status == 200


def test_a_second_service_on_the_same_socket_gets_one_clear_error(process: Process) -> None:
    message = refused(process.socket, process.directory / "other-state")
    assert f"another service answers on {process.socket}" in message
    assert process.ask("GET /api/status").status == 200


def test_a_socket_and_a_lock_of_a_killed_service_are_taken_over(tmp_path: Path) -> None:
    first = Process(tmp_path)
    first.post("/api/v1/blueprints/new", name="Edge")
    first.kill()
    assert first.socket.is_socket()
    second = Process(tmp_path)
    assert second.ask("GET /api/v1/blueprints/list").json["blueprints"] == ["Edge"]
    second.terminate()


def test_a_file_in_the_place_of_the_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    assert "exists and is not a socket" in refused(path, tmp_path / "state")
    assert path.read_text() == "mine"


def test_a_path_that_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    assert "longer than 107 bytes" in refused(tmp_path / ("x" * 120), tmp_path / "state")


def test_a_state_directory_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "choose another directory" in refused(tmp_path / "socket", tmp_path / "file" / "state")


def refused(path: Path, state: Path) -> str:
    """The message of `python -m rfe_helpers.sandbox` when it does not start; never a traceback."""
    argv = [sys.executable, "-m", "rfe_helpers.sandbox", "--socket", path, "--state", state]
    with pytest.raises(CommandFailedError) as failure:
        run.run(argv, seconds=30)
    assert failure.value.status == 1
    assert "Traceback" not in failure.value.tail
    return failure.value.tail


def test_a_request_that_ends_early_does_no_harm(process: Process) -> None:
    for data in (
        b"POST /api/v1/compose HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf",
        b"\xff\0\r\n",
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(process.socket))
            client.sendall(data)
    assert process.ask("GET /api/status").status == 200
    assert "Traceback" not in process.log.read_text()
