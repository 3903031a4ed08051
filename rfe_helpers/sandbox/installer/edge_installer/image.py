"""Writes the disk image of the boot medium to a disk, as coreos-installer does in RHEL.

The kernel's arguments are coreos-installer's: the image, and the disk, which is overwritten
whatever it holds.
"""

from __future__ import annotations

from pathlib import Path

from . import disk
from .console import InstallError, run, run_with_progress, step
from .plan import Disks

FILE, DEVICE = "coreos.inst.image_file", "coreos.inst.install_dev"
# dd draws its progress on a terminal, which run_with_progress gives it.
_WRITE = 'xz -dc "$1" | dd of="$2" bs=4M iflag=fullblock conv=fsync status=progress'


def write(image: Path, device: str) -> Path:
    """Write an image compressed with xz to a disk; returns the disk. Raises InstallError before
    anything is written if the disk is not there or too small."""
    if not device:
        raise InstallError(f"no disk: give the kernel {DEVICE}=/dev/…")
    size = unpacked_bytes(image)
    only = Disks(only=(device,), ignored=(), clear=True, clear_only=())
    selected = disk.choose(only, disk.present(), size)
    step(f"writing {image.name} ({size / 1024**3:.1f} GiB) to {selected.name}")
    target = Path("/dev", selected.name)
    run_with_progress(["bash", "-o", "pipefail", "-c", _WRITE, "bash", image, target], "writing")
    return target


def unpacked_bytes(image: Path) -> int:
    """The size of the image in a file compressed with xz, which its index gives."""
    *_, totals = run("xz", "--robot", "--list", image).splitlines()
    return int(totals.split("\t")[4])
