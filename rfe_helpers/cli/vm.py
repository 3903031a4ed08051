"""`vm`: run a guest image, as the demo's helper of that name does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rfe_helpers.cli.shared import SETTINGS, Command, lab_option, parsed, run_line
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import InputError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import guest
from rfe_helpers.machine.qemu import ARCHITECTURES

STOP_SECONDS = 90
MEMORY, FORWARD = parsed("mib", guest.parse_memory), parsed("host:guest", guest.parse_forward)
FILE = click.Path(path_type=Path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a guest until it is switched off or Ctrl-C; returns the exit status.

    Raises SystemExit(2) for wrong usage.
    """
    return run_line(vm, "vm", argv)


@click.command(
    cls=Command, context_settings=SETTINGS, example="vm --persist rhel-9.4-x86_64-kvm.qcow2"
)
@click.argument("image", type=FILE)
@click.option("--persist", is_flag=True, help="Write to the image; without it all is forgotten.")
@click.option("--memory", "memory_mib", type=MEMORY, default="2048", help="In MiB, or as in 2G.")
@click.option("--cpus", type=click.IntRange(1, 64), default=2, metavar="N", help="Processors.")
@click.option("--cloud-init", type=FILE, metavar="DIR", help="With user-data and meta-data.")
@click.option("--uefi", is_flag=True, help="UEFI in place of BIOS.")
@click.option("--secureboot", is_flag=True, help="UEFI with secure boot.")
@click.option("--headless", is_flag=True, help="Open no window.")
@click.option("--forward", "forwards", type=FORWARD, multiple=True, help="May be repeated.")
@click.option("--arch", type=click.Choice(ARCHITECTURES), help="By default the image's own.")
@click.option("--name", help="Of the machine in the lab; by default that of the image.")
@lab_option
def vm(
    image: Path,
    uefi: bool,
    secureboot: bool,
    headless: bool,
    arch: str | None,
    name: str | None,
    directory: str,
    **settings: Any,
) -> None:
    """Run a guest image (qcow2) with cloud-init until it is switched off or Ctrl-C.

    IMAGE is a file such as rhel-9.4-x86_64-kvm.qcow2. root has the password r. In the usual lab
    SSH (port 22) is on 127.0.0.1:2222 and the web console (9090) on 127.0.0.1:9091 if these are
    free; --forward moves them, and adds other ports. The addresses are printed.
    """
    if uefi and secureboot:
        raise click.UsageError("--uefi and --secureboot do not go together")
    guest.check_image(image)
    lab = Lab(directory)
    display = "none" if headless else guest.window()
    if display == "none" and not headless:
        print("no window can be opened here: continuing without one")
    name = name or image.stem
    if guest.find(lab, name) is not None:
        raise InputError(
            f"{name} is running already", remedy="stop that one, or choose another --name"
        )
    firmware = "secureboot" if secureboot else "uefi" if uefi else "bios"
    started = guest.start(
        lab, image, name, firmware=firmware, display=display, arch=arch or "", **settings
    )
    machine = started.machine
    kept = "written to the image" if settings["persist"] else "forgotten at the end"
    print(f"{machine.name} runs; what it writes is {kept}")
    for outside, inside in started.forwards:
        print(f"127.0.0.1:{outside} -> {inside}")
    if settings["cloud_init"] is None:
        print(f"log in as root, password {guest.PASSWORD}: {started.host.line}")
    print(f"web console, once it is enabled: {started.console_url}")
    print(f"console: {machine.directory / 'console.log'}")
    print("Ctrl-C switches it off", flush=True)
    try:
        wait_for(lambda: not machine.alive, Deadline(float("inf")), "it ends", every=1)
    except KeyboardInterrupt:
        print("switching it off", flush=True)
        machine.stop(grace=STOP_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
