"""What was in an edge system, what is in image mode: the table at the end of notebook 100.

The rows are in counterparts.toml, each with its source.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Counterpart:
    """A row: what an edge system has, what image mode has in its place, what to know about it, and
    the source with its date.

    >>> from rfe_helpers import imagemode
    >>> row = imagemode.counterparts()[0]
    >>> row.edge, row.image_mode
    ('blueprint', 'Containerfile')
    """

    edge: str
    image_mode: str
    note: str
    source: str


@cache
def counterparts() -> tuple[Counterpart, ...]:
    """All rows, from building to the device.

    >>> from rfe_helpers import imagemode
    >>> for row in imagemode.counterparts():
    ...     print(row.edge, "→", row.image_mode)
    blueprint → Containerfile
    ...
    """
    text = (resources.files("rfe_helpers.imagemode") / "counterparts.toml").read_text()
    return tuple(Counterpart(**row) for row in tomllib.loads(text)["rows"])
