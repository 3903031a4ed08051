"""`rfe fleet`: plan an update of very many devices, and configure one that keeps itself current."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rfe_helpers import build, fleet, install
from rfe_helpers.cli import shared
from rfe_helpers.errors import InputError
from rfe_helpers.lab.profile import load


@click.group("fleet", cls=shared.Group)
def group() -> None:
    """Plan the update of a fleet, and configure devices that keep themselves current."""


def _span(text: str) -> float:
    seconds = fleet.span(text)
    if seconds > 366 * fleet.DAY:
        raise InputError(f"{text!r} is longer than a year")
    return seconds


def _amount(text: str) -> float:
    """A positive number; thousands may be set apart as in 1_000_000."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise InputError(f"{text!r} is not a number above zero")
    return number


def _count(text: str) -> int:
    number = _amount(text)
    if number != int(number) or number > 100e6:
        raise InputError(f"{text!r} is not a whole number from 1 to 100 million")
    return int(number)


def _share(text: str) -> float:
    """A part of the whole, 0.1 or 10%."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise InputError(f"{text!r} is not a share: write 10%, or a number from 0 to 1")
    return share


SPAN, SHARE = shared.parsed("span", _span), shared.parsed("share", _share)
AMOUNT, COUNT = shared.parsed("n", _amount), shared.parsed("n", _count)


@group.command(example='rfe fleet plan --devices 1e6 --splay 6h --window "Sun 01:30"')
@click.option("--devices", type=COUNT, required=True, help="How many, such as 1e6.")
@click.option("--timer", "settings", multiple=True, metavar="SETTING", help="May be repeated.")
@click.option("--splay", type=SPAN, help="RandomizedDelaySec of their timer.")
@click.option("--together", is_flag=True, help="All of them boot at the release.")
@click.option("--release", default="2026-01-05 00:00", metavar="DATE", help="Of the update, UTC.")
@click.option("--window", metavar="WHEN", help="When they reboot, such as 8h or Sun 01:30.")
@click.option("--horizon", type=SPAN, default="7d", help="How far to look ahead.")
@click.option("--rollout", type=SPAN, default="0s", help="The time to update one after the other.")
@click.option("--off", type=SHARE, default="0%", help="Devices that are off at the release.")
@click.option("--off-for", "off_seconds", type=SPAN, default="1d", help="When all are back.")
@click.option("--cut", type=SHARE, default="0%", help="Devices that a power cut takes off.")
@click.option("--cut-at", type=SPAN, default="12h", help="When it does, after the release.")
@click.option("--mirror-requests", type=AMOUNT, help="Requests that the mirror bears in a second.")
@click.option("--mirror-mbit", type=AMOUNT, help="Mbit that the mirror can send in a second.")
@click.option(
    "--pull",
    type=click.Choice(["objects", "layers"]),
    default="objects",
    help="What devices fetch: OSTree objects, or container layers as bootc does.",
)
@click.option("--requests", type=AMOUNT, help="What one device asks for; by default as measured.")
@click.option("--bytes", type=AMOUNT, help="What one device fetches; by default as measured.")
@shared.json_option
def plan(
    settings: tuple[str, ...],
    splay: float | None,
    release: str,
    window: str | None,
    horizon: float,
    rollout: float,
    mirror_requests: float | None,
    mirror_mbit: float | None,
    pull: str,
    requests: float | None,
    bytes: float | None,
    as_json: bool,
    **devices: Any,
) -> None:
    """Show the load on the mirror and the progress of an update.

    A SPAN is a time as systemd writes it, such as "1h 30min"; WHEN is a SPAN after the release or
    a calendar expression; a SHARE is 10% or 0.1; a SETTING is as in a [Timer] section, such as
    OnCalendar=03:00. Without one, the timer is rpm-ostree's, or bootc's for layers.
    """
    from rfe_helpers.workbook.show import Table

    moment = fleet.utc(release)
    opens = None if window is None else fleet.moment(window, moment, horizon)
    by_layers = pull == "layers"
    usual = fleet.BOOTC if by_layers else fleet.RPM_OSTREE
    recorded = fleet.layers.RECORDED.cost if by_layers else fleet.cost.RECORDED
    timer = fleet.parse_timer("\n".join(settings)) if settings else usual
    if splay is not None:
        timer = replace(timer, randomized_delay=splay)
    if rollout:
        devices["rollout"] = ((0.0, 0.0), (rollout, 1.0))
    model = fleet.Fleet(timer=timer, **devices)
    cost = replace(recorded, **_given(requests=requests, bytes=bytes))
    mirror = fleet.Mirror(mirror_requests or math.inf, (mirror_mbit or math.inf) * 1e6 / 8)
    splays = sorted({0.0, timer.randomized_delay})
    until: dict[str, Any] = {"horizon": horizon, "release": moment}
    plans = fleet.sweep(model, cost, splays, mirror, window=opens, **until)
    limited = mirror != fleet.Mirror()
    least = fleet.smallest_splay(model, cost, mirror, **until) if limited else None
    if as_json:
        rows = [{"splay": splay, **plan.to_dict()} for splay, plan in plans.items()]
        smallest = None if least == math.inf else least
        shared.print_json({"smallest_splay": smallest, "cost": cost, "plans": rows})
        return
    print(f"{model.devices:,} devices, the update released {moment:%a %Y-%m-%d %H:%M} UTC")
    print(fleet.figures.cost_line(cost))
    named = fleet.figures.by_splay(plans)
    print(f"\n{Table(('', *named), fleet.figures.answers(named))}")
    if least is not None:
        print(f"\nSmallest splay that the mirror can bear: {fleet.figures.least(least)}")


def _given(**values: Any) -> dict[str, Any]:
    """What was given on the command line; the rest has defaults of its own."""
    return {name: value for name, value in values.items() if value is not None}


# The fields of fleet.Device.
device_options = shared.with_options(
    click.option("--policy", metavar="POLICY", help="none, check, stage (default) or apply."),
    click.option("--on-calendar", metavar="WHEN", help="When to look for updates."),
    click.option("--window", metavar="WHEN", help="When to reboot into a staged update."),
    click.option("--splay", metavar="SPAN", help="RandomizedDelaySec of timers that ask a server."),
    click.option("--image", help="Container image of an application, with its registry."),
    click.option("--name", help="The name of the application's service."),
    click.option("--registry", help="A registry that is spoken to without TLS."),
    click.option("--no-notify", is_flag=True, help="The application does not say READY=1."),
    click.option("--no-quadlet", is_flag=True, help="For podman before 4.4."),
)


def _device(no_notify: bool, no_quadlet: bool, **fields: str | None) -> fleet.Device:
    return fleet.Device(notifies=not no_notify, quadlet=not no_quadlet, **_given(**fields))


@group.command(example="rfe fleet kickstart --url http://10.0.2.2:8080/repo/ --ssh-key id.pub")
@click.option("--url", required=True, help="The repository, as the device sees it.")
@click.option("--ssh-key", type=click.Path(path_type=Path), required=True, help="A public key.")
@click.option("--user", default="core", help="Who may log in with it.")
@shared.profile_option()
@device_options
def kickstart(url: str, ssh_key: Path, user: str, profile: str, **fields: Any) -> None:
    """Print the kickstart of a device that keeps itself current.

    It is edge2.ks of the demo. What is not given is as rpm-ostree and the workbook have it.
    """
    key = shared.read_text(ssh_key)
    if "PRIVATE KEY" in key:
        raise InputError(f"{ssh_key} is a private key", remedy="give the .pub beside it")
    release = load(profile)
    fields["no_quadlet"] |= not release.device.quadlet
    post = fleet.description.post(_device(**fields))
    print(install.kickstart.render(release, url=url, user=user, ssh_key=key, post=post), end="")


@group.command(example="rfe fleet blueprint --splay 6h")
@click.option("--blueprint", "title", default="fleet", metavar="NAME", help="Its name.")
@device_options
def blueprint(title: str, **fields: Any) -> None:
    """Print the same as a blueprint, in TOML."""
    what = "Devices that keep themselves current"
    print(build.to_toml(fleet.description.blueprint(_device(**fields), title, what)), end="")
