"""Runs Ignition of the boot medium on the disk that the installer writes.

Two of its stages: `fetch`, before the disk is touched, and `files`, on the installed system. What
it enables, it leaves to the first boot's presets, which this system does not have: systemctl
applies them. Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .console import InstallError, run, step
from .disk import release

DIRECTORY, PROGRAM, CONFIG = "ignition", "ignition", "config.ign"  # on the boot medium
SECONDS = 120  # for either stage; Ignition itself tries for ever to reach a server
WHY = "the installer of the sandbox runs Ignition when the disk is written and nothing has booted"
_WORK = Path(tempfile.gettempdir(), "ignition")  # from /run nothing can be executed
_CACHE = _WORK / "ignition.json"  # what `fetch` leaves to the other stages
_PRESET = "etc/systemd/system-preset/20-ignition.preset"


def beyond(config: Mapping[str, Any]) -> str:
    """The part of a configuration that only an initramfs can apply, or ""."""
    storage = config.get("storage") or {}
    names = ("disks", "filesystems", "luks", "raid")
    parts = [f"storage.{name}" for name in names if isinstance(storage, dict) and storage.get(name)]
    arguments = config.get("kernelArguments") or {}
    if isinstance(arguments, dict) and any(arguments.values()):
        parts.append("kernelArguments")
    return ", ".join(parts)


def fetch(medium: Path) -> bool:
    """Read the configuration of the medium, and what it refers to, from the network if need be;
    False if there is none. Raises InstallError with Ignition's reason."""
    source = medium / DIRECTORY
    if not source.is_dir():
        return False
    step("reading the Ignition configuration")
    shutil.rmtree(_WORK, ignore_errors=True)
    shutil.copytree(source, _WORK)
    (_WORK / PROGRAM).chmod(0o700)
    os.environ["IGNITION_CONFIG_FILE"] = str(_WORK / CONFIG)
    _run("fetch", Path("/"))
    if parts := beyond(json.loads(_CACHE.read_text())):
        raise InstallError(f"ignition: {parts}: {WHY}")
    return True


def apply(disk: Path, physical: Path, view: Path) -> None:
    """Apply the configuration to the system on a disk that was written now."""
    step("applying the Ignition configuration")
    run("blockdev", "--rereadpt", disk)
    run("udevadm", "settle")
    listing = json.loads(run("lsblk", "--json", "--output", "PATH,PARTLABEL", disk))
    partitions = listing["blockdevices"][0].get("children") or listing["blockdevices"]
    root = next((each["path"] for each in partitions if each.get("partlabel") == "root"), "")
    if not root:
        raise InstallError(f"{disk} has no root partition")
    physical.mkdir(parents=True, exist_ok=True)
    run("mount", root, physical)
    deployment = next(physical.glob("ostree/deploy/*/deploy/*.0"))
    _mount(deployment, view)
    try:
        _write_files(view)
        _apply_presets(view)
    finally:
        release(view, physical)


def _mount(deployment: Path, view: Path) -> None:
    """Show a deployment at `view` as the running system will see it, other file systems too."""
    view.mkdir(parents=True, exist_ok=True)
    run("mount", "--bind", deployment, view)
    run("mount", "--bind", deployment.parents[1] / "var", view / "var")
    table = _WORK / "fstab"
    lines = (deployment / "etc/fstab").read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if line.split()[1:2] != ["/"]))
    run("mount", "--all", "--fstab", table, "--target-prefix", view)
    for name in ("dev", "proc", "sys"):
        run("mount", "--bind", Path("/", name), view / name)
    run("chroot", view, "systemd-tmpfiles", "--create", "--prefix=/var", check=False)


def _write_files(view: Path) -> None:
    try:
        _run("files", view)
    except InstallError as error:
        # Its last step labels what it has written for SELinux, which this system does not have.
        if "failed to handle relabeling" not in str(error):
            raise


def _run(stage: str, root: Path) -> None:
    options = ["--platform=file", f"--config-cache={_CACHE}", "--log-to-stdout"]
    options += [f"--root={root}", f"--stage={stage}"]
    # On stderr it prints the configuration when it fails, which may hold hashes of passwords.
    limited = 'exec timeout "$@" 1>&2 2>/dev/null'
    try:
        run("sh", "-c", limited, "ignition", str(SECONDS), _WORK / PROGRAM, *options)
    except InstallError as error:
        raise InstallError(f"ignition: {str(error).removeprefix('sh: ')}") from None


def _apply_presets(view: Path) -> None:
    path = view / _PRESET
    lines = path.read_text().splitlines() if path.exists() else []
    units = [words[1] for words in map(str.split, lines) if len(words) > 1]
    if units:
        run("systemctl", f"--root={view}", "preset", *units)
