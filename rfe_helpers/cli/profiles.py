"""`rfe profiles`: the releases that the workbook knows, and its facts about one."""

from __future__ import annotations

from typing import Any

import click
from msgspec import to_builtins

from rfe_helpers.cli import shared
from rfe_helpers.lab.profile import load, names


@click.command(cls=shared.Command, example="rfe profiles rhel-9.4")
@click.argument("name", required=False, shell_complete=shared.completing(names))
@shared.json_option
def profiles(name: str | None, as_json: bool) -> None:
    """List the releases, or show all that is known of one, such as rhel-9.4."""
    releases = [load(each) for each in ([name] if name else names())]
    if as_json:
        shared.print_json(to_builtins(releases[0] if name else releases))
    elif name:
        _show(to_builtins(releases[0]))
    else:
        width = max(len(release.name) for release in releases)
        for each in releases:
            note = f", no edge images: `rfe profiles {each.name}` says more" if each.instead else ""
            print(f"{each.name:<{width}}  {each.title}{note}")


def _show(facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"\n[{key}]")
            for name, fact in value.items():
                _print(name, fact)
        elif value:
            _print(key, value)


def _print(name: str, fact: object) -> None:
    if isinstance(fact, tuple) and fact:
        print(f"{name}:", *fact, sep="\n    ")
    elif not isinstance(fact, tuple):
        print(f"{name}: {'none' if fact == '' else fact}")
