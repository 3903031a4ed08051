"""Users and groups whose number differs between two commits.

The owners of files in /var and /etc of a device are numbers, which an update does not change. If a
new commit gives a number to another user, that user owns the files of the old one. System users get
the next free number while a tree is built, so one more package may shift them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rfe_helpers.commit.ostree import Repo

FILES = {"user": "/usr/lib/passwd", "group": "/usr/lib/group"}


@dataclass(frozen=True)
class IdChange:
    """A user or group (`kind`) whose number is `now` and was `before` (None if it is new);
    `taken_from` is who had that number before, "" for nobody."""

    kind: str
    name: str
    before: int | None
    now: int
    taken_from: str = ""

    def __str__(self) -> str:
        before = "is new" if self.before is None else f"was number {self.before}"
        text = f"{self.kind} {self.name} {before} and has number {self.now}"
        return text + (f", which was {self.taken_from}'s" if self.taken_from else "")


def between(repo: Repo, old: str, new: str) -> tuple[IdChange, ...]:
    """The changes from one commit to another; () if a commit has no such files."""
    changes: list[IdChange] = []
    for kind, path in FILES.items():
        texts = [repo.read(rev, path) for rev in (old, new) if repo.has_file(rev, path)]
        if len(texts) == 2:
            changes += compare(kind, texts[0], texts[1])
    return tuple(changes)


def compare(kind: str, old: str, new: str) -> list[IdChange]:
    """The changes between two files in the format of passwd(5) or group(5)."""
    before, now = _numbers(old), _numbers(new)
    owners: dict[int, list[str]] = {}
    for name, number in before.items():
        owners.setdefault(number, []).append(name)
    changes = []
    for name, number in now.items():
        moved = name in before and before[name] != number
        previous = owners.get(number, [])
        taken_from = "" if name in previous else " and ".join(previous)
        if moved or taken_from:
            changes.append(IdChange(kind, name, before.get(name), number, taken_from))
    return changes


def _numbers(text: str) -> Mapping[str, int]:
    rows = (line.split(":") for line in text.splitlines() if line.count(":") >= 3)
    return {row[0]: int(row[2]) for row in rows if row[2].isdecimal()}
