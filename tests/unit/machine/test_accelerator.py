"""Whether guests run under KVM: what is asked, and what is remembered."""

import json
import os
import time
from pathlib import Path

import pytest

from rfe_helpers.errors import DeadlineExceededError
from rfe_helpers.machine import accelerator
from rfe_helpers.machine.accelerator import boots, find_accelerator

needs_kvm = pytest.mark.skipif(
    not os.access("/dev/kvm", os.R_OK | os.W_OK),
    reason="without /dev/kvm nothing is asked: machines are emulated",
)


@pytest.fixture
def hanging_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A QEMU that says its version and otherwise hangs; every start adds a line to a file."""
    programs, starts = tmp_path / "bin", tmp_path / "starts"
    programs.mkdir()
    program = programs / "qemu-system-x86_64"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo "QEMU emulator version 1"; exit; }\n'
        f"echo started >> {starts}\nexec sleep 60\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RFE_ACCEL", raising=False)
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 0.5)
    return starts


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinuz"
    path.write_bytes(b"a kernel")
    return path


def test_a_guest_that_neither_boots_nor_ends_is_no_answer(hanging_qemu: Path, kernel: Path) -> None:
    with pytest.raises(DeadlineExceededError):
        boots(kernel, "kvm")


@needs_kvm
def test_what_was_not_answered_in_time_is_remembered_for_a_day(
    hanging_qemu: Path, kernel: Path, tmp_path: Path
) -> None:
    assert find_accelerator(kernel) == find_accelerator(kernel) == "tcg"
    assert hanging_qemu.read_text() == "started\n"
    memory = tmp_path / "cache" / "accelerator.json"
    answer = json.loads(memory.read_text())
    assert 0 < answer["until"] - time.time() <= 86400
    memory.write_text(json.dumps({**answer, "until": time.time() - 1}))
    assert find_accelerator(kernel) == "tcg"
    assert hanging_qemu.read_text() == "started\nstarted\n"
