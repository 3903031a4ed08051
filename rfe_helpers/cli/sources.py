"""`rfe sources`: the package repositories of a lab's Image Builder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rfe_helpers.build.answers import Source
from rfe_helpers.cli import shared

TYPES = ("yum-baseurl", "yum-metalink", "yum-mirrorlist")

FILE = click.Path(path_type=Path)


@click.group("sources", cls=shared.Group)
def group() -> None:
    """Look at the package repositories of Image Builder, and add or delete some."""


@group.command("list", example="rfe sources list")
@shared.json_option
@shared.lab_option
def list_sources(as_json: bool, directory: str) -> None:
    """List the repositories, those of the system too."""
    sources = shared.builder(directory).sources()
    shared.print_table(("id", "type", "url", "check_gpg", "system"), sources, as_json=as_json)


@group.command(example="rfe sources add extra http://10.0.2.2/extra --gpg-key extra.asc")
@click.argument("source", metavar="ID")
@click.argument("url")
@click.option("--name", default="", show_default=False, help="By default the ID.")
@click.option("--type", type=click.Choice(TYPES), default=TYPES[0], help="What URL leads to.")
@click.option("--gpg-key", "keys", type=FILE, multiple=True, help="May be repeated.")
@click.option("--distro", "distros", multiple=True, help="Only for this one; may be repeated.")
@click.option("--no-check-gpg", is_flag=True, help="Do not check signatures of packages.")
@click.option("--no-check-ssl", is_flag=True, help="Do not check the server's certificate.")
@shared.lab_option
def add(
    source: str,
    keys: tuple[Path, ...],
    no_check_gpg: bool,
    no_check_ssl: bool,
    directory: str,
    **fields: Any,
) -> None:
    """Add the repository ID, or change it.

    For the sandbox, URL is as in sources.list: "http://10.0.2.2/debian trixie main".
    """
    repository = Source(
        source,
        gpgkeys=tuple(map(shared.read_text, keys)),
        check_gpg=not no_check_gpg,
        check_ssl=not no_check_ssl,
        **fields,
    )
    shared.builder(directory).add_source(repository)
    print(f"added {source}")


@group.command(example="rfe sources delete extra")
@click.argument("source", metavar="ID")
@shared.lab_option
def delete(source: str, directory: str) -> None:
    """Delete a repository that was added."""
    shared.builder(directory).delete_source(source)
    print(f"deleted {source}")
