"""Virtual machines: QEMU processes that outlive the notebook which started them.

A machine of a lab lives in `machines/<name>/`:

    machine.json     the VmSpec it was started with
    console.log      what it wrote to its serial port, from its last start on
    boot-starts      where in it the boot since the last reset begins, once there was one
    panics           how often it was begun anew, see below
    qemu.log         what QEMU itself said
    uefi-vars.fd     the variables of its UEFI firmware

Its process is registered in the lab as `machine-<name>`, and it is controlled over QMP (qemu.qmp)
on the socket `<name>.qmp`, so that any notebook finds it again with `Machine.find`.

Under emulation a guest kernel panics now and then while it boots (1 of 14 boots measured), and QEMU
itself has crashed (1 of some hundred starts): whoever waits for a machine does so with
`Machine.wait_until`, which resets it then or starts it again, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import QMPClient, QMPError

from rfe_helpers import files, media, run
from rfe_helpers.errors import (
    CommandFailed,
    DeadlineExceeded,
    GuestPanic,
    MachineError,
    RfeError,
)
from rfe_helpers.lab import Lab, cache_directory
from rfe_helpers.qemu import (
    ACCELERATORS,
    FIRMWARES,
    FULL_CPU,
    Firmware,
    VmSpec,
    argv,
    find_firmware,
    find_program,
)
from rfe_helpers.wait import Deadline, wait_for

__all__ = [
    *("InstallerState", "Machine", "VmSpec", "accelerator", "argv", "boots", "clone_disk"),
    *("create_disk", "install", "read_installer"),
]

MIB = 1024 * 1024
INSTALL_MEMORY_MIB = 1536
ANACONDA_MEMORY_MIB = 2048  # as the demo gives it
INSTALL_SECONDS = 900
INSTALL_BYTES = 2 * 1024 * MIB
INSTALLED = "installed"  # name of the snapshot in a disk
MOST_PANICS = 3
CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL)
STATUS_SECONDS = 5
PROBE_SECONDS = 20
# The kernel's own words; the second comes from the SMP boots under emulation that fail.
PANIC = re.compile(r"Kernel panic - not syncing|Oops: int3")
# What the sandbox's installer says on its consoles (rfe_helpers/sandbox/installer), and how the
# kernel takes its leave after any installer.
INSTALL_STEP = re.compile(r"RFE-INSTALL-STEP: (.*)")
INSTALL_OK = re.compile(r"RFE-INSTALL-OK")
INSTALL_FAILED = re.compile(r"RFE-INSTALL-FAILED: (.*)")
SWITCHED_OFF = re.compile(r"reboot: (Restarting system|Power down|System halted)")

Progress = Callable[[str], None] | None
T = TypeVar("T")


def create_disk(path: Path, size_bytes: int) -> Path:
    """Make an empty qcow2 image, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    run.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size_bytes)])
    return path


def keep(disk: Path) -> None:
    """Remember the content of a disk that no machine uses, for `revert`; costs next to nothing."""
    run.run(["qemu-img", "snapshot", "-c", INSTALLED, disk])


def revert(disk: Path) -> None:
    """Give a disk that no machine uses the content it had when it was installed."""
    try:
        run.run(["qemu-img", "snapshot", "-a", INSTALLED, disk])
    except CommandFailed as error:
        raise MachineError(
            f"{disk} cannot be put back: {error.tail}", remedy="install the machine again"
        ) from None


