"""`rfe sandbox` and `rfe cache`: the sandbox's Image Builder, and all that it needs offline."""

from __future__ import annotations

import click

from rfe_helpers import build, workbook
from rfe_helpers.cli import shared
from rfe_helpers.core.units import size
from rfe_helpers.lab.lab import Lab

# What the notebooks and their exercises put into blueprints.
WORKBOOK_PACKAGES = ("tmux", "jq", "htop", "tree", "podman", "nftables")


@click.group("sandbox", cls=shared.Group)
def group() -> None:
    """Start, stop and look at the sandbox's Image Builder."""


@group.command(example="rfe sandbox start")
@shared.lab_option
def start(directory: str) -> None:
    """Start the service in the background, unless it is running."""
    lab = Lab(directory)
    build.connect(lab, "sandbox")
    print(build.status(lab))


@group.command(example="rfe sandbox stop")
@shared.lab_option
def stop(directory: str) -> None:
    """Stop the service; what it has built stays."""
    build.stop(shared.existing_lab(directory))
    print("stopped")


@group.command(example="rfe sandbox status")
@shared.lab_option
def status(directory: str) -> None:
    """Say whether the service is running, and where its socket is."""
    print(build.status(shared.existing_lab(directory)))


@click.command(cls=shared.Command, example="rfe cache tmux jq htop nginx")
@click.argument("packages", nargs=-1, metavar="[PACKAGE]...")
def cache(packages: tuple[str, ...]) -> None:
    """Fetch all that the sandbox needs, to work offline.

    Name the packages that your blueprints will ask for. Without any, those of the notebooks are
    fetched: tmux, jq, htop, tree, podman and nftables.
    """
    with workbook.Progress("Filling the cache") as progress:
        directory = build.fill_cache(packages or WORKBOOK_PACKAGES, progress)
    total = sum(path.stat().st_size for path in directory.iterdir())
    print(f"{size(total)} of packages in {directory}: ", end="")
    print("composes and installations need no network now")
