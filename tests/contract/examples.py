"""The examples of the wire, read from wire/*.toml (wire/README.md explains the keys)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WIRE = Path(__file__).parent / "wire"
SERVER = "osbuild-composer"


@dataclass(frozen=True)
class Example:
    """A request and the answer that the contract demands."""

    route: str
    case: str
    request: str
    status: int
    server: str = SERVER
    given: tuple[str, ...] = ()
    v0: bool = True
    content_type: str = ""
    sent: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    json: str | None = None
    text: str | None = None
    toml: str | None = None
    members: tuple[str, ...] | None = None
    vary: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.route}: {self.case}"

    def as_v0(self) -> Example:
        values = {**vars(self), "request": self.request.replace("/api/v1/", "/api/v0/")}
        return Example(**values | {"case": f"{self.case} (v0)"})


def read() -> list[Example]:
    """All examples, of all servers, as they stand in the files."""
    listed = []
    for path in sorted(WIRE.glob("*.toml")):
        for entry in tomllib.loads(path.read_text()).get("example", []):
            lists = {
                key: tuple(entry[key])
                for key in ("given", "members", "vary", "starts")
                if key in entry
            }
            listed.append(Example(**{**entry, **lists}))
    return listed


def for_service() -> Iterator[Example]:
    """What a server of today must answer, on both versions of the API."""
    for example in read():
        if example.server == SERVER:
            yield example
            if (
                example.v0
                and "/api/v1/" in example.request
                and "/api/v1/status" not in example.request
            ):
                yield example.as_v0()


def situations() -> dict[str, Any]:
    return tomllib.loads((WIRE / "situations.toml").read_text())
