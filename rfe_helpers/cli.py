"""`rfe`, the command line. Exit status: 0 done, 1 it did not work, 2 wrong usage, 130 Ctrl-C.

Modules are imported by the command that needs them, so that quick commands are quick.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rfe_helpers import __version__
from rfe_helpers.errors import InputError, LabError, RfeError
from rfe_helpers.lab import DEFAULT, Lab

Handler = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors are printed once, on stderr."""
    arguments = parser().parse_args(argv)
    handler: Handler = arguments.handler
    try:
        status = handler(arguments)
        sys.stdout.flush()
    except RfeError as error:
        print(f"rfe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rfe: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has had enough; Python must not flush again on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def parser() -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="rfe", description="RHEL for Edge: build, inspect, serve, install, update, roll back."
    )
    top.add_argument("--version", action="version", version=f"rfe {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "doctor", doctor, "show what this machine has, lacks, and what mends it", json)
    _run_grammar(commands)
    sandbox_commands = _group(commands, "sandbox", "the sandbox Image Builder")
    for name, handler, text in (
        ("start", sandbox_start, "start it in the background, if it does not run already"),
        ("stop", sandbox_stop, "stop it; what it has built stays"),
        ("status", sandbox_status, "say whether it runs and where its socket is"),
    ):
        _lab_option(_add(sandbox_commands, name, handler, text))
    lab_commands = _group(commands, "lab", "what the notebooks have made and left running")
    _lab_option(_add(lab_commands, "show", lab_show, "steps, processes, containers, disk", json))
    _lab_option(_add(lab_commands, "clean", lab_clean, "end everything and delete the lab"))
    _commit_grammar(commands)
    _fleet_grammar(commands)
    return top


def _run_grammar(commands: Any) -> None:
    run = _add(commands, "run", run_notebooks, "run notebooks without a browser", json)
    run.add_argument(
        "notebooks", nargs="*", metavar="NOTEBOOK", help="20, 20-build-a-commit or a path; all"
    )
    run.add_argument("--profile", help="the release to work with (default: the lab's, or sandbox)")
    run.add_argument(
        *("-p", "--parameter"),
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter in the notebooks that have it; may be repeated",
    )
    _lab_option(run)


def _commit_grammar(commands: Any) -> None:
    source = "a commit.tar, a container.tar, a repository directory or the URL of one"
    group = _group(commands, "commit", "look inside commits")
    for name, handler, text in (
        ("show", commit_show, "ref, id, parent, version, sizes"),
        ("packages", commit_packages, "the packages, one a line"),
        ("files", commit_files, "the files, with mode and size"),
    ):
        one = _add(group, name, handler, text, json)
        one.add_argument("source", metavar="SOURCE", help=source)
        one.add_argument("--ref", help="which ref, where there are several")
    two = _add(group, "diff", commit_diff, "what differs between two commits", json)
    two.add_argument("old", metavar="SOURCE", help=source)
    two.add_argument("new", metavar="SOURCE", help="the commit to compare with")


def _fleet_grammar(commands: Any) -> None:
    group = _group(commands, "fleet", "how an update reaches very many devices")
    plan = _add(group, "plan", fleet_plan, "load on the mirror, and when devices have it", json)
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


def _span(text: str) -> float:
    from rfe_helpers import systemd_timer

    try:
        found = systemd_timer.span(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(f"{error.message}; {error.remedy}") from None
    if found > 366 * systemd_timer.DAY:
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


def _group(commands: Any, name: str, text: str) -> Any:
    return commands.add_parser(name, help=text, description=text).add_subparsers(
        required=True, metavar="COMMAND"
    )


def _add(commands: Any, name: str, handler: Handler, text: str, as_json: Any = None) -> Any:
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(handler=handler)
    if as_json:
        command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _lab_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lab", default=DEFAULT, metavar="DIR", help=f"the lab directory ({DEFAULT})"
    )


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, default=str))


# doctor ---------------------------------------------------------------------------------------


