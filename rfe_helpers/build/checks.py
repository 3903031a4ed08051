"""What Image Builder refuses when a blueprint is pushed, beyond its shape; pure.

The rules are those of osbuild/blueprint (pkg/blueprint, fsnode_, filesystem_ and
disk_customizations.go, 2026-06), which checks them while it reads TOML or JSON.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_MODE = re.compile(r"0?[0-7]{3}")
_OWNER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}")
_SIZE = re.compile(r"\s*([0-9]{1,18})\s*([A-Za-z]*)\s*")
# fmt: off
_UNITS = {
    "": 1, "B": 1, "kB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9,
    "GiB": 2**30, "TB": 10**12, "TiB": 2**40,
}
_PARTITION = {"type", "minsize", "part_type", "part_label", "part_uuid"}
_FILESYSTEM = {"mountpoint", "label", "fs_type"}
# fmt: on
_PARTITIONS = {
    "plain": _PARTITION | _FILESYSTEM,
    "lvm": _PARTITION | {"name", "logical_volumes"},
    "btrfs": _PARTITION | {"subvolumes"},
}
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Problem:
    """Something in a document that does not have the shape of a blueprint.

    `where` is the place, such as packages[0].name. Servers ignore an `unknown` key and refuse
    everything else; `refusal` is what they say, if it is not `where` and `message`.
    """

    where: str
    message: str
    remedy: str = ""
    unknown: bool = False
    refusal: str = ""


def checked(customizations: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """The customizations with all sizes in bytes, under `minsize`; adds what is refused to
    `problems`. They have the shape of keys.CUSTOMIZATIONS."""
    result = dict(customizations)
    for key in ("directories", "files"):
        for number, entry in enumerate(result.get(key, [])):
            _node(entry, f"customizations.{key}[{number}]", problems)
    if "filesystem" in result:
        result["filesystem"] = [
            _filesystem(entry, f"customizations.filesystem[{number}]", problems)
            for number, entry in enumerate(result["filesystem"])
        ]
    if "disk" in result:
        result["disk"] = _disk(result["disk"], problems)
    return result


def conflicts(customizations: Mapping[str, Any]) -> Iterator[Problem]:
    """What Image Builder refuses when a compose starts: a file at the path of another file or of a
    directory, or as the parent of one (osbuild/images, ValidateDirFileCustomizations)."""
    files = [entry.get("path", "") for entry in customizations.get("files") or []]
    directories = [entry.get("path", "") for entry in customizations.get("directories") or []]
    for number, path in enumerate(files):
        where = f"customizations.files[{number}].path"
        if path in files[:number]:
            yield Problem(where, f"{_shown(path)} is there twice", "remove one")
        if path in directories:
            yield Problem(where, f"{_shown(path)} is a directory as well", "remove one")
        for other in (*files, *directories):
            if other.startswith(f"{path}/"):
                text = f"{_shown(path)} is a file, but the parent of {_shown(other)}"
                yield Problem(where, text, "choose another path")


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _node(entry: Mapping[str, Any], where: str, problems: list[Problem]) -> None:
    """A file or a directory."""
    path = entry.get("path", "")
    if not path.startswith("/") or posixpath.normpath(path) != path or path.startswith("//"):
        remedy = "begin with /, without . and .., double slashes and one at the end"
        problems.append(
            Problem(f"{where}.path", f"{_shown(path)} is not an absolute, canonical path", remedy)
        )
    mode = entry.get("mode")
    if mode is not None and not (isinstance(mode, str) and _MODE.fullmatch(mode or "0644")):
        remedy = 'write three octal digits in quotes: "0644"'
        problems.append(Problem(f"{where}.mode", f"{_shown(mode)} is not an octal mode", remedy))
    for key in ("user", "group"):
        owner = entry.get(key)
        if isinstance(owner, int):
            if owner < 0:
                problems.append(Problem(f"{where}.{key}", f"{owner} is not an id", "use 0 or more"))
        elif owner is not None and not _OWNER.fullmatch(owner):
            remedy = "use letters, digits, . _ and -, at most 32"
            problems.append(Problem(f"{where}.{key}", f"{_shown(owner)} is not a name", remedy))
    if entry.get("data") and entry.get("uri"):
        problems.append(Problem(f"{where}.uri", "data and uri exclude each other", "keep one"))


def _filesystem(entry: Mapping[str, Any], where: str, problems: list[Problem]) -> dict[str, Any]:
    rest = {key: value for key, value in entry.items() if key not in ("minsize", "size")}
    if not entry.get("mountpoint"):
        remedy = 'name it: mountpoint = "/var"'
        problems.append(Problem(f"{where}.mountpoint", "is missing", remedy))
    if entry.get("minsize") and entry.get("size"):
        remedy = "size is an older name of minsize: keep minsize"
        problems.append(Problem(f"{where}.size", "minsize is set as well", remedy))
    size = entry.get("minsize") or entry.get("size") or 0
    if number := _size(size, f"{where}.minsize", problems):
        rest["minsize"] = number
    return rest


def _size(value: Any, where: str, problems: list[Problem]) -> int:
    """A size in bytes; 0 if it is refused."""
    number, units = value, ""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        number, units = (int(match[1]), match[2]) if match else (None, "")
    remedy = 'write bytes as a number, or a number and a unit in quotes: "10 GiB"'
    if type(number) is not int or units not in _UNITS:
        known = ", ".join(filter(None, _UNITS))
        text = f"{_shown(value)} is not a size; units are {known}" if value else "is required"
    elif not 0 < number * _UNITS[units] <= _LARGEST:
        text = f"must be greater than 0, not {_shown(value)}"
    else:
        return number * _UNITS[units]
    problems.append(Problem(where, text, remedy))
    return 0


def _disk(disk: Any, problems: list[Problem]) -> Any:
    where = "customizations.disk"
    if not isinstance(disk, Mapping) or not isinstance(disk.get("partitions", []), list):
        text, remedy = "must be a table with a list of partitions", f"write [[{where}.partitions]]"
        problems.append(Problem(where, text, remedy))
        return disk
    result = dict(disk)
    if disk.get("minsize"):
        result["minsize"] = _size(disk["minsize"], f"{where}.minsize", problems)
    if "partitions" in disk:
        result["partitions"] = [
            _partition(entry, f"{where}.partitions[{number}]", problems)
            for number, entry in enumerate(disk["partitions"])
        ]
    return result


def _partition(entry: Any, where: str, problems: list[Problem]) -> Any:
    if not isinstance(entry, Mapping):
        problems.append(Problem(where, "must be a table", 'write mountpoint = "/", minsize = …'))
        return entry
    kind = entry.get("type") or "plain"
    if kind not in _PARTITIONS:
        text = f"unknown partition type {_shown(kind)}"
        problems.append(Problem(f"{where}.type", text, f"use {', '.join(_PARTITIONS)}"))
        return entry
    for key in entry.keys() - _PARTITIONS[kind]:
        text = f"a partition of type {kind} does not have it"
        problems.append(Problem(f"{where}.{key}", text, "remove it, or set another type"))
    result = {**entry, "minsize": _size(entry.get("minsize"), f"{where}.minsize", problems)}
    volumes = entry.get("logical_volumes")
    if kind == "lvm" and isinstance(volumes, list):
        result["logical_volumes"] = [
            {
                **volume,
                "minsize": _size(
                    volume.get("minsize"), f"{where}.logical_volumes[{number}].minsize", problems
                ),
            }
            for number, volume in enumerate(volumes)
            if isinstance(volume, Mapping)
        ]
    return result
