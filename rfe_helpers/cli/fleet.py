"""`rfe fleet`: plan an update of very many devices, and configure one that keeps itself current."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from rfe_helpers.cli.parts import add_command, add_group, print_json
from rfe_helpers.errors import InputError


def add_commands(commands: Any) -> None:
    """`rfe fleet` and its commands."""
    group = add_group(commands, "fleet", "how an update reaches very many devices")
    plan = add_command(
        group, "plan", fleet_plan, "load on the mirror, and when devices have it", as_json=True
    )
    _plan_options(plan)
    edge2 = add_command(
        group, "kickstart", fleet_kickstart, "print edge2.ks, for one that keeps current"
    )
    edge2.add_argument("--url", required=True, help="of the repository, as the device sees it")
    edge2.add_argument("--ssh-key", required=True, metavar="FILE", help="a public key to log in")
    edge2.add_argument("--user", default="core", help="who may log in (%(default)s)")
    edge2.add_argument("--profile", default="sandbox", help="the release (%(default)s)")
    twin = add_command(
        group, "blueprint", fleet_blueprint, "print the same as customizations, TOML"
    )
    twin.add_argument("--blueprint", default="fleet", metavar="NAME", help="its name (%(default)s)")
    for command in (edge2, twin):
        _device_options(command)


def _plan_options(plan: Any) -> None:
    for option, kind, metavar, default, text in (
        ("devices", _count, "N", None, "how many devices, such as 1000000 or 1e6"),
        ("splay", _span, "SPAN", None, 'RandomizedDelaySec of their timer, such as "6h" (none)'),
        ("window", str, "WHEN", None, 'a span after the release, or OnCalendar as "Sun 01:30"'),
        ("release", str, "DATE", "2026-01-05 00:00", "of the update, UTC (%(default)s, a Monday)"),
        ("horizon", _span, "SPAN", 7 * 86400.0, "how far to look ahead (7d)"),
        ("rollout", _span, "SPAN", 0.0, "let devices update one after the other in this time"),
        ("off", _share, "SHARE", 0.0, "of the devices that are off at the release, such as 10%%"),
        ("off-for", _span, "SPAN", 86400.0, "within which those come back (1d)"),
        ("cut", _share, "SHARE", 0.0, "of the devices that a power cut takes off"),
        ("cut-at", _span, "SPAN", 43200.0, "after the release when that happens (12h)"),
        ("mirror-requests", _amount, "N", math.inf, "that the mirror can answer in a second"),
        ("mirror-mbit", _amount, "N", math.inf, "per second that the mirror can send"),
        ("requests", _amount, "N", None, "that one device makes for the update"),
        ("bytes", _amount, "N", None, "that one device fetches for the update"),
    ):
        plan.add_argument(
            f"--{option}",
            type=kind,
            metavar=metavar,
            default=default,
            required=option == "devices",
            help=text,
        )
    plan.add_argument(
        "--timer",
        action="append",
        default=[],
        metavar="SETTING",
        help="of the timer, such as OnCalendar=03:00; may be repeated (as rpm-ostree has it)",
    )
    plan.add_argument(
        "--together", action="store_true", help="let all devices boot when the update is released"
    )


def _device_options(command: Any) -> None:
    """The fields of device.Device; what is not given is as it has it."""
    for option, text in (
        ("policy", "none, check, stage or apply"),
        ("on-calendar", "when to look for updates (as rpm-ostree has it)"),
        ("window", "OnCalendar= of the reboot into a staged update"),
        ("splay", "RandomizedDelaySec= of every timer that asks a server"),
        ("image", "container image of an application, with its registry"),
        ("name", "of the application's service"),
        ("registry", "one that is spoken to without TLS"),
    ):
        command.add_argument(f"--{option}", default=argparse.SUPPRESS, help=text)
    for option, field, text in (
        ("no-notify", "notifies", "the application does not say when it is ready"),
        ("no-quadlet", "quadlet", "for podman before 4.4"),
    ):
        command.add_argument(f"--{option}", dest=field, action="store_false", help=text)


def _span(text: str) -> float:
    from rfe_helpers.fleet import timer

    try:
        found = timer.span(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(f"{error.message}; {error.remedy}") from None
    if found > 366 * timer.DAY:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than a year")
    return found


def _amount(text: str) -> float:
    """A positive number; thousands may be set apart as in 1_000_000."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above zero")
    return found


