"""Makes the boot ISO: the base tree with the installer in it, in the layout of Red Hat's.

    images/pxeboot/vmlinuz, initrd.img   kernel and initramfs, for booting directly
    images/install.img                   the installer system, a squashfs (`inst.stage2=`)
    images/eltorito.img, efiboot.img     boot loaders for BIOS and UEFI, from CD or USB stick
    boot/grub2/grub.cfg, EFI/BOOT/       their menu; its `linux` lines may name a kickstart
    .discinfo, .treeinfo                 what this medium is

In the cache: `boot-<key>/<label>.iso`, which gets its name once it is complete; the key changes
with the recipe of the base and with every file that goes into the ISO. A lock makes a second
builder wait.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import tempfile
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from shlex import quote
from string import Template

from rfe_helpers.core import files, run
from rfe_helpers.install import media
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.build import mmdebstrap, tree
from rfe_helpers.sandbox.build.base import is_fresh

TITLE = "Debian 13 Edge"
FAMILY, VERSION, ARCH = "Debian Edge", "13", "x86_64"
# What the installer needs beyond the base: sfdisk, checkisomd5, pykickstart's requests, mtools for
# efiboot.img, xz for disk images.
PACKAGES = ("python3", "python3-requests", "fdisk", "isomd5sum", "mtools", "xz-utils")
LIBRARY = "usr/lib/edge-installer"
EFI_SYSTEM_PARTITION = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
DATA_PARTITION = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
TREEINFO = Template("""\
[general]
name = $family $version
family = $family
version = $version
arch = $arch

[header]
type = productmd.treeinfo
version = 1.2

[release]
name = $family
short = edge
version = $version

[stage2]
mainimage = images/install.img

