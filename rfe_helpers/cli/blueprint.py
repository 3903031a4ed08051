"""`rfe blueprint`: blueprints to begin with, and what goes wrong with one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rfe_helpers.cli.parts import add_command, add_group, print_json
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
    from rfe_helpers.build import templates, to_toml
    from rfe_helpers.fleet import description
    from rfe_helpers.lab import profile

    release = profile.load(arguments.profile)
    is_demo = arguments.name == "demo"
    text = to_toml(description.demo(release)) if is_demo else templates.text(arguments.name)
    print(text, end="")
    return 0


def lint(arguments: argparse.Namespace) -> int:
    """Status 0 if there is nothing to say, 1 otherwise."""
    from dataclasses import asdict

    from rfe_helpers.build.blueprint import parse_toml
    from rfe_helpers.build.linter import lint
    from rfe_helpers.lab import profile

    try:
        blueprint = parse_toml(arguments.file.read_bytes())
    except OSError as error:
        raise BlueprintError(f"cannot read {arguments.file}: {error.strerror}") from None
    findings = lint(blueprint, profile.load(arguments.profile), arguments.type)
    if arguments.json:
        print_json([asdict(finding) for finding in findings])
    else:
        print("\n".join(map(str, findings)) or f"{arguments.file}: nothing to say")
    return int(bool(findings))
