"""What happens inside a tree while an image with a commit deployed is made.

Run by the tree's own Python in its chroot (`python3 -m rfe_helpers.sandbox.build.inside_image
DIR`), in a mount namespace of its own, so that its mounts end with it. DIR holds the repository
with the commit, `payload/`, and `spec.json`; it gets `image.raw.xz`:

    {"ref": s, "url": s, "osname": s, "remote": s, "size": bytes, "arguments": [s, …],
     "customizations": {…} in the shape of a blueprint, already validated by the service}

The commit is deployed into a directory, by the same code that installs machines, and the image is
made of that (disk.py).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from rfe_helpers.sandbox.build import disk
from rfe_helpers.sandbox.build.inside import stage
from rfe_helpers.sandbox.installer.edge_installer import system
from rfe_helpers.sandbox.installer.edge_installer.console import LOG, InstallError, run
from rfe_helpers.sandbox.installer.edge_installer.disk import Target
from rfe_helpers.sandbox.installer.edge_installer.plan import Payload

# At each boot systemd grows the last partition into what room there is behind it, then the file
# system into the partition (repart.d(5), systemd.mount(5)).
GROW = "[Partition]\nType=root\n"
GROWING = "defaults,x-systemd.growfs"


def main(directory: Path) -> None:
    """Make `image.raw.xz`; exits with the reason if it cannot be made."""
    spec = json.loads((directory / "spec.json").read_text())
    os.environ["OSTREE_SYSROOT_DEBUG"] = "mutable-deployments"  # it is to be removed again
    try:
        make(spec, directory)
    except (InstallError, ValueError) as error:
        raise SystemExit(f"Error: {error}") from None
    finally:
        print(LOG.read_text() if LOG.exists() else "", flush=True)


def make(spec: dict[str, Any], directory: Path) -> None:
    """Deploy, configure, and pack what has come of it."""
    identity = disk.Identity()
    root, image = directory / "root", directory / "image.raw"
    target = Target(image, root, identity.root_uuid, identity.boot_uuid, identity.esp_uuid, "ext4")
    (root / "boot/efi").mkdir(parents=True)
    stage("deploy")
    payload = Payload(
        spec["osname"], spec["remote"], f"file://{directory}/payload", spec["ref"], False, 0
    )
    deployment = system.deploy(target, payload, tuple(spec["arguments"]))
    shutil.rmtree(directory / "payload")
    configure(spec, target, deployment)
    system.write_grub_configuration(target)
    stage("image")
    boot = (root / "boot").rename(directory / "boot")
    (root / "boot").mkdir()
    disk.make(image, spec["size"], identity, root=root, boot=boot)
    disk.protect(image, deployment.relative_to(root))
    stage("xz")
    run("xz", "-T0", "-0", "--memlimit-compress=2GiB", image)


def configure(spec: dict[str, Any], target: Target, deployment: Path) -> None:
    """Let it grow, tell it where updates come from, and customize it."""
    fstab = deployment / "etc/fstab"
    fstab.write_text(fstab.read_text().replace(" / ext4 defaults ", f" / ext4 {GROWING} "))
    (deployment / "etc/repart.d").mkdir()
    (deployment / "etc/repart.d/50-root.conf").write_text(GROW)
    view = target.root.parent / "view"
    system.enter(target, deployment, spec["osname"], view, nested=True)
    try:
        run("chroot", view, "ostree", "remote", "delete", spec["remote"])
        unverified = ("--no-sign-verify", "--no-gpg-verify")
        run("chroot", view, "ostree", "remote", "add", *unverified, spec["remote"], spec["url"])
        inside = Path(__file__).with_name("inside.py")
        shutil.copy(inside, view / "tmp/inside.py")
        wanted = json.dumps(spec["customizations"])
        run("chroot", view, "python3", "/tmp/inside.py", "customize", "-", stdin=wanted)  # noqa: S108
    finally:
        run("umount", "--lazy", view)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
