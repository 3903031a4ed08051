"""`rfe media`, `rfe fetch`, `rfe kickstart-iso`: installer ISOs, their origin, sticks with them."""

from __future__ import annotations

from pathlib import Path

import click

from rfe_helpers import install, workbook
from rfe_helpers.cli import shared
from rfe_helpers.errors import KickstartError, MediaError
from rfe_helpers.lab.profile import load

FILE = click.Path(path_type=Path)


@click.group("media", cls=shared.Group)
def group() -> None:
    """Look at installer ISOs, and check sticks against them."""


@group.command(example="rfe media show boot.iso")
@click.argument("iso", type=FILE)
@shared.json_option
def show(iso: Path, as_json: bool) -> None:
    """Show label, release, and the commit inside."""
    boot = install.media.read(iso)
    facts: dict[str, object] = {
        "label": boot.label,
        "release": boot.release,
        "bytes": boot.size,
        "checksum": "fits" if install.media.check(iso) else "none inside",
        "ref": None,
        "commit": None,
        "version": None,
    }
    try:
        inside = install.media.payload(iso)
        facts |= {"ref": inside.ref, "commit": inside.commit, "version": inside.version}
    except MediaError:
        pass  # a boot ISO has none, and that is all right
    shared.print_result(facts, shared.facts_text(facts), as_json=as_json)


@group.command(example="rfe media verify boot.iso /dev/sdX")
@click.argument("iso", type=FILE)
@click.argument("target", type=FILE, required=False)
def verify(iso: Path, target: Path | None) -> None:
    """Check an ISO, or a stick against the ISO.

    TARGET is the device or file that the ISO was written to; it is only read.
    """
    carries = install.media.check(iso)
    if target is None:
        print(f"{iso} is " + ("whole" if carries else "not cut off; it has no checksum"))
    else:
        print(f"{target} has all {install.media.verify_written(target, iso)} bytes of {iso}")


@click.command(cls=shared.Command, example="rfe fetch iso --profile centos-stream-9")
@click.argument("kind", type=click.Choice(("guest", "iso")))
@shared.profile_option("The release: `rfe profiles` lists them.", required=True)
def fetch(kind: str, profile: str) -> None:
    """Fetch the guest image or the boot ISO of a release, or say where to get it."""
    release = load(profile)
    with workbook.Progress(f"{install.download.KINDS[kind]} of {release.title}") as progress:
        path = install.download.fetch_media(release, kind, progress)
    print(path)


@click.command(cls=shared.Command, example="rfe kickstart-iso edge.ks boot.iso edge.iso")
@click.argument("kickstart", type=FILE)
@click.argument("iso", type=FILE)
@click.argument("target", type=FILE)
@shared.profile_option("The release whose installer reads the kickstart.", default="sandbox")
def kickstart_iso(kickstart: Path, iso: Path, target: Path, profile: str) -> None:
    """Put KICKSTART, once checked, into TARGET, a copy of the boot ISO."""
    install.kickstart.validate(
        shared.read_text(kickstart, KickstartError), load(profile).kickstart.version
    )
    print(install.mkksiso.with_kickstart(iso, kickstart, target))
