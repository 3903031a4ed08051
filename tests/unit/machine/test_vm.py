"""QEMU's command line as data, and small real machines: a boot sector that writes to the port."""

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.disks import boot_sector

from rfe_helpers.core import journal, run
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import DeadlineExceededError, GuestPanicError, MachineError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import disks, installation, qemu, vm
from rfe_helpers.machine.accelerator import boots, find_accelerator
from rfe_helpers.machine.vm import Machine, VmSpec

MIB = 1024 * 1024


def after(command: list[str], option: str) -> list[str]:
    """All values that follow an option."""
    return [command[i + 1] for i, word in enumerate(command) if word == option]


def words(spec: VmSpec, firmware: qemu.Firmware | None = None) -> list[str]:
    return vm.argv(spec, "tcg", Path("/lab/m"), Path("/lab/m.qmp"), firmware)


# command line -------------------------------------------------------------------------------------


def test_a_machine_has_console_screen_qmp_and_entropy() -> None:
    command = words(VmSpec("edge-1", memory_mib=512, cpus=1))
    assert after(command, "-name") == ["edge-1"]
    assert after(command, "-m") == ["512"]
    console = "socket,id=console,path=/lab/m.tty,server=on,wait=off,logfile=/lab/m/console.log"
    assert console in after(command, "-chardev")
    assert after(command, "-serial") == ["chardev:console"]
    assert "socket,id=qmp,path=/lab/m.qmp,server=on,wait=off" in after(command, "-chardev")
    assert "virtio-rng-pci,rng=rng0" in after(command, "-device")
    assert after(command, "-display") == ["none"]
    assert after(command, "-accel") == ["tcg,thread=multi,tb-size=512"]
    assert not after(command, "-drive")


def test_a_screen_has_many_viewers_and_no_port_on_the_network() -> None:
    command = vm.argv(VmSpec("m"), "tcg", Path("/a,b=c/m"), Path("/a,b=c/m.qmp"))
    assert after(command, "-vnc") == ["vnc=unix:/a,,b=c/m.vnc,share=force-shared"]
    assert "unix:" in after(words(VmSpec("m", display="gtk")), "-vnc")[0]


def test_forwards_are_on_loopback_only() -> None:
    command = words(VmSpec("m", forwards=((2222, 22), (9091, 9090))))
    forwards = "hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=tcp:127.0.0.1:9091-:9090"
    assert after(command, "-netdev") == [f"user,id=net0,{forwards}"]


def test_a_machine_without_network_has_no_card() -> None:
    command = words(VmSpec("m", network=False, forwards=((2222, 22),)))
    assert not after(command, "-netdev")
    assert not [device for device in after(command, "-device") if "net" in device]


def test_the_disk_comes_before_the_cdrom() -> None:
    command = words(VmSpec("m", disk=Path("/d/a,b.qcow2"), cdrom=Path("/i.iso"), snapshot=True))
    disk, cdrom = after(command, "-drive")
    assert "file=/d/a,,b.qcow2,format=qcow2,cache=writeback" in disk
    assert "snapshot=on" in disk
    assert "media=cdrom,readonly=on" in cdrom
    devices = after(command, "-device")
    assert "virtio-blk-pci,drive=disk,bootindex=1" in devices
    assert "ide-cd,drive=cdrom,bootindex=2" in devices


def test_a_kernel_is_booted_directly() -> None:
    spec = VmSpec("m", kernel=Path("/k"), initrd=Path("/i"), append="a b", reboots=False)
    command = words(spec)
    assert (after(command, "-kernel"), after(command, "-initrd")) == (["/k"], ["/i"])
    assert after(command, "-append") == ["a b norandmaps"]
    assert "-no-reboot" in command


def test_only_an_emulated_machine_does_without_random_addresses_and_unused_controllers() -> None:
    def command(accelerator: str, **options: Any) -> list[str]:
        spec = VmSpec("m", kernel=Path("/k"), append="a b", **options)
        return vm.argv(spec, accelerator, Path("/lab/m"), Path("/lab/m.qmp"))

    assert after(command("tcg"), "-machine") == ["q35,smbus=off,sata=off"]
    assert after(command("tcg", cdrom=Path("/i.iso")), "-machine") == ["q35,smbus=off"]
    assert after(command("tcg", seed=Path("/s.iso")), "-machine") == ["q35,smbus=off"]
    assert "kernel.randomize_va_space=0" in after(command("tcg"), "-fw_cfg")[0]
    assert after(command("kvm"), "-machine") == ["q35"]
    assert after(command("kvm"), "-append") == ["a b"]
    assert not after(command("kvm"), "-fw_cfg")


