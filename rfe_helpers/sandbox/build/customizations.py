"""Checks the customizations of a blueprint against what an image type supports.

The values reach a chroot and command lines in it, so each must fit the grammar of what it names.
What the sandbox cannot do is refused by name, never ignored.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import zoneinfo
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from rfe_helpers.build import checks, support
from rfe_helpers.build.blueprint import Blueprint, read
from rfe_helpers.build.keys import CUSTOMIZATIONS
from rfe_helpers.errors import BlueprintError
from rfe_helpers.sandbox.build import containers, ignition, offline
from rfe_helpers.sandbox.build.image_types import KERNELS, ImageType
from rfe_helpers.sandbox.build.ostree_options import is_absolute

# What useradd accepts in RHEL and in Debian 13; shadow takes up to 32 characters.
_USER = re.compile(r"(?!\.{1,2}$)(?![0-9]+$)[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}")
_GROUP = re.compile(r"[a-z0-9][a-z0-9+.-]{0,63}")
_ZONE = re.compile(r"[A-Za-z0-9_-]{1,17}")  # firewalld's own limit
_SERVICE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PORT = re.compile(r"([0-9]{1,5}(?:-[0-9]{1,5})?|[a-z][a-z0-9-]{0,30}):(tcp|udp|sctp|dccp)")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_HASH = re.compile(r"\$(?:2[aby]|5|6|y)\$[A-Za-z0-9./$=,]{8,200}")
_COMMENT = re.compile(r"[^:\x00-\x1f\x7f]{0,200}")
_OPTION = r"[A-Za-z0-9-]+(?:=\"(?:[^\"\\\x00-\x1f\x7f]|\\.)*\")?"  # sshd(8), AUTHORIZED_KEYS
_KEY = re.compile(
    rf"(?:{_OPTION}(?:,{_OPTION})* )?"
    r"(ssh-rsa|ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|sk-ssh-ed25519@openssh\.com"
    r"|sk-ecdsa-sha2-nistp256@openssh\.com) ([A-Za-z0-9+/]+={0,2})(?: [^\x00-\x1f\x7f]*)?"
)
_PROGRAM = re.compile(r"(?:/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)+")
_HOME = re.compile(_PROGRAM.pattern + "/?")
# Made at each boot, or no place for files of a user.
_NO_HOMES = ("/boot", "/dev", "/ostree", "/proc", "/run", "/sys", "/sysroot", "/tmp")  # noqa: S108
_UNIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.\\@-]{0,254}")
_LOCALE = re.compile(r"(?:C|POSIX|[a-z]{2,3}(?:_[A-Z]{2})?)(?:\.[A-Za-z0-9-]{1,15})?(?:@[a-z]+)?")
_KEYBOARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ARGUMENTS = re.compile(r"[A-Za-z0-9 ._=:,/+@-]{1,2000}")
_DEVICE = re.compile(r"(?:/dev/)?[A-Za-z0-9][A-Za-z0-9_:+-]*(?:[./][A-Za-z0-9_:+-]+)*")
_FILESYSTEM_LABEL = re.compile(r"[A-Za-z0-9_.+-]{0,16}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TIMEZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+/-]{0,63}")
# The policies of osbuild/images for OSTree commits.
_FILE_ROOTS = ("/etc", "/root", "/usr/local/bin", "/usr/local/sbin")
_DENIED_FILES = ("/etc/fstab", "/etc/shadow", "/etc/passwd", "/etc/group")
# Files of every tree: no directories can be there.
_FILES_OF_ETC = (*_DENIED_FILES, *(f"/etc/{name}" for name in ("gshadow", "hostname", "hosts")))
# Links that systemd makes at each boot, whatever is there (tmpfiles.d/debian.conf).
_MADE_AT_BOOT = ("/etc/mtab", "/etc/default/locale", "/etc/vconsole.conf")
_TAKEN_VAR = ("home", "lock", "mnt", "opt", "roothome", "run", "srv", "tmp", "usrlocal")
_MAXIMUM_ID = 2**32 - 2
_LONGEST_LIST = 1000


def check(blueprint: Blueprint, kind: ImageType) -> None:
    """Raise BlueprintError if the blueprint requests something that the type does not support."""
    problems: list[checks.Problem] = []
    customizations = checks.checked(blueprint.customizations, problems)
    for problem in problems:
        raise BlueprintError(f"{problem.where} {problem.message}", remedy=problem.remedy)
    requested = {key: value for key, value in customizations.items() if value}
    refused = sorted((set(requested) & set(CUSTOMIZATIONS)) - set(kind.customizations))
    if refused:
        reasons = "".join(f"; {name}: {why}" for name in refused if (why := support.reason(name)))
        raise BlueprintError(
            f'unsupported blueprint customizations found for image type "{kind.name}": '
            f"{', '.join(refused)} (allowed: {', '.join(kind.customizations)}){reasons}"
        )
    _check_disks(requested, kind)
    if blueprint.enabled_modules:
        raise _refusal(kind, "enabled_modules", support.reason("enabled_modules"))
    if blueprint.containers and not kind.ostree:
        raise _refusal(kind, "containers", "podman can pull them once the guest runs")
    containers.check(blueprint.containers)
    if blueprint.containers and not kind.packages:
        raise _refusal(kind, "containers", "the commit that it deploys has them already")
    for group in blueprint.groups:
        _matches(_GROUP, group.name, "groups", "the name of a task, such as web-server")
    for name, value in requested.items():
        if name not in CUSTOMIZATIONS:
            continue  # warnings() names it
        _check_length(value, f"customizations.{name}")
        _CHECKS[name](value, f"customizations.{name}", kind)
    for problem in checks.conflicts(requested):
        raise BlueprintError(f"{problem.where} {problem.message}", remedy=problem.remedy)


def _check_disks(requested: Mapping[str, Any], kind: ImageType) -> None:
    """What osbuild/images requires of customizations of disks together, in its words."""
    if "installation_device" in kind.customizations and "installation_device" not in requested:
        raise BlueprintError(
            f'boot ISO image type "{kind.name}" requires specifying an installation device to '
            "install to",
            remedy='set customizations.installation_device = "/dev/vda", or another disk',
        )
    if {"disk", "filesystem"} <= requested.keys():
        raise BlueprintError(
            "partitioning customizations cannot be used with custom filesystems (mountpoints)"
        )


def warnings(blueprint: Blueprint, kind: ImageType) -> list[str]:
    """What a compose ignores of a blueprint, such as unknown keys, as Image Builder does."""
    _, problems = read(blueprint.to_json())
    ignored = [f"{each.where}: {each.message}, ignored" for each in problems if each.unknown]
    # In the words of osbuild/images, which refuses none of these either.
    ignored += [
        f'blueprint validation failed for image type "{kind.name}": {name}: not supported; they are'
        " ignored: the commit that it deploys has its own"
        for name in ("packages", "modules", "groups")
        if not kind.packages and getattr(blueprint, name)
    ]
    return ignored + (
        offline.warnings(blueprint.customizations) if "installer" in kind.customizations else []
    )


def kernel(blueprint: Blueprint) -> str:
    """The kernel package that a blueprint requests. "kernel", the name of the default in other
    distributions, means the first of KERNELS."""
    name = (blueprint.customizations.get("kernel") or {}).get("name") or "kernel"
    return KERNELS[0] if name == "kernel" else str(name)


def packages(blueprint: Blueprint) -> tuple[str, ...]:
    """The packages that do what a blueprint's customizations request."""
    return ("firewalld",) if blueprint.customizations.get("firewall") else ()


