"""What the command lines share: how a run ends, what a help page looks like, and common options."""

from __future__ import annotations

import functools
import importlib
import json
import os
import secrets
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click
from click.shell_completion import CompletionItem, shell_complete

from rfe_helpers.errors import BlueprintError, InputError, LabError, RfeError

if TYPE_CHECKING:
    from rfe_helpers.build import Blueprint, Client
    from rfe_helpers.lab.lab import Lab

# Characters; blueprints and kickstarts are far shorter.
LONGEST_TEXT = 10_000_000
# For the command at the top of a line; those below inherit them.
SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


def run_line(line: click.Command, name: str, argv: Sequence[str] | None) -> int:
    """Run one command of the command line `name` and return its exit status.

    Errors are printed once, on stderr. Raises SystemExit(2) for wrong usage.
    """
    variable = f"_{name.upper()}_COMPLETE"
    try:
        if instruction := os.environ.get(variable):
            return shell_complete(line, {}, name, variable, instruction)
        with line.make_context(name, list(sys.argv[1:] if argv is None else argv)) as context:
            status: int = line.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:  # --help and --version
        return end.exit_code
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, click.Abort):  # Abort: the end of the input at a question
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has had enough; Python must not flush again on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RfeError, OSError) as error:
        print_inert(f"{name}: {_explained(error)}", sys.stderr)
        return 1
    return status


def _explained(error: RfeError | OSError) -> str:
    """An error as a person reads it, with the directory if a disk is full."""
    if isinstance(error, RfeError):
        return str(error)
    from rfe_helpers.core import files

    if files.is_full(error):
        return str(files.disk_full([Path(error.filename or ".")]))
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


