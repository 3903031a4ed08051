"""From a blueprint to a root file system to an OSTree commit.

Three steps, each a stage in the log:

1. *base*: mmdebstrap makes the part that all composes share, once, into the cache;
2. *tree*: mmdebstrap unpacks the base, adds the blueprint's packages, and `inside.py` applies
   the customizations and lays the tree out for OSTree;
3. *commit*: the tree is committed to a bare-user repository in the cache, where unchanged files
   are recognised before they are compressed, and copied to an archive repository from there.

In the cache, one directory per recipe of the base, `base-<key>/`:

    base.tar       the root file system, initramfs included
    build/         bare-user repository: what earlier composes checked in
    archive/       the same objects compressed, as they are served

base.tar is renamed into place when it is whole; ostree's repositories take concurrent writers.
A base older than `BASE_DAYS` is made anew, so that its packages do not go stale; when that fails
(no network) the old one is used and the log says so.

mmdebstrap runs in its unshare mode for an ordinary user. Hooks then run as a mapped user that
cannot read the caller's home, so files go in and out with mmdebstrap's own upload, download and
tar-in, and all else is done by the tree's Python in the chroot (`inside.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.ostree import Package, Repo
from rfe_helpers.core import files, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError, CommandFailedError, RfeError

SUITE = "trixie"
KERNEL = "linux-image-cloud-amd64"
PACKAGES = (
    *("systemd", "systemd-sysv", "systemd-resolved", "systemd-timesyncd", "systemd-repart"),
    "libpam-systemd",
    *("libnss-systemd", "libnss-myhostname", "dbus", "udev", "kmod", "dracut", "passwd"),
    *("ostree", "ostree-boot", "gir1.2-ostree-1.0", "python3", "python3-gi", KERNEL),
    *("openssh-server", "sudo", "less", "curl", "ca-certificates", "zstd", "iproute2", "tzdata"),
    "gpg",  # libostree verifies signatures with it
    *("xfsprogs", "e2fsprogs", "dosfstools"),
    *("grub-pc-bin", "grub-efi-amd64-bin", "grub2-common"),
)
BASE_DAYS = 7
# Level 6 takes twice as long as level 1 and saves 5 % (measured on this tree).
COMPRESSION_LEVEL = "1"
# What mmdebstrap says, and the stage that begins then.
_MMDEBSTRAP_STAGES = {
    "running apt-get update...": "read package lists",
    "downloading packages with apt...": "download packages",
    "extracting archives...": "unpack packages",
    "installing essential packages...": "configure essential packages",
    "installing remaining packages inside the chroot...": "configure packages",
    "creating tarball...": "pack the tree",
}
# What apt says when it cannot reach a mirror.
_NO_NETWORK = re.compile(r"Temporary failure resolving|Could not (resolve|connect)|unreachable")
NOWHERE = Path("/dev/null")  # the target of a tree of which only a hook's result is wanted
_TREES = "rfe-tree-"  # of mmdebstrap at work, in /var/tmp
_EXCLUDED = ("man/*", "doc/*", "locale/*", "info/*", "lintian/*", "bug/*")

Stage = Callable[[str, str], None]


@dataclass(frozen=True)
class Request:
    """What one compose asks for. Every value has been validated by the service.

    `packages` are apt's words, "name" or "name=version glob"; `sources` additional Debian
    repositories as deb822 text; `parent` a commit id; `size` of a disk in bytes.
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
    """Where and how a build runs: its directory, the cache, and whom to tell what."""

    directory: Path
    cache: Path
    log: Path
    deadline: Deadline
    on_stage: Stage = lambda pipeline, stage: None
    on_process: Callable[[run.ProcessId], None] = lambda process: None


@dataclass(frozen=True)
class Base:
    """The cached part that all composes share."""

    directory: Path

    @property
    def tar(self) -> Path:
        return self.directory / "base.tar"

    @property
    def build_repository(self) -> Repo:
        return Repo(self.directory / "build").init("bare-user")

    @property
    def archive_repository(self) -> Repo:
        repository = Repo(self.directory / "archive").init("archive")
        repository.configure("archive.zlib-level", COMPRESSION_LEVEL)
        return repository


def base(work: Work) -> Base:
    """The base, from the cache or made now (about a minute); safe against a second builder."""
    found = Base(work.cache / f"base-{_base_key()}")
    if is_fresh(found.tar):
        return found
    with locked(work, found.directory):
        if is_fresh(found.tar):
            return found
        work.on_stage("base", "begin a new base")
        try:
            with files.replacing(found.tar) as temporary:
                mmdebstrap(
                    work, "base", base_hooks(work), temporary, variant="apt", include=PACKAGES
                )
        except CommandFailedError:
            if not found.tar.exists():
                raise
            work.on_stage("base", "keep the old base, a new one could not be made")
        else:
            _forget_other_bases(work.cache, found)
    return found