def group_packages(blueprint: Blueprint) -> tuple[str, ...]:
    """The packages of a blueprint's groups: Debian's groups are the tasks of tasksel."""
    return tuple(f"task-{group.name}" for group in blueprint.groups)


def _refusal(kind: ImageType, name: str, why: str) -> BlueprintError:
    return BlueprintError(f'"{name}" is not supported for image type "{kind.name}": {why}')


def _check_length(value: Any, where: str) -> None:
    """Refuse lists that are too long for a command line in the chroot."""
    if isinstance(value, list) and len(value) > _LONGEST_LIST:
        raise BlueprintError(
            f"{where} has {len(value)} entries, at most {_LONGEST_LIST} are allowed"
        )
    children = value.values() if isinstance(value, dict) else value
    for child in children if isinstance(value, dict | list) else ():
        _check_length(child, where)


def _must(fits: object, where: str, value: object, what: str) -> None:
    if not fits:
        text = ascii(value)
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise BlueprintError(f"{where}: {shown} is not {what}")


def _matches(pattern: re.Pattern[str], value: str, where: str, what: str) -> None:
    _must(pattern.fullmatch(value), where, value, what)


def _hostname(value: str, where: str, _: ImageType) -> None:
    fits = len(value) <= 64 and all(_LABEL.fullmatch(label) for label in value.split("."))
    _must(fits, where, value, "a host name")


