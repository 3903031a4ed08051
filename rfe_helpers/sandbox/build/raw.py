"""edge-raw-image: a disk with a commit deployed, to be written as it is and booted.

Made inside the base tree (disk_image.py). It grows its root file system to the disk that it finds
itself on.

Smaller than osbuild's, which has 10 GiB at first: the empty part of an image is compressed,
downloaded and written by everybody.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.core import run
from rfe_helpers.install import kickstart
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.build import disk as disk_layout
from rfe_helpers.sandbox.build import disk_image, downloads, names, offline, tree
from rfe_helpers.sandbox.installer.edge_installer import disk

_PACK = ("xz", 'chroot "$1" xz -T0 -0 --memlimit-compress=2GiB <image.raw >packed')


def build(request: tree.Request, work: tree.Work, target: Path) -> Path:
    """Make image.raw.xz of a compose at `target`; `request.parent` is the commit on it.

    Raises CommitError if the commit cannot be fetched, BuilderError if it lacks groups or units
    that the blueprint names.
    """
    with offline.payload(request, work) as repository:
        names.check(request.blueprint.customizations, names.in_commit(repository, request.ref))
        unpacked = offline.unpacked_bytes(repository)
        asked = max(request.size, minimum(request.blueprint))
        size = fitting(asked, unpacked, filesystems(request.blueprint))
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
                packages=disk_image.PACKAGES,
                pack=_PACK,
                payload=packed,
            )
        finally:
            packed.unlink(missing_ok=True)
    return target


def fitting(size: int, unpacked: int, filesystems: Mapping[str, int] | None = None) -> int:
    """The size of an image that holds a tree of `unpacked` bytes and file systems of at least the
    given sizes, by mount point: `size`, or more if it needs it, as Image Builder does."""
    sizes = dict(filesystems or {})
    front = disk.BOOT_BYTES + max(0, sizes.pop("/boot", 0) - disk_layout.BOOT_PARTITION)
    root = max(disk.needed_bytes(unpacked) - disk.BOOT_BYTES, sizes.pop("/", 0))
    needed = front + root + sum(sizes.values())
    return max(size, -(-needed // 1024**2) * 1024**2)


def filesystems(blueprint: Blueprint) -> dict[str, int]:
    """The least sizes of a blueprint's file systems in bytes, by mount point."""
    entries = [*(blueprint.customizations.get("filesystem") or []), *_partitions(blueprint)]
    return {entry["mountpoint"]: entry["minsize"] for entry in entries}


def labels(blueprint: Blueprint) -> dict[str, str]:
    """The labels of a blueprint's file systems, by mount point, where it names any."""
    entries = [entry for entry in _partitions(blueprint) if entry.get("label")]
    return {entry["mountpoint"]: entry["label"] for entry in entries}


def minimum(blueprint: Blueprint) -> int:
    """The least size of a blueprint's disk in bytes, 0 if it does not say."""
    return int((blueprint.customizations.get("disk") or {}).get("minsize") or 0)


def _partitions(blueprint: Blueprint) -> list[dict[str, Any]]:
    return list((blueprint.customizations.get("disk") or {}).get("partitions") or [])


def _spec(request: tree.Request, size: int, work: tree.Work) -> dict[str, object]:
    facts = profile.load("sandbox").ostree
    remaining = downloads.with_content(request.blueprint.customizations, work)
    for handled in ("disk", "filesystem", "ignition", "installation_device", "partitioning_mode"):
        remaining.pop(handled, None)
    append = (remaining.pop("kernel", None) or {}).get("append", "")
    return {
        "ref": request.ref,
        "url": request.url,
        "osname": facts.osname,
        "remote": facts.remote,
        "size": size,
        "arguments": [*kickstart.CONSOLES.split(), *append.split()],
        "filesystems": filesystems(request.blueprint),
        "labels": labels(request.blueprint),
        "customizations": remaining,
    }
