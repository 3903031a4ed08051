"""A Jupyter server in a thread, with the workbook's extension and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from jupyter_server.serverapp import ServerApp
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from traitlets.config import Config

from rfe_helpers.workbook import server as extension

TOKEN = "a-token-of-a-test"


@contextmanager
def serving(lab: Path, home: Path) -> Iterator[str]:
    """The server for a lab, with directories of its own in `home`; gives host and port."""
    home.mkdir()
    settings = {
        "IdentityProvider": {"token": TOKEN},
        "ServerApp": {
            "jpserver_extensions": {extension.__name__: True},
            "root_dir": str(home),
            "open_browser": False,
            "allow_root": True,
        },
    }
    listening: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        app = ServerApp(config=Config(settings))
        app.init_signal = lambda: None  # only the main thread of a program may
        app.initialize(argv=[], find_extensions=False, new_httpserver=False)
        server = HTTPServer(app.web_app)
        (socket,) = bind_sockets(0, "127.0.0.1")
        server.add_sockets([socket])
        end = asyncio.Event()
        address = f"127.0.0.1:{socket.getsockname()[1]}"
        listening.set_result((address, asyncio.get_running_loop(), end))
        await end.wait()
        server.stop()
        await server.close_all_connections()
        await app._cleanup()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if listening.done():
                raise
            listening.set_exception(error)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("CONFIG", "DATA", "RUNTIME"):
            patch.setenv(f"JUPYTER_{name}_DIR", str(home / name.lower()))
        patch.setenv("RFE_LAB", str(lab))
        patch.setenv("RFE_MACHINES", "")
        thread = threading.Thread(target=run)
        thread.start()
        address, loop, end = listening.result(30)
        yield address
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
