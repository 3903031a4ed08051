"""A repository as a machine has it, and a registry whose images it pulls: with the real ostree and
skopeo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.images import ImageServer

import rfe_helpers

GUEST = Path(rfe_helpers.__file__).parent / "sandbox/guest/root/usr/lib"
sys.path.append(str(GUEST))

from edge.image_proxy import open_image  # noqa: E402
from edge.image_reference import ImageReference  # noqa: E402
from edge.image_store import ImageStore  # noqa: E402


def pull(store: ImageStore, registry: ImageServer, tag: str) -> str:
    reference = ImageReference("registry", registry.name(tag))
    with open_image(reference) as proxy:
        return store.pull(proxy, proxy.image(), reference)


def listing(store: ImageStore, commit: str) -> dict[str, str]:
    """The paths of a commit, each with its mode, owner, and where a link leads to."""
    argv = ["ostree", "ls", f"--repo={store.path}", "-R", commit]
    lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = (line.split(maxsplit=4) for line in lines)
    return {row[4].partition(" -> ")[0]: f"{row[0]} {row[1]}" for row in rows}


def content(store: ImageStore, commit: str, path: str) -> str:
    argv = ["ostree", "cat", f"--repo={store.path}", commit, path]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def fsck(store: ImageStore) -> None:
    subprocess.run(["ostree", "fsck", "-q", f"--repo={store.path}"], check=True)