def test_uefi_firmware_has_variables_of_its_own() -> None:
    firmware = qemu.Firmware(Path("/f/code.fd"), "raw", Path("/f/vars.fd"), "qcow2")
    code, variables = after(words(VmSpec("m", firmware="uefi"), firmware), "-drive")
    assert code == "if=pflash,unit=0,file=/f/code.fd,format=raw,readonly=on"
    assert variables == "if=pflash,unit=1,file=/lab/m/uefi-vars.fd,format=qcow2"


def test_secure_boot_needs_a_machine_that_protects_the_firmwares_variables() -> None:
    firmware = qemu.Firmware(Path("/f/code.fd"), "raw", Path("/f/vars.fd"), "raw")
    command = words(VmSpec("m", firmware="secureboot"), firmware)
    assert "smm=on" in after(command, "-machine")[0].split(",")
    settings = ["driver=cfi.pflash01,property=secure,value=on", "ICH9-LPC.disable_s3=1"]
    assert after(command, "-global") == settings
    assert "smm=on" not in after(words(VmSpec("m")), "-machine")[0].split(",")


def test_a_seed_is_a_second_cd_that_is_not_booted_from() -> None:
    command = words(VmSpec("m", seed=Path("/s.iso"), cdrom=Path("/i.iso")))
    assert [
        drive.partition(",file=")[2].partition(",")[0] for drive in after(command, "-drive")
    ] == [
        "/i.iso",
        "/s.iso",
    ]
    assert after(command, "-device")[-3:-1] == [
        "ide-cd,drive=cdrom,bootindex=2",
        "ide-cd,drive=seed",
    ]


def test_an_aarch64_machine_has_what_that_architecture_has() -> None:
    spec = VmSpec("m", arch="aarch64", disk=Path("/d"), seed=Path("/s.iso"), display="gtk")
    firmware = qemu.Firmware(Path("/f/code.fd"), "raw", Path("/f/vars.fd"), "raw")
    command = words(spec, firmware)
    assert command[0] == "qemu-system-aarch64"
    assert after(command, "-machine") == ["virt"]
    assert after(command, "-cpu") == ["max,pauth-impdef=on"]
    assert after(command, "-vga") == []
    devices = after(command, "-device")
    for device in ("virtio-gpu-pci", "virtio-scsi-pci", "scsi-cd,drive=seed", "usb-kbd"):
        assert device in devices
    assert not [device for device in devices if device.startswith("ide")]
    assert "usb-kbd" in after(words(replace(spec, display="none")), "-device")


def test_a_cpu_with_all_instructions_can_be_asked_for() -> None:
    """RHEL 9 and later do not start on the fastest emulated one."""
    assert after(words(VmSpec("m")), "-cpu") == ["qemu64,-svm,+rdrand"]
    assert after(words(VmSpec("m", cpu="max")), "-cpu") == ["max"]
    kvm = vm.argv(VmSpec("m", cpu="max"), "kvm", Path("/lab/m"), Path("/q"))
    assert after(kvm, "-cpu") == ["host"]


# firmware -----------------------------------------------------------------------------------------


