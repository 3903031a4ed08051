"""The files of a tree, as `ostree ls --checksum` lists them, and their differences; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rfe_helpers.errors import CommitError

_ENTRY = re.compile(
    r"(?P<kind>[-dlpcb])(?P<mode>[0-7]{5}) (?P<uid>\d+) (?P<gid>\d+) +(?P<size>\d+) "
    r"(?P<checksums>[0-9a-f]{64}(?: [0-9a-f]{64})?) (?P<path>/.*)"
)
_KINDS = {"-": "file", "d": "directory", "l": "link"}


@dataclass(frozen=True)
class File:
    """An entry of a tree. `kind` is "file", "directory" or "link"; `size` in bytes.

    `checksum` covers content, owner, mode and extended attributes of a file or link; for a
    directory it covers owner, mode and attributes, but not its entries.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    target: str
    checksum: str


@dataclass(frozen=True)
class FileDiff:
    """Paths that differ between two trees, sorted."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    modified: tuple[str, ...]


def compare(old: Iterable[File], new: Iterable[File]) -> FileDiff:
    """The paths that differ between two listings."""
    before = {file.path: (file.kind, file.checksum) for file in old}
    after = {file.path: (file.kind, file.checksum) for file in new}
    return FileDiff(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        modified=tuple(sorted(p for p in before.keys() & after.keys() if before[p] != after[p])),
    )


def parse(text: str) -> list[File]:
    return [_file(match, path) for match, path in entries(text)]


def entries(text: str) -> list[tuple[re.Match[str], str]]:
    """Entries of `ostree ls --checksum` with their paths, which may have more than one line."""
    matches: list[re.Match[str]] = []
    paths: list[str] = []
    for line in text.removesuffix("\n").split("\n") if text else ():
        match = _ENTRY.fullmatch(line)
        if match is not None:
            matches.append(match)
            paths.append(match["path"])
        elif paths:
            paths[-1] += f"\n{line}"
        else:
            raise CommitError(f"ostree ls printed an unknown line: {line!r}")
    return list(zip(matches, paths, strict=True))


def _file(match: re.Match[str], path: str) -> File:
    kind = _KINDS.get(match["kind"], "special")
    path, _, target = path.partition(" -> ") if kind == "link" else (path, "", "")
    return File(
        path=path,
        kind=kind,
        mode=int(match["mode"], 8),
        uid=int(match["uid"]),
        gid=int(match["gid"]),
        size=int(match["size"]),
        target=target,
        # A directory has two: of its contents, and of its own metadata.
        checksum=match["checksums"].split()[-1],
    )
