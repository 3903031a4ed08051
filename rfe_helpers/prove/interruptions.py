"""A machine that is killed during its update, again and again, at random moments.

As in ostree's own test of transactions, one update is timed, from the request to the end of the
shutdown that completes it. Then, round after round, the same update is started and QEMU gets
SIGKILL at a moment between 0 and 1.1 times that duration. The timing is repeated every few rounds,
since it depends on the load of the host. After the kill the machine is switched on; it must run
the old or the new commit, complete, and take the update.

Each round starts from the same machine, saved with its memory just before the update, and writes
to its own disk overlay. That saves a boot per round and does not weaken the proof: the machine
continues as it would have. The host's page cache survives the kill of QEMU but not a loss of power;
rfe_helpers.prove.powerloss is about that.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from rfe_helpers.core import progress
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import DeadlineExceededError, InputError, MachineError, NodeError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import disks
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.qemu import VmSpec
from rfe_helpers.machine.vm import Machine
from rfe_helpers.prove.powerloss import UPDATE, in_background, leave_marks

BEYOND = 1.1
TIMED_EVERY = 10  # rounds
BOOT_SECONDS = 900
UPDATE_SECONDS = 900
# A resumed machine answers within seconds. Under emulation it sometimes loses a virtual processor
# and hangs; then it is resumed again, as a guest whose kernel panics is started again.
RESUME_SECONDS = 120
ATTEMPTS = 3
# A shutdown completes a staged update; this does only that part of it.
FINALIZE = "systemctl stop ostree-finalize-staged.service"
T = TypeVar("T")


@dataclass(frozen=True)
class Saved:
    """A machine saved just before its update: its memory, disk and description, the commit that it
    runs and the one that is published, files with the content that no update may change, and the
    command that stages the update."""

    memory: Path
    disk: Path
    spec: VmSpec
    old: str
    new: str
    kept: Mapping[str, str]
    update: str = UPDATE


@dataclass(frozen=True)
class Round:
    """One kill, after `share` (0 to 1.1) of the `cycle` seconds that the update takes: the commit
    that `booted` afterwards ("old" or "new"), whether the machine then took the update, and the
    `problem` ("" for none). `restarts` counts boots that were repeated after a kernel panic or a
    crash of QEMU, as happen under emulation. `seconds` is how long the round took.

    >>> from rfe_helpers.prove.interruptions import Round
    >>> Round(1, 0.5, 12.0, "old", True, "", restarts=0, seconds=95.0).moment
    6.0
    """

    number: int
    share: float
    cycle: float
    booted: str
    updated: bool
    problem: str
    restarts: int
    seconds: float

    @property
    def moment(self) -> float:
        """The moment of the kill, in seconds after the update was requested."""
        return self.share * self.cycle


def save(
    lab: Lab,
    name: str,
    disk: Path,
    directory: Path,
    *,
    port: int,
    new: str,
    update: str = UPDATE,
    on_progress: OnProgress = None,
) -> Saved:
    """Boot an overlay of an installed disk, leave marks in /etc and /var, and save the machine.

    `new` is the commit that is published for it, `update` the command that stages it. `disk` must
    not change until `discard`. Raises InputError if the machine runs that commit already,
    MachineError, NodeError or DeadlineExceededError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    layer, memory = directory / "saved.qcow2", directory / "memory"
    disks.overlay(disk, layer)
    spec = VmSpec(name, disk=layer, forwards=((port, 22),))
    machine = Machine.start(lab, spec)
    try:
        node = Node(lab, name, port=port)
        node.forget_host_key()  # a system that was never booted generates its own
        node.wait(Deadline(BOOT_SECONDS), on_progress)
        kept = leave_marks(node)
        node.sudo("systemctl is-system-running --wait", seconds=BOOT_SECONDS, check=False)
        old = node.status().booted.checksum
        refuse_no_update(old, new)
        machine.save(memory, Deadline(300))
    finally:
        machine.kill()
    return Saved(memory=memory, disk=layer, spec=spec, old=old, new=new, kept=kept, update=update)


