"""From a blueprint to a root file system to an OSTree commit.

Three steps, each a stage in the log:

1. *base*: mmdebstrap makes the part that all composes share, once, into the cache (base.py);
2. *tree*: mmdebstrap unpacks the base, adds the blueprint's packages, and `inside.py` applies
   the customizations and lays the tree out for OSTree;
3. *commit*: the tree is committed to a bare-user repository in the cache, where unchanged files
   are recognised before they are compressed, and copied to an archive repository from there.

An ordinary user runs mmdebstrap in its unshare mode. Its hooks then run as a mapped user that
cannot read the caller's home, so files go in and out with mmdebstrap's own upload, download and
tar-in, and everything else is done by the tree's Python in the chroot (`inside.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.ostree import Package, Repo
from rfe_helpers.core import files, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError, CommandFailedError, RfeError
from rfe_helpers.sandbox.build import containers, customizations, downloads, keys, names
from rfe_helpers.sandbox.build.base import (
    EXCLUDED,
    KERNEL,
    PACKAGES,
    SUITE,
    Base,
    forget_others,
    guest_files,
    in_cache,
    inside_source,
    is_fresh,
)

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
NOWHERE = Path("/dev/null")  # the target if only the result of a hook is needed
_TREES = "rfe-tree-"  # prefix of mmdebstrap's working directories in /var/tmp
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
                mmdebstrap(
                    work, "base", base_hooks(work), temporary, variant="apt", include=PACKAGES
                )
        except CommandFailedError:
            if not shared.tar.exists():
                raise
            work.on_stage("base", "keep the old base, a new one could not be made")
        else:
            forget_others(work.cache, shared)
    return shared


def commit(request: Request, work: Work, repository: Repo) -> str:
    """Build the tree of a request and commit it to `repository` (archive); returns the id.

    Writes `manifest.json`, which lists what went into the commit, to the work directory. Raises
    CommandFailedError or BuilderError; what it leaves behind is overwritten by the next attempt.
    """
    shared = base(work)
    tar = work.directory / "tree.tar"
    try:
        report = _build_tree(request, work, shared, tar)
        packages = [_package(*row) for row in report["packages"]]
        manifest = _manifest(request, packages, report["kernel"])
        files.write_json(work.directory / "manifest.json", manifest)
        work.on_stage("commit", "ostree commit")
        identity = shared.build_repository.commit_tar(
            tar,
            request.ref,
            subject=f"{request.blueprint.name} {request.blueprint.version}",
            parent=request.parent,
            version=request.version,
            packages=packages,
            metadata={"rpmostree.inputhash": f"'{manifest['inputhash']}'"},
            log=work.log,
            deadline=work.deadline,
            on_start=work.on_process,
        )
    finally:
        # The specification holds password hashes; the tree is in the repository.
        for name in ("spec.json", "report.json", "tree.tar"):
            (work.directory / name).unlink(missing_ok=True)
    work.on_stage("commit", "compress new files")
    pull: Mapping[str, Any] = {
        "deadline": work.deadline,
        "log": work.log,
        "on_start": work.on_process,
    }
    shared.archive_repository.pull_local(shared.build_repository.path, identity, **pull)
    repository.pull_local(shared.archive_repository.path, identity, **pull)
    repository.set_ref(request.ref, identity)
    return identity


def _build_tree(request: Request, work: Work, shared: Base, tar: Path) -> dict[str, Any]:
    """Make the tree of a request as a tar; returns the report of inside.py."""
    added = (*request.packages, *customizations.packages(request.blueprint))
    if not added:
        names.check(request.blueprint.customizations, names.in_base(shared.tar))
    work.on_stage("tree", "unpack the base")
    other_kernel = request.kernel != KERNEL
    spec = {
        "version": request.version,
        "ref": request.ref,
        "replaced_kernel": KERNEL if other_kernel else None,
        "customizations": downloads.with_content(request.blueprint.customizations, work),
    }
    files.write_json(work.directory / "spec.json", spec, mode=0o600)
    include = [*added, *([request.kernel] if other_kernel else [])]
    embedded = request.blueprint.containers
    archives = containers.fetch(embedded, work)
    hooks = tree_hooks(work, shared, request, containers.hooks(embedded, archives))
    try:
        mmdebstrap(work, "tree", hooks, tar, variant="custom", include=include)
    finally:
        for archive in archives:
            archive.unlink(missing_ok=True)
    add_empty_dev(tar)
    report: dict[str, Any] = json.loads((work.directory / "report.json").read_text())
    return report


# mmdebstrap ---------------------------------------------------------------------------------------


def base_hooks(work: Work) -> list[str]:
    """mmdebstrap's options that complete the base: the guest's files, then inside.py."""
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
    ]


def tree_hooks(
    work: Work, shared: Base, request: Request, embedding: Sequence[str] = ()
) -> list[str]:
    """mmdebstrap's options that unpack the base and finish the tree of one compose; `embedding`
    are those that embed containers in it."""
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
        '--setup-hook=mkdir -p "$1/dev"',
        f"--setup-hook=tar-in {shlex.quote(str(shared.tar))} /",
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


def kept_packages(cache: Path) -> tuple[Path, Path]:
    """Where `rfe cache` stores apt's lists and packages (sandbox/fetch.py), as tars."""
    return cache / "packages" / "lists.tar", cache / "packages" / "archives.tar"


