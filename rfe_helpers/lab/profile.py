"""What differs from release to release, as data: one TOML file each in `profiles/`.

A file may say `extends = "other"` and then holds only what differs from that one, which must be
complete itself. `[sources]` says where facts come from and when that was true: a key is the name
of a table or `table.key`. What stands in no release that can be asked here is from documents.
"""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib import resources
from types import MappingProxyType
from typing import Any

from rfe_helpers.errors import InputError, ProfileError


@dataclass(frozen=True)
class OstreeFacts:
    """The default ref of a commit, the OS name in /ostree/deploy, the remote's name, and whether
    Image Builder takes a `parent` only with a `url`, or else one of them at most."""

    ref: str
    osname: str
    remote: str
    parent_needs_url: bool = True

    def check_parent(self, parent: str, url: str) -> None:
        """Raise InputError for a compose that this release's Image Builder would refuse."""
        if self.parent_needs_url and parent and not url:
            raise InputError(
                f"this release looks the parent {parent} up in a repository",
                remedy="give the repository's url too",
            )
        if not self.parent_needs_url and parent and url:
            raise InputError(
                "this release takes a parent or a url, not both",
                remedy="give the url alone: the parent is what the ref points at there",
            )


@dataclass(frozen=True)
class Types:
    """Image types by purpose; "" where the release has none."""

    commit: str
    container: str = ""
    installer: str = ""
    raw: str = ""
    simplified: str = ""
    ami: str = ""
    vsphere: str = ""
    qcow2: str = ""
    bootable: str = ""

    @property
    def served(self) -> str:
        """What is built to be served: the container, or the plain commit where there is none."""
        return self.container or self.commit


@dataclass(frozen=True)
class ContainerFacts:
    """Where the web server of an edge container listens and what it serves; where the release
    has no such container, how we serve its commits."""

    port: int
    web_root: str


@dataclass(frozen=True)
class KickstartFacts:
    """The pykickstart version that parses this release's kickstarts, such as RHEL9, whether its
    installer knows `ostreecontainer`, and the file system for / and /boot, "xfs" or "ext4"."""

    version: str
    ostreecontainer: bool = False
    filesystem: str = "xfs"


@dataclass(frozen=True)
class IsoFacts:
    """The volume label of the release's boot ISO."""

    label: str


@dataclass(frozen=True)
class InstallFacts:
    """How Image Builder is installed on the release: the package tool, the packages, the sockets
    to enable, and how many bytes must be free for composes: a full disk is an obscure failure."""

    tool: str = ""
    packages: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ("osbuild-composer.socket", "cockpit.socket")
    room: int = 20_000_000_000


@dataclass(frozen=True)
class RegistrationFacts:
    """Whether the release must be registered ("rhsm") or not ("none"), and the commands that
    follow `subscription-manager register`."""

    kind: str = "none"
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class MediaFacts:
    """The guest image and the boot ISO: file names, and for public ones their URL and that of
    the file with their SHA-256. `portal` is the page where a person gets the others."""

    guest_image: str = ""
    guest_url: str = ""
    guest_checksums: str = ""
    boot_iso: str = ""
    iso_url: str = ""
    iso_checksums: str = ""
    portal: str = ""


@dataclass(frozen=True)
class DeviceFacts:
    """What an installed system can do: Quadlet files (podman 4.4), and
    `AutomaticUpdatePolicy=apply` (rpm-ostree 2023.4)."""

    quadlet: bool = True
    apply: bool = True


@dataclass(frozen=True)
class Profile:
    """The facts of one release. `backend` is "sandbox" or "osbuild". `instead` is "" or says what
    to do where the release has no edge images any more."""

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
    install: InstallFacts = InstallFacts()
    registration: RegistrationFacts = RegistrationFacts()
    media: MediaFacts = MediaFacts()
    device: DeviceFacts = DeviceFacts()
    instead: str = ""
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def require_edge(self) -> None:
        """Raise ProfileError, with what to do instead, if the release has no edge images."""
        if self.instead:
            raise ProfileError(f"{self.title} has no edge images", remedy=self.instead)