[images-$arch]
kernel = images/pxeboot/vmlinuz
initrd = images/pxeboot/initrd.img
""")


def boot_iso(work: tree.Work) -> Path:
    """The boot ISO, from the cache or made now (about a minute with the base in the cache)."""
    label = profile.load("sandbox").iso.label
    base = tree.base(work)
    additions = contents(label)
    key = hashlib.sha256(base.directory.name.encode() + additions).hexdigest()[:12]
    iso = work.cache / f"boot-{key}" / f"{label}.iso"
    with tree.locked(work, iso.parent):
        if not is_fresh(iso):
            with (
                tempfile.TemporaryDirectory(dir=iso.parent, prefix="work-") as directory,
                files.replacing(iso) as target,
            ):
                _make(work, base.tar, additions, label, Path(directory), target)
    _forget_others(work.cache, iso)
    return iso


def _make(
    work: tree.Work, base_tar: Path, additions: bytes, label: str, directory: Path, target: Path
) -> None:
    run.require("mmdebstrap", "mksquashfs", "xorriso", "implantisomd5")
    (directory / "contents.tar").write_bytes(additions)
    system, boot = directory / "system.tar", directory / "boot.tar"
    work.on_stage("boot-iso", "installer system")
    hooks = [
        '--setup-hook=mkdir -p "$1/dev"',
        f"--setup-hook=tar-in {quote(str(base_tar))} /",
        f"--customize-hook=tar-in {quote(str(directory / 'contents.tar'))} /",
        '--customize-hook=chroot "$1" sh /rfe/prepare.sh',
        f"--customize-hook=download /rfe/boot.tar {quote(str(boot))}",
        '--customize-hook=rm -rf "$1/rfe"',
    ]
    mmdebstrap.build(
        work,
        "installer",
        hooks,
        system,
        variant="custom",
        include=PACKAGES,
        size=mmdebstrap.SIZE,
    )
    tree.add_empty_dev(system)
    # Not with tarfile: the Python 3.11.2 of Debian 12 lacks its extraction filters.
    run.run(["tar", "-xf", boot, "-C", directory, "--no-same-owner"], deadline=work.deadline)
    root = directory / "boot"
    work.on_stage("boot-iso", "squashfs")
    _squash(work, system, root / "images/install.img")
    values = {"family": FAMILY, "version": VERSION, "arch": ARCH}
    (root / ".treeinfo").write_text(TREEINFO.substitute(values))
    (root / ".discinfo").write_text(f"{VERSION}.0\n{TITLE}\n{ARCH}\n")
    work.on_stage("boot-iso", "xorriso")
    command = iso_argv(root, directory / "boot_hybrid.img", label, target)
    run.run(command, log=work.log, deadline=work.deadline, on_start=work.on_process)
    media.implant_checksum(target)


def _squash(work: tree.Work, tar: Path, image: Path) -> None:
    """mksquashfs reads a tar from stdin, and run.run passes only text: a shell redirects it."""
    squash = 'exec mksquashfs - "$2" -tar -comp zstd -Xcompression-level 6 -noappend -quiet <"$1"'
    run.run(
        ["sh", "-c", squash, "sh", tar, image],
        log=work.log,
        deadline=work.deadline,
        on_start=work.on_process,
    )


def iso_argv(root: Path, mbr: Path, label: str, target: Path) -> list[str]:
    """xorriso's command line: an ISO that boots BIOS and UEFI machines, from CD and USB stick.

    The options are those of lorax (share/templates.d/99-generic/x86.tmpl), which makes Red Hat's.
    """
    # fmt: off
    return [
        "xorriso", "-as", "mkisofs", "-quiet",
        "-o", str(target),
        "-R", "-J",
        "-V", label,
        "--grub2-mbr", str(mbr),
        "-partition_offset", "16",
        "-appended_part_as_gpt",
        "-append_partition", "2", EFI_SYSTEM_PARTITION, str(root / "images/efiboot.img"),
        "-iso_mbr_part_type", DATA_PARTITION,
        "-c", "boot.cat",
        "--boot-catalog-hide",
        "-b", "images/eltorito.img",
        "-no-emul-boot",
        "-boot-load-size", "4",
        "-boot-info-table",
        "--grub2-boot-info",
        "-eltorito-alt-boot",
        "-e", "--interval:appended_partition_2:all::",
        "-no-emul-boot",
        str(root),
    ]
    # fmt: on


def contents(label: str) -> bytes:
    """What the ISO adds to the base, as a tar: the same bytes for the same files."""
    package = resources.files("rfe_helpers.sandbox.installer")
    media_files = package / "media"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        add_libraries(tar, LIBRARY)
        add_tree(tar, package / "edge_installer", f"{LIBRARY}/edge_installer")
        add_tree(tar, media_files / "dracut", "usr/lib/dracut/modules.d")
        add_tree(tar, media_files / "units", "usr/lib/systemd/system")
        add_text(tar, "rfe/prepare.sh", (media_files / "prepare.sh").read_text())
        for name, template, menu in (
            ("grub.cfg", "grub.cfg", ""),
            ("grub-early-bios.cfg", "grub-early.cfg", "/boot/grub2/grub.cfg"),
            ("grub-early-efi.cfg", "grub-early.cfg", "/EFI/BOOT/grub.cfg"),
        ):
            text = (media_files / template).read_text()
            for word, value in (("@LABEL@", label), ("@TITLE@", TITLE), ("@MENU@", menu)):
                text = text.replace(word, value)
            add_text(tar, f"rfe/{name}", text)
        # Not for the ISO itself: the rest of what it depends on, so that its key changes too.
        recipe = (PACKAGES, TREEINFO.template, iso_argv(Path(), Path(), label, Path()))
        add_text(tar, "rfe/recipe", repr(recipe))
    return buffer.getvalue()


def add_libraries(tar: tarfile.TarFile, target: str) -> None:
    """Add what the installer imports besides the standard library and requests."""
    add_tree(tar, resources.files("pykickstart"), f"{target}/pykickstart")


def add_tree(tar: tarfile.TarFile, source: Traversable, target: str) -> None:
    for entry in sorted(source.iterdir(), key=lambda item: item.name):
        if entry.is_dir() and entry.name not in ("__pycache__", "locale"):
            add_tree(tar, entry, f"{target}/{entry.name}")
        elif entry.is_file() and not entry.name.endswith((".pyc", ".so")):
            add_text(tar, f"{target}/{entry.name}", entry.read_text())


def add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    entry = tarfile.TarInfo(f"./{name}")
    entry.size = len(content)
    entry.mode = 0o755 if name.endswith(".sh") else 0o644
    tar.addfile(entry, io.BytesIO(content))


def _forget_others(cache: Path, keep: Path) -> None:
    """Remove the boot ISOs of other recipes that are no longer fresh."""
    for iso in cache.glob("boot-*/*.iso"):
        if iso != keep and not is_fresh(iso):
            shutil.rmtree(iso.parent, ignore_errors=True)
