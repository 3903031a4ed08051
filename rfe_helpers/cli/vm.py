"""`vm`: run a guest image, as the demo's helper of that name does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import InputError, RfeError
from rfe_helpers.lab.lab import DEFAULT, Lab, default_directory
from rfe_helpers.machine import guest
from rfe_helpers.machine.qemu import ARCHITECTURES

STOP_SECONDS = 90


def main(argv: Sequence[str] | None = None) -> int:
    """Run a guest until it is switched off or Ctrl-C; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        with run.ending_in_order():
            return _run(arguments)
    except RfeError as error:
        print(f"vm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vm: interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="vm",
        description="Run a guest image (qcow2) with cloud-init: root, password r; SSH and the web "
        "console on loopback.",
    )
    top.add_argument("image", type=Path, metavar="IMAGE", help="such as rhel-9.4-x86_64-kvm.qcow2")
    top.add_argument("--persist", action="store_true", help="write to the image (or forget it all)")
    top.add_argument("--memory", type=_memory, default=2048, metavar="MIB", help="2048, or 2G")
    top.add_argument("--cpus", type=int, choices=range(1, 65), default=2, metavar="N", help="2")
    top.add_argument("--cloud-init", type=Path, metavar="DIR", help="user-data and meta-data")
    firmware = top.add_mutually_exclusive_group()
    for option, text in (("uefi", "UEFI in place of BIOS"), ("secureboot", "and with secure boot")):
        firmware.add_argument(
            f"--{option}", dest="firmware", action="store_const", const=option, help=text
        )
    top.add_argument("--headless", action="store_true", help="no window")
    top.add_argument(
        "--forward",
        type=_forward,
        action="append",
        default=[],
        metavar="HOST:GUEST",
        help="another TCP port, or another place for 22 (2222) and 9090 (9091)",
    )
    top.add_argument("--arch", choices=ARCHITECTURES, help="as the name of the image says")
    top.add_argument("--name", help="of the machine in the lab (that of the image)")
    usual = default_directory()
    top.add_argument("--lab", default=usual, metavar="DIR", help=f"the lab (RFE_LAB, or {DEFAULT})")
    return top


def _memory(text: str) -> int:
    try:
        return guest.parse_memory(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(f"{error.message}; {error.remedy}") from None


def _forward(text: str) -> tuple[int, int]:
    try:
        return guest.parse_forward(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(f"{error.message}; {error.remedy}") from None


def _run(arguments: argparse.Namespace) -> int:
    guest.check_image(arguments.image)
    lab = Lab(arguments.lab)
    display = "none" if arguments.headless else guest.window()
    if display == "none" and not arguments.headless:
        print("no window can be opened here: going on without one")
    name = arguments.name or arguments.image.stem
    if guest.find(lab, name) is not None:
        raise InputError(f"{name} runs already", remedy="stop that one, or choose another --name")
    started = guest.start(
        lab,
        arguments.image,
        name,
        persist=arguments.persist,
        memory_mib=arguments.memory,
        cpus=arguments.cpus,
        firmware=arguments.firmware or "bios",
        cloud_init=arguments.cloud_init,
        forwards=arguments.forward,
        display=display,
        arch=arguments.arch or "",
    )
    _tell(started, arguments)
    try:
        wait_for(lambda: not started.machine.alive, Deadline(float("inf")), "it ends", every=1)
    except KeyboardInterrupt:
        print("switching it off", flush=True)
        started.machine.stop(grace=STOP_SECONDS)
    return 0


def _tell(started: guest.Guest, arguments: argparse.Namespace) -> None:
    machine = started.machine
    kept = "written to the image" if arguments.persist else "forgotten at the end"
    print(f"{machine.name} runs; what it writes is {kept}")
    for outside, inside in started.forwards:
        print(f"127.0.0.1:{outside} -> {inside}")
    if arguments.cloud_init is None:
        print(f"log in as root, password {guest.PASSWORD}: {started.host.line}")
    print(f"web console, once it is enabled: {started.console_url}")
    print(f"console: {machine.directory / 'console.log'}")
    print("Ctrl-C switches it off", flush=True)


if __name__ == "__main__":
    sys.exit(main())
