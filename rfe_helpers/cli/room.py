"""`rfe room`: JupyterHub for a room of people, and what their trainer sees; `rfe hand`."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import click

from rfe_helpers.cli import shared
from rfe_helpers.core.units import elapsed
from rfe_helpers.errors import InputError

room_option = click.option(
    "--room",
    "directory",
    envvar="RFE_ROOM",
    default="~/rfe-room",
    metavar="DIR",
    show_envvar=True,
    help="The room's directory.",
)


@click.group("room", cls=shared.Group)
def group() -> None:
    """Give each person in a room a lab of their own, and see how far they are."""


@group.command(example="rfe room start --seats 20 --config room.toml")
@click.option("--seats", type=int, metavar="N", help="How many; in place of the file's names.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A room.toml.")
@click.option("--port", type=int, metavar="PORT", help="Where the room is served.")
@room_option
def start(seats: int | None, config: Path | None, port: int | None, directory: str) -> None:
    """Open the room, or start what of it has ended.

    Without options a room has the settings that it had before. Names and passwords are in
    cards.html in its directory, to print and cut out. Needs `rfe-workbook[room]`.
    """
    from rfe_helpers import room

    _require_jupyterhub()
    opened = room.Room(directory)
    opened.change(room.read_settings(config, earlier=opened.settings, seats=seats, port=port))
    opened.start(print)
    print(f"the trainer's page: {opened.address}services/room/ (log in as trainer)")


def _require_jupyterhub() -> None:
    if not all(map(importlib.util.find_spec, ("dockerspawner", "jupyterhub"))):
        raise InputError(
            "a room needs JupyterHub, which is not installed",
            remedy="run ./set-up --room in the clone, or pip install 'rfe-workbook[room]'",
        )


@group.command(example="rfe room status")
@shared.json_option
@room_option
def status(as_json: bool, directory: str) -> None:
    """Show who is there."""
    from rfe_helpers import room

    opened = room.Room.existing(directory)
    seats = opened.status()
    if as_json:
        shared.print_json({"address": opened.address, "seats": seats})
        return
    print(f"{opened.address}, its processes: {', '.join(opened.processes()) or 'none'}")
    for name, seat in seats.items():
        print(f"    {name}: {seat['server'] or 'not started'}, {_work_of(seat)}")


def _work_of(seat: dict[str, Any]) -> str:
    if not seat["at"]:
        return "has not begun"
    return f"{seat['notebook']} {elapsed(max(0.0, time.time() - seat['at']))} ago"


@group.command(example="rfe room stop")
@room_option
def stop(directory: str) -> None:
    """Close the room. Labs and passwords stay for the next `rfe room start`."""
    from rfe_helpers import room

    for line in room.Room.existing(directory).stop():
        print(f"ended {line}")


@group.command(example="rfe room reset seat-07")
@click.argument("seat")
@room_option
def reset(seat: str, directory: str) -> None:
    """Delete the lab of SEAT, and give it a new password, on a new card.

    Of `trainer` only the password is changed.
    """
    from rfe_helpers import room

    opened = room.Room.existing(directory)
    opened.reset(seat)
    print(f"{seat} begins again; the new card: {opened.cards}")


@group.command(example="rfe room clean")
@click.option("--yes", is_flag=True, help="Do not ask.")
@room_option
def clean(yes: bool, directory: str) -> int:
    """Close the room, and delete it with the labs of all its seats, after asking."""
    from rfe_helpers import room

    opened = room.Room.existing(directory)
    inventory = f"{opened.directory}, with the labs of {', '.join(opened.settings.people)}"
    if not yes and not shared.may_delete(inventory):
        return 1
    for line in opened.clean():
        print(f"ended {line}")
    print(f"removed {opened.directory}")
    return 0


@group.command(example="rfe room report")
@shared.json_option
@room_option
def report(as_json: bool, directory: str) -> None:
    """Print the times of each notebook, and where people failed, in Markdown."""
    from rfe_helpers import room

    seen = room.read_report(room.Room.existing(directory).directory / "activity")
    if as_json:
        shared.print_json(seen)
        return
    print(seen.markdown(), end="")


@group.command("watch", example="rfe room watch --labs /srv/labs")
@click.option("--labs", type=click.Path(path_type=Path), metavar="DIR", help="Labs in this one.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8500, metavar="PORT", help="On loopback."
)
def watch(labs: Path | None, port: int) -> None:
    """Show the trainer's page without JupyterHub: of your labs, for root of everybody's.

    With --labs, of the labs in a directory that people share.
    """
    from rfe_helpers.room import page

    page.watch(labs, port)


@group.command("seat", hidden=True, example="rfe room seat")
def seat() -> None:
    """Be the Jupyter server of a seat; JupyterHub runs this."""
    from rfe_helpers.lab.lab import default_directory
    from rfe_helpers.workbook import jupyter

    jupyter.become_seat(default_directory())


@click.group("hand", cls=shared.Group)
def hand() -> None:
    """Ask the trainer for help."""


@hand.command(example='rfe hand up "my machine does not boot"')
@click.argument("words", nargs=-1)
@shared.lab_option
def up(words: tuple[str, ...], directory: str) -> None:
    """Raise your hand, and say what for if you like."""
    from rfe_helpers.workbook import activity

    activity.raise_hand(shared.existing_lab(directory).directory, " ".join(words))
    print("your hand is up; `rfe hand down` lowers it")


@hand.command(example="rfe hand down")
@shared.lab_option
def down(directory: str) -> None:
    """Lower your hand."""
    from rfe_helpers.workbook import activity

    activity.lower_hand(shared.existing_lab(directory).directory)
    print("your hand is down")
