"""Virtual machines: QEMU processes that outlive the notebook that started them.

A machine of a lab lives in `machines/<name>/`:

    machine.json     the VmSpec it was started with
    console.log      the output of its serial port since its last start
    boot-starts      the offset in it where the boot after the last reset begins
    restarts         how often `wait_until` has restarted it, see below
    qemu.log         the output of QEMU itself
    uefi-vars.fd     the variables of its UEFI firmware

Its process is registered in the lab as `machine-<name>` and controlled over QMP (qemu.qmp) on the
socket `<name>.qmp`, so that any notebook finds it again with `Machine.find`. Its screen is on the
socket `<name>.vnc`, its serial console on `<name>.tty` (workbook/machine_page.py).

Under emulation a guest kernel occasionally panics while it boots (1 of 14 boots measured), and QEMU
itself has crashed (1 of some hundred starts). So wait for a machine with `Machine.wait_until`,
which then resets it or starts it again, and reports that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import re
import shlex
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import QMPClient, QMPError

from rfe_helpers.core import files, run
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import DeadlineExceededError, GuestPanicError, MachineError, QemuCrashError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.accelerator import find_accelerator
from rfe_helpers.machine.qemu import (
    FIRMWARES,
    FULL_CPU,
    Firmware,
    VmSpec,
    argv,
    find_firmware,
    find_program,
)

MOST_RESTARTS = 3
CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL)
STATUS_SECONDS = 5
# Messages of the kernel; the second is that of failing SMP boots under emulation.
PANIC = re.compile(r"Kernel panic - not syncing|Oops: int3")

T = TypeVar("T")


class Machine:
    """A virtual machine of a lab, as `start`, `find` and `ensure` return it.

    For example:

    >>> from pathlib import Path
    >>> from rfe_helpers import Machine
    >>> machine = Machine.find(lab, "edge-1")
    >>> machine.alive
    True
    >>> machine.screenshot(Path("screen.png"))
    PosixPath('.../screen.png')
    """

    def __init__(self, lab: Lab, spec: VmSpec, process: run.ProcessId) -> None:
        self.lab = lab
        self.spec = spec
        self.name = spec.name
        self._last = process

    def __repr__(self) -> str:
        return f"Machine({self.name}, {'running' if self.alive else 'off'})"

    @classmethod
    def start(cls, lab: Lab, spec: VmSpec) -> Machine:
        """Start a machine. Raises MachineError, with QEMU's own message if it does not start."""
        if cls.find(lab, spec.name) is not None:
            raise MachineError(
                f"machine {spec.name} is already running",
                remedy=f"stop it first: Machine.find(lab, {spec.name!r}).stop()",
            )
        directory = lab.folder("machines", spec.name)
        firmware = _prepare_firmware(spec, directory)
        for leftover in ("console.log", "boot-starts", "restarts", "qemu.log"):
            (directory / leftover).unlink(missing_ok=True)
        socket = lab.socket(f"{spec.name}.qmp")
        socket.unlink(missing_ok=True)
        accelerator = "tcg" if spec.arch != platform.machine() else find_accelerator(spec.kernel)
        if not spec.cpu and lab.profile.backend == "osbuild":
            spec = replace(spec, cpu=FULL_CPU[spec.arch])
        program = find_program(spec.arch)
        command = argv(spec, accelerator, directory, socket, firmware, program=program)
        # Before the process is registered: `find` reads this file.
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
        """The running machine of that name in the lab, or None."""
        process = lab.process(f"machine-{name}")
        if process is None:
            return None
        values = json.loads((lab.folder("machines", name) / "machine.json").read_text())
        return cls(lab, _spec_from_json(values), process)

    @classmethod
    def ensure(cls, lab: Lab, spec: VmSpec) -> Machine:
        """The running machine of that name; if none is running, start `spec`."""
        return cls.find(lab, spec.name) or cls.start(lab, spec)

    def _answers(self) -> bool:
        """Whether QEMU is ready: its socket exists before it has checked all of its options."""
        try:
            return bool(self._command("query-status"))
        except MachineError:
            return False

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return self.lab.folder("machines", self.name)

    @property
    def alive(self) -> bool:
        """Whether its QEMU is running."""
        return self._process.alive

    @property
    def restarts(self) -> int:
        """How often `wait_until`, in any process, has restarted it after a kernel panic or a crash
        of QEMU."""
        try:
            return int((self.directory / "restarts").read_text())
        except FileNotFoundError:
            return 0

    @property
    def _process(self) -> run.ProcessId:
        """The QEMU that runs this machine now, which may be another one after a restart."""
        recorded = self.lab.state["processes"].get(f"machine-{self.name}")
        return run.ProcessId(**recorded) if recorded else self._last

    def console(self, begins: int = 0) -> str:
        """The output of its serial console since it was started, from byte `begins` on, or all of
        it if it is shorter by now, as it was started again."""
        try:
            with (self.directory / "console.log").open("rb") as log:
                log.seek(begins if begins <= self.console_size else 0)
                return log.read().decode(errors="replace").replace("\r\n", "\n")
        except FileNotFoundError:
            return ""

    @property
    def console_size(self) -> int:
        """The bytes that its console has written by now."""
        try:
            return (self.directory / "console.log").stat().st_size
        except FileNotFoundError:
            return 0

    def console_of_boot(self) -> str:
        """The output of its serial console since the last `reset`."""
        try:
            begins = int((self.directory / "boot-starts").read_text())
        except FileNotFoundError:
            begins = 0
        return self.console(begins)

    def screenshot(self, path: Path) -> Path:
        """Save the machine's screen as PNG; returns the path. Raises MachineError."""
        path = path.absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._command("screendump", filename=str(path), format="png")
        return path

    def reset(self) -> None:
        """Press the reset button; what the guest has not written to its disk is lost."""
        if self.spec.reboots:
            # Paused, so that the boot that ends here writes nothing more.
            self._command("stop")
            files.write(self.directory / "boot-starts", str(self.console_size))
            self._command("system_reset")
            self._command("cont")
            return
        # With -no-reboot, QEMU ends at a reset, and set-action does not prevent it, since SeaBIOS
        # does a second reset of its own. So the machine is switched off and on.
        self._start_again()

    def _start_again(self) -> None:
        restarts = self.restarts
        self.kill()
        self._last = self.start(self.lab, self.spec)._last
        self._count(restarts)

    def _count(self, restarts: int) -> None:
        files.write(self.directory / "restarts", str(restarts))

    def save(self, path: Path, deadline: Deadline | float) -> None:
        """Save the memory and the device state of the running machine to a file, and end it. Its
        disk stays as it is at that moment; VmSpec.incoming continues from both."""
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
        """Press the power button: a guest that handles ACPI shuts down."""
        self._command("system_powerdown")

    def stop(self, *, grace: float = 60) -> None:
        """Switch off: give the guest `grace` seconds to shut down, then end QEMU."""
        limit = Deadline(grace)
        with contextlib.suppress(MachineError):
            self.power_button()
        with contextlib.suppress(DeadlineExceededError):
            wait_for(lambda: not self.alive, limit, f"{self.name} shuts down", every=0.2)
        with contextlib.suppress(MachineError):
            if self.alive:
                self._command("quit")
        run.stop(self._process)
        self._forget()

    def kill(self) -> None:
        """End QEMU at once with SIGKILL; what the guest has not written to its disk is lost."""
        run.kill(self._process)
        self._forget()

    def _forget(self) -> None:
        """A killed process holds the lock on its disk until its last thread has gone, a moment
        after it counts as ended."""
        entry = Path(f"/proc/{self._process.pid}")
        with contextlib.suppress(DeadlineExceededError):
            wait_for(lambda: not entry.exists(), Deadline(5), "QEMU has gone", every=0.02)
        self.lab.remove_process(f"machine-{self.name}")

    def wait_until(
        self,
        ready: Callable[[], T | None],
        deadline: Deadline | float,
        what: str,
        on_progress: OnProgress = None,
        *,
        every: float = 0.5,
    ) -> T:
        """Wait until `ready()` returns something true, and return that; `what` is the event waited
        for, as in "edge-1 answers over SSH". `every` is in seconds.

        A guest whose kernel panics is reset, and one whose QEMU has crashed is started again, at
        most MOST_RESTARTS times in all, counted in `restarts` and reported through `on_progress`.
        Raises GuestPanicError or QemuCrashError after that, MachineError if the machine has ended,
        or DeadlineExceededError, each with the console as its log.
        """
        limit, next_check = Deadline.of(deadline), Deadline(STATUS_SECONDS)
        while True:
            alive = self.alive
            if result := ready():
                return result
            if not alive and not self._recover_from_crash(on_progress):
                raise self._ended()
            self.recover_from_panic(on_progress)
            if next_check.expired:
                self._check_running()
                next_check = Deadline(STATUS_SECONDS)
            if limit.expired:
                raise DeadlineExceededError(
                    f"{what}: not within {limit.seconds:.0f} s; the console ends with:\n"
                    + run.tail_of(self.console(), 5),
                    log=self.directory / "console.log",
                    remedy=f"see the console of {self.name}, or allow more time",
                )
            threading.Event().wait(min(every, limit.left))

    def recover_from_panic(self, on_progress: OnProgress = None) -> None:
        """Reset a guest whose kernel has panicked in this boot. Raises GuestPanicError if that has
        happened too often."""
        if panic := PANIC.search(self.console_of_boot()):
            self._restart(f"the guest kernel panicked ({panic[0]})", GuestPanicError, on_progress)

    def _recover_from_crash(self, on_progress: OnProgress) -> bool:
        """If QEMU has crashed, start the machine again. False if it ended in another way, or if it
        continues a saved machine or logs its writes: those cannot be started again."""
        status = run.status(self._process)
        if status not in CRASHES or self.spec.incoming or self.spec.write_log:
            return False
        self._restart(f"QEMU crashed ({signal.Signals(-status).name})", QemuCrashError, on_progress)
        return True

    def _restart(self, reason: str, error: type[MachineError], on_progress: OnProgress) -> None:
        """Reset the machine, or start it again after a crash; raise `error` if that has been done
        too often."""
        restarts = self.restarts + 1
        self._count(restarts)
        if restarts > MOST_RESTARTS:
            raise error(
                f"{self.name} was restarted {MOST_RESTARTS} times, and again {reason}",
                log=self.directory / "console.log",
                remedy="see the last boot in the console; try another kernel or accelerator",
            )
        if on_progress is not None:
            on_progress(f"{reason}; restart {restarts} of at most {MOST_RESTARTS}")
        if error is QemuCrashError:
            self._start_again()
        else:
            self.reset()

    def _check_running(self) -> None:
        """Raise MachineError if QEMU has paused the machine because its disk image cannot grow."""
        status = ""
        with contextlib.suppress(MachineError):  # it may be ending at this moment
            status = self._command("query-status")["status"]
        if status == "io-error":
            raise MachineError(
                f"{self.name} is paused: its disk cannot be written, {self.directory} is full",
                remedy="free some space, then start it again; repeat an interrupted installation",
                log=self.directory / "console.log",
            )

    def _ended(self) -> MachineError:
        log = self.directory / "qemu.log"
        output = run.tail_of(log.read_text(errors="replace"), 5) if log.exists() else ""
        self.lab.remove_process(f"machine-{self.name}")
        if output:
            busy = "find the program that uses the port: `ss -ltnp`"
            remedy = busy if "hostfwd" in output else ""
            return MachineError(f"QEMU of {self.name} ended: {output}", log=log, remedy=remedy)
        return MachineError(
            f"machine {self.name} is no longer running: it was switched off, or QEMU was killed",
            log=self.directory / "console.log",
            remedy="start it again: its disk is as the last write left it",
        )

    def _command(self, name: str, **arguments: Any) -> Any:
        """Run one QMP command over its own connection, in a thread, since the caller may have a
        running event loop, as Jupyter does. Raises MachineError."""
        socket = self.lab.socket(f"{self.name}.qmp")
        with ThreadPoolExecutor(1, f"qmp-{self.name}") as thread:
            answer = thread.submit(lambda: asyncio.run(_qmp(socket, name, arguments)))
        try:
            return answer.result()
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            raise MachineError(
                f"machine {self.name} does not answer the command {name}: "
                f"{error or type(error).__name__}",
                log=self.directory / "qemu.log",
                remedy="check whether it is still running: `rfe lab show`",
            ) from error


