"""A guest image with cloud-init, such as Red Hat's KVM guest image, run as a machine of the lab.

root gets the password `r` and the lab's SSH key by way of a NoCloud CD; the ports of SSH and of
the web console are forwarded from loopback, where nobody else can reach them.

    machines/<name>/seed.iso     the CD for cloud-init
    machines/<name>/disk.qcow2   what differs from the image, where it is not to be written to
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfe_helpers.core import run, ssh
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, InputError, MachineError, MediaError
from rfe_helpers.install import kickstart
from rfe_helpers.lab import keys
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import cloudinit, disks
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.qemu import FULL_CPU, VmSpec, find_program
from rfe_helpers.machine.vm import Machine

PASSWORD = "r"  # noqa: S105  # the one of the demo, on machines that only loopback leads to
SSH_PORT, CONSOLE_PORT = 2222, 9091
DISK_BYTES = 40 * 1024**3
_MEMORY = re.compile(r"([0-9]{1,7})([MGmg]?)")
_WINDOWS = ("gtk", "sdl", "cocoa")


@dataclass(frozen=True)
class Guest:
    """A running guest. `forwards` are its (host, guest) ports on loopback."""

    lab: Lab
    machine: Machine
    forwards: tuple[tuple[int, int], ...]

    @property
    def host(self) -> ssh.Host:
        """The guest as root over SSH."""
        return keys.host(self.lab, self.machine.name, self.port(22))

    @property
    def console_url(self) -> str:
        """The web console, once it is enabled."""
        return f"https://localhost:{self.port(9090)}/"

    def port(self, inside: int) -> int:
        """The port of this machine that leads to a port of the guest."""
        return next(host for host, guest in self.forwards if guest == inside)

    def wait(self, deadline: Deadline, on_progress: OnProgress = None) -> None:
        """Wait until it answers over SSH and cloud-init is done. Raises MachineError if
        cloud-init failed, DeadlineExceededError."""
        node = Node(self.lab, self.machine.name, port=self.port(22), user="root")
        node.wait(deadline, on_progress)
        if on_progress is not None:
            on_progress("waiting for cloud-init")
        command = "command -v cloud-init >/dev/null || exit 0; cloud-init status --wait --long"
        result = self.host.run(command, seconds=max(deadline.left, 1))
        # 2: it is done, and something was not as it liked (from release 23.4 on).
        if result.status not in (0, 2):
            raise MachineError(
                f"cloud-init failed in {self.machine.name}: {run.tail_of(result.stdout, 5)}",
                remedy=f"look at /var/log/cloud-init.log there: {self.host.line}",
                log=self.machine.directory / "console.log",
            )


def find(lab: Lab, name: str = "builder") -> Guest | None:
    """The running guest of that name, None if it does not run."""
    found = Machine.find(lab, name)
    return None if found is None else Guest(lab, found, found.spec.forwards)


def start(
    lab: Lab,
    image: Path,
    name: str = "builder",
    *,
    persist: bool = True,
    memory_mib: int = 2048,
    cpus: int = 2,
    firmware: str = "bios",
    cloud_init: Path | None = None,
    forwards: Sequence[tuple[int, int]] = (),
    display: str = "none",
    arch: str = "",
) -> Guest:
    """Start a guest image, or find the guest of that name running.

    With `persist` the image itself is written to; otherwise what is written is thrown away.
    `cloud_init` is a directory with user-data and meta-data in place of our own. `forwards` are
    (host, guest) TCP ports beside those of SSH and the web console. Raises MediaError if the
    image is not there or not qcow2, InputError, MachineError.
    """
    if (running := find(lab, name)) is not None:
        return running
    check_image(image)
    ports = {inside: outside for outside, inside in forwards}
    for label, preferred, inside in (
        (f"ssh-{name}", SSH_PORT, 22),
        (f"console-{name}", CONSOLE_PORT, 9090),
    ):
        if inside not in ports:
            ports[inside] = lab.port(label, preferred)
    chosen = arch or architecture(image)
    directory = lab.folder("machines", name)
    spec = VmSpec(
        name,
        disk=image.absolute(),
        memory_mib=memory_mib,
        cpus=cpus,
        firmware=firmware,
        snapshot=not persist,
        forwards=tuple((outside, inside) for inside, outside in sorted(ports.items())),
        seed=cloudinit.seed(directory / "seed.iso", documents(lab, name, cloud_init)),
        arch=chosen,
        cpu=FULL_CPU[chosen],
        display=display,
    )
    if not persist:
        # Its next start makes another host key, which must not look like an attack.
        keys.forget(lab, name)
    return Guest(lab, Machine.start(lab, spec), spec.forwards)


def overlay(lab: Lab, image: Path, name: str = "builder", size_bytes: int = DISK_BYTES) -> Path:
    """A disk for the guest `name` that begins as `image`, which stays as it is, and is larger:
    composes need room. One that is there already is kept, with all that was installed."""
    check_image(image)
    disk = lab.path("machines", name, "disk.qcow2")
    if disk.exists():
        return disk
    keys.forget(lab, name)
    return disks.overlay(image, disk, size=max(size_bytes, _info(image)["virtual-size"]))


def documents(lab: Lab, name: str, cloud_init: Path | None = None) -> Mapping[str, str]:
    """What cloud-init is told: from a directory, or our own."""
    if cloud_init is not None:
        return cloudinit.read_directory(cloud_init)
    key = lab.public_key
    hashed = kickstart.hash_password(PASSWORD)
    return {
        "user-data": cloudinit.user_data(password_hash=hashed, ssh_key=key),
        # The same at every start of it in this lab: done once is done.
        "meta-data": cloudinit.meta_data(f"rfe-{lab.id}-{name}", name),
    }


def architecture(image: Path) -> str:
    """The architecture that an image's name says, x86_64 if it says none."""
    return "aarch64" if "aarch64" in image.name else "x86_64"


