"""What happens inside a tree while a disk image is made.

Run by the tree's own Python in its chroot (`python3 -m rfe_helpers.sandbox.build.inside_image
DIR`), in a mount namespace of its own, so that its mounts end with it. DIR, below /tmp, holds
`spec.json` and gets `image.raw`:

    {"size": bytes, "arguments": [s, …] of the kernel, "replaced_kernel": package or null,
     "customizations": {…} in the shape of a blueprint, already validated by the service}

makes an image of the tree itself, as an ordinary Debian (guest/image.sh). With

    {"ref": s, "url": s, "osname": s, "remote": s, "filesystems": {mount point: bytes, …},
     "labels": {mount point: s, …}}

as well, a commit from the repository `payload/` in DIR is deployed into a directory, by the same
code that installs machines, and the image is made of that. Both are written by disk.py.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from rfe_helpers.sandbox.build import disk, inside
from rfe_helpers.sandbox.build.inside import stage
from rfe_helpers.sandbox.installer.edge_installer import system
from rfe_helpers.sandbox.installer.edge_installer.console import LOG, InstallError, run
from rfe_helpers.sandbox.installer.edge_installer.disk import Target
from rfe_helpers.sandbox.installer.edge_installer.payload import Payload

# At each boot systemd grows the last partition into what room there is behind it, then the file
# system into the partition (repart.d(5), systemd.mount(5)).
GROW = "[Partition]\nType=root\n"
GROWING = "defaults,x-systemd.growfs"
# What belongs to the machine that makes the image: mount points there, with their modes.
_MOUNT_POINTS = {"dev": "755", "run": "755", "tmp": "1777"}


def main(directory: Path) -> None:
    """Make `image.raw`; exits with the reason if it cannot be made."""
    spec = json.loads((directory / "spec.json").read_text())
    os.environ["OSTREE_SYSROOT_DEBUG"] = "mutable-deployments"  # it is to be removed again
    try:
        make(spec, directory)
    except (InstallError, ValueError) as error:
        raise SystemExit(f"Error: {error}") from None
    finally:
        print(LOG.read_text() if LOG.exists() else "", flush=True)


def make(spec: dict[str, Any], directory: Path) -> None:
    """Deploy and configure, or take the tree as it is, and make an image of that."""
    target = disk.new(directory / "image.raw", directory / "root")
    boot = directory / "boot"
    sizes, labels = dict(spec.get("filesystems") or {}), spec.get("labels") or {}
    boot_bytes = sizes.pop("/boot", 0)
    sizes.pop("/", None)  # what is left is the root's
    extra = [
        disk.FileSystem(
            place, size, str(uuid.uuid4()), content(spec, target, place), labels.get(place, "")
        )
        for place, size in sorted(sizes.items())
    ]
    deployment = deploy(spec, target, boot, extra) if "ref" in spec else None
    if deployment is None:
        show_tree(spec, target, boot)
    stage("image")
    for each in extra:
        each.content.mkdir(parents=True, exist_ok=True)
    disk.make(target, spec["size"], boot, extra, boot_bytes=boot_bytes, labels=labels)
    if deployment is not None:
        disk.protect(target.disk, deployment.relative_to(target.root))


def content(spec: dict[str, Any], target: Target, mountpoint: str) -> Path:
    """Where a deployment keeps what is seen at /var or below."""
    return Path(target.root, "ostree/deploy", spec["osname"], mountpoint.lstrip("/"))


def show_tree(spec: dict[str, Any], target: Target, boot: Path) -> None:
    """Make an ordinary Debian of the tree, customize it, and show it at the target's root without
    what is mounted on it, with its /boot moved to `boot`."""
    if spec["replaced_kernel"]:
        inside.remove_kernel(spec["replaced_kernel"])
        stage("initramfs")
        inside.make_initramfs(inside.kernel_release())
    script = Path(__file__).parents[1] / "guest/image.sh"
    uuids = (target.root_uuid, target.boot_uuid, target.esp_uuid)
    run("sh", script, *uuids, " ".join(spec["arguments"]))
    program = Path(__file__).with_name("customize.py")
    run("python3", program, stdin=json.dumps(spec["customizations"]))
    Path("/boot").rename(boot)
    Path("/boot").mkdir()
    target.root.mkdir()
    run("mount", "--bind", "/", target.root)
    for name, mode in _MOUNT_POINTS.items():
        run("mount", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", target.root / name)


def deploy(spec: dict[str, Any], target: Target, boot: Path, extra: list[disk.FileSystem]) -> Path:
    """Deploy the commit and configure it; returns the directory of the deployment."""
    stage("deploy")
    (target.root / "boot/efi").mkdir(parents=True)
    repository = boot.with_name("payload")
    payload = Payload(spec["osname"], spec["remote"], f"file://{repository}", spec["ref"], False, 0)
    deployment = system.deploy(target, payload, tuple(spec["arguments"]))
    shutil.rmtree(repository)
    configure(spec, target, deployment, extra)
    system.write_grub_configuration(target).rename(boot)
    (target.root / "boot").mkdir()
    return deployment


def configure(
    spec: dict[str, Any], target: Target, deployment: Path, extra: list[disk.FileSystem]
) -> None:
    """Let it grow, tell it where updates come from, and customize it."""
    fstab = deployment / "etc/fstab"
    lines = fstab.read_text().replace(" / ext4 defaults ", f" / ext4 {GROWING} ")
    fstab.write_text(lines + "".join(each.fstab for each in extra))
    (deployment / "etc/repart.d").mkdir()
    (deployment / "etc/repart.d/50-root.conf").write_text(GROW)
    view = target.root.parent / "view"
    system.enter(target, deployment, spec["osname"], view, nested=True)
    try:
        run("chroot", view, "ostree", "remote", "delete", spec["remote"])
        unverified = ("--no-sign-verify", "--no-gpg-verify")
        run("chroot", view, "ostree", "remote", "add", *unverified, spec["remote"], spec["url"])
        shutil.copy(Path(__file__).with_name("customize.py"), view / "tmp")
        customizations = json.dumps(spec["customizations"])
        run("chroot", view, "python3", "/tmp/customize.py", stdin=customizations)  # noqa: S108
    finally:
        run("umount", "--lazy", view)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
