"""The texts and plots of proofs; the proofs themselves need machines (tests/system)."""

from pathlib import Path

import pytest

from rfe_helpers.errors import InputError, MachineError, StepMissingError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.qemu import VmSpec, argv
from rfe_helpers.prove import diskcheck, interruptions, plots, powerloss
from rfe_helpers.prove.diskcheck import BootEntry
from rfe_helpers.prove.interruptions import Round
from rfe_helpers.prove.powerloss import Outcome
from rfe_helpers.prove.proof import Proof

SYSLINUX = """\
DEFAULT Edge 2 (ostree:0)
LABEL Edge 1 (ostree:1)
\tKERNEL /ostree/edge-aa/vmlinuz-6
\tINITRD /ostree/edge-aa/initramfs-6.img
\tAPPEND root=UUID=1 rw ostree=/ostree/boot.1/edge/aa/0
LABEL Edge 2 (ostree:0)
\tKERNEL /ostree/edge-bb/vmlinuz-6
\tINITRD /ostree/edge-bb/initramfs-6.img
\tAPPEND root=UUID=1 console=tty0 ostree=/ostree/boot.1/edge/bb/0
"""


def test_boot_entries_have_the_default_first() -> None:
    assert diskcheck.boot_entries(SYSLINUX) == [
        BootEntry(
            "Edge 2 (ostree:0)",
            "/ostree/edge-bb/vmlinuz-6",
            "/ostree/edge-bb/initramfs-6.img",
            "/ostree/boot.1/edge/bb/0",
        ),
        BootEntry(
            "Edge 1 (ostree:1)",
            "/ostree/edge-aa/vmlinuz-6",
            "/ostree/edge-aa/initramfs-6.img",
            "/ostree/boot.1/edge/aa/0",
        ),
    ]
    assert diskcheck.boot_entries("") == []


def test_a_disk_without_a_system_is_reported(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1_000_000))
    expected = diskcheck.Expected(commits={}, trees={}, images={}, osname="edge", kept={})
    message = r"GRUB (does not find|cannot read) /loader/syslinux.cfg"
    with pytest.raises(MachineError, match=message):
        diskcheck.as_grub_sees(disk, expected)


def test_a_file_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError, match=r"syslinux\.cfg: No such file"),
        diskcheck.unreadable_is_damage(),
    ):
        (tmp_path / "loader/syslinux.cfg").read_text()


def test_the_table_of_kills() -> None:
    results = [
        Round(1, 0.1, 10.0, "old", True, "", 0, 9.0),
        Round(2, 0.99, 20.0, "new", True, "", 1, 9.0),
        Round(3, 1.05, 10.0, "new", False, "a fault", 0, 9.0),
    ]
    lines = interruptions.table(results).splitlines()
    assert lines[0].split() == ["moment", "old", "new", "broken"]
    assert lines[2].split() == ["0.1", "to", "0.2", "1", "0", "0"]
    assert lines[10].split() == ["0.9", "to", "1.0", "0", "1", "0"]
    assert lines[11].split() == ["1.0", "to", "1.1", "0", "0", "1"]
    assert lines[-1] == "3 rounds, 2 ended well"
    assert interruptions.problems(results) == ["round 3 at 10.5 s: a fault"]


def test_the_table_of_losses() -> None:
    outcomes = [
        Outcome(1, "before a flush", "old", ("old",), True, "", 1.0),
        Outcome(2, "before a flush", "old", ("old",), False, "", 1.0),
        Outcome(3, "partly written", "", (), True, "no kernel", 1.0),
        Outcome(4, "early part lost", "new", ("new", "old"), True, "", 1.0),
    ]
    assert [line.split() for line in powerloss.table(outcomes).splitlines()] == [
        ["before", "a", "flush", "boots", "old", "2"],
        ["early", "part", "lost", "boots", "new", "1"],
        ["partly", "written", "BROKEN", "1"],
        ["4", "states,", "ostree", "fsck", "on", "3", "of", "them"],
    ]


def test_a_picture_has_a_mark_for_each(tmp_path: Path) -> None:
    points = [(1.0, "killed", "old"), (2.0, "killed", "new"), (3.0, "killed", "broken")]
    figure = plots.plot(points, "three", "seconds")
    (axes,) = figure.axes
    assert [len(marks.get_offsets()) for marks in axes.collections] == [1, 1, 1]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["old: 1", "new: 1", "broken: 1"]
    picture = plots.save(figure, tmp_path / "plot.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_a_proof_needs_first_is_reported(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab")
    with pytest.raises(StepMissingError, match="no machine edge-1"):
        Proof.of(lab.directory, "edge-1")
    lab.path("machines", "edge-1", "disk.qcow2").touch()
    with pytest.raises(StepMissingError, match="not published anything"):
        Proof.of(lab.directory, "edge-1")


def test_an_update_to_the_running_commit_proves_nothing() -> None:
    with pytest.raises(InputError, match="no update to interrupt"):
        interruptions.refuse_no_update("a" * 64, "a" * 64)
    interruptions.refuse_no_update("a" * 64, "b" * 64)


def test_machines_that_log_their_writes_and_continue_from_a_file(tmp_path: Path) -> None:
    spec = VmSpec("edge", disk=Path("/d, 1"), write_log=Path("/log"), incoming=Path("/a b"))
    command = argv(spec, "tcg", tmp_path, tmp_path / "qmp")
    image = "driver=qcow2,node-name=image,file.driver=file,file.filename=/d,, 1"
    logged = "driver=blklogwrites,node-name=disk,file=image,log.driver=file,log.filename=/log"
    assert [command[i + 1] for i, word in enumerate(command) if word == "-blockdev"] == [
        image,
        logged,
    ]
    assert "virtio-blk-pci,drive=disk,bootindex=1" in command
    assert command[-2:] == ["-incoming", "exec:cat '/a b'"]
