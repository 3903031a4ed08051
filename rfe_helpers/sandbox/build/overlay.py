"""A tree laid over the base, which stays unpacked in the cache (overlayfs).

A compose adds a few packages and files to ten thousand that it does not touch. Over a mounted base
only those are written, packed and committed: they go over the commit of an earlier tree, if there
is one that has nothing that the new tree lacks. `Tree.changed` says what a tree has written over
its base, `removed` what it has taken from it; a directory's path ends in "/".

SCRIPT mounts the overlay, runs mmdebstrap in it, and packs, in a mount namespace of its own, and as
a mapped root unless root runs it. What is packed is decided by `python -m
rfe_helpers.sandbox.build.overlay AREA` (`choose`). In AREA:

    upper/, work/, merged/    the overlay's directories
    spec.json                 {"base": dir, "trees": [{"commit": id, "changed": [path, …],
                              "removed": [path, …]}, …]}
    names                     what to pack, each name ended by a zero byte
    tree.json                 a tree; its commit is that of the one below, or ""
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rfe_helpers.core import run
from rfe_helpers.errors import RfeError
from rfe_helpers.sandbox.build.inside import MOVED

# As tar renames them: names and targets of hard links, but not of symbolic links.
_MOVES = " ".join(
    rf"--transform='s,^\./{old}\(/.*\)\?$,./{new}\1,rhS'" for old, new in MOVED.items()
)
UPPER, WORK, MERGED = "upper", "work", "merged"
SCRIPT = f"""\
options=$1 area=$2 tar=$3 python=$4
shift 4
mount -t overlay overlay -o "$options" "$area/merged"
"$@"
echo "RFE-STAGE: pack what is new"
"$python" -m rfe_helpers.sandbox.build.overlay "$area"
tar --create --file="$tar" --directory="$area/merged" --numeric-owner --xattrs --no-recursion \
    --null --files-from="$area/names" {_MOVES}
"""
_MAPPED = ["--user", "--map-auto", "--map-root-user"]
NOT_PACKED = ("dev/", "proc/", "run/", "sys/", "var/")  # their content belongs to a running system


@dataclass(frozen=True)
class Tree:
    """A commit of a tree, and how the tree differs from the base that it was laid over."""

    commit: str
    changed: Sequence[str]
    removed: Sequence[str]


def namespace() -> list[str]:
    """unshare(1) with a mount namespace. An ordinary user becomes root in there, and has the ids of
    /etc/subuid for the others; what root owns belongs to the user."""
    mapped = [] if os.geteuid() == 0 else _MAPPED
    return ["unshare", *mapped, "--mount", "--pid", "--fork", "--kill-child"]


def is_usable(base: Path, area: Path) -> bool:
    """Whether an overlay over `base` can be mounted, with its changes in `area`: not in a container
    without the rights, nor on another overlay."""
    prepare(area)
    try:
        mount: list[str | Path] = [
            "mount",
            "-t",
            "overlay",
            "overlay",
            "-o",
            options(base, area),
            area / MERGED,
        ]
        run.run([*namespace(), *mount], seconds=60)
    except RfeError:
        return False
    return True


def prepare(area: Path) -> None:
    """Make the directories of an overlay; upper's mode is that of the tree's root."""
    for name in (UPPER, WORK, MERGED):
        (area / name).mkdir()
        (area / name).chmod(0o755)


def options(base: Path, area: Path) -> str:
    """mount(8)'s options. Mapped users have no attributes `trusted.overlay.…`; `volatile` omits
    syncing what is removed in the end."""
    directories = f"volatile,lowerdir={base},upperdir={area / UPPER},workdir={area / WORK}"
    return f"userxattr,{directories}" if _is_mapped() else directories


def argv(base: Path, area: Path, tar: Path, command: Sequence[str]) -> list[str]:
    """The command line that makes a tree in an area, with mmdebstrap's `command`."""
    program = ["sh", "-euc", SCRIPT, "sh", options(base, area), str(area), str(tar), sys.executable]
    return [*namespace(), *program, *command]


def _is_mapped() -> bool:
    return os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split() != [
        "0",
        "0",
        "4294967295",
    ]


def remove_mapped(path: Path) -> None:
    """Remove a directory that holds files of mapped users, as such a user if needed."""
    if os.geteuid() == 0:
        shutil.rmtree(path, ignore_errors=True)
        return
    if any(path.iterdir()):
        with contextlib.suppress(RfeError):
            run.run(["unshare", *_MAPPED, "find", path, "-mindepth", "1", "-delete"], seconds=120)
    shutil.rmtree(path, ignore_errors=True)


def paths(root: Path) -> dict[str, bool]:
    """Everything below a directory, by its place in the tree: relative path -> whether it is a
    directory. What an upper directory hides is left out."""
    result: dict[str, bool] = {}
    for path, entry in _walk(root, ""):
        if (place := placed(path)) and not _hides(entry):
            result[place] = entry.is_dir(follow_symlinks=False)
    return result


def placed(path: str) -> str:
    """The place of a file of the overlay in the tree that is committed, "" if it has none."""
    for old, new in MOVED.items():
        if path == old or path.startswith(f"{old}/"):
            return new + path.removeprefix(old)
    return "" if path.startswith(NOT_PACKED) else path


def _origin(place: str) -> str:
    for old, new in MOVED.items():
        if place == new or place.startswith(f"{new}/"):
            return old + place.removeprefix(new)
    return place


def _walk(directory: str | Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            yield prefix + entry.name, entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")


def _hides(entry: os.DirEntry[str]) -> bool:
    """Whether it is a whiteout, a character device 0:0."""
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
        return False
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def below(trees: Iterable[Tree], base: Mapping[str, bool], new: Mapping[str, bool]) -> Tree | None:
    """The first of `trees` that a tree with the paths `new` can be laid over, or None.

    Everything in it has to be in the new tree, as the same kind: a tar takes nothing away.
    """
    for tree in trees:
        changed = dict(map(_kind, tree.changed))
        gone = set(tree.removed)
        there = {**{path: kind for path, kind in base.items() if path not in gone}, **changed}
        if all(new.get(path) is kind for path, kind in there.items()):
            return tree
    return None


def _kind(path: str) -> tuple[str, bool]:
    return path.removesuffix("/"), path.endswith("/")


def choose(area: Path) -> None:
    """Write what is to be packed, and what is said of the new tree."""
    spec = json.loads((area / "spec.json").read_text())
    base, new = paths(Path(spec["base"])), paths(area / MERGED)
    changed = {path: kind for path, kind in paths(area / UPPER).items() if path in new}
    removed = base.keys() - new.keys()
    earlier = below((Tree(**each) for each in spec["trees"]), base, new)
    if earlier is None:
        packed = set(new)
    else:
        undone = set(earlier.removed) - removed
        packed = {*changed, *(path for path, _ in map(_kind, earlier.changed)), *undone}
    # Sorted, a directory comes before its content.
    names = "./\0" + "".join(f"./{_origin(path)}\0" for path in sorted(packed))
    (area / "names").write_bytes(os.fsencode(names))
    tree = Tree(
        commit=earlier.commit if earlier else "",
        changed=[f"{path}/" if is_directory else path for path, is_directory in changed.items()],
        removed=sorted(removed),
    )
    (area / "tree.json").write_text(json.dumps(asdict(tree)))


if __name__ == "__main__":
    choose(Path(sys.argv[1]))
