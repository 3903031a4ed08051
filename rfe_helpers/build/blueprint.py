"""Blueprints: descriptions of what Image Builder should build, from and to TOML and JSON; pure.

The shape is that of osbuild's blueprints in its API: `name` is required; `version` is full semver
("0.0.0" if not given); `packages` and `modules` are {name, version} with globs allowed in both;
`customizations` is a dictionary in the API's own shape. As in the servers, keys are matched
case-insensitively, unknown keys are ignored and null means "not set"; a value of the wrong type
raises BlueprintError.

Whether an image type supports a customization is not decided here: the server checks that when a
compose starts.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from rfe_helpers.errors import BlueprintError

NAME = re.compile(r"[a-zA-Z0-9._-]+")
DEFAULT_VERSION = "0.0.0"
_NUMBER = r"(?:0|[1-9][0-9]{0,17})"  # of 64 bits
_DEEPEST, _LARGEST = 64, 2**63
_SEMVER = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)

# The keys of a table and their types: a Python type, a tuple for a union, {…} for a table, [x] for
# a list of x, ANY for a value that is passed on unchanged.
ANY = object()
_NAMED = {"name": str}
_FIREWALL = {
    "ports": [str],
    "services": {"enabled": [str], "disabled": [str]},
    "zones": [{"name": str, "sources": [str]}],
}
_USER = {
    **dict.fromkeys(("name", "description", "password", "key", "home", "shell"), str),
    "groups": [str],
    **dict.fromkeys(("uid", "gid", "expiredate"), int),
    "force_password_reset": bool,
}
_OWNED = {"path": str, "user": (str, int), "group": (str, int), "mode": (str, int)}
_FDO = (
    "manufacturing_server_url",
    "diun_pub_key_insecure",
    "diun_pub_key_hash",
    "diun_pub_key_root_certs",
    "di_mfg_string_type_mac_iface",
)
CUSTOMIZATIONS: dict[str, Any] = {
    "hostname": str,
    "kernel": {"name": str, "append": str},
    "sshkey": [{"user": str, "key": str}],
    "user": [_USER],
    "group": [{"name": str, "gid": int}],
    "timezone": {"timezone": str, "ntpservers": [str]},
    "locale": {"languages": [str], "keyboard": str},
    "firewall": _FIREWALL,
    "services": {"enabled": [str], "disabled": [str], "masked": [str]},
    "filesystem": [{"mountpoint": str, "minsize": (int, str), "size": (int, str)}],
    "disk": ANY,
    "installation_device": str,
    "partitioning_mode": str,
    "fdo": dict.fromkeys(_FDO, str),
    "openscap": ANY,
    "ignition": {"embedded": {"config": str}, "firstboot": {"url": str}},
    "directories": [{**_OWNED, "ensure_parents": bool}],
    "files": [{**_OWNED, "data": str, "uri": str}],
    "repositories": [ANY],
    "fips": bool,
    "installer": {
        "unattended": bool,
        "sudo-nopasswd": [str],
        "kickstart": {"contents": str},
        "modules": {"enable": [str], "disable": [str]},
    },
    **dict.fromkeys(("rpm", "rhsm", "containers-storage", "dnf", "iso", "sshd"), ANY),
    "cacerts": {"pem_certs": [str]},
}
_SPECS = [{"name": str, "version": str}]
_BLUEPRINT: dict[str, Any] = {
    **dict.fromkeys(("name", "description", "version", "distro", "architecture"), str),
    "packages": _SPECS,
    "modules": _SPECS,
    "enabled_modules": [{"name": str, "stream": str}],
    "groups": [_NAMED],
    "containers": [{"source": str, "name": str, "tls-verify": bool, "local-storage": bool}],
    "customizations": CUSTOMIZATIONS,
}


@dataclass(frozen=True)
class PackageSpec:
    """A requested package. Both fields may be globs; "" and "*" mean any version."""

    name: str
    version: str = ""

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, **({"version": self.version} if self.version else {})}


@dataclass(frozen=True)
class Blueprint:
    """A description of what to build.

        blueprint = Blueprint("edge", packages=["tmux", PackageSpec("podman", "5.*")])
        print(to_toml(blueprint))

    `packages` and `modules` take names, too. `customizations` and `containers` have the shape of
    the API's JSON.
    """

    name: str
    description: str = ""
    version: str = DEFAULT_VERSION
    packages: tuple[PackageSpec, ...] = ()
    modules: tuple[PackageSpec, ...] = ()
    groups: tuple[str, ...] = ()
    containers: tuple[Mapping[str, Any], ...] = ()
    enabled_modules: tuple[Mapping[str, str], ...] = ()
    distro: str = ""
    architecture: str = ""
    customizations: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("packages", "modules"):
            specs = (PackageSpec(p) if isinstance(p, str) else p for p in getattr(self, key))
            object.__setattr__(self, key, tuple(specs))

    def to_json(self) -> dict[str, Any]:
        return to_json(self)


def parse_toml(text: str | bytes) -> Blueprint:
    """A blueprint from TOML (bytes are UTF-8). Raises BlueprintError."""
    try:
        data = tomllib.loads(text if isinstance(text, str) else text.decode())
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise BlueprintError(f"this is not TOML: {error}") from None
    except RecursionError:
        raise BlueprintError("this is not TOML: nested too deeply") from None
    return parse_json(data)


def parse_json(data: Any) -> Blueprint:
    """A blueprint from the decoded JSON of the API. Raises BlueprintError."""
    if not isinstance(data, Mapping):
        raise BlueprintError("a blueprint is a table with at least a name")
    _check_size(data)
    values = _table(data, _BLUEPRINT, "")
    version = values.get("version") or DEFAULT_VERSION
    if not _SEMVER.fullmatch(version):
        raise BlueprintError(
            f"Invalid 'version', must use Semantic Versioning: {version} is not X.Y.Z",
            remedy="use three numbers, such as 0.0.1",
        )
    return Blueprint(
        name=values.get("name", ""),
        description=values.get("description", ""),
        version=version,
        packages=_specs(values.get("packages", [])),
        modules=_specs(values.get("modules", [])),
        groups=tuple(entry.get("name", "") for entry in values.get("groups", [])),
        containers=tuple(values.get("containers", [])),
        enabled_modules=tuple(values.get("enabled_modules", [])),
        distro=values.get("distro", ""),
        architecture=values.get("architecture", ""),
        customizations=values.get("customizations", {}),
    )


def _check_size(value: Any, depth: int = 0) -> None:
    """Refuse values that other readers of TOML and JSON do not accept."""
    if depth > _DEEPEST:
        raise BlueprintError("the blueprint is nested too deeply")
    if isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            _check_size(inner, depth + 1)
    elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise BlueprintError("the blueprint has a number of more than 64 bits")


def to_json(blueprint: Blueprint) -> dict[str, Any]:
    """The JSON of the API's answers: four lists always, everything else if it is set."""
    optional = {
        "name": blueprint.name,
        "description": blueprint.description,
        "version": blueprint.version,
        "containers": [dict(entry) for entry in blueprint.containers],
        "customizations": dict(blueprint.customizations),
        "distro": blueprint.distro,
        "architecture": blueprint.architecture,
    }
    return {
        **{key: value for key, value in optional.items() if value},
        "packages": [spec.to_json() for spec in blueprint.packages],
        "modules": [spec.to_json() for spec in blueprint.modules],
        "enabled_modules": [dict(entry) for entry in blueprint.enabled_modules],
        "groups": [{"name": name} for name in blueprint.groups],
    }


