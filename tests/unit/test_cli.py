import json
import os
import signal
import subprocess
import sys

import pytest

from rfe_helpers import cli, run
from rfe_helpers.lab import Lab

RFE = [sys.executable, "-c", "import sys; from rfe_helpers.cli import main; sys.exit(main())"]


@pytest.fixture
def lab(tmp_path):
    yield Lab(tmp_path / "lab")
    run.set_journal(None)


def rfe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RFE, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["lab"], ["commit", "show"], ["run", "-p", "name"], ["doctor", "extra"]],
)
def test_wrong_usage_ends_with_2(arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_every_command_has_help_and_a_handler():
    def leaves(parser, words=()):
        groups = [
            a for a in parser._actions if hasattr(a, "choices") and isinstance(a.choices, dict)
        ]
        if not groups:
            yield words, parser
        for name, child in (groups[0].choices if groups else {}).items():
            yield from leaves(child, (*words, name))

    found = dict(leaves(cli.parser()))
    assert ("doctor",) in found
    assert ("lab", "clean") in found
    for words, parser in found.items():
        assert callable(parser.get_default("handler")), words
        assert parser.description, words


def test_an_error_is_printed_once_with_its_remedy_and_ends_with_1(tmp_path):
    result = rfe("commit", "show", str(tmp_path / "nothing.tar"))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("rfe: there is no ")
    assert result.stderr.count("nothing.tar") == 1
    assert "Traceback" not in result.stderr


def test_an_unknown_parameter_is_refused_before_anything_is_run(tmp_path):
    result = rfe("run", "00", "--lab", str(tmp_path / "lab"), "-p", "nmae", "x")
    assert result.returncode == 1
    assert "no notebook of this run has a parameter 'nmae'" in result.stderr
    assert not (tmp_path / "lab" / "runs").exists()


def test_an_unknown_notebook_leaves_no_lab(tmp_path):
    result = rfe("run", "77", "--lab", str(tmp_path / "lab"))
    assert result.returncode == 1
    assert "20-build-a-commit" in result.stderr
    assert not (tmp_path / "lab").exists()


def test_lab_show_tells_what_is_there(lab, capsys):
    lab.record("commit", ref="x/y")
    process = run.start(["sleep", "60"], log=lab.log("sleep"))
    lab.add_process("sleeper", process)
    lab.port("web", 18100)
    assert cli.main(["lab", "show", "--lab", str(lab.directory)]) == 0
    out = capsys.readouterr().out
    assert "profile sandbox" in out
    assert f"sleeper ({process.pid})" in out
    assert "commit (" in out
    assert cli.main(["lab", "show", "--json", "--lab", str(lab.directory)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["processes"] == {"sleeper": process.pid}
    assert told["results"]["commit"]["ref"] == "x/y"
    assert told["bytes"] > 0
    run.stop(process)


def test_lab_clean_ends_everything_and_removes_it(lab, capsys):
    process = run.start(["sleep", "60"], log=lab.log("sleep"))
    lab.add_process("sleeper", process)
    assert cli.main(["lab", "clean", "--lab", str(lab.directory)]) == 0
    assert f"ended sleeper (pid {process.pid})" in capsys.readouterr().out
    assert not process.alive
    assert not lab.directory.exists()


@pytest.mark.parametrize("command", ["show", "clean"])
def test_what_is_no_lab_is_left_alone(tmp_path, capsys, command):
    (tmp_path / "thesis.odt").write_text("years of work")
    assert cli.main(["lab", command, "--lab", str(tmp_path)]) == 1
    assert "there is no lab in" in capsys.readouterr().err
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.odt"]


def test_sandbox_status_of_a_lab_without_one(lab, capsys):
    assert cli.main(["sandbox", "status", "--lab", str(lab.directory)]) == 0
    assert "not running" in capsys.readouterr().out


def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path):
    """While it waits for a command that does not end: a fake `ostree` that sleeps."""
    fake = tmp_path / "bin" / "ostree"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 100\n")
    fake.chmod(0o755)
    (tmp_path / "repo" / "objects").mkdir(parents=True)
    child = subprocess.Popen(
        [*RFE, "commit", "show", str(tmp_path / "repo")],
        env={**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, "rfe: interrupted\n")
    assert run.ProcessId.of(int((tmp_path / "pid").read_text())) is None


def test_a_reader_that_goes_away_is_no_error():
    script = "import sys; from rfe_helpers.cli import main; sys.exit(main())"
    line = f'"{sys.executable}" -c "{script}" doctor --json | head -c 1 >/dev/null; '
    result = subprocess.run(
        ["bash", "-c", line + "echo ${PIPESTATUS[0]}"], capture_output=True, text=True, timeout=120
    )
    assert result.stdout == "0\n"
    assert result.stderr == ""


def test_the_command_line_starts_quickly():
    """`rfe commit packages` must not pay for Jupyter, papermill or matplotlib."""
    program = "import sys; import rfe_helpers.cli; import rfe_helpers.commit; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    for heavy in ("IPython", "papermill", "matplotlib", "nbformat", "requests", "uvicorn"):
        assert heavy not in loaded
