"""The command lines: `rfe` as a program, and what click knows of its commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence

import click

RFE = [sys.executable, "-c", "import sys; from rfe_helpers.cli.main import main; sys.exit(main())"]


def rfe(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `rfe` to its end, as a process of its own."""
    return subprocess.run([*RFE, *arguments], capture_output=True, text=True, timeout=120)


def parse(line: click.Command, words: Sequence[str]) -> click.Context:
    """Parse words down to their command, which is not run. Raises click.UsageError."""
    context = click.Context(line)
    rest = list(words)
    while isinstance(line, click.Group) and rest:
        name, command, rest = line.resolve_command(context, rest)
        assert command is not None
        line, context = command, click.Context(command, context, info_name=name)
    return line.make_context(context.info_name, rest, parent=context.parent)


def commands(
    line: click.Command, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of a command line, groups too, with the words that lead to it."""
    yield words, line
    if isinstance(line, click.Group):
        context = click.Context(line)
        for name in line.list_commands(context):
            command = line.get_command(context, name)
            assert command is not None
            yield from commands(command, (*words, name))
