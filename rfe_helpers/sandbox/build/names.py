"""Groups and units that a tree is known to have before anything is built.

The base has some, and a commit that is deployed has all of its own. What packages add is known only
once they are installed, as their scripts create groups: then customize.py checks, in the tree.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfe_helpers.commit.ostree import Repo
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build import customize


@dataclass(frozen=True)
class Names:
    """The names of groups, and of units and of the scripts in /etc/init.d."""

    groups: frozenset[str]
    units: frozenset[str]


def in_base(tar: Path) -> Names:
    """The names in a base; takes about half a second."""
    group, paths = b"", []
    with tarfile.open(tar) as archive:
        for entry in archive:
            path = f"/{entry.name.removeprefix('./')}"
            paths.append(path)
            if path == "/etc/group" and (file := archive.extractfile(entry)):
                group = file.read()
    return _names(group.decode(), paths)


def in_commit(repository: Repo, rev: str) -> Names:
    """The names in a commit. Raises CommitError."""
    entries = [*repository.ls(rev, "/usr/etc"), *repository.ls(rev, "/usr/lib/systemd/system")]
    paths = [entry.path.replace("/usr/etc/", "/etc/", 1) for entry in entries]
    return _names(repository.read(rev, "/usr/etc/group"), paths)


def _names(group: str, paths: Iterable[str]) -> Names:
    units = {
        path.rpartition("/")[2]
        for path in paths
        if path.rpartition("/")[0] in (*customize.UNITS, customize.SCRIPTS)
    }
    return Names(frozenset(line.split(":")[0] for line in group.split("\n")), frozenset(units))


def check(customizations: Mapping[str, Any], names: Names) -> None:
    """Raise BuilderError if customizations name groups or units that are neither there nor made by
    themselves."""
    requested = dict(customizations)
    missing = [
        *customize.missing_groups(requested, names.groups.__contains__),
        *customize.missing_units(requested, names.units.__contains__),
    ]
    if missing:
        raise BuilderError("\n".join(["this tree cannot be customized:", *missing]))
