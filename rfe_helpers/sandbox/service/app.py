"""The HTTP side: every route of the API as a Starlette application.

A handler is a plain function of the service and one Call; it returns the JSON of its answer or a
Response, or raises a Refusal. Handlers run in threads. Slow ones (apt, other servers) have a few
threads of their own, so that status requests never wait behind a depsolve; so have those that end
a build, which wait for neither.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from importlib.metadata import version as package_version
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from rfe_helpers.errors import RfeError
from rfe_helpers.sandbox.build import image_types
from rfe_helpers.sandbox.service.routes import blueprints, composes, downloads, packages, sources
from rfe_helpers.sandbox.service.wire import (
    ENDING,
    ONLY_V1,
    QUICK,
    SLOW,
    Call,
    Refusal,
    Route,
    Service,
    not_found,
)

MAXIMUM_BODY = 4 << 20
# How much of a body that is too large is read and dropped, so that the client gets its answer.
_DRAINED = 64 << 20
_THREADS = {QUICK: 8, SLOW: 4, ENDING: 4}
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
_log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


def status(service: Service, call: Call) -> dict[str, Any]:
    return {
        "api": "1",
        "db_supported": True,
        "db_version": "0",
        "schema_version": "0",
        "backend": "osbuild-composer",
        "build": f"rfe-sandbox-{package_version('rfe-helpers')}",
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


def create_app(service: Service) -> Starlette:
    """The application. The caller starts and stops the queue."""
    limiters = {lane: anyio.CapacityLimiter(number) for lane, number in _THREADS.items()}

    def endpoint(route: Route, version: int) -> Endpoint:
        limiter = limiters[route.lane]

        async def answer(request: Request) -> Response:
            call = Call(
                version=version,
                path=request.path_params,
                query=request.query_params,
                content_type=request.headers.get("content-type", ""),
                body=await _body(request) if route.method == "POST" else b"",
            )
            # Abandoned when the service ends: another server may keep the thread waiting.
            result = await anyio.to_thread.run_sync(
                _handle, service, route, call, limiter=limiter, abandon_on_cancel=True
            )
            if not isinstance(result, Response):
                return _json(result)
            # TOML, logs and empty bodies are labelled JSON too: clients decide by route.
            result.headers.setdefault("Content-Type", _JSON_TYPE)
            return result

        return answer

    routes = [_http_route("GET", "/api/status", endpoint(Route("GET", "", status), 1))]
    for version in (1, 0):
        for route in ROUTES:
            if version in route.versions:
                path = f"/api/v{version}{route.path}"
                routes.append(_http_route(route.method, path, endpoint(route, version)))
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _http_error, Refusal: _refused},
    )
    app.router.redirect_slashes = False
    return app


def _http_route(method: str, path: str, endpoint: Endpoint) -> HttpRoute:
    route = HttpRoute(path, endpoint, methods=[method])
    route.methods = {method}  # without HEAD, which Starlette adds to GET
    return route


def _handle(service: Service, route: Route, call: Call) -> dict[str, Any] | Response:
    """Run a handler; turn failures, such as a full disk or a missing tool, into answers."""
    try:
        return route.handler(service, call)
    except (RfeError, sqlite3.Error, OSError) as error:
        text = error.message if isinstance(error, RfeError) else str(error)
        _log.error("%s %s: %s", route.method, route.path, text)
        raise Refusal("InternalServerError", text, status=500) from None
    except Refusal:
        raise
    except Exception as error:
        _log.exception("%s %s: unexpected error", route.method, route.path)
        text = f"{type(error).__name__}: {error}"
        raise Refusal("InternalServerError", text, status=500) from None


async def _body(request: Request) -> bytes:
    """The request's body. Raises Refusal if it is too large."""
    body = bytearray()
    length = 0
    try:
        async for piece in request.stream():
            length += len(piece)
            if length <= MAXIMUM_BODY:
                body += piece
            elif length > _DRAINED:
                break
    except ClientDisconnect:
        raise Refusal("HTTPError", "the request ended early") from None
    if length > MAXIMUM_BODY:
        raise Refusal("HTTPError", f"the request is larger than {MAXIMUM_BODY} bytes")
    return bytes(body)


def _json(data: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(data, status, media_type=_JSON_TYPE)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _json({"status": False, "errors": error.errors}, error.status)


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors: an unknown path, or a method that the path does not have."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return Response(status_code=405, media_type=_JSON_TYPE)
    return await _refused(request, not_found())
