"""Additional package sources: the API's entries, as Debian repositories.

The keys of the API keep their names; for a Debian repository they mean:

    url      as in apt's one-line form without the type: "URI", then a suite and components
             ("http://host/debian trixie main"). A URI alone is a flat repository.
    type     yum-baseurl: the URI is the repository; yum-mirrorlist: it is a list of mirrors
             (apt's mirror+URI); yum-metalink is not supported
    gpgkeys  ASCII-armoured public keys that sign it (apt's Signed-By), or http, https or file URLs
             of such, fetched with the index; without any, Debian's own
    check_gpg  false: the repository is trusted without a signature
    check_ssl  is stored, but certificates are always checked

What apt cannot do for a single source (proxy, rhsm, module_hotfixes) is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from rfe_helpers.sandbox.build import keys
from rfe_helpers.sandbox.build.image_types import DISTRO
from rfe_helpers.sandbox.service.packages import KEYRING

_SUITE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9._/+~-]*")
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")
_ID = re.compile(r"[^,]{1,250}")  # clients name sources in lists, in the path of a request
_URI = re.compile(r"[!-~]+")
_METHODS = {"yum-baseurl": "", "yum-mirrorlist": "mirror+"}
_UNSUPPORTED = ("proxy", "rhsm", "module_hotfixes")


class MissingKeyError(ValueError):
    """A required key is missing."""

    def __init__(self, key: str) -> None:
        super().__init__(f"'{key}' field is missing from request")


class DistributionsError(ValueError):
    """The source is for distributions that the sandbox does not have."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"Invalid distributions: {','.join(names)}")


def parse(data: Mapping[str, Any], version: int) -> dict[str, Any]:
    """A source as version 1 of the API shows it. Raises ValueError with the reason."""
    required = ("id", "name", "type", "url")
    for key in required if version == 1 else required[1:]:
        if not data.get(key):
            raise MissingKeyError(key)
        _must_be(data, key, str)
    for key in ("id", "name") if version == 1 else ("name",):
        if not _ID.fullmatch(data[key]) or not data[key].isprintable():
            raise ValueError(
                f"'{key}' must be printable, without commas, of at most 250 characters"
            )
    for key in _UNSUPPORTED:
        if data.get(key):
            raise ValueError(f"'{key}' is not supported by the sandbox")
    for key in ("check_gpg", "check_ssl", "check_repogpg"):
        _must_be(data, key, bool)
    source = {
        "id": data["id"] if version == 1 else data["name"],
        "name": data["name"],
        "type": data["type"],
        "url": data["url"],
        "check_gpg": data.get("check_gpg", False),
        "check_ssl": data.get("check_ssl", False),
        "system": False,
        "rhsm": False,
        "check_repogpg": data.get("check_repogpg", False),
    }
    for key in ("gpgkeys", "distros") if version == 1 else ():
        if data.get(key):
            source[key] = _texts(data, key)
    unknown = [name for name in source.get("distros", []) if name != DISTRO]
    if unknown:
        raise DistributionsError(unknown)
    deb822(source)
    return source


def deb822(source: Mapping[str, Any]) -> str:
    """The source in apt's deb822 form, for keys.with_keys(). Raises ValueError if apt could not use
    it."""
    if source["type"] not in _METHODS:
        raise ValueError(f"sources of type {source['type']!a} are not supported")
    uri, *rest = source["url"].split(" ")
    if not _is_uri(uri):
        raise ValueError(f"{source['url']!a} is not the URL of a Debian repository")
    suite, components = (rest[0], rest[1:]) if rest else ("./", [])
    if not _SUITE.fullmatch(suite) or not all(_COMPONENT.fullmatch(c) for c in components):
        raise ValueError(f"{source['url']!a} does not end with a suite and components")
    if bool(components) == suite.endswith("/"):
        raise ValueError(f"{source['url']!a} needs components, or a suite that ends with /")
    lines = ["Types: deb", f"URIs: {_METHODS[source['type']]}{uri}", f"Suites: {suite}"]
    lines += [f"Components: {' '.join(components)}"] if components else []
    signers = source.get("gpgkeys", [])
    for key in signers:
        armoured = keys.ARMOR.fullmatch(key.replace("\r\n", "\n").lstrip())
        if not armoured and not keys.is_url(key):
            raise ValueError(
                "'gpgkeys' must be ASCII-armoured public keys, or http, https or file URLs of them"
            )
    if not source["check_gpg"]:
        lines.append("Trusted: yes")
    elif signers:
        lines += ["Signed-By:", *map(keys.indented, signers)]
    else:
        lines.append(f"Signed-By: {KEYRING}")
    return "\n".join(lines) + "\n"


def for_version(source: Mapping[str, Any], version: int) -> dict[str, Any]:
    """The source as a version of the API shows it: version 0 knows fewer keys."""
    hidden = ("id", "rhsm", "check_repogpg", "distros", "gpgkeys") if version == 0 else ()
    return {key: value for key, value in source.items() if key not in hidden}


def system(one_line: str) -> list[dict[str, Any]]:
    """The system's sources (apt's one-line form) as the API shows them: the distribution with
    its updates, and the security updates."""
    by_name: dict[str, dict[str, Any]] = {}
    for line in one_line.splitlines():
        words = re.sub(r"\[.*?\]", "", line).split()
        if len(words) < 3 or words[0] != "deb":
            continue
        suite = words[2].rstrip("/").rpartition("-")[2]
        name = f"{DISTRO}-security" if suite == "security" else DISTRO
        source = {"id": name, "name": name, "type": "yum-baseurl", "url": words[1]}
        flags = {"check_gpg": True, "check_ssl": True, "system": True}
        by_name.setdefault(name, {**source, **flags, "rhsm": False, "check_repogpg": False})
    return list(by_name.values())


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(_URI.fullmatch(text) and parts.scheme in ("http", "https") and parts.hostname)
    except ValueError:
        return False


def _must_be(data: Mapping[str, Any], key: str, kind: type) -> None:
    if key in data and not isinstance(data[key], kind):
        raise ValueError(f"'{key}' must be {kind.__name__}")


def _texts(data: Mapping[str, Any], key: str) -> list[str]:
    value = data[key]
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError(f"'{key}' must be a list of texts")
    return value
