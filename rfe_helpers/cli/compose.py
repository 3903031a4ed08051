"""`rfe compose`: the composes of a lab's Image Builder."""

from __future__ import annotations

from pathlib import Path

import click

from rfe_helpers import workbook
from rfe_helpers.cli import shared


@click.group("compose", cls=shared.Group)
def group() -> None:
    """Look at composes, fetch what they made, cancel and delete them.

    ID is that of a compose, as `rfe compose list` shows it.
    """


@group.command("list", example="rfe compose list")
@shared.json_option
@shared.lab_option
def list_composes(as_json: bool, directory: str) -> None:
    """List the composes that wait, run or have ended."""
    composes = shared.builder(directory).composes()
    columns = ("id", "status", "blueprint", "version", "type", "created")
    shared.print_table(columns, composes, as_json=as_json)


@group.command(example="rfe compose show 30000000-0000-0000-0000-000000000002")
@click.argument("compose", metavar="ID")
@shared.json_option
@shared.lab_option
def show(compose: str, as_json: bool, directory: str) -> None:
    """Show the blueprint and the packages of a compose."""
    info = shared.builder(directory).compose_info(compose)
    head = f"{info.blueprint.name} {info.blueprint.version}, {info.type}, {info.status}"
    text = "\n".join([head, *map(str, info.packages)])
    shared.print_result(info, text, as_json=as_json)


@group.command(example="rfe compose log 30000000-0000-0000-0000-000000000002")
@click.argument("compose", metavar="ID")
@shared.lab_option
def log(compose: str, directory: str) -> None:
    """Print the log of a compose."""
    print(shared.builder(directory).log(compose), end="")


@group.command(example="rfe compose cancel 30000000-0000-0000-0000-000000000002")
@click.argument("compose", metavar="ID")
@shared.lab_option
def cancel(compose: str, directory: str) -> None:
    """End a compose that waits or runs."""
    shared.builder(directory).cancel(compose)
    print(f"canceled {compose}")


@group.command(example="rfe compose delete 30000000-0000-0000-0000-000000000002")
@click.argument("composes", metavar="ID...", nargs=-1, required=True)
@shared.lab_option
def delete(composes: tuple[str, ...], directory: str) -> None:
    """Delete composes that have ended, with what they made."""
    shared.builder(directory).delete_compose(*composes)
    print(f"deleted {' '.join(composes)}")


@group.command(example="rfe compose download 30000000-0000-0000-0000-000000000002 --logs")
@click.argument("compose", metavar="ID")
@click.option("--results", "part", flag_value="results", help="Artifact, logs and manifest, a tar.")
@click.option("--logs", "part", flag_value="logs", help="Only the logs, a tar.")
@click.option("--metadata", "part", flag_value="metadata", help="Only the manifest, a tar.")
@click.option("--to", type=click.Path(path_type=Path), default=".", metavar="DIR", help="Where to.")
@shared.lab_option
def download(compose: str, part: str | None, to: Path, directory: str) -> None:
    """Fetch what a compose made, such as its commit.tar."""
    client = shared.builder(directory)
    parts = {
        "results": client.download_results,
        "logs": client.download_logs,
        "metadata": client.download_metadata,
    }
    fetch = client.download if part is None else parts[part]
    with workbook.Progress(f"Downloading {part or 'artifact'}") as progress:
        path = fetch(compose, to, progress)
    print(path)