def describe(
    directory: Path, name: str, *, features: tuple[str, ...] = (), **changes: object
) -> Path:
    """A firmware description as QEMU's packages install them, with its files."""
    code, variables = directory / f"{name}.code", directory / f"{name}.vars"
    directory.mkdir(exist_ok=True)
    code.touch()
    variables.touch()
    description = {
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": str(code), "format": "raw"},
            "nvram-template": {"filename": str(variables), "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
        "features": list(features),
        **changes,
    }
    (directory / f"{name}.json").write_text(json.dumps(description))
    return code


def test_the_first_firmware_that_fits_is_taken(tmp_path: Path) -> None:
    describe(tmp_path, "10-secure", features=("requires-smm", "secure-boot"))
    describe(tmp_path, "20-enrolled", features=("enrolled-keys",))
    describe(tmp_path, "30-bios", **{"interface-types": ["bios"]})
    describe(tmp_path, "40-arm", targets=[{"architecture": "aarch64", "machines": ["virt-*"]}])
    describe(tmp_path, "50-memory", mapping={"device": "memory", "filename": "/x"})
    describe(tmp_path, "55-gone").unlink()
    code = describe(tmp_path, "60-plain", features=("acpi-s3",))
    describe(tmp_path, "70-later")
    assert qemu.find_firmware([str(tmp_path)]).code == code


def test_a_description_in_etc_replaces_that_of_the_package(tmp_path: Path) -> None:
    describe(tmp_path / "usr", "60-plain")
    code = describe(tmp_path / "etc", "60-plain")
    assert qemu.find_firmware([str(tmp_path / "etc"), str(tmp_path / "usr")]).code == code


def test_firmware_with_secure_boot_must_have_keys(tmp_path: Path) -> None:
    describe(tmp_path, "10-none", features=("secure-boot", "requires-smm"))
    code = describe(tmp_path, "20-keys", features=("enrolled-keys", "secure-boot"))
    describe(tmp_path, "30-plain")
    assert qemu.find_firmware([str(tmp_path)], secure=True).code == code


def test_firmware_for_aarch64(tmp_path: Path) -> None:
    describe(tmp_path, "10-pc")
    targets = [{"architecture": "aarch64", "machines": ["virt-*"]}]
    code = describe(tmp_path, "20-arm", targets=targets)
    assert qemu.find_firmware([str(tmp_path)], arch="aarch64").code == code
    with pytest.raises(MachineError) as caught:
        qemu.find_firmware([str(tmp_path)], arch="aarch64", secure=True)
    assert "qemu-efi-aarch64" in caught.value.remedy


def test_no_firmware_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        qemu.find_firmware([str(tmp_path)])
    assert "ovmf" in caught.value.remedy


# accelerator --------------------------------------------------------------------------------------


def test_rfe_accel_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFE_ACCEL", "kvm")
    assert find_accelerator() == "kvm"
    monkeypatch.setenv("RFE_ACCEL", "turbo")
    with pytest.raises(MachineError, match="turbo"):
        find_accelerator()


def test_what_is_not_a_kernel_does_not_boot(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"not a kernel" * 1000)
    assert not boots(kernel, "tcg")


# installer ----------------------------------------------------------------------------------------

STEPS = "\rRFE-INSTALL-STEP: kickstart http://x\n\n[ 12.0] noise\nRFE-INSTALL-STEP: pulling \n"
OFF = "[ 99.0] reboot: Restarting system\n"


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        ("", installation.InstallerState("", False, "")),
        (STEPS, installation.InstallerState("pulling", False, "")),
        (STEPS + "RFE-INSTALL-OK\n", installation.InstallerState("pulling", False, "")),
        (STEPS + "RFE-INSTALL-OK\n" + OFF, installation.InstallerState("pulling", True, "")),
        (STEPS + OFF, installation.InstallerState("pulling", False, "")),
        (
            STEPS + "RFE-INSTALL-FAILED: line 7: raid: no\n",
            installation.InstallerState("pulling", False, "line 7: raid: no"),
        ),
        ("anaconda\n[ 99.0] reboot: Power down\n", installation.InstallerState("", True, "")),
    ],
)
def test_the_console_says_how_an_installation_goes(
    console: str, expected: installation.InstallerState
) -> None:
    assert installation.read_installer(console) == expected


# real machines ------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("RFE_ACCEL", "tcg")
    lab = Lab(tmp_path / "lab", "sandbox")
    yield lab
    lab.sweep()
    journal.open_journal(None)


def small(tmp_path: Path, message: str) -> VmSpec:
    disk = boot_sector(tmp_path, message)
    return VmSpec("small", disk=disk, memory_mib=64, cpus=1, network=False)


