import json
import multiprocessing
import os
import socket
import stat
import subprocess
import sys

import pytest

from rfe_helpers.core import journal, network, run
from rfe_helpers.core.network import free_port, port_is_free
from rfe_helpers.errors import LabError, RfeError, StepMissingError
from rfe_helpers.lab.lab import Lab, default_directory
from rfe_helpers.workbook.chapters import FURTHER, LIFE_CYCLE


@pytest.fixture
def lab(tmp_path):
    yield Lab(tmp_path / "lab")
    journal.open_journal(None)


def test_a_new_lab_is_private_and_has_the_sandbox_profile(lab):
    assert stat.S_IMODE(lab.directory.stat().st_mode) == 0o700
    assert lab.profile.name == "sandbox"
    assert len(lab.id) == 8


def test_opening_it_again_finds_the_same_lab(lab):
    lab.record("commit", id="abc")
    again = Lab(lab.directory)
    assert again.id == lab.id
    assert again.step("commit")["id"] == "abc"


def test_another_profile_is_refused(lab):
    with pytest.raises(LabError, match="is a lab for profile sandbox, not other"):
        Lab(lab.directory, "other")


def test_a_directory_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="choose another directory"):
        Lab(tmp_path / "file")


def test_a_step_keeps_plain_values_and_when(lab, tmp_path):
    lab.record("commit", path=tmp_path, size=3)
    step = lab.step("commit")
    assert step["path"] == str(tmp_path)
    assert step["size"] == 3
    assert step["at"].startswith("20")
    assert lab.has("commit")
    lab.forget("commit", "never")
    assert not lab.has("commit")


def test_a_missing_step_names_what_to_run(lab):
    for number, _, step in [*LIFE_CYCLE, *((n, "", s) for n, s in FURTHER.items())]:
        with pytest.raises(StepMissingError, match=f"notebook {number} has not been") as caught:
            lab.step(step)
        assert f"`rfe solve {number} --lab {lab.directory}`" in caught.value.remedy
    with pytest.raises(StepMissingError, match="no result of step 'builder'") as caught:
        lab.step("builder")
    assert caught.value.remedy == ""


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_not_the_current_directory(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError, match="the lab's directory is empty"):
        Lab(name)
    assert list(tmp_path.iterdir()) == []
    assert Lab(".").directory == tmp_path


def test_a_port_is_chosen_once_and_not_given_twice(lab):
    first = lab.port("web", 18300)
    second = lab.port("ssh", 18300)
    assert first != second
    assert lab.port("web", 1) == first


def test_a_port_in_use_is_passed_over(lab):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert not port_is_free(taken)
        assert lab.port("web", taken) != taken


def test_sweep_ends_processes_and_removes_containers(lab):
    process = run.start(["sleep", "60"], log=lab.log("sleep"))
    lab.add_process("sleeper", process)
    lab.add_container("rfe-mirror-x")
    assert lab.process("sleeper") == process
    removed = []
    ended = Lab(lab.directory).sweep(removed.append)
    assert not process.alive
    assert removed == ["rfe-mirror-x"]
    assert ended == [f"sleeper (pid {process.pid})", "container rfe-mirror-x"]
    assert lab.sweep(removed.append) == []


def test_a_container_that_cannot_be_removed_does_not_spare_the_processes(lab):
    process = run.start(["sleep", "60"], log=lab.log("sleep"))
    lab.add_process("sleeper", process)
    lab.add_container("stuck")

    def fail(name):
        raise RfeError(f"{name} is stuck")

    with pytest.raises(RfeError, match="stuck is stuck"):
        lab.sweep(fail)
    assert not process.alive
    assert lab.state["containers"] == ["stuck"]


def test_clean_removes_the_directory(lab):
    lab.path("machines", "edge-1", "disk").write_text("x")
    lab.clean()
    assert not lab.directory.exists()


def test_clean_spares_what_is_not_of_the_lab(lab):
    (lab.directory / "thesis.odt").write_text("years of work")
    lab.path("machines", "edge-1", "disk").write_text("x")
    lab.clean()
    assert [p.name for p in lab.directory.iterdir()] == ["thesis.odt"]


