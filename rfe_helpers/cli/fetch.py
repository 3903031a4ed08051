"""`rfe fetch`: the media of a release; and `rfe kickstart-iso`: a boot ISO with a kickstart."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rfe_helpers.cli.parts import add_command


def add_commands(commands: Any) -> None:
    """Both commands."""
    one = add_command(
        commands, "fetch", fetch, "fetch a guest image or boot ISO, or say where to get it"
    )
    one.add_argument("kind", choices=("guest", "iso"), help="the guest image, or the boot ISO")
    one.add_argument("--profile", required=True, help="the release: `rfe profiles` lists them")
    two = add_command(
        commands, "kickstart-iso", kickstart_iso, "put a kickstart into a copy of a boot ISO"
    )
    for name, text in (
        ("kickstart", "checked before it is put in"),
        ("iso", "a boot ISO"),
        ("target", "the copy to make"),
    ):
        two.add_argument(name, type=Path, metavar=name.upper(), help=text)
    two.add_argument("--profile", default="sandbox", help="whose installer reads it (%(default)s)")


def fetch(arguments: argparse.Namespace) -> int:
    from rfe_helpers.install import download
    from rfe_helpers.lab import profile

    pass

    release = profile.load(arguments.profile)
    from rfe_helpers.workbook.progress import Progress

    with Progress(f"{download.KINDS[arguments.kind]} of {release.title}") as progress:
        path = download.fetch_media(release, arguments.kind, progress)
    print(path)
    return 0


def kickstart_iso(arguments: argparse.Namespace) -> int:
    from rfe_helpers.errors import KickstartError
    from rfe_helpers.install import kickstart, mkksiso
    from rfe_helpers.lab import profile

    try:
        text = arguments.kickstart.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "this is no text"
        raise KickstartError(f"cannot read {arguments.kickstart}: {reason}") from None
    kickstart.validate(text, profile.load(arguments.profile).kickstart.version)
    print(mkksiso.with_kickstart(arguments.iso, arguments.kickstart, arguments.target))
    return 0
