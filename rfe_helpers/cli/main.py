"""`rfe`, the command line. Exit status: 0 done, 1 it did not work, 2 wrong usage, 130 Ctrl-C or
SIGTERM.

Modules are imported by the command that needs them, so that quick commands are quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from rfe_helpers import __version__
from rfe_helpers.cli import blueprint, fetch, fleet, lab, media, profiles, prove
from rfe_helpers.cli.lab import existing_lab
from rfe_helpers.cli.parts import Handler, add_command, add_group, lab_option, print_json
from rfe_helpers.core import run
from rfe_helpers.errors import InputError, RfeError
from rfe_helpers.lab.lab import Lab


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors are printed once, on stderr."""
    arguments = parser().parse_args(argv)
    handler: Handler = arguments.handler
    try:
        with run.ending_in_order():
            status = handler(arguments)
        sys.stdout.flush()
    except RfeError as error:
        print(f"rfe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rfe: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has had enough; Python must not flush again on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def parser() -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="rfe", description="RHEL for Edge: build, inspect, serve, install, update, roll back."
    )
    top.add_argument("--version", action="version", version=f"rfe {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    add_command(
        commands,
        "doctor",
        doctor,
        "show what this machine has, lacks, and what mends it",
        as_json=True,
    )
    _run_grammar(commands)
    sandbox_commands = add_group(commands, "sandbox", "the sandbox Image Builder")
    for name, handler, text in (
        ("start", sandbox_start, "start it in the background, if it does not run already"),
        ("stop", sandbox_stop, "stop it; what it has built stays"),
        ("status", sandbox_status, "say whether it runs and where its socket is"),
    ):
        lab_option(add_command(sandbox_commands, name, handler, text))
    lab.add_commands(commands)
    _commit_grammar(commands)
    media.add_commands(commands)
    fleet.add_commands(commands)
    profiles.add_commands(commands)
    fetch.add_commands(commands)
    blueprint.add_commands(commands)
    prove.add_commands(commands)
    return top


def _run_grammar(commands: Any) -> None:
    grammar = add_command(
        commands, "run", run_notebooks, "run notebooks without a browser", as_json=True
    )
    grammar.add_argument(
        "notebooks",
        nargs="*",
        metavar="NOTEBOOK",
        help="20, 20-build-a-commit or a path (the short path: 00 to 60, and 90)",
    )
    grammar.add_argument("--all", action="store_true", help="every notebook, the long ones too")
    grammar.add_argument(
        "--profile", help="the release to work with (default: the lab's, or sandbox)"
    )
    grammar.add_argument(
        *("-p", "--parameter"),
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter in the notebooks that have it; may be repeated",
    )
    lab_option(grammar)


def _commit_grammar(commands: Any) -> None:
    source = "a commit.tar, a container.tar, a repository directory or the URL of one"
    group = add_group(commands, "commit", "look inside commits")
    for name, handler, text in (
        ("show", commit_show, "ref, id, parent, version, sizes"),
        ("packages", commit_packages, "the packages, one a line"),
        ("files", commit_files, "the files, with mode and size"),
    ):
        one = add_command(group, name, handler, text, as_json=True)
        one.add_argument("source", metavar="SOURCE", help=source)
        one.add_argument("--ref", help="which ref, where there are several")
    two = add_command(group, "diff", commit_diff, "what differs between two commits", as_json=True)
    two.add_argument("old", metavar="SOURCE", help=source)
    two.add_argument("new", metavar="SOURCE", help="the commit to compare with")


# doctor ---------------------------------------------------------------------------------------


def doctor(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rfe_helpers.workbook import doctor

    findings = doctor.examine()
    stops = any(finding.stops for finding in findings)
    command = doctor.install_command(findings)
    if arguments.json:
        print_json(
            {
                "ready": not stops,
                "install": command,
                "findings": [asdict(finding) for finding in findings],
            }
        )
        return int(stops)
    signs = {"ok": "✔", "warning": "!", "missing": "✘", "too old": "✘"}
    for finding in findings:
        word = "" if finding.status in ("ok", "warning") else f"{finding.status}: "
        print(f"{signs[finding.status]} {finding.name}: {word}{finding.detail}")
        if finding.remedy:
            print(f"    to do: {finding.remedy}")
    if command:
        print(f"\nAll missing packages at once: {command}")
    print("\nNot ready: see the lines with ✘." if stops else "\nReady.")
    return int(stops)


# run ------------------------------------------------------------------------------------------


def run_notebooks(arguments: argparse.Namespace) -> int:
    from rfe_helpers.workbook import headless

    if arguments.all and arguments.notebooks:
        raise InputError("--all and names of notebooks do not go together")
    notebooks = (
        headless.all_notebooks() if arguments.all else headless.find_notebooks(arguments.notebooks)
    )
    lab = Lab(arguments.lab, arguments.profile)
    stream = sys.stderr if arguments.json else sys.stdout
    summary = headless.run_notebooks(
        notebooks,
        lab,
        dict(arguments.parameter),
        lambda line: print(line, file=stream, flush=True),
    )
    if arguments.json:
        print_json(summary.to_json())
    for result in summary.notebooks:
        if result.failure is not None:
            print(f"rfe: {result.name}: {result.failure.message}", file=sys.stderr)
    print(f"{summary.status}: {summary.report}", file=stream)
    return {"passed": 0, "interrupted": 130}.get(summary.status, 1)


# sandbox --------------------------------------------------------------------------------------


def sandbox_start(arguments: argparse.Namespace) -> int:
    from rfe_helpers import build

    build.connect(Lab(arguments.lab), "sandbox")
    return sandbox_status(arguments)


def sandbox_stop(arguments: argparse.Namespace) -> int:
    from rfe_helpers import build

    lab = existing_lab(arguments.lab)
    build.stop(lab)
    print("stopped")
    return 0


def sandbox_status(arguments: argparse.Namespace) -> int:
    from rfe_helpers import build

    print(build.status(existing_lab(arguments.lab)))
    return 0


# commit ---------------------------------------------------------------------------------------


def commit_show(arguments: argparse.Namespace) -> int:
    from rfe_helpers.commit import commit

    shown = commit.open_commit(arguments.source, arguments.ref).to_dict()
    if arguments.json:
        print_json(shown)
        return 0
    for name, value in shown.items():
        if name != "compose":
            print(f"{name + ':':<11} {'none' if value in (None, '') else value}")
    return 0


def commit_packages(arguments: argparse.Namespace) -> int:
    from rfe_helpers.commit import commit

    packages = commit.open_commit(arguments.source, arguments.ref).packages()
    if arguments.json:
        print_json([vars(package) for package in packages])
    else:
        print("\n".join(map(str, packages)))
    return 0


def commit_files(arguments: argparse.Namespace) -> int:
    from rfe_helpers.commit import commit

    files = commit.open_commit(arguments.source, arguments.ref).files()
    if arguments.json:
        print_json([vars(file) for file in files])
    else:
        print("\n".join(f"{file.mode:06o} {file.size:>10} {file.path}" for file in files))
    return 0


def commit_diff(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rfe_helpers.commit import commit

    found = commit.diff(commit.open_commit(arguments.old), commit.open_commit(arguments.new))
    if arguments.json:
        print_json(asdict(found))
        return 0
    for sign, values in (("-", found.removed), ("+", found.added), ("~", found.changed)):
        for value in values:
            print(f"{sign} package {value}")
    if found.files is not None:
        listed = (("-", found.files.removed), ("+", found.files.added), ("~", found.files.modified))
        for sign, paths in listed:
            for path in paths:
                print(f"{sign} {path}")
    return 0
