"""What proofs need of a lab: its machine, switched off, and the update that is published for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers import interruptions, powerloss, publication, serve
from rfe_helpers.diskcheck import Expected
from rfe_helpers.errors import InputError, MachineError, StepMissing
from rfe_helpers.interruptions import Saved
from rfe_helpers.lab import Lab
from rfe_helpers.ostree import Repo
from rfe_helpers.powerloss import Recording
from rfe_helpers.vm import Machine
from rfe_helpers.wait import Deadline

RECORD_SECONDS = 3600
Progress = Callable[[str], None] | None


@dataclass(frozen=True)
class Proof:
    """A lab's machine by its disk, which stays as it is, and the commit `new` it is to take."""

    lab: Lab
    disk: Path
    repo: Repo
    new: str

    @classmethod
    def of(cls, directory: str | Path, machine: str) -> Proof:
        """Raises StepMissing, InputError or MachineError with what is to be done first."""
        lab = Lab(directory)
        disk = lab.path("machines", machine, "disk.qcow2")
        if not disk.exists():
            raise StepMissing(
                f"this lab has no machine {machine}",
                remedy=f"install one first: `{lab.command('run 10 20 40 50')}`",
            )
        if Machine.find(lab, machine) is not None:
            raise MachineError(
                f"{machine} is running, and its disk must not change meanwhile",
                remedy="switch it off: `sudo poweroff` in it, or Stop in the panel of notebook 50",
            )
        site = serve.site(lab)
        repo = publication.of_lab(lab).repo
        if Path(site.artifact) != repo.path:
            raise InputError(
                "what this lab serves is one artifact, not a publication with the commits before",
                remedy="publish with publication.of_lab(lab), as notebook 65 does",
            )
        if not site.answers:
            raise StepMissing("the web server does not answer", remedy="run notebook 65 again")
        return cls(lab, disk, repo, repo.resolve(lab.profile.ostree.ref))

    @contextmanager
    def saved(self, on_progress: Progress = None) -> Iterator[Saved]:
        """The machine saved just before its update."""
        directory = self.lab.path("machines", "killed", "memory").parent
        port = self.lab.port("ssh-killed", 2222)
        saved = interruptions.save(
            *(self.lab, "killed", self.disk, directory),
            port=port,
            new=self.new,
            on_progress=on_progress,
        )
        try:
            yield saved
        finally:
            interruptions.discard(saved)

    @contextmanager
    def recorded(self, on_progress: Progress = None) -> Iterator[Recording]:
        """One update of the machine, recorded."""
        recording = powerloss.record(
            *(self.lab, "recorded", self.disk),
            self.lab.path("machines", "recorded", "recording", "x").parent,
            port=self.lab.port("ssh-recorded", 2222),
            deadline=Deadline(RECORD_SECONDS),
            on_progress=on_progress,
        )
        try:
            yield recording
        finally:
            powerloss.free(recording)

    def expected(self, recording: Recording) -> Expected:
        """What may be found on the disks of a recording."""
        interruptions.refuse_no_update(recording.old, self.new)
        commits = {"old": recording.old, "new": self.new}
        return Expected.of(self.repo, commits, self.lab.profile.ostree.osname, recording.kept)
