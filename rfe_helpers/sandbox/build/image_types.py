"""The image types of the sandbox, and what a blueprint may request of each: data.

Names, file names and MIME types are those of osbuild-composer (osbuild/images v0.274). The size
of a disk is smaller than its 10 GiB (see raw.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

DISTRO = "debian-13"
ARCHITECTURE = "x86_64"
DEFAULT_REF = "debian/13/x86_64/edge"
KERNELS = ("linux-image-cloud-amd64", "linux-image-amd64", "linux-image-rt-amd64")

_DISK_CUSTOMIZATIONS = (
    "directories",
    "files",
    "group",
    "kernel",
    "locale",
    "services",
    "sshkey",
    "user",
)
_RAW_CUSTOMIZATIONS = (*_DISK_CUSTOMIZATIONS, "disk", "filesystem", "partitioning_mode")
_COMMIT_CUSTOMIZATIONS = tuple(sorted([*_DISK_CUSTOMIZATIONS, "firewall", "hostname", "timezone"]))
# What a guest needs: cloud-init, SSH, the web console; and what the sandbox's service imports and
# runs, so that it can be installed there without a network.
# fmt: off
_GUEST_PACKAGES = (
    "cloud-init", "cloud-guest-utils", "fdisk", "openssh-sftp-server",
    "cockpit-ws", "cockpit-bridge", "cockpit-system",
    "python3-starlette", "python3-uvicorn", "python3-requests",
    "python3-msgspec",
    "mmdebstrap", "debian-archive-keyring", "gpg", "xorriso", "squashfs-tools",
    "isomd5sum",
)
# fmt: on


@dataclass(frozen=True)
class ImageType:
    """One image type.

    `ostree`: it contains a commit, which it makes unless it `deploys` one from a url; `adds`: its
    packages beyond the base; `customizations`: the allowed ones; `kernel`: the allowed keys of
    customizations.kernel; `packages`: whether a blueprint may request any; `size`: of a disk, by
    default, in bytes (0: not a disk).
    """

    name: str
    filename: str
    mime: str
    aliases: tuple[str, ...] = ()
    deploys: bool = False
    ostree: bool = True
    adds: tuple[str, ...] = ()
    customizations: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    packages: bool = True
    size: int = 0


_COMMIT = ImageType(
    name="edge-commit",
    filename="commit.tar",
    mime="application/x-tar",
    aliases=("rhel-edge-commit",),
    customizations=_COMMIT_CUSTOMIZATIONS,
    kernel=("name",),
)
_RAW = ImageType(
    name="edge-raw-image",
    filename="image.raw.xz",
    mime="application/xz",
    aliases=("rhel-edge-raw-image",),
    deploys=True,
    packages=False,
    customizations=tuple(sorted(_RAW_CUSTOMIZATIONS)),
    kernel=("append",),
    size=3 * 1024**3,
)
IMAGE_TYPES = (
    _COMMIT,
    replace(
        _COMMIT,
        name="edge-container",
        filename="container.tar",
        aliases=("rhel-edge-container",),
    ),
    ImageType(
        name="edge-installer",
        filename="installer.iso",
        mime="application/x-iso9660-image",
        aliases=("rhel-edge-installer",),
        deploys=True,
        packages=False,
        customizations=("group", "installer", "locale", "sshkey", "timezone", "user"),
    ),
    _RAW,
    replace(
        _RAW,
        name="edge-simplified-installer",
        filename="simplified-installer.iso",
        mime="application/x-iso9660-image",
        aliases=("rhel-edge-simplified-installer",),
        customizations=tuple(sorted([*_RAW_CUSTOMIZATIONS, "ignition", "installation_device"])),
    ),
    ImageType(
        name="guest-image",
        filename="disk.qcow2",
        mime="application/x-qemu-disk",
        aliases=("qcow2",),
        ostree=False,
        adds=_GUEST_PACKAGES,
        customizations=tuple(sorted([*_DISK_CUSTOMIZATIONS, "hostname", "timezone"])),
        kernel=("append", "name"),
    ),
)


def find(name: str) -> ImageType | None:
    """The type with this name or alias, or None."""
    for kind in IMAGE_TYPES:
        if name == kind.name or name in kind.aliases:
            return kind
    return None
