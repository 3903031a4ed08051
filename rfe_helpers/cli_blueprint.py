"""`rfe blueprint`: blueprints to begin with, and what goes wrong with one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rfe_helpers.cli_parts import add_command, add_group, print_json
from rfe_helpers.errors import BlueprintError


def add_commands(commands: Any) -> None:
    """`rfe blueprint` and its commands."""
    group = add_group(commands, "blueprint", "what Image Builder is asked to build")
    show = add_command(group, "template", template, "print a blueprint to begin with, TOML")
    show.add_argument("name", metavar="NAME", help="edge, installer or demo")
    check = add_command(group, "lint", lint, "say what goes wrong with a blueprint", as_json=True)
    check.add_argument("file", type=Path, metavar="FILE", help="TOML")
    check.add_argument("--type", default="", metavar="TYPE", help="image type (the edge commit)")
    for command in (show, check):
        command.add_argument("--profile", default="sandbox", help="the release (%(default)s)")


def template(arguments: argparse.Namespace) -> int:
    from rfe_helpers import blueprint_templates, profile

    print(blueprint_templates.text(arguments.name, profile.load(arguments.profile)), end="")
    return 0


def lint(arguments: argparse.Namespace) -> int:
    """Status 0 if there is nothing to say, 1 otherwise."""
    from dataclasses import asdict

    from rfe_helpers import blueprint, blueprint_lint, profile

    try:
        found = blueprint.parse_toml(arguments.file.read_bytes())
    except OSError as error:
        raise BlueprintError(f"cannot read {arguments.file}: {error.strerror}") from None
    findings = blueprint_lint.lint(found, profile.load(arguments.profile), arguments.type)
    if arguments.json:
        print_json([asdict(finding) for finding in findings])
    else:
        print("\n".join(map(str, findings)) or f"{arguments.file}: nothing to say")
    return int(bool(findings))
