"""Known problems of a blueprint, reported before it is composed.

The facts come from section 12 of the weldr API contract (osbuild/images v0.274, 2026-06, and
reports on older servers), from support.toml and from issues of osbuild-composer, which are named
where they are used; known keys are those of `keys.BLUEPRINT`, time zones those of this machine
or of tzdata.
Not every finding is an error: some versions of the server accept what others refuse, and each
finding says which.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec.structs import asdict

from rfe_helpers.build import blueprint as blueprints
from rfe_helpers.build import checks, support
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.errors import BlueprintError
from rfe_helpers.lab.profile import Profile

# Fields of profile.Types: image types that make a commit, and those that deploy an existing one.
_COMMIT_TYPES = ("commit", "container")
_DEPLOYED_TYPES = ("installer", "raw", "simplified", "ami", "vsphere", "qcow2")
_FILE_ROOTS = ("/etc", "/root", "/usr/local/bin", "/usr/local/sbin")
_DENIED = ("/etc/fstab", "/etc/shadow", "/etc/passwd", "/etc/group")
# Words in the names of image types that are not of this chapter: osbuild/images v0.274. Whether a
# server has those types is not known here.
# fmt: off
_OTHER_TYPES = {
    "ami", "azure", "container", "ec2", "gce", "guest", "image", "installer", "libvirt", "oci",
    "openstack", "ova", "qcow2", "raw", "tar", "vhd", "virtualbox", "vmdk", "wsl",
}
# fmt: on
_ALIASES = {"iot-raw-image": "iot-raw-xz", "iot-qcow2-image": "iot-qcow2"}
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+)\]")
_KEY = re.compile(r"""\s*["']?([\w.-]+)["']?\s*=""")
_HASHED = re.compile(r"\$(?:2[aby]|5|6|y)\$.+")
_ALL = "all releases"
_OUTCOMES = {
    support.REFUSES: "images of this type do not support it: the compose is refused",
    support.WARNS: "images of this type do not support it: it is left out, with a warning",
    support.IGNORES: "images of this type do not support it: it is left out without a warning",
}


@dataclass(frozen=True)
class Finding:
    r"""One problem: where it is in the blueprint, what happens, what to do, and on which releases
    it matters; in a text also line and column, 0 where they are not known.

    >>> from rfe_helpers.build import lint
    >>> from rfe_helpers.lab import profile
    >>> [finding] = lint('name = "edge"\npackage = []', profile.load("rhel-9.6"))
    >>> finding.where, finding.remedy
    ('package', 'did you mean `packages`?')
    """

    where: str
    message: str
    remedy: str
    releases: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.message}\n  to do: {self.remedy}\n  matters for: {self.releases}"
        )


def lint(
    blueprint: Blueprint | str,
    profile: Profile,
    image_type: str = "",
    distros: Sequence[str] = (),
) -> tuple[Finding, ...]:
    r"""The problems of a blueprint, or of the TOML text of one, on the release of a profile.

    >>> from rfe_helpers.build import lint
    >>> from rfe_helpers.lab import profile
    >>> text = 'name = "edge"\npackage = [{name = "tmux"}]'
    >>> for finding in lint(text, profile.load("rhel-9.6")):
    ...     print(finding)
    package: unknown key, which Image Builder ignores without a warning
      to do: did you mean `packages`?
      matters for: all releases

    `image_type` is the type to compose, "" for the release's edge commit; `distros` are those that
    the server builds (Client.distros()), () if they are not known. The keys that a text misspells
    are missing from a Blueprint that is parsed from it: lint the text.
    """
    text = blueprint if isinstance(blueprint, str) else ""
    try:
        data = (
            blueprint.to_json() if isinstance(blueprint, Blueprint) else blueprints.load_toml(text)
        )
        findings = list(_findings(data, profile, image_type, distros))
    except BlueprintError as error:
        return (_unreadable(error.message, text),)
    lines = _lines(text)
    placed = [replace(each, line=_line(lines, each.where)) for each in findings]
    return tuple(sorted(placed, key=lambda each: each.line))


