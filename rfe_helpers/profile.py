"""What differs from release to release, as data: one TOML file each in `profiles/`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

from rfe_helpers.errors import ProfileError


@dataclass(frozen=True)
class OstreeFacts:
    """The default ref of a commit, the OS name in /ostree/deploy and the remote's name."""

    ref: str
    osname: str
    remote: str


@dataclass(frozen=True)
class Types:
    """Image types by purpose; "" where the release has none."""

    commit: str
    container: str = ""
    installer: str = ""
    raw: str = ""


@dataclass(frozen=True)
class ContainerFacts:
    """Where the web server of an edge container listens and what it serves."""

    port: int
    web_root: str


@dataclass(frozen=True)
class KickstartFacts:
    """The pykickstart version that parses this release's kickstarts, such as RHEL9."""

    version: str


@dataclass(frozen=True)
class IsoFacts:
    """The volume label of the release's boot ISO."""

    label: str


@dataclass(frozen=True)
class Profile:
    """The facts of one release. `backend` is "sandbox" or "osbuild"."""

    name: str
    title: str
    backend: str
    distro: str
    arch: str
    ostree: OstreeFacts
    types: Types
    container: ContainerFacts
    kickstart: KickstartFacts
    iso: IsoFacts


_TABLES = {
    "ostree": OstreeFacts,
    "types": Types,
    "container": ContainerFacts,
    "kickstart": KickstartFacts,
    "iso": IsoFacts,
}


def names() -> list[str]:
    """The names of all profiles, sorted."""
    directory = resources.files("rfe_helpers") / "profiles"
    return sorted(item.name[:-5] for item in directory.iterdir() if item.name.endswith(".toml"))


def load(name: str = "sandbox") -> Profile:
    """The profile `name`. Raises ProfileError if it is unknown or does not fit."""
    if name not in names():
        raise ProfileError(
            f"unknown profile {name!r}", remedy=f"choose one of: {', '.join(names())}"
        )
    text = (resources.files("rfe_helpers") / "profiles" / f"{name}.toml").read_text()
    return parse(name, text)


def parse(name: str, text: str) -> Profile:
    """A profile from its TOML text. Raises ProfileError naming each key that does not fit."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"profile {name}: {error}") from None
    for key, kind in _TABLES.items():
        if not isinstance(data.get(key), dict):
            raise ProfileError(f"profile {name}: table [{key}] is missing")
        data[key] = _build(kind, data[key], f"profile {name}, [{key}]")
    profile: Profile = _build(Profile, {**data, "name": name}, f"profile {name}")
    if profile.backend not in ("sandbox", "osbuild"):
        raise ProfileError(f"profile {name}: unknown backend {profile.backend!r}")
    return profile


def _build(kind: type[Any], values: dict[str, Any], where: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise ProfileError(f"{where}: unknown key {key!r}")
        expected = known[key].type
        if expected in ("str", "int") and type(value).__name__ != expected:
            raise ProfileError(f"{where}: {key} must be {expected}, not {value!r}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ProfileError(f"{where}: {error}") from None
