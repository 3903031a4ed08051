"""The HTTP side: every route of the API as a Starlette application.

A handler is a plain function of the service and one Call; it returns the JSON of its answer or a
Response, or raises a Refusal. Handlers run in threads, and answers are encoded there. What may take
seconds has a few threads of its own for each kind (wire.Route), so that reading never waits for
solving; if too many such requests wait for a thread, the next one is refused. `/api/status` is
answered by the event loop itself.
"""

from __future__ import annotations

import errno
import gc
import json
import logging
import mmap
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Match
from starlette.routing import Route as HttpRoute

from rfe_helpers import __version__
from rfe_helpers.errors import RfeError
from rfe_helpers.sandbox.build import image_types
from rfe_helpers.sandbox.service.routes import blueprints, composes, downloads, packages, sources
from rfe_helpers.sandbox.service.wire import (
    INDEX,
    LARGE,
    ONLY_V1,
    QUICK,
    SOLVING,
    STARTING,
    WRITING,
    Call,
    Refusal,
    Route,
    Service,
    busy,
    not_found,
)

MAXIMUM_BODY = 4 << 20
# How much of a body that is too large is read and dropped, so that the client gets its answer.
_DRAINED = 64 << 20
_BODY_SECONDS = 30
_PIECE, _RESERVE = 1 << 18, 24 << 20
# How long a request waits for pushes that it follows, before it reads what is stored; and for those
# that it may follow, as they are not searched for names.
_FOLLOWING_SECONDS, _PERHAPS_SECONDS = 10, 1
# The threads of each lane, and how many more requests may wait for one of them.
_LANES = {
    QUICK: (8, 2000),
    LARGE: (2, 24),
    WRITING: (2, 24),
    INDEX: (2, 24),
    SOLVING: (4, 24),
    STARTING: (4, 24),
}
# After so many younger ones, a full collection of garbage is due: Python's own number.
_YOUNGER_COLLECTIONS = 10
_FETCHING = 4  # threads that fetch package indexes
# The texts and the number of names that are searched for what a request follows.
_SEARCHED_BYTES, _SEARCHED_NAMES = 1 << 16, 20
_JSON_TYPE = "application/json; charset=utf-8"
_UPLOADS = (
    ("POST", "/compose/uploads/schedule/{id}"),
    ("GET", "/upload/info/{id}"),
    ("GET", "/upload/log/{id}"),
    ("POST", "/upload/reset/{id}"),
    ("DELETE", "/upload/delete/{id}"),
    ("DELETE", "/upload/cancel/{id}"),
    ("GET", "/upload/providers"),
    ("POST", "/upload/providers/save"),
    ("DELETE", "/upload/providers/delete/{provider}/{profile}"),
)
_WORD = re.compile(rb"[a-zA-Z0-9._-]+")
_log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


def status() -> dict[str, Any]:
    return {
        "api": "1",
        "db_supported": True,
        "db_version": "0",
        "schema_version": "0",
        "backend": "osbuild-composer",
        "build": f"rfe-sandbox-{__version__}",
        "msgs": [],
    }


def distros(service: Service, call: Call) -> dict[str, Any]:
    architecture = call.query.get("arch") or image_types.ARCHITECTURE
    supported = architecture == image_types.ARCHITECTURE
    return {"distros": [image_types.DISTRO] if supported else []}


def not_implemented(service: Service, call: Call) -> Response:
    return Response(status_code=501)


ROUTES = (
    Route("GET", "/distros/list", distros, ONLY_V1),
    *blueprints.ROUTES,
    *packages.ROUTES,
    *sources.ROUTES,
    *composes.ROUTES,
    *downloads.ROUTES,
    *(Route(method, path, not_implemented, ONLY_V1) for method, path in _UPLOADS),
)


class _Lane:
    """Threads for requests of one kind, and places for those that wait for one of them."""

    def __init__(self, threads: int, waiting: int) -> None:
        self.limiter = anyio.CapacityLimiter(threads)
        self._places = self._all = threads + waiting

    @property
    def full(self) -> bool:
        return self._places == 0

    @property
    def empty(self) -> bool:
        return self._places == self._all

    @contextmanager
    def place(self) -> Iterator[None]:
        self._places -= 1
        try:
            yield
        finally:
            self._places += 1


