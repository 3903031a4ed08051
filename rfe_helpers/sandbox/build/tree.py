"""From a blueprint to a root file system to an OSTree commit.

Three steps, each a stage in the log:

1. *base*: mmdebstrap makes the part that all composes share, once, into the cache (base.py);
2. *tree*: mmdebstrap adds the blueprint's packages to the base, over which the tree is laid
   (overlay.py), and `inside.py` applies the customizations and lays it out for OSTree;
3. *commit*: the tree is committed to a bare-user repository in the cache, where unchanged files
   are recognised before they are compressed, and copied to an archive repository from there.

A compose of what was composed a moment ago takes its tree from there (recent.py).

Hooks of mmdebstrap may run as a mapped user that cannot read the caller's home, so files go in and
out with its own upload, download and tar-in, and everything else is done by the tree's Python in
the chroot (`inside.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.ostree import Package, Repo
from rfe_helpers.core import files, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError, CommandFailedError
from rfe_helpers.sandbox.build import (
    containers,
    customizations,
    downloads,
    keys,
    mmdebstrap,
    names,
    overlay,
    recent,
)
from rfe_helpers.sandbox.build.base import (
    KERNEL,
    PACKAGES,
    Base,
    forget_others,
    guest_files,
    in_cache,
    inside_source,
    is_fresh,
)

DAY = 86400  # seconds
Stage = Callable[[str, str], None]


@dataclass(frozen=True)
class Request:
    """What a compose builds. The service has validated every value.

    `packages` are arguments of apt, "name" or "name=version"; `sources` additional Debian
    repositories as deb822 text; `parent` a commit id; `size` that of a disk in bytes.
    """

    id: str
    image_type: str
    ref: str
    blueprint: Blueprint
    packages: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    parent: str | None = None
    url: str = ""
    kernel: str = KERNEL
    size: int = 0
    version: str = field(default_factory=lambda: f"13.{datetime.now(UTC):%Y%m%d.%H%M%S}")


@dataclass(frozen=True)
class Work:
    """Where and how a build runs: its directory, the cache, its log, and its callbacks."""

    directory: Path
    cache: Path
    log: Path
    deadline: Deadline
    on_stage: Stage = lambda pipeline, stage: None
    on_process: Callable[[run.ProcessId], None] = lambda process: None


def base(work: Work) -> Base:
    """The base, from the cache or made now (about a minute); a second builder waits for it."""
    shared = in_cache(work.cache)
    if is_fresh(shared.tar):
        return shared
    with locked(work, shared.directory):
        if is_fresh(shared.tar):
            return shared
        work.on_stage("base", "begin a new base")
        try:
            with files.replacing(shared.tar) as temporary:
                mmdebstrap.build(
                    work,
                    "base",
                    base_hooks(work),
                    temporary,
                    variant="apt",
                    include=PACKAGES,
                    size=mmdebstrap.SIZE,
                )
        except CommandFailedError:
            if not shared.tar.exists():
                raise
            work.on_stage("base", "keep the old base, a new one could not be made")
        else:
            mmdebstrap.keep_lists(work.directory / "lists", shared.lists)
            forget_others(work.cache, shared)
    return shared


def commit(request: Request, work: Work, repository: Repo) -> str:
    """Build the tree of a request and commit it to `repository` (archive); returns the id.

    Writes `manifest.json`, which lists what went into the commit, to the work directory. Raises
    CommandFailedError or BuilderError; what it leaves behind is overwritten by the next attempt.
    """
    shared = base(work)
    values = downloads.with_content(request.blueprint.customizations, work)
    if lacks_base_commit(shared):
        _check_names(request, shared)
        commit_base(work, shared)
    identity = check_in(request, work, shared, values)
    archive = _compress(work, shared, identity)
    repository.pull_local(archive.path, identity, **_running(work))
    repository.set_ref(request.ref, identity)
    return identity


def lacks_base_commit(shared: Base) -> bool:
    """Whether trees can be laid over another here, and there is none yet."""
    return mmdebstrap.can_lay_over(shared.directory) and not recent.trees(shared)


def commit_base(work: Work, shared: Base) -> None:
    """Commit the tree of the base alone, over which all others are laid."""
    work.on_stage("tree", "begin with one that others are laid over")
    request = Request("", "edge-commit", "base", Blueprint(name="base"))
    _compress(work, shared, check_in(request, work, shared, {}, rebuild=True))


def _compress(work: Work, shared: Base, identity: str) -> Repo:
    """Bring a commit into the base's archive repository, which is returned."""
    work.on_stage("commit", "compress new files")
    archive = shared.archive_repository
    archive.pull_local(shared.build_repository.path, identity, **_running(work))
    return archive


def _running(work: Work) -> dict[str, Any]:
    """How the commands of a build run, as arguments of Repo's methods."""
    return {"deadline": work.deadline, "log": work.log, "on_start": work.on_process}