def clone_disk(image: Path, path: Path) -> Path:
    """Make a disk that begins as `image` and keeps only what differs from it (qcow2).

    The image must stay where it is, and unchanged: an installed system that has never been
    booted, so that each clone makes its own identity.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    run.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image.absolute(), path]
    )
    return path


# accelerator --------------------------------------------------------------------------------------


def accelerator(kernel: Path | None = None) -> str:
    """ "kvm" where a guest really boots under it, "tcg" (emulation) elsewhere.

    /dev/kvm may be there and no guest boot, so a Linux kernel is booted to its first lines once:
    `kernel`, or the host's own. The answer is remembered in the cache for this machine, CPU,
    host kernel and QEMU. RFE_ACCEL=kvm or tcg overrides all that.
    """
    if chosen := os.environ.get("RFE_ACCEL"):
        if chosen not in ACCELERATORS:
            raise MachineError(f"RFE_ACCEL={chosen}: choose kvm or tcg")
        return chosen
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    memory = cache_directory() / "accelerator.json"
    machine = _machine_identity()
    with contextlib.suppress(OSError, ValueError):
        remembered = json.loads(memory.read_text())
        if remembered["machine"] == machine:
            return str(remembered["accelerator"])
    kernel = kernel or _host_kernel()
    if kernel is None:
        return "tcg"  # nothing to try it with yet: not remembered, the boot ISO brings a kernel
    found = "kvm" if boots(kernel, "kvm") else "tcg"
    files.write_json(memory, {"machine": machine, "accelerator": found})
    return found


def boots(kernel: Path, accelerator: str) -> bool:
    """Whether a kernel gets as far as looking for its root file system, which it does not have."""
    reached = "Unable to mount root fs"
    with tempfile.TemporaryDirectory(prefix="rfe-probe-") as directory:
        append = "console=ttyS0 panic=-1"
        spec = VmSpec("probe", kernel=kernel, append=append, network=False, reboots=False)
        qmp = Path(directory, "qmp")
        command = argv(spec, accelerator, Path(directory), qmp, program=find_program())
        seen = False
        with contextlib.suppress(RfeError):
            run.run(command, seconds=PROBE_SECONDS, check=False)
        with contextlib.suppress(OSError):
            seen = reached in Path(directory, "console.log").read_text(errors="replace")
    return seen


def _machine_identity() -> str:
    """What the answer of the probe depends on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    version = run.run([find_program(), "--version"]).stdout.splitlines()[0]
    return "; ".join([platform.node(), platform.release(), cpu[1] if cpu else "", version])


def _host_kernel() -> Path | None:
    candidates = [Path("/boot", f"vmlinuz-{platform.release()}"), *Path("/boot").glob("vmlinuz-*")]
    return next((path for path in candidates if os.access(path, os.R_OK)), None)


# a running machine --------------------------------------------------------------------------------