def check_image(image: Path) -> None:
    """Raise MediaError unless it is a qcow2 image that can be read."""
    if not image.is_file():
        raise MediaError(
            f"there is no guest image {image}",
            remedy="`rfe fetch guest --profile NAME` fetches that of a release, or says where to "
            "get it; `rfe profiles` lists them",
        )
    kind = _info(image)["format"]
    if kind != "qcow2":
        raise MediaError(
            f"{image} is no qcow2 image but {kind}",
            remedy=f"convert it: qemu-img convert -O qcow2 {image.name} {image.stem}.qcow2",
        )


def _info(image: Path) -> dict[str, Any]:
    try:
        # -U: it may be in use.
        found = run.run(["qemu-img", "info", "-U", "--output=json", image]).stdout
    except CommandFailedError as error:
        raise MediaError(f"{image} cannot be read: {error.tail}") from None
    return dict(json.loads(found))


def window() -> str:
    """The kind of window that QEMU can open here, "none" if it cannot open one."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "none"
    offered = run.run([find_program(), "-display", "help"], check=False).stdout.split()
    return next((kind for kind in _WINDOWS if kind in offered), "none")


def parse_forward(text: str) -> tuple[int, int]:
    """HOST:GUEST as two TCP ports. Raises InputError."""
    host, colon, inside = text.partition(":")
    ports = [int(part) for part in (host, inside) if part.isascii() and part.isdigit()]
    if not colon or len(ports) != 2 or not all(0 < port < 65536 for port in ports):
        raise InputError(f"{text!r} is no pair of ports", remedy="write it as 8000:80")
    return ports[0], ports[1]


def parse_memory(text: str) -> int:
    """MiB from a number, or one with M or G. Raises InputError."""
    found = _MEMORY.fullmatch(text)
    mib = int(found[1]) * (1024 if found[2].upper() == "G" else 1) if found else 0
    if not 256 <= mib <= 1024 * 1024:
        raise InputError(f"{text!r} is no memory for a guest", remedy="write it as 2048 or 2G")
    return mib