def _findings(
    data: Mapping[str, Any], profile: Profile, image_type: str, distros: Sequence[str]
) -> Iterator[Finding]:
    blueprint, problems = blueprints.read(data)
    kind = _purpose(profile, image_type)
    for problem in problems:
        ignored = ", which Image Builder ignores without a warning" if problem.unknown else ""
        yield Finding(problem.where, problem.message + ignored, problem.remedy, _ALL)
    for problem in checks.conflicts(blueprint.customizations):
        yield Finding(problem.where, problem.message, problem.remedy, _ALL)
    yield from _name(blueprint.name)
    yield from _pinned(blueprint, profile, distros)
    yield from _type(profile, image_type, kind)
    if kind in _COMMIT_TYPES:
        yield from _accounts(blueprint)
        yield from _places(blueprint)
        yield from _containers(blueprint, profile)
    if kind in _DEPLOYED_TYPES:
        yield from _deployed(blueprint, kind)
    if kind:
        yield from _unsupported(blueprint, profile, kind)
    yield from _host_name(str(blueprint.customizations.get("hostname") or ""))
    yield from _time_zone(blueprint.customizations.get("timezone") or {})
    yield from _passwords(blueprint)
    yield from _updates(blueprint, profile)


def _unreadable(message: str, text: str) -> Finding:
    """The finding for a text that is not TOML at all; tomllib names the place in its message."""
    position = re.search(r" \(at line (\d+), column (\d+)\)", message)
    line, column = (int(position[1]), int(position[2])) if position else (0, 0)
    if message.endswith("(at end of document)"):
        line = max(1, len(text.splitlines()))
    return Finding(
        "TOML",
        message.replace(position[0], "") if position else message,
        "close every quote and bracket, and put text in quotes; "
        "`rfe blueprint template edge` prints a blueprint to begin with",
        _ALL,
        line,
        column,
    )


def _lines(text: str) -> dict[str, int]:
    """The lines of a text in TOML on which its tables and keys stand, by place."""
    lines: dict[str, int] = {}
    entries: Counter[str] = Counter()
    table = ""
    for number, line in enumerate(text.lower().splitlines(), 1):
        if header := _HEADER.match(line):
            path = re.sub(r"[\s\"']", "", header[2])
            lines.setdefault(path, number)
            table = f"{path}[{entries[path]}]" if header[1] == "[[" else path
            entries[path] += header[1] == "[["
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault(f"{table}.{key[1]}" if table else key[1], number)
    return lines


def _line(lines: Mapping[str, int], where: str) -> int:
    """The line of a place, or of the nearest one around it; 0 if there is none."""
    place = where.lower()
    while place and place not in lines:
        place = place[: max(place.rfind("."), place.rfind("["), 0)]
    return lines.get(place, 0)


def _name(name: str) -> Iterator[Finding]:
    if not name:
        yield Finding(
            "name",
            "it is missing, and Image Builder stores no blueprint without one",
            'put a line such as name = "edge" at the top, above the first line in [brackets]',
            _ALL,
        )
    elif not blueprints.NAME.fullmatch(name):
        yield Finding(
            "name",
            f"{name!r} has characters that Image Builder refuses",
            "use letters, digits, . _ and - only",
            _ALL,
        )


def _host_name(name: str) -> Iterator[Finding]:
    if name and (len(name) > 64 or not all(map(_LABEL.fullmatch, name.split(".")))):
        yield Finding(
            "customizations.hostname",
            f"{name!r} is not a host name",
            "use letters, digits and - only, dots between words, at most 64 characters",
            _ALL,
        )


def _time_zone(table: Mapping[str, Any]) -> Iterator[Finding]:
    zone = str(table.get("timezone") or "")
    zones = zoneinfo.available_timezones() if zone else set()
    # Some distributions leave out the older names: what is not in their list may exist elsewhere.
    if zone not in zones and "US/Eastern" in zones:
        near = difflib.get_close_matches(zone, zones, 1, 0.7)
        yield Finding(
            "customizations.timezone.timezone",
            f"there is no time zone {zone!r}",
            f"did you mean `{near[0]}`?" if near else "`timedatectl list-timezones` lists them",
            _ALL,
        )


def _purpose(profile: Profile, image_type: str) -> str:
    """The field of profile.Types that has the image type; "" if none has it."""
    if not image_type:
        return "commit"
    plain = _plain_type(image_type)
    for purpose, name in asdict(profile.types).items():
        if name and plain == _plain_type(name):
            return purpose
    return ""


