"""A publisher and a device without a machine: a real repository that follows a remote."""

import random
import time

from support.trees import make_tree

from rfe_helpers.commit.ostree import Repo
from rfe_helpers.commit.signing import signing_key
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve.publication import Publication

REF = "debian/13/x86_64/edge"


class Publisher:
    """Makes commits of a few megabytes and publishes them, signed with the lab's key."""

    def __init__(self, lab: Lab, name: str = "publication", *, key: str | None = "gnupg") -> None:
        self.lab = lab
        self.made = Repo(lab.path("made", name)).init()
        signer = signing_key(lab.path("keys", key)) if key else None
        self.publication = Publication(lab.path("www", name), signer)
        self.newest: str | None = None

    def publish(self, content: int, *, parent: bool = True, **options: str) -> str:
        """Publish a tree whose files depend on the number `content`; returns the commit."""
        _next_second()
        commit = self.commit(content, self.newest if parent else None)
        self.publication.publish(self.made.path, REF, **options)
        self.newest = commit
        return commit

    def withdraw(self, commit: str) -> None:
        """Offer an earlier commit again."""
        _next_second()
        self.publication.withdraw(REF, commit)

    def commit(self, content: int, parent: str | None = None) -> str:
        numbers = random.Random(content)
        files = {f"usr/share/{n}": numbers.randbytes(20_000).hex() for n in range(60)}
        tree = make_tree(self.lab.path("made", f"{content}.tar"), files)
        version = str(content)
        return self.made.commit_tar(
            tree, REF, subject=version, version=version, parent=parent, packages=[]
        )


def _next_second() -> None:
    """Commits and HTTP know the time in whole seconds: two summaries of one second and one size are
    the same to a client that has the first."""
    time.sleep(1.1)


def refusal(device: Repo, *, newer: bool = False, retries: int | None = None) -> str:
    """What the device says when it is asked to update and will not."""
    before = device.refs()
    message = device.refusal("edge", REF, newer=newer, retries=retries)
    print(message)
    assert message, "the device took it"
    assert device.refs() == before
    device.fsck()
    return message
