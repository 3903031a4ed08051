"""Boot ISOs of any release: read their label, release, kernel and commit without mounting them; add
files to a copy; and verify what was written to a USB stick.

Nothing here writes to a device.
"""

from __future__ import annotations

import configparser
import os
import re
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import files, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, CommitError, InputError, MediaError

KERNEL = "images/pxeboot/vmlinuz"
INITRD = "images/pxeboot/initrd.img"
# Boot menus: of GRUB for BIOS and for UEFI, and of isolinux, which RHEL 8 and 9 use for BIOS.
MENUS = ("boot/grub2/grub.cfg", "EFI/BOOT/grub.cfg", "isolinux/isolinux.cfg")
# Paths in an edge-installer of osbuild.
REPOSITORY = "ostree/repo"
KICKSTART = "osbuild.ks"
_CHECKSUM_SECONDS = 3600  # of a DVD on a slow stick
_CHUNK = 1 << 20
# ECMA-119: volume descriptors start at sector 16 of 2048 bytes; 8.4 has the primary one's fields.
_SECTOR = 2048
_PRIMARY = b"\x01CD001"


@dataclass(frozen=True)
class BootIso:
    """A boot ISO. `family`, `version` and `arch` are from its .treeinfo, "" without one; `size` is
    that of its volume in bytes.

    >>> from rfe_helpers.install import media
    >>> boot = media.read(iso)
    >>> boot.release, boot.arch
    ('Debian Edge 13', 'x86_64')
    >>> boot.arguments(site.kickstart_url("edge.ks"))
    'inst.stage2=hd:LABEL=Debian-13-Edge-x86_64 inst.ks=http://10.0.2.2:.../edge.ks ...'
    """

    path: Path
    label: str
    size: int
    family: str = ""
    version: str = ""
    arch: str = ""

    @property
    def release(self) -> str:
        """The name of the release, such as "Red Hat Enterprise Linux 9.4"."""
        return f"{self.family} {self.version}".strip() or self.label

    def arguments(self, kickstart_url: str) -> str:
        """The kernel arguments that install from this ISO by a kickstart, in text mode, on the
        screen and the serial console, which is last, so that it is /dev/console."""
        return (
            f"inst.stage2=hd:LABEL={self._device} inst.ks={kickstart_url} inst.text "
            "console=tty0 console=ttyS0,115200"
        )

    @property
    def own_kickstart(self) -> str:
        """The value of inst.ks= for the kickstart on the ISO itself."""
        return f"hd:LABEL={self._device}:/{KICKSTART}"

    @property
    def _device(self) -> str:
        """The label as udev writes it, with \\x20 for a space."""
        return self.label.replace(" ", "\\x20")

    def extract_kernel(self, directory: Path) -> tuple[Path, Path]:
        """Copy kernel and initramfs into a directory, as `vmlinuz` and `initrd.img`."""
        return (
            self.extract(KERNEL, directory / "vmlinuz"),
            self.extract(INITRD, directory / "initrd.img"),
        )

    def extract(self, name: str, target: Path) -> Path:
        """Copy a file or directory from the ISO. Raises MediaError if it is not there."""
        target.unlink(missing_ok=True)
        try:
            run.run([*_xorriso(self.path), "-extract", f"/{name}", _with_parent(target)])
        except CommandFailedError as error:
            raise MediaError(
                f"{self.path} has no {name}: it is not a boot ISO, or it is damaged ({error.tail})",
                remedy=error.remedy
                or "compare its checksum with the published one, or make it again",
            ) from None
        target.chmod(0o755 if target.is_dir() else 0o644)
        return target


def read(path: Path) -> BootIso:
    """Read the label, size and release of a boot ISO.

    >>> from rfe_helpers.install import media
    >>> boot = media.read(iso)
    >>> boot.label, boot.size  # bytes
    ('Debian-13-Edge-x86_64', ...)

    Raises MediaError for a file that is missing, truncated, or not an ISO.
    """
    label, size = _primary_volume(path)
    if path.stat().st_size < size:
        raise MediaError(
            f"{path} is cut off: it has {path.stat().st_size} of {size} bytes",
            remedy="download it again",
        )
    iso = BootIso(path, label, size)
    try:
        text = run.run([*_xorriso(path), "-concat", "append", "-", "/.treeinfo"]).stdout
    except CommandFailedError:
        return iso
    info = configparser.ConfigParser(interpolation=None)
    try:
        info.read_string(text)
        general = info["general"]
    except (configparser.Error, KeyError) as error:
        raise MediaError(f"{path}: .treeinfo cannot be read: {error}") from None
    return BootIso(
        path,
        label,
        size,
        general.get("family", ""),
        general.get("version", ""),
        general.get("arch", ""),
    )


