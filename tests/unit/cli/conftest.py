"""New labs, one with the sandbox's service in this process and a fake outside as Image Builder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import sandbox_service
from support.sandbox_service import Running

from rfe_helpers.core import journal, run
from rfe_helpers.lab.lab import Lab
from rfe_helpers.sandbox.service.packages import Index


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A new lab; what it runs is not written to its journal afterwards."""
    yield Lab(tmp_path / "lab")
    journal.open_journal(None)


@pytest.fixture
def service(tmp_path: Path, index: Index) -> Iterator[Running]:
    with sandbox_service.running(tmp_path / "service", index) as service:
        yield service


@pytest.fixture
def builder_lab(tmp_path: Path, service: Running) -> Iterator[Lab]:
    """Its socket leads to the service; a sleeping process stands for that of the service."""
    lab = Lab(tmp_path / "lab")
    process = run.start(["sleep", "600"], log=lab.log("sleep"))
    lab.add_process("image-builder", process)
    lab.socket("image-builder.sock").symlink_to(service.socket)
    yield lab
    run.stop(process)
    journal.open_journal(None)
