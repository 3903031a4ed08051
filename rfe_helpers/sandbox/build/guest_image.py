"""A guest image: an ordinary Debian with cloud-init, OpenSSH and the web console, as a qcow2.

It stands in for Red Hat's KVM guest image, in which Image Builder is to be installed: nothing of
Image Builder is in it but the Debian packages that the sandbox's service needs.

The tree is the base that all composes share plus those packages, and the disk is made in it
(disk_image.py). A blueprint customizes it like a commit. cloud-init grows its root file system to
the disk that it finds itself on.
"""

from __future__ import annotations

from pathlib import Path

from rfe_helpers.core import run
from rfe_helpers.sandbox.build import base, disk_image, downloads, image_types, tree

SIZE = 10 * 1024**3
_PACK = ("qcow2", "qemu-img convert -f raw -O qcow2 image.raw packed")


def build(request: tree.Request, work: tree.Work, target: Path) -> Path:
    """Make the qcow2 image at `target`; all or nothing. Raises CommandFailedError, BuilderError."""
    run.require("qemu-img")
    kind = image_types.find(request.image_type)
    other_kernel = request.kernel != base.KERNEL
    packages = [
        *disk_image.PACKAGES,
        *(kind.adds if kind else ()),
        *request.packages,
        *([request.kernel] if other_kernel else []),
    ]
    remaining = downloads.with_content(request.blueprint.customizations, work)
    append = (remaining.pop("kernel", None) or {}).get("append", "")
    spec = {
        "size": SIZE,
        "arguments": append.split(),
        "replaced_kernel": base.KERNEL if other_kernel else None,
        "customizations": remaining,
    }
    disk_image.make(work, "guest-image", spec, target, packages=packages, pack=_PACK)
    return target
