"""Headless runs of small notebooks, with real kernels."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from rfe_helpers.core.run import ProcessId
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import ParameterError
from rfe_helpers.workbook import headless
from rfe_helpers.workbook.chapters import FURTHER
from rfe_helpers.workbook.headless import find_notebooks, run_notebooks

pytestmark = pytest.mark.timeout(180)

PROGRESS = """\
from rfe_helpers.workbook import Progress, check
with Progress("Working", every=0) as progress:
    progress("half way")
check(number == 4, "the number is four", "give another")
"""


def outputs(path: Path) -> str:
    notebook = nbformat.read(path, as_version=4)
    return json.dumps([cell.get("outputs") for cell in notebook.cells], ensure_ascii=False)


def test_a_run_passes_parameters_and_leaves_copies_summary_and_report(lab, make):
    first = make("10-first", "## Work", PROGRESS)
    second = make("20-second", "print(word, keep, lab, profile)", "import sys; sys.executable")
    lines = []
    summary = run_notebooks([first, second], lab, {"number": "4", "keep": "no"}, lines.append)

    assert summary.status == "passed"
    on_disk = json.loads((summary.directory / "summary.json").read_text())
    assert on_disk == summary.to_json()
    assert [(n["name"], n["status"], n["failure"]) for n in on_disk["notebooks"]] == [
        ("10-first", "passed", None),
        ("20-second", "passed", None),
    ]
    assert summary.directory.parent == lab.directory / "runs"
    output = outputs(summary.notebooks[1].executed)
    assert f"hello False {lab.directory} sandbox" in output
    assert sys.executable in output  # the kernel of this environment, not another python3
    assert "✔ the number is four" in outputs(summary.notebooks[0].executed)
    report = summary.report.read_text()
    assert "10-first" in report
    assert "✔ the number is four" in report.replace("</b>", "")
    assert "http" not in report.replace("http://www.w3.org", "")

    assert lines[0] == "10-first"
    assert "    [ 5/5] Work" in lines  # with the cell that papermill adds
    assert any(line.endswith("✔ Working · 0:00 · done") for line in lines)
    assert lines[-1].startswith("    passed in")


def test_a_failing_cell_ends_the_run_and_comes_first_in_the_report(lab, make):
    first = make("10-first", PROGRESS)
    second = make("20-second", "print('never')")
    summary = run_notebooks([first, second], lab)

    assert summary.status == "failed"
    assert [result.status for result in summary.notebooks] == ["failed", "not run"]
    failure = summary.to_json()["notebooks"][0]["failure"]
    assert failure["error"] == "CheckFailedError"
    assert failure["message"] == "this does not hold: the number is four\nto do: give another"
    assert failure["source"].strip() == PROGRESS.strip()
    executed = outputs(summary.notebooks[0].executed)
    assert "half way" not in executed  # progress is one line that is replaced
    assert "Traceback" not in executed
    report = summary.report.read_text()
    assert report.index("give another") < report.index("<details")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"nmuber": "4"}, "no notebook of this run has a parameter 'nmuber'"),
        ({"number": "four"}, "parameter number must be int, not 'four'"),
        ({"keep": "perhaps"}, "parameter keep must be bool"),
        ({"seconds": "soon"}, "parameter seconds must be float"),
        ({"lab": "/tmp"}, "use the option --lab"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(lab, make, parameters, words):
    notebook = make("10-first", "print('never')")
    with pytest.raises(ParameterError) as caught:
        run_notebooks([notebook], lab, parameters)
    assert words in str(caught.value)
    assert not (lab.directory / "runs").exists()


def test_a_parameter_goes_only_to_the_notebooks_that_have_it(lab, make):
    first = make("10-first", "print('x' in globals())", parameters='y: str = "a"  # y')
    second = make("20-second", "print('x is', x)", parameters='x: str = "a"  # x')
    summary = run_notebooks([first, second], lab, {"x": "given"})
    assert summary.status == "passed"
    assert "False" in outputs(summary.notebooks[0].executed)
    assert "x is given" in outputs(summary.notebooks[1].executed)


def test_a_secret_in_an_output_fails_the_run_and_is_removed(lab, make):
    source = "print('-----BEGIN ' + 'PRIVATE KEY-----\\n' + 'AB' * 9)"
    summary = run_notebooks([make("10-first", "1", source)], lab)
    assert summary.status == "failed"
    assert summary.notebooks[0].failure.error == "SecretInOutput"
    assert summary.notebooks[0].failure.source == source
    for path in (summary.notebooks[0].executed, summary.report):
        assert "ABABAB" not in path.read_text()


def test_a_kernel_that_is_killed_fails_the_notebook(lab, make):
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    summary = run_notebooks([make("10-first", "print('so far')", kill)], lab)
    assert summary.status == "failed"
    assert summary.notebooks[0].failure.error == "DeadKernelError"
    assert "so far" in outputs(summary.notebooks[0].executed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_keep_the_copy_and_leave_nothing_running(number, lab, make, tmp_path):
    pids = tmp_path / "pids"
    sleep = (
        "import os; from rfe_helpers.core import run\n"
        f"run.run(['sh', '-c', f'echo {{os.getpid()}} $$ > {pids}; sleep 100'])"
    )
    notebook = make("10-first", "print('so far')", sleep)
    program = "import sys; from rfe_helpers.cli.main import main; sys.exit(main())"
    child = subprocess.Popen(
        [sys.executable, "-c", program, "run", str(notebook), "--lab", str(lab.directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: pids.exists() and pids.read_text().strip(), Deadline(60), "the cell runs")
    os.killpg(child.pid, number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert err == ""
    assert "interrupted: " in out
    kernel, command = map(int, pids.read_text().split())
    assert ProcessId.of(kernel) is None
    assert ProcessId.of(command) is None
    summary = next((lab.directory / "runs").glob("*/summary.json"))
    assert json.loads(summary.read_text())["status"] == "interrupted"
    assert "so far" in outputs(summary.parent / "10-first.ipynb")
    assert (summary.parent / "report.html").exists()


def test_two_runs_in_one_second_have_directories_of_their_own(lab, make):
    notebook = make("10-first", "1")
    first, second = (run_notebooks([notebook], lab).directory for _ in range(2))
    assert first != second


def test_notebooks_are_found_by_number_name_step_and_path(make):
    names = [path.name for path in find_notebooks()]
    assert names[0] == "00-start-here.ipynb"
    assert names == sorted(names)
    assert {name[:2] for name in names}.isdisjoint(FURTHER)
    all_notebooks = headless.all_notebooks()
    assert set(find_notebooks()) <= set(all_notebooks)
    assert all_notebooks == sorted(all_notebooks)
    build = headless.NOTEBOOKS / "20-build-a-commit.ipynb"
    for name in ("20", "20-build-a-commit", "commit", str(build)):
        assert find_notebooks([name]) == [build]
    own = make("own")
    assert find_notebooks([str(own), "20"]) == [own, build]


@pytest.mark.parametrize("name", ["99", "nothing.ipynb", ""])
def test_an_unknown_notebook_is_refused_with_the_known_ones(name):
    with pytest.raises(ParameterError, match="20-build-a-commit"):
        find_notebooks([name])