@dataclass(frozen=True)
class IsoCommit:
    """The commit in an installer ISO, and the kickstart that installs it.

    >>> from pathlib import Path
    >>> from rfe_helpers.install import media
    >>> inside = media.payload(Path("edge-installer.iso"))  # doctest: +SKIP
    >>> inside.ref, inside.version  # doctest: +SKIP
    ('rhel/9/x86_64/edge', '9.6')
    """

    ref: str
    commit: str
    version: str
    timestamp: datetime
    kickstart: str


def payload(iso: Path) -> IsoCommit:
    """The commit in an edge-installer. Raises MediaError if there is none.

    >>> from rfe_helpers.install import media
    >>> media.payload(iso)
    Traceback (most recent call last):
        ...
    rfe_helpers.errors.MediaError: ...
    """
    boot = read(iso)
    with tempfile.TemporaryDirectory(prefix="rfe-iso-") as directory:
        root = Path(directory)
        try:
            kickstart = boot.extract(KICKSTART, root / KICKSTART).read_text()
            # The part of the repository that ostree needs to show the commit.
            for name in ("config", "refs"):
                boot.extract(f"{REPOSITORY}/{name}", root / "repo" / name)
            heads = root / "repo/refs/heads"
            ref = next(path for path in sorted(heads.rglob("*")) if path.is_file())
            commit = ref.read_text().strip()
            name = f"objects/{commit[:2]}/{commit[2:]}.commit"
            boot.extract(f"{REPOSITORY}/{name}", root / "repo" / name)
            info = Repo(root / "repo").show(commit)
        except (MediaError, CommitError, StopIteration, UnicodeDecodeError, OSError):
            raise MediaError(
                f"{iso} has no readable commit in /{REPOSITORY}: it is not an edge-installer",
                remedy="make one with a compose of type edge-installer",
            ) from None
        return IsoCommit(
            str(ref.relative_to(heads)), commit, info.version, info.timestamp, kickstart
        )


def check(iso: Path) -> bool:
    """Verify the checksum in an ISO: True if it matches, False if there is none.

    Raises MediaError for an ISO that is cut off or altered.

    >>> from rfe_helpers.install import media
    >>> media.check(iso)
    True
    """
    read(iso)
    result = run.run(["checkisomd5", iso], check=False, seconds=_CHECKSUM_SECONDS)
    output = result.stdout + result.stderr
    if "result is: PASS" in output:
        return True
    if "No checksum information" in output:
        return False
    if "result is: FAIL" in output:
        raise MediaError(
            f"the content of {iso} does not match the checksum in it: it is damaged",
            remedy="download or make it again",
        )
    raise MediaError(
        f"the checksum in {iso} could not be verified: {run.tail_of(output, 3)}",
        remedy=f"check that the file can be read, then try `checkisomd5 {iso}`",
    )


def implant_checksum(iso: Path) -> None:
    """Write the checksum of an ISO into it, where Anaconda reads it, replacing an earlier one.

    It detects accidental damage, a bad copy or a worn stick, but not a deliberate change.

    >>> from pathlib import Path
    >>> import shutil
    >>> from rfe_helpers.install import media
    >>> media.implant_checksum(Path(shutil.copy(iso, "copy.iso")))
    >>> media.check(Path("copy.iso"))
    True
    """
    try:
        run.run(["implantisomd5", "--force", iso], seconds=_CHECKSUM_SECONDS)
    except CommandFailedError as error:
        raise MediaError(
            f"{iso} cannot get its checksum: {error.tail}",
            remedy=error.remedy or "make the ISO again",
        ) from None


def verify_written(target: Path, iso: Path) -> int:
    """Compare a device or file with the ISO that was written to it, up to the size of the ISO.

    Returns the number of bytes compared. Raises MediaError with the offset of the first
    difference, or if the device cannot be read. Nothing is written.

    >>> from rfe_helpers.install import media
    >>> media.verify_written(iso, iso) == iso.stat().st_size  # the first is a stick: /dev/sdb
    True
    """
    done = 0
    try:
        with iso.open("rb") as original, target.open("rb") as written:
            # Read from the device, not from the page cache that writing has filled.
            os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while expected := original.read(_CHUNK):
                actual = written.read(len(expected))
                if actual != expected:
                    pairs = zip(expected, actual, strict=False)
                    same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(actual))
                    raise MediaError(_difference(target, iso, done + same, len(actual) > same))
                done += len(expected)
    except OSError as error:
        raise MediaError(
            f"{error.filename or target}: {error.strerror}",
            remedy="pass the whole device, such as /dev/sdb, and run as root",
        ) from None
    return done


