"""OSTree repositories, through the `ostree` command, which is the reference implementation.

A revision (`rev`) is a ref such as debian/13/x86_64/edge or a commit id of 64 hex digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rfe_helpers import gvariant, run
from rfe_helpers.errors import CommandFailed, CommitError
from rfe_helpers.wait import Deadline

PACKAGE_LIST = "rpmostree.rpmdb.pkglist"
# One argument of a command may be 128 KiB long (MAX_ARG_STRLEN of Linux).
_ARGUMENT_LIMIT = 131_072
_ENTRY = re.compile(
    r"(?P<kind>[-dlpcb])(?P<mode>[0-7]{5}) (?P<uid>\d+) (?P<gid>\d+) +(?P<size>\d+) "
    r"(?P<checksums>[0-9a-f]{64}(?: [0-9a-f]{64})?) (?P<path>/.*)"
)
_KINDS = {"-": "file", "d": "directory", "l": "link"}


@dataclass(frozen=True, order=True)
class Package:
    """A package of a commit, as in the commit metadata `rpmostree.rpmdb.pkglist`, type a(sssss).

    `epoch` is a decimal string, "0" for none; `release` is "" for packages without one (native
    Debian packages).
    """

    name: str
    epoch: str
    version: str
    release: str
    arch: str

    @property
    def evr(self) -> str:
        """[epoch:]version[-release]"""
        epoch = "" if self.epoch in ("", "0") else f"{self.epoch}:"
        return f"{epoch}{self.version}" + (f"-{self.release}" if self.release else "")

    def __str__(self) -> str:
        return f"{self.name}-{self.evr}.{self.arch}"


@dataclass(frozen=True)
class CommitInfo:
    """What a commit object says. `refs` are the refs that it is bound to, `version` may be ""."""

    id: str
    parent: str | None
    refs: tuple[str, ...]
    subject: str
    body: str
    timestamp: datetime
    version: str
    metadata: Mapping[str, Any]

    @property
    def packages(self) -> tuple[Package, ...]:
        """The packages it was made of. Raises CommitError if it does not tell."""
        listed = self.metadata.get(PACKAGE_LIST)
        if listed is None:
            raise CommitError(
                f"commit {self.id[:12]} carries no package list",
                remedy="only commits made by rpm-ostree or by the sandbox have one",
            )
        return tuple(Package(*row) for row in listed)


@dataclass(frozen=True)
class File:
    """An entry of a tree. `kind` is "file", "directory" or "link"; `size` in bytes.

    `checksum` covers content, owner, mode and extended attributes of a file or link; of a
    directory only its own owner, mode and attributes, not what is in it.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    target: str
    checksum: str