def mmdebstrap_argv(
    hooks: Sequence[str],
    target: Path,
    *,
    variant: str,
    include: Sequence[str],
    kept: tuple[Path, Path] | None = None,
) -> list[str]:
    """The command line; the Debian mirror is mmdebstrap's own default or RFE_DEBIAN_MIRROR.

    With `kept`, the tars of lists and packages in the cache, nothing is fetched.
    """
    mirror = os.environ.get("RFE_DEBIAN_MIRROR")
    return [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        f"--variant={variant}",
        "--architectures=amd64",
        f"--format={'null' if target == NOWHERE else 'tar'}",
        "--skip=output/dev",
        # A hook removes apt's caches: mmdebstrap's own clean-up needs /etc, which has moved.
        "--skip=cleanup",
        *([f"--include={','.join(include)}"] if include else []),
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude=/usr/share/{path}" for path in EXCLUDED),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *hooks,
        *(_without_network(*kept) if kept else []),
        '--customize-hook=rm -rf "$1/var/lib/apt/lists" "$1/var/cache/apt"',
        SUITE,
        str(target),
        *([mirror] if mirror else []),
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
    mmdebstrap(work, "container", [], target, variant="extract", include=packages)


def mmdebstrap(
    work: Work,
    pipeline: str,
    hooks: Sequence[str],
    target: Path,
    *,
    variant: str,
    include: Sequence[str],
) -> None:
    """Run mmdebstrap in a temporary directory of its own, which is always removed.

    Without a network it runs again, with the packages that `rfe cache` has stored.
    """
    options: dict[str, Any] = {"variant": variant, "include": include}
    kept = kept_packages(work.cache)
    try:
        _mmdebstrap(work, pipeline, mmdebstrap_argv(hooks, target, **options))
    except CommandFailedError as error:
        if not _NO_NETWORK.search(error.tail) or not all(path.exists() for path in kept):
            raise
        work.on_stage(pipeline, "no network: take packages from the cache")
        _mmdebstrap(work, pipeline, mmdebstrap_argv(hooks, target, **options, kept=kept))


def _mmdebstrap(work: Work, pipeline: str, argv: Sequence[str]) -> None:
    with _temporary_root() as temporary:
        run.run(
            argv,
            # inside.py makes the initramfs, once, when everything is in place.
            env={"TMPDIR": str(temporary), "INITRD": "No"},
            log=work.log,
            deadline=work.deadline,
            on_start=work.on_process,
            on_line=lambda line: (
                work.on_stage(pipeline, stage) if (stage := _stage_of(line)) else None
            ),
            remedy="the log names the package or the network error; `rfe doctor` checks the rest",
        )


def _stage_of(line: str) -> str:
    """The stage that a line of output begins, of inside.py or of mmdebstrap, or ""."""
    if line.startswith("RFE-STAGE: "):
        return line.removeprefix("RFE-STAGE: ")
    return _MMDEBSTRAP_STAGES.get(line.removeprefix("I: "), "")


@contextlib.contextmanager
def _temporary_root() -> Iterator[Path]:
    """A directory that mapped users may enter; at the end it is removed with all their files.

    It is in /var/tmp, since the caller's TMPDIR may be private or a small tmpfs. It is locked
    while it is used, so that later builds recognise what a killed one has left.
    """
    remove_abandoned()
    with contextlib.ExitStack() as held:
        while True:
            path = Path(tempfile.mkdtemp(prefix=_TREES, dir="/var/tmp"))
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
            remove_mapped(path)


def remove_abandoned() -> None:
    """Remove the trees that killed builds of this user have left: those that are not locked."""
    for path in Path("/var/tmp").glob(f"{_TREES}*"):  # noqa: S108
        with contextlib.suppress(OSError):  # in use, or removed meanwhile
            if path.stat().st_uid != os.geteuid():
                continue
            with files.locked(path, directory=True, wait=False):
                remove_mapped(path)


def remove_mapped(path: Path) -> None:
    """Remove a directory that holds files of mapped users, as such a user if needed."""
    if os.geteuid() == 0:
        shutil.rmtree(path, ignore_errors=True)
        return
    if any(path.iterdir()):
        unshare = ["unshare", "--user", "--map-auto", "--map-root-user"]
        with contextlib.suppress(RfeError):
            run.run([*unshare, "find", path, "-mindepth", "1", "-delete"], seconds=120)
    shutil.rmtree(path, ignore_errors=True)


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
