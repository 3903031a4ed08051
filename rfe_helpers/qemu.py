"""QEMU's command line: what a machine consists of, as arguments. Nothing is started here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfe_helpers import run
from rfe_helpers.errors import MachineError

# RHEL and CentOS Stream have QEMU under the second name only.
PROGRAMS = ("qemu-system-x86_64", "/usr/libexec/qemu-kvm")
FIRMWARE_DESCRIPTIONS = ("/etc/qemu/firmware", "/usr/share/qemu/firmware")
# TCG's settings are those that booted fastest of the ones tried (qemu64 against max: 6.9 s to 8.5).
ACCELERATORS = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    "tcg": ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64"),
}


@dataclass(frozen=True)
class VmSpec:
    """What a machine consists of.

    `disk` is a qcow2 image; `forwards` are (host, guest) TCP ports, on loopback; `snapshot` throws
    away what is written to the disk; `cache` is QEMU's cache mode of it, "unsafe" for disks that
    can be made again; without `reboots` QEMU ends when the guest reboots. `kernel`, `initrd` and
    `append` boot directly, without boot loader.
    """

    name: str
    disk: Path | None = None
    memory_mib: int = 1024
    cpus: int = 2
    firmware: str = "bios"
    cdrom: Path | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    forwards: tuple[tuple[int, int], ...] = ()
    network: bool = True
    snapshot: bool = False
    cache: str = "writeback"
    reboots: bool = True


@dataclass(frozen=True)
class Firmware:
    """A UEFI firmware: code (read only) and the template of its variables, with their formats."""

    code: Path
    code_format: str
    variables: Path
    variables_format: str


def argv(
    spec: VmSpec,
    accelerator: str,
    directory: Path,
    qmp: Path,
    firmware: Firmware | None = None,
    *,
    program: str = PROGRAMS[0],
) -> list[str]:
    """QEMU's command line for a machine whose files are in `directory`; starts nothing."""
    return [
        *(program, "-name", spec.name, "-nodefaults", "-no-user-config"),
        *("-machine", "q35", *ACCELERATORS[accelerator]),
        *("-smp", str(spec.cpus), "-m", str(spec.memory_mib)),
        # A screen that nobody watches, for screenshots; the console on a file.
        *("-display", "none", "-vga", "std"),
        *("-chardev", f"file,id=console,path={_quoted(directory / 'console.log')}"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,path={_quoted(qmp)},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        # Entropy from the host: without it the guest's random generator delays the boot.
        *("-object", "rng-random,id=rng0,filename=/dev/urandom"),
        *("-device", "virtio-rng-pci,rng=rng0"),
        *_firmware_words(firmware, directory),
        *_disk_words(spec),
        *_network_words(spec),
        *_kernel_words(spec),
        *([] if spec.reboots else ["-no-reboot"]),
    ]


def _quoted(path: Path) -> str:
    """A path inside one of QEMU's comma separated options."""
    return str(path).replace(",", ",,")


def _firmware_words(firmware: Firmware | None, directory: Path) -> list[str]:
    if firmware is None:
        return []
    code = f"file={_quoted(firmware.code)},format={firmware.code_format},readonly=on"
    variables = _quoted(directory / "uefi-vars.fd")
    return [
        *("-drive", f"if=pflash,unit=0,{code}"),
        *("-drive", f"if=pflash,unit=1,file={variables},format={firmware.variables_format}"),
    ]


def _disk_words(spec: VmSpec) -> list[str]:
    words = []
    if spec.disk is not None:
        snapshot = "on" if spec.snapshot else "off"
        options = f"format=qcow2,cache={spec.cache},discard=unmap,snapshot={snapshot}"
        words += ["-drive", f"if=none,id=disk,file={_quoted(spec.disk)},{options}"]
        words += ["-device", "virtio-blk-pci,drive=disk,bootindex=1"]
    if spec.cdrom is not None:
        options = "format=raw,media=cdrom,readonly=on"
        words += ["-drive", f"if=none,id=cdrom,file={_quoted(spec.cdrom)},{options}"]
        words += ["-device", "ide-cd,drive=cdrom,bootindex=2"]
    return words


def _network_words(spec: VmSpec) -> list[str]:
    if not spec.network:
        return []
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for host, guest in spec.forwards)
    return ["-netdev", f"user,id=net0{forwards}", "-device", "virtio-net-pci,netdev=net0"]


def _kernel_words(spec: VmSpec) -> list[str]:
    if spec.kernel is None:
        return []
    initrd = [] if spec.initrd is None else ["-initrd", str(spec.initrd)]
    return ["-kernel", str(spec.kernel), *initrd, "-append", spec.append]


def find_program() -> str:
    """QEMU's name on this machine. Raises ToolMissing if it is not installed."""
    found = next((name for name in PROGRAMS if run.which(name) is not None), None)
    if found is None:
        run.require(PROGRAMS[0])
    return found or PROGRAMS[0]


def find_firmware(directories: Sequence[str] = FIRMWARE_DESCRIPTIONS) -> Firmware:
    """The UEFI firmware of this machine, without secure boot, from the descriptions that QEMU's
    packages install (docs/interop/firmware.json of QEMU). Raises MachineError if there is none."""
    described: dict[str, Path] = {}
    for directory in directories:
        for path in Path(directory).glob("*.json"):
            described.setdefault(path.name, path)
    for _, path in sorted(described.items()):
        found = _firmware(json.loads(path.read_text()))
        if found is not None and found.code.exists() and found.variables.exists():
            return found
    raise MachineError(
        "no UEFI firmware for QEMU is installed",
        remedy="install the package ovmf (Debian, Ubuntu) or edk2-ovmf (Fedora, RHEL)",
    )


def _firmware(description: dict[str, Any]) -> Firmware | None:
    mapping = description.get("mapping", {})
    targets = description.get("targets", [])
    if (
        "uefi" not in description.get("interface-types", [])
        or mapping.get("device") != "flash"
        or "nvram-template" not in mapping
        or {"requires-smm", "enrolled-keys"} & set(description.get("features", []))
        or not any(
            target["architecture"] == "x86_64"
            and any(machine.startswith("pc-q35") for machine in target["machines"])
            for target in targets
        )
    ):
        return None
    code, variables = mapping["executable"], mapping["nvram-template"]
    return Firmware(
        Path(code["filename"]), code["format"], Path(variables["filename"]), variables["format"]
    )
