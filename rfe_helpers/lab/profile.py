"""What differs from release to release, as data: one TOML file each in `profiles/`.

A file may say `extends = "other"` and then holds only what differs from that one, which must be
complete itself. `[sources]` says where facts come from and when that was true: a key is the name
of a table or `table.key`. Facts of a release that cannot be queried here come from its documents.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

from msgspec import Struct, ValidationError, convert

from rfe_helpers.errors import InputError, ProfileError


class OstreeFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """The default ref of a commit, the OS name in /ostree/deploy, the remote's name, and whether
    Image Builder takes a `parent` only with a `url`, or else one of them at most.

    >>> from rfe_helpers.lab import profile
    >>> profile.load("rhel-9.6").ostree.ref
    'rhel/9/x86_64/edge'
    """

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


class Types(Struct, frozen=True, forbid_unknown_fields=True):
    """Image types by purpose; "" where the release has none.

    >>> from rfe_helpers.lab import profile
    >>> types = profile.load("rhel-9.6").types
    >>> types.commit, types.served
    ('edge-commit', 'edge-container')
    """

    commit: str
    container: str = ""
    installer: str = ""
    raw: str = ""
    simplified: str = ""
    ami: str = ""
    vsphere: str = ""
    qcow2: str = ""

    @property
    def served(self) -> str:
        """What is built to be served: the container, or the plain commit where there is none."""
        return self.container or self.commit


class ContainerFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the web server of an edge container listens and what it serves; where the release
    has no such container, how we serve its commits."""

    port: int
    web_root: str


class KickstartFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """The pykickstart version that parses this release's kickstarts, such as RHEL9, whether its
    installer knows `ostreecontainer`, and the file system for / and /boot, "xfs" or "ext4"."""

    version: str
    ostreecontainer: bool = False
    filesystem: str = "xfs"


class IsoFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """The volume label of the release's boot ISO."""

    label: str


class InstallFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """How Image Builder is installed on the release: the package tool, the packages, the sockets
    to enable, and how many bytes must be free for composes: a full disk is an obscure failure.
    `image_builder` tells whether the release has the command `image-builder`, too, which builds
    from a blueprint in a file, without the service."""

    tool: Literal["", "yum", "dnf", "apt-get"] = ""
    packages: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ("osbuild-composer.socket", "cockpit.socket")
    room: int = 20_000_000_000
    image_builder: bool = False


class RegistrationFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the release must be registered ("rhsm") or not ("none"), and the commands that
    follow `subscription-manager register`."""

    kind: Literal["none", "rhsm"] = "none"
    commands: tuple[str, ...] = ()


class MediaFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """The guest image and the boot ISO: file names, and for public ones their URL and that of
    the file with their SHA-256. `portal` is the page where a person gets the others."""

    guest_image: str = ""
    guest_url: str = ""
    guest_checksums: str = ""
    boot_iso: str = ""
    iso_url: str = ""
    iso_checksums: str = ""
    portal: str = ""


class DeviceFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """What an installed system can do: Quadlet files (podman 4.4), and
    `AutomaticUpdatePolicy=apply` (rpm-ostree 2023.4)."""

    quadlet: bool = True
    apply: bool = True


class ImageModeFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """Image mode, where the operating system is a container image; all "" where the release does
    not have it.

    `base` is the image that a Containerfile begins with, `packager` the command that installs
    packages in it, `builder` the image of bootc-image-builder, which makes disks and installers of
    an image, and `bootc` the version of bootc in the base, "" if it is not known. `next_base` is
    the base of the next major release, if a machine can go there by a switch of its image.
    """

    base: str = ""
    packager: Literal["", "apt", "dnf"] = ""
    builder: str = ""
    bootc: str = ""
    next_base: str = ""


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """The facts of one release. `instead` is "" or says what to do where the release has no edge
    images any more.

    >>> from rfe_helpers.lab import profile
    >>> release = profile.load("rhel-9.6")
    >>> release.title, release.ostree.ref, release.types.served
    ('Red Hat Enterprise Linux 9.6', 'rhel/9/x86_64/edge', 'edge-container')
    """

    name: str
    title: str
    backend: Literal["sandbox", "osbuild"]
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
    image_mode: ImageModeFacts = ImageModeFacts()
    instead: str = ""
    sources: Mapping[str, str] = {}

    def require_edge(self) -> None:
        """Raise ProfileError, with what to do instead, if the release has no edge images."""
        if self.instead:
            raise ProfileError(f"{self.title} has no edge images", remedy=self.instead)


# Every file sets these itself, an extending one too: those of another release would be wrong.
_OWN = ("title", "distro")


def names() -> list[str]:
    """The names of all profiles: the sandbox, then the releases in their order.

    >>> from rfe_helpers.lab import profile
    >>> profile.names()
    ['sandbox', 'centos-stream-9', ...]
    """
    directory = resources.files("rfe_helpers.lab") / "profiles"
    stems = [item.name[:-5] for item in directory.iterdir() if item.name.endswith(".toml")]
    return sorted(stems, key=lambda name: (name != "sandbox", _parts(name)))


def _parts(name: str) -> list[tuple[int, str]]:
    """rhel-8.10 comes after rhel-8.9."""
    words = name.replace(".", "-").split("-")
    return [(int(word), "") if word.isdigit() else (0, word) for word in words]


def load(name: str = "sandbox") -> Profile:
    """The profile `name`. Raises ProfileError if it is unknown or does not fit.

    >>> from rfe_helpers.lab import profile
    >>> profile.load("rhel-9.6").kickstart.version
    'RHEL9'
    """
    return parse(name, read(name))


def read(name: str) -> str:
    """The text of a profile's file. Raises ProfileError if there is none.

    >>> from rfe_helpers.lab import profile
    >>> print(profile.read("rhel-9.6"))
    #...
    title = "Red Hat Enterprise Linux 9.6"
    ...
    """
    if name not in names():
        raise ProfileError(
            f"unknown profile {name!r}", remedy=f"choose one of: {', '.join(names())}"
        )
    return (resources.files("rfe_helpers.lab") / "profiles" / f"{name}.toml").read_text()


def parse(name: str, text: str) -> Profile:
    """A profile from its TOML text. Raises ProfileError naming the key that does not fit.

    >>> from rfe_helpers.lab import profile
    >>> text = profile.read("rhel-9.6").replace("rhel/9", "shops/9")
    >>> profile.parse("shops", text).ostree.ref
    'shops/9/x86_64/edge'
    """
    data = {**_extended(name, _toml(name, text)), "name": name}
    try:
        return convert(data, Profile)
    except ValidationError as error:
        raise ProfileError(
            f"profile {name}: {error}",
            remedy="rfe_helpers/lab/profile.py has all tables, their keys and what these take",
        ) from None


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
