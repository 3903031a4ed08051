"""`rfe prove`: interrupt the update of a lab's machine, many times, and count what comes of it."""

from __future__ import annotations

import secrets
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rfe_helpers import prove
from rfe_helpers.cli import shared
from rfe_helpers.core import files

if TYPE_CHECKING:
    from rfe_helpers.prove.interruptions import Round
    from rfe_helpers.prove.powerloss import Outcome

NUMBER = click.IntRange(min=1)
FILE = click.Path(path_type=Path)


@click.group("prove", cls=shared.Group)
def group() -> None:
    """Prove that an interrupted update leaves the old system or the new, and nothing in between."""


run_options = shared.with_options(
    shared.lab_option,
    click.option("--machine", default="edge-1", help="The machine, switched off."),
    click.option("--seed", type=int, help="Of the random moments; by default a new one."),
    click.option("--out", type=FILE, metavar="DIR", help="For the results; by default in the lab."),
)


class Run:
    """One proof of a machine, and what it keeps: `name`.json, .txt and .png in a directory."""

    def __init__(
        self, name: str, directory: str, machine: str, seed: int | None, out: Path | None
    ) -> None:
        self.proof = prove.Proof.of(directory, machine)
        self.seed = secrets.randbelow(10**8) if seed is None else seed
        self.path = (out or self.proof.lab.folder("runs", "proofs")) / name
        say(f"seed {self.seed}")

    def write(self, key: str, rows: list[Any]) -> None:
        """Keep the numbers so far: a run takes long, and may be ended."""
        numbers = {"seed": self.seed, key: [asdict(row) for row in rows]}
        files.write_json(self.path.with_suffix(".json"), numbers)

    def show(self, text: str, points: list[tuple[float, str, str]], title: str, axis: str) -> None:
        """Print the table, and keep it and a picture beside the numbers."""
        from rfe_helpers.prove import plots

        files.write(self.path.with_suffix(".txt"), text + "\n")
        plots.save(plots.plot(points, title, axis), self.path.with_suffix(".png"))
        print(text)
        say(f"kept as {self.path}.json, .txt and .png")


@group.command(example="rfe prove crash --rounds 10")
@click.option("--rounds", type=NUMBER, default=10, metavar="N", help="How many rounds.")
@run_options
def crash(rounds: int, **options: Any) -> int:
    """Kill the machine during its update, again and again.

    The exit status is 1 if a round does not end well.
    """
    run = Run("crash", **options)
    ended: list[Round] = []

    def keep(one: Round) -> None:
        ended.append(one)
        what = f"{one.booted or 'nothing'} ran, {one.problem or 'whole'}"
        at = f"{one.moment:.1f} of {one.cycle:.1f} s"
        say(f"round {one.number}: killed at {at}, {what} ({one.seconds:.0f} s)")
        run.write("rounds", ended)

    with run.proof.saved(say) as saved:
        prove.interruptions.rounds(run.proof.lab, saved, rounds, run.seed, on_round=keep)
    problems = prove.interruptions.problems(ended)
    run.show(
        "\n".join([prove.interruptions.table(ended), *problems]),
        [(r.share, "killed", "broken" if r.problem else r.booted) for r in ended],
        f"{len(ended)} machines killed in their update",
        "moment (1: the update is complete)",
    )
    return 1 if problems else 0


@group.command(example="rfe prove power --states 50")
@click.option("--states", type=NUMBER, default=50, metavar="N", help="How many disk states.")
@click.option(
    "--fsck-every", type=NUMBER, default=1, metavar="N", help="Run ostree fsck on each N-th."
)
@run_options
def power(states: int, fsck_every: int, **options: Any) -> int:
    """Check the disk as a loss of power would leave it (needs root).

    The writes of one update are recorded, and cut off at many moments.

    The exit status is 1 if a disk is broken.
    """
    run = Run("power", **options)
    outcomes: list[Outcome] = []

    def keep(index: int, one: Outcome, _: Path) -> None:
        outcomes.append(one)
        what = one.problem or f"boots {one.boots}"
        say(f"state {index + 1}: {one.kind}, {what} ({one.seconds:.1f} s)")
        run.write("states", outcomes)

    with run.proof.recorded(say) as recording:
        say(f"recorded an update of {recording.seconds:.1f} s")
        prove.powerloss.check(
            recording,
            run.proof.expected(recording),
            number=states,
            seed=run.seed,
            fsck_every=fsck_every,
            on_outcome=keep,
        )
    run.show(
        prove.powerloss.table(outcomes),
        [(float(o.point), o.kind, "broken" if o.problem else o.boots) for o in outcomes],
        f"{len(outcomes)} disks after a loss of power in an update",
        "point in the log of writes",
    )
    return 1 if any(one.problem for one in outcomes) else 0


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
