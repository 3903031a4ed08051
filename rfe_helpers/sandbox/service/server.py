"""The service as a process: its state directory, its socket, its start and its end.

Its own memory is limited: a request that needs more gets an error, and the machine stays usable.
Builds and other commands do not have this limit.

One service per state directory (flock on `lock`, which the kernel releases however a process
ends) and per socket. A socket on which nobody answers is a leftover and is replaced. The socket
has mode 0660 from the start: access to it is access to the service. systemd may pass an open
socket (sd_listen_fds(3)); then the socket file belongs to systemd.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import uvicorn

from rfe_helpers.core import files
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.service.app import create_app
from rfe_helpers.sandbox.service.packages import Index
from rfe_helpers.sandbox.service.queue import Builder, Queue
from rfe_helpers.sandbox.service.store import Store
from rfe_helpers.sandbox.service.wire import Service

MAXIMUM_MEMORY = 900 << 20
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_LONGEST_SOCKET = 107
_BACKLOG = 512
_FIRST_PASSED = 3  # SD_LISTEN_FDS_START


def serve(
    socket_path: Path | None,
    state: Path,
    cache: Path,
    builder: Builder,
    index: Index,
    *,
    base: tuple[str, ...] = (),
) -> None:
    """Serve until SIGTERM or SIGINT, in the main thread; a running build is then stopped and queued
    again. Without `socket_path`, serve on the socket that systemd passed.

    Raises BuilderError if the state directory or the socket cannot be used.
    """
    # uvicorn handles the signal, then raises it again; that must not skip the clean-up.
    signal.signal(signal.SIGTERM, _exit)
    _limit_memory()
    # Threads that compute do not keep the one that answers waiting for long; nor does Python's
    # garbage collector, which stops all of them while it looks at everything that is old: app.py
    # lets it do so between requests.
    sys.setswitchinterval(0.001)
    gc.freeze()
    gc.set_threshold(700, 10, 100_000)
    listening = _passed_socket() if socket_path is None else _listening_socket(socket_path)
    with _locked(state), listening as listener:
        store = Store(state)
        queue = Queue(store, state / "composes", cache, builder)
        app = create_app(Service(store, queue, index, base))
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=5,
        )
        queue.start()
        try:
            with contextlib.suppress(SystemExit):  # SIGTERM: an orderly end
                uvicorn.Server(config).run(sockets=[listener])
        finally:
            queue.stop()
            store.close()


def _limit_memory() -> None:
    """Let allocations beyond MAXIMUM_MEMORY fail, unless there is a lower limit already."""
    limit, highest = resource.getrlimit(resource.RLIMIT_DATA)
    if not 0 <= limit <= MAXIMUM_MEMORY:
        resource.setrlimit(resource.RLIMIT_DATA, (MAXIMUM_MEMORY, highest))
    # Large blocks go back to the system when they are freed, as they would count on otherwise.
    mallopt = ctypes.CDLL(None).mallopt  # mallopt(3) of glibc
    mallopt(_M_MMAP_THRESHOLD, 1 << 18)
    mallopt(_M_ARENA_MAX, 2)


def leave(status: int) -> NoReturn:
    """End the process once everything is closed. sys.exit would wait for threads, and one of them
    may still be waiting for another server."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _exit(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(0)


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Hold the lock of the state directory."""
    with contextlib.ExitStack() as held:
        try:
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            state.chmod(0o700)
            held.enter_context(files.locked(state / "lock", wait=False))
        except BlockingIOError:
            raise BuilderError(
                f"another sandbox Image Builder uses the state in {state}",
                remedy="use that one, or stop it first with `rfe sandbox stop`",
            ) from None
        except OSError as error:
            raise BuilderError(
                f"cannot use {state} for the sandbox's state: {error.strerror}",
                remedy="choose another directory with --state",
            ) from None
        yield


@contextlib.contextmanager
def _passed_socket() -> Iterator[socket.socket]:
    """The socket that systemd has opened for us."""
    pid, count = os.environ.get("LISTEN_PID"), os.environ.get("LISTEN_FDS")
    if pid != str(os.getpid()) or count != "1":
        raise BuilderError(
            "systemd has passed no socket", remedy="start the socket unit, or use --socket"
        )
    with socket.socket(fileno=_FIRST_PASSED) as listener:
        yield listener


@contextlib.contextmanager
def _listening_socket(path: Path) -> Iterator[socket.socket]:
    """The listening socket; its file is removed at the end if it is still ours."""
    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        raise BuilderError(
            f"the path of the socket is longer than {_LONGEST_SOCKET} bytes: {path}",
            remedy="choose a shorter one with --socket",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftover(path)
        # The file gets its mode from the umask: with chmod it would be open for a moment.
        before = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        ours = path.lstat().st_ino
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BuilderError(
            f"cannot listen on {path}: {error.strerror}",
            remedy="choose another path with --socket",
        ) from None
    except BaseException:
        listener.close()
        raise
    try:
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_ino == ours:
                path.unlink()


def _remove_leftover(path: Path) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket():
        raise BuilderError(
            f"{path} exists and is not a socket", remedy="choose another path with --socket"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise BuilderError(
        f"another service answers on {path}",
        remedy="use that one, or choose another path with --socket",
    )
