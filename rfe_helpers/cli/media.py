"""`rfe media`: look at installer ISOs, and whether a stick has what the ISO has."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rfe_helpers.cli.parts import add_command, add_group, print_json
from rfe_helpers.errors import MediaError


def add_commands(commands: Any) -> None:
    """`rfe media` and its commands."""
    group = add_group(commands, "media", "installer ISOs, and sticks they were written to")
    show = add_command(
        group, "show", media_show, "label, release, and the commit inside", as_json=True
    )
    show.add_argument("iso", metavar="ISO", type=Path)
    verify = add_command(group, "verify", media_verify, "check an ISO, or a stick against it")
    verify.add_argument("iso", metavar="ISO", type=Path)
    verify.add_argument(
        "target",
        metavar="TARGET",
        type=Path,
        nargs="?",
        help="a device or file that the ISO was written to; it is only read",
    )


def media_show(arguments: argparse.Namespace) -> int:
    from rfe_helpers.install import media

    boot = media.read(arguments.iso)
    shown: dict[str, object] = {
        "label": boot.label,
        "release": boot.release,
        "bytes": boot.size,
        "checksum": "fits" if media.check(arguments.iso) else "none inside",
        "ref": None,
        "commit": None,
        "version": None,
    }
    try:
        inside = media.payload(arguments.iso)
        shown |= {"ref": inside.ref, "commit": inside.commit, "version": inside.version}
    except MediaError:
        pass  # a boot ISO has none, and that is all right
    if arguments.json:
        print_json(shown)
        return 0
    for name, value in shown.items():
        print(f"{name + ':':<10} {'none' if value is None else value}")
    return 0


def media_verify(arguments: argparse.Namespace) -> int:
    from rfe_helpers.install import media

    carries = media.check(arguments.iso)
    if arguments.target is None:
        print(f"{arguments.iso} is " + ("whole" if carries else "not cut off; it has no checksum"))
        return 0
    same = media.verify_written(arguments.target, arguments.iso)
    print(f"{arguments.target} has all {same} bytes of {arguments.iso}")
    return 0
