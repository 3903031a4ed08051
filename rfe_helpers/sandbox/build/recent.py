"""Trees of recent composes, for another image of the same blueprint.

A tree depends on its base, packages, sources, kernel and customizations, and only os-release names
the version of the image. So a compose that agrees with one of the last half hour in all the others
commits that one's tree with a new os-release, in a second, and does not build it again. After that
time packages may be newer; a tree to which none were added lasts as long as its base. In the
directory of the base:

    recent/[lasting-]KEY.json    {"commit": id in the build repository, "report": of inside.py}
    trees.json                   the last trees that were laid over the unpacked base (overlay.py)

The key is a digest, since customizations hold hashes of passwords. Containers are never recent:
their tags move.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rfe_helpers.core import files
from rfe_helpers.errors import CommitError
from rfe_helpers.sandbox.build import inside, overlay
from rfe_helpers.sandbox.build.base import Base

SECONDS = 30 * 60
OS_RELEASE = "usr/lib/os-release"
TREES = 3
_LASTING = "lasting-"


@dataclass(frozen=True)
class RecentTree:
    """The commit of a tree in the build repository, and what inside.py reported of it."""

    commit: str
    report: dict[str, Any]


def key(shared: Base, inputs: dict[str, Any], *, lasting: bool = False) -> str:
    """A digest of what a tree is made from: `inputs`, which can be written as JSON, and its base,
    which is made again now and then under the same name. `lasting`: no package was added to it."""
    age = shared.tar.stat().st_mtime_ns
    text = json.dumps([age, inputs], sort_keys=True)
    return (_LASTING if lasting else "") + hashlib.sha256(text.encode()).hexdigest()


def find(shared: Base, name: str) -> RecentTree | None:
    """The tree with that key, or None; removes what is no longer recent."""
    base_age = time.time() - shared.tar.stat().st_mtime
    for path in _directory(shared).glob("*.json"):
        longest = base_age if path.name.startswith(_LASTING) else SECONDS
        with contextlib.suppress(FileNotFoundError):  # another build has removed it
            if not 0 <= time.time() - path.stat().st_mtime <= longest:
                path.unlink()
    with contextlib.suppress(OSError, ValueError, KeyError):
        content = json.loads(_path(shared, name).read_text())
        tree = RecentTree(content["commit"], content["report"])
        if shared.build_repository.has_commit(tree.commit):
            return tree
    return None


def keep(shared: Base, name: str, tree: RecentTree) -> None:
    """Keep a tree that was committed now."""
    _directory(shared).mkdir(exist_ok=True)
    files.write_json(
        _path(shared, name), {"commit": tree.commit, "report": tree.report}, mode=0o600
    )


def write_difference(shared: Base, tree: RecentTree, version: str, target: Path) -> None:
    """Write a tar with the os-release of another version, to be laid over the tree."""
    old = shared.build_repository.read(tree.commit, f"/{OS_RELEASE}")
    if "OSTREE_VERSION=" not in old:
        raise CommitError(f"the tree {tree.commit} names no version in its os-release")
    content = inside.with_version(old, version).encode()
    with tarfile.open(target, "w") as tar:
        entry = tarfile.TarInfo(f"./{OS_RELEASE}")
        entry.size, entry.mode = len(content), 0o644
        tar.addfile(entry, io.BytesIO(content))


def trees(shared: Base) -> list[overlay.Tree]:
    """The last trees that were laid over the base as it is now, the latest first."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(_trees(shared).read_text())
        if content["base"] == shared.root.name:
            trees = [overlay.Tree(**each) for each in content["trees"]]
            return [tree for tree in trees if shared.build_repository.has_commit(tree.commit)]
    return []


def keep_laid_over(shared: Base, tree: overlay.Tree) -> None:
    """Keep a tree that was laid over the base and committed now."""
    earlier = [each for each in trees(shared) if each.commit != tree.commit]
    # The first one, made of the base alone, stays: every other tree can be laid over it.
    kept = [tree, *earlier[:-1][:TREES], *earlier[-1:]]
    content = {"base": shared.root.name, "trees": [asdict(each) for each in kept]}
    files.write_json(_trees(shared), content, mode=0o600)


def _trees(shared: Base) -> Path:
    return shared.directory / "trees.json"


def _directory(shared: Base) -> Path:
    return shared.directory / "recent"


def _path(shared: Base, name: str) -> Path:
    return _directory(shared) / f"{name}.json"