class _Pushes:
    """The pushes under way. A client may read a blueprint before its push has been answered, as
    the web console does; the read then waits until the push is stored."""

    def __init__(self) -> None:
        self._bodies: dict[anyio.Event, bytes] = {}

    @contextmanager
    def under_way(self, body: bytes) -> Iterator[None]:
        stored = anyio.Event()
        self._bodies[stored] = body
        try:
            yield
        finally:
            del self._bodies[stored]
            stored.set()

    async def follow(self, call: Call) -> None:
        """Wait for the pushes that may be of a blueprint that the path, or else the body, names.
        A search through many or large texts would take longer than the pushes."""
        text = ",".join(call.path.values()).encode() or call.body
        names = set(_WORD.findall(text[:_SEARCHED_BYTES]))
        perhaps: list[anyio.Event] = []
        with anyio.move_on_after(_FOLLOWING_SECONDS):
            for stored, body in list(self._bodies.items()):
                if len(body) > _SEARCHED_BYTES or len(names) > _SEARCHED_NAMES:
                    perhaps.append(stored)
                elif any(name in body for name in names):
                    await stored.wait()
        with anyio.move_on_after(_PERHAPS_SECONDS):
            for stored in perhaps:
                await stored.wait()


def create_app(service: Service) -> Starlette:
    """The application. The caller starts and stops the queue."""
    lanes = {name: _Lane(*numbers) for name, numbers in _LANES.items()}
    fetching = anyio.CapacityLimiter(_FETCHING)
    pushes = _Pushes()

    def endpoint(route: Route, version: int) -> Endpoint:
        async def answer(request: Request) -> Response:
            # To write TOML takes seconds where JSON takes a tenth of one.
            toml = route.lane == QUICK and request.query_params.get("format") == "toml"
            lane = lanes[WRITING if toml else route.lane]
            if lane.full:
                await _body(request, limit=0)
                raise busy()
            with lane.place():
                call = Call(
                    version=version,
                    path=request.path_params,
                    query=request.query_params,
                    content_type=request.headers.get("content-type", ""),
                    body=await _body(request) if route.method == "POST" else b"",
                )
                if route.follows:
                    await pushes.follow(call)
                if route.lane in (INDEX, SOLVING):
                    await fetched(lane)
                with pushes.under_way(call.body) if route.stores else nullcontext():
                    # Abandoned when the service ends: another server may keep the thread waiting.
                    return await anyio.to_thread.run_sync(
                        _handle, service, route, call, limiter=lane.limiter, abandon_on_cancel=True
                    )

        return _cleaning_up(answer, lanes.values())

    async def fetched(lane: _Lane) -> None:
        """Wait for the package index in other threads than those that read fresh ones."""
        if not await anyio.to_thread.run_sync(_is_fetched, service, limiter=lane.limiter):
            await anyio.to_thread.run_sync(
                _fetch, service, limiter=fetching, abandon_on_cancel=True
            )

    known = status()

    async def answer_status(request: Request) -> Response:
        return _json(known)

    routes = [_http_route("GET", "/api/status", answer_status)]
    for version in (1, 0):
        for route in ROUTES:
            if version in route.versions:
                path = f"/api/v{version}{route.path}"
                routes.append(_http_route(route.method, path, endpoint(route, version)))
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _http_error,
            Refusal: _refused,
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False
    return app


def _http_route(method: str, path: str, endpoint: Endpoint) -> HttpRoute:
    route = HttpRoute(path, endpoint, methods=[method])
    route.methods = {method}  # without HEAD, which Starlette adds to GET
    return route


def _cleaning_up(answer: Endpoint, lanes: Iterable[_Lane]) -> Endpoint:
    """With a full collection of garbage after the answer, if it is due and no other request is
    under way. It stops everything else while it looks at all that is alive: that is little then,
    and takes 0.3 s while large requests are answered."""

    async def answer_and_clean_up(request: Request) -> Response:
        try:
            return await answer(request)
        finally:
            if gc.get_count()[2] > _YOUNGER_COLLECTIONS and all(lane.empty for lane in lanes):
                gc.collect()

    return answer_and_clean_up


