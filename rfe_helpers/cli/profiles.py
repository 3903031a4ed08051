"""`rfe profiles`: the releases that the workbook knows, and its facts about one."""

from __future__ import annotations

import argparse
from typing import Any

from rfe_helpers.cli.parts import add_command, print_json


def add_commands(commands: Any) -> None:
    """`rfe profiles` and its argument."""
    shown = add_command(
        commands, "profiles", profiles, "the releases, or all that is known of one", as_json=True
    )
    shown.add_argument("name", nargs="?", metavar="NAME", help="of a profile, such as rhel-9.4")


def profiles(arguments: argparse.Namespace) -> int:
    from msgspec import to_builtins

    from rfe_helpers.lab import profile

    if arguments.name:
        return _show(to_builtins(profile.load(arguments.name)), as_json=arguments.json)
    found = [profile.load(name) for name in profile.names()]
    if arguments.json:
        print_json(to_builtins(found))
        return 0
    width = max(len(each.name) for each in found)
    for each in found:
        note = f", no edge images: `rfe profiles {each.name}` says more" if each.instead else ""
        print(f"{each.name:<{width}}  {each.title}{note}")
    return 0


def _show(facts: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print_json(facts)
        return 0
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"\n[{key}]")
            for name, fact in value.items():
                _print(name, fact)
        elif value:
            _print(key, value)
    return 0


def _print(name: str, fact: object) -> None:
    if isinstance(fact, tuple) and fact:
        print(f"{name}:", *fact, sep="\n    ")
    elif not isinstance(fact, tuple):
        print(f"{name}: {'none' if fact == '' else fact}")
