"""The base tree that all composes share: what it is made of, and its place in the cache.

In the cache, one directory per recipe of the base, `base-<key>/`:

    base.tar       the root file system, initramfs included
    root-TIME/     the same, unpacked; TIME is that of the tar
    lists/         apt's lists, as some compose has fetched them (mmdebstrap.py)
    build/         bare-user repository: what earlier composes checked in
    archive/       the same objects compressed, as they are served
    lock           held (flock) while the base is made

base.tar gets its name once it is complete; ostree's repositories take concurrent writers. A base
older than `BASE_DAYS` is made again, so that its packages do not go stale; if that fails (no
network), the old one is used and the log says so. tree.py makes the base.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
import time
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import files
from rfe_helpers.sandbox.build import overlay

SUITE = "trixie"
KERNEL = "linux-image-cloud-amd64"
# fmt: off
PACKAGES = (
    "systemd", "systemd-sysv", "systemd-resolved", "systemd-timesyncd", "systemd-repart",
    "libpam-systemd",
    "libnss-systemd", "libnss-myhostname", "dbus", "udev", "kmod", "dracut", "passwd", "login",
    "ostree", "ostree-boot", "gir1.2-ostree-1.0", "python3", "python3-gi", KERNEL,
    "openssh-server", "sudo", "less", "curl", "ca-certificates", "zstd", "iproute2", "tzdata",
    "tzdata-legacy",  # US/Eastern, which Image Builder's own examples name
    "gpg",  # libostree verifies signatures with it
    # rpm-ostree and bootc fetch container images with skopeo; netavark is the smallest of what its
    # dependency "container-network-stack" can be, and the one that podman uses.
    "skopeo", "netavark",
    "xfsprogs", "e2fsprogs", "dosfstools",
    "grub-pc-bin", "grub-efi-amd64-bin", "grub2-common",
)
# fmt: on
# What mmdebstrap's variant "apt" installs with them, in words and patterns of apt.
WORDS = ("?essential", "apt", *PACKAGES)
# What no device reads: documentation, time zones that count leap seconds, GRUB as a single file,
# for signing, and the names of vendors and their devices. Each file costs every machine a request
# and a write.
EXCLUDED = (
    *(f"/usr/share/{name}/*" for name in ("man", "doc", "locale", "info", "lintian", "bug")),
    "/usr/share/zoneinfo/right/*",
    "/usr/lib/grub/x86_64-efi/monolithic/*",
    "/usr/lib/udev/hwdb.d/20-*",
)
BASE_DAYS = 7
# Level 6 takes twice as long as level 1 and saves 5 % (measured on this tree).
COMPRESSION_LEVEL = "1"


@dataclass(frozen=True)
class Base:
    """A base in the cache."""

    directory: Path

    @property
    def tar(self) -> Path:
        return self.directory / "base.tar"

    @property
    def root(self) -> Path:
        """Where tree.py unpacks the tar, so that trees can be laid over it."""
        return self.directory / f"root-{self.tar.stat().st_mtime_ns}"

    @property
    def lists(self) -> Path:
        return self.directory / "lists"

    @cached_property
    def build_repository(self) -> Repo:
        return Repo(self.directory / "build").init("bare-user")

    @cached_property
    def archive_repository(self) -> Repo:
        repository = Repo(self.directory / "archive").init("archive")
        repository.configure("archive.zlib-level", COMPRESSION_LEVEL)
        return repository


def in_cache(cache: Path) -> Base:
    """The place of the base in the cache; `tar` need not exist yet."""
    return Base(cache / f"base-{_key()}")


def _key() -> str:
    """Changes with everything that the base is made from."""
    digest = hashlib.sha256(repr((SUITE, PACKAGES, EXCLUDED)).encode())
    digest.update(guest_files())
    # Only half of inside.py matters, but a rebuild takes a minute and a stale base is confusing.
    digest.update(inside_source().encode())
    return digest.hexdigest()[:12]


def is_fresh(path: Path) -> bool:
    """Whether a file in the cache exists and is younger than BASE_DAYS."""
    try:
        return time.time() - path.stat().st_mtime < BASE_DAYS * 86400
    except FileNotFoundError:
        return False


def forget_others(cache: Path, keep: Base) -> None:
    """Remove the bases of other recipes that are older than BASE_DAYS, unless one is being made."""
    for directory in cache.glob("base-*"):
        if directory != keep.directory and not is_fresh(directory / "base.tar"):
            with contextlib.suppress(OSError), files.locked(directory / "lock", wait=False):
                overlay.remove_mapped(directory)


def inside_source(name: str = "inside.py") -> str:
    """A program that the tree's Python runs in the chroot, inside.py or customize.py."""
    return (resources.files("rfe_helpers.sandbox") / "build" / name).read_text()


def guest_files() -> bytes:
    """guest/root as a tar: the same bytes for the same content, owner root, times 0."""
    buffer = io.BytesIO()
    with (
        resources.as_file(resources.files("rfe_helpers.sandbox") / "guest" / "root") as root,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path in sorted(root.rglob("*")):
            if path.is_dir() or path.suffix == ".pyc":
                continue
            entry = tarfile.TarInfo(f"./{path.relative_to(root)}")
            entry.size = path.stat().st_size
            is_program = path.parent.name in ("bin", "sbin", "ext") or path.suffix == ".sh"
            entry.mode = 0o755 if is_program else 0o644
            with path.open("rb") as content:
                tar.addfile(entry, content)
    return buffer.getvalue()
