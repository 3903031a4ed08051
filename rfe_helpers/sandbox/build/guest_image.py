"""A guest image: an ordinary Debian with cloud-init, OpenSSH and the web console, as a qcow2.

It stands in for Red Hat's KVM guest image, in which Image Builder is to be installed: nothing of
Image Builder is in it but the Debian packages that the sandbox's service needs.

The tree is the base that all composes share plus those packages. The disk is put together from
files, without root, loop devices or a mount:

    sector 0        GRUB's boot.img with a partition table of one entry
    sector 1 on     GRUB's core.img, which boot.img expects there; its configuration is inside
    1 MiB on        ext4, filled by `mke2fs -d`

BIOS only: with the core image in the gap before the first partition nothing has to be patched and
no second file system is needed.
"""

from __future__ import annotations

import os
import shutil
import struct
from importlib import resources
from pathlib import Path
from shlex import quote

from rfe_helpers.core import files, run
from rfe_helpers.sandbox.build import image_types, tree

SIZE = 10 * 1024**3
LABEL = "guest"
_SECTOR = 512
_START = 2048  # where the partition begins: 1 MiB
_GRUB = "/usr/lib/grub/i386-pc"
_MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "echo", "serial", "boot")
# No menu: there is one kernel and nobody to choose. The name of the partition is that of the
# first disk of the BIOS, which is the one it boots from.
_EARLY = f"""\
set root=(hd0,msdos1)
linux /boot/vmlinuz root=LABEL={LABEL} ro console=tty0 console=ttyS0,115200
initrd /boot/initramfs.img
boot
"""
# GRUB of Debian 12 cannot read a file system with these two, which later mke2fs turn on.
_FEATURES = "^metadata_csum_seed,^orphan_file"
_FILL = """
set -eu
rm -rf "$2"
mkdir "$2"
tar -xf "$1" -C "$2" --numeric-owner
mke2fs -q -F -t ext4 -L "$5" -O "$4" -E "offset=$6" -d "$2" "$3" "$7k"
rm -rf "$2"
"""


def build(request: tree.Request, work: tree.Work, target: Path) -> Path:
    """Make the qcow2 image at `target`; all or nothing. Raises CommandFailedError, BuilderError."""
    run.require("mke2fs", "qemu-img")
    shared = tree.base(work)
    tar, raw = work.directory / "tree.tar", work.directory / "disk.raw"
    script = work.directory / "image.sh"
    inside = resources.files("rfe_helpers.sandbox") / "guest" / "image.sh"
    script.write_text(inside.read_text())
    work.on_stage("guest-image", "unpack the base")
    hooks = [
        '--setup-hook=mkdir -p "$1/dev"',
        f"--setup-hook=tar-in {quote(str(shared.tar))} /",
        '--customize-hook=mkdir -p "$1/rfe"',
        f"--customize-hook=upload {quote(str(script))} /rfe/image.sh",
        f'--customize-hook=chroot "$1" sh /rfe/image.sh {LABEL}',
        '--customize-hook=rm -rf "$1/rfe"',
    ]
    try:
        kind = image_types.find(request.image_type)
        include = [*(kind.adds if kind else ()), *request.packages]
        tree.mmdebstrap(work, "guest-image", hooks, tar, variant="custom", include=include)
        tree.add_empty_dev(tar)
        work.on_stage("guest-image", "ext4")
        _write_boot_loader(work, raw)
        _fill(work, tar, raw)
        work.on_stage("guest-image", "qcow2")
        with files.replacing(target) as unfinished:
            convert: list[str | Path] = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
            run.run(
                [*convert, raw, unfinished],
                log=work.log,
                deadline=work.deadline,
                on_start=work.on_process,
            )
    finally:
        for leftover in (tar, raw, script, work.directory / "core.img"):
            leftover.unlink(missing_ok=True)
    return target


def grub_argv(configuration: Path, core: Path, program: str = "grub-mkimage") -> list[str]:
    """The command that makes GRUB's core image for BIOS."""
    return [
        *(program, "-O", "i386-pc", "-d", _GRUB, "-p", "(hd0,msdos1)/boot/grub"),
        *("-c", str(configuration), "-o", str(core), *_MODULES),
    ]


def first_sector(boot: bytes, sectors: int) -> bytes:
    """The first sector of a disk: boot.img's code, a signature of the disk, and one partition of
    type 83, marked as the one to boot, from _START on; `sectors` is the size of the disk."""
    # In the old notation of cylinders, heads and sectors: beyond what it can name.
    beyond = b"\xfe\xff\xff"
    entry = struct.pack("<B3sB3sII", 0x80, beyond, 0x83, beyond, _START, sectors - _START)
    return boot[:440] + os.urandom(4) + bytes(2) + entry + bytes(48) + b"\x55\xaa"


def _write_boot_loader(work: tree.Work, raw: Path) -> None:
    configuration, core = work.directory / "early.cfg", work.directory / "core.img"
    configuration.write_text(_EARLY)
    program = "grub-mkimage" if run.which("grub-mkimage") else "grub2-mkimage"
    run.run(grub_argv(configuration, core, program), log=work.log, deadline=work.deadline)
    configuration.unlink()
    code = core.read_bytes()
    if len(code) > (_START - 1) * _SECTOR:
        raise ValueError(f"GRUB's core image has {len(code)} bytes, too many for the gap")
    with raw.open("wb") as disk:
        disk.truncate(SIZE)
        disk.write(first_sector(Path(_GRUB, "boot.img").read_bytes(), SIZE // _SECTOR))
        disk.write(code)


def _fill(work: tree.Work, tar: Path, raw: Path) -> None:
    """Make the file system with the tree in it. For an ordinary user that happens as the root of a
    user namespace, in which the files of the tree have their owners."""
    root = work.directory / "root"
    words: list[str | Path] = [] if os.geteuid() == 0 else list(_UNSHARE)
    words += ["sh", "-c", _FILL, "sh", tar, root, raw, _FEATURES, LABEL]
    words += [str(_START * _SECTOR), str((SIZE - _START * _SECTOR) // 1024)]
    try:
        run.run(words, log=work.log, deadline=work.deadline, on_start=work.on_process)
    finally:
        if root.exists():
            tree.remove_mapped(root)
            shutil.rmtree(root, ignore_errors=True)


_UNSHARE = ("unshare", "--user", "--map-auto", "--map-root-user")
