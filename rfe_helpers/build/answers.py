"""What Image Builder's API answers, as frozen dataclasses, and how they come out of its JSON.

Keys that an older server leaves out, or sends as null, become empty values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rfe_helpers.build.blueprint import Blueprint, parse_json
from rfe_helpers.commit.ostree import Package


@dataclass(frozen=True)
class ServerStatus:
    """Who answers: `backend` is "osbuild-composer" or "lorax-composer"."""

    backend: str
    build: str
    api: str
    messages: tuple[str, ...]


@dataclass(frozen=True)
class BlueprintChange:
    """An entry of a blueprint's history. `revision` is the number of its tag, if it has one."""

    commit: str
    message: str
    timestamp: str
    revision: int | None


@dataclass(frozen=True)
class PackageInfo:
    """A package that can be installed, with the versions there are."""

    name: str
    summary: str
    description: str
    homepage: str
    versions: tuple[Package, ...]


@dataclass(frozen=True)
class Source:
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


@dataclass(frozen=True)
class Started:
    """A compose that has been accepted; `warnings` are the server's."""

    id: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Compose:
    """A compose in the queue or after it. `status`: WAITING, RUNNING, FINISHED or FAILED."""

    id: str
    blueprint: str
    version: str
    type: str
    status: str
    size: int
    created: datetime | None
    started: datetime | None
    finished: datetime | None

    @property
    def seconds(self) -> float:
        """How long it has been running, or ran."""
        if self.started is None:
            return 0.0
        return ((self.finished or datetime.now(UTC)) - self.started).total_seconds()


@dataclass(frozen=True)
class ComposeInfo:
    """What a compose was made from: the blueprint as it was then, and all packages."""

    id: str
    type: str
    status: str
    blueprint: Blueprint
    packages: tuple[Package, ...]


def package(entry: Mapping[str, Any]) -> Package:
    return Package(
        name=_text(entry, "name"),
        epoch=str(entry.get("epoch") or 0),
        version=_text(entry, "version"),
        release=_text(entry, "release"),
        arch=_text(entry, "arch"),
    )


def package_info(entry: Mapping[str, Any]) -> PackageInfo:
    name = _text(entry, "name")
    builds = [
        {**build, "name": name, "version": (build.get("source") or {}).get("version")}
        for build in entry.get("builds") or ()
    ]
    return PackageInfo(
        name=name,
        summary=_text(entry, "summary"),
        description=_text(entry, "description"),
        homepage=_text(entry, "homepage"),
        versions=tuple(map(package, builds)),
    )


def source(key: str, entry: Mapping[str, Any]) -> Source:
    return Source(
        id=str(entry.get("id") or key),
        name=str(entry.get("name") or key),
        type=_text(entry, "type"),
        url=_text(entry, "url"),
        check_gpg=bool(entry.get("check_gpg", True)),
        check_ssl=bool(entry.get("check_ssl", True)),
        system=bool(entry.get("system", False)),
        gpgkeys=tuple(entry.get("gpgkeys") or ()),
        distros=tuple(entry.get("distros") or ()),
    )


def compose(entry: Mapping[str, Any]) -> Compose:
    return Compose(
        id=_text(entry, "id"),
        blueprint=_text(entry, "blueprint"),
        version=_text(entry, "version"),
        type=_text(entry, "compose_type"),
        status=_text(entry, "queue_status"),
        size=int(entry.get("image_size") or 0),
        created=_moment(entry.get("job_created")),
        started=_moment(entry.get("job_started")),
        finished=_moment(entry.get("job_finished")),
    )


def compose_info(entry: Mapping[str, Any]) -> ComposeInfo:
    listed = (entry.get("deps") or {}).get("packages") or ()
    return ComposeInfo(
        id=_text(entry, "id"),
        type=_text(entry, "compose_type"),
        status=_text(entry, "queue_status"),
        blueprint=parse_json(entry.get("blueprint") or {}),
        packages=tuple(map(package, listed)),
    )


def change(entry: Mapping[str, Any]) -> BlueprintChange:
    return BlueprintChange(
        commit=_text(entry, "commit"),
        message=_text(entry, "message"),
        timestamp=_text(entry, "timestamp"),
        revision=entry.get("revision"),
    )


def status(entry: Mapping[str, Any]) -> ServerStatus:
    # The key is msgs; weldr-client documents messages.
    listed = entry.get("msgs") or entry.get("messages") or ()
    return ServerStatus(
        backend=_text(entry, "backend"),
        build=_text(entry, "build"),
        api=_text(entry, "api"),
        messages=tuple(map(str, listed)),
    )


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return "" if value is None else str(value)


def _moment(seconds: object) -> datetime | None:
    """A time of the API; osbuild-composer gives a large negative number for "never"."""
    if not isinstance(seconds, int | float) or seconds <= 0:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def spec(entry: Mapping[str, Any] | None) -> str | None:
    """A package of a difference, "name version"."""
    package = (entry or {}).get("Package") or {}
    return f"{package.get('name', '')} {package.get('version', '')}".strip() or None
