"""Runs mmdebstrap: over an unpacked base, or in a temporary directory of its own.

An ordinary user runs it in its unshare mode. Its hooks then run as a mapped user that cannot read
the caller's home, so files go in and out with mmdebstrap's own upload, download and tar-in.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rfe_helpers.core import files, memory, run
from rfe_helpers.errors import CommandFailedError
from rfe_helpers.sandbox.build import overlay
from rfe_helpers.sandbox.build.base import EXCLUDED, SUITE

if TYPE_CHECKING:  # tree.py imports this module
    from rfe_helpers.sandbox.build.tree import Work

# Lines of mmdebstrap's output, and the stage that begins with each.
_MMDEBSTRAP_STAGES = {
    "running apt-get update...": "read package lists",
    "downloading packages with apt...": "download packages",
    "extracting archives...": "unpack packages",
    "installing essential packages...": "configure essential packages",
    "installing remaining packages inside the chroot...": "configure packages",
    "creating tarball...": "pack the tree",
}
# What apt prints when it cannot reach a mirror.
_NO_NETWORK = re.compile(r"Temporary failure resolving|Could not (resolve|connect)|unreachable")
# What apt prints when the mirror has moved on since its lists were fetched.
_OLD_LISTS = re.compile(r"404|Unable to locate|no installation candidate|was not found|Hash Sum")
LISTS_SECONDS = 30 * 60
_CLEAN_UP = ",".join(
    f"cleanup/{part}" for part in ("apt", "mmdebstrap", "reproducible", "run", "tmp")
)
NOWHERE = Path("/dev/null")  # the target if only the result of a hook is needed
_TREES = "rfe-tree-"  # prefix of mmdebstrap's working directories
SIZE = 1_500_000_000  # bytes: enough for the base with its packages, and for the installer
Kept = tuple[Path, Path]  # apt's lists and packages, as tars
Result = TypeVar("Result")


def kept_packages(cache: Path) -> Kept:
    """Where `rfe cache` stores apt's lists and packages (sandbox/fetch.py), as tars."""
    return cache / "packages" / "lists.tar", cache / "packages" / "archives.tar"


def argv(
    hooks: Sequence[str],
    target: Path,
    *,
    variant: str,
    include: Sequence[str],
    kept: Kept | None = None,
    over: bool = False,
) -> list[str]:
    """The command line; the Debian mirror is mmdebstrap's own default or RFE_DEBIAN_MIRROR.

    With `kept`, the tars of lists and packages in the cache, nothing is fetched. `over`: the target
    is a directory with a base in it, and mmdebstrap runs as root or a mapped root already.
    """
    mirror = os.environ.get("RFE_DEBIAN_MIRROR")
    is_root = over or os.geteuid() == 0
    form = "directory" if over else "null" if target == NOWHERE else "tar"
    return [
        "mmdebstrap",
        f"--mode={'root' if is_root else 'unshare'}",
        f"--variant={variant}",
        "--architectures=amd64",
        f"--format={form}",
        f"--skip=output/dev{',check/empty' if over else ''}",
        # A hook removes apt's caches: mmdebstrap's own clean-up needs /etc, which has moved. It has
        # to remove devices (cleanup/dev, new in 1.4): root has real ones, which no commit takes.
        f"--skip={_CLEAN_UP}",
        *([f"--include={','.join(include)}"] if include else []),
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *(_unfiltered() if variant == "apt" else []),
        *hooks,
        *(_without_network(*kept) if kept else []),
        '--customize-hook=rm -rf "$1/var/lib/apt/lists" "$1/var/cache/apt"',
        SUITE,
        str(target),
        *([mirror] if mirror else []),
    ]


def _unfiltered() -> list[str]:
    """mmdebstrap's options for a base. It filters each package that it unpacks through a Python
    program (tarfilter) if its file of dpkg's options excludes something: for all of a base, which
    dpkg then installs with the same exclusions, it is faster to remove what came with them."""
    place = '"$1/etc/dpkg/dpkg.cfg.d'
    unpacked = " ".join(path.removeprefix("/") for path in EXCLUDED)
    return [
        f'--setup-hook=mv {place}/99mmdebstrap" {place}/excluded"',
        f'--extract-hook=cd "$1" && rm -rf {unpacked}',
        f'--customize-hook=mv {place}/excluded" {place}/99mmdebstrap"',
    ]


def _without_network(lists: Path, archives: Path) -> list[str]:
    """mmdebstrap's options to take lists and packages from tars (its manual, "EXAMPLES")."""
    places = {"/var/lib/apt": lists, "/var/cache/apt": archives}
    return [
        "--skip=update,download/empty",
        *(f'--setup-hook=mkdir -p "$1{place}"' for place in places),
        *(f"--setup-hook=tar-in {shlex.quote(str(tar))} {p}" for p, tar in places.items()),
    ]


def extract(work: Work, packages: Sequence[str], target: Path) -> None:
    """Unpack packages and their dependencies into a tar, without configuring them."""
    build(work, "container", [], target, variant="extract", include=packages, size=SIZE)


def build(
    work: Work,
    pipeline: str,
    hooks: Sequence[str],
    target: Path,
    *,
    variant: str,
    include: Sequence[str],
    size: int | None = None,
) -> None:
    """Run mmdebstrap in a temporary directory of its own, which is always removed: in memory where
    that has `size` bytes to spare, as much as the tree and its packages take.

    Without a network it runs again, with the packages that `rfe cache` has stored.
    """

    def attempt(kept: Kept | None) -> None:
        with _area(size) as area:
            _run(
                work,
                pipeline,
                argv(hooks, target, variant=variant, include=include, kept=kept),
                area,
            )

    _with_or_without_network(work, pipeline, attempt)


