"""GVariant text format, as `ostree` prints and reads the metadata of commits.

The grammar is GLib's (its documentation, "GVariant Text Format"); only the few types that commits
need are printed. Values become Python's: strings, numbers, True, False, None (for
`nothing`), bytes (for arrays of bytes), lists, tuples and dicts; variants are unwrapped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rfe_helpers.errors import CommitError

# One token. An array of bytes is one token, too: commits have thousands of them.
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<bytes>\[(?:byte\ )?0x[0-9a-f]{2}(?:,\ 0x[0-9a-f]{2})*\])
      | (?P<bytestring>b'(?:[^'\\]|\\.)*'|b"(?:[^"\\]|\\.)*")
      | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<type>@[a-z(){}*?]+
          |(?:byte|u?int(?:16|32|64)|double|handle|objectpath|signature|string)\b)
      | (?P<word>true|false|nothing|just)\b
      | (?P<number>[-+]?(?:0x[0-9a-fA-F]+|inf|nan|[0-9.]+(?:e[-+]?[0-9]+)?))
      | (?P<mark>[\[\](){}<>,:])
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_DEEPEST = 64  # GLib's own limit is 128; commits nest five or so
_CLOSING = {"[": "]", "(": ")", "{": "}", "<": ">"}


def parse(text: str) -> Any:
    """The value of one GVariant in text format. Raises CommitError if it does not parse."""
    reader = _Reader(text)
    value = reader.value()
    reader.end()
    return value


def string(text: str) -> str:
    """A string as GVariant text."""
    quoted = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{quoted}'"


def strings(rows: Iterable[tuple[str, ...]], width: int) -> str:
    """Rows of `width` strings each as GVariant text of type a(ss…)."""
    body = ", ".join(f"({', '.join(string(cell) for cell in row)})" for row in rows)
    return f"@a({'s' * width}) [{body}]"


class _Reader:
    """A reader of tokens by recursive descent, one method per construct."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.kind = self.token = ""
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            if self.text[self.at :].strip():
                raise self.error()
            self.kind = self.token = ""
            return
        self.at = match.end()
        self.kind = str(match.lastgroup)
        self.token = match[self.kind]

    def error(self) -> CommitError:
        near = self.text[max(0, self.at - 20) : self.at + 20]
        return CommitError(f"not a GVariant: unexpected text at character {self.at}, near {near!r}")

    def end(self) -> None:
        if self.kind:
            raise self.error()

    def expect(self, mark: str) -> None:
        if self.token != mark or self.kind != "mark":
            raise self.error()
        self.advance()

    def value(self) -> Any:
        while self.kind == "type" or (self.kind, self.token) == ("word", "just"):
            self.advance()
        kind, token = self.kind, self.token
        if kind == "mark" and token in _CLOSING:
            return self.container(token)
        if kind in ("", "mark"):
            raise self.error()
        self.advance()
        if kind == "string":
            return _unescape(token[1:-1])
        if kind == "bytes":
            return bytes.fromhex(re.sub(r"byte |0x|[\[\], ]", "", token))
        if kind == "bytestring":
            # GLib writes bytes so if only the last one is 0: one parent in 256 ends with it.
            return _unescape(token[2:-1]).encode("latin-1", "replace") + b"\0"
        if kind == "word":
            return {"true": True, "false": False, "nothing": None}[token]
        return _number(token)

    def container(self, opening: str) -> Any:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.error()
        self.advance()
        closing = _CLOSING[opening]
        items: list[Any] = []
        while self.token != closing or self.kind != "mark":
            key = self.value()
            if opening == "{":
                # An entry alone is written {key, value}; in a dictionary it is key: value.
                if self.token not in (":", ","):
                    raise self.error()
                self.advance()
                items.append((key, self.value()))
            else:
                items.append(key)
            if self.token != closing:
                self.expect(",")
        self.advance()
        self.depth -= 1
        if opening == "<":
            if len(items) != 1:
                raise self.error()
            return items[0]
        if opening in "[(":
            return items if opening == "[" else tuple(items)
        try:
            return dict(items)
        except (TypeError, ValueError):  # a list as a key, or items that are not entries
            raise self.error() from None


def _unescape(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "uU" and len(code) > 1:
            number = int(code[1:], 16)
            return chr(number) if number < 0x110000 else "\ufffd"
        if code[0] in "01234567":
            return chr(int(code, 8))
        return _PLAIN_ESCAPES.get(code, code)

    return _ESCAPE.sub(plain, text) if "\\" in text else text


def _number(token: str) -> int | float:
    try:
        return int(token, 0)
    except ValueError:
        pass
    try:
        return int(token)
    except ValueError:
        pass
    try:
        return float(token)
    except ValueError:
        raise CommitError(f"not a GVariant: {token!r} is not a number") from None
