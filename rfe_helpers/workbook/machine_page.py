"""The page of a machine: its screen and its console, live, in the Jupyter server of its lab.

The workbook's extension of the server (workbook/server.py) adds to its address, behind its login:

    rfe/machines/NAME            the page, which is in static/, with noVNC and xterm.js
    rfe/machines/NAME/screen     a websocket: QEMU's VNC connection, one for each viewer
    rfe/machines/NAME/console    a websocket: console.log as it grows; back go the keys

No direction holds more than one message for a viewer: a slow one is waited for, and the server's
pings drop one that has stalled. All viewers read the same log, from HISTORY bytes before its end,
also of a machine that is off. They share QEMU's one connection to the console, which is opened by
the first key and closed with the last page, so that a program in a terminal can have it.
"""

from __future__ import annotations

import asyncio
import html
import os
import shlex
from contextlib import suppress
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, BinaryIO

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import FileFindHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.qemu import CONSOLE, SCREEN

STATIC = resources.files("rfe_helpers.workbook") / "static"
# A name that is one part of a path; a machine of another name has no page.
NAME = r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})"
HISTORY = 64 * 1024
LARGEST_MESSAGE = 64 * 1024
POLL_SECONDS = 0.05
OFF = 4000  # a close code of our own (RFC 6455, 7.4.2): its reason is for the reader


def commands(lab: Lab, name: str) -> dict[str, str]:
    """Commands that show the same in programs of their own."""
    screen, console = (lab.socket(name + suffix) for suffix in (SCREEN, CONSOLE))
    return {
        "screen": shlex.join(["vncviewer", str(screen)]),
        "console": f"socat -,raw,echo=0,escape=0x1d {shlex.quote(f'UNIX-CONNECT:{console}')}",
    }


class _Keyboard:
    """The connection to the serial console of one machine, which all its viewers type into."""

    def __init__(self, socket: Path) -> None:
        self.viewers = 0
        self._socket = socket
        self._turn = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._discarding: asyncio.Task[None] | None = None

    async def type(self, keys: bytes) -> None:
        """Wait until the machine has taken the keys. Nothing happens if it is off."""
        with suppress(OSError):
            async with self._turn:
                if self._writer is None:
                    reader, self._writer = await asyncio.open_unix_connection(self._socket)
                    self._discarding = asyncio.create_task(self._discard(reader))
                self._writer.write(keys)
                await self._writer.drain()

    async def _discard(self, reader: asyncio.StreamReader) -> None:
        """QEMU would wait for a reader; viewers have the same from the log."""
        with suppress(OSError):
            while await reader.read(LARGEST_MESSAGE):
                pass
        self.hang_up()

    def hang_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


class MachinePage(JupyterHandler):
    """The page, for a machine that may be off or not yet installed."""

    auth_resource = "machines"

    @property
    def content_security_policy(self) -> str:
        # Styles of xterm.js and the pointer of noVNC are made by their scripts.
        return (
            f"{super().content_security_policy}; default-src 'none'; script-src 'self'; "
            "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
        )

    @web.authenticated
    @authorized
    def get(self, name: str) -> None:
        page = Template((STATIC / "machine.html").read_text())
        values = {"name": name, **commands(self.settings["rfe_lab"], name)}
        self.finish(page.substitute({key: html.escape(text) for key, text in values.items()}))


