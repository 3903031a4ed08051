"""A running sandbox service in a fake environment: a small Debian repository on the disk, a
builder that waits for a gate to open, and a web server with an OSTree ref."""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from rfe_helpers.core import files, run
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build.tree import Request, Work
from rfe_helpers.sandbox.service.app import create_app
from rfe_helpers.sandbox.service.packages import Index
from rfe_helpers.sandbox.service.queue import Queue
from rfe_helpers.sandbox.service.store import Store
from rfe_helpers.sandbox.service.wire import Service

ARTIFACT = b"the bytes of an image\n"
PACKAGES = """\
Package: libevent-core-2.1-7t64
Version: 2.1.12-stable-10
Architecture: amd64
Description: asynchronous event notification library (core)

Package: linux-image-amd64
Version: 6.12.48-1
Architecture: amd64
Description: Linux for 64-bit PCs

Package: linux-image-cloud-amd64
Version: 6.12.48-1
Architecture: amd64
Description: Linux for x86-64 cloud

Package: tmux
Version: 3.5a-3
Architecture: amd64
Depends: libevent-core-2.1-7t64 (>= 2.1)
Description: terminal multiplexer
Homepage: https://tmux.github.io/

Package: vim-tiny
Version: 2:9.1.1230-2
Architecture: amd64
Provides: editor
Description: Vi IMproved - enhanced vi editor - compact version
"""


