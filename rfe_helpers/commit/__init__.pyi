from .commit import Commit, CommitDiff, diff, open_commit
from .ostree import Package, Repo
from .signing import SigningKey, signing_key

__all__ = [
    "Commit",
    "CommitDiff",
    "Package",
    "Repo",
    "SigningKey",
    "diff",
    "open_commit",
    "signing_key",
]
