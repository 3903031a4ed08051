"""Install a machine from a boot ISO with a kickstart, and follow the installer's console."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core import files
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import DeadlineExceededError, MachineError
from rfe_helpers.install import media
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import disks
from rfe_helpers.machine.qemu import VmSpec
from rfe_helpers.machine.vm import Machine

GIB = 1024**3
MEMORY_MIB = 1536
ANACONDA_MEMORY_MIB = 2048  # as in the demo
SECONDS = 900
ROOM = 2 * GIB
# What the sandbox's installer writes to its consoles (rfe_helpers/sandbox/installer), and the last
# line of the kernel after any installer.
STEP = re.compile(r"RFE-INSTALL-STEP: (.*)")
OK = re.compile(r"RFE-INSTALL-OK")
FAILED = re.compile(r"RFE-INSTALL-FAILED: (.*)")
SWITCHED_OFF = re.compile(r"reboot: (Restarting system|Power down|System halted)")


def install(
    lab: Lab,
    name: str,
    iso: Path,
    kickstart_url: str,
    *,
    firmware: str = "bios",
    disk_size: int = 10 * GIB,
    memory_mib: int = 0,
    network: bool = True,
    deadline: Deadline | float | None = None,
    on_progress: OnProgress = None,
) -> Path:
    """Install a machine from a boot ISO with a kickstart; returns its disk, a qcow2 image.

    A running machine of that name is ended first. `disk_size` is in bytes, `memory_mib` 0 for what
    the installer needs. The ISO's kernel is booted directly, with `inst.stage2=` naming the ISO by
    its label and `inst.ks=kickstart_url`, so that nobody has to press TAB in its menu. Raises
    MachineError with the installer's own reason if it fails, MediaError if the ISO cannot be read
    or is damaged, DeadlineExceededError.

    >>> from rfe_helpers.machine import install
    >>> url = site.kickstart_url("edge.ks")
    >>> disk = install(lab, "edge-2", iso, url, on_progress=print)  # doctest: +SKIP
    """
    directory = _prepare(lab, name, iso)
    boot = media.read(iso)
    kernel, initrd = boot.extract_kernel(directory)
    # A newly installed machine starts with factory firmware variables.
    (directory / "uefi-vars.fd").unlink(missing_ok=True)
    disk = disks.create(directory / "disk.qcow2", disk_size)
    usual_memory = MEMORY_MIB if lab.profile.backend == "sandbox" else ANACONDA_MEMORY_MIB
    spec = VmSpec(
        name,
        disk=disk,
        memory_mib=memory_mib or usual_memory,
        firmware=firmware,
        cdrom=iso,
        kernel=kernel,
        initrd=initrd,
        append=boot.arguments(kickstart_url),
        network=network,
        cache="unsafe",  # an interrupted installation starts over
        reboots=False,
    )
    machine = Machine.start(lab, spec)
    try:
        _follow(machine, Deadline.of(deadline, SECONDS), on_progress)
        with contextlib.suppress(DeadlineExceededError):  # a kickstart that ends with `halt`
            wait_for(lambda: not machine.alive, Deadline(10), "QEMU ends", every=0.1)
        machine.stop(grace=0)
    finally:
        machine.kill()
    disks.keep(disk)
    return disk


def _prepare(lab: Lab, name: str, iso: Path) -> Path:
    """End a machine of that name, and check the room and the ISO; returns its directory."""
    running = Machine.find(lab, name)
    if running is not None:
        running.kill()
    directory = lab.folder("machines", name)
    remedy = "free some space, or use another lab directory"
    files.check_room(directory, ROOM, "an installation", MachineError, remedy=remedy)
    media.check(iso)  # before a disk is replaced
    return directory


def _follow(machine: Machine, deadline: Deadline, on_progress: OnProgress) -> None:
    """Wait for the end of the installation, and report its steps."""
    step = ""

    def ended() -> bool:
        nonlocal step
        state = read_installer(machine.console_of_boot())
        if state.step not in ("", step):
            step = state.step
            if on_progress is not None:
                on_progress(step)
        if state.failure:
            raise MachineError(
                f"the installation of {machine.name} failed: {state.failure}",
                log=machine.directory / "console.log",
                remedy="nothing of it can be used: remove the cause and install again",
            )
        return state.ended

    machine.wait_until(ended, deadline, f"{machine.name} is installed", on_progress)


@dataclass(frozen=True)
class InstallerState:
    """What a console says about an installation: the last step ("" before the first), whether it
    ended well, and why it failed ("" if it did not)."""

    step: str
    ended: bool
    failure: str


def read_installer(console: str) -> InstallerState:
    """How far an installation has come.

    The sandbox's installer reports its steps. Any other, such as Anaconda, has ended when it
    switches the machine off; if it fails, it waits for input instead.
    """
    steps = STEP.findall(console)
    failed = FAILED.search(console)
    succeeded = OK.search(console) if steps else True
    return InstallerState(
        step=steps[-1].strip() if steps else "",
        ended=bool(succeeded and SWITCHED_OFF.search(console)),
        failure=failed[1].strip() if failed else "",
    )
