"""`rfe commit`: look inside commits and compare them."""

from __future__ import annotations

import click

from rfe_helpers import commit
from rfe_helpers.cli import shared


@click.group("commit", cls=shared.Group)
def group() -> None:
    """Look inside commits and compare them.

    A SOURCE is a commit.tar, a container.tar, a repository directory or the URL of one.
    """


source_options = shared.with_options(
    click.argument("source"),
    click.option("--ref", help="Which ref, if there are several."),
    shared.json_option,
)


@group.command(example="rfe commit show 1f2e3d-commit.tar")
@source_options
def show(source: str, ref: str | None, as_json: bool) -> None:
    """Show ref, id, parent, version and sizes of SOURCE."""
    facts = commit.open_commit(source, ref).to_dict()
    text = shared.facts_text({name: value for name, value in facts.items() if name != "compose"})
    shared.print_result(facts, text, as_json=as_json)


@group.command(example="rfe commit packages http://10.0.2.2:8080/repo/")
@source_options
def packages(source: str, ref: str | None, as_json: bool) -> None:
    """List the packages in SOURCE, one per line."""
    packages = commit.open_commit(source, ref).packages()
    shared.print_lines(packages, as_json=as_json)


@group.command(example="rfe commit files 1f2e3d-commit.tar")
@source_options
def files(source: str, ref: str | None, as_json: bool) -> None:
    """List the files in SOURCE with mode and size."""
    files = commit.open_commit(source, ref).files()
    lines = (f"{file.mode:06o} {file.size:>10} {file.path}" for file in files)
    shared.print_result(files, "\n".join(lines), as_json=as_json)


@group.command(example="rfe commit diff 1f2e3d-commit.tar http://10.0.2.2:8080/repo/")
@click.argument("old")
@click.argument("new")
@shared.json_option
def diff(old: str, new: str, as_json: bool) -> None:
    """List the packages and files that differ between OLD and NEW."""
    difference = commit.diff(commit.open_commit(old), commit.open_commit(new))
    if as_json:
        shared.print_json(difference)
        return
    packages = (difference.removed, difference.added, difference.changed)
    for sign, values in zip("-+~", packages, strict=True):
        for value in values:
            print(f"{sign} package {value}")
    if difference.files is not None:
        files = (difference.files.removed, difference.files.added, difference.files.modified)
        for sign, paths in zip("-+~", files, strict=True):
            for path in paths:
                print(f"{sign} {path}")