def _is_fetched(service: Service) -> bool:
    with suppress(RfeError, sqlite3.Error, OSError):  # which the handler meets again and reports
        return service.index.fresh(service.extra_sources())
    return True


def _fetch(service: Service) -> None:
    with suppress(RfeError, sqlite3.Error, OSError):
        service.index.names((), service.extra_sources())


def _handle(service: Service, route: Route, call: Call) -> Response:
    """Run a handler; turn failures, such as a full disk or a missing tool, into answers."""
    try:
        result = route.handler(service, call)
        if not isinstance(result, Response):
            return _json(result)
        # TOML, logs and empty bodies are labelled JSON too: clients decide by route.
        result.headers.setdefault("Content-Type", _JSON_TYPE)
        return result
    except Refusal:
        raise
    except Exception as error:
        failures = [_failure(error)]
        expected = isinstance(error, RfeError | sqlite3.Error | OSError | MemoryError)
        text = f"{route.method} {route.path}: {failures[0].errors[0]['msg']}"
        _log.error("%s", text, exc_info=None if expected else error)
    # Raised here, and from no variable, it does not keep alive what the failed request has used.
    raise failures.pop()


def _failure(error: Exception) -> Refusal:
    """The answer to a failure."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, RfeError):
        text = error.message
    elif isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    ):
        text = "the request needs more memory than the service may use"
    elif isinstance(error, sqlite3.Error | OSError):
        text = str(error)
    return Refusal("InternalServerError", text, status=500)


async def _body(request: Request, limit: int = MAXIMUM_BODY) -> bytes:
    """The request's body; with a limit of 0 it is read and dropped. Raises Refusal if it is larger,
    or does not arrive."""
    body = bytearray()
    length = 0
    try:
        with anyio.fail_after(_BODY_SECONDS):
            async for piece in request.stream():
                length += len(piece)
                if length <= limit:
                    body += piece
                elif length > _DRAINED:
                    break
    except ClientDisconnect:
        raise Refusal("HTTPError", "the request ended early") from None
    except TimeoutError:
        msg = f"the request did not arrive within {_BODY_SECONDS} s"
        raise Refusal("HTTPError", msg) from None
    if length > limit > 0:
        raise Refusal("HTTPError", f"the request is larger than {limit} bytes")
    return bytes(body)


def _json(data: dict[str, Any], status: int = 200) -> Response:
    """An answer. A large one is sent in pieces, so that it is not copied as a whole."""
    parts = list(_encoded(data))
    length = sum(len(part) for part in parts)
    if length <= _PIECE:
        return Response(b"".join(parts), status, media_type=_JSON_TYPE)
    # What is left must do for sending it: an answer that has begun cannot become an error.
    mmap.mmap(-1, _RESERVE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    headers = {"Content-Length": str(length)}
    return StreamingResponse(_pieces(parts), status, headers, media_type=_JSON_TYPE)


def _encoded(data: dict[str, Any]) -> Iterator[bytes]:
    """JSON. Lists are encoded entry by entry: no other thread runs while the encoder does."""
    mark = b"{"
    for key, value in data.items():
        yield mark + _encode(key) + b":"
        mark = b","
        if isinstance(value, list):
            yield b"["
            for number, entry in enumerate(value):
                yield (b"," if number else b"") + _encode(entry)
            yield b"]"
        else:
            yield _encode(value)
    yield b"}"


def _encode(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


async def _pieces(parts: list[bytes]) -> AsyncIterator[bytes]:
    piece = bytearray()
    for part in parts:
        for start in range(0, len(part), _PIECE):
            piece += part[start : start + _PIECE]
            if len(piece) >= _PIECE:
                yield bytes(piece)
                piece.clear()
    yield bytes(piece)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _json({"status": False, "errors": error.errors}, error.status)


async def _failed(request: Request, error: Exception) -> Response:
    """What fails outside of a handler, such as the start of a thread."""
    return await _refused(request, _failure(error))


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors: an unknown path, or a method that the path does not have."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = {
            method
            for route in request.app.routes
            if route.matches(request.scope)[0] is not Match.NONE
            for method in route.methods
        }
        headers = {"Allow": ", ".join(sorted(allowed))}
        return Response(status_code=405, headers=headers, media_type=_JSON_TYPE)
    return await _refused(request, not_found())
