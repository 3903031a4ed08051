"""What the groups of commands of `rfe` share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from rfe_helpers.lab.lab import DEFAULT, default_directory

Handler = Callable[[argparse.Namespace], int]


def add_group(commands: Any, name: str, text: str) -> Any:
    """A command with commands of its own; returns what they are added to."""
    return commands.add_parser(name, help=text, description=text).add_subparsers(
        required=True, metavar="COMMAND"
    )


def add_command(
    commands: Any, name: str, handler: Handler, text: str, *, as_json: bool = False
) -> Any:
    """A command that `handler` carries out; with the option `--json` if `as_json`."""
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(handler=handler)
    if as_json:
        command.add_argument("--json", action="store_true", help="print JSON")
    return command


def lab_option(command: argparse.ArgumentParser) -> None:
    """The option --lab."""
    command.add_argument(
        "--lab",
        default=default_directory(),
        metavar="DIR",
        help=f"the lab directory (RFE_LAB, or {DEFAULT})",
    )


def print_json(value: object) -> None:
    """A value as indented JSON; what JSON has no type for as text."""
    print(json.dumps(value, indent=2, default=str))
