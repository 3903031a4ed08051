"""Commits in a commit.tar, a container.tar, a repository directory or at a URL.

The metadata of a commit needs the commit object alone; its files need the whole repository, which
is unpacked or downloaded.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rfe_helpers.commit import archive
from rfe_helpers.commit.listing import File, FileDiff, compare
from rfe_helpers.commit.ostree import CommitInfo, Load, Package, Repo, is_commit_id
from rfe_helpers.core import journal, memory
from rfe_helpers.core.files import writing
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommitError

__all__ = ["Commit", "CommitDiff", "File", "PackageChange", "diff", "open_commit"]

UNOWNED = "(no package)"
_DPKG = "/usr/lib/sysimage/dpkg/info"
_LISTS = 50_000_000  # bytes: enough for that
_LEFT = "rfe-commit-*-*"  # of a program that was killed
# Directories that are links into /usr in a tree, while package lists still have the old paths.
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


class Commit:
    """A commit: its `source`, `ref`, `info` (the commit object) and `compose` (compose.json).

    `files` and the methods that use it may unpack or download the whole repository once, into a
    temporary directory that is removed with this object.

    >>> commit.ref, commit.info.version
    ('debian/13/x86_64/edge', '13.2...')
    >>> [package.name for package in commit.packages()]
    ['adduser', 'apt', ...]
    >>> list(commit.size_by_directory())
    ['/usr/lib', ...]
    """

    def __init__(
        self,
        source: str,
        ref: str,
        info: CommitInfo,
        compose: dict[str, Any] | None,
        repository: Callable[[], Repo],
    ) -> None:
        self.source = source
        self.ref = ref
        self.info = info
        self.compose = compose
        self._open_repository = repository
        self._repository: Repo | None = None
        self._files: list[File] | None = None

    def __repr__(self) -> str:
        version = f" {self.info.version}" if self.info.version else ""
        return f"<Commit {self.ref}{version} {self.info.id[:12]} from {self.source}>"

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def repository(self) -> Repo:
        """The repository with the whole commit, downloaded or unpacked at the first use."""
        if self._repository is None:
            self._repository = self._open_repository()
        return self._repository

    def packages(self) -> tuple[Package, ...]:
        """The packages of its tree, sorted. Raises CommitError if the commit does not list them."""
        return self.info.packages

    def files(self) -> list[File]:
        """All files, directories and links of the tree."""
        if self._files is None:
            self._files = self.repository.ls(self.id)
        return self._files

    def size_by_directory(self, depth: int = 2) -> dict[str, int]:
        """Bytes of the files below each directory of `depth` levels, largest first."""
        sizes: dict[str, int] = {}
        for file in self.files():
            if file.kind == "file":
                parents = PurePosixPath(file.path).parts[1:-1][:depth]
                name = "/" + "/".join(parents)
                sizes[name] = sizes.get(name, 0) + file.size
        return _largest_first(sizes)

    @property
    def knows_owners(self) -> bool:
        """Whether the tree says which package a file belongs to, in a dpkg database."""
        return any(file.path == _DPKG for file in self.files())

    def size_by_package(self) -> dict[str, int]:
        """Bytes of the files of each package, largest first.

        Files that belong to none (the initramfs, generated files) count as "(no package)".
        Raises CommitError for a tree without a dpkg database.
        """
        owners = self._owners()
        sizes: dict[str, int] = {}
        for file in self.files():
            if file.kind == "file":
                owner = owners.get(file.path, UNOWNED)
                sizes[owner] = sizes.get(owner, 0) + file.size
        return _largest_first(sizes)

    def to_dict(self) -> dict[str, Any]:
        """The metadata of the commit as JSON values."""
        return {
            "source": self.source,
            "ref": self.ref,
            "commit": self.info.id,
            "parent": self.info.parent,
            "version": self.info.version,
            "subject": self.info.subject,
            "timestamp": self.info.timestamp.isoformat(),
            "packages": len(self.info.packages) if _lists_packages(self.info) else None,
            "compose": self.compose,
        }

    def _owners(self) -> dict[str, str]:
        """The package of each path, from dpkg's lists of files."""
        if not self.knows_owners:
            raise CommitError(
                f"the tree of {self.source} has no dpkg database",
                remedy="only Debian trees have sizes by package; use size_by_directory",
            )
        with tempfile.TemporaryDirectory(prefix="rfe-", dir=_scratch(_LISTS)) as scratch:
            lists = Path(scratch) / "info"
            self.repository.checkout(self.id, _DPKG, lists)
            owners: dict[str, str] = {}
            for listed in sorted(lists.glob("*.list")):
                package = listed.stem.partition(":")[0]
                for line in listed.read_text(errors="replace").splitlines():
                    owners.setdefault(_in_tree(line), package)
        return owners


@dataclass(frozen=True)
class PackageChange:
    """A package whose version differs: `old` and `new` are [epoch:]version[-release]."""

    name: str
    arch: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.name} {self.old} -> {self.new}"


