"""QEMU's command line: the description of a machine as arguments. Nothing is started here."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from rfe_helpers.core import run
from rfe_helpers.errors import MachineError, ToolMissingError

# RHEL and CentOS Stream have QEMU under the second name only, and for the host's architecture.
PROGRAMS = ("qemu-system-x86_64", "/usr/libexec/qemu-kvm")
ARCHITECTURES = ("x86_64", "aarch64")
# The machine type, and its name in the descriptions of firmware.
_MACHINES = {"x86_64": ("q35", "pc-q35"), "aarch64": ("virt", "virt")}
FIRMWARE_DESCRIPTIONS = ("/etc/qemu/firmware", "/usr/share/qemu/firmware")
# TCG's settings are the fastest of those measured (a boot with qemu64 6.9 s, with max 8.5 s).
# Without SVM the guest does not load KVM, for virtual machines inside the emulated one. Without
# RDRAND its first program that needs a random number waits until the kernel has gathered enough.
ACCELERATORS = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    "tcg": ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64,-svm,+rdrand"),
}
# RHEL 9 needs the instructions of x86-64-v2, RHEL 10 those of v3, which qemu64 lacks; "max" has
# all that the emulator knows, on aarch64 with a cheap variant of pointer authentication.
FULL_CPU = {"x86_64": "max", "aarch64": "max,pauth-impdef=on"}
FIRMWARES = ("bios", "uefi", "secureboot")
# Sockets beside that of QMP: the screen (VNC), and the serial console.
SCREEN, CONSOLE = ".vnc", ".tty"


@dataclass(frozen=True)
class VmSpec:
    """The description of a machine.

    `disk` is a qcow2 image; `snapshot` discards what is written to it; `cache` is QEMU's cache
    mode, "unsafe" for disks that can be made again. `forwards` are (host, guest) TCP ports, on
    loopback. Without `reboots`, QEMU ends when the guest reboots. `kernel`, `initrd` and `append`
    boot directly, without a boot loader. `firmware` is bios, uefi or secureboot. `seed` is a second
    CD, for cloud-init. `display` is QEMU's kind of window, "none" for a screen without one. `cpu`
    is an emulated CPU model, "" for the fastest one. `write_log` is a file that receives every
    write and flush of the disk (rfe_helpers.prove.writelog); `incoming` is a saved machine to
    continue from.

    >>> from pathlib import Path
    >>> from rfe_helpers.machine import VmSpec
    >>> spec = VmSpec("edge-1", disk=Path("edge-1.qcow2"), forwards=((2222, 22),))
    >>> spec.memory_mib, spec.firmware
    (1024, 'bios')
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
    arch: str = "x86_64"
    cpu: str = ""
    seed: Path | None = None
    display: str = "none"
    write_log: Path | None = None
    incoming: Path | None = None


@dataclass(frozen=True)
class Firmware:
    """A UEFI firmware: its code (read only) and the template of its variables, each with QEMU's
    name of its format."""

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
    program: str = "",
) -> list[str]:
    """QEMU's command line for a machine whose files are in `directory`; `accelerator` is a key of
    ACCELERATORS, `qmp` the path of the control socket. The sockets of screen and console are beside
    it, with the suffixes SCREEN and CONSOLE; their directory must be private, since QEMU asks
    for no password. The console's accepts one connection at a time; what the machine writes is in
    console.log with and without one."""
    program = program or f"qemu-system-{spec.arch}"
    screen, console = qmp.with_suffix(SCREEN), qmp.with_suffix(CONSOLE)
    log = f"logfile={_quoted(directory / 'console.log')}"
    # fmt: off
    return [
        program, "-name", spec.name, "-nodefaults", "-no-user-config",
        *_machine_argv(spec, accelerator),
        "-smp", str(spec.cpus), "-m", str(spec.memory_mib),
        *_screen_argv(spec),
        # Any number of viewers see the same, and each may type.
        "-vnc", f"vnc=unix:{_quoted(screen)},share=force-shared",
        "-chardev", f"socket,id=console,path={_quoted(console)},server=on,wait=off,{log}",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=qmp,path={_quoted(qmp)},server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
        # Entropy from the host: without it the guest's random generator delays the boot.
        "-object", "rng-random,id=rng0,filename=/dev/urandom",
        "-device", "virtio-rng-pci,rng=rng0",
        *_firmware_argv(firmware, directory),
        *_disk_argv(spec),
        *_network_argv(spec, ",romfile="),  # nothing boots from the network
        *_kernel_argv(spec, accelerator),
        *_credentials_argv(accelerator),
        *([] if spec.reboots else ["-no-reboot"]),
        *(["-incoming", f"exec:cat {quote(str(spec.incoming))}"] if spec.incoming else []),
    ]
    # fmt: on