class _Viewer(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """What the websockets have in common: the login, the lab, and a task that ends with them."""

    auth_resource = "machines"
    _task: asyncio.Task[None] | None = None

    @property
    def max_message_size(self) -> int:
        return LARGEST_MESSAGE

    def set_default_headers(self) -> None:
        """Those of JupyterHandler are for pages."""

    @authorized(action="execute")  # type: ignore[untyped-decorator]
    async def get(self, name: str) -> None:  # type: ignore[override]
        self.name = name
        self.lab: Lab = self.settings["rfe_lab"]
        await super().get(name)

    def socket(self, suffix: str) -> Path:
        return self.lab.socket(self.name + suffix)

    def on_close(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Screen(_Viewer):
    """The bytes of QEMU's VNC connection."""

    _writer: asyncio.StreamWriter | None = None

    async def open(self, name: str) -> None:
        super().open()
        if self.lab.process(f"machine-{name}") is None:
            self.close(OFF, f"{name} is off")
            return
        try:
            reader, self._writer = await asyncio.open_unix_connection(self.socket(SCREEN))
        except OSError:
            self.close(OFF, f"{name} has no live screen yet; stop and start it")
            return
        self._task = asyncio.create_task(self._show(reader))

    async def _show(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, WebSocketClosedError):
            while data := await reader.read(LARGEST_MESSAGE):
                await self.write_message(data, binary=True)
        self.close(OFF, f"{self.name} is off")

    async def on_message(self, message: str | bytes) -> None:
        with suppress(OSError):
            if self._writer is not None:
                self._writer.write(_bytes(message))
                await self._writer.drain()

    def on_close(self) -> None:
        super().on_close()
        if self._writer is not None:
            self._writer.close()


class Console(_Viewer):
    """What the serial console writes, and the keys for it. A text message, `begin`, says that the
    log starts again; the first message after it is from before the viewer came."""

    _keyboard: _Keyboard | None = None

    async def open(self, name: str) -> None:
        super().open()
        self._keyboards: dict[str, _Keyboard] = self.settings["rfe_keyboards"]
        self._keyboard = self._keyboards.setdefault(name, _Keyboard(self.socket(CONSOLE)))
        self._keyboard.viewers += 1
        # Not with Lab.path, which would make the directory of a machine that does not exist.
        log = self.lab.directory / "machines" / name / "console.log"
        self._task = asyncio.create_task(self._follow(log))

    async def _follow(self, log: Path) -> None:
        file: BinaryIO | None = None
        try:
            while True:
                if not _is_at(file, log):
                    if file is not None:
                        file.close()
                    file = _opened(log)
                    await self.write_message("begin")
                if data := file.read(LARGEST_MESSAGE) if file is not None else b"":
                    await self.write_message(data, binary=True)
                else:
                    await asyncio.sleep(POLL_SECONDS)
        except WebSocketClosedError:
            pass
        finally:
            if file is not None:
                file.close()

    async def on_message(self, message: str | bytes) -> None:
        if self._keyboard is not None:
            await self._keyboard.type(_bytes(message))

    def on_close(self) -> None:
        super().on_close()
        if self._keyboard is not None:
            self._keyboard.viewers -= 1
            if not self._keyboard.viewers:
                self._keyboard.hang_up()
                del self._keyboards[self.name]


def _bytes(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


def _is_at(file: BinaryIO | None, path: Path) -> bool:
    """Whether an open file is still the one at that path, and has not become shorter. None is the
    file that does not exist."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return file is None
    if file is None:
        return False
    return os.path.samestat(os.fstat(file.fileno()), there) and file.tell() <= there.st_size


def _opened(log: Path) -> BinaryIO | None:
    """A log, read up to HISTORY bytes before its end; None if it does not exist."""
    try:
        file = log.open("rb")
    except FileNotFoundError:
        return None
    size = os.fstat(file.fileno()).st_size
    if size > HISTORY:
        file.seek(size - HISTORY)
    return file


class _Static(FileFindHandler):
    _static_paths: dict[str, str] = {}  # noqa: RUF012  # its class has one for all servers' files


def handlers(base_url: str) -> list[tuple[Any, ...]]:
    """The routes, for tornado."""
    machine = url_path_join(base_url, "rfe/machines", NAME)
    return [
        (machine, MachinePage),
        (f"{machine}/screen", Screen),
        (f"{machine}/console", Console),
        (url_path_join(base_url, "rfe/static/(.*)"), _Static, {"path": str(STATIC)}),
    ]