def refuse_no_update(old: str, new: str) -> None:
    """Raise InputError if the published commit is the running one: nothing to interrupt."""
    if old == new:
        raise InputError(
            f"the machine already runs the published commit {new[:12]}: no update to interrupt",
            remedy="roll it back and reboot it (`rpm-ostree rollback`), or publish another commit",
        )


def cycle(lab: Lab, saved: Saved, *, on_progress: OnProgress = None) -> float:
    """Seconds from the request for the update to the end of the shutdown that completes it."""

    def timed() -> float:
        with resumed(lab, saved) as (machine, node):
            began = begin(node, saved.update)

            def down() -> bool:
                if on_progress is not None:
                    on_progress("timing one update")
                console = machine.console()
                if "rcu_preempt detected stalls" in console:
                    raise MachineError(f"{machine.name} hangs")
                return "reboot: Restarting system" in console

            limit = Deadline(UPDATE_SECONDS)
            wait_for(down, limit, "the update and the shutdown after it", every=0.1)
            return time.monotonic() - began

    return _retried(timed, on_progress)


def rounds(
    lab: Lab,
    saved: Saved,
    number: int,
    seed: int,
    *,
    on_round: Callable[[Round], None] | None = None,
    on_progress: OnProgress = None,
) -> list[Round]:
    """Kill the machine `number` times, at moments chosen by `seed`; `on_round` gets each result.

    For example:

    >>> from rfe_helpers.prove import Proof, interruptions
    >>> proof = Proof.of("~/rfe-lab", "edge-1")  # doctest: +SKIP
    >>> with proof.saved() as saved:  # doctest: +SKIP
    ...     results = interruptions.rounds(proof.lab, saved, 10, seed=1)
    >>> print(interruptions.table(results))  # doctest: +SKIP
    """
    chance = random.Random(seed)  # noqa: S311
    shares = [chance.uniform(0, BEYOND) for _ in range(number)]
    results: list[Round] = []
    seconds = 0.0
    for index, share in enumerate(shares):
        if index % TIMED_EVERY == 0:
            seconds = cycle(lab, saved, on_progress=on_progress)
        results.append(_round(lab, saved, index + 1, share, seconds, on_progress))
        if on_round is not None:
            on_round(results[-1])
    return results


def begin(node: Node, update: str = UPDATE) -> float:
    """Request the update and the reboot after it; returns the monotonic time of that."""
    node.sudo(in_background(update), seconds=RESUME_SECONDS)
    return time.monotonic()


@contextmanager
def resumed(lab: Lab, saved: Saved) -> Iterator[tuple[Machine, Node]]:
    """Resume the saved machine on its own overlay; it is killed at the end of the block."""
    layer = saved.disk.with_name("round.qcow2")
    disks.overlay(saved.disk, layer)
    machine = Machine.start(lab, replace(saved.spec, disk=layer, incoming=saved.memory))
    try:
        node = _node(lab, saved)
        node.wait(Deadline(RESUME_SECONDS))
        yield machine, node
    finally:
        machine.kill()


def _round(
    lab: Lab, saved: Saved, number: int, share: float, cycle: float, on_progress: OnProgress
) -> Round:
    say = progress.say(on_progress)
    moment = share * cycle
    started = time.monotonic()
    booted, updated, problem, restarts = "", False, "", 0
    say(f"round {number}: killing after {moment:.1f} s")

    def kill() -> None:
        with resumed(lab, saved) as (_, node):
            began = begin(node, saved.update)
            time.sleep(max(0.0, moment - (time.monotonic() - began)))

    _retried(kill, on_progress)
    disk = saved.disk.with_name("round.qcow2")
    machine = Machine.start(lab, replace(saved.spec, disk=disk))
    node = _node(lab, saved)
    try:
        node.wait(Deadline(BOOT_SECONDS), on_progress)
        booted = _booted(node, saved)
        say(f"round {number}: {booted} is running")
        _check(node, saved)
        updated = _update(node, saved)
    except (MachineError, NodeError, DeadlineExceededError) as error:
        problem = error.message
    finally:
        restarts = machine.restarts
        machine.kill()
    seconds = time.monotonic() - started
    return Round(
        number=number,
        share=share,
        cycle=cycle,
        booted=booted,
        updated=updated,
        problem=problem,
        restarts=restarts,
        seconds=seconds,
    )


