"""The command lines as click has them: what there is, and whether words are one of its commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click


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
