"""A line between a client and a server on this machine, as bad as it is told to be.

A TCP proxy on 127.0.0.1, in a thread. It needs no rights and no module of the kernel, as
`tc netem` does. What it makes: a delay for every byte and for every new connection, a rate that
all connections share, and faults after so many bytes. What it does not make: loss of single
packets, and the slow start of TCP, so a real distant link is somewhat slower for small objects.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_CHUNK = 4096
_QUEUE = 64  # chunks on the way, as many as the buffers of a line hold
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Quality:
    """How a line is. `delay` in seconds for one way, so a ping takes twice that; `rate` in bytes
    per second and direction, 0 for any; after `cut_after` bytes from the server in all, every
    connection breaks and new ones too; after `stall_after` nothing moves any more."""

    delay: float = 0.0
    rate: float = 0.0
    cut_after: int | None = None
    stall_after: int | None = None


FAST = Quality()
# What the issue of a slow, distant site is measured with: 2 Mbit/s, 200 ms there and back.
DISTANT = Quality(delay=0.1, rate=2_000_000 / 8)


class Link:
    """The line to a port of this machine, from `port`. Use it in a `with` block.

    `received` counts the bytes that came from the server, `requests` those of HTTP/1.1 that were
    sent to it, `connections` how many there were.
    """

    def __init__(self, target: int, quality: Quality = FAST) -> None:
        self.quality = quality
        self.received = 0
        self.requests = 0
        self.connections = 0
        self.port = 0
        self._target = target
        self._free_at = [0.0, 0.0]  # when the line can take the next byte: up, down
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
        """Whether it was cut."""
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
            pass  # one of the two went away, or the line is taken down
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.broken:
            return
        await asyncio.sleep(2 * self.quality.delay)  # the handshake
        to, back = await asyncio.open_connection(HOST, self._target)
        try:
            ways = [self._pump(reader, back, 0), self._pump(to, writer, 1)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in tasks:
                    way.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            back.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: int
    ) -> None:
        """Carry one direction: chunks leave in their order, each when the line allows it."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUE)
        carrier = asyncio.ensure_future(self._deliver(chunks, sink, way))
        try:
            while not self.broken and (data := await source.read(_CHUNK)):
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
                return
            await sink.drain()

    @property
    def _stalled(self) -> bool:
        limit = self.quality.stall_after
        return limit is not None and self.received >= limit

    def _arrival(self, size: int, way: int) -> float:
        """When so many bytes that are sent now are there."""
        if not self.quality.rate:
            return self._loop.time() + self.quality.delay
        free = max(self._free_at[way], self._loop.time()) + size / self.quality.rate
        self._free_at[way] = free
        return free + self.quality.delay
