"""Disks of virtual machines: empty ones, overlays, snapshots, and disks made from the raw images
that Image Builder builds."""

from __future__ import annotations

from pathlib import Path

from rfe_helpers.core import files, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, MachineError, MediaError

INSTALLED = "installed"  # the name of the snapshot
_SECONDS = 600
_CREATE = ("qemu-img", "create", "-q", "-f", "qcow2")


def create(path: Path, size: int) -> Path:
    """Create an empty qcow2 image of `size` bytes, replacing an existing file.

    >>> from pathlib import Path
    >>> from rfe_helpers.machine import disks
    >>> disks.create(Path("disk.qcow2"), 10 * 1024**3)
    PosixPath('disk.qcow2')
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    run.run([*_CREATE, path, str(size)])
    return path


def overlay(backing: Path, path: Path, *, backing_format: str = "qcow2", size: int = 0) -> Path:
    """Create a qcow2 disk at `path` that starts with the content of the image `backing` and
    stores only what differs from it, replacing an existing file.

    `size` is in bytes, 0 for that of the image. The image must stay where it is, unchanged. For a
    machine with an identity of its own, take the image of a system that has never been booted.

    >>> from pathlib import Path
    >>> from rfe_helpers.machine import disks
    >>> base = disks.create(Path("base.qcow2"), 10 * 1024**3)
    >>> disks.overlay(base, Path("device-1.qcow2"))
    PosixPath('device-1.qcow2')
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    size_argument = [str(size)] if size else []
    # Renamed when it is complete, so that a file of that name is always a whole disk.
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    run.run([*_CREATE, "-F", backing_format, "-b", backing.absolute(), new, *size_argument])
    new.replace(path)
    return path


def keep(disk: Path) -> None:
    """Take a snapshot of a disk that no machine uses, for `revert`; takes almost no time or
    space.

    >>> from pathlib import Path
    >>> from rfe_helpers.machine import disks
    >>> disk = disks.create(Path("disk.qcow2"), 10 * 1024**3)
    >>> disks.keep(disk)
    >>> disks.revert(disk)
    """
    run.run(["qemu-img", "snapshot", "-c", INSTALLED, disk])


def revert(disk: Path) -> None:
    """Restore a disk that no machine uses to the snapshot that `keep` took. Raises
    MachineError.

    >>> from pathlib import Path
    >>> from rfe_helpers.machine import disks
    >>> disks.revert(disks.create(Path("disk.qcow2"), 10 * 1024**3))
    Traceback (most recent call last):
        ...
    rfe_helpers.errors.MachineError: ...
    """
    try:
        run.run(["qemu-img", "snapshot", "-a", INSTALLED, disk])
    except CommandFailedError as error:
        raise MachineError(
            f"{disk} cannot be restored: {error.tail}",
            remedy=error.remedy or "install the machine again",
        ) from None


def from_raw_xz(
    image: Path, disk: Path, size: int = 0, *, deadline: Deadline | float | None = None
) -> Path:
    """Create a qcow2 disk of at least `size` bytes from an image.raw.xz, replacing an existing one.

    On a real machine, `xz --decompress --stdout image.raw.xz | dd of=DEVICE` does the same.
    Raises MediaError if the image is damaged.

    >>> from pathlib import Path
    >>> from rfe_helpers.core import files, run
    >>> from rfe_helpers.machine import disks
    >>> files.write(Path("image.raw"), bytes(1024**2))
    >>> result = run.run(["xz", "image.raw"])
    >>> disks.from_raw_xz(Path("image.raw.xz"), Path("disk.qcow2"), 12 * 1024**3)
    PosixPath('disk.qcow2')
    """
    limit = Deadline.of(deadline, _SECONDS)
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
            f"{image} cannot be unpacked: {error.tail}", remedy=error.remedy or "download it again"
        ) from None
    finally:
        for leftover in (packed, raw):
            leftover.unlink(missing_ok=True)
    return disk
