"""`rfe lab` and `rfe solve`: what a lab holds, how far it is, and JupyterLab over it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rfe_helpers.cli.parts import add_command, add_group, lab_option, print_json
from rfe_helpers.core.units import size
from rfe_helpers.errors import LabError
from rfe_helpers.lab.lab import Lab

# What the notebooks and their exercises put into blueprints.
WORKBOOK_PACKAGES = ("tmux", "jq", "htop", "tree", "podman", "nftables")


def add_commands(commands: Any) -> None:
    """`rfe solve`, `rfe lab` and its commands."""
    solving = add_command(
        commands, "solve", solve, "run what is missing for the state after a notebook"
    )
    solving.add_argument("notebook", metavar="NOTEBOOK", help="such as 40")
    lab_option(solving)
    caching = add_command(
        commands, "cache", cache, "fetch beforehand all that the sandbox needs, to work offline"
    )
    caching.add_argument(
        "packages",
        nargs="*",
        metavar="PACKAGE",
        default=WORKBOOK_PACKAGES,
        help=f"what blueprints will ask for ({' '.join(WORKBOOK_PACKAGES)})",
    )
    group = add_group(commands, "lab", "what the notebooks have made and left running")
    showing = add_command(
        group, "show", lab_show, "steps, processes, containers, disk", as_json=True
    )
    opening = add_command(group, "open", lab_open, "open the notebooks in JupyterLab")
    opening.add_argument("--no-browser", action="store_true", help="only print the address")
    resetting = add_command(group, "reset", lab_reset, "go back to before a notebook")
    resetting.add_argument("notebook", metavar="NOTEBOOK", help="such as 50")
    cleaning = add_command(group, "clean", lab_clean, "end everything and delete the lab")
    for command in (showing, opening, resetting, cleaning):
        lab_option(command)


def existing_lab(directory: str) -> Lab:
    """The lab in a directory; a lab is not made by looking at it or by removing it."""
    path = Path(directory).expanduser()
    if not any((path / name).exists() for name in ("lab.json", "lab.lock")):
        raise LabError(
            f"there is no lab in {path}", remedy="name one with --lab, or make one with `rfe run`"
        )
    return Lab(path)


def lab_show(arguments: argparse.Namespace) -> int:
    lab = existing_lab(arguments.lab)
    state = lab.state
    shown = {
        "directory": str(lab.directory),
        "profile": lab.profile.name,
        "steps": {name: found["at"] for name, found in state["steps"].items()},
        "processes": {name: process.pid for name, process in lab.processes().items()},
        "containers": state["containers"],
        "ports": state["ports"],
        "bytes": _bytes_in(lab.directory),
    }
    if arguments.json:
        print_json({**shown, "results": state["steps"]})
        return 0
    print(f"{shown['directory']}: profile {shown['profile']}, {shown['bytes'] / 1e6:.0f} MB")
    for title in ("steps", "processes", "ports"):
        values = shown[title]
        print(f"{title}: " + (", ".join(f"{k} ({v})" for k, v in values.items()) or "none"))
    print(f"containers: {', '.join(state['containers']) or 'none'}")
    return 0


def _bytes_in(directory: Path) -> int:
    """What a directory takes on disk; holes in disk images do not count."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


def lab_clean(arguments: argparse.Namespace) -> int:
    from rfe_helpers import serve

    lab = existing_lab(arguments.lab)
    for ended in lab.clean(serve.remove_container):
        print(f"ended {ended}")
    print(f"removed {lab.directory}")
    return 0


def lab_reset(arguments: argparse.Namespace) -> int:
    from rfe_helpers.workbook import solve

    done = solve.reset(existing_lab(arguments.lab), arguments.notebook)
    for line in done or ["nothing to do: the lab has not come that far"]:
        print(line)
    return 0


def lab_open(arguments: argparse.Namespace) -> int:
    from rfe_helpers.workbook import jupyter

    jupyter.open_lab(Lab(arguments.lab), browser=not arguments.no_browser)
    return 0


def solve(arguments: argparse.Namespace) -> int:
    from rfe_helpers.workbook import solve

    lab = Lab(arguments.lab)
    summary = solve.solve(lab, arguments.notebook, None, lambda line: print(line, flush=True))
    if summary is None:
        print(f"nothing to do: the lab is already as it is after notebook {arguments.notebook}")
        return 0
    for result in summary.notebooks:
        if result.failure is not None:
            print(f"rfe: {result.name}: {result.failure.message}", file=sys.stderr)
    print(f"{summary.status}: {summary.report}")
    return {"passed": 0, "interrupted": 130}.get(summary.status, 1)


def cache(arguments: argparse.Namespace) -> int:
    from rfe_helpers import build

    pass

    from rfe_helpers.workbook.progress import Progress

    with Progress("Filling the cache") as progress:
        kept = build.fill_cache(arguments.packages, progress)
    total = sum(path.stat().st_size for path in kept.iterdir())
    print(f"{size(total)} of packages in {kept}: composes and installations need no network now")
    return 0
