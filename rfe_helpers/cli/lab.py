"""`rfe lab`: what labs hold, JupyterLab over one, going back, and deleting it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from rfe_helpers import serve
from rfe_helpers.cli import shared
from rfe_helpers.cli.notebooks import complete_notebook
from rfe_helpers.core import journal
from rfe_helpers.core.network import LOOPBACK
from rfe_helpers.core.units import size
from rfe_helpers.errors import InputError
from rfe_helpers.lab import labs
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.lab.lab import NOTEBOOK_OF, Lab
from rfe_helpers.workbook import notebooks


@click.group("lab", cls=shared.Group)
def group() -> None:
    """Look at labs: what the notebooks have made and left running."""


@group.command("list", example="rfe lab list")
@shared.json_option
def list_labs(as_json: bool) -> None:
    """List your labs: how far they are, what runs, and their size; root sees those of all users.

    A deleted lab is listed as long as something still runs in its directory.
    """
    shown = [_facts(entry) for entry in labs.entries()]
    if as_json:
        shared.print_json(shown)
        return
    for lab in shown:
        print(f"{lab['directory']} ({lab['user']}): {_progress_of(lab)}")
        if lab["jupyterlab"]:
            print(f"    JupyterLab: {lab['jupyterlab']}, its token: `rfe lab open`")
        for name, pid in lab["processes"].items():
            print(f"    {name} is running (pid {pid})")
        if lab["orphans"]:
            pids = " ".join(map(str, lab["orphans"]))
            print(f"    the lab was deleted, but processes still run in it; end them: kill {pids}")
    if not shown:
        print("no labs: `rfe run` and `rfe lab open` make one")


def _facts(entry: labs.LabEntry) -> dict[str, Any]:
    """A lab as JSON has it; `step` is the last one by notebook."""
    state = entry.state
    port = state["ports"].get("jupyter") if "jupyter" in entry.processes else None
    return {
        "directory": str(entry.directory),
        "user": entry.user,
        "profile": state.get("profile"),
        "step": next(iter(_in_order(state.get("steps", {}))[::-1]), None),
        "jupyterlab": f"http://{LOOPBACK}:{port}" if port else None,
        "processes": entry.processes,
        "orphans": entry.orphans,
        "bytes": _bytes_in(entry.directory),
    }


def _progress_of(lab: dict[str, Any]) -> str:
    if lab["profile"] is None:
        return "deleted"
    step = lab["step"]
    done = f"notebook {NOTEBOOK_OF.get(step, '')} ({step})" if step else "no notebook yet"
    return f"profile {lab['profile']}, {done}, {size(lab['bytes'])}"


def _in_order(steps: dict[str, Any]) -> list[str]:
    """Names of steps in the order of their notebooks."""
    return sorted(steps, key=lambda step: (NOTEBOOK_OF.get(step, "99"), step))


@group.command(example="rfe lab show")
@shared.json_option
@shared.lab_option
def show(as_json: bool, directory: str) -> None:
    """Show steps, processes, containers, ports and disk space."""
    lab = shared.existing_lab(directory)
    state = lab.state
    steps = _in_order(state["steps"])
    shown: dict[str, Any] = {
        "directory": str(lab.directory),
        "profile": lab.profile.name,
        "steps": {name: state["steps"][name]["at"] for name in steps},
        "processes": {name: process.pid for name, process in lab.processes().items()},
        "containers": state["containers"],
        "ports": state["ports"],
        "bytes": _bytes_in(lab.directory),
    }
    if as_json:
        shared.print_json({**shown, "results": state["steps"]})
        return
    print(f"{shown['directory']}: profile {shown['profile']}, {size(shown['bytes'])}")
    for title in ("steps", "processes", "ports"):
        values = shown[title]
        print(f"{title}: " + (", ".join(f"{k} ({v})" for k, v in values.items()) or "none"))
    print(f"containers: {', '.join(state['containers']) or 'none'}")


def _bytes_in(directory: Path) -> int:
    """What a directory takes on disk; holes in disk images do not count."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # it may be gone already
                total += Path(parent, name).lstat().st_blocks * 512
    return total


