"""edge-simplified-installer: the boot ISO with a raw image, which it writes to a disk unattended.

The disk is the blueprint's `installation_device`. In RHEL coreos-installer writes the image; the
names of the kernel's arguments are the same here.
"""

from __future__ import annotations

from pathlib import Path

from rfe_helpers.install import media
from rfe_helpers.sandbox.build import ignition, offline, raw, tree
from rfe_helpers.sandbox.installer import iso as installer
from rfe_helpers.sandbox.installer.edge_installer import image

IMAGE = "image.raw.xz"


def build(request: tree.Request, work: tree.Work, target: Path) -> Path:
    """Make the ISO of a compose at `target`; `request.parent` is the commit in its image.

    Raises CommitError if the commit cannot be fetched, BuilderError for an Ignition configuration
    that Ignition does not take.
    """
    packed = work.directory / IMAGE
    requested = request.blueprint.customizations
    try:
        with ignition.for_medium(requested, work) as configured:
            raw.build(request, work, packed)
            boot = installer.boot_iso(work)
            work.on_stage("artifact", target.name)
            media.add_files(
                boot,
                target,
                {IMAGE: packed, **configured},
                arguments=arguments(requested["installation_device"]),
                deadline=work.deadline,
                on_start=work.on_process,
            )
    finally:
        packed.unlink(missing_ok=True)
    return target


def arguments(device: str) -> str:
    """The kernel's arguments that write the image of the ISO to a disk, once its checksum fits."""
    return f"{image.FILE}={offline.MEDIUM}/{IMAGE} {image.DEVICE}={device} rd.live.check"
