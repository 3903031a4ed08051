"""`rfe blueprint`: blueprints to begin with, what goes wrong with one, and those of a lab."""

from __future__ import annotations

from pathlib import Path

import click

from rfe_helpers import build
from rfe_helpers.build import templates
from rfe_helpers.cli import shared
from rfe_helpers.errors import BlueprintError
from rfe_helpers.fleet import description
from rfe_helpers.lab.profile import load


@click.group("blueprint", cls=shared.Group)
def group() -> None:
    """Print blueprints to begin with, check them, and store them in a lab's Image Builder.

    NAME is that of a blueprint in Image Builder, as `rfe blueprint list` shows it.
    """


@group.command(example="rfe blueprint template edge --profile rhel-9.4")
@click.argument("name", shell_complete=shared.completing(lambda: [*templates.NAMES, "demo"]))
@shared.profile_option()
def template(name: str, profile: str) -> None:
    """Print a blueprint to begin with, as TOML. NAME is edge, installer or demo."""
    release = load(profile)
    demo = name == "demo"
    text = build.to_toml(description.demo(release)) if demo else templates.text(name)
    print(text, end="")


@group.command(example="rfe blueprint lint edge.toml --profile rhel-9.4")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--type", "image_type", help="Image type; by default the edge commit.")
@shared.profile_option()
@shared.json_option
def lint(file: Path, image_type: str | None, profile: str, as_json: bool) -> int:
    """Say what goes wrong with the blueprint in FILE.

    The exit status is 0 if there is nothing to say, 1 otherwise.
    """
    findings = build.lint(shared.read_text(file, BlueprintError), load(profile), image_type or "")
    lines = [f"{_place(file, finding)}: {finding}" for finding in findings]
    text = "\n".join(lines) or f"{file}: nothing to say"
    shared.print_result(findings, text, as_json=as_json)
    return int(bool(findings))


def _place(file: Path, finding: build.Finding) -> str:
    """FILE:LINE:COLUMN, as editors and CI systems link it; what is not known is left out."""
    return ":".join(str(part) for part in (file, finding.line, finding.column) if part)


name_argument = click.argument("name")
workspace_option = click.option("--workspace", is_flag=True, help="Only the uncommitted copy.")


@group.command("list", example="rfe blueprint list")
@shared.json_option
@shared.lab_option
def list_blueprints(as_json: bool, directory: str) -> None:
    """List the names of all blueprints."""
    names = shared.builder(directory).blueprints()
    shared.print_lines(names, as_json=as_json)


@group.command(example="rfe blueprint show edge")
@name_argument
@click.option("--commit", help="As it was at this commit of its history.")
@shared.json_option
@shared.lab_option
def show(name: str, commit: str | None, as_json: bool, directory: str) -> None:
    """Print a blueprint as TOML."""
    client = shared.builder(directory)
    _print(client.blueprint_at(name, commit) if commit else client.blueprint(name), as_json)


def _print(blueprint: build.Blueprint, as_json: bool) -> None:
    text = build.to_toml(blueprint).rstrip("\n")
    shared.print_result(blueprint.to_json(), text, as_json=as_json)


@group.command(example="rfe blueprint push edge.toml")
@click.argument("file", type=click.Path(path_type=Path))
@workspace_option
@shared.lab_option
def push(file: Path, workspace: bool, directory: str) -> None:
    """Store the blueprint in FILE.

    depsolve uses the uncommitted copy in the workspace, if there is one; composes do not.
    """
    blueprint = shared.read_blueprint(file)
    client = shared.builder(directory)
    if workspace:
        client.push_to_workspace(blueprint)
        print(f"{blueprint.name} is in the workspace")
    else:
        stored = client.push(blueprint)
        print(f"{stored.name} {stored.version} is stored")


@group.command(example="rfe blueprint history edge")
@name_argument
@shared.json_option
@shared.lab_option
def history(name: str, as_json: bool, directory: str) -> None:
    """List the changes to a blueprint, newest first."""
    changes = shared.builder(directory).changes(name)
    columns = ("commit", "timestamp", "revision", "message")
    shared.print_table(columns, changes, as_json=as_json)


@group.command(example="rfe blueprint diff edge")
@name_argument
@shared.json_option
@shared.lab_option
def diff(name: str, as_json: bool, directory: str) -> None:
    """Show how the uncommitted copy differs.

    The packages are compared with those of the newest change: - before, + in the workspace.
    """
    pairs = shared.builder(directory).workspace_diff(name)
    packages = [(sign, spec) for pair in pairs for sign, spec in zip("-+", pair, strict=True)]
    lines = [f"{sign} {spec}" for sign, spec in packages if spec is not None]
    shared.print_result(pairs, "\n".join(lines), as_json=as_json)


@group.command(example="rfe blueprint undo edge 5eda7e5")
@name_argument
@click.argument("commit")
@shared.lab_option
def undo(name: str, commit: str, directory: str) -> None:
    """Store a blueprint again as it was at COMMIT."""
    shared.builder(directory).undo(name, commit)
    print(f"{name} is again as it was at {commit}")


@group.command(example="rfe blueprint delete edge")
@name_argument
@workspace_option
@shared.lab_option
def delete(name: str, workspace: bool, directory: str) -> None:
    """Delete a blueprint; its history stays."""
    client = shared.builder(directory)
    (client.delete_from_workspace if workspace else client.delete_blueprint)(name)
    print(f"deleted {name}{' from the workspace' if workspace else ''}")


@group.command(example="rfe blueprint depsolve edge")
@name_argument
@shared.json_option
@shared.lab_option
def depsolve(name: str, as_json: bool, directory: str) -> None:
    """List all packages that a compose would install."""
    shared.print_lines(shared.builder(directory).depsolve(name), as_json=as_json)


@group.command(example="rfe blueprint freeze edge")
@name_argument
@shared.json_option
@shared.lab_option
def freeze(name: str, as_json: bool, directory: str) -> None:
    """Print a blueprint with exact versions, as TOML.

    They are those that a compose would install now.
    """
    _print(shared.builder(directory).freeze(name), as_json)


@group.command(example="rfe blueprint tag edge")
@name_argument
@shared.lab_option
def tag(name: str, directory: str) -> None:
    """Give the newest change the next revision number."""
    shared.builder(directory).tag(name)
    print(f"tagged {name}")
