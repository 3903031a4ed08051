"""What a loss of power leaves of an update: every write of an update is recorded, then the disk is
rebuilt as it may have been at many points of it, and each of these disks is checked.

Killing QEMU does not show this, since the host's page cache survives. Instead, QEMU's blklogwrites
records each write and flush of the guest (rfe_helpers.prove.writelog). A disk is rebuilt as a raw
image of what was flushed and a qcow2 overlay for the rest and for the writes of the check itself.
qemu-storage-daemon exports both as one file (by FUSE), which is mounted; this needs root and a
kernel with the file system of the disk.

One result (docs/interruptions.md): XFS looks for holes only in the last 2 MiB of its log, and since
Linux 5.14 it may write a larger checkpoint without a flush within it. A drive that loses a part
further back and keeps what came later leaves a file system that does not mount. Therefore the
sandbox installs ext4, and some of the disks are chosen to be exactly like that.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core import progress, run
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import MachineError, ToolMissingError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import disks
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.qemu import VmSpec
from rfe_helpers.machine.vm import Machine
from rfe_helpers.prove.diskcheck import Expected, as_grub_sees, as_linux_sees
from rfe_helpers.prove.writelog import DiskState, Rebuilder, read, states

UPDATE = "rpm-ostree upgrade"


@dataclass(frozen=True)
class Recording:
    """One update from the commit `old`: the disk `before` it (raw), the `log` of its writes, and
    `start`, the index of the first entry after the update was requested; `seconds` from there to
    the end of the shutdown; `kept` are files with the content that no update may change."""

    before: Path
    log: Path
    start: int
    seconds: float
    old: str
    kept: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one disk state: `boots` is the commit that boots next, "old" or "new"; or it
    is "", and `problem` says why. `unflushed` is the number of bytes of which a part may be
    missing, `seconds` how long the check took."""

    point: int
    kind: str
    boots: str
    deployments: tuple[str, ...]
    fsck: bool
    problem: str
    seconds: float
    unflushed: int = 0


def record(
    lab: Lab,
    name: str,
    disk: Path,
    directory: Path,
    *,
    port: int,
    deadline: Deadline | float,
    update: str = UPDATE,
    on_progress: OnProgress = None,
) -> Recording:
    """Boot a copy of an installed disk, let it update, and record everything that it writes.

    `disk` is not changed; an update must be published. `update` is the command that stages it, such
    as `bootc switch IMAGE`. The files go to `directory`. Raises MachineError, NodeError or
    DeadlineExceededError.
    """
    say, limit = progress.say(on_progress), Deadline.of(deadline)
    directory.mkdir(parents=True, exist_ok=True)
    before, log = directory / "before.raw", directory / "writes.log"
    layer = directory / "overlay.qcow2"
    say("copying the disk")
    run.run(["qemu-img", "convert", "-O", "raw", disk, before], deadline=limit)
    disks.overlay(disk, layer)
    log.write_bytes(b"")
    spec = VmSpec(name, disk=layer, forwards=((port, 22),), reboots=False, write_log=log)
    machine = Machine.start(lab, spec)
    try:
        node = Node(lab, name, port=port)
        node.forget_host_key()  # a system that was never booted generates its own
        node.wait(limit, on_progress)
        old, kept = node.status().booted.checksum, leave_marks(node)
        size = log.stat().st_size
        began = time.monotonic()
        say("updating")
        node.sudo(in_background(update))
        wait_for(lambda: not machine.alive, limit, f"{name} has updated and shut down", every=1)
        seconds = time.monotonic() - began
    finally:
        machine.kill()
    start = next((i for i, entry in enumerate(read(log)) if entry.at > size), 0)
    layer.unlink()
    return Recording(
        before=before,
        log=log,
        start=start,
        seconds=seconds,
        old=old,
        kept=kept,
    )


def in_background(update: str) -> str:
    """The command that starts an update, and the reboot after it, and returns at once."""
    script = f"{update} && systemctl reboot"
    return shlex.join(["systemd-run", "--quiet", "--unit=update", "sh", "-c", script])


def leave_marks(node: Node) -> dict[str, str]:
    """Write a file to /etc and one to /var, which every update must keep; returns their texts by
    path."""
    marks = {"/etc/kept": "in /etc\n", "/var/lib/kept": "in /var\n"}
    for path, text in marks.items():
        node.sudo(f"printf %s '{text}' > {path}; sync")
    return marks


