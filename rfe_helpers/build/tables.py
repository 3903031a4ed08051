"""Long lists of small tables as TOML: tomlkit takes a second for 6,000 packages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping


def written(name: str, tables: Iterable[Mapping[str, str]]) -> str:
    """An array of tables, [[name]], whose values are all strings and whose keys are bare."""
    lines = []
    for table in tables:
        lines.append(f"\n[[{name}]]\n")
        for key, value in table.items():
            # A string of JSON is one of TOML, but for this character.
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"{key} = {text}\n")
    return "".join(lines)