def doctor(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rfe_helpers import doctor

    findings = doctor.examine()
    stops = any(finding.stops for finding in findings)
    command = doctor.install_command(findings)
    if arguments.json:
        _print_json(
            {
                "ready": not stops,
                "install": command,
                "findings": [asdict(finding) for finding in findings],
            }
        )
        return int(stops)
    signs = {"ok": "✔", "warning": "!", "missing": "✘", "too old": "✘"}
    for finding in findings:
        word = "" if finding.status in ("ok", "warning") else f"{finding.status}: "
        print(f"{signs[finding.status]} {finding.name}: {word}{finding.detail}")
        if finding.remedy:
            print(f"    to do: {finding.remedy}")
    if command:
        print(f"\nAll missing packages at once: {command}")
    print("\nNot ready: see the lines with ✘." if stops else "\nReady.")
    return int(stops)


# run ------------------------------------------------------------------------------------------


def run_notebooks(arguments: argparse.Namespace) -> int:
    from rfe_helpers import headless

    notebooks = headless.find_notebooks(arguments.notebooks)
    lab = Lab(arguments.lab, arguments.profile)
    stream = sys.stderr if arguments.json else sys.stdout
    summary = headless.run_notebooks(
        notebooks,
        lab,
        dict(arguments.parameter),
        lambda line: print(line, file=stream, flush=True),
    )
    if arguments.json:
        _print_json(summary.to_json())
    for result in summary.notebooks:
        if result.failure is not None:
            print(f"rfe: {result.name}: {result.failure.message}", file=sys.stderr)
    print(f"{summary.status}: {summary.report}", file=stream)
    return {"passed": 0, "interrupted": 130}.get(summary.status, 1)


# sandbox --------------------------------------------------------------------------------------


def sandbox_start(arguments: argparse.Namespace) -> int:
    from rfe_helpers import builder

    builder.get(Lab(arguments.lab))
    return sandbox_status(arguments)


def sandbox_stop(arguments: argparse.Namespace) -> int:
    from rfe_helpers import builder

    lab = _existing_lab(arguments.lab)
    builder.stop(lab)
    print("stopped")
    return 0


def sandbox_status(arguments: argparse.Namespace) -> int:
    from rfe_helpers import builder

    print(builder.status(_existing_lab(arguments.lab)))
    return 0


# lab ------------------------------------------------------------------------------------------


def _existing_lab(directory: str) -> Lab:
    """The lab in a directory; a lab is not made by looking at it or by removing it."""
    path = Path(directory).expanduser()
    if not any((path / name).exists() for name in ("lab.json", "lab.lock")):
        raise LabError(
            f"there is no lab in {path}", remedy="name one with --lab, or make one with `rfe run`"
        )
    return Lab(path)


def lab_show(arguments: argparse.Namespace) -> int:
    lab = _existing_lab(arguments.lab)
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
        _print_json({**shown, "results": state["steps"]})
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

    lab = _existing_lab(arguments.lab)
    for ended in lab.clean(serve.remove_container):
        print(f"ended {ended}")
    print(f"removed {lab.directory}")
    return 0


# commit ---------------------------------------------------------------------------------------


def commit_show(arguments: argparse.Namespace) -> int:
    from rfe_helpers import commit

    shown = commit.open_commit(arguments.source, arguments.ref).to_dict()
    if arguments.json:
        _print_json(shown)
        return 0
    for name, value in shown.items():
        if name != "compose":
            print(f"{name + ':':<11} {'none' if value in (None, '') else value}")
    return 0


def commit_packages(arguments: argparse.Namespace) -> int:
    from rfe_helpers import commit

    packages = commit.open_commit(arguments.source, arguments.ref).packages()
    if arguments.json:
        _print_json([vars(package) for package in packages])
    else:
        print("\n".join(map(str, packages)))
    return 0


def commit_files(arguments: argparse.Namespace) -> int:
    from rfe_helpers import commit

    files = commit.open_commit(arguments.source, arguments.ref).files()
    if arguments.json:
        _print_json([vars(file) for file in files])
    else:
        print("\n".join(f"{file.mode:06o} {file.size:>10} {file.path}" for file in files))
    return 0


def commit_diff(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rfe_helpers import commit

    found = commit.diff(commit.open_commit(arguments.old), commit.open_commit(arguments.new))
    if arguments.json:
        _print_json(asdict(found))
        return 0
    for sign, values in (("-", found.removed), ("+", found.added), ("~", found.changed)):
        for value in values:
            print(f"{sign} package {value}")
    if found.files is not None:
        listed = (("-", found.files.removed), ("+", found.files.added), ("~", found.files.modified))
        for sign, paths in listed:
            for path in paths:
                print(f"{sign} {path}")
    return 0


# fleet ----------------------------------------------------------------------------------------


def fleet_plan(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rfe_helpers import fleet, fleet_answers, systemd_timer

    release = systemd_timer.utc(arguments.release)
    options: dict[str, Any] = {"horizon": arguments.horizon, "release": release}
    window = None
    if arguments.window is not None:
        window = systemd_timer.moment(arguments.window, release, arguments.horizon)
    devices, cost = _fleet(arguments), _cost(arguments)
    mirror = fleet.Mirror(arguments.mirror_requests, arguments.mirror_mbit * 1e6 / 8)
    splays = sorted({0.0, devices.timer.randomized_delay})
    found = fleet.sweep(devices, cost, splays, mirror, window=window, **options)
    limited = mirror != fleet.Mirror()
    needed = fleet.smallest_splay(devices, cost, mirror, **options) if limited else None
    if arguments.json:
        plans = [{"splay": splay, **plan.to_dict()} for splay, plan in found.items()]
        least = None if needed == math.inf else needed
        _print_json({"smallest_splay": least, "cost": asdict(cost), "plans": plans})
        return 0
    print(f"{devices.devices:,} devices, the update released {release:%a %Y-%m-%d %H:%M} UTC")
    print(fleet_answers.cost_line(cost))
    print(f"\n{fleet_answers.splay_table(found)}")
    if needed is not None:
        print(f"\nSmallest splay that the mirror can bear: {fleet_answers.least(needed)}")
    return 0


def _fleet(arguments: argparse.Namespace) -> Any:
    from dataclasses import replace

    from rfe_helpers import fleet, systemd_timer

    timer = fleet.RPM_OSTREE
    if arguments.timer:
        timer = systemd_timer.parse_timer("\n".join(arguments.timer))
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

    from rfe_helpers.fleet_measure import RECORDED

    given = {"requests": arguments.requests, "bytes": arguments.bytes}
    return replace(RECORDED, **{name: value for name, value in given.items() if value is not None})
