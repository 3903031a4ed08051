"""A server that greets as sshd does; what is said after that is said by a fake `ssh` on PATH."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle

from rfe_helpers.core.network import LOOPBACK


@contextmanager
def greeting(greets: Callable[[], bool] | None = None) -> Iterator[int]:
    """The port of one. `greets` says whether it does so this time; by default every second time, as
    often as a system that is always rebooting."""
    alternately = cycle((True, False))
    decide = greets or (lambda: next(alternately))

    class Greeting(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if decide():
                self.request.sendall(b"SSH-2.0-OpenSSH_10.0\r\n")

    with socketserver.TCPServer((LOOPBACK, 0), Greeting) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
