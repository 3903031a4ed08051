"""`rfe blueprint`: blueprints to begin with, and what goes wrong with one."""

from __future__ import annotations

from pathlib import Path

import click

from rfe_helpers import build
from rfe_helpers.build import templates
from rfe_helpers.cli.shared import (
    Group,
    completing,
    json_option,
    print_json,
    profile_option,
    read_text,
)
from rfe_helpers.errors import BlueprintError
from rfe_helpers.fleet import description
from rfe_helpers.lab.profile import load

TEMPLATES = (*templates.NAMES, "demo")


@click.group("blueprint", cls=Group)
def group() -> None:
    """Print blueprints to begin with, and check them."""


@group.command(example="rfe blueprint template edge --profile rhel-9.4")
@click.argument("name", shell_complete=completing(lambda: TEMPLATES))
@profile_option()
def template(name: str, profile: str) -> None:
    """Print a blueprint to begin with, as TOML. NAME is edge, installer or demo."""
    release = load(profile)
    demo = name == "demo"
    text = build.to_toml(description.demo(release)) if demo else templates.text(name)
    print(text, end="")


@group.command(example="rfe blueprint lint edge.toml --profile rhel-9.4")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--type",
    "image_type",
    default="",
    metavar="TYPE",
    help="The image type to be composed; by default the edge commit.",
)
@profile_option()
@json_option
def lint(file: Path, image_type: str, profile: str, as_json: bool) -> int:
    """Say what goes wrong with the blueprint in FILE.

    The exit status is 0 if there is nothing to say, 1 otherwise.
    """
    findings = build.lint(
        build.parse_toml(read_text(file, BlueprintError)), load(profile), image_type
    )
    if as_json:
        print_json(findings)
    else:
        print("\n".join(map(str, findings)) or f"{file}: nothing to say")
    return int(bool(findings))
