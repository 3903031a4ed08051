"""A slow or broken link to a small server."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from rfe_helpers.core.link import Link, Quality

BODY = b"x" * 100_000


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_carries_and_counts(port: int) -> None:
    with Link(port) as link, requests.Session() as session:
        for _ in range(3):
            assert session.get(f"http://127.0.0.1:{link.port}/", timeout=30).content == BODY
        assert (link.requests, link.connections) == (3, 1)
        assert link.received > 3 * len(BODY)


def test_a_request_that_comes_in_two_pieces_is_counted(port: int) -> None:
    with Link(port) as link, socket.create_connection(("127.0.0.1", link.port)) as client:
        for piece in (b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r", b"\n"):
            client.sendall(piece)
            time.sleep(0.2)
        assert client.recv(12) == b"HTTP/1.1 200"
        assert link.requests == 1


def test_a_delay_and_a_rate_take_their_time(port: int) -> None:
    """Two round trips of 0.2 s before the answer begins, and 100 kB at 50 kB/s."""
    began = time.monotonic()
    with Link(port, Quality(delay=0.1, rate=50_000)) as link:
        answer = requests.get(f"http://127.0.0.1:{link.port}/", timeout=60)
    assert answer.content == BODY
    assert answer.elapsed.total_seconds() >= 0.4
    assert time.monotonic() - began >= 2


def test_when_it_breaks_connections_that_wait_for_nothing_break_too(port: int) -> None:
    with (
        Link(port, Quality(cut_after=150_000)) as link,
        socket.create_connection(("127.0.0.1", link.port), timeout=20) as idle,
    ):
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        received = 0
        while received <= len(BODY):
            received += len(idle.recv(65536))
        with pytest.raises(requests.RequestException):
            requests.get(f"http://127.0.0.1:{link.port}/", timeout=20)
        idle.settimeout(5)
        while rest := idle.recv(65536):
            received += len(rest)
        assert received < 150_000


def test_it_breaks(port: int) -> None:
    with Link(port, Quality(cut_after=50_000)) as link:
        for _ in range(2):
            with pytest.raises(requests.RequestException):
                requests.get(f"http://127.0.0.1:{link.port}/", timeout=30)
        assert link.broken
        assert 50_000 <= link.received < len(BODY)
