"""The trainer's page: each person a row, each notebook a column, live.

As a service of the room's JupyterHub (`python -m rfe_helpers.room.page`, started by the hub) it
lets in who may use the service: the trainer. Without JupyterHub `rfe room watch` serves it on
loopback, behind a token in its address. With tornado, which Jupyter brings, as JupyterHub's login
for services is made for it.

    …/            the page, which is in static/
    …/state       its rows as JSON
    …/act         POST {"seat": "seat-01", "action": "solve", "number": "40"}
"""

from __future__ import annotations

import asyncio
import hmac
import html
import json
import os
import re
import secrets
import time
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from tornado import web

from rfe_helpers.core.network import LOOPBACK, port_is_free
from rfe_helpers.errors import InputError, RfeError
from rfe_helpers.room.room import Room
from rfe_helpers.room.sources import ACTIONS, HubSource, LabSource, SeatSource, watched
from rfe_helpers.workbook.activity import IDLE_SECONDS
from rfe_helpers.workbook.chapters import FURTHER
from rfe_helpers.workbook.notebooks import all_notebooks

STATIC = resources.files("rfe_helpers.room") / "static"
EVERY_SECONDS = 2.0  # between two looks at the seats, however many pages are open
_COOKIE = "rfe-room"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


class _Rows:
    """The rows of the page, at most EVERY_SECONDS old."""

    def __init__(self, source: SeatSource) -> None:
        self.source = source
        self._turn = asyncio.Lock()
        self._at = -EVERY_SECONDS
        self._rows: list[dict[str, Any]] = []
        self._problem = ""

    async def now(self) -> dict[str, Any]:
        async with self._turn:
            if time.monotonic() - self._at >= EVERY_SECONDS:
                try:
                    self._rows = [asdict(seat) for seat in await self.source.seats()]
                    self._problem = ""
                except RfeError as error:
                    self._problem = error.message
                except OSError as error:
                    self._problem = str(error)
                self._at = time.monotonic()
        return {
            "rows": self._rows,
            "problem": self._problem,
            "now": time.time(),
            "idle": IDLE_SECONDS,
        }


class _Handler(web.RequestHandler):
    in_room = False  # whether it is the page of a room, with servers to start and stop

    @property
    def rows(self) -> _Rows:
        rows: _Rows = self.settings["rows"]
        return rows

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")


class _InRoom(HubOAuthenticated, _Handler):  # type: ignore[misc]  # jupyterhub has no types
    """Whoever JupyterHub lets use the service."""

    in_room = True


class _Alone(_Handler):
    """Whoever has the token of the address, which becomes a cookie."""

    def get_current_user(self) -> str | None:
        token: str = self.settings["token"]
        given = self.get_query_argument("token", "") or self.get_cookie(_COOKIE, "") or ""
        return "trainer" if hmac.compare_digest(given.encode(), token.encode()) else None

    def prepare(self) -> None:
        if not self.current_user:
            raise web.HTTPError(403, "open the address that `rfe room watch` printed")
        if self.get_query_argument("token", ""):
            self.set_cookie(_COOKIE, self.settings["token"], httponly=True, samesite="Strict")
            self.redirect(self.request.path)


def _handlers(base: type[_Handler]) -> dict[str, type[web.RequestHandler]]:
    """The pages, for one way of logging in."""

    class Page(base):  # type: ignore[misc, valid-type]
        @web.authenticated
        def get(self) -> None:
            token = self.xsrf_token
            numbers = " ".join(path.stem.replace("-", "=", 1) for path in all_notebooks())
            page = Template((STATIC / "room.html").read_text())
            values = {
                "xsrf": token.decode() if isinstance(token, bytes) else str(token),
                "notebooks": numbers,
                "further": " ".join(FURTHER),
                "hub": "yes" if self.in_room else "",
            }
            self.finish(page.substitute({k: html.escape(v) for k, v in values.items()}))

    class Asked(base):  # type: ignore[misc, valid-type]
        """For the page's script, which reloads the page to log in: JupyterHub's login fails when
        two of them run at once, the page's own and that of its script."""

        def get_login_url(self) -> str:
            raise web.HTTPError(403)

    class State(Asked):
        @web.authenticated
        async def get(self) -> None:
            self.finish(await self.rows.now())

    class Act(Asked):
        @web.authenticated
        async def post(self) -> None:
            try:
                asked = json.loads(self.request.body)
                seat, action = str(asked["seat"]), str(asked["action"])
                number = str(asked.get("number", ""))
            except (ValueError, LookupError, TypeError, AttributeError):
                raise web.HTTPError(400) from None
            if action not in ACTIONS:
                raise web.HTTPError(400, f"choose from: {', '.join(ACTIONS)}")
            if action in ("solve", "reset") and not re.fullmatch("[0-9]{2,3}", number):
                raise web.HTTPError(400, "name a notebook, such as 40")
            try:
                self.finish({"said": await self.rows.source.act(seat, action, number)})
            except RfeError as error:
                self.set_status(409)
                self.finish({"said": str(error)})

    return {"": Page, "state": State, "act": Act}


def application(
    source: SeatSource, prefix: str, base: type[_Handler], token: str
) -> web.Application:
    """The page at the path `prefix`, which ends with a slash. Who is logged in stays so after a
    restart with the same token."""
    routes: list[Any] = [(prefix + path, each) for path, each in _handlers(base).items()]
    files = {"path": str(STATIC)}
    routes.append((prefix + "static/(.*)", web.StaticFileHandler, files))
    if base.in_room:
        routes.append((prefix + "oauth_callback", HubOAuthCallbackHandler))
    return web.Application(
        routes,
        rows=_Rows(source),
        xsrf_cookies=True,
        cookie_secret=hmac.digest(token.encode(), b"cookies", "sha256"),
        token=token,
    )


def serve() -> None:
    """Be the service of the room's hub; JupyterHub tells it what it needs in its environment."""
    room = Room(os.environ["RFE_ROOM"])
    settings, token = room.settings, os.environ["JUPYTERHUB_API_TOKEN"]
    seen = room.directory / "activity"
    seen.mkdir(exist_ok=True, mode=0o700)
    host = LOOPBACK if settings.is_everywhere else settings.address
    source = HubSource(
        os.environ["JUPYTERHUB_API_URL"],
        f"https://{host}:{settings.port}",
        token,
        settings.people,
        seen,
    )

    async def main() -> None:
        url = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
        app = application(source, os.environ["JUPYTERHUB_SERVICE_PREFIX"], _InRoom, token)
        app.listen(url.port or 80, LOOPBACK, max_body_size=100_000)
        await _keep_looking(app)

    asyncio.run(main())


def watch(shared: Path | None, port: int) -> None:
    """Serve the page of labs on this machine, until Ctrl-C. Raises InputError."""
    if not port_is_free(port):
        raise InputError(f"port {port} is taken", remedy="choose another one with --port")
    source = LabSource(watched(shared) if shared else None)
    token = secrets.token_hex(24)

    async def main() -> None:
        app = application(source, "/", _Alone, token)
        app.listen(port, LOOPBACK, max_body_size=100_000)
        print(f"the trainer's page: http://{LOOPBACK}:{port}/?token={token}\nCtrl-C ends it")
        await asyncio.Event().wait()

    asyncio.run(main())


async def _keep_looking(app: web.Application) -> None:
    """Look at the seats also when no page is open, so that the report knows what they did."""
    rows: _Rows = app.settings["rows"]
    while True:
        await rows.now()
        await asyncio.sleep(30)


if __name__ == "__main__":
    serve()