def _kernel(value: Mapping[str, Any], where: str, kind: ImageType) -> None:
    for key in value:
        if value[key] and key not in kind.kernel:
            raise _refusal(
                kind, f"{where}.{key}", "set kernel arguments when the commit is deployed"
            )
    if append := value.get("append"):
        _matches(_ARGUMENTS, append, f"{where}.append", "kernel arguments")
    name = value.get("name") or "kernel"
    _must(name in (*KERNELS, "kernel"), f"{where}.name", name, f"one of {', '.join(KERNELS)}")


def _users(entries: list[dict[str, Any]], where: str, _: ImageType) -> None:
    for number, entry in enumerate(entries):
        here = f"{where}[{number}]"
        _matches(_USER, entry.get("name", ""), f"{here}.name", "a user name")
        for key, pattern, what in (
            ("description", _COMMENT, "a comment without : , = and control characters"),
            ("password", _HASH, "a crypted password"),
            ("home", _HOME, "an absolute path of plain characters"),
            ("shell", _PROGRAM, "an absolute path of plain characters"),
        ):
            if entry.get(key):
                _matches(pattern, entry[key], f"{here}.{key}", what)
        home = entry.get("home") or "/home"
        fits = not any(f"{home}/".startswith(f"{place}/") for place in _NO_HOMES)
        _must(fits, f"{here}.home", home, "a place for the files of a user")
        if entry.get("key"):
            _ssh_key(entry["key"], f"{here}.key")
        for group in entry.get("groups", []):
            _matches(_USER, group, f"{here}.groups", "a group name")
        for key, most in (("uid", _MAXIMUM_ID), ("gid", _MAXIMUM_ID), ("expiredate", 2**31 - 1)):
            if key in entry:
                lowest = 0 if key == "expiredate" or entry["name"] == "root" else 1
                fits = lowest <= entry[key] <= most
                _must(fits, f"{here}.{key}", entry[key], f"a number from {lowest} to {most}")
    _distinct([entry["name"] for entry in entries], where)


def _groups(entries: list[dict[str, Any]], where: str, _: ImageType) -> None:
    for number, entry in enumerate(entries):
        here = f"{where}[{number}]"
        _matches(_USER, entry.get("name", ""), f"{here}.name", "a group name")
        if "gid" in entry:
            fits = 1 <= entry["gid"] <= _MAXIMUM_ID
            _must(fits, f"{here}.gid", entry["gid"], f"a number from 1 to {_MAXIMUM_ID}")
    _distinct([entry["name"] for entry in entries], where)
    _distinct([str(entry["gid"]) for entry in entries if "gid" in entry], f"{where}.gid")


def _ssh_keys(entries: list[dict[str, Any]], where: str, _: ImageType) -> None:
    for number, entry in enumerate(entries):
        here = f"{where}[{number}]"
        _matches(_USER, entry.get("user", ""), f"{here}.user", "a user name")
        _ssh_key(entry.get("key", ""), f"{here}.key")


def _ssh_key(value: str, where: str) -> None:
    """One public key per line; its base64 begins with the type again, after its length."""
    lines = value.strip().split("\n")
    for line in lines:
        match = _KEY.fullmatch(line.strip())
        _must(match, where, line, "an SSH public key")
        assert match is not None
        try:
            blob = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            blob = b""
        kind = match[1].encode()
        fits = blob.startswith(len(kind).to_bytes(4, "big") + kind)
        _must(fits, where, line, "an SSH public key")


def _timezone(value: Mapping[str, Any], where: str, _: ImageType) -> None:
    if zone := value.get("timezone"):
        # A machine without the older names cannot know; the tree has them (customize.py).
        known = zone in timezones() or "US/Eastern" not in timezones()
        fits = _TIMEZONE.fullmatch(zone) and known
        _must(fits, f"{where}.timezone", zone, "a time zone")
    for server in value.get("ntpservers", []):
        _must(_is_host(server), f"{where}.ntpservers", server, "a host name or an address")


