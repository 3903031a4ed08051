"""The other parts of a blueprint in image mode: packages, files, services, kernel arguments,
locale, time, firewall.

Whatever becomes a word of a command fits a grammar of plain characters; what does not fit is left
out with a remark. Free text reaches the image in files only.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rfe_helpers.build.blueprint import PackageSpec
from rfe_helpers.core import toml
from rfe_helpers.imagemode.context import Draft, portions, quoted

KARGS = "/usr/lib/bootc/kargs.d/10-blueprint.toml"
_PACKAGE = re.compile(r"[A-Za-z0-9*?\[][A-Za-z0-9.+_:*?\[\]-]{0,199}")
_VERSION = re.compile(r"[A-Za-z0-9*?\[][A-Za-z0-9.+:~^_*?\[\]-]{0,199}")
_GLOB = re.compile(r"[*?\[\]]")
_UNIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.\\@-]{0,254}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PORT = re.compile(r"([0-9]{1,5}(?:-[0-9]{1,5})?|[a-z][a-z0-9-]{0,30}):(tcp|udp|sctp|dccp)")
_NETWORK = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:/[0-9]{1,3})?")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")
_ZONE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(?:/[A-Za-z0-9][A-Za-z0-9_+-]*){0,3}")
_LOCALE = re.compile(r"[A-Za-z]{1,8}(?:_[A-Z]{2})?(?:\.[A-Za-z0-9-]{1,15})?(?:@[a-z]+)?")
_HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
_ARGUMENT = re.compile(r'(?:[^\s"]|"[^"]*")+')
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_OWNER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}")
_MODE = re.compile(r"0?[0-7]{3}")
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_.+@:-]+)+")
_DEFAULT_KERNELS = ("", "kernel", "linux-image-amd64", "linux-image-arm64")


def packages(draft: Draft, specs: Iterable[PackageSpec], key: str) -> None:
    """Packages with their versions, as the packager writes these."""
    for number, spec in enumerate(specs):
        where = f"{key}[{number}]"
        version = "" if spec.version == "*" else spec.version
        if not _PACKAGE.fullmatch(spec.name) or (version and not _VERSION.fullmatch(version)):
            draft.remark(where, f"{ascii(spec.name)[:80]} is not a package", "name one")
        elif draft.packager == "apt" and _GLOB.search(spec.name):
            draft.remark(where, f"apt-get does not take the pattern {spec.name}", "name packages")
        elif version:
            sign = "=" if draft.packager == "apt" else "-"
            draft.install(f"{spec.name}{sign}{version}")
        else:
            draft.install(spec.name)


def groups(draft: Draft, specs: Iterable[PackageSpec]) -> None:
    """Groups of DNF; those of Debian are the tasks of tasksel."""
    for number, spec in enumerate(specs):
        if _PACKAGE.fullmatch(spec.name) and not _GLOB.search(spec.name):
            draft.install(f"task-{spec.name}" if draft.packager == "apt" else f"@{spec.name}")
        else:
            draft.remark(f"groups[{number}]", "it is not the name of a group", "name one")


def enabled_modules(draft: Draft, entries: Iterable[Mapping[str, Any]]) -> None:
    for number, entry in enumerate(entries):
        key = f"enabled_modules[{number}]"
        name, stream = str(entry.get("name") or ""), str(entry.get("stream") or "")
        if draft.packager == "apt":
            draft.remark(key, "modules are a part of DNF", "leave it out")
        elif _WORD.fullmatch(name) and _WORD.fullmatch(stream):
            draft.before.append(f"dnf --assumeyes module enable {name}:{stream}")
        else:
            draft.remark(key, "it is not a module with a stream", "set name and stream")


def files(draft: Draft, entries: Iterable[Mapping[str, Any]]) -> None:
    for number, entry in enumerate(entries):
        key, path = f"customizations.files[{number}]", str(entry.get("path") or "")
        if entry.get("uri"):
            draft.remark(
                key, "its content is elsewhere", f"fetch it, or write ADD {shlex.quote(path)}"
            )
            continue
        mode = _mode(draft, key, entry, 0o644)
        if draft.put(path, str(entry.get("data") or ""), key, mode):
            _own(draft, key, entry, mode)


def _own(draft: Draft, key: str, entry: Mapping[str, Any], mode: int) -> None:
    """The line of tmpfiles.d for a file: it copies what belongs below /var, and sets owner and mode
    at boot, when the accounts of the blueprint exist."""
    path = draft.real(str(entry["path"]))
    user, group = _owners(draft, key, entry)
    if path.startswith("/var/"):
        draft.tmpfiles.append(f"C {quoted(path)} {mode:04o} {user} {group} -")
        draft.remark(
            key,
            f"it becomes {path!r}, which belongs to the machine: a later image does not change it",
            "put below /etc or /usr what is to change with the image",
        )
    elif path.startswith("/etc/"):
        if mode not in (0o644, 0o755) or (user, group) != ("root", "root"):
            draft.tmpfiles.append(f"z {quoted(path, pattern=True)} {mode:04o} {user} {group} -")
    elif (user, group) != ("root", "root"):
        draft.remark(key, "files of an image belong to root outside of /etc and /var", "move it")


def directories(draft: Draft, entries: Iterable[Mapping[str, Any]]) -> None:
    commands = []
    for number, entry in enumerate(entries):
        key, path = f"customizations.directories[{number}]", str(entry.get("path") or "")
        mode, (user, group) = _mode(draft, key, entry, 0o755), _owners(draft, key, entry)
        why = draft.refusal(path) or ("there is a file" if draft.is_file(path) else "")
        if why:
            draft.remark(key, f"{path!r} is left out: {why}", "choose another path")
            continue
        real = draft.real(path)
        if real.startswith(("/etc/", "/var/")):
            draft.tmpfiles.append(f"d {quoted(real)} {mode:04o} {user} {group} -")
        elif _PLAIN_PATH.fullmatch(real) and (user, group) == ("root", "root"):
            commands.append(f"install --directory --mode={mode:04o} {real}")
        else:
            draft.remark(key, "an image cannot bring it there as it is", "move it below /etc")
    draft.commands += commands


def _mode(draft: Draft, key: str, entry: Mapping[str, Any], default: int) -> int:
    text = entry.get("mode")
    if not text:
        return default
    if isinstance(text, str) and _MODE.fullmatch(text):
        return int(text, 8)
    draft.remark(f"{key}.mode", f"{ascii(text)[:80]} is not an octal mode", f"use {default:04o}")
    return default


def _owners(draft: Draft, key: str, entry: Mapping[str, Any]) -> tuple[str, str]:
    names = []
    for what in ("user", "group"):
        owner = entry.get(what)
        name = "root" if owner in (None, "", 0) else str(owner)
        if not _OWNER.fullmatch(name):
            draft.remark(f"{key}.{what}", f"{ascii(name)[:80]} is not an owner", "use a name")
            name = "root"
        names.append(name)
    return names[0], names[1]


def services(draft: Draft, table: Mapping[str, Any]) -> None:
    for verb, name in (("enable", "enabled"), ("disable", "disabled"), ("mask", "masked")):
        units = _fitting(draft, f"customizations.services.{name}", table.get(name), _UNIT, "a unit")
        for portion in portions(map(shlex.quote, units)):
            draft.commands.append(f"systemctl {verb} {' '.join(portion)}")


def kernel(draft: Draft, table: Mapping[str, Any]) -> None:
    append = str(table.get("append") or "").strip()
    if append.count('"') % 2 or _CONTROL.search(append):
        draft.remark("customizations.kernel.append", "a quote in it does not end", "correct it")
    elif append:
        draft.put(KARGS, toml.dumps({"kargs": _ARGUMENT.findall(append)}), "customizations.kernel")
    if str(table.get("name") or "") not in _DEFAULT_KERNELS:
        draft.remark(
            "customizations.kernel.name",
            "the base image has a kernel, and there must be exactly one in /usr/lib/modules",
            "replace it in the Containerfile: remove the packages of the kernel, install the other",
        )


def hostname(draft: Draft, name: str) -> None:
    if not _HOSTNAME.fullmatch(name):
        draft.remark("customizations.hostname", f"{ascii(name)[:80]} is not a host name", "fix it")
    elif draft.put("/etc/hostname", f"{name}\n", "customizations.hostname"):
        draft.remark(
            "customizations.hostname",
            "every machine of the image has this name, as with the blueprint",
            "leave it out and name machines in the kickstart (`network --hostname`) or by DHCP",
        )


def timezone(draft: Draft, table: Mapping[str, Any]) -> None:
    key = "customizations.timezone"
    if zone := str(table.get("timezone") or ""):
        if _ZONE_NAME.fullmatch(zone):
            draft.commands.append(
                f"ln --symbolic --force ../usr/share/zoneinfo/{zone} /etc/localtime"
            )
            if draft.packager == "apt":
                draft.put("/etc/timezone", f"{zone}\n", key)
        else:
            draft.remark(key, f"{ascii(zone)[:80]} is not a time zone", "use one of timedatectl")
    servers = _fitting(draft, f"{key}.ntpservers", table.get("ntpservers"), _HOST, "a host")
    if servers and draft.packager == "apt":
        text = f"[Time]\nNTP={' '.join(servers)}\n"
        draft.put("/etc/systemd/timesyncd.conf.d/50-blueprint.conf", text, key)
    elif servers:
        lines = " ".join(f"'server {server} iburst'" for server in servers)
        draft.commands.append(f"printf '%s\\n' {lines} >> /etc/chrony.conf")


def locale(draft: Draft, table: Mapping[str, Any]) -> None:
    key = "customizations.locale"
    languages = _fitting(draft, f"{key}.languages", table.get("languages"), _LOCALE, "a locale")
    if languages:
        draft.put("/etc/locale.conf", f"LANG={languages[0]}\n", key)
    if draft.packager == "dnf":
        names = [re.split(r"[_.@]", language)[0] for language in languages]
        plain = ("C", "POSIX")
        draft.install(*(f"glibc-langpack-{name}" for name in names if name not in plain))
    if keyboard := str(table.get("keyboard") or ""):
        if _WORD.fullmatch(keyboard):
            draft.put("/etc/vconsole.conf", f"KEYMAP={keyboard}\n", key)
        else:
            draft.remark(f"{key}.keyboard", "it is not a keyboard layout", "use one of localectl")


def firewall(draft: Draft, table: Mapping[str, Any]) -> None:
    key = "customizations.firewall"
    listed = table.get("services") or {}
    ports = _fitting(draft, f"{key}.ports", table.get("ports"), _PORT, "a port and a protocol")
    options = [f"--add-port={port.replace(':', '/')}" for port in ports]
    for name, option in (("enabled", "--add-service"), ("disabled", "--remove-service")):
        names = _fitting(draft, f"{key}.services.{name}", listed.get(name), _WORD, "a service")
        options += [f"{option}={each}" for each in names]
    commands = [f"firewall-offline-cmd {' '.join(portion)}" for portion in portions(options)]
    for number, zone in enumerate(table.get("zones") or []):
        name = str(zone.get("name") or "")
        if not _WORD.fullmatch(name):
            draft.remark(f"{key}.zones[{number}]", "it is not the name of a zone", "name it")
            continue
        commands.append(
            f"firewall-offline-cmd --info-zone={name} || firewall-offline-cmd --new-zone={name}"
        )
        where = f"{key}.zones[{number}].sources"
        sources = _fitting(draft, where, zone.get("sources"), _NETWORK, "an address or network")
        commands += [f"firewall-offline-cmd --zone={name} --add-source={each}" for each in sources]
    if commands:
        draft.install("firewalld")
        draft.commands += [*commands, "systemctl enable firewalld.service"]


def cacerts(draft: Draft, table: Mapping[str, Any]) -> None:
    """Certificates of authorities; Debian's update-ca-certificates reads /usr/local, which is in
    /var in the sandbox."""
    certificates = table.get("pem_certs") or []
    if draft.packager == "apt" and certificates:
        draft.remark(
            "customizations.cacerts",
            "/usr/local/share/ca-certificates is below /var here, which belongs to the machine",
            "run update-ca-certificates on the machine",
        )
        return
    for number, text in enumerate(certificates, 1):
        path = f"/etc/pki/ca-trust/source/anchors/blueprint-{number}.pem"
        draft.put(path, f"{text.strip()}\n", "customizations.cacerts")
    if certificates:
        draft.commands.append("update-ca-trust")


def _fitting(
    draft: Draft, key: str, values: Sequence[Any] | None, grammar: re.Pattern[str], what: str
) -> list[str]:
    """The values that fit a grammar; a remark for each other one."""
    fitting = []
    for value in values or []:
        if grammar.fullmatch(str(value)):
            fitting.append(str(value))
        else:
            draft.remark(key, f"{ascii(value)[:80]} is not {what}", "correct it")
    return fitting