def _node(lab: Lab, saved: Saved) -> Node:
    return Node(lab, saved.spec.name, port=saved.spec.forwards[0][0])


def _retried(action: Callable[[], T], on_progress: OnProgress) -> T:
    for _ in range(ATTEMPTS - 1):
        try:
            return action()
        except (MachineError, NodeError, DeadlineExceededError) as error:
            if on_progress is not None:
                on_progress(f"resuming the saved machine again: {error.message}")
    return action()


def _booted(node: Node, saved: Saved) -> str:
    running = node.status().booted.checksum
    names = {saved.old: "old", saved.new: "new"}
    if running not in names:
        raise NodeError(f"an unknown commit is running: {running}")
    return names[running]


def _check(node: Node, saved: Saved) -> None:
    """Check the repository, the kept files, and that no unit has failed. Raises NodeError."""
    for path, text in saved.kept.items():
        if (actual := node.read(path)) != text:
            raise NodeError(f"{path} contains {actual!r}, not {text!r}")
    node.sudo("ostree fsck --quiet", seconds=BOOT_SECONDS)
    if failed := node.run("systemctl --failed --no-legend --plain").stdout.strip():
        raise NodeError(f"units have failed: {failed}")


def _update(node: Node, saved: Saved) -> bool:
    """Update the machine, up to the boot loader entry. Raises NodeError if that fails."""
    node.sudo(saved.update, seconds=UPDATE_SECONDS)
    node.sudo(FINALIZE, seconds=UPDATE_SECONDS)
    first = node.status().deployments[0]
    if first.checksum != saved.new or first.staged:
        raise NodeError(f"the update was not taken: {first.checksum[:12]} boots next")
    return True


def table(results: Sequence[Round]) -> str:
    """The moments of the kills, by tenths of the update, against their outcomes, as text.

    >>> from rfe_helpers.prove import interruptions
    >>> kill = interruptions.Round(1, 0.5, 12.0, "old", True, "", restarts=0, seconds=95.0)
    >>> print(interruptions.table([kill]))
          moment   old   new  broken
      0.0 to 0.1     0     0       0
    ...
      0.5 to 0.6     1     0       0
    ...
    """
    lines = [f"{'moment':>12} {'old':>5} {'new':>5} {'broken':>7}"]
    counts: Counter[tuple[int, str]] = Counter()
    for result in results:
        counts[int(result.share * 10), "broken" if result.problem else result.booted] += 1
    for tenth in range(round(BEYOND * 10)):
        row = [counts[tenth, kind] for kind in ("old", "new", "broken")]
        label = f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}"
        lines.append(f"{label:>12} {row[0]:5} {row[1]:5} {row[2]:7}")
    good = sum(not result.problem and result.updated for result in results)
    lines.append(f"{len(results)} rounds, {good} ended well")
    return "\n".join(lines)


def problems(results: Sequence[Round]) -> list[str]:
    """One line for each round that did not end well.

    >>> from rfe_helpers.prove import interruptions
    >>> kill = interruptions.Round(1, 0.5, 12.0, "old", True, "", restarts=0, seconds=95.0)
    >>> interruptions.problems([kill])
    []
    """
    return [f"round {r.number} at {r.moment:.1f} s: {r.problem}" for r in results if r.problem]


def discard(saved: Saved) -> None:
    """Remove the files of `save`."""
    for path in (saved.memory, saved.disk, saved.disk.with_name("round.qcow2")):
        path.unlink(missing_ok=True)
