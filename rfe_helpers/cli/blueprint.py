"""`rfe blueprint`: blueprints to begin with, and what goes wrong with one."""

from __future__ import annotations

from pathlib import Path

import click

from rfe_helpers import build
from rfe_helpers.build import templates
from rfe_helpers.cli import shared
from rfe_helpers.errors import BlueprintError
from rfe_helpers.fleet import description
from rfe_helpers.lab.profile import load


@click.group("blueprint", cls=shared.Group)
def group() -> None:
    """Print blueprints to begin with, and check them."""


@group.command(example="rfe blueprint template edge --profile rhel-9.4")
@click.argument("name", shell_complete=shared.completing(lambda: [*templates.NAMES, "demo"]))
@shared.profile_option()
def template(name: str, profile: str) -> None:
    """Print a blueprint to begin with, as TOML. NAME is edge, installer or demo."""
    release = load(profile)
    demo = name == "demo"
    text = build.to_toml(description.demo(release)) if demo else templates.text(name)
    print(text, end="")


@group.command(example="rfe blueprint lint edge.toml --profile rhel-9.4")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--type", "image_type", default="", help="Image type; by default the edge commit.")
@shared.profile_option()
@shared.json_option
def lint(file: Path, image_type: str, profile: str, as_json: bool) -> int:
    """Say what goes wrong with the blueprint in FILE.

    The exit status is 0 if there is nothing to say, 1 otherwise.
    """
    blueprint = build.parse_toml(shared.read_text(file, BlueprintError))
    findings = build.lint(blueprint, load(profile), image_type)
    text = "\n".join(map(str, findings)) or f"{file}: nothing to say"
    shared.print_result(findings, text, as_json=as_json)
    return int(bool(findings))