@dataclass
class Answer:
    """An answer of the service."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; paths are sent unchanged."""

    def __init__(self, path: Path, timeout: float = 60) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(
    path: Path, request: str, body: bytes | str = b"", content_type: str = "", timeout: float = 60
) -> Answer:
    """One request, "GET /api/…", on a connection of its own."""
    method, target = request.split(" ", 1)
    connection = UnixConnection(path, timeout)
    try:
        headers = {"Content-Type": content_type} if content_type else {}
        data = body.encode() if isinstance(body, str) else body
        connection.request(method, target, data or None, headers)
        response = connection.getresponse()
        names = {name.title(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    finally:
        connection.close()


class GateBuilder:
    """Builds at once when its gate is open; until then it waits, in a process, which takes
    `ending` seconds to end after SIGTERM."""

    def __init__(self, gate: Path, ending: float = 0) -> None:
        self.gate = gate
        self.ending = ending
        self.requests: list[Request] = []

    def open(self, outcome: str = "finish") -> None:
        files.write(self.gate, outcome)

    def close(self) -> None:
        self.gate.unlink(missing_ok=True)

    def __call__(self, request: Request, work: Work) -> Path:
        self.requests.append(request)
        work.on_stage("tree", "mmdebstrap")
        wait = 'while [ ! -e "$1" ]; do sleep 0.02; done; echo "I: extracting"'
        if self.ending:
            wait = f"trap 'sleep {self.ending}; exit' TERM; {wait}"
        run.run(
            ["sh", "-c", wait, "build", self.gate, work.directory],
            log=work.log,
            on_start=work.on_process,
            deadline=work.deadline,
        )
        # The gate may have been closed again since this build went through.
        outcome = self.gate.read_text() if self.gate.exists() else ""
        if outcome == "fail":
            raise BuilderError("no package in this tree")
        if outcome == "full":
            raise OSError(errno.ENOSPC, "No space left on device", str(work.directory / "tree.tar"))
        work.on_stage("commit", "ostree.commit")
        with work.log.open("a") as log:
            log.write("committed\n")
        files.write_json(work.directory / "manifest.json", {"ref": request.ref})
        artifact = work.directory / "commit.tar"
        files.write(artifact, ARTIFACT)
        return artifact


def debian_repository(directory: Path, packages: str = PACKAGES) -> str:
    """Write a Debian repository and return its sources in apt's one-line form."""
    paragraphs = [text.strip() for text in packages.split("\n\n") if text.strip()]
    extra = "Size: 1\nSHA256: " + 64 * "0"
    for suite, content in (
        (
            "trixie",
            "".join(
                f"{text}\nFilename: pool/{number}.deb\n{extra}\n\n"
                for number, text in enumerate(paragraphs)
            ),
        ),
        ("trixie-security", ""),
    ):
        index = directory / "dists" / suite / "main" / "binary-amd64" / "Packages"
        index.parent.mkdir(parents=True)
        index.write_text(content)
        digest = hashlib.sha256(content.encode()).hexdigest()
        (directory / "dists" / suite / "Release").write_text(
            f"Suite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: main\n"
            f"SHA256:\n {digest} {len(content)} main/binary-amd64/Packages\n"
        )
    return "\n".join(
        f"deb [trusted=yes] file:{directory} {suite} main"
        for suite in ("trixie", "trixie-security")
    )


@dataclass
class Running:
    """A service in this process."""

    socket: Path
    service: Service
    builder: GateBuilder
    state: Path

    def ask(self, request: str, body: bytes | str = b"", content_type: str = "") -> Answer:
        return ask(self.socket, request, body, content_type)

    def push(self, name: str = "Edge", **more: Any) -> None:
        body = json.dumps({"name": name, **more})
        answer = self.ask("POST /api/v1/blueprints/new", body, "application/json")
        assert answer.status == 200, answer.body

    def compose(self, name: str = "Edge", query: str = "", **more: Any) -> str:
        body = json.dumps({"blueprint_name": name, "compose_type": "edge-commit", **more})
        answer = self.ask(f"POST /api/v1/compose{query}", body, "application/json")
        assert answer.status == 200, answer.body
        return str(answer.json["build_id"])

    def status(self, identity: str) -> str:
        return str(self.ask(f"GET /api/v1/compose/info/{identity}").json["queue_status"])

    def wait(self, identity: str, *states: str, seconds: float = 20) -> str:
        end = time.monotonic() + seconds
        while (status := self.status(identity)) not in states:
            assert time.monotonic() < end, f"{identity} is {status}, not one of {states}"
            time.sleep(0.01)
        return status


@contextmanager
def running(
    directory: Path,
    index: Index,
    builder: GateBuilder | None = None,
    base: tuple[str, ...] = (),
) -> Iterator[Running]:
    """A service with its state in `directory`; composes end once the builder's gate is open."""
    state = directory / "state"
    state.mkdir(parents=True, exist_ok=True)
    builder = builder or GateBuilder(directory / "gate")
    store = Store(state)
    queue = Queue(store, state / "composes", directory / "cache", builder)
    service = Service(store, queue, index, base)
    queue.start()
    with _SERVER.serving(create_app(service)) as path:
        try:
            yield Running(path, service, builder, state)
        finally:
            queue.stop()
    store.close()


class Server:
    """One uvicorn on a unix socket for all tests of a run; each test gives it an application."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._app: ASGIApp | None = None

    @contextmanager
    def serving(self, app: ASGIApp) -> Iterator[Path]:
        if self._path is None:
            self._path = self._start()
        self._app = app
        yield self._path
        self._app = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._app is not None
        await self._app(scope, receive, send)

    def _start(self) -> Path:
        path = Path(tempfile.mkdtemp(prefix="rfe-test-")) / "socket"
        atexit.register(shutil.rmtree, path.parent)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(512)
        config = uvicorn.Config(self, lifespan="off", log_level="warning", log_config=None)
        run = uvicorn.Server(config).run
        threading.Thread(target=run, kwargs={"sockets": [listener]}, daemon=True).start()
        return path


_SERVER = Server()


@contextmanager
def web_server(files_by_path: dict[str, bytes]) -> Iterator[str]:
    """An HTTP server on loopback with these files; yields http://127.0.0.1:port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files_by_path.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent_server() -> Iterator[str]:
    """A server on loopback that takes connections and never answers; yields its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class Process:
    """A service in a process of its own, so that it can be killed. A second Process with the same
    directory is the restarted service."""

    def __init__(self, directory: Path, memory: int = 0) -> None:
        """With `memory`, its limit is that many bytes, not the usual one."""
        self.directory = directory
        self.socket = directory / "socket"
        self.state = directory / "state"
        self.builder = GateBuilder(directory / "cache" / "gate")
        self.log = directory / "service.log"
        sources = directory / "sources.list"
        if not sources.exists():
            sources.write_text(debian_repository(directory / "debian"))
        words: list[str | Path] = [sys.executable, __file__, self.socket, self.state]
        if memory:
            words = ["prlimit", f"--data={memory}:", *words]
        self.id = run.start([*words, directory / "cache", sources], log=self.log)
        wait_for(self._answers, Deadline(30), "the service answers", every=0.02)

    def _answers(self) -> bool:
        assert self.id.alive, self.log.read_text()
        try:
            return self.ask("GET /api/status").status == 200
        except OSError:
            return False

    def ask(self, request: str, body: bytes | str = b"", content_type: str = "") -> Answer:
        return ask(self.socket, request, body, content_type)

    def post(self, path: str, **data: Any) -> Answer:
        return self.ask(f"POST {path}", json.dumps(data), "application/json")

    def kill(self) -> None:
        """kill -9 of the service alone; the processes that it started keep running."""
        os.kill(self.id.pid, signal.SIGKILL)
        wait_for(lambda: not self.id.alive, Deadline(10), "the service is dead", every=0.01)

    def terminate(self) -> None:
        os.kill(self.id.pid, signal.SIGTERM)
        wait_for(lambda: not self.id.alive, Deadline(20), "the service has ended", every=0.01)


@contextmanager
def gated(command: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let a command wait until the block ends or the file that this yields exists. A file
    `calls` beside it has a line for each call."""
    real, gate = run.which(command), directory / f"{command}.gate"
    assert real is not None
    fake = directory / "bin" / command
    fake.parent.mkdir(exist_ok=True)
    # apt-get: only its solver waits.
    fake.write_text(
        f"#!/bin/sh\necho call >>{directory}/calls\n"
        'case "$*" in *update*|*indextargets*) ;; '
        f"*) while [ ! -e {gate} ]; do sleep 0.02; done;; esac\n"
        f'exec {real} "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    try:
        yield gate
    finally:
        gate.touch()


def processes_of(directory: Path) -> dict[int, str]:
    """Running processes that name the directory on their command line, by pid."""
    command_lines = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and bytes(directory) in (entry / "cmdline").read_bytes():
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                command_lines[int(entry.name)] = words.decode()
    return command_lines


def main() -> None:
    """Serve as a process: python sandbox_service.py SOCKET STATE CACHE SOURCES, gate in CACHE."""
    from rfe_helpers.sandbox.service.server import leave, serve

    path, state, cache, sources = (Path(word) for word in sys.argv[1:5])
    builder = GateBuilder(cache / "gate")
    serve(path, state, cache, builder, Index(cache, sources.read_text()))
    leave(0)


if __name__ == "__main__":
    main()
