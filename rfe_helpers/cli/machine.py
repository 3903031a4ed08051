"""`rfe ssh`: log in to a machine of a lab."""

from __future__ import annotations

import click

from rfe_helpers.cli import shared
from rfe_helpers.core import run
from rfe_helpers.errors import InputError
from rfe_helpers.lab import keys


@click.command(cls=shared.Command, example="rfe ssh edge-1 rpm-ostree status")
@click.argument("machine")
@click.argument("command", nargs=-1)
@click.option("--user", default="core", metavar="NAME", help="Who logs in.")
@shared.lab_option
def ssh(machine: str, command: tuple[str, ...], user: str, directory: str) -> None:
    """Log in to MACHINE, such as edge-1, or run COMMAND there.

    If COMMAND has options, put -- before it, as in rfe ssh edge-1 -- rpm-ostree status --json.
    """
    from rfe_helpers.machine.vm import Machine

    lab = shared.existing_lab(directory)
    running = Machine.find(lab, machine)
    if running is None:
        names = [name.removeprefix("machine-") for name in lab.processes() if "machine-" in name]
        raise InputError(
            f"no machine {machine} is running in {lab.directory}",
            remedy=f"running are: {', '.join(names) or 'none'}; "
            f"`{lab.command('solve 50')}` installs and starts edge-1",
        )
    port = next((outside for outside, inside in running.spec.forwards if inside == 22), None)
    if port is None:
        raise InputError(f"SSH of {machine} is not forwarded to this host")
    run.become(keys.host(lab, machine, port, user=user).login(*command), env={})