def _plain_type(name: str) -> str:
    """The canonical name of an image type."""
    plain = re.sub(r"^(?:rhel|fedora)-(?=edge-|iot-)", "", name)
    return _ALIASES.get(plain, plain)


def _type(profile: Profile, image_type: str, kind: str) -> Iterator[Finding]:
    known = [name for name in asdict(profile.types).values() if name]
    plain = _plain_type(image_type)
    if profile.instead:
        yield Finding(
            "image type", "the release has no edge images", profile.instead, profile.title
        )
    elif kind:
        return
    elif plain.startswith(("edge-", "iot-")) or not _OTHER_TYPES & set(plain.split("-")):
        near = difflib.get_close_matches(plain, known, 1)
        hint = f"did you mean `{near[0]}`? " if near else ""
        yield Finding(
            "image type",
            f"{profile.title} has no {image_type}",
            f"{hint}it has {', '.join(known)}",
            profile.title,
        )


def _pinned(blueprint: Blueprint, profile: Profile, distros: Sequence[str]) -> Iterator[Finding]:
    if not blueprint.distro:
        return
    pinned = _with_dot(blueprint.distro)
    if distros and pinned not in map(_with_dot, distros):
        yield Finding(
            "distro",
            f"the server does not build {blueprint.distro}: the compose fails with DistroError",
            f"leave it out, or choose one of {', '.join(distros)}",
            f"{_ALL}; a RHEL 9 server builds RHEL 8, too, a RHEL 8 server only RHEL 8",
        )
    elif pinned != _with_dot(profile.distro):
        yield Finding(
            "distro",
            f"the blueprint is for {blueprint.distro}, the profile for {profile.distro}",
            "leave it out: the same blueprint then serves the next release as well",
            _ALL,
        )


def _with_dot(distro: str) -> str:
    """A distribution with a dot in its version: rhel-96 is the older spelling of rhel-9.6."""
    return re.sub(r"^(rhel-\d)(\d+)$", r"\1.\2", distro)


def _accounts(blueprint: Blueprint) -> Iterator[Finding]:
    for key in ("user", "group", "sshkey"):
        if blueprint.customizations.get(key):
            yield Finding(
                f"customizations.{key}",
                "accounts in a commit have broken the composes of its updates, and are the same on "
                "all devices (osbuild-composer issue 2968)",
                "create them in the kickstart: `user`, `group`, `sshkey`",
                "RHEL 8.3 on; deprecated since RHEL 9.2, kept for the lifetime of RHEL 9",
            )


def _places(blueprint: Blueprint) -> Iterator[Finding]:
    for index, file in enumerate(_tables(blueprint, "files")):
        path = str(file.get("path", ""))
        if path in _DENIED or not _below(path, _FILE_ROOTS):
            yield _place(f"customizations.files[{index}]", path, " or ".join(_FILE_ROOTS))
    for index, directory in enumerate(_tables(blueprint, "directories")):
        path = str(directory.get("path", ""))
        if not _below(path, ("/etc",)):
            yield _place(f"customizations.directories[{index}]", path, "/etc")


def _place(where: str, path: str, allowed: str) -> Finding:
    return Finding(
        where,
        f"{path} cannot be put into a commit",
        f"use a path below {allowed}, but not {', '.join(_DENIED)}; "
        "create other files at the first boot",
        f"{_ALL} with files in blueprints (RHEL 8.8 and 9.2 on, from memory)",
    )


def _below(path: str, roots: Sequence[str]) -> bool:
    """Whether a path is below a root, or is refused already (checks.py)."""
    return any(path.startswith(f"{root}/") for root in roots) or ".." in path.split("/")


