"""Disks of virtual machines: empty ones, layers on an image, snapshots, and disks made from the raw
images that Image Builder hands out."""

from __future__ import annotations

from pathlib import Path

from rfe_helpers.core import files, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, MachineError, MediaError

INSTALLED = "installed"  # name of the snapshot in a disk
_SECONDS = 600
_CREATE = ("qemu-img", "create", "-q", "-f", "qcow2")


def create(path: Path, size: int) -> Path:
    """Make an empty qcow2 image of `size` bytes, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    run.run([*_CREATE, path, str(size)])
    return path


def overlay(backing: Path, path: Path, *, backing_format: str = "qcow2", size: int = 0) -> Path:
    """Make a qcow2 disk at `path` that begins as the image `backing` and keeps only what differs
    from it, replacing what was there; of `size` bytes, 0 for as many as the image has.

    The image must stay where it is, and unchanged. A machine that is to have an identity of its
    own needs the image of a system that has never been booted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sized = [str(size)] if size else []
    # Not written in place: a disk with its name is complete.
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    run.run([*_CREATE, "-F", backing_format, "-b", backing.absolute(), new, *sized])
    new.replace(path)
    return path


def keep(disk: Path) -> None:
    """Remember the content of a disk that no machine uses, for `revert`; costs next to nothing."""
    run.run(["qemu-img", "snapshot", "-c", INSTALLED, disk])


def revert(disk: Path) -> None:
    """Give a disk that no machine uses the content it had when it was installed."""
    try:
        run.run(["qemu-img", "snapshot", "-a", INSTALLED, disk])
    except CommandFailedError as error:
        raise MachineError(
            f"{disk} cannot be put back: {error.tail}", remedy="install the machine again"
        ) from None


def from_raw_xz(
    image: Path, disk: Path, size: int = 0, *, deadline: Deadline | None = None
) -> Path:
    """A qcow2 disk of at least `size` bytes with the content of an image.raw.xz.

    An existing one is replaced. On a real machine the same is done by
    `xz --decompress --stdout image.raw.xz | dd of=DEVICE`. Raises MediaError for one that is
    damaged.
    """
    limit = deadline or Deadline(_SECONDS)
    packed, raw = disk.with_name("unpacking.raw.xz"), disk.with_name("unpacking.raw")
    disk.parent.mkdir(parents=True, exist_ok=True)
    packed.unlink(missing_ok=True)
    packed.symlink_to(image.absolute())
    try:
        # xz leaves holes where the image is empty; --force makes it follow the link.
        run.run(["xz", "--decompress", "--keep", "--force", packed], deadline=limit)
        with files.replacing(disk) as unfinished:
            convert = ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2"]
            run.run([*convert, raw, unfinished], deadline=limit)
            if size > raw.stat().st_size:
                run.run(["qemu-img", "resize", "-q", "-f", "qcow2", unfinished, str(size)])
    except CommandFailedError as error:
        raise MediaError(
            f"{image} cannot be unpacked: {error.tail}", remedy="download it again"
        ) from None
    finally:
        for leftover in (packed, raw):
            leftover.unlink(missing_ok=True)
    return disk