def check_in(
    request: Request, work: Work, shared: Base, values: Mapping[str, Any], *, rebuild: bool = False
) -> str:
    """Commit the tree of a request to the build repository, with its manifest beside it; returns
    the id. `values` are the customizations, with the content of files. `rebuild` builds the tree
    even if a recent compose has left the same."""
    tar = work.directory / "tree.tar"
    inputs = {
        "packages": [*request.packages],
        "sources": [*request.sources],
        "kernel": request.kernel,
        "customizations": values,
    }
    lasting = not added_packages(request)
    key = "" if request.blueprint.containers else recent.key(shared, inputs, lasting=lasting)
    earlier = recent.find(shared, key) if key and not rebuild else None
    try:
        if earlier is None:
            report, laid_over = _build_tree(request, work, shared, values, tar)
            below = laid_over.commit if laid_over else ""
        else:
            work.on_stage("tree", "take the tree of a recent compose")
            recent.write_difference(shared, earlier, request.version, tar)
            report, laid_over, below = earlier.report, None, earlier.commit
        packages = [_package(*row) for row in report["packages"]]
        manifest = _manifest(request, packages, report["kernel"])
        files.write_json(work.directory / "manifest.json", manifest)
        work.on_stage("commit", "ostree commit")
        identity = shared.build_repository.commit_tar(
            tar,
            request.ref,
            below=below,
            subject=f"{request.blueprint.name} {request.blueprint.version}",
            parent=request.parent,
            version=request.version,
            packages=packages,
            metadata={"rpmostree.inputhash": f"'{manifest['inputhash']}'"},
            orphan=True,
            log=work.log,
            deadline=work.deadline,
            on_start=work.on_process,
        )
        if key and earlier is None:
            recent.keep(shared, key, recent.RecentTree(identity, report))
        if laid_over:
            recent.keep_laid_over(shared, replace(laid_over, commit=identity))
    finally:
        # The specification holds password hashes; the tree is in the repository.
        for name in ("spec.json", "report.json", "tree.tar"):
            (work.directory / name).unlink(missing_ok=True)
    return identity


def added_packages(request: Request) -> list[str]:
    """What a request adds to the base."""
    kernel = [request.kernel] if request.kernel != KERNEL else []
    return [*request.packages, *customizations.packages(request.blueprint), *kernel]


def _check_names(request: Request, shared: Base) -> None:
    """Refuse groups and units that are not in the base, unless packages may bring them. Takes half
    a second: a tree that was built a moment ago is not checked again."""
    if not added_packages(request):
        names.check(request.blueprint.customizations, names.in_base(shared.tar))


def _build_tree(
    request: Request, work: Work, shared: Base, values: Mapping[str, Any], tar: Path
) -> tuple[dict[str, Any], overlay.Tree | None]:
    """Make the tree of a request as a tar; returns the report of inside.py, and what overlay.py
    says of it where it could be laid over the unpacked base: the tar has the difference then."""
    _check_names(request, shared)
    added = added_packages(request)
    # An image store has the whiteouts of its layers, which would be those of the overlay.
    over = mmdebstrap.can_lay_over(shared.directory) and not request.blueprint.containers
    spec = {
        "version": request.version,
        "ref": request.ref,
        "replaced_kernel": KERNEL if request.kernel != KERNEL else None,
        "customizations": values,
        "move": not over,
    }
    files.write_json(work.directory / "spec.json", spec, mode=0o600)
    embedded = request.blueprint.containers
    archives = containers.fetch(embedded, work)
    hooks = tree_hooks(work, request, containers.hooks(embedded, archives))
    try:
        laid_over = None
        if over:
            root, trees = unpacked(work, shared), recent.trees(shared)
            lists = None if request.sources else shared.lists
            laid_over = mmdebstrap.lay_over(
                work, "tree", root, hooks, tar, include=added, trees=trees, lists=lists
            )
        else:
            work.on_stage("tree", "unpack the base")
            unpack = ['--setup-hook=mkdir -p "$1/dev"']
            unpack.append(f"--setup-hook=tar-in {shlex.quote(str(shared.tar))} /")
            mmdebstrap.build(work, "tree", [*unpack, *hooks], tar, variant="custom", include=added)
            add_empty_dev(tar)
    finally:
        for archive in archives:
            archive.unlink(missing_ok=True)
    return json.loads((work.directory / "report.json").read_text()), laid_over


def unpacked(work: Work, shared: Base) -> Path:
    """The base as a directory, made now if need be. That of an earlier base may be in use: it stays
    for a day."""
    with locked(work, shared.directory):
        root = shared.root
        for other in shared.directory.glob("root-*"):
            if other != root and time.time() - shared.tar.stat().st_mtime > DAY:
                overlay.remove_mapped(other)
        if not root.exists():
            work.on_stage("tree", "unpack the base")
            unfinished = shared.directory / "root-unfinished"
            if unfinished.exists():
                overlay.remove_mapped(unfinished)
            unfinished.mkdir()
            (unfinished / "dev").mkdir()  # the tar has none, and mmdebstrap mounts devices there
            (unfinished / "dev").chmod(0o755)
            run.run(
                [
                    *overlay.namespace(),
                    *("tar", "--extract", f"--file={shared.tar}", f"--directory={unfinished}"),
                    *("--numeric-owner", "--same-owner", "--preserve-permissions"),
                    # An ordinary user could not remove directories in one of somebody else.
                    *("--xattrs", "--xattrs-include=*", "--exclude=./run/systemd/netif/*"),
                ],
                log=work.log,
                deadline=work.deadline,
                on_start=work.on_process,
            )
            unfinished.rename(root)
    return root


