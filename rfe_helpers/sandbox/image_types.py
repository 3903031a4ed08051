"""The image types of the sandbox and what a blueprint may ask of each: data.

Names, file names and MIME types are those of osbuild-composer (osbuild/images v0.274).
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


@dataclass(frozen=True)
class ImageType:
    """One type. `deploys`: it needs the url of a commit; otherwise it makes a commit.

    `customizations` are the allowed ones, `kernel` the allowed keys of customizations.kernel,
    `packages` whether packages may be asked for, `size` the default size in bytes (0: none).
    """

    name: str
    filename: str
    mime: str
    aliases: tuple[str, ...] = ()
    deploys: bool = False
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
)


def find(name: str) -> ImageType | None:
    """The type with this name or alias, None if there is none."""
    for kind in IMAGE_TYPES:
        if name == kind.name or name in kind.aliases:
            return kind
    return None
