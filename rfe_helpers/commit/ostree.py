"""OSTree repositories, by the `ostree` command, which is the reference implementation.

A revision (`rev`) is a ref such as debian/13/x86_64/edge or a commit id of 64 hex digits.
"""

from __future__ import annotations

import base64
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rfe_helpers.commit import gvariant, listing
from rfe_helpers.commit.signing import SigningKey, reachable
from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, CommitError

PACKAGE_LIST = "rpmostree.rpmdb.pkglist"
# One argument of a command may have 128 KiB (MAX_ARG_STRLEN of Linux).
_ARGUMENT_LIMIT = 131_072


@dataclass(frozen=True, order=True)
class Package:
    """A package of a commit, as in its metadata `rpmostree.rpmdb.pkglist`, type a(sssss).

    `epoch` is a decimal string, "0" for none; `release` is "" for packages without one (native
    Debian packages).

    >>> package = commit.packages()[0]
    >>> package.name, package.evr, package.arch
    ('adduser', '3...', 'all')
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
    """The content of a commit object. `refs` are those that it is bound to; `version` may be ""."""

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
        """The packages of its tree. Raises CommitError if the commit does not list them."""
        listed = self.metadata.get(PACKAGE_LIST)
        if listed is None:
            raise CommitError(
                f"commit {self.id[:12]} has no package list",
                remedy="only commits made by rpm-ostree or by the sandbox have one",
            )
        return tuple(Package(*row) for row in listed)


@dataclass(frozen=True)
class Load:
    """What a client downloads: the number of requests, and the bytes of content."""

    requests: int
    size: int


class Repo:
    """A repository in a directory. Every method raises CommitError with ostree's message.

    >>> from rfe_helpers.commit import Repo
    >>> repo = Repo("device").init("bare-user")
    >>> repo.add_remote("edge", site.repo_url)
    >>> pulled = repo.pull("edge", "debian/13/x86_64/edge", commit_only=True)
    >>> repo.refs()
    {'edge:debian/13/x86_64/edge': '...'}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Repo({str(self.path)!r})"

    def init(self, mode: str = "archive") -> Repo:
        """Create the repository if it does not exist; an existing one is not changed."""
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
        """The commit id of `rev`."""
        return self._ostree("rev-parse", rev).strip()

    def show(self, rev: str) -> CommitInfo:
        """The content of the commit object of `rev`."""
        # Signatures, if there are any, follow after these two lines.
        heading, text, *_ = self._ostree("show", "--raw", rev).split("\n")
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
        """The checksum of the tree alone: commits with the same tree have the same one."""
        for line in self._ostree("show", rev).splitlines():
            key, _, value = line.partition(":")
            if key == "ContentChecksum":
                return value.strip()
        raise CommitError(f"ostree show printed no ContentChecksum for {rev}")

    def ls(self, rev: str, path: str = "/", *, recursive: bool = True) -> list[listing.File]:
        """The entries of a tree, a directory before its contents."""
        options = ["--checksum", "--recursive"] if recursive else ["--checksum"]
        return listing.parse(self._ostree("ls", *options, rev, path))

    def read(self, rev: str, path: str) -> str:
        """The content of a text file in a tree."""
        return self._ostree("cat", rev, path)

    def has_file(self, rev: str, path: str) -> bool:
        """Whether a tree has a file or directory `path`."""
        try:
            self._ostree("ls", rev, path)
        except CommitError as error:
            if "No such file or directory" in error.message:
                return False
            raise
        return True

    def objects(self, rev: str) -> list[str]:
        """The objects of a commit, including the commit itself, as <checksum>.<type>, sorted."""
        names = {f"{self.resolve(rev)}.commit"}
        for match, _ in listing.entries(self._ostree("ls", "--checksum", "--recursive", rev, "/")):
            first, *second = match["checksums"].split()
            names.add(f"{first}.{'dirtree' if second else 'file'}")
            names.update(f"{checksum}.dirmeta" for checksum in second)
        return sorted(names)

    def fsck(self, *, deadline: Deadline | float | None = None) -> None:
        """Check every object of the repository. Raises CommitError for a damaged one."""
        self._ostree("fsck", "--quiet", deadline=deadline)

    # writing ----------------------------------------------------------------------------------

    def commit_tar(
        self,
        tar: Path,
        ref: str,
        *,
        subject: str,
        below: str = "",
        parent: str | None = None,
        version: str = "",
        packages: Iterable[Package] | None = None,
        metadata: Mapping[str, str] | None = None,
        timestamp: datetime | None = None,
        bootable: bool = True,
        orphan: bool = False,
        log: Path | None = None,
        deadline: Deadline | float | None = None,
        on_start: Callable[[run.ProcessId], None] | None = None,
    ) -> str:
        """Commit the tree in a tar file to `ref` and return the commit's id.

        `below` is a commit of this repository over whose tree the tar is laid. `parent` is a commit
        id, which need not be here; None makes a commit without a parent, whatever the ref points
        at. Values of `metadata` are GVariant text. `bootable` requires a kernel in the tree.
        `orphan` makes a commit that names `ref` as its own, and leaves the ref itself alone: in a
        repository that all composes share, "edge" would exclude "edge/stable".
        """
        options = [f"--tree=ref={below}"] if below else []
        options += [f"--tree=tar={tar}", *_metadata_options(metadata or {}, version, packages)]
        if timestamp is not None:
            options.append(f"--timestamp=@{int(timestamp.timestamp())}")
        if bootable:
            options.append("--bootable")
        printed = self._ostree(
            "commit",
            *(("--orphan", f"--bind-ref={ref}") if orphan else (f"--branch={ref}",)),
            f"--subject={subject}",
            f"--parent={parent or 'none'}",
            *options,
            deadline=deadline,
            log=log,
            on_start=on_start,
        )
        commit = (printed.split() or [""])[-1]
        if not is_commit_id(commit):
            raise CommitError(f"ostree commit printed no commit id: {printed!r}", log=log)
        return commit

    def pull_local(
        self,
        source: Path,
        *revs: str,
        deadline: Deadline | float | None = None,
        log: Path | None = None,
        on_start: Callable[[run.ProcessId], None] | None = None,
    ) -> None:
        """Copy revisions (all refs if `revs` is empty) from another repository on this machine."""
        self._ostree(
            "pull-local", str(source), *revs, deadline=deadline, log=log, on_start=on_start
        )

    def add_remote(self, name: str, url: str, *, key: str = "", ca: Path | None = None) -> None:
        """Add the remote `name`, in place of an existing one.

        `key` is an armoured public key: only commits signed with it are accepted. Without it
        signatures are not checked. `ca` is a file of CA certificates, the only ones that are
        trusted for the server.
        """
        options = [] if key else ["--no-sign-verify", "--no-gpg-verify"]
        options += [] if ca is None else [f"--set=tls-ca-path={ca}"]
        # Not --force: the remote would keep its old keys.
        self._ostree("remote delete", "--if-exists", name)
        with tempfile.NamedTemporaryFile("w", suffix=".asc") as file:
            if key:
                file.write(key)
                file.flush()
                options.append(f"--gpg-import={file.name}")
            self._ostree("remote add", *options, name, url)

    def pull(
        self,
        remote: str,
        rev: str,
        *,
        commit_only: bool = False,
        newer: bool = False,
        retries: int | None = None,
        deadline: Deadline | float | None = None,
        log: Path | None = None,
    ) -> str:
        """Download a commit without its history and return its id; every object is checked.

        `commit_only` downloads the commit object without its tree; `newer` refuses a commit that
        is older than the one here, as a device's upgrade does; `retries` is the number of retries
        of a failed request, None for ostree's default (5).
        """
        options = ["--commit-metadata-only"] if commit_only else []
        options += ["--timestamp-check"] if newer else []
        options += [] if retries is None else [f"--network-retries={retries}"]
        self._ostree("pull", *options, "--depth=0", remote, rev, deadline=deadline, log=log)
        return self.resolve(rev if is_commit_id(rev) else f"{remote}:{rev}")

    def pull_seconds(self, remote: str, rev: str, *, deltas: bool) -> float:
        """The seconds that a pull takes: by static delta, which must exist, or by objects."""
        option = "--require-static-deltas" if deltas else "--disable-static-deltas"
        began = time.monotonic()
        self._ostree("pull", option, "--depth=0", remote, rev, deadline=Deadline(7200))
        return time.monotonic() - began

    def refusal(
        self,
        remote: str,
        rev: str,
        *,
        commit_only: bool = False,
        newer: bool = False,
        retries: int | None = None,
    ) -> str:
        """Why `pull` refuses a commit, in ostree's words; "" if it accepts it."""
        try:
            self.pull(remote, rev, commit_only=commit_only, newer=newer, retries=retries)
        except CommitError as error:
            return error.message
        return ""

    def remote_refs(self, remote: str, *, deadline: Deadline | float | None = None) -> list[str]:
        """The refs in a remote's summary, without the name of the remote."""
        lines = self._ostree("remote refs", remote, deadline=deadline).split()
        return sorted(line.removeprefix(f"{remote}:") for line in lines)

    def checkout(self, rev: str, path: str, destination: Path) -> None:
        """Unpack a directory of a tree, owned by the caller; `destination` must not exist."""
        self._ostree("checkout", "--user-mode", f"--subpath={path}", rev, str(destination))

    def set_ref(self, ref: str, commit: str) -> None:
        """Point `ref` at a commit of this repository."""
        self._ostree("refs", "--force", f"--create={ref}", commit)

    def update_summary(self, key: SigningKey | None = None) -> None:
        """Rewrite the summary: clients read it rather than the refs, so it must be up to date."""
        self._signed("summary", key, "--update")

    def sign(self, commit: str, key: SigningKey) -> None:
        """Sign a commit of this repository, unless `key` has signed it already."""
        with reachable(key.home) as home:
            try:
                self._ostree("gpg-sign", f"--gpg-homedir={home}", commit, key.id)
            except CommitError as error:
                if "already signed" not in error.message:
                    raise

    def make_delta(
        self, old: str | None, new: str, *, deadline: Deadline | float | None = None
    ) -> None:
        """Make the static delta from one commit to another (None: from nothing)."""
        start = f"--from={old}" if old else "--empty"
        self._ostree("static-delta generate", start, f"--to={new}", deadline=deadline)

    def remove_delta(self, old: str | None, new: str) -> None:
        """Remove a static delta."""
        self._ostree("static-delta delete", f"{old}-{new}" if old else new)

    def delta(self, old: str | None, new: str) -> Load:
        """The load of an update by a static delta: its superblock, its parts, and the large
        objects that are not in it."""
        text = self._ostree("static-delta show", f"{old}-{new}" if old else new)
        facts = dict(re.findall(r"^([\w ]+): (\d+)", text, re.MULTILINE))
        superblock = self.delta_directory(old, new) / "superblock"
        requests = 1 + int(facts["Number of parts"]) + int(facts["Number of fallback entries"])
        sizes = int(facts["Total Part Size"]) + int(facts["Total Fallback Size"])
        return Load(requests, superblock.stat().st_size + sizes)

    def delta_directory(self, old: str | None, new: str) -> Path:
        """Where the files of a static delta are."""
        name = "-".join(_modified_base64(checksum) for checksum in (old, new) if checksum)
        return self.path / "deltas" / name[:2] / name[2:]

    def update_load(self, old: str, new: str) -> Load:
        """The load of an update from one commit to another object by object, from this repository
        in archive mode."""
        names = set(self.objects(new)) - set(self.objects(old))
        stored = [f"{name}z" if name.endswith(".file") else name for name in names]
        paths = [self.path / "objects" / name[:2] / name[2:] for name in stored]
        return Load(len(paths), sum(path.stat().st_size for path in paths))

    def remove_commit(self, commit: str) -> None:
        """Remove a commit that no ref points at, and its objects that no other commit uses."""
        self._ostree("prune", f"--delete-commit={commit}")

    def has_commit(self, commit: str) -> bool:
        """Whether the repository has the commit object."""
        return (self.path / "objects" / commit[:2] / f"{commit[2:]}.commit").exists()

    def _signed(self, command: str, key: SigningKey | None, *arguments: str) -> None:
        if key is None:
            self._ostree(command, *arguments)
            return
        with reachable(key.home) as home:
            self._ostree(command, f"--gpg-homedir={home}", f"--gpg-sign={key.id}", *arguments)

    def _ostree(
        self,
        command: str,
        *arguments: str,
        deadline: Deadline | float | None = None,
        log: Path | None = None,
        on_start: Callable[[run.ProcessId], None] | None = None,
    ) -> str:
        argv = ["ostree", *command.split(), f"--repo={self.path}", *arguments]
        try:
            return run.run(argv, deadline=deadline, log=log, on_start=on_start).stdout
        except CommandFailedError as error:
            raise _explained(error, f"ostree {command} in {self.path}") from error


