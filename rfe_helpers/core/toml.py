"""Decoded JSON as TOML in the layout of Image Builder, with each package as a [[packages]].

tomli-w writes short tables as { … } on one line. tomlkit keeps an object for each bit of the text:
a blueprint of megabytes takes half a minute and as many hundred megabytes, and Python's collector
stops all threads for a second to look through them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dumps(document: Mapping[str, Any]) -> str:
    """The document as TOML, lists of tables as [[name]]. Raises ValueError for null, infinities and
    what else JSON and TOML do not both have."""
    parts: list[str] = []
    _write(document, "", parts)
    return "".join(parts)


def _write(table: Mapping[str, Any], path: str, parts: list[str]) -> None:
    inner = []
    for key, value in table.items():
        if isinstance(value, Mapping) or _are_tables(value):
            inner.append((f"{path}.{_key(key)}" if path else _key(key), value))
        else:
            parts.append(f"{_key(key)} = {_inline(value)}\n")
    for name, value in inner:
        tables, brackets = (value, "[[{}]]") if isinstance(value, list) else ([value], "[{}]")
        for each in tables:
            parts.append(f"\n{brackets.format(name)}\n")
            _write(each, name, parts)


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(v, Mapping) for v in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _inline(key)


def _inline(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, Mapping):
        entries = (f"{_key(key)} = {_inline(inner)}" for key, inner in value.items())
        return f"{{{', '.join(entries)}}}"
    if not isinstance(value, str | int | float):
        raise ValueError(f"a {type(value).__name__} is not a value of TOML")
    # Texts, numbers, true and false are those of JSON, but for one character.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
