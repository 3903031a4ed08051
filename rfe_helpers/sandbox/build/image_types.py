"""The image types of the sandbox and what a blueprint may ask of each: data.

Names, file names and MIME types are those of osbuild-composer (osbuild/images v0.274). The size
of a disk is smaller than its 10 GiB (see raw.py).
"""

from __future__ import annotations

from dataclasses import dataclass

DISTRO = "debian-13"
ARCHITECTURE = "x86_64"
DEFAULT_REF = "debian/13/x86_64/edge"
KERNELS = ("linux-image-cloud-amd64", "linux-image-amd64", "linux-image-rt-amd64")

_COMMIT_CUSTOMIZATIONS = (
    *("directories", "files", "group", "hostname", "kernel", "locale", "services", "sshkey"),
    *("timezone", "user"),
)

_DISK_CUSTOMIZATIONS = (
    *("directories", "files", "group", "kernel", "locale", "services", "sshkey", "user"),
)
# What makes the guest image one: cloud-init, SSH, the web console; and what the sandbox's service
# imports and runs, so that it can be installed there without a network.
_GUEST_PACKAGES = (
    *("cloud-init", "cloud-guest-utils", "fdisk", "openssh-sftp-server"),
    *("cockpit-ws", "cockpit-bridge", "cockpit-system"),
    *("python3-starlette", "python3-uvicorn", "python3-tomlkit", "python3-requests"),
    "python3-msgspec",
    *("mmdebstrap", "debian-archive-keyring", "gpg", "xorriso", "squashfs-tools"),
)


@dataclass(frozen=True)
class ImageType:
    """One type. `deploys`: it needs the url of a commit; `ostree`: it has to do with commits at
    all, and makes one unless it deploys one; `adds`: packages that it has beyond the base.

    `customizations` are the allowed ones, `kernel` the allowed keys of customizations.kernel,
    `packages` whether packages may be asked for, `size` the default size in bytes (0: none).
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


IMAGE_TYPES = (
    ImageType(
        name="edge-commit",
        filename="commit.tar",
        mime="application/x-tar",
        aliases=("rhel-edge-commit",),
        customizations=_COMMIT_CUSTOMIZATIONS,
        kernel=("name",),
    ),
    ImageType(
        name="edge-container",
        filename="container.tar",
        mime="application/x-tar",
        aliases=("rhel-edge-container",),
        customizations=_COMMIT_CUSTOMIZATIONS,
        kernel=("name",),
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
    ImageType(
        name="edge-raw-image",
        filename="image.raw.xz",
        mime="application/xz",
        aliases=("rhel-edge-raw-image",),
        deploys=True,
        packages=False,
        customizations=_DISK_CUSTOMIZATIONS,
        kernel=("append",),
        size=3 * 1024**3,
    ),
    ImageType(
        name="guest-image",
        filename="disk.qcow2",
        mime="application/x-qemu-disk",
        aliases=("qcow2",),
        ostree=False,
        adds=_GUEST_PACKAGES,
    ),
)


def find(name: str) -> ImageType | None:
    """The type with this name or alias, None if there is none."""
    for kind in IMAGE_TYPES:
        if name == kind.name or name in kind.aliases:
            return kind
    return None
