"""`rfe lab` and `rfe ssh`."""

import json
import os
import pty
import shutil
import sys

import pytest
from support.command_line import rfe

from rfe_helpers.cli import main
from rfe_helpers.core import files, run
from rfe_helpers.workbook import headless

MACHINE = {"name": "edge-1", "disk": "/d", "forwards": [[2345, 22]]}


def test_lab_show_tells_what_is_there(lab, capsys):
    lab.record("commit", ref="x/y")
    process = run.start(["sleep", "60"], log=lab.log("sleep"))
    lab.add_process("sleeper", process)
    lab.port("web", 18100)
    assert main.main(["lab", "show", "--lab", str(lab.directory)]) == 0
    out = capsys.readouterr().out
    assert "profile sandbox" in out
    assert f"sleeper ({process.pid})" in out
    assert "commit (" in out
    assert main.main(["lab", "show", "--json", "--lab", str(lab.directory)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["processes"] == {"sleeper": process.pid}
    assert told["results"]["commit"]["ref"] == "x/y"
    assert told["bytes"] > 0
    run.stop(process)


def test_lab_clean_ends_everything_and_removes_it(lab, capsys):
    process = run.start(["sleep", "60"], log=lab.log("sleep"))
    lab.add_process("sleeper", process)
    assert main.main(["lab", "clean", "--yes", "--lab", str(lab.directory)]) == 0
    assert f"ended sleeper (pid {process.pid})" in capsys.readouterr().out
    assert not process.alive
    assert not lab.directory.exists()


@pytest.fixture
def terminal(monkeypatch):
    """A terminal at which somebody types what is written to it."""
    keyboard, screen = pty.openpty()
    with os.fdopen(screen) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield keyboard
    os.close(keyboard)


@pytest.mark.parametrize(("answer", "status"), [(b"n\n", 1), (b"\n", 1), (b"y\n", 0)])
def test_lab_clean_asks_and_says_what_would_go(lab, capsys, terminal, answer, status):
    lab.path("runs", "2026-01-01", "report.html").write_text("")
    lab.path("notebooks", "mine.ipynb").write_text("{}")
    os.write(terminal, answer)
    assert main.main(["lab", "clean", "--lab", str(lab.directory)]) == status
    out, err = capsys.readouterr()
    assert "report: runs/2026-01-01/report.html" in out
    assert "notebook of yours: notebooks/mine.ipynb" in out
    assert lab.directory.exists() == (status == 1)
    assert err.startswith("Delete all of it? [y/N]: ")
    assert ("nothing was deleted" in err) == (status == 1)


def test_lab_clean_deletes_nothing_where_nobody_can_answer(lab):
    result = rfe("lab", "clean", "--lab", str(lab.directory))
    assert result.returncode == 1
    assert "nothing was deleted\nto do: use --yes" in result.stderr
    assert lab.directory.exists()


@pytest.mark.parametrize("words", [["clean", "--yes"], ["reset", "20"]])
def test_a_run_keeps_its_lab(lab, words):
    with headless.running(lab):
        result = rfe("lab", *words, "--lab", str(lab.directory))
    assert result.returncode == 1
    assert f"another run is in progress in {lab.directory}: process {os.getpid()}" in result.stderr
    assert (lab.directory / "lab.json").exists()


def test_lab_clean_says_what_it_leaves(lab, capsys):
    lab.path("thesis.odt").write_text("years of work")
    assert main.main(["lab", "clean", "--yes", "--lab", str(lab.directory)]) == 0
    assert f"removed {lab.directory}, except for thesis.odt" in capsys.readouterr().out


def test_lab_list_shows_labs_how_far_they_are_and_what_runs(lab, capsys):
    process = run.start(["sleep", "60"], log=lab.log("sleep"))
    lab.add_process("jupyter", process)
    port = lab.port("jupyter", 8888)
    lab.record("inspect")
    lab.record("commit")
    try:
        assert main.main(["lab", "list"]) == 0
        shown = capsys.readouterr().out.partition(str(lab.directory))[2]
        assert "notebook 30 (inspect)" in shown
        assert f"JupyterLab: http://127.0.0.1:{port}" in shown
        assert main.main(["lab", "list", "--json"]) == 0
        listed = {each["directory"]: each for each in json.loads(capsys.readouterr().out)}
        assert listed[str(lab.directory)]["processes"] == {"jupyter": process.pid}
    finally:
        run.stop(process)


def test_lab_list_shows_what_runs_in_a_lab_that_is_gone(lab, capsys):
    disk = lab.path("machines", "edge-1", "disk.qcow2")
    argv = [sys.executable, "-c", "import time; time.sleep(60)", disk]
    process = run.start(argv, log=lab.log("machine"))
    shutil.rmtree(lab.directory)
    try:
        main.main(["lab", "list"])
        shown = capsys.readouterr().out.partition(f"{lab.directory} ")[2]
        assert "deleted" in shown.splitlines()[0]
        assert f"end them: kill {process.pid}\n" in shown
    finally:
        run.stop(process)
    main.main(["lab", "list"])
    assert str(lab.directory) not in capsys.readouterr().out


def test_rfe_ssh_says_which_machines_run(lab, capsys):
    assert main.main(["ssh", "edge-1", "--lab", str(lab.directory)]) == 1
    error = capsys.readouterr().err
    assert f"no machine edge-1 is running in {lab.directory}" in error
    assert "rfe solve 50 --lab" in error


def test_rfe_ssh_logs_in_with_the_key_and_port_of_the_lab(lab, tmp_path, monkeypatch):
    process = run.start(["sleep", "60"], log=lab.log("sleep"))
    lab.add_process("machine-edge-1", process)
    files.write_json(lab.path("machines", "edge-1", "machine.json"), MACHINE)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    try:
        result = rfe(
            "ssh", "edge-1", "--lab", str(lab.directory), "--", "rpm-ostree", "status", "-v"
        )
    finally:
        run.stop(process)
    words = result.stdout.splitlines()
    assert words[-6:] == ["-p", "2345", "core@127.0.0.1", "rpm-ostree", "status", "-v"]
    assert str(lab.directory / "keys" / "id_ed25519") in words


@pytest.mark.parametrize("command", ["show", "clean"])
def test_what_is_no_lab_is_left_alone(tmp_path, capsys, command):
    (tmp_path / "thesis.odt").write_text("years of work")
    assert main.main(["lab", command, "--lab", str(tmp_path)]) == 1
    assert "there is no lab in" in capsys.readouterr().err
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.odt"]
