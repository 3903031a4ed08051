"""What Image Builder's API answers, as frozen structs, and how they come out of its JSON.

Keys that an older server leaves out, or sends as null, become empty values. msgspec converts what
is there; a value of another type raises ApiError.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

from msgspec import Struct, ValidationError, convert, field

from rfe_helpers.build.blueprint import Blueprint, parse_json
from rfe_helpers.commit.ostree import Package
from rfe_helpers.errors import ApiError


class Answer(Struct, frozen=True):
    """Part of an answer; `field(name=…)` gives the API's name where ours differs."""

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """An answer from decoded JSON. Raises ApiError if a value has another type."""
        try:
            given = {key: value for key, value in entry.items() if value is not None}
            return convert(given, cls, strict=False)
        except ValidationError as error:
            raise ApiError(
                200,
                [("HTTPError", f"the answer does not fit {cls.__name__}: {error}")],
                remedy="see that the socket is Image Builder's",
            ) from None


class ServerStatus(Answer, frozen=True):
    """Who answers: `backend` is "osbuild-composer" or "lorax-composer"."""

    backend: str = ""
    build: str = ""
    api: str = ""
    messages: tuple[str, ...] = field(name="msgs", default=())


class BlueprintChange(Answer, frozen=True):
    """An entry of a blueprint's history. `revision` is the number of its tag, if it has one."""

    commit: str = ""
    message: str = ""
    timestamp: str = ""
    revision: int | None = None


class PackageInfo(Answer, frozen=True):
    """A package that can be installed, with the versions there are."""

    name: str = ""
    summary: str = ""
    description: str = ""
    homepage: str = ""
    versions: tuple[Package, ...] = ()


class Source(Answer, frozen=True):
    """A package repository. `type` is yum-baseurl, yum-metalink or yum-mirrorlist."""

    id: str
    url: str
    name: str = ""
    type: str = "yum-baseurl"
    check_gpg: bool = True
    check_ssl: bool = True
    system: bool = False
    gpgkeys: tuple[str, ...] = ()
    distros: tuple[str, ...] = ()


class Started(Struct, frozen=True):
    """A compose that has been accepted; `warnings` are the server's."""

    id: str
    warnings: tuple[str, ...]


class Compose(Answer, frozen=True):
    """A compose in the queue or after it. `status`: WAITING, RUNNING, FINISHED or FAILED.

    >>> [compose] = [one for one in client.composes() if one.id == artifact.compose.id]
    >>> compose.blueprint, compose.type, compose.status
    ('edge', 'edge-container', 'FINISHED')
    """

    id: str = ""
    blueprint: str = ""
    version: str = ""
    type: str = field(name="compose_type", default="")
    status: str = field(name="queue_status", default="")
    size: int = field(name="image_size", default=0)
    created: datetime | None = field(name="job_created", default=None)
    started: datetime | None = field(name="job_started", default=None)
    finished: datetime | None = field(name="job_finished", default=None)

    @property
    def seconds(self) -> float:
        """How long it has been running, or ran."""
        if self.started is None:
            return 0.0
        return ((self.finished or datetime.now(UTC)) - self.started).total_seconds()


class ComposeInfo(Answer, frozen=True):
    """What a compose was made from: the blueprint as it was then, and all packages."""

    blueprint: Blueprint
    packages: tuple[Package, ...]
    id: str = ""
    type: str = field(name="compose_type", default="")
    status: str = field(name="queue_status", default="")


change = BlueprintChange.of


def package(entry: Mapping[str, Any]) -> Package:
    texts = {key: str(entry.get(key) or "") for key in ("name", "version", "release", "arch")}
    return Package(epoch=str(entry.get("epoch") or 0), **texts)


def package_info(entry: Mapping[str, Any]) -> PackageInfo:
    builds = [
        {**build, "name": entry.get("name"), "version": (build.get("source") or {}).get("version")}
        for build in entry.get("builds") or ()
    ]
    return PackageInfo.of({**entry, "versions": tuple(map(package, builds))})


def source(key: str, entry: Mapping[str, Any]) -> Source:
    empty = {"id": key, "name": key, "type": "", "url": ""}
    texts = {name: entry.get(name) or text for name, text in empty.items()}
    return Source.of({**entry, **texts})


def compose(entry: Mapping[str, Any]) -> Compose:
    # osbuild-composer gives a large negative number for "never".
    times = {key: value for key, value in entry.items() if key.startswith("job_")}
    never = {k: None for k, v in times.items() if not isinstance(v, int | float) or v <= 0}
    return Compose.of({**entry, **never})


def compose_info(entry: Mapping[str, Any]) -> ComposeInfo:
    packages = map(package, (entry.get("deps") or {}).get("packages") or ())
    blueprint = parse_json(entry.get("blueprint") or {})
    return ComposeInfo.of({**entry, "blueprint": blueprint, "packages": tuple(packages)})


def status(entry: Mapping[str, Any]) -> ServerStatus:
    # The key is msgs; weldr-client documents messages.
    return ServerStatus.of({**entry, "msgs": entry.get("msgs") or entry.get("messages")})


def spec(entry: Mapping[str, Any] | None) -> str | None:
    """A package of a difference, "name version"."""
    package = (entry or {}).get("Package") or {}
    return f"{package.get('name', '')} {package.get('version', '')}".strip() or None
