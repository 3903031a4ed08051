"""Whether a disk holds an edge system that boots, whole: looked at from outside, as root.

First as GRUB sees it, which reads the file system as it lies there, without the log that a mount
replays: with `grub-fstest`. Then mounted, as the kernel sees it after it has replayed the log.
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

from rfe_helpers.commit.ostree import File, Repo
from rfe_helpers.core import run
from rfe_helpers.errors import CommandFailedError, CommitError, MachineError

BOOT_PARTITION, ROOT_PARTITION = 3, 4  # as the sandbox's installer makes them
_ENTRY = re.compile(r"LABEL (.*)\n\s*KERNEL (\S+)\n\s*INITRD (\S+)\n\s*APPEND (.*)")


@dataclass(frozen=True)
class Expected:
    """What may be found: commits by name ("old", "new"), of each its files with their objects, and
    the digests of its kernel and initramfs. `kept` are files, with their content, that no update
    may change."""

    commits: Mapping[str, str]
    trees: Mapping[str, tuple[tuple[str, str], ...]]
    images: Mapping[str, frozenset[str]]
    osname: str
    kept: Mapping[str, str]

    @classmethod
    def of(
        cls, repo: Repo, commits: Mapping[str, str], osname: str, kept: Mapping[str, str]
    ) -> Expected:
        trees = {commit: _regular(repo.ls(commit)) for commit in commits.values()}
        images = {}
        for commit in trees:
            with tempfile.TemporaryDirectory() as scratch:
                modules = Path(scratch, "modules")
                repo.checkout(commit, "/usr/lib/modules", modules)
                paths = [*modules.glob("*/vmlinuz"), *modules.glob("*/initramfs.img")]
                images[commit] = frozenset(map(_digest, paths))
        return cls(commits, trees, images, osname, kept)

    def name(self, commit: str) -> str:
        """old or new, "" for another."""
        return next((name for name, known in self.commits.items() if known == commit), "")


@dataclass(frozen=True)
class BootEntry:
    """An entry of the boot loader; paths in the boot file system, `deployment` its ostree=."""

    title: str
    kernel: str
    initrd: str
    deployment: str


def boot_entries(text: str) -> list[BootEntry]:
    """The entries of the syslinux.cfg that ostree writes, the default one first."""
    found = []
    for title, kernel, initrd, arguments in _ENTRY.findall(text):
        words = dict(word.partition("=")[::2] for word in arguments.split())
        found.append(BootEntry(title, kernel, initrd, words.get("ostree", "")))
    default = re.search(r"^DEFAULT (.*)$", text, re.MULTILINE)
    if default is not None:
        found.sort(key=lambda entry: entry.title != default[1])
    return found


def as_grub_sees(disk: Path, expected: Expected) -> tuple[BootEntry, ...]:
    """The entries that GRUB would show, with kernels that are whole. Raises MachineError."""
    entries = boot_entries(_grub(disk, "/loader/syslinux.cfg").decode(errors="replace"))
    if not entries:
        raise MachineError("GRUB sees no boot loader entry")
    whole = frozenset().union(*expected.images.values())
    checked: dict[str, str] = {}
    for entry in entries:
        for path in (entry.kernel, entry.initrd):
            if path not in checked:
                checked[path] = hashlib.sha256(_grub(disk, path)).hexdigest()
            if checked[path] not in whole:
                raise MachineError(f"GRUB sees {path}, and it is not whole")
    return tuple(entries)


def _grub(disk: Path, path: str) -> bytes:
    """A file as GRUB reads it."""
    where = f"(loop0,gpt{BOOT_PARTITION}){path}"
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "copy")
        try:
            run.run(["grub-fstest", disk, "cp", where, copy], seconds=120)
            return copy.read_bytes()
        except CommandFailedError as error:
            raise MachineError(f"GRUB cannot read {path}: {error.tail}") from None
        except FileNotFoundError:
            raise MachineError(f"GRUB finds no {path}") from None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _readable() -> Iterator[None]:
    """What cannot be read on a disk is something wrong with it."""
    try:
        yield
    except OSError as error:
        raise MachineError(f"{error.filename}: {error.strerror}") from None


def as_linux_sees(
    disk: Path,
    expected: Expected,
    mount_at: Path,
    *,
    shown: Sequence[BootEntry],
    fsck: bool,
) -> tuple[str, tuple[str, ...]]:
    """(what boots next, all deployments) by name, after the file systems were mounted.

    What boots is the first of `shown`, the entries that GRUB sees: it may be one change behind
    what Linux sees once it has replayed the log. Checks that every deployment of either is
    complete, each file being the object of its commit, that kernels are whole, that /etc and /var
    have what they had; `fsck` also reads every object. Raises MachineError with what is wrong.
    """
    with mounted(disk, mount_at) as root, _readable():
        entries = boot_entries((root / "boot/loader/syslinux.cfg").read_text())
        if not entries:
            raise MachineError("there is no boot loader entry")
        names = {e: _deployment(root, e, expected) for e in dict.fromkeys([*entries, *shown])}
        _check_kernels(root, entries, expected)
        _check_kept(root, shown[0], expected)
        if fsck:
            try:
                Repo(root / "ostree/repo").fsck()
            except CommitError as error:
                raise MachineError(f"ostree fsck: {error.message}") from None
        return names[shown[0]], tuple(names[entry] for entry in entries)


def _deployment(root: Path, entry: BootEntry, expected: Expected) -> str:
    """old or new, checked."""
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
    whole = frozenset().union(*expected.images.values())
    for path in dict.fromkeys(p for entry in entries for p in (entry.kernel, entry.initrd)):
        if _digest(root / "boot" / path.lstrip("/")) not in whole:
            raise MachineError(f"{path} is not whole")


def _check_files(
    directory: Path, objects: Path, files: Iterable[tuple[str, str]], name: str
) -> None:
    """Every file of a deployment is the object of its commit: the same inode."""
    for path, stored in files:
        try:
            found, wanted = os.lstat(f"{directory}{path}"), os.lstat(f"{objects}{stored}")
        except OSError as error:
            raise MachineError(f"the {name} deployment lacks {path}: {error}") from None
        if found.st_ino != wanted.st_ino:
            raise MachineError(f"{path} of the {name} deployment is another file")


def _regular(tree: Iterable[File]) -> tuple[tuple[str, str], ...]:
    """(path, object) of the files that a deployment shares with the repository: not those of /etc,
    of which it has copies, and not empty ones."""
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
            found = (base / inside).read_text()
        except OSError as error:
            raise MachineError(f"{path} is gone: {error.strerror}") from None
        if found != content:
            raise MachineError(f"{path} holds something else than before")


@contextmanager
def mounted(disk: Path, directory: Path) -> Iterator[Path]:
    """The root and boot file systems of a raw disk, mounted; needs root."""
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
    """A loop device of one partition; not every machine makes devices for those of a disk."""
    found = json.loads(run.run(["sfdisk", "--json", disk]).stdout)["partitiontable"]
    part, sector = found["partitions"][partition - 1], found["sectorsize"]
    words = ["--offset", str(part["start"] * sector), "--sizelimit", str(part["size"] * sector)]
    return run.run(["losetup", "--find", "--show", *words, disk]).stdout.strip()