@dataclass(frozen=True)
class FileDiff:
    """Paths that differ between two trees, sorted."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    modified: tuple[str, ...]


class Repo:
    """A repository in a directory. Every method raises CommitError with ostree's own words."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Repo({str(self.path)!r})"

    def init(self, mode: str = "archive") -> Repo:
        """Make the repository if it is not there; an existing one is left as it is."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._ostree("init", f"--mode={mode}")
        return self

    def configure(self, key: str, value: str) -> None:
        """Set a key of the repository's configuration, such as archive.zlib-level."""
        self._ostree("config set", key, value)

    # reading ----------------------------------------------------------------------------------

    def refs(self) -> dict[str, str]:
        """All refs with the commits they point at."""
        names = sorted(self._ostree("refs", "--list").split())
        if not names:
            return {}
        return dict(zip(names, self._ostree("rev-parse", *names).split(), strict=True))

    def resolve(self, rev: str) -> str:
        """The commit id that `rev` stands for."""
        return self._ostree("rev-parse", rev).strip()

    def show(self, rev: str) -> CommitInfo:
        """What the commit object of `rev` says."""
        heading, _, text = self._ostree("show", "--raw", rev).partition("\n")
        metadata, parent, _, subject, body, seconds, _, _ = gvariant.parse(text)
        return CommitInfo(
            id=heading.removeprefix("commit "),
            parent=parent.hex() if parent else None,
            refs=tuple(metadata.get("ostree.ref-binding", ())),
            subject=subject,
            body=body,
            timestamp=datetime.fromtimestamp(seconds, UTC),
            version=str(metadata.get("version", "")),
            metadata=metadata,
        )

    def content_checksum(self, rev: str) -> str:
        """The digest of the tree alone, the same for two commits of the same content."""
        for line in self._ostree("show", rev).splitlines():
            key, _, value = line.partition(":")
            if key == "ContentChecksum":
                return value.strip()
        raise CommitError(f"ostree show printed no ContentChecksum for {rev}")

    def packages(self, rev: str) -> tuple[Package, ...]:
        """The packages that the commit lists."""
        return self.show(rev).packages

    def ls(self, rev: str, path: str = "/", *, recursive: bool = True) -> list[File]:
        """The entries of a tree, a directory before its contents."""
        options = ["--checksum", "--recursive"] if recursive else ["--checksum"]
        return _parse_listing(self._ostree("ls", *options, rev, path))

    def read(self, rev: str, path: str) -> str:
        """The content of a text file in a tree."""
        return self._ostree("cat", rev, path)

    def diff(self, old: str, new: str) -> FileDiff:
        """The paths that differ from `old` to `new`."""
        return compare(self.ls(old), self.ls(new))

    def fsck(self, *, deadline: Deadline | None = None) -> None:
        """Check every object of the repository. Raises CommitError for a damaged one."""
        self._ostree("fsck", "--quiet", deadline=deadline)

    # writing ----------------------------------------------------------------------------------

    def commit_tar(
        self,
        tar: Path,
        ref: str,
        *,
        subject: str,
        parent: str | None = None,
        version: str = "",
        packages: Iterable[Package] | None = None,
        metadata: Mapping[str, str] | None = None,
        timestamp: datetime | None = None,
        bootable: bool = True,
        log: Path | None = None,
        deadline: Deadline | None = None,
        on_start: Callable[[run.ProcessId], None] | None = None,
    ) -> str:
        """Commit the tree in a tar file to `ref` and return the commit's id.

        `parent` is a commit id, which need not be in this repository; None makes a commit
        without one, whatever the ref points at. Values of `metadata` are GVariant text.
        `bootable` wants a kernel in the tree. Raises CommitError.
        """
        values = dict(metadata or {})
        if version:
            values["version"] = gvariant.string(version)
        if packages is not None:
            rows = [(p.name, p.epoch, p.version, p.release, p.arch) for p in sorted(packages)]
            values[PACKAGE_LIST] = gvariant.strings(rows, 5)
        options = [f"--add-metadata={key}={value}" for key, value in values.items()]
        if any(len(option.encode()) >= _ARGUMENT_LIMIT for option in options):
            raise CommitError("the commit's metadata is too long to be passed to ostree")
        if timestamp is not None:
            options.append(f"--timestamp=@{int(timestamp.timestamp())}")
        if bootable:
            options.append("--bootable")
        printed = self._ostree(
            "commit",
            f"--branch={ref}",
            f"--tree=tar={tar}",
            f"--subject={subject}",
            f"--parent={parent or 'none'}",
            *options,
            deadline=deadline,
            log=log,
            on_start=on_start,
        )
        commit = printed.split()[-1] if printed.split() else ""
        if not is_commit_id(commit):
            raise CommitError(f"ostree commit printed no commit id: {printed!r}", log=log)
        return commit

    def pull_local(
        self,
        source: Path,
        *revs: str,
        deadline: Deadline | None = None,
        log: Path | None = None,
        on_start: Callable[[run.ProcessId], None] | None = None,
    ) -> None:
        """Copy revisions (all refs if none is named) from another repository on this machine."""
        self._ostree(
            "pull-local", str(source), *revs, deadline=deadline, log=log, on_start=on_start
        )

    def add_remote(self, name: str, url: str) -> None:
        """Name a repository elsewhere; its signatures are not checked."""
        self._ostree("remote add", "--no-sign-verify", "--no-gpg-verify", "--force", name, url)

    def pull(
        self,
        remote: str,
        rev: str,
        *,
        commit_only: bool = False,
        deadline: Deadline | None = None,
        log: Path | None = None,
    ) -> str:
        """Fetch one commit without its history and return its id; every object is checked.

        `commit_only` fetches the commit object alone, not its tree.
        """
        options = ["--commit-metadata-only"] if commit_only else []
        self._ostree("pull", *options, "--depth=0", remote, rev, deadline=deadline, log=log)
        return self.resolve(rev if is_commit_id(rev) else f"{remote}:{rev}")

    def remote_refs(self, remote: str, *, deadline: Deadline | None = None) -> list[str]:
        """The refs that a remote's summary names, without the remote's own name."""
        lines = self._ostree("remote refs", remote, deadline=deadline).split()
        return sorted(line.removeprefix(f"{remote}:") for line in lines)

    def checkout(self, rev: str, path: str, destination: Path) -> None:
        """Unpack a directory of a tree, owned by the caller; `destination` must not exist."""
        self._ostree("checkout", "--user-mode", f"--subpath={path}", rev, str(destination))

    def set_ref(self, ref: str, commit: str) -> None:
        """Let `ref` point at a commit of this repository."""
        self._ostree("refs", "--force", f"--create={ref}", commit)

    def update_summary(self) -> None:
        """Write the summary anew: needed after every publication, a stale one wins over refs."""
        self._ostree("summary", "--update")

    def _ostree(
        self,
        command: str,
        *arguments: str,
        deadline: Deadline | None = None,
        log: Path | None = None,
        on_start: Callable[[run.ProcessId], None] | None = None,
    ) -> str:
        argv = ["ostree", *command.split(), f"--repo={self.path}", *arguments]
        try:
            return run.run(argv, deadline=deadline, log=log, on_start=on_start).stdout
        except CommandFailed as error:
            raise _explained(error, f"ostree {command} in {self.path}") from error