def _count(text: str) -> int:
    found = _amount(text)
    if found != int(found) or found > 100e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 100 million")
    return int(found)


def _share(text: str) -> float:
    """A part of the whole, 0.1 or 10%."""
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        found = math.nan
    if not 0 <= found <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: 10%, or a number from 0 to 1")
    return found


def fleet_plan(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rfe_helpers import fleet
    from rfe_helpers.fleet import answers, timer
    from rfe_helpers.workbook.show import Table

    release = timer.utc(arguments.release)
    options: dict[str, Any] = {"horizon": arguments.horizon, "release": release}
    window = None
    if arguments.window is not None:
        window = timer.moment(arguments.window, release, arguments.horizon)
    devices, cost = _fleet(arguments), _cost(arguments)
    mirror = fleet.Mirror(arguments.mirror_requests, arguments.mirror_mbit * 1e6 / 8)
    splays = sorted({0.0, devices.timer.randomized_delay})
    found = fleet.sweep(devices, cost, splays, mirror, window=window, **options)
    limited = mirror != fleet.Mirror()
    needed = fleet.smallest_splay(devices, cost, mirror, **options) if limited else None
    if arguments.json:
        plans = [{"splay": splay, **plan.to_dict()} for splay, plan in found.items()]
        least = None if needed == math.inf else needed
        print_json({"smallest_splay": least, "cost": asdict(cost), "plans": plans})
        return 0
    print(f"{devices.devices:,} devices, the update released {release:%a %Y-%m-%d %H:%M} UTC")
    print(answers.cost_line(cost))
    named = answers.by_splay(found)
    print(f"\n{Table(('', *named), answers.answers(named))}")
    if needed is not None:
        print(f"\nSmallest splay that the mirror can bear: {answers.least(needed)}")
    return 0


def _fleet(arguments: argparse.Namespace) -> Any:
    from dataclasses import replace

    from rfe_helpers import fleet

    timer = fleet.RPM_OSTREE
    if arguments.timer:
        timer = fleet.parse_timer("\n".join(arguments.timer))
    if arguments.splay is not None:
        timer = replace(timer, randomized_delay=arguments.splay)
    return fleet.Fleet(
        arguments.devices,
        timer,
        together=arguments.together,
        off=arguments.off,
        off_seconds=arguments.off_for,
        cut=arguments.cut,
        cut_at=arguments.cut_at,
        rollout=((0.0, 0.0), (arguments.rollout, 1.0)) if arguments.rollout else ((0.0, 1.0),),
    )


def _cost(arguments: argparse.Namespace) -> Any:
    """What one device costs: as recorded, but for what is given."""
    from dataclasses import replace

    from rfe_helpers.fleet.cost import RECORDED

    given = {"requests": arguments.requests, "bytes": arguments.bytes}
    return replace(RECORDED, **{name: value for name, value in given.items() if value is not None})


def fleet_kickstart(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from rfe_helpers.fleet import description
    from rfe_helpers.install import kickstart
    from rfe_helpers.lab import profile

    try:
        key = Path(arguments.ssh_key).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "this is no text"
        raise InputError(f"cannot read the key {arguments.ssh_key}: {reason}") from None
    if "PRIVATE KEY" in key:
        raise InputError(f"{arguments.ssh_key} is a private key", remedy="give the .pub beside it")
    release = profile.load(arguments.profile)
    described = _device(arguments)
    if not release.device.quadlet:
        described = replace(described, quadlet=False)
    text = kickstart.render(
        release,
        url=arguments.url,
        user=arguments.user,
        ssh_key=key,
        post=description.post(described),
    )
    print(text, end="")
    return 0


def fleet_blueprint(arguments: argparse.Namespace) -> int:
    from rfe_helpers.build import to_toml
    from rfe_helpers.fleet import description

    what = "Devices that keep themselves current"
    print(to_toml(description.blueprint(_device(arguments), arguments.blueprint, what)), end="")
    return 0


def _device(arguments: argparse.Namespace) -> Any:
    from dataclasses import fields

    from rfe_helpers.fleet.description import Device

    names = {field.name for field in fields(Device)}
    return Device(**{name: value for name, value in vars(arguments).items() if name in names})