class Command(click.Command):
    """A command with an example in its help; its callback returns the exit status, None for 0."""

    def __init__(self, *args: Any, example: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_example(formatter, self.example)
        super().format_epilog(ctx, formatter)

    def invoke(self, ctx: click.Context) -> int:
        from rfe_helpers.core import signals

        with signals.ending_in_order():
            return super().invoke(ctx) or 0


def _write_example(formatter: click.HelpFormatter, example: str) -> None:
    with formatter.section("Example"):
        formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class Group(click.Group):
    """Commands in the order in which they are defined; its help has the example of the first.

    `lazy` are those that are imported when they are used: name -> (where in this package, what
    it does in one line).
    """

    command_class = Command
    group_class = type

    def __init__(
        self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy:
            module, _, attribute = self.lazy[cmd_name][0].partition(".")
            loaded = importlib.import_module(f"rfe_helpers.cli.{module}")
            return cast(click.Command, getattr(loaded, attribute))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self.lazy:
            super().format_commands(ctx, formatter)
            return
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.lazy.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        first = next(iter(self.commands.values()), None)
        example = getattr(first, "example", f"{ctx.command_path} {next(iter(self.lazy), '')}")
        _write_example(formatter, example)
        super().format_epilog(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if not self.lazy:
            return super().shell_complete(ctx, incomplete)
        names = [name for name in self.lazy if name.startswith(incomplete)]
        items = [CompletionItem(name, help=self.lazy[name][1]) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)


def parsed(name: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of option, shown as `name`, that `read` reads; its InputError is wrong usage."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except InputError as error:
            remedy = f"; {error.remedy}" if error.remedy else ""
            raise click.BadParameter(error.message + remedy) from None

    convert.__name__ = name
    return convert


def with_options(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Options that several commands have."""
    return lambda command: functools.reduce(lambda built, add: add(built), options[::-1], command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _named(context: click.Context, option: click.Parameter, directory: str) -> str:
    """An empty name would be that of the current directory."""
    if not directory.strip():
        raise click.BadParameter("it is empty; for the current directory write .")
    return directory


lab_option = click.option(
    "--lab",
    "directory",
    callback=_named,
    envvar="RFE_LAB",
    default="~/rfe-lab",
    metavar="DIR",
    show_envvar=True,
    help="The lab directory.",
)


def completing(names: Callable[[], Iterable[str]]) -> Callable[..., list[str]]:
    """What the shell offers for an argument or option: names, asked for when they are needed."""
    return lambda ctx, param, incomplete: [n for n in names() if n.startswith(incomplete)]


def profile_names() -> list[str]:
    from rfe_helpers.lab import profile

    return profile.names()


def profile_option(help: str = "The release.", **settings: Any) -> Callable[..., Any]:
    """The option --profile; the sandbox is its default unless `settings` say otherwise."""
    settings = settings or {"default": "sandbox"}
    return click.option(
        "--profile", metavar="NAME", shell_complete=completing(profile_names), help=help, **settings
    )


def existing_lab(directory: str) -> Lab:
    """The lab in a directory; a lab is not made by looking at it or by removing it."""
    from rfe_helpers.lab.lab import Lab

    path = Path(directory).expanduser()
    if not any((path / name).exists() for name in ("lab.json", "lab.lock")):
        raise LabError(
            f"there is no lab in {path}", remedy="name one with --lab, or make one with `rfe run`"
        )
    return Lab(path)


def own_notebooks(directory: str) -> Path:
    """Where `rfe new` puts notebooks of a lab, which need not be there yet."""
    return Path(directory).expanduser() / "notebooks"


def may_delete(inventory: str) -> bool:
    """Show what would be deleted, and ask. Raises InputError where nobody can answer."""
    print(inventory)
    return confirmed("Delete all of it?", "nothing was deleted")


def confirmed(question: str, refusal: str) -> bool:
    """Ask on stderr; says `refusal` there after a no. Raises InputError where nobody can answer."""
    if not sys.stdin.isatty():
        raise InputError(refusal, remedy="use --yes where nobody can answer")
    if click.confirm(question, err=True):
        return True
    print(refusal, file=sys.stderr)
    return False


def builder(directory: str) -> Client:
    """The Image Builder of the lab in a directory."""
    from rfe_helpers import build

    return build.connect(existing_lab(directory))


def read_text(path: Path, error: type[RfeError] = InputError) -> str:
    """The text of a file, raising `error` if it cannot be read or is longer than LONGEST_TEXT."""
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            text = file.read(LONGEST_TEXT + 1)
    except OSError as problem:
        raise error(f"cannot read {path}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise error(f"cannot read {path}: it is not text") from None
    if "\0" in text:
        raise error(f"cannot read {path}: it is not text")
    if len(text) > LONGEST_TEXT:
        raise error(f"cannot read {path}: it is longer than {LONGEST_TEXT:,} characters")
    return text


def read_blueprint(file: Path) -> Blueprint:
    """The blueprint in a file. Raises BlueprintError, which names the file."""
    from rfe_helpers import build

    text = read_text(file, BlueprintError)
    try:
        return build.parse_toml(text)
    except BlueprintError as error:
        remedy = f"`rfe blueprint lint {shlex.quote(str(file))}` lists everything that is wrong"
        raise BlueprintError(f"{file}: {error.message}", remedy=remedy) from None


def in_github_actions() -> bool:
    """Whether this process is part of a job of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def append_to_job_summary(render: Callable[[int], str]) -> None:
    """In GitHub Actions, put Markdown on the page of the job. That it cannot be written does not
    change how a command ends."""
    if in_github_actions():
        from rfe_helpers.workbook import github

        try:
            github.append_summary(render)
        except OSError as error:
            print(f"rfe: no summary of the job: {error}", file=sys.stderr)


def print_inert(text: str, stream: TextIO) -> None:
    """Print a text of others, such as the message of an error in a notebook, which GitHub Actions
    must not obey. Commands in it, which it would find at the beginning of lines (::) and within
    them (##[), are stopped by a token that nobody can know."""
    if in_github_actions() and ("::" in text or "##[" in text):
        token = secrets.token_hex(16)
        text = f"::stop-commands::{token}\n{text}\n::{token}::"
    print(text, file=stream, flush=True)


def print_json(value: object) -> None:
    """A value as indented JSON: structs, dataclasses and mappings as objects, other things as
    text."""
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> object:
    import msgspec

    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, msgspec.Struct):  # by our names, not by those of the API
        return msgspec.structs.asdict(value)
    return str(value)


def print_result(value: object, text: str, *, as_json: bool) -> None:
    """Print a value as JSON, or what it says to people."""
    if as_json:
        print_json(value)
    else:
        print(text)


def print_lines(values: Sequence[object], *, as_json: bool) -> None:
    """Print values one per line, or as JSON."""
    print_result(values, "\n".join(map(str, values)), as_json=as_json)


def print_table(columns: Sequence[str], rows: Sequence[object], *, as_json: bool) -> None:
    """Print dataclasses, some of their fields as a table, or all as JSON."""
    from rfe_helpers.workbook.show import Table

    values = [[getattr(row, column) for column in columns] for row in rows]
    print_result(rows, str(Table(columns, values)), as_json=as_json)


def facts_text(facts: Mapping[str, object]) -> str:
    """Names and values, a line each."""
    width = max(map(len, facts)) + 2
    return "\n".join(
        f"{name + ':':<{width}} {'none' if value in (None, '') else value}"
        for name, value in facts.items()
    )
