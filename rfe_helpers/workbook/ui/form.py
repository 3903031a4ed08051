"""The customizations that the blueprint editor has a field for; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """A customization in the form: its path in the blueprint; `words` if it is a list of words."""

    label: str
    path: tuple[str | int, ...]
    words: bool = False
    example: str = ""


FORM = (
    Field("Host name", ("hostname",), example="edge-1"),
    Field("Time zone", ("timezone", "timezone"), example="Europe/Berlin"),
    Field("Languages", ("locale", "languages"), words=True, example="C.UTF-8"),
    Field("Keyboard", ("locale", "keyboard"), example="us"),
    Field("Kernel arguments", ("kernel", "append"), example="quiet"),
    Field("Services on", ("services", "enabled"), words=True, example="chronyd.service"),
    Field("Services off", ("services", "disabled"), words=True),
    Field("Open ports", ("firewall", "ports"), words=True, example="443:tcp"),
    Field("User", ("user", 0, "name"), example="core"),
    Field("Its SSH key", ("user", 0, "key"), example="ssh-ed25519 AAAA… me"),
)


def changed(
    customizations: Mapping[str, Any], path: Sequence[str | int], value: Any
) -> dict[str, Any]:
    """A copy of the customizations with one value set, or removed if it is empty."""
    key, rest = str(path[0]), path[1:]
    copy = dict(customizations)
    if rest and rest[0] == 0:
        entries = list(copy.get(key) or [{}])
        entries[0] = changed(entries[0], rest[1:], value)
        copy[key] = [entry for entry in entries if entry]
    elif rest:
        copy[key] = changed(copy.get(key) or {}, rest, value)
    else:
        copy[key] = value
    return {name: entry for name, entry in copy.items() if entry or name != key}


def text_of(customizations: Mapping[str, Any], field: Field) -> str:
    """The value of a field of the form, "" if it is not set."""
    value: Any = customizations
    for key in field.path:
        entry = value.get(key) if isinstance(value, Mapping) else next(iter(value), None)
        value = entry or {}
    if not value:
        return ""
    return " ".join(value) if field.words else str(value)
