"""What a loss of power leaves of an update: every write of one is recorded, then the disk is built
as it would be at many points of it, and each of these disks is checked.

A killed QEMU is not enough to show this, since the host's page cache outlives it. QEMU's
blklogwrites keeps each write and flush of the guest instead (rfe_helpers.prove.writelog). The disk
is put together as a raw image of what was flushed, with a qcow2 layer on it that takes the rest and
what the check itself writes. qemu-storage-daemon shows both as one file (a FUSE export), which is
mounted: this needs root and a kernel with the file system of the disk.

One thing was found (docs/interruptions.md): XFS looks for holes in the last 2 MiB of its log only,
and since Linux 5.14 may write a larger checkpoint without a flush in it. A drive that loses a part
of that which is further back, and keeps what came later, leaves a file system that does not mount.
The sandbox installs ext4 therefore, and some of the disks are chosen to be just like that.
"""

from __future__ import annotations

import os
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

UPDATE = "rpm-ostree upgrade && systemctl reboot"


@dataclass(frozen=True)
class Recording:
    """One update from the commit `old`: the disk before it (raw), the log of writes, and the index
    of the first entry after the update was asked for; `seconds` from there to the end of the
    shutdown; `kept` are files with the content that no update may change."""

    before: Path
    log: Path
    start: int
    seconds: float
    old: str
    kept: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """What became of one state: `boots` next is "old" or "new", or "" and `problem` says why.
    `unflushed` are the bytes of which a part may be missing."""

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
    deadline: Deadline,
    on_progress: OnProgress = None,
) -> Recording:
    """Boot a copy of an installed disk, let it update, and record all that it writes.

    `disk` stays as it is; an update must be published. The files go to `directory`.
    """
    say = progress.say(on_progress)
    directory.mkdir(parents=True, exist_ok=True)
    before, log, layer = (directory / f for f in ("before.raw", "writes.log", "overlay.qcow2"))
    say("copying the disk")
    run.run(["qemu-img", "convert", "-O", "raw", disk, before], deadline=deadline)
    disks.overlay(disk, layer)
    log.write_bytes(b"")
    spec = VmSpec(name, disk=layer, forwards=((port, 22),), reboots=False, write_log=log)
    machine = Machine.start(lab, spec)
    try:
        node = Node(lab, name, port=port)
        node.forget_host_key()  # a system that was never booted makes its own now
        node.wait(deadline, on_progress)
        old, kept = node.status().booted.checksum, leave_marks(node)
        size = log.stat().st_size
        began = time.monotonic()
        say("updating")
        node.sudo(f"systemd-run --quiet --unit=update sh -c '{UPDATE}'")
        wait_for(lambda: not machine.alive, deadline, f"{name} has updated and shut down", every=1)
        seconds = time.monotonic() - began
    finally:
        machine.kill()
    start = next((i for i, entry in enumerate(read(log)) if entry.at > size), 0)
    layer.unlink()
    return Recording(before, log, start, seconds, old, kept)


def leave_marks(node: Node) -> dict[str, str]:
    """Files in /etc and /var of a machine that must be there after whatever happens."""
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
    """Build `number` states, chosen by `seed`, and check each; every `fsck_every`-th with `ostree
    fsck`, the others without. `on_outcome` sees each with the raw disk, as it was before the check.
    """
    if os.geteuid() != 0:
        raise ToolMissingError(
            "checking disks mounts them, which only root may",
            remedy="run it with sudo, or in a virtual machine",
        )
    run.require("qemu-storage-daemon", "fusermount3", "losetup", "sfdisk", "grub-fstest")
    chosen = states(read(recording.log), number, seed, recording.start)
    outcomes = []
    parent = recording.before.parent
    with tempfile.TemporaryDirectory(dir=parent, prefix="check-") as scratch:
        image = Path(scratch, "rolling.raw")
        run.run(["cp", "--sparse=always", recording.before, image])
        rebuilder = Rebuilder(image, recording.log)
        for index, state in enumerate(chosen):
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
            shown = as_grub_sees(disk, expected)
            boots, deployments = as_linux_sees(
                disk, expected, scratch / "mnt", shown=shown, fsck=fsck
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
    """A raw disk in `state`, writable, that is thrown away afterwards."""
    layer, export = scratch / "layer.qcow2", scratch / "disk.raw"
    disks.overlay(rebuilder.image, layer, backing_format="raw")
    export.touch()
    socket = scratch / "daemon.pid"
    process = run.start(
        [
            *("qemu-storage-daemon", "--pidfile", socket),
            *("--blockdev", f"driver=file,node-name=file,filename={layer}"),
            *("--blockdev", "driver=qcow2,node-name=disk,file=file"),
            *("--export", f"type=fuse,id=e,node-name=disk,mountpoint={export},writable=on"),
        ],
        log=scratch / "daemon.log",
    )
    try:
        wait_for(lambda: export.stat().st_size > 0, Deadline(30), "the disk is shown", every=0.01)
        with export.open("r+b") as disk:
            for where, data in rebuilder.pieces(state):
                disk.seek(where)
                disk.write(data)
        yield export
    finally:
        run.stop(process)
        run.run(["fusermount3", "-u", "-q", export], check=False)


def table(outcomes: list[Outcome]) -> str:
    """How often each outcome came, by kind of state."""
    rows: Mapping[tuple[str, str], int] = Counter((o.kind, _what(o)) for o in outcomes)
    lines = [f"{kind:16} {what:12} {count:6}" for (kind, what), count in sorted(rows.items())]
    checked = sum(outcome.fsck for outcome in outcomes)
    return "\n".join([*lines, f"{len(outcomes)} states, ostree fsck on {checked} of them"])


def _what(outcome: Outcome) -> str:
    return "BROKEN" if outcome.problem else f"boots {outcome.boots}"


def free(recording: Recording) -> None:
    """Remove a recording."""
    shutil.rmtree(recording.before.parent, ignore_errors=True)