@group.command("commands", example="rfe lab commands 20 30 40 > run.sh")
@click.argument("numbers", metavar="[NOTEBOOK]...", nargs=-1, shell_complete=complete_notebook)
@shared.lab_option
def list_commands(numbers: tuple[str, ...], directory: str) -> None:
    """Print what the last run of each NOTEBOOK has run, as a shell script; by default all.

    Requests to Image Builder are lines for curl, each under the line for composer-cli that does
    the same. SOCKET, LAB, PORT and ID are variables of the script.
    """
    from rfe_helpers.workbook import commands
    from rfe_helpers.workbook.chapters import number_of

    lab = shared.existing_lab(directory)
    entries = journal.read(lab.path("logs", "commands.jsonl"))
    chosen = commands.last_runs(entries, [number_of(number) for number in numbers])
    if not chosen:
        raise InputError(
            "no notebook has run anything in this lab yet",
            remedy=f"run one first: {lab.command('run 10 20')}",
        )
    print(commands.script(lab, chosen), end="")


@group.command("open", example="rfe lab open --lab ~/lab-anna")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option(
    "--address",
    default=LOOPBACK,
    metavar="IP",
    help="Listen there, such as 0.0.0.0 in a container; who can reach it needs the token.",
)
@shared.lab_option
def open_lab(no_browser: bool, address: str, directory: str) -> None:
    """Open the notebooks in JupyterLab."""
    from rfe_helpers.workbook import jupyter

    jupyter.open_lab(Lab(directory), browser=not no_browser, address=address)


@group.command(example="rfe lab reset 50")
@click.argument("notebook", required=False, shell_complete=complete_notebook)
@click.option("--notebooks", "restore", is_flag=True, help="Restore the lab's copies of notebooks.")
@shared.lab_option
def reset(notebook: str | None, restore: bool, directory: str) -> None:
    """Go back to the state before NOTEBOOK, such as 50, or to notebooks as they were at first.

    With --notebooks, the copies that you have changed or run are kept in notebooks/replaced.
    """
    if bool(notebook) == restore:
        raise InputError("name a notebook, such as 50, or --notebooks")
    lab = shared.existing_lab(directory)
    if notebook is None:
        print("\n".join(notebooks.restore(lab)) or "nothing to do: no notebook was changed")
        return
    from rfe_helpers.workbook import headless, solve

    with headless.running(lab):
        done = solve.reset(lab, notebook)
    print("\n".join(done) or "nothing to do: the lab has not come that far")


@click.command("upgrade-notebooks", cls=shared.Command, example="rfe upgrade-notebooks")
@shared.lab_option
def upgrade_notebooks(directory: str) -> None:
    """Bring the lab's copies of notebooks up to date, and keep what you have changed in them.

    After an upgrade of the workbook. Cells and lines that you have changed stay, and so do your
    outputs; where the new version has changed the same lines, a note below your cell shows it. Your
    notebooks as they were are kept in notebooks/replaced.
    """
    lab = shared.existing_lab(directory)
    print("\n".join(notebooks.upgrade(lab)) or "nothing to do: the notebooks are up to date")


@group.command(example="rfe lab clean")
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared.lab_option
def clean(yes: bool, directory: str) -> int:
    """End everything that runs for a lab and delete the lab, after asking.

    The cache stays, so that the next lab starts quickly. While `rfe run` works in the lab, nothing
    is deleted.
    """
    from rfe_helpers.workbook import headless

    lab = shared.existing_lab(directory)
    with headless.running(lab):  # a run must not lose its lab
        if not yes and not shared.may_delete(_inventory(lab)):
            return 1
        for process in lab.clean(serve.remove_container):
            print(f"ended {process}")
    left = sorted(path.name for path in lab.directory.iterdir()) if lab.directory.exists() else []
    print(f"removed {lab.directory}" + (f", except for {', '.join(left)}" if left else ""))
    cache = cache_directory()
    if cache.exists():
        print(f"left: the cache for other labs, {cache} ({size(_bytes_in(cache))})")
    return 0


def _inventory(lab: Lab) -> str:
    """What would be deleted, for whoever has to decide."""
    patterns = ("runs/*/report.html", "matrix/*/report.html")
    reports = [path for pattern in patterns for path in sorted(lab.directory.glob(pattern))]
    own = notebooks.own_notebooks(lab)
    lines = [f"{lab.directory}, {size(_bytes_in(lab.directory))}:"]
    lines += [
        f"    running: {name} (pid {process.pid})" for name, process in lab.processes().items()
    ]
    lines += [f"    running: container {name}" for name in lab.state["containers"]]
    lines += [f"    report: {path.relative_to(lab.directory)}" for path in reports]
    lines += [f"    notebook of yours: {path.relative_to(lab.directory)}" for path in own]
    return "\n".join(lines)