@cache
def can_lay_over(base: Path) -> bool:
    """Whether an overlay over a directory can be mounted here."""
    with _area() as area:
        return overlay.is_usable(base, area)


def lay_over(
    work: Work,
    pipeline: str,
    base: Path,
    hooks: Sequence[str],
    tar: Path,
    *,
    include: Sequence[str],
    trees: Sequence[overlay.Tree],
    lists: Path | None,
) -> overlay.Tree:
    """Add packages to an unpacked base, which is not changed, and write what is new to a tar.

    Returns what overlay.py says of the new tree, with the commit among `trees` that the tar goes
    over. apt's lists are kept in the directory `lists`, and taken from there for half an hour.
    """

    def attempt(kept: Kept | None) -> overlay.Tree:
        with _area() as area:
            overlay.prepare(area)
            spec = {"base": str(base), "trees": [asdict(tree) for tree in trees]}
            files.write_json(area / "spec.json", spec)
            merged = area / overlay.MERGED
            apt = [] if kept else _apt_lists(lists, include)
            command = argv(
                [*apt, *hooks], merged, variant="custom", include=include, kept=kept, over=True
            )
            _run(work, pipeline, overlay.argv(base, area, tar, command), area)
            return overlay.Tree(**json.loads((area / "tree.json").read_text()))

    try:
        return _with_or_without_network(work, pipeline, attempt)
    except CommandFailedError as error:
        if lists is None or not lists.exists() or not _OLD_LISTS.search(error.tail):
            raise
        shutil.rmtree(lists, ignore_errors=True)
        return attempt(None)


def _apt_lists(lists: Path | None, include: Sequence[str]) -> list[str]:
    """mmdebstrap's options to take apt's lists from a directory, or to keep them there."""
    if not include:
        return ["--skip=update"]
    if lists is None:
        return []
    kept, place = shlex.quote(str(lists)), '"$1/var/lib/apt/lists"'
    with contextlib.suppress(FileNotFoundError):
        if 0 <= time.time() - lists.stat().st_mtime < LISTS_SECONDS:
            return ["--skip=update", f"--setup-hook=mkdir -p {place}; cp -a {kept}/. {place}"]
    # Another builder may do the same at this moment: whose lists stay does not matter.
    keep = f"cp -a {place} {kept}.$$; touch {kept}.$$; rm -rf {kept}"
    return [f"--customize-hook={keep}; mv -T {kept}.$$ {kept} || rm -rf {kept}.$$"]


def keep_lists(fetched: Path, lists: Path) -> None:
    """Keep the lists that a base was made with, for the trees that are laid over it."""
    shutil.rmtree(lists, ignore_errors=True)
    shutil.move(fetched, lists)
    os.utime(lists)


def _with_or_without_network(
    work: Work, pipeline: str, attempt: Callable[[Kept | None], Result]
) -> Result:
    kept = kept_packages(work.cache)
    try:
        return attempt(None)
    except CommandFailedError as error:
        if not _NO_NETWORK.search(error.tail) or not all(path.exists() for path in kept):
            raise
        work.on_stage(pipeline, "no network: take packages from the cache")
        return attempt(kept)


def _run(work: Work, pipeline: str, command: Sequence[str], area: Path) -> None:
    imports = os.pathsep.join(filter(None, sys.path))  # for overlay.py
    run.run(
        command,
        # inside.py makes the initramfs, once, when everything is in place.
        env={"TMPDIR": str(area), "INITRD": "No", "PYTHONPATH": imports},
        log=work.log,
        deadline=work.deadline,
        on_start=work.on_process,
        on_line=lambda line: work.on_stage(pipeline, stage) if (stage := _stage_of(line)) else None,
        remedy="the log names the package or the network error; `rfe doctor` checks the rest",
    )


def _stage_of(line: str) -> str:
    """The stage that a line of output begins, of inside.py or of mmdebstrap, or ""."""
    if line.startswith("RFE-STAGE: "):
        return line.removeprefix("RFE-STAGE: ")
    return _MMDEBSTRAP_STAGES.get(line.removeprefix("I: "), "")


@contextlib.contextmanager
def _area(size: int | None = None) -> Iterator[Path]:
    """A directory that mapped users may enter; at the end it is removed with all their files.

    It is in /var/tmp, since the caller's TMPDIR may be private or a small tmpfs, or in memory that
    has `size` bytes to spare. It is locked while it is used, so that later builds recognise what a
    killed one has left.
    """
    remove_abandoned()
    # As root mmdebstrap makes devices, as others it takes those of the host.
    parent = memory.directory(size, devices=os.geteuid() == 0)
    with contextlib.ExitStack() as held:
        while True:
            path = Path(tempfile.mkdtemp(prefix=_TREES, dir=parent))
            # Before it is locked, another build may remove it as abandoned.
            with contextlib.suppress(FileNotFoundError):
                held.enter_context(files.locked(path, directory=True))
                if path.exists():
                    break
            held.close()
        path.chmod(0o755)
        try:
            yield path
        finally:
            overlay.remove_mapped(path)


def remove_abandoned() -> None:
    """Remove the trees that killed builds of this user have left: those that are not locked."""
    for path in (*memory.DISK.glob(f"{_TREES}*"), *memory.SHARED.glob(f"{_TREES}*")):
        with contextlib.suppress(OSError):  # in use, or removed meanwhile
            if path.stat().st_uid != os.geteuid():
                continue
            with files.locked(path, directory=True, wait=False):
                overlay.remove_mapped(path)
