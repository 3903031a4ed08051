"""The sockets of a machine without a QEMU: a screen for any number of viewers, and a console that
accepts one connection at a time, as QEMU has them."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

from rfe_helpers.core.run import ProcessId
from rfe_helpers.lab.lab import Lab

GREETING = b"RFB 003.008\n"


class FakeMachine:
    """A machine that runs in the lab, until `end`. Its screen greets, and sends back what it gets;
    `flood` is how much it sends to each viewer instead of that, `flooded` how much has gone."""

    def __init__(self, lab: Lab, name: str, *, flood: int = 0) -> None:
        self.lab = lab
        self.name = name
        self.log: Path = lab.path("machines", name, "console.log")
        self.typed = b""
        self.connections = 0  # that the console has had
        self.connected = False  # whether it has one now
        self.flood, self.flooded = flood, 0
        self._sockets: list[socket.socket] = []
        self._listen(".vnc", self._screen)
        self._listen(".tty", self._console)
        process = ProcessId.of(os.getpid())
        assert process is not None
        lab.add_process(f"machine-{name}", process)

    def write(self, text: str) -> None:
        """Write to the serial port."""
        with self.log.open("a") as file:
            file.write(text)

    def end(self) -> None:
        self.lab.remove_process(f"machine-{self.name}")
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _listen(self, suffix: str, serve: object) -> None:
        server = socket.socket(socket.AF_UNIX)
        path = self.lab.socket(self.name + suffix)
        path.unlink(missing_ok=True)
        server.bind(str(path))
        server.listen()
        self._sockets.append(server)
        threading.Thread(target=serve, args=(server,), daemon=True).start()

    def _screen(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                viewer, _ = server.accept()
                self._sockets.append(viewer)
                threading.Thread(target=self._show, args=(viewer,), daemon=True).start()

    def _show(self, viewer: socket.socket) -> None:
        with suppress(OSError), viewer:
            viewer.sendall(GREETING)
            while self.flooded < self.flood:
                self.flooded += viewer.send(bytes(65536))
            while data := viewer.recv(65536):
                viewer.sendall(data)

    def _console(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                viewer, _ = server.accept()
                self._sockets.append(viewer)
                self.connections += 1
                self.connected = True
                with suppress(OSError), viewer:
                    while data := viewer.recv(65536):
                        self.typed += data
                self.connected = False
