"""The installation from start to end, and the handling of a failure."""

from __future__ import annotations

import shutil
import subprocess
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pykickstart import constants

from . import configure, disk, ignition, image, scripts, source, system
from .console import FAILED, LOG, OK, InstallError, log, run, say, step
from .plan import InstallPlan, parse

PHYSICAL = Path("/mnt/sysimage")  # the disk, as Anaconda names it for --nochroot scripts
VIEW = Path("/mnt/sysroot")  # the installed system
SECONDS_TO_READ = 60


def read_plan(location: str) -> InstallPlan:
    """The plan; the %pre scripts run first, since they may write files that it includes."""
    if not location:
        raise InstallError("no kickstart: give the kernel inst.ks=http://… (or hd:, cdrom:, file:)")
    step(f"kickstart {location}")
    text = source.read_kickstart(location)
    before_pre = parse(text, follow_includes=False)
    scripts.run_scripts(before_pre.scripts_of(constants.KS_SCRIPT_PRE), "%pre", None)
    return parse(text)


def install(plan: InstallPlan) -> None:
    """Carry out a plan; nothing is written until the disk and the commit are known."""
    needed = disk.needed_bytes(source.payload_bytes(plan.payload.url))
    selected = disk.choose(plan.disks, disk.present(), needed)
    step(f"looking for {plan.payload}")
    plan.payload.check()
    step(f"partitioning {selected.name} ({selected.size / 1024**3:.1f} GiB, {plan.filesystem})")
    target = disk.partition(selected.name, plan.filesystem, PHYSICAL)
    scripts.run_scripts(plan.scripts_of(constants.KS_SCRIPT_PREINSTALL), "%pre-install", None)
    with ThreadPoolExecutor() as beside:  # what it writes, nothing else reads or writes
        boot_loader = beside.submit(system.install_boot_loader, target)
        deployment = system.deploy(target, plan.payload, plan.kernel_arguments)
        step("installing the boot loader")
        boot_loader.result()
    step("configuring the system")
    system.enter(target, deployment, plan.payload.osname, VIEW)
    configure.configure(plan, VIEW)
    scripts.run_scripts(plan.scripts_of(constants.KS_SCRIPT_POST), "%post", VIEW)
    (VIEW / "var/log").mkdir(parents=True, exist_ok=True)
    shutil.copy(LOG, VIEW / "var/log/edge-install.log")
    step("writing everything to the disk")
    disk.release(VIEW, PHYSICAL)


def write_image(file: Path, device: str) -> None:
    configured = ignition.fetch(source.MEDIUM)
    written = image.write(file, device)
    if configured:
        ignition.apply(written, PHYSICAL, VIEW)


def main() -> str:
    """Install; returns the final action of the machine: reboot, poweroff or halt."""
    plan: InstallPlan | None = None
    try:
        run("udevadm", "settle")
        arguments = source.boot_arguments(Path("/proc/cmdline").read_text())
        if "rd.live.check" in arguments:
            step("checking the boot medium")
            source.check_medium()
        if image.FILE in arguments:
            write_image(Path(arguments[image.FILE]), arguments.get(image.DEVICE, ""))
        else:
            plan = read_plan(arguments.get("inst.ks", ""))
            install(plan)
    except Exception as error:
        log(traceback.format_exc())
        # One line for any failure, expected or not; the log has the details.
        expected = isinstance(error, InstallError)
        reason = str(error) if expected else f"{type(error).__name__}: {error}"
        on_error = plan.scripts_of(constants.KS_SCRIPT_ONERROR) if plan else []
        try:
            scripts.run_scripts(on_error, "%onerror", VIEW if VIEW.is_mount() else None)
        except InstallError as second:
            log(str(second))
        say(f"{FAILED}: {' '.join(reason.split())}")
        say(f"The log is {LOG}; this machine powers off in {SECONDS_TO_READ} seconds.")
        time.sleep(SECONDS_TO_READ)
        return "poweroff"
    say(OK)
    return plan.end if plan else "reboot"


if __name__ == "__main__":
    subprocess.run(["systemctl", "--force", "--force", main()])
