"""edge-raw-image: a disk with a commit deployed, to be written as it is and booted.

Made inside the base tree (disk_image.py). It grows its root file system to the disk that it finds
itself on.

Smaller than osbuild's, which has 10 GiB at first: the empty part of an image is compressed,
downloaded and written by everybody.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rfe_helpers.core import run
from rfe_helpers.install import kickstart
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.build import disk_image, downloads, offline, tree
from rfe_helpers.sandbox.installer.edge_installer import disk

PACKAGES = (*disk_image.PACKAGES, "xz-utils")
_PACK = ("xz", 'chroot "$1" xz -T0 -0 --memlimit-compress=2GiB <image.raw >packed')


def build(request: tree.Request, work: tree.Work, target: Path) -> Path:
    """Make image.raw.xz of a compose at `target`; `request.parent` is the commit on it.

    Raises CommitError if the commit cannot be fetched.
    """
    with offline.payload(request, work) as repository:
        size = fitting(request.size, offline.unpacked_bytes(repository))
        if size > request.size:
            work.on_stage("image", f"enlarge it to {size / 1024**3:.1f} GiB, so that it fits")
        packed = work.directory / "payload.tar"
        try:
            run.run(
                [
                    *("tar", "--create", f"--file={packed}", "--owner=root:0", "--group=root:0"),
                    *(f"--directory={repository.path.parent}", repository.path.name),
                ],
                deadline=work.deadline,
            )
            shutil.rmtree(repository.path)
            disk_image.make(
                work,
                "image",
                _spec(request, size, work),
                target,
                packages=PACKAGES,
                pack=_PACK,
                payload=packed,
            )
        finally:
            packed.unlink(missing_ok=True)
    return target


def fitting(size: int, unpacked: int) -> int:
    """The size of an image that holds a tree of `unpacked` bytes: `size`, or more if it needs it,
    as Image Builder does."""
    return max(size, disk.needed_bytes(unpacked))


def _spec(request: tree.Request, size: int, work: tree.Work) -> dict[str, object]:
    facts = profile.load("sandbox").ostree
    remaining = downloads.with_content(request.blueprint.customizations, work)
    append = (remaining.pop("kernel", None) or {}).get("append", "")
    return {
        "ref": request.ref,
        "url": request.url,
        "osname": facts.osname,
        "remote": facts.remote,
        "size": size,
        "arguments": [*kickstart.CONSOLES.split(), *append.split()],
        "customizations": remaining,
    }