@dataclass(frozen=True)
class CommitDiff:
    """The differences between two commits; `files` is None if they were not compared.

    >>> from rfe_helpers.commit import diff
    >>> changes = diff(commit, update)
    >>> [package.name for package in changes.added]
    ['jq', 'libjq1', ...]
    >>> len(changes.files.added) > 0
    True
    """

    old: str
    new: str
    added: tuple[Package, ...]
    removed: tuple[Package, ...]
    changed: tuple[PackageChange, ...]
    files: FileDiff | None


def open_commit(
    source: str | Path, ref: str | None = None, *, deadline: Deadline | float | None = None
) -> Commit:
    """The commit in `source`: a commit.tar, container.tar, repository directory or http URL.

    >>> from rfe_helpers import open_commit
    >>> open_commit(artifact.path).ref
    'debian/13/x86_64/edge'
    >>> open_commit(site.repo_url, "debian/13/x86_64/edge").info.version
    '13.2...'

    `ref` (a ref or a commit id) is needed only if the source has several. Raises CommitError if it
    has no readable commit.
    """
    limit = Deadline.of(deadline, 600)
    if isinstance(source, str) and re.match(r"https?://", source):
        return _open_url(source, ref, limit)
    path = Path(source).expanduser()
    try:
        with writing(_scratch()):
            return _open_directory(path, ref) if path.is_dir() else _open_archive(path, ref)
    except FileNotFoundError:
        raise CommitError(
            f"there is no file or directory {path}", remedy=archive.again(path)
        ) from None
    except OSError as error:
        raise CommitError(f"cannot read {path}: {error.strerror or error}") from None


def diff(old: Commit, new: Commit, *, files: bool = True) -> CommitDiff:
    r"""The differences from `old` to `new`; with files=False nothing is unpacked or downloaded.

    >>> from rfe_helpers.commit import diff
    >>> changes = diff(commit, update, files=False)
    >>> print(*changes.added, sep="\n")
    jq-...
    libjq1-...
    ...

    Raises CommitError if one of them does not list its packages.
    """
    before, after = _versions(old), _versions(new)
    added: list[Package] = []
    removed: list[Package] = []
    changed: list[PackageChange] = []
    for key in sorted(before.keys() | after.keys()):
        only_old = [p for p in before.get(key, ()) if p not in after.get(key, ())]
        only_new = [p for p in after.get(key, ()) if p not in before.get(key, ())]
        for one, other in zip(only_old, only_new, strict=False):
            changed.append(PackageChange(*key, old=one.evr, new=other.evr))
        removed += only_old[len(only_new) :]
        added += only_new[len(only_old) :]
    listings = compare(old.files(), new.files()) if files else None
    return CommitDiff(old.id, new.id, tuple(added), tuple(removed), tuple(changed), listings)


def by_delta(old: Commit, new: Commit) -> Load:
    """What a client downloads that updates by a static delta from one commit to another; the delta
    is made for that, in a repository that is removed. Takes seconds.

    >>> from rfe_helpers.commit import by_delta
    >>> load = by_delta(commit, update)
    >>> load.requests, load.size < 1_000_000
    (2, True)
    """
    with tempfile.TemporaryDirectory(prefix="rfe-delta-", dir="/var/tmp") as directory:
        repository = Repo(directory).init("archive")
        for commit in (old, new):
            repository.pull_local(commit.repository.path, commit.id)
        repository.make_delta(old.id, new.id)
        return repository.delta(old.id, new.id)


# sources --------------------------------------------------------------------------------------


def _open_directory(path: Path, ref: str | None) -> Commit:
    root = path if (path / "objects").is_dir() else path / "repo"
    if not (root / "objects").is_dir():
        raise CommitError(
            f"{path} is not an OSTree repository: it has no objects directory",
            remedy="give the repository, or the directory in which it is called repo",
        )
    repo = Repo(root)
    name, commit = _choose(repo.refs(), ref, path)
    file = path / "compose.json"
    compose = archive.parse_object(file.read_bytes(), file) if file.is_file() else None
    return Commit(str(path), name, repo.show(commit), compose, lambda: repo)


def _open_url(url: str, ref: str | None, deadline: Deadline) -> Commit:
    scratch = _Scratch()
    repo = Repo(scratch.path).init()
    repo.add_remote("origin", url)
    name = ref
    if name is None:
        with _reading(url):
            listed = repo.remote_refs("origin", deadline=deadline)
        name = _choose(dict.fromkeys(listed, ""), None, url)[0]
    with _reading(url, name):
        commit = repo.pull("origin", name, commit_only=True, deadline=deadline)

    def whole() -> Repo:
        whole_repo = Repo(scratch.path)
        with _reading(url, name):
            whole_repo.pull("origin", name, deadline=Deadline(3600))
        return whole_repo

    info = repo.show(commit)
    return Commit(url, _name_of(info, name), info, None, whole)