@cache
def timezones() -> frozenset[str]:
    """The time zones that this machine knows."""
    return frozenset(zoneinfo.available_timezones())


def _is_host(value: str) -> bool:
    try:
        return "%" not in value and bool(ipaddress.ip_address(value))
    except ValueError:
        labels = value.split(".")
        return len(value) <= 253 and all(_LABEL.fullmatch(label) for label in labels)


def _locale(value: Mapping[str, Any], where: str, _: ImageType) -> None:
    for language in value.get("languages", []):
        _matches(_LOCALE, language, f"{where}.languages", "a locale such as en_US.UTF-8")
    if keyboard := value.get("keyboard"):
        _matches(_KEYBOARD, keyboard, f"{where}.keyboard", "a keyboard layout")


def _services(value: Mapping[str, Any], where: str, _: ImageType) -> None:
    for key, units in value.items():
        for unit in units:
            _matches(_UNIT, unit, f"{where}.{key}", "the name of a systemd unit")


_NOT_IN_INSTALLER = {
    "bootloader": support.reason("bootloader"),
    "payload": "the payload is the commit of the compose request",
}


def _firewall(value: Mapping[str, Any], where: str, _: ImageType) -> None:
    for port in value.get("ports") or []:
        match = _PORT.fullmatch(port)
        _must(match, f"{where}.ports", port, 'a port and a protocol, such as "22:tcp"')
        assert match is not None
        numbers = [int(number) for number in match[1].split("-") if number.isdigit()]
        fits = numbers == sorted(numbers) and all(0 < number < 2**16 for number in numbers)
        _must(fits, f"{where}.ports", port, "a port or a range of ports from 1 to 65535")
    services = value.get("services") or {}
    for key in ("enabled", "disabled"):
        for name in services.get(key) or []:
            _matches(_SERVICE, name, f"{where}.services.{key}", "the name of a firewall service")
    for number, zone in enumerate(value.get("zones") or []):
        here = f"{where}.zones[{number}]"
        _matches(_ZONE, zone.get("name") or "", f"{here}.name", "the name of a zone")
        for source in zone.get("sources") or []:
            _must(_is_network(source), f"{here}.sources", source, "an address or a network")


def _is_network(value: str) -> bool:
    try:
        return "%" not in value and bool(ipaddress.ip_network(value, strict=False))
    except ValueError:
        return False


def _installer(value: Mapping[str, Any], where: str, kind: ImageType) -> None:
    for key, why in _NOT_IN_INSTALLER.items():
        if value.get(key):
            raise _refusal(kind, f"{where}.{key}", why)
    timeout = value.get("menu-timeout", 0)
    _must(-1 <= timeout <= 3600, f"{where}.menu-timeout", timeout, "a number from -1 to 3600")
    for name in value.get("sudo-nopasswd", []):
        _matches(_USER, name.removeprefix("%"), f"{where}.sudo-nopasswd", "a user or %group")
    contents = (value.get("kickstart") or {}).get("contents", "")
    _must("\0" not in contents, f"{where}.kickstart.contents", contents, "text")


def _directories(entries: list[dict[str, Any]], where: str, _: ImageType) -> None:
    for number, entry in enumerate(entries):
        here = f"{where}[{number}].path"
        _place(entry["path"], here, ("/etc",))
        _must(entry["path"] not in _FILES_OF_ETC, here, entry["path"], "a directory")
    _distinct([entry["path"] for entry in entries], where)


def _files(entries: list[dict[str, Any]], where: str, kind: ImageType) -> None:
    for number, entry in enumerate(entries):
        here, path = f"{where}[{number}]", entry["path"]
        _place(path, f"{here}.path", _FILE_ROOTS)
        _must(path not in _DENIED_FILES, f"{here}.path", path, "allowed")
        if path in _MADE_AT_BOOT:
            raise _refusal(kind, f"{here}.path", f"systemd makes {path} a link at each boot")
        uri = entry.get("uri") or ""
        if uri.startswith("file:"):
            raise _refusal(kind, f"{here}.uri", "the service reads no files of its machine")
        _must(not uri or is_absolute(uri), f"{here}.uri", uri, "an http or https URL")
    _distinct([entry["path"] for entry in entries], where)


