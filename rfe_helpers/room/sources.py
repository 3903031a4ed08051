"""Where the trainer's page has the labs from: the servers of a room's seats, or directories.

What a seat answers is taken for what it is, text of somebody else: bounded, read with the types of
workbook/activity.py, and shown as text only.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import stat
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPRequest

from rfe_helpers.core import files, run
from rfe_helpers.errors import InputError, RfeError
from rfe_helpers.lab import labs
from rfe_helpers.room.settings import DEFAULT
from rfe_helpers.workbook import activity
from rfe_helpers.workbook.activity import Activity
from rfe_helpers.workbook.seat import helping

ACTIONS = ("solve", "reset", "lower", "start", "stop")
_LONGEST_LIST, _LONGEST_ANSWER = 2_000_000, 100_000  # bytes: of the hub, and of a seat
_LOOK_SECONDS, _ACT_SECONDS = 4.0, 30.0
_TOKEN_SECONDS = 3600
_LARGEST_ROOM = 500


@dataclass(frozen=True)
class Seat:
    """One row of the page. `server` is "running", "starting" or "off"; `problem` says why there is
    no newer activity; `link` is the address of the person's JupyterLab, "" if there is none."""

    name: str
    server: str
    activity: Activity
    link: str = ""
    problem: str = ""


class SeatSource(ABC):
    """Where the labs are."""

    @abstractmethod
    async def seats(self) -> list[Seat]:
        """All seats, as they are now."""

    @abstractmethod
    async def act(self, seat: str, action: str, number: str) -> str:
        """Do one of ACTIONS for a seat; returns what was done. Raises RfeError."""


class HubSource(SeatSource):
    """The seats of JupyterHub, which are asked through the proxy.

    A seat's server is a program of the person's: it gets a token that opens that one server, and
    never the page's own.
    """

    def __init__(
        self, api: str, proxy: str, token: str, people: tuple[str, ...], seen: Path
    ) -> None:
        self._api, self._proxy, self._token = api.rstrip("/"), proxy.rstrip("/"), token
        self._people = people
        self._seen = seen
        self._tokens: dict[str, tuple[str, float]] = {}
        self._hub, self._servers = (
            AsyncHTTPClient(force_instance=True, max_body_size=most, max_clients=50)
            for most in (_LONGEST_LIST, _LONGEST_ANSWER)
        )

    async def seats(self) -> list[Seat]:
        users = {user["name"]: user for user in json.loads(await self._ask_hub("users"))}
        return list(await asyncio.gather(*(self._seat(n, users.get(n, {})) for n in self._people)))

    async def _seat(self, name: str, user: Mapping[str, Any]) -> Seat:
        server = user.get("servers", {}).get("")
        kept = self._seen / f"{name}.json"
        last = activity.read(kept)
        if server is None:
            return Seat(name, "off", last)
        link = f"/user/{name}"
        if not server["ready"]:
            return Seat(name, "starting", last, link)
        try:
            answer = activity.decode(await self._ask_seat(name, ""))
        except RfeError as error:
            return Seat(name, "running", last, link, error.message)
        if answer != last:
            files.write_json(kept, answer.to_json(), mode=0o600)
        return Seat(name, "running", answer, link)

    async def act(self, seat: str, action: str, number: str) -> str:
        if seat not in self._people:
            raise InputError(f"there is no seat {seat[:40]!r}")
        if action in ("start", "stop"):
            await self._ask_hub(f"users/{seat}/server", "POST" if action == "start" else "DELETE")
            return f"{seat}: {action}"
        if action == "lower":
            await self._ask_seat(seat, "/hand", "POST", '{"up": false}')
            return f"{seat}: hand lowered"
        await self._ask_seat(seat, f"/{action}/{number}", "POST", "{}")
        return f"{seat}: {action} {number} runs; its log is logs/trainer.log in that lab"

    async def _ask_hub(self, path: str, method: str = "GET", body: str = "") -> bytes:
        return await _fetch(self._hub, f"{self._api}/{path}", self._token, method, body)

    async def _ask_seat(self, name: str, path: str, method: str = "GET", body: str = "") -> bytes:
        token, until = self._tokens.get(name, ("", 0.0))
        if time.monotonic() > until:
            asked = {
                "note": "the trainer's page",
                "scopes": [f"access:servers!user={name}"],
                "expires_in": _TOKEN_SECONDS,
            }
            answer = await self._ask_hub(f"users/{name}/tokens", "POST", json.dumps(asked))
            token = json.loads(answer)["token"]
            self._tokens[name] = (token, time.monotonic() + _TOKEN_SECONDS / 2)
        url = f"{self._proxy}/user/{name}/rfe/seat{path}"
        try:
            return await _fetch(self._servers, url, token, method, body)
        except RfeError:
            del self._tokens[name]  # the user may be a new one, after a reset
            raise