def _metadata_options(
    metadata: Mapping[str, str], version: str, packages: Iterable[Package] | None
) -> list[str]:
    """The options of `ostree commit` that give a commit its metadata."""
    values = dict(metadata)
    if version:
        values["version"] = gvariant.string(version)
    if packages is not None:
        rows = [(p.name, p.epoch, p.version, p.release, p.arch) for p in sorted(packages)]
        values[PACKAGE_LIST] = gvariant.strings(rows, 5)
    options = [f"--add-metadata={key}={value}" for key, value in values.items()]
    if any(len(option.encode()) >= _ARGUMENT_LIMIT for option in options):
        raise CommitError("the commit's metadata is too long to be passed to ostree")
    return options


def is_commit_id(text: str) -> bool:
    """Whether `text` is 64 lower-case hex digits."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _modified_base64(checksum: str) -> str:
    """A checksum as ostree writes it in the names of deltas."""
    encoded = base64.b64encode(bytes.fromhex(checksum)).decode()
    return encoded.rstrip("=").replace("/", "_")


def _explained(error: CommandFailedError, what: str) -> CommitError:
    """ostree's last message as an error."""
    lines = [" ".join(line.split()) for line in error.tail.splitlines() if line.strip()]
    # A message about a signature has several lines.
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    reason = " ".join(lines[starts[-1] if starts else -1 :]).removeprefix("error: ")
    return CommitError(f"{what}: {reason or error.message}", remedy=error.remedy, log=error.log)
