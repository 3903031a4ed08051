"""A link between a client and a server on this host, as slow or unreliable as it is told to be.

A TCP proxy on 127.0.0.1, in a thread. Unlike `tc netem` it needs neither privileges nor a kernel
module. It simulates a delay for every byte and every new connection, a rate that all connections
share, and faults after a number of bytes. It does not simulate the loss of single packets or the
slow start of TCP, so a real distant link is somewhat slower for small objects.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_CHUNK = 4096
_QUEUE = 64  # chunks under way, about what the buffers of a link hold
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Quality:
    """The quality of a link. `delay` is in seconds one way, so a ping takes twice that; `rate` is
    in bytes per second and direction, 0 for no limit. After `cut_after` bytes from the server in
    all, every connection breaks, new ones too; after `stall_after` bytes no more data arrives.

    >>> from rfe_helpers.prove import Link, Quality
    >>> dsl = Quality(delay=0.02, rate=2_000_000)  # 40 ms round trip, 16 Mbit/s
    >>> unreliable = Quality(cut_after=20_000_000)
    """

    delay: float = 0.0
    rate: float = 0.0
    cut_after: int | None = None
    stall_after: int | None = None


FAST = Quality()
# A slow, distant site: 2 Mbit/s, 200 ms round trip.
DISTANT = Quality(delay=0.1, rate=2_000_000 / 8)


class Link:
    """A link from `port` to the port `target` of this host, open within a `with` block.

    `received` counts the bytes from the server, `requests` the HTTP/1.1 requests sent to it,
    `connections` the connections.

    >>> from rfe_helpers.commit import Repo
    >>> from rfe_helpers.prove import DISTANT, Link
    >>> repo = Repo("device").init("bare-user")
    >>> with Link(site.port, DISTANT) as link:
    ...     repo.add_remote("slow", f"http://127.0.0.1:{link.port}/repo/")
    ...     pulled = repo.pull("slow", update.ref, commit_only=True)
    >>> link.requests > 1, link.received > 1000
    (True, True)
    """

    def __init__(self, target: int, quality: Quality = FAST) -> None:
        self.quality = quality
        self.received = 0
        self.requests = 0
        self.connections = 0
        self.port = 0
        self._target = target
        self._free_at = [0.0, 0.0]  # when the link can take the next byte: up, down
        self._cut = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)

    def __enter__(self) -> Link:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, HOST, 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def broken(self) -> bool:
        """Whether it has been cut."""
        limit = self.quality.cut_after
        return limit is not None and self.received >= limit

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either end has gone away, or the link is being closed
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.broken:
            return
        await asyncio.sleep(2 * self.quality.delay)  # the handshake
        from_server, to_server = await asyncio.open_connection(HOST, self._target)
        try:
            ends = [
                asyncio.ensure_future(self._pump(reader, to_server, 0)),
                asyncio.ensure_future(self._pump(from_server, writer, 1)),
                # Without it, a connection on which nothing moves would outlive the cut.
                asyncio.ensure_future(self._cut.wait()),
            ]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
                await asyncio.gather(*ends, return_exceptions=True)
        finally:
            to_server.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: int
    ) -> None:
        """Carry one direction: chunks leave in order, each when the link allows it."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUE)
        carrier = asyncio.ensure_future(self._deliver(chunks, sink, way))
        try:
            while data := await source.read(_CHUNK):
                await chunks.put((self._arrival(len(data), way), data))
            await chunks.put((self._loop.time() + self.quality.delay, b""))
            await carrier
        finally:
            carrier.cancel()

    async def _deliver(
        self, chunks: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter, way: int
    ) -> None:
        before = b""  # the end of a header may come in two pieces
        while True:
            at, data = await chunks.get()
            await asyncio.sleep(max(0.0, at - self._loop.time()))
            if not data:
                return
            if way == 0:
                self.requests += (before + data).count(b"\r\n\r\n")
                before = (before + data)[-3:]
            elif self._stalled:
                await asyncio.Event().wait()
            else:
                self.received += len(data)
            sink.write(data)
            if way == 1 and self.broken:
                self._cut.set()
                return
            await sink.drain()

    @property
    def _stalled(self) -> bool:
        limit = self.quality.stall_after
        return limit is not None and self.received >= limit

    def _arrival(self, size: int, way: int) -> float:
        """When `size` bytes that are sent now have arrived."""
        if not self.quality.rate:
            return self._loop.time() + self.quality.delay
        free = max(self._free_at[way], self._loop.time()) + size / self.quality.rate
        self._free_at[way] = free
        return free + self.quality.delay