async def _fetch(client: AsyncHTTPClient, url: str, token: str, method: str, body: str) -> bytes:
    """The body of an answer. Raises RfeError, with the reason, for any other."""
    request = HTTPRequest(
        url,
        method,
        headers={"Authorization": f"token {token}"},
        body=body if body or method == "POST" else None,
        request_timeout=_LOOK_SECONDS if method == "GET" else _ACT_SECONDS,
        follow_redirects=False,
        validate_cert=False,  # the proxy is ours, on loopback; its certificate has another name
    )
    try:
        answer = await client.fetch(request)
    except HTTPError as error:
        raise RfeError(f"does not answer: {_reason(error)}") from None
    except (OSError, ValueError) as error:
        raise RfeError(f"does not answer: {error}") from None
    return bytes(answer.body)


def _reason(error: HTTPError) -> str:
    with suppress(ValueError, LookupError, TypeError):
        body = error.response.body if error.response is not None else b""
        return str(json.loads(body[:10_000])["message"])[:200]
    return str(error)[:200]


@dataclass(frozen=True)
class _Place:
    """A lab, and the user whose it is."""

    directory: Path
    uid: int

    def check(self) -> None:
        """Raise InputError unless the directory is one, and that user's; OSError if it is gone."""
        status = self.directory.lstat()
        if status.st_uid != self.uid or not stat.S_ISDIR(status.st_mode):
            raise InputError("it is not a directory of its owner")


class LabSource(SeatSource):
    """The labs of this machine, or those in a directory that people share.

    They belong to other users, who may prepare what is in them: what is done in a lab is done as
    its owner.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = shared

    async def seats(self) -> list[Seat]:
        return await asyncio.to_thread(lambda: [_row(*each) for each in self._labs().items()])

    def _labs(self) -> dict[str, _Place]:
        """The labs by the names of their rows."""
        places = list(self._remembered() if self._shared is None else self._in_shared())
        names = Counter(place.directory.name for place in places)
        return {
            p.directory.name if names[p.directory.name] == 1 else str(p.directory): p
            for p in places[:_LARGEST_ROOM]
        }

    def _remembered(self) -> Iterator[_Place]:
        return (_Place(entry.directory, entry.uid) for entry in labs.entries())

    def _in_shared(self) -> Iterator[_Place]:
        with suppress(OSError):
            for directory in sorted(self._shared.iterdir() if self._shared else ()):
                status = directory.lstat()
                if stat.S_ISDIR(status.st_mode) and _may_be_lab(directory):
                    yield _Place(directory, status.st_uid)

    async def act(self, seat: str, action: str, number: str) -> str:
        place = self._labs().get(seat)
        if place is None:
            raise InputError(f"there is no lab {seat[:40]!r}")
        if action not in ("solve", "reset"):
            raise InputError("only their owner can do that", remedy="`rfe hand down` in that lab")
        _check_owner(place)
        argv = [*_as_owner(place), *helping(action, number, place.directory)]
        log = Path(DEFAULT).expanduser() / "logs" / "watch.log"
        await asyncio.to_thread(lambda: run.start(argv, log=log, cwd=Path("/")))
        return f"{seat}: {action} {number} runs; its log is {log}"


def _may_be_lab(directory: Path) -> bool:
    """Whether it is one, or closed to this user, as labs are to others."""
    try:
        return (directory / "lab.json").exists()
    except OSError:
        return True


def _row(name: str, place: _Place) -> Seat:
    try:
        place.check()
        os.scandir(place.directory).close()
        return Seat(name, "", activity.of(place.directory))
    except InputError as error:
        return Seat(name, "", Activity(), problem=error.message)
    except OSError as error:
        return Seat(name, "", Activity(), problem=f"cannot be read: {error.strerror}")


def _check_owner(place: _Place) -> None:
    """Raise InputError unless a lab is a directory of the user for whom it is listed, and that is
    somebody for whom this program may act."""
    place.check()
    if os.getuid() not in (0, place.uid):
        raise InputError("only its owner and root can do that")
    if place.uid == 0 and not labs.is_own(place.directory):
        raise InputError("it belongs to root", remedy="run `rfe` there yourself")


def _as_owner(place: _Place) -> list[str]:
    """What to put in front of a command, so that it runs as the owner, with nothing of ours."""
    if place.uid == os.getuid():
        return []
    try:
        account = pwd.getpwuid(place.uid)
    except KeyError:
        raise InputError(f"user {place.uid} has no account on this machine") from None
    clean = ["env", "-i", f"HOME={account.pw_dir}", f"PATH={os.defpath}", "LANG=C.UTF-8"]
    return ["runuser", "-u", account.pw_name, "--", *clean]


def watched(directory: Path) -> Path:
    """A directory with labs in it. Raises InputError if it cannot be read."""
    try:
        next(directory.expanduser().iterdir(), None)
    except OSError as error:
        raise InputError(f"cannot read {directory}: {error.strerror}") from None
    return directory.expanduser()