async def _qmp(socket: Path, command: str, arguments: dict[str, Any]) -> Any:
    client = QMPClient("rfe")
    try:
        await asyncio.wait_for(client.connect(str(socket)), 10)
        return await asyncio.wait_for(client.execute(command, arguments or None), 30)
    except AssertionError as error:  # qemu.qmp checks the session so; QEMU ended it
        raise EOFError("QEMU has closed the connection") from error
    finally:
        # After `quit` QEMU closes the connection itself.
        with contextlib.suppress(EOFError, OSError, QMPError):
            await client.disconnect()


def _prepare_firmware(spec: VmSpec, directory: Path) -> Firmware | None:
    """The firmware of a machine, with its own persistent copy of the variables."""
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
    """The environment variables that QEMU needs to open a window."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY") if spec.display != "none" else ()
    return {name: os.environ[name] for name in names if name in os.environ}


def _spec_to_json(spec: VmSpec) -> dict[str, Any]:
    return {key: str(v) if isinstance(v, Path) else v for key, v in asdict(spec).items()}


def _spec_from_json(values: dict[str, Any]) -> VmSpec:
    values["forwards"] = tuple((host, guest) for host, guest in values["forwards"])
    for key in ("disk", "cdrom", "kernel", "initrd", "seed", "write_log", "incoming"):
        # A machine that was started by an earlier version lacks the newer ones.
        values[key] = Path(values[key]) if values.get(key) else None
    return VmSpec(**values)
