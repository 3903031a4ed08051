"""A disk image from directories: partitions, file systems, GRUB for BIOS and for UEFI.

Everything is written into one file, at offsets: no loop device and no root are needed, only a mount
namespace in which to mount. Run inside a tree (`inside_image.py`), so that file systems and GRUB
are of the version that the image boots with. Needs sfdisk, mkfs.ext4, mkfs.vfat, mtools and GRUB's
tools. Standard library only.

systemd-repart makes the same partitions and file systems, but lets nobody choose the UUIDs of the
file systems, which fstab and the kernel's arguments name before there are any.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.sandbox.installer.edge_installer.console import InstallError, run
from rfe_helpers.sandbox.installer.edge_installer.disk import LAYOUT, Target

SECTOR = 512
MIB = 1024**2
BOOT_PARTITION = 768 * MIB  # in LAYOUT
I386_PC = Path("/usr/lib/grub/i386-pc")
# GRUB begins with the grub.cfg in /boot, the third partition of the disk that it was loaded from.
PREFIX = "(,gpt3)/grub"
MODULES = (
    *("part_gpt", "ext2", "fat", "search", "search_fs_uuid", "configfile", "syslinuxcfg"),
    *("normal", "linux", "serial", "terminal", "echo", "test", "ls", "minicmd", "gzio"),
)
_IMMUTABLE = 0x10  # chattr +i: EXT4_IMMUTABLE_FL


@dataclass(frozen=True)
class Partition:
    """A place in the image, in bytes."""

    start: int
    size: int


@dataclass(frozen=True)
class FileSystem:
    """A file system of its own beside root and /boot: where it is mounted, its size in bytes, its
    UUID, the directory whose content it begins with, and its label if it is not of the mount
    point."""

    mountpoint: str
    size: int
    uuid: str
    content: Path
    named: str = ""

    @property
    def label(self) -> str:
        """At most 16 characters, as ext4 has room for."""
        return self.named or self.place[:16]

    @property
    def place(self) -> str:
        """The mount point as a name for the partition."""
        return self.mountpoint.strip("/").replace("/", "-")

    @property
    def fstab(self) -> str:
        return f"UUID={self.uuid} {self.mountpoint} ext4 defaults 0 2\n"


def layout(boot_bytes: int, extra: Sequence[FileSystem]) -> str:
    """The partitions for sfdisk: those of the installer, with `extra` before the root, which is the
    last and grows; /boot has at least `boot_bytes`."""
    *front, boot, root = LAYOUT.rstrip("\n").split("\n")
    if boot_bytes > BOOT_PARTITION:
        boot = boot.replace(f"size={BOOT_PARTITION // MIB}M", f"size={-(-boot_bytes // MIB)}M")
    more = [f"size={-(-each.size // MIB)}M, type=linux, name={each.place[:16]}" for each in extra]
    return "\n".join([*front, boot, *more, root]) + "\n"


def new(image: Path, root: Path) -> Target:
    """An image to be made with `root` as its root; the UUIDs of its file systems are chosen now."""
    serial = secrets.token_hex(4).upper()  # of a FAT file system, which udev writes as 1A2B-3C4D
    identities = str(uuid.uuid4()), str(uuid.uuid4()), f"{serial[:4]}-{serial[4:]}"
    return Target(image, root, *identities, "ext4")


def make(
    target: Target,
    size: int,
    boot: Path,
    extra: Sequence[FileSystem] = (),
    *,
    boot_bytes: int = 0,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Make an image of `size` bytes whose root and /boot (ext4) hold the target's root and `boot`,
    with more file systems if there are any; `labels` are those of / and /boot by mount point.

    `boot` must have `grub/grub.cfg`. Owners, modes, links and attributes are kept as they are seen
    here. Raises InstallError with a tool's own words, if there is no room in a file system too.
    """
    image = target.disk
    with image.open("wb") as file:
        file.truncate(size)
    run("sfdisk", "--quiet", image, stdin=layout(boot_bytes, extra))
    _, esp, boot_place, *places, root_place = partitions(image)
    names = {"/boot": "boot", "/": "root", **(labels or {})}
    _ext4(image, boot_place, names["/boot"], target.boot_uuid, boot)
    _ext4(image, root_place, names["/"], target.root_uuid, target.root)
    for each, place in zip(extra, places, strict=True):
        _ext4(image, place, each.label, each.uuid, each.content)
    _uefi(image, esp, target.esp_uuid)
    install_bios(image)


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
    system = f"{image}?offset={partitions(image)[-1].start}"
    described = run("debugfs", "-R", f"stat /{directory}", system)
    found = re.search(r"Flags: 0x([0-9a-f]+)", described)
    if found is None:
        raise InstallError(f"debugfs: no flags of {directory}: {described}")
    flags = int(found[1], 16) | _IMMUTABLE
    run("debugfs", "-w", "-R", f"set_inode_field /{directory} flags {flags:#x}", system)


def _grub(platform: str, target: Path, *modules: str) -> None:
    run("grub-mkimage", "-O", platform, "-p", PREFIX, "-o", target, *modules, *MODULES)


def _uefi(image: Path, place: Partition, identity: str) -> None:
    """An EFI system partition with GRUB at the path that firmware looks at without being told."""
    loader = image.with_suffix(".efi")
    _grub("x86_64-efi", loader, "efi_gop", "all_video")
    # fmt: off
    run(
        "mkfs.vfat", "-F", "32", "-n", "ESP", "-i", identity.replace("-", ""),
        # It would choose clusters for the whole image: too few of them for FAT32, says firmware.
        "-s", "1",
        "--offset", str(place.start // SECTOR), image, str(place.size // 1024),
    )
    # fmt: on
    drive = f"{image}@@{place.start}"
    run("mmd", "-i", drive, "::/EFI", "::/EFI/BOOT")
    run("mcopy", "-i", drive, loader, "::/EFI/BOOT/BOOTX64.EFI")
    loader.unlink()


def install_bios(image: Path) -> None:
    """GRUB's core in the BIOS boot partition, and its first stage in the disk's first sector.

    Done by grub-bios-setup, which also insists on opening the device that its own files lie on. It
    needs that only where there is no BIOS boot partition, so it is shown a table of mounts in which
    that device is the image (as mkosi does).
    """
    directory = image.with_suffix(".grub")
    directory.mkdir()
    shutil.copy(I386_PC / "boot.img", directory)
    _grub("i386-pc", directory / "core.img", "biosdisk", "linux16")  # syslinuxcfg says linux16
    mounts = directory / "mountinfo"
    mounts.write_text(f"1 0 1:1 / / - ext4 {image}\n")
    script = 'mount --bind "$1" /proc/$$/mountinfo && exec "$2" "--directory=$3" "$4"'
    run("sh", "-c", script, "sh", mounts, I386_PC / "grub-bios-setup", directory, image)
    shutil.rmtree(directory)