def compare(old: Iterable[File], new: Iterable[File]) -> FileDiff:
    """The paths that differ between two listings."""
    before = {file.path: (file.kind, file.checksum) for file in old}
    after = {file.path: (file.kind, file.checksum) for file in new}
    return FileDiff(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        modified=tuple(sorted(p for p in before.keys() & after.keys() if before[p] != after[p])),
    )


def is_commit_id(text: str) -> bool:
    """Whether `text` is 64 lower-case hex digits."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _parse_listing(text: str) -> list[File]:
    """Entries of `ostree ls --checksum`; a line that is none belongs to the name before it."""
    found: list[re.Match[str]] = []
    paths: list[str] = []
    for line in text.splitlines():
        match = _ENTRY.fullmatch(line)
        if match is not None:
            found.append(match)
            paths.append(match["path"])
        elif paths:
            paths[-1] += f"\n{line}"
        else:
            raise CommitError(f"ostree ls printed an unknown line: {line!r}")
    return [_file(match, path) for match, path in zip(found, paths, strict=True)]


def _file(match: re.Match[str], path: str) -> File:
    kind = _KINDS.get(match["kind"], "special")
    path, _, target = path.partition(" -> ") if kind == "link" else (path, "", "")
    return File(
        path=path,
        kind=kind,
        mode=int(match["mode"], 8),
        uid=int(match["uid"]),
        gid=int(match["gid"]),
        size=int(match["size"]),
        target=target,
        # A directory has two: of its contents, and of its own metadata.
        checksum=match["checksums"].split()[-1],
    )


def _explained(error: CommandFailed, what: str) -> CommitError:
    """ostree's last words as one message, with a remedy where there is a common one."""
    lines = [line for line in error.tail.splitlines() if line.strip()]
    reason = lines[-1].removeprefix("error: ") if lines else error.message
    remedy = error.remedy
    if "No space left on device" in reason:
        remedy = "free some disk space and do it again; `rfe doctor` says how much is needed"
    return CommitError(f"{what}: {reason}", remedy=remedy, log=error.log)