def _difference(target: Path, iso: Path, place: int, more: bool) -> str:
    if more:
        return f"{target} differs from {iso} at byte {place}: it was not written correctly"
    return f"{target} ends at byte {place}, {iso} has {iso.stat().st_size}: it was cut off"


def add_files(
    iso: Path,
    target: Path,
    added: Mapping[str, Path],
    *,
    arguments: str = "",
    timeout: int | None = None,
    deadline: Deadline | float | None = None,
    on_start: Callable[[run.ProcessId], None] | None = None,
) -> Path:
    """Copy a boot ISO to `target` with files or directories added (path in the ISO -> source).

    The copy boots as the original does; `arguments` are added to the kernel arguments in every
    entry of its menus, and with `timeout` those of GRUB wait as many seconds (-1: for ever). Raises
    InputError if there is nothing to add, MediaError if xorriso cannot make it, or if it has no
    boot menu.

    >>> from pathlib import Path
    >>> from rfe_helpers.install import media
    >>> read_me = Path("README")
    >>> read_me.write_text("The boot ISO of shop 17")
    23
    >>> media.add_files(iso, Path("shop.iso"), {"README": read_me}, arguments="quiet")
    PosixPath('shop.iso')
    """
    read(iso)
    if not added and not arguments:
        raise InputError("there is nothing to add", remedy=f"a copy: cp {iso} {target}")
    with (
        tempfile.TemporaryDirectory(prefix="rfe-iso-") as directory,
        files.replacing(target) as unfinished,
    ):
        menus = _menus_with(iso, arguments, timeout, Path(directory)) if arguments else {}
        command: list[str | Path] = ["xorriso", "-abort_on", "FAILURE", "-report_about", "FAILURE"]
        command += ["-indev", iso, "-outdev", unfinished, "-overwrite", "on"]
        # The boot records of the original, for CD and for USB, are made again in the copy.
        command += ["-boot_image", "any", "replay"]
        for name, source in {**added, **menus}.items():
            command += ["-map", source, f"/{name}"]
        try:
            run.run(command, deadline=Deadline.of(deadline, 900), on_start=on_start)
        except CommandFailedError as error:
            raise MediaError(
                f"{target} could not be made from {iso}: {error.tail}",
                remedy=error.remedy or f"see whether {iso} is complete: `rfe media verify {iso}`",
            ) from None
        implant_checksum(unfinished)
    return target


def _menus_with(iso: Path, arguments: str, timeout: int | None, directory: Path) -> dict[str, Path]:
    """The menus of an ISO with arguments added to the lines that boot a kernel."""
    changed: dict[str, Path] = {}
    for name in MENUS:
        menu = directory / name
        try:
            run.run([*_xorriso(iso), "-extract", f"/{name}", _with_parent(menu)])
        except CommandFailedError:
            continue  # not every release has every menu
        menu.chmod(0o644)
        text = menu.read_text()
        pattern = r"^(\s*(?:linux|linuxefi|append)\s.*inst\.stage2=.*)$"
        changed_text = re.sub(pattern, lambda line: f"{line[1]} {arguments}", text, flags=re.M)
        if timeout is not None:
            changed_text = re.sub(r"(?m)^set timeout=.*$", f"set timeout={timeout}", changed_text)
        menu.write_text(changed_text)
        if menu.read_text() != text:
            changed[name] = menu
    if not changed:
        raise MediaError(f"{iso} has no boot menu with inst.stage2=: it is not a boot ISO")
    return changed


def _with_parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _xorriso(path: Path) -> list[str | Path]:
    """xorriso, read-only, with an exit status that reports failures."""
    # fmt: off
    return [
        "xorriso",
        "-abort_on", "FAILURE",
        "-report_about", "FAILURE",
        "-osirrox", "on",
        "-indev", path,
    ]
    # fmt: on


def _primary_volume(path: Path) -> tuple[str, int]:
    """Label and size in bytes, from the primary volume descriptor."""
    try:
        with path.open("rb") as file:
            file.seek(16 * _SECTOR)
            descriptor = file.read(_SECTOR)
    except OSError as error:
        raise MediaError(
            f"{path}: {error.strerror}", remedy="pass the path of a boot ISO"
        ) from None
    if len(descriptor) < _SECTOR or not descriptor.startswith(_PRIMARY):
        raise MediaError(f"{path} is not an ISO image", remedy="pass the path of a boot ISO")
    blocks = struct.unpack_from("<I", descriptor, 80)[0]
    block_size = struct.unpack_from("<H", descriptor, 128)[0]
    return descriptor[40:72].decode("ascii", errors="replace").strip(), blocks * block_size
