"""`rfe prove`: interrupt the update of a lab's machine, many times, and count what comes of it."""

from __future__ import annotations

import argparse
import dataclasses
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfe_helpers.cli.parts import add_command, add_group, lab_option
from rfe_helpers.core import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rfe_helpers.prove.proof import Proof


def add_commands(commands: Any) -> None:
    """`rfe prove` and its commands."""
    group = add_group(commands, "prove", "that an interrupted update leaves the old or the new")
    crash = add_command(group, "crash", prove_crash, "kill the machine in its update")
    crash.add_argument("--rounds", type=_number, default=10, help="how often (%(default)s)")
    power = add_command(
        group, "power", prove_power, "check the disk as a loss of power would leave it (needs root)"
    )
    power.add_argument("--states", type=_number, default=50, help="how many disks (%(default)s)")
    power.add_argument(
        "--fsck-every", type=_number, default=1, metavar="N", help="ostree fsck on each N-th (all)"
    )
    for command in (crash, power):
        lab_option(command)
        command.add_argument("--machine", default="edge-1", help="that is off (%(default)s)")
        command.add_argument("--seed", type=int, help="of the random moments (a new one)")
        command.add_argument(
            "--out", type=Path, metavar="DIR", help="for table, JSON and picture (in the lab)"
        )


def _number(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return number


def prove_crash(options: argparse.Namespace) -> int:
    """Rounds of killing; status 1 if one did not end well."""
    from rfe_helpers.prove import interruptions, plots
    from rfe_helpers.prove.interruptions import Round
    from rfe_helpers.prove.proof import Proof

    proof, seed = Proof.of(options.lab, options.machine), _seed(options)
    found: list[Round] = []
    with proof.saved(_say) as saved:

        def keep(one: Round) -> None:
            found.append(one)
            what = f"{one.booted or 'nothing'} ran, {one.problem or 'whole'}"
            at = f"{one.moment:.1f} of {one.cycle:.1f} s"
            _say(f"round {one.number}: killed at {at}, {what} ({one.seconds:.0f} s)")
            _write(options, proof, "crash", {"seed": seed, "rounds": found})

        interruptions.rounds(proof.lab, saved, options.rounds, seed, on_round=keep)
    points = [(r.share, "killed", "broken" if r.problem else r.booted) for r in found]
    title = f"{len(found)} machines killed in their update"
    figure = plots.plot(points, title, "moment (1: the update is complete)")
    text = "\n".join([interruptions.table(found), *interruptions.problems(found)])
    _show(options, proof, "crash", text, figure)
    return 1 if interruptions.problems(found) else 0


def prove_power(options: argparse.Namespace) -> int:
    """States of the disk; status 1 if one is broken."""
    from rfe_helpers.prove import plots, powerloss
    from rfe_helpers.prove.powerloss import Outcome
    from rfe_helpers.prove.proof import Proof

    proof, seed = Proof.of(options.lab, options.machine), _seed(options)
    found: list[Outcome] = []
    with proof.recorded(_say) as recording:
        _say(f"recorded an update of {recording.seconds:.1f} s")
        expected = proof.expected(recording)

        def keep(index: int, one: Outcome, _: Path) -> None:
            found.append(one)
            what = one.problem or f"boots {one.boots}"
            _say(f"state {index + 1}: {one.kind}, {what} ({one.seconds:.1f} s)")
            _write(options, proof, "power", {"seed": seed, "states": found})

        powerloss.check(
            *(recording, expected),
            number=options.states,
            seed=seed,
            fsck_every=options.fsck_every,
            on_outcome=keep,
        )
    points = [(float(o.point), o.kind, "broken" if o.problem else o.boots) for o in found]
    title = f"{len(found)} disks after a loss of power in an update"
    figure = plots.plot(points, title, "point in the log of writes")
    _show(options, proof, "power", powerloss.table(found), figure)
    return 1 if any(one.problem for one in found) else 0


def _seed(options: argparse.Namespace) -> int:
    """The seed of the randomness, always said."""
    chosen = options.seed if options.seed is not None else secrets.randbelow(10**8)
    _say(f"seed {chosen}")
    return int(chosen)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _directory(options: argparse.Namespace, proof: Proof) -> Path:
    return Path(options.out or proof.lab.folder("runs", "proofs"))


def _write(options: argparse.Namespace, proof: Proof, name: str, document: dict[str, Any]) -> None:
    """Keep the numbers so far: a run takes long, and may be ended."""
    rows = {
        key: [dataclasses.asdict(row) for row in value] if isinstance(value, list) else value
        for key, value in document.items()
    }
    files.write_json(_directory(options, proof) / f"{name}.json", rows)


def _show(options: argparse.Namespace, proof: Proof, name: str, text: str, figure: Figure) -> None:
    """Print the table, and keep it and the picture beside the numbers."""
    from rfe_helpers.prove import plots

    directory = _directory(options, proof)
    files.write(directory / f"{name}.txt", text + "\n")
    picture = plots.save(figure, directory / f"{name}.png")
    print(text)
    _say(f"kept as {picture.with_suffix('')}.json, .txt and .png")