def _containers(blueprint: Blueprint, profile: Profile) -> Iterator[Finding]:
    for index, file in enumerate(_tables(blueprint, "files")):
        path, where = str(file.get("path", "")), f"customizations.files[{index}]"
        if path.startswith("/etc/container/systemd/"):
            yield Finding(
                where,
                "nothing reads that directory: Quadlet reads /etc/containers/systemd",
                "change the path to /etc/containers/systemd",
                f"{_ALL} with Quadlet (RHEL 8.8 and 9.2 on)",
            )
        elif path.startswith("/etc/containers/systemd/") and not profile.device.quadlet:
            yield Finding(
                where,
                f"podman of {profile.title} does not have Quadlet: the container is never started",
                "write a unit as `podman generate systemd --new` does, into /etc/systemd/system",
                "releases with podman before 4.4: RHEL 8 before 8.8, RHEL 9 before 9.2",
            )


def _deployed(blueprint: Blueprint, kind: str) -> Iterator[Finding]:
    for key in ("packages", "modules", "groups", "containers"):
        if getattr(blueprint, key):
            yield Finding(
                key,
                "the image deploys an existing commit: they have no effect, or the compose fails",
                "leave them out here, and put them into the blueprint of the commit",
                "RHEL 8.4 on; later servers warn",
            )
    custom = blueprint.customizations
    contents = ((custom.get("installer") or {}).get("kickstart") or {}).get("contents")
    if contents and any(custom.get(key) for key in ("user", "group", "sshkey")):
        yield Finding(
            "customizations.installer.kickstart",
            "contents of a kickstart exclude users and groups of the blueprint",
            "create them in the contents: `user`, `group`, `sshkey`",
            _ALL,
        )
    if kind == "simplified" and not custom.get("installation_device"):
        yield Finding(
            "customizations.installation_device",
            "it is missing: the installer does not know which disk to use",
            'set it, such as installation_device = "/dev/vda"',
            "RHEL 8.6 on; later servers only warn",
        )
    ignition = custom.get("ignition") or {}
    if ignition.get("embedded") and ignition.get("firstboot"):
        yield Finding(
            "customizations.ignition", "embedded and firstboot exclude each other", "keep one", _ALL
        )
    fdo = custom.get("fdo")
    keys = [key for key in fdo or {} if key.startswith("diun_pub_key_")]
    if fdo and (len(keys) != 1 or not fdo.get("manufacturing_server_url")):
        yield Finding(
            "customizations.fdo",
            "it needs manufacturing_server_url and exactly one diun_pub_key_… key",
            "set both",
            "RHEL 8.6 on; that of RHEL 10 is incompatible",
        )


def _unsupported(blueprint: Blueprint, profile: Profile, kind: str) -> Iterator[Finding]:
    release = support.release(profile)
    supported = ", ".join(support.supported(release, kind))
    for part in support.requested(blueprint.customizations):
        outcome = support.verdict(release, kind, part)
        if outcome == support.TAKES:
            continue
        remedy = f"leave it out; supported are {supported}"
        if part == "kernel.append" and kind in _COMMIT_TYPES:
            remedy = "put it into the kickstart: bootloader --append=…"
        if release == "sandbox" and (why := support.reason(part.partition(".")[0])):
            remedy = f"{why}; {remedy}"
        where = f"customizations.{part}"
        yield Finding(where, _OUTCOMES.get(outcome, outcome), remedy, support.title(profile))


def _passwords(blueprint: Blueprint) -> Iterator[Finding]:
    for index, user in enumerate(_tables(blueprint, "user")):
        password = str(user.get("password") or "")
        if password and not _HASHED.fullmatch(password):
            yield Finding(
                f"customizations.user[{index}].password",
                "it is in clear text, and everyone who can read the blueprint can read it",
                "replace it with its hash: openssl passwd -6",
                _ALL,
            )


def _updates(blueprint: Blueprint, profile: Profile) -> Iterator[Finding]:
    for index, file in enumerate(_tables(blueprint, "files")):
        policy = re.search(r"^AutomaticUpdatePolicy=apply", str(file.get("data", "")), re.MULTILINE)
        if file.get("path") == "/etc/rpm-ostreed.conf" and policy and not profile.device.apply:
            yield Finding(
                f"customizations.files[{index}]",
                f"rpm-ostree of {profile.title} does not know the policy apply: nothing is updated",
                "use stage, with a timer that reboots: `rfe fleet blueprint`",
                "releases with rpm-ostree before 2023.4",
            )


def _tables(blueprint: Blueprint, key: str) -> list[Mapping[str, Any]]:
    return list(blueprint.customizations.get(key) or [])
