"""A published repository that keeps its history: signed, with static deltas, renewed atomically.

Image Builder's artifacts hold one commit each. Devices that update want more: the commits before
it, signatures, deltas. A publication is a repository in archive mode in a directory of its own:

    repo/               what is served (serve.publish takes this directory)
    publication.json    {"refs": {ref: [commit, …]}}, oldest first: what is kept, by the policy
    lock                held while something is published

Only `publish` writes here. Its order makes it atomic for readers: the objects of the new commit
come first, then its signature and delta, then the ref, then the summary, each in place by a
rename; a client sees the old state or the new one, and all objects of both. A publisher that is
killed leaves the old state (or the new ref with the old summary, which is the old state to
clients); publishing again completes it. Old commits are removed last: of each ref the newest
`keep` stay, so that a device may take its time with the one before the newest.

A summary and its signature are two files, so a client that demands signed summaries may read one
of each state in that moment; it refuses them and succeeds at its next try.
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
# What one request costs on the line beside its content: both headers.
REQUEST_BYTES = 400
# An update of fewer objects was no faster with a delta on a slow, distant line (docs/deltas.md).
FEW_REQUESTS = 500


@dataclass(frozen=True)
class Published:
    """What a publication brought. `loose` is the load of an update object by object, `delta` that
    of the static delta, if one was kept; `removed` are commits that the policy ended;
    `warnings` say what is odd about the commit as an update."""

    commit: str
    previous: str | None
    loose: Load | None
    delta: Load | None
    removed: tuple[str, ...]
    warnings: tuple[str, ...]


class Publication:
    """A published repository in a directory; `key` signs commits and the summary, None does not."""

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
        """The publication of a lab, signed with the lab's key; both are made at the first call."""
        key = signing_key(lab.path("keys", "gnupg"))
        return cls(lab.path("www", "publication"), key, keep=keep)

    def __repr__(self) -> str:
        return f"Publication({str(self.directory)!r})"

    def history(self, ref: str) -> tuple[str, ...]:
        """The commits of a ref that are kept, oldest first."""
        return tuple(self._state().get(ref, ()))

    def publish(
        self,
        source: Path,
        ref: str,
        *,
        delta: str = "pays",
        deadline: Deadline | None = None,
        on_progress: OnProgress = None,
    ) -> Published:
        """Publish what `ref` points at in a container.tar, commit.tar or repository directory.

        `delta` is "pays" (a static delta from the commit before is made if the update has many
        objects, and kept if it costs fewer bytes than they do), "always" or "never". Doing it again
        completes or changes nothing. Raises CommitError.
        """
        if delta not in ("pays", "always", "never"):
            raise InputError(f"there is no way {delta!r} of deltas", remedy="pays, always or never")
        say = progress.say(on_progress)
        with self._alone(), tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            say("copying new objects")
            origin = source if source.is_dir() else archive.unpack(source, Path(scratch, "repo"))
            commit = Repo(origin).resolve(ref)
            self._complete(ref)
            self.repo.pull_local(origin, commit, deadline=deadline)
            previous = self._previous(ref, commit)
            warnings = self._warnings(commit, previous)
            if self.key is not None:
                say("signing")
                self.repo.sign(commit, self.key)
            loose = self.repo.loose(previous, commit) if previous else None
            kept = None
            many = loose is not None and loose.requests >= FEW_REQUESTS
            if previous and loose and (delta == "always" or (delta == "pays" and many)):
                say("making the static delta")
                kept = self._make_delta(previous, commit, loose, delta, deadline)
            say("publishing")
            self.repo.set_ref(ref, commit)
            self._remember(ref, commit)
            removed = self._remove_old(ref)
            # A summary lists refs and deltas, so it comes after both have changed for good.
            self.repo.update_summary(self.key)
        return Published(commit, previous, loose, kept, removed, warnings)

    def withdraw(self, ref: str, commit: str) -> None:
        """Let `ref` point at an older commit that is kept. Devices refuse to follow: their own is
        newer. It is for new installations, until a mended commit is published."""
        with self._alone():
            if commit not in self.history(ref):
                raise CommitError(f"{commit[:12]} is not among the kept commits of {ref}")
            self.repo.set_ref(ref, commit)
            self.repo.update_summary(self.key)

    # details ----------------------------------------------------------------------------------

    def _complete(self, ref: str) -> None:
        """Remember what a publication that was killed has served already."""
        served = self.repo.refs().get(ref)
        if served is not None and served not in self.history(ref):
            self._remember(ref, served)

    def _previous(self, ref: str, commit: str) -> str | None:
        """The commit that devices run which are to take `commit`: the newest other one."""
        others = [known for known in self.history(ref) if known != commit]
        return others[-1] if others else None

    def _warnings(self, commit: str, previous: str | None) -> tuple[str, ...]:
        if previous is None:
            return ()
        found = [parent_warning(self.repo.show(commit).parent, previous)]
        found += [str(change) for change in drift.between(self.repo, previous, commit)]
        return tuple(line for line in found if line)

    def _make_delta(
        self, old: str, new: str, loose: Load, wanted: str, deadline: Deadline | None
    ) -> Load | None:
        self.repo.make_delta(old, new, deadline=deadline)
        made = self.repo.delta(old, new)
        if wanted == "pays" and not pays(made, loose):
            self.repo.remove_delta(old, new)
            return None
        return made

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


def pays(delta: Load, loose: Load) -> bool:
    """Whether an update with a static delta costs less than object by object."""
    return loose.requests >= FEW_REQUESTS and on_the_line(delta) < on_the_line(loose)


def on_the_line(load: Load) -> int:
    """Bytes that a load costs, its requests included."""
    return load.size + load.requests * REQUEST_BYTES


def parent_warning(parent: str | None, published: str) -> str:
    """What is odd about the parent of a commit that follows `published`; "" for nothing."""
    if parent is None:
        return (
            "the update has no parent: devices take it, but its history begins anew and nothing "
            "says what it was made from; compose it with a parent or the repository's URL"
        )
    if parent != published:
        return (
            f"the update's parent is {parent[:12]}, not {published[:12]}, which is published: "
            "somebody else may have published meanwhile, and their changes may be missing"
        )
    return ""
