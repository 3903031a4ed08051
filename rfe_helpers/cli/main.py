"""`rfe`, the command line. Exit status: 0 done, 1 it did not work, 2 wrong usage, 130 Ctrl-C or
SIGTERM.

Modules are imported by the command that needs them, so that quick commands are quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from rfe_helpers import __version__
from rfe_helpers.cli.shared import SETTINGS, Group, run_line

COMMANDS = {
    "doctor": ("notebooks.doctor", "Show what this machine has, what it lacks, and how to get it."),
    "run": ("notebooks.run", "Run notebooks without a browser."),
    "new": ("own.new", "Make a notebook of your own."),
    "check": ("own.check", "Hold notebooks to the rules of the workbook."),
    "sandbox": ("sandbox.group", "Start, stop and look at the sandbox's Image Builder."),
    "solve": ("notebooks.solve", "Bring a lab to the state after a notebook."),
    "cache": ("sandbox.cache", "Fetch all that the sandbox needs, to work offline."),
    "lab": ("lab.group", "List labs; look at one, open it in JupyterLab, reset it, delete it."),
    "upgrade-notebooks": (
        "lab.upgrade_notebooks",
        "Bring a lab's notebooks up to date, and keep your changes.",
    ),
    "hand": ("room.hand", "Ask the trainer for help."),
    "room": ("room.group", "Open a room of people, each with a lab, and see how far they are."),
    "ssh": ("machine.ssh", "Log in to a machine of a lab."),
    "commit": ("commit.group", "Look inside commits and compare them."),
    "media": ("media.group", "Look at installer ISOs, and check sticks against them."),
    "fleet": ("fleet.group", "Plan the update of a fleet, and configure its devices."),
    "imagemode": ("imagemode.group", "Go on to image mode: Containerfiles, and the way there."),
    "profiles": ("profiles.profiles", "List the releases, or show all that is known of one."),
    "fetch": ("media.fetch", "Fetch a guest image or boot ISO, or say where to get it."),
    "kickstart-iso": ("media.kickstart_iso", "Put a kickstart into a copy of a boot ISO."),
    "blueprint": ("blueprint.group", "Write, check, store and look at blueprints."),
    "compose": ("compose.group", "Look at composes, and fetch what they made."),
    "sources": ("sources.group", "Look at package repositories, add and delete some."),
    "prove": ("prove.group", "Prove that an interrupted update leaves a whole system."),
}


@click.group(
    cls=Group,
    lazy=COMMANDS,
    context_settings=SETTINGS,
    epilog="""\b
To let bash complete commands, options and names, add to ~/.bashrc
(for zsh and fish: zsh_source, fish_source):
  eval "$(_RFE_COMPLETE=bash_source rfe)"
""",
)
@click.version_option(__version__, prog_name="rfe", message="%(prog)s %(version)s")
def rfe() -> None:
    """RHEL for Edge: build, inspect, serve, install, update, roll back."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Raises SystemExit(2) for wrong usage."""
    # With this, jsonschema, which nbformat imports, compiles a grammar of IRIs: 0.9 s each time,
    # to check what no notebook has.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    return run_line(rfe, "rfe", argv)