def typed_argv(spec: VmSpec, accelerator: str = "kvm") -> list[str]:
    """The command line that a person types for a machine with BIOS: that of `argv`, without the log
    and the control socket, and with QEMU's own window."""
    # fmt: off
    return [
        f"qemu-system-{spec.arch}",
        *_machine_argv(spec, accelerator),
        "-smp", str(spec.cpus), "-m", str(spec.memory_mib),
        *_disk_argv(spec),
        *_network_argv(spec),
        *_kernel_argv(spec, accelerator),
        *([] if spec.reboots else ["-no-reboot"]),
    ]
    # fmt: on


def _machine_argv(spec: VmSpec, accelerator: str) -> list[str]:
    machine = _MACHINES[spec.arch][0]
    accel, kind, _, cpu = ACCELERATORS[accelerator]
    if accelerator == "tcg":
        default = cpu if spec.arch == "x86_64" else FULL_CPU[spec.arch]
        cpu = spec.cpu or default
    properties = "".join(_machine_properties(spec, accelerator))
    options = ["-machine", machine + properties]
    if spec.firmware == "secureboot":
        # Only the firmware, in system management mode, may write its variables; without S3,
        # suspending and resuming cannot undo that.
        options += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        options += ["-global", "ICH9-LPC.disable_s3=1"]
    return [*options, accel, kind, "-cpu", cpu]


def _machine_properties(spec: VmSpec, accelerator: str) -> list[str]:
    properties = [",smm=on"] if spec.firmware == "secureboot" else []
    if accelerator == "tcg" and spec.arch == "x86_64":
        # Each controller is a driver that the guest loads, and every access to it is emulated.
        properties += [",smbus=off"]
        if spec.cdrom is None and spec.seed is None:
            properties += [",sata=off"]
    return properties


def _screen_argv(spec: VmSpec) -> list[str]:
    """A screen even without a window; a keyboard and a mouse where the machine has none, unlike a
    PC."""
    screen = ["-display", spec.display]
    if spec.arch == "x86_64":
        return [*screen, "-vga", "std"]
    screen += ["-device", "virtio-gpu-pci", "-device", "qemu-xhci"]
    return [*screen, "-device", "usb-kbd", "-device", "usb-tablet"]


