"""`rfe lab`: what a lab holds, JupyterLab over it, and going back."""

from __future__ import annotations

from pathlib import Path

import click

from rfe_helpers import serve
from rfe_helpers.cli import shared
from rfe_helpers.cli.notebooks import complete_notebook
from rfe_helpers.lab.lab import Lab


@click.group("lab", cls=shared.Group)
def group() -> None:
    """Look at a lab: what the notebooks have made and left running."""


@group.command(example="rfe lab show")
@shared.json_option
@shared.lab_option
def show(as_json: bool, directory: str) -> None:
    """Show steps, processes, containers, ports and disk space."""
    lab = shared.existing_lab(directory)
    state = lab.state
    shown = {
        "directory": str(lab.directory),
        "profile": lab.profile.name,
        "steps": {name: step["at"] for name, step in state["steps"].items()},
        "processes": {name: process.pid for name, process in lab.processes().items()},
        "containers": state["containers"],
        "ports": state["ports"],
        "bytes": _bytes_in(lab.directory),
    }
    if as_json:
        shared.print_json({**shown, "results": state["steps"]})
        return
    print(f"{shown['directory']}: profile {shown['profile']}, {shown['bytes'] / 1e6:.0f} MB")
    for title in ("steps", "processes", "ports"):
        values = shown[title]
        print(f"{title}: " + (", ".join(f"{k} ({v})" for k, v in values.items()) or "none"))
    print(f"containers: {', '.join(state['containers']) or 'none'}")


def _bytes_in(directory: Path) -> int:
    """What a directory takes on disk; holes in disk images do not count."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


@group.command("open", example="rfe lab open --lab ~/lab-anna")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@shared.lab_option
def open_lab(no_browser: bool, directory: str) -> None:
    """Open the notebooks in JupyterLab."""
    from rfe_helpers.workbook import jupyter

    jupyter.open_lab(Lab(directory), browser=not no_browser)


@group.command(example="rfe lab reset 50")
@click.argument("notebook", shell_complete=complete_notebook)
@shared.lab_option
def reset(notebook: str, directory: str) -> None:
    """Go back to the state before NOTEBOOK, such as 50."""
    from rfe_helpers.workbook import solve

    done = solve.reset(shared.existing_lab(directory), notebook)
    print("\n".join(done) or "nothing to do: the lab has not come that far")


@group.command(example="rfe lab clean")
@shared.lab_option
def clean(directory: str) -> None:
    """End everything that runs for a lab and delete the lab."""
    lab = shared.existing_lab(directory)
    for process in lab.clean(serve.remove_container):
        print(f"ended {process}")
    print(f"removed {lab.directory}")
