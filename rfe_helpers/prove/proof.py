"""What proofs need from a lab: a machine that is off, and the update that is published for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers import serve
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import InputError, MachineError, StepMissingError
from rfe_helpers.lab import ports
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.vm import Machine
from rfe_helpers.prove import interruptions, powerloss
from rfe_helpers.prove.diskcheck import Expected
from rfe_helpers.prove.interruptions import Saved
from rfe_helpers.prove.powerloss import Recording
from rfe_helpers.serve.publication import Publication

RECORD_SECONDS = 3600


@dataclass(frozen=True)
class Proof:
    """The disk of a lab's machine, which is not changed, and `new`, the commit published for it.

    For example:

    >>> from rfe_helpers.prove import Proof
    >>> proof = Proof.of("~/rfe-lab", "edge-1")  # doctest: +SKIP
    >>> with proof.recorded() as recording:  # doctest: +SKIP
    ...     expected = proof.expected(recording)
    """

    lab: Lab
    disk: Path
    repo: Repo
    new: str

    @classmethod
    def of(cls, directory: str | Path, machine: str) -> Proof:
        """The proof for a machine of the lab in `directory`. Raises StepMissingError, InputError or
        MachineError with what has to be done first."""
        lab = Lab(directory)
        disk = lab.path("machines", machine, "disk.qcow2")
        if not disk.exists():
            raise StepMissingError(
                f"this lab has no machine {machine}",
                remedy=f"install one first: `{lab.command('solve 50')}`",
            )
        if Machine.find(lab, machine) is not None:
            raise MachineError(
                f"{machine} is running, but its disk must not change during a proof",
                remedy="switch it off: `sudo poweroff` on it, or Stop in the panel of notebook 50",
            )
        site = serve.published(lab)
        repo = Publication.of(lab).repo
        if Path(site.artifact) != repo.path:
            raise InputError(
                "this lab serves a single artifact, not a publication with the earlier commits",
                remedy="publish with Publication.of(lab), as notebook 65 does",
            )
        if not site.answers:
            raise StepMissingError("the web server does not answer", remedy="run notebook 65 again")
        return cls(lab=lab, disk=disk, repo=repo, new=repo.resolve(lab.profile.ostree.ref))

    @contextmanager
    def saved(self, on_progress: OnProgress = None) -> Iterator[Saved]:
        """The machine saved just before its update; discarded at the end of the block."""
        saved = interruptions.save(
            self.lab,
            "killed",
            self.disk,
            self.lab.folder("machines", "killed"),
            port=self.lab.port("ssh-killed", ports.SSH),
            new=self.new,
            on_progress=on_progress,
        )
        try:
            yield saved
        finally:
            interruptions.discard(saved)

    @contextmanager
    def recorded(self, on_progress: OnProgress = None) -> Iterator[Recording]:
        """A recording of one update of the machine; removed at the end of the block."""
        recording = powerloss.record(
            self.lab,
            "recorded",
            self.disk,
            self.lab.folder("machines", "recorded", "recording"),
            port=self.lab.port("ssh-recorded", ports.SSH),
            deadline=Deadline(RECORD_SECONDS),
            on_progress=on_progress,
        )
        try:
            yield recording
        finally:
            powerloss.free(recording)

    def expected(self, recording: Recording) -> Expected:
        """What the disks of a recording may hold. Raises InputError if nothing was updated."""
        interruptions.refuse_no_update(recording.old, self.new)
        commits = {"old": recording.old, "new": self.new}
        return Expected.of(self.repo, commits, self.lab.profile.ostree.osname, recording.kept)
