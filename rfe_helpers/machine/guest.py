"""A guest image with cloud-init, such as Red Hat's KVM guest image, run as a machine of the lab.

root gets the password `r` and the lab's SSH key from a NoCloud CD; the ports of SSH and of the web
console are forwarded from loopback, so that other hosts cannot reach them.

    machines/<name>/seed.iso     the CD for cloud-init
    machines/<name>/disk.qcow2   what differs from the image, where the image is left unchanged
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
from rfe_helpers.lab import keys, ports
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import cloudinit, disks
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.qemu import FULL_CPU, VmSpec, find_program
from rfe_helpers.machine.vm import Machine

PASSWORD = "r"  # noqa: S105  # the demo's, on machines that are reachable from loopback only
DISK_BYTES = 40 * 1024**3
_MEMORY = re.compile(r"([0-9]{1,7})([MGmg]?)")
_WINDOWS = ("gtk", "sdl", "cocoa")


@dataclass(frozen=True)
class Guest:
    """A running guest. `forwards` are its (host, guest) TCP ports on loopback.

    >>> from rfe_helpers.machine.guest import Guest
    >>> guest = Guest(lab, machine, forwards=((2222, 22), (9091, 9090)))
    >>> guest.port(22), guest.console_url
    (2222, 'https://localhost:9091/')
    """

    lab: Lab
    machine: Machine
    forwards: tuple[tuple[int, int], ...]

    @property
    def host(self) -> ssh.Host:
        """The guest as root over SSH."""
        return keys.host(self.lab, self.machine.name, self.port(22))

    @property
    def console_url(self) -> str:
        """The URL of the web console, once it is enabled."""
        return f"https://localhost:{self.port(9090)}/"

    def port(self, inside: int) -> int:
        """The port on the host that is forwarded to port `inside` of the guest."""
        return next(host for host, guest in self.forwards if guest == inside)

    def wait(self, deadline: Deadline | float, on_progress: OnProgress = None) -> None:
        """Wait until it answers over SSH and cloud-init has finished. Raises MachineError if
        cloud-init failed, or DeadlineExceededError."""
        node = Node(self.lab, self.machine.name, port=self.port(22), user="root")
        limit = Deadline.of(deadline)
        node.wait(limit, on_progress)
        if on_progress is not None:
            on_progress("waiting for cloud-init")
        command = "command -v cloud-init >/dev/null || exit 0; cloud-init status --wait --long"
        result = self.host.run(command, seconds=max(limit.left, 1))
        # 2: finished, with recoverable errors (since release 23.4).
        if result.status not in (0, 2):
            raise MachineError(
                f"cloud-init failed in {self.machine.name}: {run.tail_of(result.stdout, 5)}",
                remedy=f"see /var/log/cloud-init.log on the guest: {self.host.line}",
                log=self.machine.directory / "console.log",
            )


def find(lab: Lab, name: str = "builder") -> Guest | None:
    """The running guest of that name, or None.

    >>> from rfe_helpers.machine import guest
    >>> guest.find(lab) is None  # notebook 15 has not run
    True
    """
    machine = Machine.find(lab, name)
    return None if machine is None else Guest(lab, machine, machine.spec.forwards)


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
    """Start a guest from an image; if one of that name is running, return that.

    With `persist`, writes go to the image itself; without, they are discarded. `cloud_init` is a
    directory with user-data and meta-data to use instead of the lab's. `forwards` are (host,
    guest) TCP ports in addition to those of SSH and the web console. Raises MediaError if the
    image does not exist or is not qcow2, InputError or MachineError.

    >>> from pathlib import Path
    >>> from rfe_helpers.machine import guest
    >>> image = Path("rhel-9.6-x86_64-kvm.qcow2")
    >>> builder = guest.start(lab, image, persist=False)  # doctest: +SKIP
    >>> builder.wait(600)  # doctest: +SKIP
    >>> builder.host.line  # doctest: +SKIP
    'ssh -i ...'
    """
    if (running := find(lab, name)) is not None:
        return running
    check_image(image)
    arch = arch or architecture(image)
    directory = lab.folder("machines", name)
    spec = VmSpec(
        name,
        disk=image.absolute(),
        memory_mib=memory_mib,
        cpus=cpus,
        firmware=firmware,
        snapshot=not persist,
        forwards=_all_forwards(lab, name, forwards),
        seed=cloudinit.seed(directory / "seed.iso", documents(lab, name, cloud_init)),
        arch=arch,
        cpu=FULL_CPU[arch],
        display=display,
    )
    if not persist:
        # Each start generates another host key, which must not look like an attack.
        keys.forget(lab, name)
    return Guest(lab, Machine.start(lab, spec), spec.forwards)


def _all_forwards(
    lab: Lab, name: str, forwards: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """`forwards`, and those of SSH and the web console unless they are among them."""
    outside_of = {inside: outside for outside, inside in forwards}
    if 22 not in outside_of:
        outside_of[22] = lab.port(f"ssh-{name}", ports.SSH)
    if 9090 not in outside_of:
        outside_of[9090] = lab.port(f"console-{name}", ports.CONSOLE)
    return tuple((outside, inside) for inside, outside in sorted(outside_of.items()))


def overlay(lab: Lab, image: Path, name: str = "builder", size_bytes: int = DISK_BYTES) -> Path:
    """A disk for the guest `name` that starts with the content of `image`, which stays unchanged,
    and is enlarged to `size_bytes`: composes need room. An existing one is kept as it is."""
    check_image(image)
    disk = lab.path("machines", name, "disk.qcow2")
    if disk.exists():
        return disk
    keys.forget(lab, name)
    return disks.overlay(image, disk, size=max(size_bytes, _info(image)["virtual-size"]))


def documents(lab: Lab, name: str, cloud_init: Path | None = None) -> Mapping[str, str]:
    """The documents for cloud-init: those of a directory, or the lab's."""
    if cloud_init is not None:
        return cloudinit.read_directory(cloud_init)
    key = lab.public_key
    hashed = kickstart.hash_password(PASSWORD)
    return {
        "user-data": cloudinit.user_data(password_hash=hashed, ssh_key=key),
        # The same at every start in this lab, so that cloud-init does its work only once.
        "meta-data": cloudinit.meta_data(f"rfe-{lab.id}-{name}", name),
    }


