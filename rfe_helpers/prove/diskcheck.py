"""Whether a disk holds a complete edge system that boots: checked from outside, as root.

First with `grub-fstest`, as GRUB sees it: GRUB reads the file system as it is, without replaying
its log. Then mounted, as the kernel sees it after it has replayed the log.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.commit.listing import File
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run
from rfe_helpers.errors import CommandFailedError, CommitError, MachineError

BOOT_PARTITION, ROOT_PARTITION = 3, 4  # as the sandbox's installer makes them
_ENTRY = re.compile(r"LABEL (.*)\n\s*KERNEL (\S+)\n\s*INITRD (\S+)\n\s*APPEND (.*)")


@dataclass(frozen=True)
class Expected:
    """What a disk may hold: commits by name ("old", "new"), and for each commit its files with
    their objects and the digests of its kernel and initramfs. `kept` are files, with their
    content, that no update may change."""

    commits: Mapping[str, str]
    trees: Mapping[str, tuple[tuple[str, str], ...]]
    images: Mapping[str, frozenset[str]]
    osname: str
    kept: Mapping[str, str]

    @classmethod
    def of(
        cls, repo: Repo, commits: Mapping[str, str], osname: str, kept: Mapping[str, str]
    ) -> Expected:
        """Read that from the repository which the commits were published in."""
        trees = {commit: _regular(repo.ls(commit)) for commit in commits.values()}
        images = {}
        for commit in trees:
            with tempfile.TemporaryDirectory() as scratch:
                modules = Path(scratch, "modules")
                repo.checkout(commit, "/usr/lib/modules", modules)
                paths = [*modules.glob("*/vmlinuz"), *modules.glob("*/initramfs.img")]
                images[commit] = frozenset(map(_digest, paths))
        return cls(commits=commits, trees=trees, images=images, osname=osname, kept=kept)

    def name(self, commit: str) -> str:
        """The name of a commit, "" for an unknown one."""
        return next((name for name, known in self.commits.items() if known == commit), "")


@dataclass(frozen=True)
class BootEntry:
    """A boot loader entry; `kernel` and `initrd` are paths in the boot file system, `deployment`
    is the value of ostree=."""

    title: str
    kernel: str
    initrd: str
    deployment: str


def boot_entries(text: str) -> list[BootEntry]:
    """The entries of the syslinux.cfg that ostree writes, the default one first."""
    entries = []
    for title, kernel, initrd, append in _ENTRY.findall(text):
        arguments = dict(word.partition("=")[::2] for word in append.split())
        deployment = arguments.get("ostree", "")
        entries.append(BootEntry(title=title, kernel=kernel, initrd=initrd, deployment=deployment))
    default = re.search(r"^DEFAULT (.*)$", text, re.MULTILINE)
    if default is not None:
        entries.sort(key=lambda entry: entry.title != default[1])
    return entries


def as_grub_sees(disk: Path, expected: Expected) -> tuple[BootEntry, ...]:
    """The entries that GRUB would show. Raises MachineError if it sees none, or if the kernel or
    initramfs of one is damaged."""
    entries = boot_entries(_grub(disk, "/loader/syslinux.cfg").decode(errors="replace"))
    if not entries:
        raise MachineError("GRUB sees no boot loader entry")
    intact = frozenset().union(*expected.images.values())
    digests: dict[str, str] = {}
    for entry in entries:
        for path in (entry.kernel, entry.initrd):
            if path not in digests:
                digests[path] = hashlib.sha256(_grub(disk, path)).hexdigest()
            if digests[path] not in intact:
                raise MachineError(f"GRUB sees {path}, which is damaged")
    return tuple(entries)


def _grub(disk: Path, path: str) -> bytes:
    """A file as GRUB reads it."""
    source = f"(loop0,gpt{BOOT_PARTITION}){path}"
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "copy")
        try:
            run.run(["grub-fstest", disk, "cp", source, copy], seconds=120)
            return copy.read_bytes()
        except CommandFailedError as error:
            raise MachineError(f"GRUB cannot read {path}: {error.tail}") from None
        except FileNotFoundError:
            raise MachineError(f"GRUB does not find {path}") from None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def unreadable_is_damage() -> Iterator[None]:
    """Raise MachineError for a file on a disk that cannot be read."""
    try:
        yield
    except OSError as error:
        raise MachineError(f"{error.filename}: {error.strerror}") from None


def as_linux_sees(
    disk: Path,
    expected: Expected,
    mount_at: Path,
    *,
    grub_entries: Sequence[BootEntry],
    fsck: bool,
) -> tuple[str, tuple[str, ...]]:
    """Mount the file systems of a disk below `mount_at` and check them; returns the commit that
    boots next and those of all deployments, by name ("old", "new").

    What boots is the first of `grub_entries`, which may be one change behind what Linux sees once
    it has replayed the log. Each deployment of either must be complete, every file being the
    object of its commit; kernels must be intact, and /etc and /var must have kept their files.
    `fsck` also reads every object. Raises MachineError with what is wrong.
    """
    with mounted(disk, mount_at) as root, unreadable_is_damage():
        entries = boot_entries((root / "boot/loader/syslinux.cfg").read_text())
        if not entries:
            raise MachineError("the boot loader has no entry")
        names = {
            e: _deployment(root, e, expected) for e in dict.fromkeys([*entries, *grub_entries])
        }
        _check_kernels(root, entries, expected)
        _check_kept(root, grub_entries[0], expected)
        if fsck:
            try:
                Repo(root / "ostree/repo").fsck()
            except CommitError as error:
                raise MachineError(f"ostree fsck: {error.message}") from None
        return names[grub_entries[0]], tuple(names[entry] for entry in entries)


def _deployment(root: Path, entry: BootEntry, expected: Expected) -> str:
    """Check the deployment of an entry; returns the name of its commit."""
    directory = (root / entry.deployment.lstrip("/")).resolve()
    if not directory.is_dir():
        raise MachineError(f"{entry.title} names {entry.deployment}, which is not there")
    commit = directory.name.partition(".")[0]
    name = expected.name(commit)
    if not name:
        raise MachineError(f"{entry.title} is of an unknown commit {commit}")
    _check_files(directory, root / "ostree/repo/objects", expected.trees[commit], name)
    return name


def _check_kernels(root: Path, entries: Iterable[BootEntry], expected: Expected) -> None:
    intact = frozenset().union(*expected.images.values())
    for path in dict.fromkeys(p for entry in entries for p in (entry.kernel, entry.initrd)):
        if _digest(root / "boot" / path.lstrip("/")) not in intact:
            raise MachineError(f"{path} is damaged")


def _check_files(
    directory: Path, objects: Path, files: Iterable[tuple[str, str]], name: str
) -> None:
    """Check that every file of a deployment is the object of its commit, by its inode."""
    for path, stored in files:
        try:
            deployed, original = os.lstat(f"{directory}{path}"), os.lstat(f"{objects}{stored}")
        except OSError as error:
            raise MachineError(f"the {name} deployment lacks {path}: {error}") from None
        if deployed.st_ino != original.st_ino:
            raise MachineError(f"{path} of the {name} deployment is another file")


def _regular(tree: Iterable[File]) -> tuple[tuple[str, str], ...]:
    """(path, object) of the files that a deployment shares with the repository: all but those in
    /etc, which are copied, and empty ones."""
    return tuple(
        (file.path, f"/{file.checksum[:2]}/{file.checksum[2:]}.file")
        for file in tree
        if file.kind == "file" and file.size > 0 and not file.path.startswith("/usr/etc/")
    )


def _check_kept(root: Path, entry: BootEntry, expected: Expected) -> None:
    deployment = root / entry.deployment.lstrip("/")
    for path, content in expected.kept.items():
        inside = path.lstrip("/")
        base = root / "ostree/deploy" / expected.osname if inside.startswith("var/") else deployment
        try:
            actual = (base / inside).read_text()
        except OSError as error:
            raise MachineError(f"{path} is gone: {error.strerror}") from None
        if actual != content:
            raise MachineError(f"{path} has changed")


@contextmanager
def mounted(disk: Path, directory: Path) -> Iterator[Path]:
    """Mount the root and boot file systems of a raw disk, and yield the root; needs root."""
    with ExitStack() as stack:
        root = directory / "root"
        for partition, place in ((ROOT_PARTITION, root), (BOOT_PARTITION, root / "boot")):
            place.mkdir(parents=True, exist_ok=True)
            device = _loop(disk, partition)
            stack.callback(run.run, ["losetup", "--detach", device], check=False)
            try:
                run.run(["mount", device, place], seconds=120)
            except CommandFailedError as error:
                raise MachineError(f"partition {partition} does not mount: {error.tail}") from None
            stack.callback(run.run, ["umount", place], check=False)
        yield root


def _loop(disk: Path, partition: int) -> str:
    """A loop device for one partition, since not every host makes devices for those of a disk."""
    layout = json.loads(run.run(["sfdisk", "--json", disk]).stdout)["partitiontable"]
    entry, sector = layout["partitions"][partition - 1], layout["sectorsize"]
    extent = ["--offset", str(entry["start"] * sector), "--sizelimit", str(entry["size"] * sector)]
    return run.run(["losetup", "--find", "--show", *extent, disk]).stdout.strip()