class Machine:
    """A machine that was started in a lab."""

    def __init__(self, lab: Lab, spec: VmSpec, process: run.ProcessId) -> None:
        self.lab = lab
        self.spec = spec
        self.name = spec.name
        self._last = process

    def __repr__(self) -> str:
        return f"Machine({self.name}, {'running' if self.alive else 'off'})"

    @classmethod
    def start(cls, lab: Lab, spec: VmSpec) -> Machine:
        """Start a machine. Raises MachineError with QEMU's own words if it does not start."""
        if cls.find(lab, spec.name) is not None:
            raise MachineError(
                f"machine {spec.name} runs already",
                remedy=f"stop it first: Machine.find(lab, {spec.name!r}).stop()",
            )
        directory = _directory(lab, spec.name)
        firmware = _prepare_firmware(spec, directory)
        for leftover in ("console.log", "boot-starts", "panics", "qemu.log"):
            (directory / leftover).unlink(missing_ok=True)
        socket = lab.socket(f"{spec.name}.qmp")
        socket.unlink(missing_ok=True)
        chosen = "tcg" if spec.arch != platform.machine() else accelerator(spec.kernel)
        if not spec.cpu and lab.profile.backend == "osbuild":
            spec = replace(spec, cpu=FULL_CPU[spec.arch])
        program = find_program(spec.arch)
        command = argv(spec, chosen, directory, socket, firmware, program=program)
        # Before the process is known: whoever finds it reads this.
        files.write_json(directory / "machine.json", _spec_to_json(spec), mode=0o600)
        process = run.start(
            command,
            log=directory / "qemu.log",
            env=_window(spec),
            on_start=lambda process: lab.add_process(f"machine-{spec.name}", process),
        )
        machine = cls(lab, spec, process)
        wait_for(
            lambda: not process.alive or (socket.exists() and machine._answers()),
            Deadline(60),
            f"QEMU of {spec.name} is ready",
            every=0.05,
        )
        if not process.alive:
            raise machine._ended()
        return machine

    @classmethod
    def find(cls, lab: Lab, name: str) -> Machine | None:
        """The running machine of that name in the lab, None if it does not run."""
        process = lab.process(f"machine-{name}")
        if process is None:
            return None
        values = json.loads((_directory(lab, name) / "machine.json").read_text())
        return cls(lab, _spec_from_json(values), process)

    def _answers(self) -> bool:
        """Whether QEMU is complete: its socket is there before it has looked at everything."""
        try:
            return bool(self._command("query-status"))
        except MachineError:
            return False

    @property
    def directory(self) -> Path:
        return _directory(self.lab, self.name)

    @property
    def alive(self) -> bool:
        return self._process.alive

    @property
    def panics(self) -> int:
        """How often `wait_until`, of any program, has begun its boot anew since it was started."""
        try:
            return int((self.directory / "panics").read_text())
        except FileNotFoundError:
            return 0

    @property
    def _process(self) -> run.ProcessId:
        """The QEMU of this machine now: another one, if it was started again meanwhile."""
        recorded = self.lab.state["processes"].get(f"machine-{self.name}")
        return run.ProcessId(**recorded) if recorded else self._last

    def console(self) -> str:
        """All that the machine has written to its serial console since it was started."""
        try:
            return (self.directory / "console.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def console_of_boot(self) -> str:
        """What it has written since `reset` was pressed last."""
        try:
            begins = int((self.directory / "boot-starts").read_text())
        except FileNotFoundError:
            begins = 0
        return self.console()[begins:]

    def screenshot(self, path: Path) -> Path:
        """Save the machine's screen as PNG."""
        path = path.absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._command("screendump", filename=str(path), format="png")
        return path

    def reset(self) -> None:
        """Press the reset button; what the guest had not written is lost."""
        if self.spec.reboots:
            # Paused, so that it writes nothing more of the boot that ends here.
            self._command("stop")
            files.write(self.directory / "boot-starts", str(len(self.console())))
            self._command("system_reset")
            self._command("cont")
            return
        # QEMU with -no-reboot ends at a reset, and set-action does not prevent it: SeaBIOS does a
        # second reset of its own. So the machine is switched off and on.
        self._start_again()

    def _start_again(self) -> None:
        counted = self.panics
        self.kill()
        self._last = self.start(self.lab, self.spec)._last
        self._count(counted)

    def _count(self, panics: int) -> None:
        files.write(self.directory / "panics", str(panics))

    def save(self, path: Path, deadline: Deadline) -> None:
        """Write the running machine, its memory and all, to a file, and end it: another one goes
        on from there with VmSpec.incoming. Its disk stays as it was in that moment."""
        self._command("migrate", uri=f"exec:cat > {shlex.quote(str(path))}")

        def saved() -> bool:
            state = self._command("query-migrate").get("status")
            if state == "failed":
                raise MachineError(f"{self.name} cannot be saved to {path}")
            return bool(state == "completed")

        wait_for(saved, deadline, f"{self.name} is saved", every=0.2)
        self._command("quit")
        wait_for(lambda: not self.alive, deadline, "QEMU ends", every=0.1)
        self._forget()

    def power_button(self) -> None:
        """Press the power button: the guest shuts down if it reacts to ACPI."""
        self._command("system_powerdown")

    def stop(self, *, grace: float = 60) -> None:
        """Switch off: the guest gets `grace` seconds to shut down, then QEMU is ended."""
        limit = Deadline(grace)
        with contextlib.suppress(MachineError):
            self.power_button()
        with contextlib.suppress(DeadlineExceeded):
            wait_for(lambda: not self.alive, limit, f"{self.name} shuts down", every=0.2)
        with contextlib.suppress(MachineError):
            if self.alive:
                self._command("quit")
        run.stop(self._process)
        self._forget()

    def kill(self) -> None:
        """End QEMU at once, as a crash of the host would."""
        run.kill(self._process)
        self._forget()

    def _forget(self) -> None:
        """A process that was killed holds its disk's lock until its last thread has gone, a moment
        after it counts as ended."""
        entry = Path(f"/proc/{self._process.pid}")
        with contextlib.suppress(DeadlineExceeded):
            wait_for(lambda: not entry.exists(), Deadline(5), "QEMU has gone", every=0.02)
        self.lab.remove_process(f"machine-{self.name}")

    def wait_until(
        self,
        ready: Callable[[], T | None],
        deadline: Deadline,
        what: str,
        on_progress: Progress = None,
        *,
        every: float = 0.5,
    ) -> T:
        """Wait until `ready()` is true, and return that; `what` completes "… did not happen".

        A guest whose kernel panics is reset, and one whose QEMU has crashed is started again, at
        most MOST_PANICS times together, counted in `panics` and said through `on_progress`. Raises
        GuestPanic after that, MachineError if the machine has ended, DeadlineExceeded; each with
        the console as its log.
        """
        look_again = Deadline(STATUS_SECONDS)
        while True:
            alive = self.alive
            if found := ready():
                return found
            if not alive and not self._recover_from_crash(on_progress):
                raise self._ended()
            self.recover_from_panic(on_progress)
            if look_again.expired:
                self._check_running()
                look_again = Deadline(STATUS_SECONDS)
            if deadline.expired:
                raise DeadlineExceeded(
                    f"{what}: not within {deadline.seconds:.0f} s; the console ends with:\n"
                    + run.tail_of(self.console(), 5),
                    log=self.directory / "console.log",
                    remedy=f"look at the console of {self.name}, or give it more time",
                )
            threading.Event().wait(min(every, deadline.left))

    def recover_from_panic(self, on_progress: Progress = None) -> None:
        """Reset a guest whose kernel has panicked in this boot. Raises GuestPanic when it has
        done so too often."""
        if not (found := PANIC.search(self.console_of_boot())):
            return
        what = f"the kernel of {self.name} panicked {{}} times: {found[0]}"
        self._begin_anew(what, "guest kernel panicked; reset", self.reset, on_progress)

    def _recover_from_crash(self, on_progress: Progress) -> bool:
        """Start a machine again whose QEMU has crashed; False if it ended in another way, or if it
        cannot just be started again."""
        status = run.status(self._process)
        if status not in CRASHES or self.spec.incoming or self.spec.write_log:
            return False
        what = f"QEMU of {self.name} crashed {{}} times: {signal.Signals(-status).name}"
        self._begin_anew(what, "QEMU crashed; start", self._start_again, on_progress)
        return True

    def _begin_anew(
        self, what: str, briefly: str, act: Callable[[], None], on_progress: Progress
    ) -> None:
        counted = self.panics + 1
        self._count(counted)
        if counted > MOST_PANICS:
            raise GuestPanic(
                what.format(counted),
                log=self.directory / "console.log",
                remedy="the console shows the last one; try another kernel or accelerator",
            )
        if on_progress is not None:
            on_progress(f"{briefly} {counted} of at most {MOST_PANICS}")
        act()

    def _check_running(self) -> None:
        """QEMU pauses a machine whose disk image cannot grow, and waits for somebody."""
        status = ""
        with contextlib.suppress(MachineError):  # it may be ending just now
            status = self._command("query-status")["status"]
        if status == "io-error":
            raise MachineError(
                f"{self.name} is paused: its disk could not be written, {self.directory} is full",
                remedy="free some space and start it again; an installation starts over",
                log=self.directory / "console.log",
            )

    def _ended(self) -> MachineError:
        log = self.directory / "qemu.log"
        words = run.tail_of(log.read_text(errors="replace"), 5) if log.exists() else ""
        self.lab.remove_process(f"machine-{self.name}")
        if words:
            remedy = "another program has that port: `ss -ltnp`" if "hostfwd" in words else ""
            return MachineError(f"QEMU of {self.name} ended: {words}", log=log, remedy=remedy)
        return MachineError(
            f"machine {self.name} is not running any more: it was switched off, or QEMU was killed",
            log=self.directory / "console.log",
            remedy="start it again; its disk is as the last write left it",
        )

    def _command(self, name: str, **arguments: Any) -> Any:
        """One QMP command, over a connection of its own, in a thread of its own: the caller may
        have an event loop running, as Jupyter does."""
        socket = self.lab.socket(f"{self.name}.qmp")
        answer: list[Any] = []

        def talk() -> None:
            try:
                answer.append(asyncio.run(_qmp(socket, name, arguments)))
            except (QMPError, OSError, EOFError, TimeoutError) as error:
                answer.append(error)

        thread = threading.Thread(target=talk, name=f"qmp-{self.name}")
        thread.start()
        thread.join()
        if isinstance(answer[0], Exception):
            raise MachineError(
                f"machine {self.name} does not answer to {name}: "
                f"{answer[0] or type(answer[0]).__name__}",
                log=self.directory / "qemu.log",
                remedy="see whether it still runs: `rfe lab show`",
            )
        return answer[0]


async def _qmp(socket: Path, command: str, arguments: dict[str, Any]) -> Any:
    client = QMPClient("rfe")
    await asyncio.wait_for(client.connect(str(socket)), 10)
    try:
        return await asyncio.wait_for(client.execute(command, arguments or None), 30)
    finally:
        # After `quit` QEMU closes the connection itself.
        with contextlib.suppress(EOFError, QMPError):
            await client.disconnect()


def _directory(lab: Lab, name: str) -> Path:
    directory = lab.path("machines", name, "console.log").parent
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _prepare_firmware(spec: VmSpec, directory: Path) -> Firmware | None:
    """The firmware of a machine, with variables of its own that stay with it."""
    if spec.firmware not in FIRMWARES:
        raise MachineError(f"unknown firmware {spec.firmware!r}: choose {' or '.join(FIRMWARES)}")
    if spec.firmware == "bios" and spec.arch == "x86_64":
        return None
    firmware = find_firmware(secure=spec.firmware == "secureboot", arch=spec.arch)
    variables = directory / "uefi-vars.fd"
    if not variables.exists():
        files.write(variables, firmware.variables.read_bytes(), mode=0o600)
    return firmware


def _window(spec: VmSpec) -> dict[str, str]:
    """What QEMU needs from the caller's environment to open a window."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY") if spec.display != "none" else ()
    return {name: os.environ[name] for name in names if name in os.environ}


def _spec_to_json(spec: VmSpec) -> dict[str, Any]:
    return {key: str(v) if isinstance(v, Path) else v for key, v in asdict(spec).items()}


def _spec_from_json(values: dict[str, Any]) -> VmSpec:
    values["forwards"] = tuple((host, guest) for host, guest in values["forwards"])
    for key in ("disk", "cdrom", "kernel", "initrd", "seed", "write_log", "incoming"):
        # A machine that an earlier version of the workbook has started lacks the newer ones.
        values[key] = Path(values[key]) if values.get(key) else None
    return VmSpec(**values)


# installation -------------------------------------------------------------------------------------


def install(
    lab: Lab,
    name: str,
    iso: Path,
    kickstart_url: str,
    *,
    firmware: str = "bios",
    disk_size: int = 10 * 1024 * MIB,
    memory_mib: int = 0,
    network: bool = True,
    deadline: Deadline | None = None,
    on_progress: Progress = None,
) -> Path:
    """Install a machine from a boot ISO as a kickstart says; returns its disk.

    The kernel of the ISO is booted directly, with `inst.stage2=` naming the ISO by its label and
    `inst.ks=kickstart_url`, so nobody has to press TAB in its menu. Raises MachineError with the
    installer's own reason if it fails, MediaError for an ISO that cannot be read or is damaged.
    """
    found = Machine.find(lab, name)
    if found is not None:
        found.kill()
    directory = _directory(lab, name)
    if (free := shutil.disk_usage(directory).free) < INSTALL_BYTES:
        raise MachineError(
            f"{directory} has {free / 1e9:.1f} GB free, "
            f"an installation needs {INSTALL_BYTES / 1e9:.1f} GB",
            remedy="free some space, or use another lab directory",
        )
    media.check(iso)  # before a disk is replaced
    boot = media.read(iso)
    kernel, initrd = boot.extract_kernel(directory)
    # A machine that is installed anew starts with firmware variables of the factory, too.
    (directory / "uefi-vars.fd").unlink(missing_ok=True)
    disk = create_disk(directory / "disk.qcow2", disk_size)
    sandbox = lab.profile.backend == "sandbox"
    spec = VmSpec(
        name,
        disk=disk,
        memory_mib=memory_mib or (INSTALL_MEMORY_MIB if sandbox else ANACONDA_MEMORY_MIB),
        firmware=firmware,
        cdrom=iso,
        kernel=kernel,
        initrd=initrd,
        append=boot.arguments(kickstart_url),
        network=network,
        cache="unsafe",  # an installation that is interrupted starts over
        reboots=False,
    )
    machine = Machine.start(lab, spec)
    said = ""

    def ended() -> bool:
        nonlocal said
        state = read_installer(machine.console_of_boot())
        if state.step not in ("", said):
            said = state.step
            if on_progress is not None:
                on_progress(said)
        if state.failure:
            raise MachineError(
                f"the installation of {name} failed: {state.failure}",
                log=directory / "console.log",
                remedy="nothing of it can be used: mend the reason and install again",
            )
        return state.ended

    try:
        limit = deadline or Deadline(INSTALL_SECONDS)
        machine.wait_until(ended, limit, f"{name} is installed", on_progress)
        with contextlib.suppress(DeadlineExceeded):  # a kickstart that ends with `halt`
            wait_for(lambda: not machine.alive, Deadline(10), "QEMU ends", every=0.1)
        machine.stop(grace=0)
    finally:
        machine.kill()
    keep(disk)
    return disk


@dataclass(frozen=True)
class InstallerState:
    """What a console says about an installation: the last step, whether it ended well, and why
    it failed; "" for nothing."""

    step: str
    ended: bool
    failure: str


def read_installer(console: str) -> InstallerState:
    """How far an installation is.

    The sandbox's installer says so. Of any other, such as Anaconda, it is known by its switching
    the machine off; when it fails it stays and waits for somebody.
    """
    steps = INSTALL_STEP.findall(console)
    failed = INSTALL_FAILED.search(console)
    done = INSTALL_OK.search(console) if steps else True
    return InstallerState(
        step=steps[-1].strip() if steps else "",
        ended=bool(done and SWITCHED_OFF.search(console)),
        failure=failed[1].strip() if failed else "",
    )