def _quoted(path: Path) -> str:
    """A path inside one of QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


def _firmware_argv(firmware: Firmware | None, directory: Path) -> list[str]:
    if firmware is None:
        return []
    code = f"file={_quoted(firmware.code)},format={firmware.code_format},readonly=on"
    variables = _quoted(directory / "uefi-vars.fd")
    # fmt: off
    return [
        "-drive", f"if=pflash,unit=0,{code}",
        "-drive", f"if=pflash,unit=1,file={variables},format={firmware.variables_format}",
    ]
    # fmt: on


def _disk_argv(spec: VmSpec) -> list[str]:
    devices = []
    if spec.disk is not None and spec.write_log is not None:
        image, log = _quoted(spec.disk), _quoted(spec.write_log)
        image = f"driver=qcow2,node-name=image,file.driver=file,file.filename={image}"
        log = f"log.driver=file,log.filename={log}"
        devices += ["-blockdev", image]
        devices += ["-blockdev", f"driver=blklogwrites,node-name=disk,file=image,{log}"]
        devices += ["-device", "virtio-blk-pci,drive=disk,bootindex=1"]
    elif spec.disk is not None:
        snapshot = "on" if spec.snapshot else "off"
        options = f"format=qcow2,cache={spec.cache},discard=unmap,snapshot={snapshot}"
        devices += ["-drive", f"if=none,id=disk,file={_quoted(spec.disk)},{options}"]
        devices += ["-device", "virtio-blk-pci,drive=disk,bootindex=1"]
    discs = [("cdrom", spec.cdrom, ",bootindex=2"), ("seed", spec.seed, "")]
    present = [(name, path, boot) for name, path, boot in discs if path is not None]
    drive = "ide-cd"
    if present and spec.arch != "x86_64":  # the others have no IDE
        devices += ["-device", "virtio-scsi-pci"]
        drive = "scsi-cd"
    for name, path, boot in present:
        options = "format=raw,media=cdrom,readonly=on"
        devices += ["-drive", f"if=none,id={name},file={_quoted(path)},{options}"]
        devices += ["-device", f"{drive},drive={name}{boot}"]
    return devices


def _network_argv(spec: VmSpec, options: str = "") -> list[str]:
    if not spec.network:
        return []
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for host, guest in spec.forwards)
    return ["-netdev", f"user,id=net0{forwards}", "-device", f"virtio-net-pci,netdev=net0{options}"]


def _kernel_argv(spec: VmSpec, accelerator: str) -> list[str]:
    if spec.kernel is None:
        return []
    initrd = [] if spec.initrd is None else ["-initrd", str(spec.initrd)]
    # See _credentials_argv; here already the initramfs is without it.
    append = f"{spec.append} norandmaps" if accelerator == "tcg" else spec.append
    return ["-kernel", str(spec.kernel), *initrd, "-append", append]


def _credentials_argv(accelerator: str) -> list[str]:
    """Tell the systemd of an emulated guest to give all programs the same addresses.

    TCG translates code once for each address at which it runs, and takes quadratic time to forget
    the translations of a page. With random addresses each process is translated for itself: a boot
    takes a quarter longer, and leaving an initramfs up to 14 s. The credential is systemd-sysctl's
    (systemd.system-credentials(7)); nothing of it stays in the guest.
    """
    if accelerator != "tcg":
        return []
    content = "kernel.randomize_va_space=0"
    return ["-fw_cfg", f"name=opt/io.systemd.credentials/sysctl.extra,string={content}"]


def find_program(arch: str = "x86_64") -> str:
    """The QEMU command of this host for `arch`. Raises ToolMissingError if none is installed."""
    usual = f"qemu-system-{arch}"
    names = [usual, *(PROGRAMS[1:] if arch == platform.machine() else ())]
    program = next((name for name in names if run.which(name) is not None), None)
    if program is None and arch != "x86_64":
        raise ToolMissingError(
            f"not installed: {usual}",
            remedy="install qemu-system-arm and qemu-efi-aarch64 (Debian, Ubuntu), "
            "or qemu-system-aarch64-core and edk2-aarch64 (Fedora)",
        )
    if program is None:
        run.require(usual)
    return program or usual


def find_firmware(
    directories: Sequence[str] = FIRMWARE_DESCRIPTIONS,
    *,
    secure: bool = False,
    arch: str = "x86_64",
) -> Firmware:
    """The UEFI firmware of this host, from the descriptions that its packages install
    (docs/interop/firmware.json of QEMU): without secure boot, or, if `secure`, with it and with
    the keys enrolled that distributions sign with. Raises MachineError if none is installed."""
    descriptions: dict[str, Path] = {}
    for directory in directories:
        for path in Path(directory).glob("*.json"):
            descriptions.setdefault(path.name, path)
    for _, path in sorted(descriptions.items()):
        if not path.stat().st_size:  # an empty file hides the description of that name
            continue
        firmware = _parse_firmware(json.loads(path.read_text()), secure, arch)
        if firmware is not None and firmware.code.exists() and firmware.variables.exists():
            return firmware
    names = ("ovmf", "edk2-ovmf") if arch == "x86_64" else ("qemu-efi-aarch64", "edk2-aarch64")
    raise MachineError(
        f"no UEFI firmware {'with secure boot ' if secure else ''}for QEMU is installed",
        remedy=f"install the package {names[0]} (Debian, Ubuntu) or {names[1]} (Fedora, RHEL)",
    )


def _parse_firmware(description: dict[str, Any], secure: bool, arch: str) -> Firmware | None:
    mapping = description.get("mapping", {})
    features = set(description.get("features", []))
    fits = (
        {"secure-boot", "enrolled-keys"} <= features
        if secure
        else not {"requires-smm", "enrolled-keys"} & features
    )
    if (
        "uefi" not in description.get("interface-types", [])
        or mapping.get("device") != "flash"
        or "nvram-template" not in mapping
        or not fits
        or not any(
            target["architecture"] == arch
            and any(machine.startswith(_MACHINES[arch][1]) for machine in target["machines"])
            for target in description.get("targets", [])
        )
    ):
        return None
    code, variables = mapping["executable"], mapping["nvram-template"]
    return Firmware(
        code=Path(code["filename"]),
        code_format=code["format"],
        variables=Path(variables["filename"]),
        variables_format=variables["format"],
    )
