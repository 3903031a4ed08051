import os
import subprocess
from pathlib import Path

import pytest
from support.trees import make_commit_tar, make_tree

from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import journal, run
from rfe_helpers.errors import InputError, MachineError, ParameterError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import disks
from rfe_helpers.workbook import solve
from rfe_helpers.workbook.chapters import number_of

QEMU_IO = ("qemu-io", "-c")


@pytest.fixture
def lab(tmp_path):
    yield Lab(tmp_path / "lab")
    journal.open_journal(None)


def names(paths: list[Path]) -> list[str]:
    return [number_of(path.name) for path in paths]


def built(lab: Lab) -> Path:
    artifact = lab.path("composes", "x-container.tar")
    directory = lab.directory.parent / "composed"
    tree = make_tree(lab.directory.parent / "tree.tar", {})
    Repo(directory / "repo").init().commit_tar(tree, "a/b", subject="x", packages=[])
    (directory / "compose.json").write_text("{}")
    make_commit_tar(artifact, directory)
    lab.record("commit", artifact=artifact, commit="c" * 64)
    return artifact


def test_in_a_new_lab_everything_before_is_missing(lab):
    assert names(solve.missing(lab, "40")) == ["10", "20", "30", "40"]
    assert names(solve.missing(lab, "10")) == ["10"]
    assert names(solve.missing(lab, "commit")) == ["10", "20"]


def test_a_notebook_without_a_step_is_run_after_those_it_builds_on(lab):
    assert names(solve.missing(lab, "00")) == ["00"]
    assert names(solve.missing(lab, "90")) == ["10", "20", "30", "40", "50", "60", "90"]


def test_the_optional_notebook_that_one_needs_is_run_before_it(lab):
    assert names(solve.missing(lab, "67"))[-3:] == ["60", "65", "67"]
    lab.record("trust", key="A")
    assert names(solve.missing(lab, "67"))[-3:] == ["60", "65", "67"], (
        "another update is to be signed"
    )
    assert names(solve.missing(lab, "70"))[-2:] == ["60", "70"]


def test_what_has_been_done_is_not_done_again(lab):
    built(lab)
    lab.record("inspect", packages=1)
    assert names(solve.missing(lab, "30")) == ["10"], "Image Builder is no longer running"


def test_a_commit_whose_file_was_cut_is_composed_again(lab):
    artifact = built(lab)
    assert "20" not in names(solve.missing(lab, "20"))
    os.truncate(artifact, artifact.stat().st_size // 2)
    assert "20" in names(solve.missing(lab, "20"))


def test_a_step_is_repeated_when_its_base_is_lost(lab):
    built(lab).unlink()
    lab.record("inspect", packages=1)
    disk = lab.path("machines", "edge-1", "disk.qcow2")
    disk.write_text("x")
    lab.record("install", disk=disk, machine="edge-1")
    assert names(solve.missing(lab, "50")) == ["10", "20", "30", "40", "50"]


def test_an_unknown_notebook_is_refused(lab):
    with pytest.raises(ParameterError, match="20-build-a-commit"):
        solve.missing(lab, "77")


def test_going_back_forgets_later_steps_and_removes_their_results(lab):
    artifact = built(lab)
    plain = lab.path("composes", "plain-commit.tar")
    plain.write_text("x")
    lab.record("image-builder", socket="x")
    lab.record("inspect", plain=plain)
    disk = lab.path("machines", "edge-1", "disk.qcow2")
    disk.write_text("x")
    lab.path("keys", "known_hosts-edge-1").write_text("x")
    process = run.start(["sleep", "60"], log=lab.log("sleep"))
    lab.record("install", disk=disk, machine="edge-1")
    lab.record("update", commit="d")

    assert solve.reset(lab, "50") == ["removed machine edge-1"]
    assert not disk.exists()
    assert not lab.path("keys", "known_hosts-edge-1").exists()
    assert artifact.exists()
    assert set(lab.state["steps"]) == {"image-builder", "commit", "inspect"}
    assert process.alive, "a process outside the lab is left alone"
    run.stop(process)

    assert solve.reset(lab, "30") == ["removed the commit for comparison"]
    assert not plain.exists()
    assert solve.reset(lab, "20") == ["removed x-container.tar"]
    assert set(lab.state["steps"]) == {"image-builder"}
    assert solve.reset(lab, "00") == []
    assert lab.state["steps"] == {}
    assert solve.reset(lab, "10") == []


def test_there_is_nothing_to_go_back_from_in_a_new_lab(lab):
    assert [solve.reset(lab, number) for number in ("60", "40", "20", "00")] == [[], [], [], []]


def test_going_back_before_the_update_keeps_the_installed_machine(lab):
    disk = disks.create(lab.path("machines", "edge-1", "disk.qcow2"), 1 << 20)
    subprocess.run([*QEMU_IO, "write -P 1 0 512", disk], check=True, capture_output=True)
    disks.keep(disk)
    subprocess.run([*QEMU_IO, "write -P 2 0 512", disk], check=True, capture_output=True)
    lab.record("commit", artifact=lab.path("composes", "gone.tar"), commit="c" * 64)
    lab.record("install", disk=disk, machine="edge-1")
    lab.record("update", commit="d")
    lab.path("keys", "known_hosts-edge-1").write_text("x")
    assert solve.reset(lab, "60") == ["restored the disk of edge-1 as it was installed"]
    read = subprocess.run([*QEMU_IO, "read -P 1 0 512", disk], capture_output=True, text=True)
    assert "Pattern verification failed" not in read.stdout
    assert lab.has("install")
    assert not lab.has("update")
    assert not lab.path("keys", "known_hosts-edge-1").exists()


def test_a_disk_without_a_snapshot_cannot_be_restored(tmp_path):
    disk = disks.create(tmp_path / "disk.qcow2", 1 << 20)
    with pytest.raises(MachineError, match="cannot be restored"):
        disks.revert(disk)


def test_there_is_no_going_back_before_a_notebook_that_leaves_nothing(lab):
    with pytest.raises(InputError, match="leaves nothing behind"):
        solve.reset(lab, "90")