def check(
    recording: Recording,
    expected: Expected,
    *,
    number: int,
    seed: int,
    fsck_every: int = 1,
    on_outcome: Callable[[int, Outcome, Path], None] | None = None,
) -> list[Outcome]:
    """Rebuild `number` disk states, chosen by `seed`, and check each, every `fsck_every`-th with
    `ostree fsck`. `on_outcome` gets the index, the outcome and the raw disk before the check.
    Raises ToolMissingError if a tool is missing or the user is not root.

    >>> from rfe_helpers.prove import Proof, powerloss
    >>> proof = Proof.of("~/rfe-lab", "edge-1")  # doctest: +SKIP
    >>> with proof.recorded() as recording:  # doctest: +SKIP
    ...     expected = proof.expected(recording)
    ...     outcomes = powerloss.check(recording, expected, number=20, seed=1)
    """
    if os.geteuid() != 0:
        raise ToolMissingError(
            "checking disks requires root, which mounts them",
            remedy="run it with sudo, or in a virtual machine",
        )
    run.require("qemu-storage-daemon", "fusermount3", "losetup", "sfdisk", "grub-fstest")
    disk_states = states(read(recording.log), number, seed, recording.start)
    outcomes = []
    parent = recording.before.parent
    with tempfile.TemporaryDirectory(dir=parent, prefix="check-") as scratch:
        image = Path(scratch, "rolling.raw")
        run.run(["cp", "--sparse=always", recording.before, image])
        rebuilder = Rebuilder(image, recording.log)
        for index, state in enumerate(disk_states):
            rebuilder.roll(state)
            fsck = index % fsck_every == 0
            outcome = _check_state(rebuilder, state, expected, Path(scratch), fsck=fsck)
            outcomes.append(outcome)
            if on_outcome is not None:
                on_outcome(index, outcome, image)
    return outcomes


def _check_state(
    rebuilder: Rebuilder, state: DiskState, expected: Expected, scratch: Path, *, fsck: bool
) -> Outcome:
    began = time.monotonic()
    boots, deployments, problem = "", tuple[str, ...](), ""
    with disk_of(rebuilder, state, scratch) as disk:
        try:
            entries = as_grub_sees(disk, expected)
            boots, deployments = as_linux_sees(
                disk, expected, scratch / "mnt", grub_entries=entries, fsck=fsck
            )
        except MachineError as error:
            problem = error.message
    seconds = time.monotonic() - began
    return Outcome(
        point=state.point,
        kind=state.kind,
        boots=boots,
        deployments=deployments,
        fsck=fsck,
        problem=problem,
        seconds=seconds,
        unflushed=state.unflushed,
    )


@contextmanager
def disk_of(rebuilder: Rebuilder, state: DiskState, scratch: Path) -> Iterator[Path]:
    """A writable raw disk in `state`, discarded at the end of the block."""
    layer, export = scratch / "layer.qcow2", scratch / "disk.raw"
    disks.overlay(rebuilder.image, layer, backing_format="raw")
    export.touch()
    # fmt: off
    argv: list[str | Path] = [
        "qemu-storage-daemon",
        "--pidfile", scratch / "daemon.pid",
        "--blockdev", f"driver=file,node-name=file,filename={layer}",
        "--blockdev", "driver=qcow2,node-name=disk,file=file",
        "--export", f"type=fuse,id=e,node-name=disk,mountpoint={export},writable=on",
    ]
    # fmt: on
    process = run.start(argv, log=scratch / "daemon.log")
    try:
        wait_for(
            lambda: export.stat().st_size > 0, Deadline(30), "the disk is exported", every=0.01
        )
        with export.open("r+b") as disk:
            for offset, data in rebuilder.pieces(state):
                disk.seek(offset)
                disk.write(data)
        yield export
    finally:
        run.stop(process)
        run.run(["fusermount3", "-u", "-q", export], check=False)


def table(outcomes: list[Outcome]) -> str:
    """How often each outcome occurred, by kind of state, as text.

    >>> from rfe_helpers.prove import powerloss
    >>> outcome = powerloss.Outcome(7, "prefix", "old", (), True, "", seconds=2.0)
    >>> print(powerloss.table([outcome]))
    prefix           boots old         1
    1 states, ostree fsck on 1 of them
    """
    rows: Mapping[tuple[str, str], int] = Counter((o.kind, _verdict(o)) for o in outcomes)
    lines = [f"{kind:16} {verdict:12} {n:6}" for (kind, verdict), n in sorted(rows.items())]
    checked = sum(outcome.fsck for outcome in outcomes)
    return "\n".join([*lines, f"{len(outcomes)} states, ostree fsck on {checked} of them"])


def _verdict(outcome: Outcome) -> str:
    return "BROKEN" if outcome.problem else f"boots {outcome.boots}"


def free(recording: Recording) -> None:
    """Remove the files of a recording."""
    shutil.rmtree(recording.before.parent, ignore_errors=True)
