"""What all routes share: calls, refusals, paging, names, formats."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import Response

from rfe_helpers.build.blueprint import MOST_PARTS, NAME
from rfe_helpers.sandbox.build import image_types
from rfe_helpers.sandbox.service import sources
from rfe_helpers.sandbox.service.packages import Index
from rfe_helpers.sandbox.service.queue import Queue
from rfe_helpers.sandbox.service.store import Store

JSON = "application/json"
TOML = "text/x-toml"
BOTH, ONLY_V1 = (0, 1), (1,)
LONGEST_NAME = 250
Parsed = TypeVar("Parsed")
_UNSIGNED = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True)
class Service:
    """What handlers work on. `base` are words and patterns of apt for what is in every image beside
    the requested packages."""

    store: Store
    queue: Queue
    index: Index
    base: tuple[str, ...] = ()

    def extra_sources(self) -> tuple[str, ...]:
        """The additional sources in apt's deb822 form."""
        return tuple(sources.deb822(source) for source in self.store.sources())


@dataclass(frozen=True)
class Call:
    """A request: version of the API, parts of the path by name, query, content type and body."""

    version: int
    path: Mapping[str, str]
    query: Mapping[str, str]
    content_type: str
    body: bytes

    def names(self, key: str) -> list[str]:
        """The comma-separated names in a part of the path, each once. Raises Refusal (404) if it is
        empty."""
        if not self.path[key]:
            raise not_found()
        names = distinct(self.path[key])
        check_names(*names)
        return names

    def name(self, key: str) -> str:
        """One name in a part of the path."""
        check_names(self.path[key])
        return self.path[key]

    def format(self) -> str:
        """The format that the query requests, "json" or "toml"."""
        name = self.query.get("format") or "json"
        if name not in ("json", "toml"):
            raise Refusal("InvalidChars", f"invalid format parameter: {name}")
        return name

    def parse(
        self, from_json: Callable[[bytes], Parsed], from_toml: Callable[[bytes], Parsed]
    ) -> Parsed:
        """The body, parsed as its content type says. Raises ValueError for any other type."""
        parsers = {JSON: from_json, TOML: from_toml}
        if self.content_type not in parsers:
            raise ValueError(f"unknown content type {self.content_type}")
        return parsers[self.content_type](self.body)

    def paging(self) -> tuple[int, int]:
        """Offset and limit, 0 and 20 by default."""
        values = []
        for key, default in (("offset", 0), ("limit", 20)):
            text = self.query.get(key) or str(default)
            if not _UNSIGNED.fullmatch(text):
                raise Refusal("BadLimitOrOffset", f"BadRequest: {key} must be a number, not {text}")
            values.append(int(text))
        return values[0], values[1]

    def check_distro(self) -> None:
        """Refuse a `distro` or `arch` in the query that the sandbox does not have."""
        distro = self.query.get("distro") or image_types.DISTRO
        if distro != image_types.DISTRO:
            raise Refusal("DistroError", f"Invalid distro: {distro}")
        architecture = self.query.get("arch") or image_types.ARCHITECTURE
        if architecture != image_types.ARCHITECTURE:
            raise Refusal("DistroError", f"Invalid arch: {architecture}")


QUICK, LARGE, WRITING, INDEX = "quick", "large", "writing", "index"
SOLVING, STARTING = "solving", "starting"
Handler = Callable[[Service, Call], "dict[str, Any] | Response"]


@dataclass(frozen=True)
class Route:
    """A route below /api/v<N>.

    `lane` names the threads that it runs in: QUICK, or one for what may take seconds: LARGE (parses
    a body, crypts passwords), WRITING (TOML), INDEX (reads the package index), SOLVING (runs apt's
    solver), STARTING (a compose: solves, and asks other servers). A push `stores` a blueprint; what
    `follows` pushes waits for those that are under way.
    """

    method: str
    path: str
    handler: Handler
    versions: tuple[int, ...] = BOTH
    lane: str = QUICK
    stores: bool = False
    follows: bool = False


class Refusal(Exception):  # noqa: N818 - it is an answer, not a defect
    """An error answer of the contract: an HTTP status and one or more (id, msg)."""

    def __init__(self, id: str, msg: str, *, status: int = 400) -> None:
        self.status = status
        self.errors: list[dict[str, Any]] = [{"id": id, "msg": msg}]
        super().__init__(id, msg)


def not_found() -> Refusal:
    """The answer to a path, or a body, that is not in the API."""
    refusal = Refusal("HTTPError", "Not Found", status=404)
    refusal.errors[0]["code"] = 404
    return refusal


def busy() -> Refusal:
    """The answer when too many requests that take seconds wait already. The status is one that
    composer-cli takes for an error, which 429 and 503 are not."""
    msg = "too many requests that take seconds are waiting; try again in a moment"
    return Refusal("InternalServerError", msg, status=500)


def distinct(text: str) -> list[str]:
    """The comma-separated names in a text, each once."""
    return list(dict.fromkeys(text.split(",")))


def check_names(*names: str) -> None:
    """Refuse what cannot be the name of a blueprint or a commit, or of a file NAME.toml."""
    for name in names:
        if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
            raise Refusal("InvalidChars", "Invalid characters in API path")


def problem(id: str, msg: str) -> dict[str, str]:
    """An entry of the `errors` beside the results of an answer."""
    return {"id": id, "msg": msg}


def page(entries: Sequence[Any], offset: int, limit: int) -> Sequence[Any]:
    return entries[offset : offset + limit]


def load_json(body: bytes) -> Any:
    """JSON in UTF-8; raises ValueError for anything else, and for more than MOST_PARTS values.

    Not-a-number, infinities and halves of surrogate pairs are refused too: they could not be sent
    back.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    if sum(body.count(mark) for mark in b"{[:,") > MOST_PARTS:
        raise ValueError(f"the document has more than {MOST_PARTS} parts")
    try:
        value = json.loads(body.decode(), parse_constant=refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def lowered(value: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The entries with these keys, whose case does not matter; null counts as absent."""
    spelling = {key.lower(): key for key in keys}
    return {
        spelling[key.lower()]: entry
        for key, entry in value.items()
        if key.lower() in spelling and entry is not None
    }


DONE = {"status": True}