def commit(request: Request, work: Work, repository: Repo) -> str:
    """Build the tree of a request and commit it to `repository` (archive); returns the id.

    Writes `manifest.json` into the work directory: all that went into the commit. Raises
    CommandFailedError or BuilderError; whatever it leaves is overwritten by the next try.
    """
    shared = base(work)
    work.on_stage("tree", "unpack the base")
    tar = work.directory / "tree.tar"
    spec = {
        "version": request.version,
        "ref": request.ref,
        "unwanted_kernel": KERNEL if request.kernel != KERNEL else None,
        "customizations": request.blueprint.customizations,
    }
    files.write_json(work.directory / "spec.json", spec, mode=0o600)
    include = [*request.packages, *([request.kernel] if request.kernel != KERNEL else [])]
    try:
        hooks = tree_hooks(work, shared, request)
        mmdebstrap(work, "tree", hooks, tar, variant="custom", include=include)
        add_empty_dev(tar)
        report = json.loads((work.directory / "report.json").read_text())
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
        # The specification holds password hashes; the tree is in the repository now.
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


# mmdebstrap ---------------------------------------------------------------------------------------


def base_hooks(work: Work) -> list[str]:
    """mmdebstrap's options that complete the base: our files for the guest, then inside.py."""
    guest = work.directory / "guest.tar"
    guest.write_bytes(_guest_files())
    inside = work.directory / "inside.py"
    inside.write_text(_resource("build/inside.py"))
    return [
        f"--customize-hook=tar-in {shlex.quote(str(guest))} /",
        '--customize-hook=mkdir -p "$1/rfe"',
        f"--customize-hook=upload {shlex.quote(str(inside))} /rfe/inside.py",
        '--customize-hook=chroot "$1" python3 /rfe/inside.py base /rfe',
        '--customize-hook=rm -rf "$1/rfe"',
    ]


def tree_hooks(work: Work, shared: Base, request: Request) -> list[str]:
    """mmdebstrap's options that unpack the base and finish the tree of one compose."""
    inside = work.directory / "inside.py"
    inside.write_text(_resource("build/inside.py"))
    sources = []
    for number, text in enumerate(request.sources):
        path = work.directory / f"source-{number}.sources"
        path.write_text(text)
        target = f"/etc/apt/sources.list.d/blueprint-{number}.sources"
        sources.append(f"--setup-hook=upload {shlex.quote(str(path))} {target}")
    quoted = {
        name: shlex.quote(str(work.directory / name))
        for name in ("spec.json", "inside.py", "report.json")
    }
    return [
        '--setup-hook=mkdir -p "$1/dev"',
        f"--setup-hook=tar-in {shlex.quote(str(shared.tar))} /",
        *sources,
        '--customize-hook=rm -f "$1"/etc/apt/sources.list.d/blueprint-*',
        '--customize-hook=mkdir -m 700 "$1/rfe"',
        f"--customize-hook=upload {quoted['spec.json']} /rfe/spec.json",
        f"--customize-hook=upload {quoted['inside.py']} /rfe/inside.py",
        '--customize-hook=chroot "$1" python3 /rfe/inside.py compose /rfe',
        f"--customize-hook=download /rfe/report.json {quoted['report.json']}",
        '--customize-hook=rm -rf "$1/rfe"',
    ]


def kept_packages(cache: Path) -> tuple[Path, Path]:
    """Where `rfe cache` keeps apt's lists and packages (sandbox/fetch.py), as tars."""
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

    With `kept` lists and packages (both tars) nothing is fetched.
    """
    mirror = os.environ.get("RFE_DEBIAN_MIRROR")
    return [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        f"--variant={variant}",
        "--architectures=amd64",
        f"--format={'null' if target == NOWHERE else 'tar'}",
        # apt's caches are removed in a hook: mmdebstrap's own clean-up wants /etc in place.
        *("--skip=output/dev", "--skip=cleanup"),
        *([f"--include={','.join(include)}"] if include else []),
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude=/usr/share/{path}" for path in _EXCLUDED),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *hooks,
        *(_without_network(*kept) if kept else []),
        '--customize-hook=rm -rf "$1/var/lib/apt/lists" "$1/var/cache/apt"',
        SUITE,
        str(target),
        *([mirror] if mirror else []),
    ]


def _without_network(lists: Path, archives: Path) -> list[str]:
    """mmdebstrap's options to take lists and packages from tars (its manual, "examples")."""
    places = {"/var/lib/apt": lists, "/var/cache/apt": archives}
    return [
        "--skip=update,download/empty",
        *(f'--setup-hook=mkdir -p "$1{place}"' for place in places),
        *(f"--setup-hook=tar-in {shlex.quote(str(tar))} {p}" for p, tar in places.items()),
    ]


