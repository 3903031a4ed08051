from .commit import Commit, CommitDiff, by_delta, diff, open_commit
from .ostree import Package, Repo
from .signing import SigningKey, signing_key

__all__ = [
    "Commit",
    "CommitDiff",
    "Package",
    "Repo",
    "SigningKey",
    "by_delta",
    "diff",
    "open_commit",
    "signing_key",
]
