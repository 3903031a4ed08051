"""A disk image from directories: partitions, file systems, GRUB for BIOS and for UEFI.

Everything is written into one file, at offsets: no loop device, no mount and no root are needed.
Run inside a tree (`inside_image.py`), so that file systems and GRUB are of the version that the
image boots with. Needs sfdisk, mkfs.ext4, mkfs.vfat, mcopy, grub-mkimage. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import struct
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from rfe_helpers.sandbox.installer.edge_installer.console import InstallError, run
from rfe_helpers.sandbox.installer.edge_installer.disk import LAYOUT

SECTOR = 512
BIOS_GRUB = Path("/usr/lib/grub/i386-pc/boot.img")
MODULES = (
    *("part_gpt", "ext2", "fat", "search", "search_fs_uuid", "configfile", "syslinuxcfg"),
    *("normal", "linux", "serial", "terminal", "echo", "test", "ls", "minicmd", "gzio"),
)
BIOS_MODULES = ("biosdisk", "linux16", *MODULES)  # syslinuxcfg says linux16 there
UEFI_MODULES = ("efi_gop", "all_video", *MODULES)
# GRUB's core finds the file system with its configuration by UUID, whatever the disk is called,
# and then begins with the grub.cfg there.
EARLY = """search --no-floppy --fs-uuid --set=root {boot_uuid}
set prefix=($root)/grub
"""
# Where boot.img has the place of the core image, and the jump that is taken for disks whose BIOS
# passes no drive number (GRUB's include/grub/i386/pc/boot.h).
_KERNEL_SECTOR, _DRIVE_CHECK = 0x5C, 0x66
# The core's first sector ends with its list of blocks: first sector, number, segment.
_BLOCKLIST = SECTOR - 12
_IMMUTABLE = 0x10  # chattr +i: EXT4_IMMUTABLE_FL
_BOOT_CODE = 440  # before the signature and the table of the protective MBR


@dataclass(frozen=True)
class Identity:
    """What names the file systems of an image: made before there are any, for fstab and GRUB."""

    root_uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    boot_uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    esp_uuid: str = field(default_factory=lambda: _fat_id(os.urandom(4).hex()))


def _fat_id(digits: str) -> str:
    """The serial number of a FAT file system as udev writes it, such as 1A2B-3C4D."""
    return f"{digits[:4]}-{digits[4:]}".upper()


@dataclass(frozen=True)
class Partition:
    """A place in the image, in bytes."""

    start: int
    size: int


def make(image: Path, size: int, identity: Identity, *, root: Path, boot: Path) -> None:
    """Make an image of `size` bytes whose root and /boot (ext4) hold these directories.

    /boot must have `grub/grub.cfg`. Owners, modes, links and attributes are kept as they are seen
    here. Raises InstallError with a tool's own words, if there is no room in a file system too.
    """
    with image.open("wb") as file:
        file.truncate(size)
    run("sfdisk", "--quiet", image, stdin=LAYOUT)
    bios, esp, boot_place, root_place = partitions(image)
    _ext4(image, boot_place, "boot", identity.boot_uuid, boot)
    _ext4(image, root_place, "root", identity.root_uuid, root)
    early = image.with_suffix(".cfg")
    early.write_text(EARLY.format(boot_uuid=identity.boot_uuid))
    _uefi(image, esp, identity.esp_uuid, early)
    _bios(image, bios, early)
    early.unlink()


def partitions(image: Path) -> list[Partition]:
    """The partitions of an image, in the order of its table."""
    table = json.loads(run("sfdisk", "--json", image))["partitiontable"]
    unit = table.get("sectorsize", SECTOR)
    return [Partition(p["start"] * unit, p["size"] * unit) for p in table["partitions"]]


def _ext4(image: Path, place: Partition, label: str, identity: str, content: Path) -> None:
    where = ("-E", f"offset={place.start}", image, f"{place.size // 1024}k")
    run("mkfs.ext4", "-q", "-F", "-L", label, "-U", identity, "-d", content, *where)


def protect(image: Path, directory: Path) -> None:
    """Make a directory of the root file system immutable, as ostree does with a deployment.

    Done in the image: on the machine that makes it this takes more rights than a build may have.
    """
    system = f"{image}?offset={partitions(image)[3].start}"
    described = run("debugfs", "-R", f"stat /{directory}", system)
    found = re.search(r"Flags: 0x([0-9a-f]+)", described)
    if found is None:
        raise InstallError(f"debugfs: no flags of {directory}: {described}")
    flags = int(found[1], 16) | _IMMUTABLE
    run("debugfs", "-w", "-R", f"set_inode_field /{directory} flags {flags:#x}", system)


def _uefi(image: Path, place: Partition, identity: str, early: Path) -> None:
    """An EFI system partition with GRUB at the path that firmware looks at without being told."""
    loader = image.with_suffix(".efi")
    arguments = ("-p", "/grub", "-c", early, "-o", loader)
    run("grub-mkimage", "-O", "x86_64-efi", *arguments, *UEFI_MODULES)
    run(
        # It would choose clusters for the whole image: too few of them for FAT32, says firmware.
        *("mkfs.vfat", "-F", "32", "-s", "1", "-n", "ESP", "-i", identity.replace("-", "")),
        *("--offset", str(place.start // SECTOR), image, str(place.size // 1024)),
    )
    drive = f"{image}@@{place.start}"
    run("mmd", "-i", drive, "::/EFI", "::/EFI/BOOT")
    run("mcopy", "-i", drive, loader, "::/EFI/BOOT/BOOTX64.EFI")
    loader.unlink()


def _bios(image: Path, place: Partition, early: Path) -> None:
    """GRUB's core in the BIOS boot partition, and its first stage in the disk's first sector.

    What grub-install does, which wants a block device.
    """
    core = image.with_suffix(".core")
    arguments = ("-p", "/grub", "-c", early, "-o", core)
    run("grub-mkimage", "-O", "i386-pc", *arguments, *BIOS_MODULES)
    first, following = boot_sectors(BIOS_GRUB.read_bytes(), core.read_bytes(), place)
    with image.open("r+b") as file:
        file.write(first)
        file.seek(place.start)
        file.write(following)
    core.unlink()


def boot_sectors(boot: bytes, core: bytes, place: Partition) -> tuple[bytes, bytes]:
    """GRUB's first stage and core, told where on the disk the core lies. Raises ValueError if it
    does not fit into its partition."""
    if len(core) > place.size:
        raise ValueError(f"GRUB's core has {len(core)} bytes, its partition {place.size}")
    sector, count = place.start // SECTOR, -(-len(core) // SECTOR)
    first, following = bytearray(boot[:_BOOT_CODE]), bytearray(core)
    struct.pack_into("<Q", first, _KERNEL_SECTOR, sector)
    first[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"
    struct.pack_into("<QH", following, _BLOCKLIST, sector + 1, count - 1)
    return bytes(first), bytes(following)
