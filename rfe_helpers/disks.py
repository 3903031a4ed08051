"""Disks of virtual machines, made from the raw images that Image Builder hands out."""

from __future__ import annotations

from pathlib import Path

from rfe_helpers import files, run
from rfe_helpers.errors import CommandFailed, MediaError
from rfe_helpers.wait import Deadline

SECONDS = 600


def from_raw_xz(
    image: Path, disk: Path, size: int = 0, *, deadline: Deadline | None = None
) -> Path:
    """A qcow2 disk of at least `size` bytes with the content of an image.raw.xz.

    An existing one is replaced. On a real machine the same is done by
    `xz --decompress --stdout image.raw.xz | dd of=DEVICE`. Raises MediaError for one that is
    damaged.
    """
    limit = deadline or Deadline(SECONDS)
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
    except CommandFailed as error:
        raise MediaError(
            f"{image} cannot be unpacked: {error.tail}", remedy="download it again"
        ) from None
    finally:
        for leftover in (packed, raw):
            leftover.unlink(missing_ok=True)
    return disk
