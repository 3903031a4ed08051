"""A boot ISO with a container image inside: what edge-installer is for commits.

As bootc-image-builder lays it out, the image is an OCI directory on the medium, the kickstart
installs it with `ostreecontainer`, and at the end `bootc switch --mutate-in-place` says where its
updates come from.
"""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, MediaError
from rfe_helpers.imagemode.image import PushedImage
from rfe_helpers.install import kickstart, media
from rfe_helpers.lab.lab import Lab

DIRECTORY = "container"  # on the medium
MEDIUM = "/run/install/repo"  # where the installer has it
KICKSTART = "edge.ks"
_SECONDS = 1800


def installer_iso(
    lab: Lab,
    boot_iso: Path,
    image: PushedImage,
    target: Path,
    *,
    update_from: str,
    post: str = "",
    **options: Any,
) -> Path:
    """Make `target`, a copy of a boot ISO that installs an image of the lab's registry without a
    network. The machine is updated from `update_from` ("registry.example/edge/os:stable");
    `options` are those of `kickstart.render`, at least `user` and a way to log in. Raises
    MediaError.

    >>> from pathlib import Path
    >>> from rfe_helpers.imagemode import installer_iso
    >>> registry_name = "registry.example/edge/os:1"
    >>> login = {"user": "core", "ssh_key": lab.public_key}
    >>> installer_iso(lab, iso, image, Path("edge.iso"), update_from=registry_name, **login)
    PosixPath('edge.iso')
    """
    switch = ["bootc", "switch", "--mutate-in-place", "--transport=registry", update_from]
    text = kickstart.render(
        lab.profile,
        image=f"oci:{MEDIUM}/{DIRECTORY}",
        post=f"{shlex.join(switch)}\n{post}",
        **options,
    )
    with tempfile.TemporaryDirectory(prefix="rfe-iso-", dir="/var/tmp") as scratch:
        directory, file = Path(scratch, DIRECTORY), Path(scratch, KICKSTART)
        file.write_text(text)
        source = f"docker://{image.address}/{image.name.rpartition(':')[0]}@{image.digest}"
        argv = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", source, f"oci:{directory}"]
        try:
            run.run(argv, seconds=_SECONDS)
        except CommandFailedError as error:
            raise MediaError(f"cannot fetch {image.name}: {error.tail}") from None
        label = media.read(boot_iso).label.replace(" ", "\\x20")
        return media.add_files(
            boot_iso,
            target,
            {DIRECTORY: directory, KICKSTART: file},
            arguments=f"inst.ks=hd:LABEL={label}:/{KICKSTART}",
            deadline=Deadline(_SECONDS),
        )
