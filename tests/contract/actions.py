"""What the clients that people have send and read, from wire/composer-cli.toml and
wire/web-console.toml (wire/README.md explains the keys)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from examples import WIRE

FILES = ("composer-cli", "web-console")
_TYPES: dict[str, Any] = {
    "text": str,
    "int": int,
    "uint": Annotated[int, msgspec.Meta(ge=0)],
    "number": float,
    "flag": bool,
    "object": dict[str, Any],
}


@dataclass(frozen=True)
class Exchange:
    """A request, and what the client takes from the answer."""

    request: str
    content_type: str = ""
    sent: str = ""
    status: int = 200
    format: str = "json"
    reads: dict[str, str] = field(default_factory=dict)
    has: dict[str, Any] = field(default_factory=dict)
    keep: dict[str, str] = field(default_factory=dict)
    filename: str = ""
    without_null: bool = False


@dataclass(frozen=True)
class Action:
    """A command, or what somebody does on the page: its requests, in order."""

    client: Client = field(repr=False)
    command: str
    exchanges: tuple[Exchange, ...] = field(repr=False)
    case: str = ""
    given: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.client.name}: {self.command}" + (f" ({self.case})" if self.case else "")


@dataclass(frozen=True)
class Client:
    """A client, with its commands and the shapes of the objects that it decodes."""

    name: str
    commands: tuple[str, ...]
    shapes: dict[str, dict[str, str]]

    def decoder(self, reads: dict[str, str]) -> Any:
        """The type of an answer's body, for msgspec, which decodes as strictly as Go does."""
        fields = [(name, self._type(text), self._default(text)) for name, text in reads.items()]
        return msgspec.defstruct("Answer", fields, kw_only=True)

    def _type(self, text: str) -> Any:
        if text.endswith("?"):
            return self._type(text[:-1]) | None
        if text.endswith("]*"):
            return list[self._type(text[1:-2])]  # type: ignore[misc]
        if text.endswith(("]", "}")):
            entry = self._type(text[1:-1])
            several = dict[str, entry] if text[0] == "{" else list[entry]  # type: ignore[valid-type]
            return Annotated[several, msgspec.Meta(min_length=1)]
        return _TYPES.get(text) or self.decoder(self.shapes[text])

    @staticmethod
    def _default(text: str) -> Any:
        return None if text.endswith("?") else msgspec.NODEFAULT


def clients() -> list[Client]:
    return [_client(tomllib.loads((WIRE / f"{name}.toml").read_text())) for name in FILES]


def actions() -> list[Action]:
    listed = []
    for name in FILES:
        data = tomllib.loads((WIRE / f"{name}.toml").read_text())
        for entry in data["action"]:
            exchanges = tuple(Exchange(**exchange) for exchange in entry.pop("exchange"))
            lists = {key: tuple(entry[key]) for key in ("given", "covers") if key in entry}
            listed.append(Action(_client(data), exchanges=exchanges, **{**entry, **lists}))
    return listed


def _client(data: dict[str, Any]) -> Client:
    return Client(data["client"]["name"], tuple(data["client"]["commands"]), data["shapes"])
