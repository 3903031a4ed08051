"""A server on a unix socket that answers with what a test gives it, and remembers requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from threading import Thread
from typing import Any, ClassVar


@dataclass(frozen=True)
class Request:
    """`path` is as it was on the wire, with the query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def route(self) -> str:
        """Method and path without the query."""
        return f"{self.method} {self.path.partition('?')[0]}"


@dataclass(frozen=True)
class Reply:
    """`length` is what Content-Length says: None for the truth, -1 for no such header."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


def json_reply(value: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(value).encode(), status)


Answer = Callable[[Request], Reply | None]


@contextmanager
def serving(socket: Path, answer: Answer) -> Iterator[list[Request]]:
    """Answer on `socket` until the block ends; None closes the connection without an answer."""
    requests: list[Request] = []

    class Handler(_Handler):
        remembered = requests
        answering = staticmethod(answer)

    with _Server(str(socket), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield requests
        finally:
            server.shutdown()
            thread.join()
            socket.unlink(missing_ok=True)


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    remembered: ClassVar[list[Request]]
    answering: ClassVar[Answer]

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, dict(self.headers), body)
        self.remembered.append(request)
        reply = type(self).answering(request)
        if reply is None:
            return
        self.send_response(reply.status)
        # As osbuild-composer does on every answer, whatever is in it.
        headers = {"Content-Type": "application/json; charset=utf-8", **reply.headers}
        if reply.length != -1 and "Content-Length" not in headers:
            actual = len(reply.body) if reply.length is None else reply.length
            headers["Content-Length"] = str(actual)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"