_TABLES = {
    "ostree": OstreeFacts,
    "types": Types,
    "container": ContainerFacts,
    "kickstart": KickstartFacts,
    "iso": IsoFacts,
    "install": InstallFacts,
    "registration": RegistrationFacts,
    "media": MediaFacts,
    "device": DeviceFacts,
}
# What must be said by every file, an extending one too: a copy of another's would be wrong.
_OWN = ("title", "distro")
_CHOICES = {
    "backend": ("sandbox", "osbuild"),
    "install.tool": ("", "yum", "dnf", "apt-get"),
    "registration.kind": ("none", "rhsm"),
}


def names() -> list[str]:
    """The names of all profiles: the sandbox, then the releases in their order."""
    directory = resources.files("rfe_helpers.lab") / "profiles"
    found = [item.name[:-5] for item in directory.iterdir() if item.name.endswith(".toml")]
    return sorted(found, key=lambda name: (name != "sandbox", _parts(name)))


def _parts(name: str) -> list[tuple[int, str]]:
    """rhel-8.10 comes after rhel-8.9."""
    words = name.replace(".", "-").split("-")
    return [(int(word), "") if word.isdigit() else (0, word) for word in words]


def load(name: str = "sandbox") -> Profile:
    """The profile `name`. Raises ProfileError if it is unknown or does not fit."""
    return parse(name, read(name))


def read(name: str) -> str:
    """The text of a profile's file. Raises ProfileError if there is none."""
    if name not in names():
        raise ProfileError(
            f"unknown profile {name!r}", remedy=f"choose one of: {', '.join(names())}"
        )
    return (resources.files("rfe_helpers.lab") / "profiles" / f"{name}.toml").read_text()


def parse(name: str, text: str) -> Profile:
    """A profile from its TOML text. Raises ProfileError naming each key that does not fit."""
    data = _extended(name, _toml(name, text))
    for key, kind in _TABLES.items():
        where = f"profile {name}, [{key}]"
        optional = all(f.default is not MISSING for f in fields(kind))
        table = data.get(key, {} if optional else None)
        if not isinstance(table, dict):
            raise ProfileError(f"profile {name}: table [{key}] is missing")
        data[key] = _build(kind, table, where)
    sources = data.get("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(v, str) for v in sources.values()):
        raise ProfileError(f"profile {name}: [sources] holds text only")
    data["sources"] = MappingProxyType(sources)
    profile: Profile = _build(Profile, {**data, "name": name}, f"profile {name}")
    for key, choices in _CHOICES.items():
        value: Any = profile
        for part in key.split("."):
            value = getattr(value, part)
        if value not in choices:
            known = ", ".join(repr(choice) for choice in choices)
            raise ProfileError(f"profile {name}: unknown {key} {value!r}", remedy=f"one of {known}")
    return profile


def _toml(name: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"profile {name}: {error}") from None


def _extended(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """The data with what it takes over from the profile that it extends."""
    other = data.pop("extends", None)
    if other is None:
        return data
    if not isinstance(other, str) or other == name or other not in names():
        raise ProfileError(f"profile {name}: cannot extend {other!r}")
    if missing := [key for key in _OWN if key not in data]:
        raise ProfileError(f"profile {name}: {missing[0]} is missing")
    base = _toml(other, read(other))
    if "extends" in base:
        raise ProfileError(f"profile {name}: {other} extends another profile itself")
    merged = {**base, **data}
    for key, value in base.items():
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            merged[key] = {**value, **data[key]}
    return merged


def _build(kind: type[Any], values: dict[str, Any], where: str) -> Any:
    known = typing.get_type_hints(kind)
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ProfileError(f"{where}: unknown key {key!r}")
        expected = known[key]
        if expected == tuple[str, ...]:
            if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
                raise ProfileError(f"{where}: {key} must be a list of str, not {value!r}")
            value = tuple(value)
        elif expected in (str, int, bool) and type(value) is not expected:
            raise ProfileError(f"{where}: {key} must be {expected.__name__}, not {value!r}")
        given[key] = value
    try:
        return kind(**given)
    except TypeError as error:
        raise ProfileError(f"{where}: {error}") from None