def extract(work: Work, packages: Sequence[str], target: Path) -> None:
    """Unpack packages and what they depend on into a tar, configuring nothing."""
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
    """Run it in a temporary directory of its own, which is removed whatever happens.

    Where there is no network, it is run again with the packages that `rfe cache` has kept.
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
            # The initramfs is made once, by inside.py, when everything is in place.
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
    """The stage that a line of output begins, "" if none: inside.py's or mmdebstrap's own."""
    if line.startswith("RFE-STAGE: "):
        return line.removeprefix("RFE-STAGE: ")
    return _MMDEBSTRAP_STAGES.get(line.removeprefix("I: "), "")


@contextlib.contextmanager
def _temporary_root() -> Iterator[Path]:
    """A directory that mapped users may enter; what they left there is removed as they.

    In /var/tmp and not in the caller's TMPDIR: that may be private, or a small tmpfs. It is
    locked while it is used, so that any later build finds what a killed one could not remove.
    """
    remove_abandoned()
    while True:
        path = Path(tempfile.mkdtemp(prefix=_TREES, dir="/var/tmp"))
        with files.locked(path):
            # Until the lock was ours, another build may have taken it for an abandoned one.
            if not path.is_dir():
                path.unlink(missing_ok=True)
                continue
            path.chmod(0o755)
            try:
                yield path
            finally:
                remove_mapped(path)
            return


def remove_abandoned() -> None:
    """Remove the trees of this user that killed builds left: those that nobody has locked."""
    for path in Path("/var/tmp").glob(f"{_TREES}*"):  # noqa: S108
        with contextlib.suppress(OSError):  # somebody else's, in use, or gone meanwhile
            if path.stat().st_uid != os.geteuid():
                continue
            with files.locked(path, wait=False):
                remove_mapped(path)


def remove_mapped(path: Path) -> None:
    """Remove a directory with files of mapped users in it, as such a user where needed."""
    if os.geteuid() == 0:
        shutil.rmtree(path, ignore_errors=True)
        return
    if any(path.iterdir()):
        unshare = ["unshare", "--user", "--map-auto", "--map-root-user"]
        with contextlib.suppress(RfeError):
            run.run([*unshare, "find", path, "-mindepth", "1", "-delete"], seconds=120)
    shutil.rmtree(path, ignore_errors=True)


# details ------------------------------------------------------------------------------------------


def _base_key() -> str:
    """Changes when the base would be made differently."""
    digest = hashlib.sha256(repr((SUITE, PACKAGES, _EXCLUDED)).encode())
    digest.update(_guest_files())
    # Only its base half matters, but a rebuild is a minute and a stale base is a puzzle.
    digest.update(_resource("build/inside.py").encode())
    return digest.hexdigest()[:12]


def is_fresh(tar: Path) -> bool:
    """Whether something in the cache is there and younger than BASE_DAYS."""
    try:
        return time.time() - tar.stat().st_mtime < BASE_DAYS * 86400
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked(work: Work, directory: Path) -> Iterator[None]:
    """Only one builder makes a base. Others wait in a process, which a cancelled build ends."""
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
        for left in directory.glob(".*.tmp"):  # of a builder that was killed
            left.unlink(missing_ok=True)
        yield


def _forget_other_bases(cache: Path, keep: Base) -> None:
    """Remove bases of other recipes that nobody has used for BASE_DAYS, nor makes now."""
    for directory in cache.glob("base-*"):
        if directory != keep.directory and not is_fresh(directory / "base.tar"):
            with contextlib.suppress(OSError), files.locked(directory / "lock", wait=False):
                shutil.rmtree(directory, ignore_errors=True)


def _resource(name: str) -> str:
    return (resources.files("rfe_helpers.sandbox") / name).read_text()


def _guest_files() -> bytes:
    """guest/root as a tar, the same bytes for the same content: owner root, times 0."""
    buffer = io.BytesIO()
    with (
        resources.as_file(resources.files("rfe_helpers.sandbox") / "guest" / "root") as root,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path in sorted(root.rglob("*")):
            if path.name == "__pycache__" or path.suffix == ".pyc" or path.is_dir():
                continue
            entry = tarfile.TarInfo(f"./{path.relative_to(root)}")
            entry.size = path.stat().st_size
            is_program = path.parent.name in ("bin", "sbin") or path.suffix == ".sh"
            entry.mode = 0o755 if is_program else 0o644
            with path.open("rb") as content:
                tar.addfile(entry, content)
    return buffer.getvalue()


def add_empty_dev(tar: Path) -> None:
    """--skip=output/dev leaves the mount point out too, and the machine needs it."""
    with tarfile.open(tar, "a") as archive:
        entry = tarfile.TarInfo("./dev")
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(entry)


def _package(name: str, version: str, arch: str) -> Package:
    """A Debian package as RPM's five fields: [epoch:]upstream[-revision]."""
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
    """All that went into a commit, without secrets; `inputhash` is the same for the same input."""
    inputs = {
        "image_type": request.image_type,
        "ref": request.ref,
        "blueprint": request.blueprint.name,
        "blueprint_version": request.blueprint.version,
        "requested_packages": list(request.packages),
        "customizations": sorted(request.blueprint.customizations),
        "kernel": kernel,
        "packages": [str(package) for package in packages],
    }
    # Customizations may hold password hashes: only their digest goes further.
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
    """Raise BuilderError if fewer than `needed` bytes are free where `directory` is."""
    remedy = "free some space, or choose another directory with RFE_CACHE"
    files.check_room(directory, needed, "a compose", BuilderError, remedy=remedy)
