"""Whether guests run under KVM here, or have to be emulated (TCG)."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import tempfile
import time
from pathlib import Path

from rfe_helpers.core import files, run
from rfe_helpers.errors import DeadlineExceededError, MachineError, RfeError
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.machine.qemu import ACCELERATORS, VmSpec, argv, find_program

PROBE_SECONDS = 20
_DAY = 86400
_NO_ROOT = "Unable to mount root fs"


def find_accelerator(kernel: Path | None = None) -> str:
    """ "kvm" where a guest really boots under it, "tcg" (emulation) elsewhere.

    /dev/kvm may exist although no guest boots under it, so a Linux kernel is booted once, up to
    its first messages: `kernel`, or the host's own. The answer is kept in the cache for this
    machine, CPU, host kernel and QEMU; if the probe ran out of time, as on a busy host, for one
    day only. RFE_ACCEL=kvm or tcg overrides the probe; another value raises MachineError.

    >>> from rfe_helpers.machine import find_accelerator
    >>> find_accelerator()  # "kvm", or "tcg": emulation, ten times slower
    '...'
    """
    if chosen := os.environ.get("RFE_ACCEL"):
        if chosen not in ACCELERATORS:
            raise MachineError(f"RFE_ACCEL={chosen}: choose kvm or tcg")
        return chosen
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    record = cache_directory() / "accelerator.json"
    machine = _machine_identity()
    with contextlib.suppress(OSError, ValueError):
        remembered = json.loads(record.read_text())
        if remembered["machine"] == machine and time.time() < remembered.get("until", math.inf):
            return str(remembered["accelerator"])
    kernel = kernel or _host_kernel()
    if kernel is None:
        return "tcg"  # nothing to probe with yet; not recorded, since the boot ISO brings a kernel
    answer: dict[str, object] = {"machine": machine, "accelerator": "tcg"}
    try:
        if boots(kernel, "kvm"):
            answer["accelerator"] = "kvm"
    except DeadlineExceededError:
        answer["until"] = time.time() + _DAY
    files.write_json(record, answer)
    return str(answer["accelerator"])


def boots(kernel: Path, accelerator: str) -> bool:
    """Whether a kernel gets as far as looking for its root file system (it is given none).
    Raises DeadlineExceededError if it neither does so nor ends within PROBE_SECONDS."""
    with tempfile.TemporaryDirectory(prefix="rfe-probe-") as directory:
        append = "console=ttyS0 panic=-1"
        spec = VmSpec("probe", kernel=kernel, append=append, network=False, reboots=False)
        qmp = Path(directory, "qmp")
        command = argv(spec, accelerator, Path(directory), qmp, program=find_program())
        console = Path(directory, "console.log")

        def reached_root() -> bool:
            with contextlib.suppress(OSError):
                return _NO_ROOT in console.read_text(errors="replace")
            return False

        try:
            run.run(command, seconds=PROBE_SECONDS, check=False)
        except DeadlineExceededError:
            if not reached_root():
                raise
        except RfeError:  # QEMU itself does not start
            return False
        return reached_root()


def _machine_identity() -> str:
    """What the result of the probe depends on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    version = run.run([find_program(), "--version"]).stdout.splitlines()[0]
    return "; ".join([platform.node(), platform.release(), cpu[1] if cpu else "", version])


def _host_kernel() -> Path | None:
    candidates = [Path("/boot", f"vmlinuz-{platform.release()}"), *Path("/boot").glob("vmlinuz-*")]
    return next((path for path in candidates if os.access(path, os.R_OK)), None)