def test_a_machine_runs_and_is_found_again(lab: Lab, tmp_path: Path) -> None:
    machine = Machine.start(lab, small(tmp_path, "hello from the port\r\n"))
    machine.wait_until(lambda: "hello" in machine.console(), Deadline(20), "hello")
    again = Machine.find(Lab(lab.directory), "small")
    assert again is not None
    assert again.spec == machine.spec
    console = machine.console()
    assert "hello from the port\n" in console
    assert machine.console(machine.console_size) == ""
    # Where the console of an earlier start ended; this one is not as long yet.
    assert machine.console(machine.console_size + 1) == console
    assert again.screenshot(tmp_path / "shot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(MachineError, match="is already running"):
        Machine.start(lab, machine.spec)
    again.reset()
    machine.wait_until(
        lambda: machine.console().count("hello") == 2, Deadline(20), "hello after the reset"
    )
    machine.stop(grace=0)
    assert not machine.alive
    assert Machine.find(lab, "small") is None


def test_a_console_is_logged_with_and_without_somebody_on_it(lab: Lab, tmp_path: Path) -> None:
    machine = Machine.start(lab, small(tmp_path, "hello\r\n"))
    machine.wait_until(lambda: "hello" in machine.console(), Deadline(20), "nobody is on it")
    with socket.socket(socket.AF_UNIX) as viewer:
        viewer.settimeout(20)
        viewer.connect(str(lab.socket("small.tty")))
        machine.reset()
        data = b""
        while b"hello" not in data:
            data += viewer.recv(4096)
    machine.reset()
    again = Deadline(20)
    machine.wait_until(lambda: machine.console().count("hello") == 3, again, "it has gone")
    assert lab.socket("small.vnc").parent.stat().st_mode & 0o077 == 0, "there is no password"


def test_qmp_works_beside_a_running_event_loop(lab: Lab, tmp_path: Path) -> None:
    async def in_a_notebook() -> Path:
        machine = Machine.start(lab, small(tmp_path, ""))
        return machine.screenshot(tmp_path / "shot.png")

    assert asyncio.run(in_a_notebook()).exists()


def test_a_machine_that_was_killed_is_an_error_at_once(lab: Lab, tmp_path: Path) -> None:
    machine = Machine.start(lab, small(tmp_path, ""))
    process = lab.process("machine-small")
    assert process is not None
    threading.Timer(0.5, os.kill, [process.pid, 9]).start()
    limit = Deadline(20)
    with pytest.raises(MachineError, match="no longer running"):
        machine.wait_until(lambda: None, limit, "never")
    assert limit.elapsed < 10
    with pytest.raises(MachineError, match="does not answer"):
        machine.screenshot(tmp_path / "shot.png")


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_a_connection_that_ends_as_it_begins_is_one_message(lab: Lab, lines: int) -> None:
    sent = [{"QMP": {"version": {}, "capabilities": []}}, {"return": {}, "id": "__rfe#00000"}]

    def end() -> None:  # as QEMU does when it is killed
        connection, _ = server.accept()
        with connection:
            for number, line in enumerate(sent[:lines]):
                connection.sendall(json.dumps(line).encode() + b"\n")
                if number == 0:
                    connection.recv(4096)

    with socket.create_server(str(lab.socket("small.qmp")), family=socket.AF_UNIX) as server:
        thread = threading.Thread(target=end)
        thread.start()
        machine = Machine(lab, VmSpec("small"), run.ProcessId.of(os.getpid()))
        with pytest.raises(MachineError, match="does not answer the command query-status"):
            machine._command("query-status")
        thread.join()


def test_a_disk_is_free_as_soon_as_its_machine_is_killed(lab: Lab, tmp_path: Path) -> None:
    spec = replace(small(tmp_path, ""), memory_mib=2048, cpus=4)
    assert spec.disk is not None
    for _ in range(3):
        Machine.start(lab, spec).kill()
        # It needs the lock that QEMU holds.
        run.run(["qemu-img", "check", "-q", spec.disk])
        run.run(["qemu-img", "resize", "-q", spec.disk, "+1M"])


def test_a_panic_is_reset_three_times_and_then_raised(lab: Lab, tmp_path: Path) -> None:
    machine = Machine.start(lab, small(tmp_path, "[ 1.2] Oops: int3: 0000 [#1]\r\n"))
    messages: list[str] = []
    with pytest.raises(
        GuestPanicError,
        match=r"restarted 3 times, and again the guest kernel panicked \(Oops: int3\)",
    ) as caught:
        machine.wait_until(lambda: None, Deadline(30), "never", messages.append, every=0.1)
    assert len(messages) == vm.MOST_RESTARTS
    assert "restart 1 of at most 3" in messages[0]
    assert caught.value.log == machine.directory / "console.log"


def test_a_machine_whose_qemu_crashes_is_started_again(lab: Lab, tmp_path: Path) -> None:
    """Whoever holds the machine, or finds it, has the new one."""
    machine = Machine.start(lab, small(tmp_path, "hello\r\n"))
    first = lab.process("machine-small")
    assert first is not None
    messages: list[str] = []
    waiting = Machine.find(lab, "small")
    assert waiting is not None
    threading.Timer(0.3, os.kill, [first.pid, signal.SIGSEGV]).start()
    waiting.wait_until(
        lambda: lab.process("machine-small") not in (None, first) and "hello" in waiting.console(),
        Deadline(30),
        "hello of the second",
        messages.append,
        every=0.1,
    )
    assert messages == ["QEMU crashed (SIGSEGV); restart 1 of at most 3"]
    assert (machine.restarts, waiting.restarts) == (1, 1)
    assert machine.alive
    second = lab.process("machine-small")
    assert second is not None
    machine.kill()
    assert not second.alive
    assert Machine.find(lab, "small") is None


def test_a_panic_in_a_machine_that_ends_at_reboots(lab: Lab, tmp_path: Path) -> None:
    """As during an installation: QEMU's -no-reboot must not end the machine at our reset."""
    spec = replace(small(tmp_path, "Kernel panic - not syncing: x\r\n"), reboots=False)
    machine = Machine.start(lab, spec)
    with pytest.raises(GuestPanicError):
        machine.wait_until(lambda: None, Deadline(30), "never", every=0.1)
    assert machine.alive


def test_a_deadline_shows_the_end_of_the_console(lab: Lab, tmp_path: Path) -> None:
    machine = Machine.start(lab, small(tmp_path, "stuck here\r\n"))
    with pytest.raises(DeadlineExceededError, match="SSH answers: not within 2 s") as caught:
        machine.wait_until(lambda: None, Deadline(2), "SSH answers")
    assert "stuck here" in caught.value.message


def test_the_message_of_qemu_is_kept(lab: Lab, tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        spec = VmSpec("m", memory_mib=64, forwards=((port, 22),))
        with pytest.raises(MachineError, match=f"hostfwd.*{port}"):
            Machine.start(lab, spec)
    assert lab.process("machine-m") is None


def test_a_uefi_machine_keeps_its_variables(lab: Lab, tmp_path: Path) -> None:
    machine = Machine.start(lab, VmSpec("u", firmware="uefi", memory_mib=128, network=False))
    variables = machine.directory / "uefi-vars.fd"
    assert variables.stat().st_size == qemu.find_firmware().variables.stat().st_size
    machine.kill()
    with pytest.raises(MachineError, match="unknown firmware"):
        Machine.start(lab, VmSpec("u", firmware="coreboot"))


def test_a_machine_with_secure_boot_starts(lab: Lab) -> None:
    machine = Machine.start(lab, VmSpec("s", firmware="secureboot", memory_mib=256, network=False))
    machine.screenshot(machine.directory / "screen.png")
    variables = machine.directory / "uefi-vars.fd"
    assert variables.stat().st_size == qemu.find_firmware(secure=True).variables.stat().st_size
    machine.kill()


def test_a_release_gets_all_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFE_ACCEL", "tcg")
    lab = Lab(tmp_path / "rhel", "rhel-9.6")
    machine = Machine.start(lab, VmSpec("m", memory_mib=64, network=False))
    running = Machine.find(lab, "m")
    machine.kill()
    journal.open_journal(None)
    assert running is not None
    assert running.spec.cpu == "max"


def test_an_existing_disk_is_replaced(tmp_path: Path) -> None:
    disk = disks.create(tmp_path / "deep" / "disk.qcow2", 10 * MIB)
    info = json.loads(run.run(["qemu-img", "info", "--output=json", disk]).stdout)
    assert (info["format"], info["virtual-size"]) == ("qcow2", 10 * MIB)
    disk.write_bytes(disk.read_bytes() + b"old")
    disks.create(disk, 20 * MIB)
    assert not disk.read_bytes().endswith(b"old")


def test_a_panic_that_was_recovered_from_is_not_seen_again(lab: Lab, tmp_path: Path) -> None:
    """Whoever finds the machine later must not reset it in the middle of a good boot."""
    panics = "Kernel panic - not syncing: x\r\n"
    machine = Machine.start(lab, small(tmp_path, panics))
    wait_for(lambda: "panic" in machine.console(), Deadline(30), "it panics")
    machine.reset()
    again = Machine.find(lab, "small")
    assert again is not None
    assert len(again.console_of_boot()) < len(again.console())
    wait_for(lambda: panics.strip() in again.console_of_boot(), Deadline(30), "it panics again")
    assert Machine.find(lab, "small").console_of_boot() == again.console_of_boot()  # type: ignore[union-attr]


def test_a_clone_keeps_only_what_differs(tmp_path: Path) -> None:
    image = disks.create(tmp_path / "image.qcow2", 64 * MIB)
    run.run(["qemu-io", "-c", "write -P 7 0 1M", image])
    clone = disks.overlay(image, tmp_path / "clones" / "disk.qcow2")
    run.run(["qemu-io", "-c", "read -P 7 0 1M", "-c", "write -P 8 0 4k", clone])
    assert clone.stat().st_size < MIB
    run.run(["qemu-io", "-r", "-c", "read -P 7 0 1M", image])
