"""Chooses the disk, refuses to clear one without permission, and partitions it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import source
from .console import InstallError, run
from .plan import Disks

MINIMUM_BYTES = 3 * 1024**3  # boot partitions, two deployments of a small tree
BOOT_BYTES = 1024**3  # a little more than the partitions in front of the root
# GPT with a partition for GRUB's BIOS core image and an EFI system partition: boots both ways.
LAYOUT = """label: gpt
size=1M, type=21686148-6449-6E6F-744E-656564454649, name=biosboot
size=128M, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp
size=768M, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=boot
type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root
"""
MKFS = {"xfs": ("mkfs.xfs", "-q", "-f"), "ext4": ("mkfs.ext4", "-q", "-F")}


@dataclass(frozen=True)
class Disk:
    """A disk as lsblk shows it; `size` in bytes; `holds` names its contents, "" if it is empty."""

    name: str
    size: int
    holds: str


@dataclass(frozen=True)
class Target:
    """The partitioned disk: its device, the mounted root, and the UUIDs of its file systems."""

    disk: Path
    root: Path
    root_uuid: str
    boot_uuid: str
    esp_uuid: str
    filesystem: str


def present() -> list[Disk]:
    """The disks that can be installed to: writable, and not the boot medium."""
    columns = "NAME,PATH,TYPE,SIZE,RO,FSTYPE,PTTYPE"
    tree = json.loads(run("lsblk", "--json", "--bytes", "--output", columns))
    return usable(tree["blockdevices"], source.medium_device())


def usable(devices: Iterable[dict[str, Any]], medium: Path | None) -> list[Disk]:
    """The disks among lsblk's devices that can be installed to."""
    disks = []
    for device in devices:
        parts = device.get("children", [])
        paths = {device["path"], *(part["path"] for part in parts)}
        if device["type"] != "disk" or device["ro"] or not int(device["size"] or 0):
            continue
        if device["name"].startswith(("zram", "nbd", "fd")) or str(medium) in paths:
            continue
        systems = sorted({part["fstype"] for part in parts if part["fstype"]})
        holds = ", ".join(filter(None, [device["fstype"], device["pttype"], *systems]))
        disks.append(Disk(device["name"], int(device["size"]), holds))
    return disks


def choose(rules: Disks, disks: list[Disk], needed: int = MINIMUM_BYTES) -> Disk:
    """The disk to install to, of at least `needed` bytes.

    Raises InstallError if no disk fits the rules, if several do, or if the disk is too small or
    in use.
    """
    candidates = [disk for disk in disks if disk.name not in _names(rules.ignored)]
    if rules.only:
        candidates = [disk for disk in candidates if disk.name in _names(rules.only)]
    elif rules.clear_only and len(candidates) > 1:
        candidates = [disk for disk in candidates if disk.name in _names(rules.clear_only)]
    present = ", ".join(f"{disk.name} ({disk.size / 1024**3:.1f} GiB)" for disk in disks) or "none"
    if not candidates:
        raise InstallError(f"no disk to install to; disks of this machine: {present}")
    if len(candidates) > 1:
        raise InstallError(f"several disks ({present}): choose one with ignoredisk --only-use=")
    disk = candidates[0]
    if disk.size < needed:
        raise InstallError(
            f"disk {disk.name} is too small: {disk.size / 1024**3:.1f} GiB, "
            f"needs {needed / 1024**3:.1f} GiB"
        )
    may_clear = rules.clear and (not rules.clear_only or disk.name in _names(rules.clear_only))
    if disk.holds and not may_clear:
        raise InstallError(
            f"disk {disk.name} is not empty ({disk.holds}): clearpart --all would remove it"
        )
    return disk


def needed_bytes(unpacked: int) -> int:
    """The smallest disk for a tree of that many bytes: room for two deployments that share
    nothing, as almost happens with a new release, and a tenth more for the file system itself."""
    return max(MINIMUM_BYTES, BOOT_BYTES + unpacked * 2 * 11 // 10)


def _names(specs: Iterable[str]) -> set[str]:
    """Kernel names of disks given as vda, /dev/vda, disk/by-id/… or with wildcards."""
    names = set()
    for spec in specs:
        pattern = spec.removeprefix("/dev/")
        matches = list(Path("/dev").glob(pattern)) or [Path("/dev", pattern)]
        names |= {path.resolve().name for path in matches}
    return names


def partition(name: str, filesystem: str, root: Path) -> Target:
    """Partition a disk, make its file systems and mount them below `root`."""
    disk = Path("/dev", name)
    between = "p" if name[-1].isdigit() else ""
    esp, boot, system = (Path(f"{disk}{between}{number}") for number in (2, 3, 4))
    run("wipefs", "--all", "--quiet", disk)
    run("sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always", disk, stdin=LAYOUT)
    run("udevadm", "settle")
    run("mkfs.vfat", "-F", "32", "-n", "ESP", esp)
    run(*MKFS[filesystem], "-L", "boot", boot)
    run(*MKFS[filesystem], "-L", "root", system)
    run("udevadm", "settle")
    for device, directory in ((system, root), (boot, root / "boot"), (esp, root / "boot/efi")):
        directory.mkdir(parents=True, exist_ok=True)
        run("mount", device, directory)
    return Target(disk, root, _uuid(system), _uuid(boot), _uuid(esp), filesystem)


def _uuid(device: Path) -> str:
    return run("blkid", "-s", "UUID", "-o", "value", device).strip()


def release(*mounts: Path) -> None:
    """Unmount with everything below, so that everything is on the disk."""
    os.sync()
    for mount in mounts:
        if mount.is_mount():
            run("umount", "--recursive", mount)
