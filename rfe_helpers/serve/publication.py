"""A published repository that keeps its history: signed, with static deltas, updated atomically.

An artifact of Image Builder holds one commit. Devices that update need more: earlier commits,
signatures, static deltas. A publication is a repository in archive mode in a directory of its own:

    repo/               what is served (serve.publish takes this directory)
    publication.json    {"refs": {ref: [commit, …]}}: the commits that are kept, oldest first
    lock                held while a commit is published

Only `publish` writes here. Its order makes it atomic for readers: first the objects of the new
commit, then its signature and delta, then the ref, then the summary, each put in place by a rename.
A client sees the old state or the new one, and all objects of both. A publisher that is killed
leaves the old state (or the new ref with the old summary, which clients see as the old state);
publishing again completes it. Old commits are removed last: the newest `keep` of each ref stay, so
that a slow device can still fetch the one before the newest.

A summary and its signature are two files, so a client that requires signed summaries may read an
old one and a new one; it refuses them and succeeds at its next attempt.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.commit import archive, drift
from rfe_helpers.commit.ostree import Load, Repo
from rfe_helpers.commit.signing import SigningKey, signing_key
from rfe_helpers.core import files, progress
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommitError, InputError
from rfe_helpers.lab.lab import Lab

KEEP = 3
# The bytes of one request beside its content: the headers of both sides.
REQUEST_BYTES = 400
# With fewer objects a delta was not faster on a slow line with high latency (docs/deltas.md).
FEW_REQUESTS = 500


@dataclass(frozen=True)
class Published:
    """The result of publishing a commit. `previous` is the commit before it; `by_objects` is the
    load of the update object by object, `delta` by the static delta, None if none was kept;
    `removed` are old commits that were removed; `warnings` are about the commit as an update.

    >>> from rfe_helpers import serve
    >>> published = serve.Publication.of(lab).publish(artifact.path, commit.ref)
    >>> published.commit == commit.id, published.warnings
    (True, ())
    """

    commit: str
    previous: str | None
    by_objects: Load | None
    delta: Load | None
    removed: tuple[str, ...]
    warnings: tuple[str, ...]


class Publication:
    """A published repository in a directory.

    >>> from rfe_helpers import serve
    >>> publication = serve.Publication.of(lab)
    >>> publication.repo.path
    PosixPath('.../www/publication/repo')
    >>> publication.history("debian/13/x86_64/shop")  # nothing is published there
    ()

    `key` signs commits and the summary; with None nothing is signed. `keep` is the number of
    commits of each ref that stay, at least 2 (InputError).
    """

    def __init__(self, directory: Path, key: SigningKey | None = None, *, keep: int = KEEP) -> None:
        if keep < 2:
            raise InputError(
                f"a publication cannot keep {keep} commits of a ref",
                remedy="keep 2 or more: devices are still fetching the one before the newest",
            )
        self.directory = directory
        self.key = key
        self.keep = keep
        self.repo = Repo(directory / "repo").init()

    @classmethod
    def of(cls, lab: Lab, *, keep: int = KEEP) -> Publication:
        """The publication of a lab, signed with its key; both are created at the first call."""
        key = signing_key(lab.path("keys", "gnupg"))
        return cls(lab.path("www", "publication"), key, keep=keep)

    def __repr__(self) -> str:
        return f"Publication({str(self.directory)!r})"

    def history(self, ref: str) -> tuple[str, ...]:
        """The commits of a ref that are kept, oldest first; () for an unknown ref."""
        return tuple(self._state().get(ref, ()))

    def publish(
        self,
        source: Path,
        ref: str,
        *,
        delta: str = "auto",
        deadline: Deadline | float | None = None,
        on_progress: OnProgress = None,
    ) -> Published:
        """Publish the commit of `ref` in a container.tar, commit.tar or repository directory.

        `delta` is "auto" (a static delta from the commit before is made if the update has many
        objects, and kept if it needs fewer bytes), "always" or "never". Publishing a commit again
        completes what is missing and changes nothing else. Raises CommitError.
        """
        if delta not in ("auto", "always", "never"):
            raise InputError(
                f"unknown mode of deltas {delta!r}", remedy="use auto, always or never"
            )
        say = progress.say(on_progress)
        limit = None if deadline is None else Deadline.of(deadline)
        with self._alone(), tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            say("copying new objects")
            origin = source if source.is_dir() else archive.unpack(source, Path(scratch, "repo"))
            commit = Repo(origin).resolve(ref)
            self._complete(ref)
            self.repo.pull_local(origin, commit, deadline=limit)
            previous = self._previous(ref, commit)
            warnings = self._warnings(commit, previous)
            if self.key is not None:
                say("signing")
                self.repo.sign(commit, self.key)
            by_objects = self.repo.update_load(previous, commit) if previous else None
            by_delta = None
            many = by_objects is not None and by_objects.requests >= FEW_REQUESTS
            if previous and by_objects and (delta == "always" or (delta == "auto" and many)):
                say("making the static delta")
                by_delta = self._make_delta(previous, commit, by_objects, delta, limit)
            say("publishing")
            self.repo.set_ref(ref, commit)
            self._remember(ref, commit)
            removed = self._remove_old(ref)
            # A summary lists refs and deltas, so it is written after both.
            self.repo.update_summary(self.key)
        return Published(commit, previous, by_objects, by_delta, removed, warnings)

    def withdraw(self, ref: str, commit: str) -> None:
        """Point `ref` at an older commit that is kept. Devices do not follow, since theirs is
        newer: this is for new installations, until a repaired commit is published. Raises
        CommitError for a commit that is not kept."""
        with self._alone():
            if commit not in self.history(ref):
                raise CommitError(f"{commit[:12]} is not among the kept commits of {ref}")
            self.repo.set_ref(ref, commit)
            self.repo.update_summary(self.key)

    # details ----------------------------------------------------------------------------------

    def _complete(self, ref: str) -> None:
        """Record the commit that a killed publisher has served, but not recorded."""
        served = self.repo.refs().get(ref)
        if served is not None and served not in self.history(ref):
            self._remember(ref, served)

    def _previous(self, ref: str, commit: str) -> str | None:
        """The commit that devices update from: the newest one other than `commit`."""
        others = [known for known in self.history(ref) if known != commit]
        return others[-1] if others else None

    def _warnings(self, commit: str, previous: str | None) -> tuple[str, ...]:
        if previous is None:
            return ()
        warnings = [parent_warning(self.repo.show(commit).parent, previous)]
        warnings += [str(change) for change in drift.between(self.repo, previous, commit)]
        return tuple(line for line in warnings if line)

    def _make_delta(
        self, old: str, new: str, by_objects: Load, mode: str, deadline: Deadline | None
    ) -> Load | None:
        """Make the static delta and return its load; None if it is not worth keeping."""
        self.repo.make_delta(old, new, deadline=deadline)
        by_delta = self.repo.delta(old, new)
        if mode == "auto" and not delta_pays(by_delta, by_objects):
            self.repo.remove_delta(old, new)
            return None
        return by_delta

    def _remember(self, ref: str, commit: str) -> None:
        state = self._state()
        state[ref] = [*(known for known in state.get(ref, ()) if known != commit), commit]
        files.write_json(self.directory / "publication.json", {"refs": state})

    def _remove_old(self, ref: str) -> tuple[str, ...]:
        state = self._state()
        used = {commit for other, commits in state.items() if other != ref for commit in commits}
        removed = state[ref][: -self.keep]
        for commit in removed:
            if commit not in used and self.repo.has_commit(commit):
                self.repo.remove_commit(commit)
        state[ref] = state[ref][-self.keep :]
        files.write_json(self.directory / "publication.json", {"refs": state})
        return tuple(removed)

    def _state(self) -> dict[str, list[str]]:
        try:
            return dict(json.loads((self.directory / "publication.json").read_text())["refs"])
        except FileNotFoundError:
            return {}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with files.locked(self.directory / "lock"):
            yield


def delta_pays(by_delta: Load, by_objects: Load) -> bool:
    """Whether a static delta is worth keeping: many requests are saved, and it is smaller."""
    smaller = transfer_bytes(by_delta) < transfer_bytes(by_objects)
    return by_objects.requests >= FEW_REQUESTS and smaller


def transfer_bytes(load: Load) -> int:
    """The bytes that a load transfers, including the headers of its requests."""
    return load.size + load.requests * REQUEST_BYTES


def parent_warning(parent: str | None, published: str) -> str:
    """A warning about the parent of a commit that follows `published`; "" if it is right."""
    if parent is None:
        return (
            "the update has no parent: devices accept it, but its history starts over and does not "
            "say what it was made from; compose it with a parent or the repository's URL"
        )
    if parent != published:
        return (
            f"the update's parent is {parent[:12]}, not {published[:12]}, the published commit: "
            "somebody else may have published meanwhile, and their changes may be missing"
        )
    return ""