def to_toml(blueprint: Blueprint) -> str:
    """The blueprint as TOML; `parse_toml` makes the same blueprint of it.

    Raises BlueprintError for a value that TOML cannot hold.
    """
    try:
        return tomlkit.dumps(to_json(blueprint))
    except (TOMLKitError, ValueError) as error:
        raise BlueprintError(f"this blueprint cannot be written as TOML: {error}") from None


def bumped(version: str) -> str:
    """The version with its patch number raised by one: "1.2.3" gives "1.2.4"."""
    match = _SEMVER.fullmatch(version)
    if match is None:
        raise BlueprintError(f"{version!r} is not a version of the form X.Y.Z")
    major, minor, patch = (int(number) for number in match.groups())
    return f"{major}.{minor}.{patch + 1}"


def _specs(entries: list[dict[str, str]]) -> tuple[PackageSpec, ...]:
    for number, entry in enumerate(entries, 1):
        if not entry.get("name"):
            version = entry.get("version")
            what = f"version '{version}' but no name" if version else "no name"
            raise BlueprintError(
                "All package entries need to contain the name of the package. "
                f"Entry #{number} has {what}."
            )
    return tuple(PackageSpec(entry["name"], entry.get("version", "")) for entry in entries)


def _table(data: Mapping[str, Any], keys: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The known keys of a table as the API spells them, with checked values; null is left out."""
    spelling = {key.lower(): key for key in keys}
    table: dict[str, Any] = {}
    for name, value in data.items():
        key = spelling.get(name.lower())
        if key is not None and value is not None:
            table[key] = _value(value, keys[key], f"{where}.{key}" if where else key)
    return table


def _value(value: Any, expected: Any, where: str) -> Any:
    if expected is ANY:
        return _plain(value, where)
    if isinstance(expected, dict):
        if not isinstance(value, Mapping):
            raise BlueprintError(f"{where} must be a table")
        return _table(value, expected, where)
    if isinstance(expected, list):
        if not isinstance(value, list):
            raise BlueprintError(f"{where} must be a list")
        return [
            _value(entry, expected[0], f"{where}[{number}]")
            for number, entry in enumerate(value)
            if entry is not None
        ]
    kinds = expected if isinstance(expected, tuple) else (expected,)
    # A bool is an int in Python, but not in the API.
    if type(value) not in kinds:
        names = " or ".join(_KIND_NAMES[kind] for kind in kinds)
        raise BlueprintError(f"{where} must be {names}, not {type(value).__name__}")
    return value


_KIND_NAMES = {str: "a string", int: "an integer", bool: "true or false"}


def _plain(value: Any, where: str) -> Any:
    """A value that is passed on must at least be JSON, which a TOML date or an infinity is not."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        raise BlueprintError(f"{where} has a value that JSON cannot hold") from None