# hooks --------------------------------------------------------------------------------------------


def base_hooks(work: Work) -> list[str]:
    """mmdebstrap's options that complete the base: the guest's files, then inside.py. apt's lists
    are copied to the work directory."""
    guest = work.directory / "guest.tar"
    guest.write_bytes(guest_files())
    inside = work.directory / "inside.py"
    inside.write_text(inside_source())
    return [
        f"--customize-hook=tar-in {shlex.quote(str(guest))} /",
        '--customize-hook=mkdir -p "$1/rfe"',
        f"--customize-hook=upload {shlex.quote(str(inside))} /rfe/inside.py",
        '--customize-hook=chroot "$1" python3 /rfe/inside.py base /rfe',
        '--customize-hook=rm -rf "$1/rfe"',
        f"--customize-hook=copy-out /var/lib/apt/lists {shlex.quote(str(work.directory))}",
    ]


def tree_hooks(work: Work, request: Request, embedding: Sequence[str] = ()) -> list[str]:
    """mmdebstrap's options that make the tree of one compose of the base; `embedding` are those
    that embed containers in it."""
    for name in ("inside.py", "customize.py"):
        (work.directory / name).write_text(inside_source(name))
    sources = []
    for number, text in enumerate(request.sources):
        path = work.directory / f"source-{number}.sources"
        path.write_text(keys.with_keys(text, work.cache / "apt/keys"))
        target = f"/etc/apt/sources.list.d/blueprint-{number}.sources"
        sources.append(f"--setup-hook=upload {shlex.quote(str(path))} {target}")
    quoted = {
        name: shlex.quote(str(work.directory / name))
        for name in ("spec.json", "inside.py", "customize.py", "report.json")
    }
    return [
        *sources,
        '--customize-hook=rm -f "$1"/etc/apt/sources.list.d/blueprint-*',
        '--customize-hook=mkdir -m 700 "$1/rfe"',
        *embedding,
        f"--customize-hook=upload {quoted['spec.json']} /rfe/spec.json",
        f"--customize-hook=upload {quoted['inside.py']} /rfe/inside.py",
        f"--customize-hook=upload {quoted['customize.py']} /rfe/customize.py",
        '--customize-hook=chroot "$1" python3 /rfe/inside.py compose /rfe',
        f"--customize-hook=download /rfe/report.json {quoted['report.json']}",
        '--customize-hook=rm -rf "$1/rfe"',
    ]


# details ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(work: Work, directory: Path) -> Iterator[None]:
    """Let one builder at a time work in a directory of the cache. Others wait in a process, which
    ends if their build is cancelled."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "lock"
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(files.locked(path, wait=False))
                break
            except BlockingIOError:
                work.on_stage("base", "wait for another builder")
                wait = ["flock", str(path), "true"]
                run.run(wait, deadline=work.deadline, on_start=work.on_process)
        for leftover in directory.glob(".*.tmp"):  # of a builder that was killed
            leftover.unlink(missing_ok=True)
        yield


def add_empty_dev(tar: Path) -> None:
    """Add the mount point /dev, which --skip=output/dev leaves out and machines need."""
    with tarfile.open(tar, "a") as archive:
        entry = tarfile.TarInfo("./dev")
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(entry)


def _package(name: str, version: str, arch: str) -> Package:
    """A Debian package, [epoch:]upstream[-revision], in the five fields of RPM."""
    epoch, colon, rest = version.partition(":")
    upstream, dash, revision = (rest if colon else version).rpartition("-")
    return Package(
        name=name,
        epoch=epoch if colon else "0",
        version=upstream if dash else revision,
        release=revision if dash else "",
        arch=arch,
    )


def _manifest(request: Request, packages: Sequence[Package], kernel: str) -> dict[str, Any]:
    """What went into a commit, without secrets; the same input has the same `inputhash`."""
    inputs = {
        "image_type": request.image_type,
        "ref": request.ref,
        "blueprint": request.blueprint.name,
        "blueprint_version": request.blueprint.version,
        "requested_packages": list(request.packages),
        "containers": [entry["source"] for entry in request.blueprint.containers],
        "customizations": sorted(request.blueprint.customizations),
        "kernel": kernel,
        "packages": [str(package) for package in packages],
    }
    # Customizations may hold password hashes: only their digest is kept.
    secret = json.dumps(request.blueprint.customizations, sort_keys=True)
    digest = hashlib.sha256((json.dumps(inputs, sort_keys=True) + secret).encode())
    return {
        **inputs,
        "inputhash": digest.hexdigest(),
        "version": request.version,
        "parent": request.parent,
        "url": request.url,
    }


def check_space(directory: Path, needed: int) -> None:
    """Raise BuilderError if fewer than `needed` bytes are free on the disk of `directory`."""
    files.check_room(directory, needed, "a compose", BuilderError)