def test_a_command_to_be_typed_names_the_lab(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Lab().command("lab clean") == "rfe lab clean"
    assert Lab(tmp_path / "my lab").command("run 40") == f"rfe run 40 --lab '{tmp_path}/my lab'"
    assert default_directory() == "~/rfe-lab"
    monkeypatch.setenv("RFE_LAB", "/elsewhere")
    assert default_directory() == "/elsewhere"
    with pytest.raises(StepMissingError) as caught:
        lab.step("commit")
    assert f"`rfe solve 20 --lab {lab.directory}`" in caught.value.remedy


def test_a_damaged_state_is_reported(lab):
    (lab.directory / "lab.json").write_text("{")
    with pytest.raises(LabError, match="is damaged"):
        Lab(lab.directory)


def test_a_state_of_another_version_is_refused(lab):
    state = json.loads((lab.directory / "lab.json").read_text())
    (lab.directory / "lab.json").write_text(json.dumps({**state, "version": 99}))
    with pytest.raises(LabError, match="another version"):
        Lab(lab.directory)


def test_a_socket_path_is_short_and_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    deep = Lab(tmp_path / ("d" * 90))
    path = deep.socket("machine.qmp")
    assert len(str(path)) < 107
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    journal.open_journal(None)


@pytest.mark.parametrize("which", ["runtime", "runtime/rfe-{id}"])
def test_sockets_are_not_put_where_somebody_else_could_exchange_them(which, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    deep = Lab(tmp_path / ("d" * 90))
    foreign = tmp_path / which.format(id=deep.id)
    foreign.parent.mkdir(exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    foreign.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LabError, match="not a directory of yours"):
        deep.socket("machine.qmp")
    journal.open_journal(None)


def _record(arguments):
    directory, number = arguments
    Lab(directory).record(f"step-{number}", number=number)


def test_many_processes_may_write_at_once(lab):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(_record, [(lab.directory, number) for number in range(20)])
    assert len(lab.state["steps"]) == 20


def test_a_process_of_another_program_is_found(lab):
    program = (
        "import sys; from rfe_helpers.core import run; from rfe_helpers.lab.lab import Lab\n"
        f"lab = Lab({str(lab.directory)!r})\n"
        "lab.add_process('sleeper', run.start(['sleep', '60'], log=lab.log('s')))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    process = lab.process("sleeper")
    assert process is not None
    lab.sweep()
    assert not process.alive


def test_the_path_of_a_socket_is_short_in_bytes(tmp_path):
    lab = Lab(tmp_path / ("ü" * 40))
    assert len(os.fsencode(lab.socket("x.sock"))) < 108


# ports --------------------------------------------------------------------------------------------


def test_labs_do_not_choose_the_same_port_though_nobody_listens(tmp_path):
    labs = [Lab(tmp_path / f"lab-{number}") for number in range(12)]
    chosen = [lab.port("web", 8000) for lab in labs]
    assert len(set(chosen)) == len(labs)
    assert chosen == [lab.port("web", 8000) for lab in labs]


def test_the_usual_lab_has_the_ports_that_the_text_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    preferred = free_port()
    usual = Lab()
    assert usual.port("web", preferred) == preferred
    assert usual.port("ssh", preferred) != preferred
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = server.getsockname()[1]
        assert usual.port("console", busy) != busy


def test_the_usual_labs_of_two_users_have_different_ports(tmp_path, monkeypatch):
    """Nothing listens yet, or both were stopped: they must differ all the same."""
    preferred = free_port()
    chosen = []
    for uid in (1000, 1007):
        monkeypatch.setenv("HOME", str(tmp_path / str(uid)))
        monkeypatch.setattr(os, "getuid", lambda uid=uid: uid)
        chosen.append(Lab().port("web", preferred))
    assert chosen == [preferred, preferred + 7]


def test_a_machine_without_a_free_port(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "free_port", lambda taken: None)
    with pytest.raises(LabError, match="no TCP port"):
        Lab(tmp_path / "lab").port("web", 8000)
