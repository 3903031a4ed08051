"""`rfe imagemode`: a blueprint as a Containerfile, and the way of machines into image mode."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rfe_helpers import imagemode
from rfe_helpers.cli import shared
from rfe_helpers.lab.profile import load


@click.group("imagemode", cls=shared.Group)
def group() -> None:
    """Go on to image mode: systems that are container images, updated by bootc."""


@group.command(example="rfe imagemode containerfile edge.toml --profile rhel-9.6 --output image")
@click.argument("blueprint", type=click.Path(path_type=Path))
@click.option("--base", default="", metavar="IMAGE", help="By default that of the release.")
@click.option("--output", type=click.Path(path_type=Path), help="A directory for podman build.")
@shared.profile_option()
def containerfile(blueprint: Path, base: str, output: Path | None, profile: str) -> None:
    """Print the blueprint in BLUEPRINT, a file, as a Containerfile.

    With --output it is written there, with the files that it copies. What has no counterpart, or
    belongs elsewhere, is said on stderr.
    """
    document = shared.read_blueprint(blueprint)
    translation = imagemode.translate(document, load(profile), base=base)
    if output:
        imagemode.write(translation, output)
        number = len(translation.files)
        print(f"{output}: Containerfile and {number} other file{'s' if number != 1 else ''}")
    else:
        print(translation.containerfile, end="")
    for remark in translation.remarks:
        print(remark, file=sys.stderr)
    if translation.files and not output:
        text = "its COPY needs files beside it: --output DIRECTORY writes them as well"
        print(text, file=sys.stderr)


@group.command(example="rfe imagemode plan edge.toml --profile rhel-9.6")
@click.argument("blueprint", type=click.Path(path_type=Path), required=False)
@shared.profile_option()
@shared.json_option
def plan(blueprint: Path | None, profile: str, as_json: bool) -> None:
    """Say what to do with the machines of a release, step by step.

    BLUEPRINT is the file with the blueprint of their commit.
    """
    document = shared.read_blueprint(blueprint) if blueprint else None
    steps = imagemode.plan(document, load(profile), file=str(blueprint or ""))
    text = "\n\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    shared.print_result(steps, text, as_json=as_json)