# What ostree says about a server, as libcurl puts it, and what to do then.
_REMEDIES = {
    r"resolve|not known": "see that the host's name is right, and that this machine has a network",
    r"connect|refused|unreachable|timed? ?out": "see that its web server runs and can be reached "
    "from here: `curl -I {url}/config`; `rfe solve 40` starts that of a lab again",
    r"no summary": "pass the ref, or run `ostree summary -u` on the server",
    r"HTTP 404": "see what is missing there: `curl -I {url}/config` finds no repository, or "
    "`curl -I {url}/refs/heads/{ref}` finds no such ref",
    r"HTTP 40[13]": "ask for access: the server allows it only to some",
    r"HTTP 5": "the log of the web server says why",
    r"partial|closed|reset": "the connection broke off: try again",
}


@contextmanager
def _reading(url: str, ref: str = "") -> Iterator[None]:
    """Within the block a CommitError says what is wrong with the server; each cause has its own
    remedy."""
    try:
        yield
    except CommitError as error:
        reason = error.message.rpartition(": ")[2]
        remedies = (text for words, text in _REMEDIES.items() if re.search(words, reason, re.I))
        remedy = next(remedies, "see whether {url} is an OSTree repository")
        raise CommitError(
            f"cannot read {ref} at {url}: {reason}"
            if ref
            else f"{url} does not say which refs it has: {reason}",
            remedy=error.remedy or remedy.format(url=url.rstrip("/"), ref=ref or "REF"),
        ) from None


def _open_archive(path: Path, ref: str | None) -> Commit:
    archived = archive.contents(path)
    name, commit = _choose(archived.refs, ref, path)
    content = archived.commits.get(commit)
    if content is None:
        raise CommitError(f"{path} has no object for commit {commit}")
    if hashlib.sha256(content).hexdigest() != commit:
        raise CommitError(f"{path} is damaged: commit object {commit} has another checksum")
    # Objects are a few kilobytes each, and take whole pages.
    scratch = _Scratch(2 * path.stat().st_size)

    def whole() -> Repo:
        return Repo(archive.unpack(path, scratch.path / "whole"))

    directory = scratch.path / "commit"
    journal.record_shell(archive.unpacking(path, directory))
    journal.record_shell(f"cat {shlex.quote(f'{directory}/refs/heads/{name}')}", value=commit)
    info = _info(directory, commit, content)
    return Commit(str(path), name, info, archived.compose, whole)


def _info(directory: Path, commit: str, content: bytes) -> CommitInfo:
    """The content of a commit object, read by ostree in a repository that holds only that."""
    target = directory / "objects" / commit[:2] / f"{commit[2:]}.commit"
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    # Files that `ostree init` would make: this saves a process, as opening should be fast.
    (directory / "refs").mkdir()
    (directory / "config").write_text("[core]\nrepo_version=1\nmode=archive-z2\n")
    return Repo(directory).show(commit)


def _choose(refs: Mapping[str, str], ref: str | None, source: object) -> tuple[str, str]:
    """The chosen ref, and its commit."""
    if ref is not None and is_commit_id(ref):
        return next((name for name, commit in refs.items() if commit == ref), ref), ref
    if ref is not None and ref in refs:
        return ref, refs[ref]
    known = ", ".join(sorted(refs)) or "none"
    if ref is not None:
        raise CommitError(f"{source} has no ref {ref}", remedy=f"its refs: {known}")
    if len(refs) != 1:
        raise CommitError(f"{source} has {len(refs)} refs", remedy=f"pass one of its refs: {known}")
    return next(iter(refs.items()))


def _name_of(info: CommitInfo, ref: str) -> str:
    return info.refs[0] if is_commit_id(ref) and info.refs else ref


# details --------------------------------------------------------------------------------------


def _versions(commit: Commit) -> dict[tuple[str, str], list[Package]]:
    """Packages by name and architecture; a tree may have several versions of a kernel."""
    grouped: dict[tuple[str, str], list[Package]] = {}
    for package in commit.packages():
        grouped.setdefault((package.name, package.arch), []).append(package)
    return grouped


def _lists_packages(info: CommitInfo) -> bool:
    return "rpmostree.rpmdb.pkglist" in info.metadata


def _in_tree(path: str) -> str:
    """The path of a package's file in an OSTree tree."""
    first = path.split("/", 2)[1] if path.count("/") > 1 else ""
    return f"/usr{path}" if first in (*_MERGED, "etc") else path


def _largest_first(sizes: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _scratch(size: int | None = None) -> Path:
    """The directory for repositories, of `size` bytes if that is known."""
    chosen = os.environ.get("TMPDIR")
    return Path(chosen) if chosen else memory.directory(size)


class _Scratch:
    """A directory for a whole repository, removed when nothing refers to it any more.

    A program that is killed leaves its directory behind; the next one removes it, since the pid in
    its name does not exist any more.
    """

    def __init__(self, size: int | None = None) -> None:
        parent = _scratch(size)
        if not parent.is_dir():
            raise CommitError(
                f"there is no directory {parent} for temporary files",
                remedy="create it, or set TMPDIR to another directory",
            )
        for left in (*_scratch().glob(_LEFT), *memory.SHARED.glob(_LEFT)):
            if not Path("/proc", left.name.split("-")[2]).exists():
                shutil.rmtree(left, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=f"rfe-commit-{os.getpid()}-", dir=parent))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
