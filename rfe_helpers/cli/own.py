"""`rfe new` and `rfe check`: notebooks of the user's own, and the rules that they keep."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from rfe_helpers.cli import shared
from rfe_helpers.cli.notebooks import complete_notebook
from rfe_helpers.lab.lab import Lab


@click.command(cls=shared.Command, example="rfe new our-image")
@click.argument("name")
@shared.lab_option
def new(name: str, directory: str) -> None:
    """Make a notebook of your own, with parameters, a check and an exercise.

    NAME becomes one of the lab's notebooks, which JupyterLab shows; or it is a path.
    """
    from rfe_helpers.workbook import own

    lab = Lab(directory)
    path = own.create(lab, name)
    print(path)
    notebook = shlex.quote(str(path))
    print(f"    {lab.command(f'run {notebook}')}\n    rfe check {notebook}")


@click.command(cls=shared.Command, example="rfe check 20")
@click.argument(
    "notebooks", nargs=-1, required=True, metavar="NOTEBOOK...", shell_complete=complete_notebook
)
@shared.json_option
@shared.lab_option
def check(notebooks: tuple[str, ...], as_json: bool, directory: str) -> int:
    """Hold notebooks to the rules of the workbook, which CONTRIBUTING.md has.

    A NOTEBOOK is 20, 20-build-a-commit, one that `rfe new` made, or a path. The exit status is 1
    if one breaks a rule.
    """
    from rfe_helpers.workbook import rules

    paths = [_path(name, shared.own_notebooks(directory)) for name in notebooks]
    broken = {str(path): rules.violations(path) for path in paths}
    if as_json:
        shared.print_json(broken)
    else:
        for name, violations in broken.items():
            for violation in violations:
                shared.print_inert(f"✘ {name}, {violation}", sys.stdout)
            if not violations:
                print(f"✔ {name}")
    return int(any(broken.values()))


def _path(name: str, own: Path) -> Path:
    from rfe_helpers.workbook import headless

    path = Path(name).expanduser()
    if "/" in name or (path.suffix and path.exists()):
        return path
    return headless.find_notebooks([name], own)[0]