def architecture(image: Path) -> str:
    """The architecture in an image's name; x86_64 if it names none.

    >>> from pathlib import Path
    >>> from rfe_helpers.machine import guest
    >>> guest.architecture(Path("rhel-9.6-aarch64-kvm.qcow2"))
    'aarch64'
    """
    return "aarch64" if "aarch64" in image.name else "x86_64"


def check_image(image: Path) -> None:
    """Raise MediaError unless `image` is a readable qcow2 image."""
    if not image.is_file():
        raise MediaError(
            f"guest image not found: {image}",
            remedy="`rfe fetch guest --profile NAME` downloads that of a release, or says where to "
            "get it; `rfe profiles` lists the names",
        )
    kind = _info(image)["format"]
    if kind != "qcow2":
        raise MediaError(
            f"{image} is not a qcow2 image but {kind}",
            remedy=f"convert it: qemu-img convert -O qcow2 {image.name} {image.stem}.qcow2",
        )


def _info(image: Path) -> dict[str, Any]:
    try:
        # -U: it may be in use.
        answer = run.run(["qemu-img", "info", "-U", "--output=json", image]).stdout
    except CommandFailedError as error:
        raise MediaError(f"{image} cannot be read: {error.tail}") from None
    return dict(json.loads(answer))


def window() -> str:
    """The `display` of a VmSpec for a window here; "none" if QEMU cannot open one."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "none"
    offered = run.run([find_program(), "-display", "help"], check=False).stdout.split()
    return next((kind for kind in _WINDOWS if kind in offered), "none")


def parse_forward(text: str) -> tuple[int, int]:
    """Parse HOST:GUEST into two TCP ports. Raises InputError.

    >>> from rfe_helpers.machine import guest
    >>> guest.parse_forward("8080:80")
    (8080, 80)
    """
    host, colon, inside = text.partition(":")
    ports = [int(part) for part in (host, inside) if part.isascii() and part.isdigit()]
    if not colon or len(ports) != 2 or not all(0 < port < 65536 for port in ports):
        raise InputError(f"{text!r} is not a pair of ports", remedy="write it as 8000:80")
    return ports[0], ports[1]


def parse_memory(text: str) -> int:
    """Parse a number of MiB, or one followed by M or G, into MiB. Raises InputError.

    >>> from rfe_helpers.machine import guest
    >>> guest.parse_memory("4G")
    4096
    """
    match = _MEMORY.fullmatch(text)
    mib = int(match[1]) * (1024 if match[2].upper() == "G" else 1) if match else 0
    if not 256 <= mib <= 1024 * 1024:
        raise InputError(
            f"{text!r} is not an amount of memory from 256M to 1024G",
            remedy="write it as 2048 or 2G",
        )
    return mib