def _place(path: str, where: str, roots: tuple[str, ...]) -> None:
    """Check a path, which must be below one of `roots`, and short enough for a file system."""
    short = len(path.encode()) < 4096 and all(len(p.encode()) < 256 for p in path.split("/"))
    _must(short and not _CONTROL.search(path), where, path, "a path without control characters")
    fits = any(path.startswith(root + "/") for root in roots)
    _must(fits, where, path, f"below {', '.join(roots)}")


def _filesystems(entries: list[dict[str, Any]], where: str, _: ImageType) -> None:
    """File systems of a disk: those that RHEL allows in OSTree images (osbuild/images,
    OstreeMountpointPolicies), as far as the commit has a directory there."""
    for number, entry in enumerate(entries):
        here, path = f"{where}[{number}].mountpoint", entry.get("mountpoint") or ""
        _must(isinstance(path, str), here, path, "/, /boot, /var or below it")
        below_var = path.startswith("/var/") and _PROGRAM.fullmatch(path)
        fits = below_var or path in ("/", "/boot", "/var")
        _must(fits, here, path, "/, /boot, /var or below it: a commit has no other mount points")
        fits = not any(f"{path}/".startswith(f"/var/{name}/") for name in _TAKEN_VAR)
        _must(fits, here, path, "allowed: the system has a link to it, or mounts it itself")
    _distinct([entry["mountpoint"] for entry in entries], where)


def _disk(value: Mapping[str, Any], where: str, kind: ImageType) -> None:
    """A disk of plain partitions, whose shape checks.py has checked."""
    fits = value.get("type") in (None, "", "gpt")
    _must(fits, f"{where}.type", value.get("type"), "GPT, which the sandbox boots BIOS and UEFI by")
    for key in ("start_offset", "sector_size"):
        if value.get(key):
            raise _refusal(kind, f"{where}.{key}", support.reason("disk"))
    partitions = value.get("partitions") or []
    for number, entry in enumerate(partitions):
        here = f"{where}.partitions[{number}]"
        if why := _VOLUMES.get(entry.get("type") or "plain"):
            raise _refusal(kind, f"{here}.type", why)
        for key in ("part_label", "part_type", "part_uuid"):
            if entry.get(key):
                raise _refusal(kind, f"{here}.{key}", support.reason("disk"))
        system, label = entry.get("fs_type") or "ext4", entry.get("label") or ""
        what = "ext4, which alone is written into an image at an offset"
        _must(system == "ext4", f"{here}.fs_type", system, what)
        plain = isinstance(label, str) and _FILESYSTEM_LABEL.fullmatch(label)
        _must(plain, f"{here}.label", label, "a label of at most 16 plain characters")
    _filesystems(partitions, f"{where}.partitions", kind)


def _installation_device(value: str, where: str, _: ImageType) -> None:
    _matches(_DEVICE, value, where, "a disk such as /dev/vda or /dev/disk/by-id/...")


def _ignition(value: Mapping[str, Any], where: str, _: ImageType) -> None:
    key, reason = ignition.problem(value)
    if reason:
        raise BlueprintError(f"{where}{'.' if key else ''}{key}: {reason}")


def _partitioning_mode(value: str, where: str, kind: ImageType) -> None:
    known = ("auto-lvm", "btrfs", "lvm", "raw")
    _must(value in known, where, value, f"one of {', '.join(known)}")
    if value in ("btrfs", "lvm"):
        raise _refusal(kind, where, "the sandbox makes plain partitions only")


def _distinct(names: list[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        _must(name not in seen, where, name, "unique")
        seen.add(name)


_VOLUMES = {
    "btrfs": "the sandbox's trees do not have the tools of btrfs",
    "lvm": "LVM needs the device-mapper of a kernel, which a build without root does not have",
}
_CHECKS: dict[str, Callable[[Any, str, ImageType], None]] = {
    "directories": _directories,
    "disk": _disk,
    "files": _files,
    "filesystem": _filesystems,
    "firewall": _firewall,
    "group": _groups,
    "hostname": _hostname,
    "ignition": _ignition,
    "installation_device": _installation_device,
    "installer": _installer,
    "kernel": _kernel,
    "locale": _locale,
    "partitioning_mode": _partitioning_mode,
    "services": _services,
    "sshkey": _ssh_keys,
    "timezone": _timezone,
    "user": _users,
}
