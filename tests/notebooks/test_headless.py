"""Headless runs of small notebooks, with real kernels."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from rfe_helpers.core.run import ProcessId
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import LabError, ParameterError
from rfe_helpers.workbook import notebooks
from rfe_helpers.workbook.chapters import FURTHER, number_of
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


def code_cells(path: Path) -> list:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def rfe_run(*arguments: object) -> list:
    program = "import sys; from rfe_helpers.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", program, "run", *map(str, arguments)]


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
    assert "    [ 2/2] Work" in lines  # as JupyterLab numbers cells, without the one papermill adds
    counts = [cell.execution_count for cell in code_cells(summary.notebooks[0].executed)]
    assert counts == [1, None, 2]
    assert (lab.directory / "runs" / "latest").readlink() == Path(summary.directory.name)
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
    assert failure["message"] == "this does not hold: the number is four"
    assert failure["remedy"] == "give another"
    assert failure["output"].endswith("✔ Working · 0:00 · done")
    executed_copy = nbformat.read(summary.notebooks[0].executed, as_version=4)
    assert executed_copy.cells[failure["cell"]].source == failure["source"]
    assert failure["source"].strip() == PROGRESS.strip()
    assert failure["number"] == 2
    assert summary.to_json()["notebooks"][1]["reason"] == "10-first failed"
    executed = outputs(summary.notebooks[0].executed)
    assert "half way" not in executed  # progress is one line that is replaced
    assert "Traceback" not in executed
    report = summary.report.read_text()
    assert report.index("give another") < report.index("<details")


EXERCISE = """\
## Exercise

<details><summary>How</summary>

```python
answer = {}
!echo the answer is {{answer}}
```

</details>"""
CHECK = 'exercise("the answer", lambda: answer == 42, "Change answer.")'


def test_exercises_are_done_with_their_solutions_if_asked_for(lab, make):
    sources = ("from rfe_helpers.workbook import exercise\nanswer = 0", EXERCISE.format(42), CHECK)
    notebook = make("10-first", *sources)
    summary = run_notebooks([notebook], lab)
    assert summary.status == "passed"
    assert "○ still open: the answer. Change answer." in outputs(summary.notebooks[0].executed)

    summary = run_notebooks([notebook], lab, solve=True)
    assert summary.status == "passed"
    executed = summary.notebooks[0].executed
    assert "the answer is 42" in outputs(executed)
    assert "✔ the answer" in outputs(executed)
    # the check keeps the number that it has in JupyterLab
    assert code_cells(executed)[-1].execution_count == 3
    assert len(code_cells(notebook)) == 3


def test_an_exercise_that_its_solution_leaves_open_fails_the_run(lab, make):
    sources = ("from rfe_helpers.workbook import exercise\nanswer = 0", EXERCISE.format(41), CHECK)
    summary = run_notebooks([make("10-first", *sources)], lab, solve=True)
    failure = summary.to_json()["notebooks"][0]["failure"]
    assert (failure["error"], failure["number"]) == ("OpenExercise", 3)
    assert failure["message"] == "○ still open: the answer. Change answer."
    assert failure["source"] == CHECK


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
    assert summary.notebooks[0].failure.source == kill
    assert summary.notebooks[0].failure.place == "cell [3]"
    assert "so far" in outputs(summary.notebooks[0].executed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_keep_the_copy_and_leave_nothing_running(number, lab, make, tmp_path):
    pids = tmp_path / "pids"
    sleep = (
        "import os; from rfe_helpers.core import run\n"
        f"run.run(['sh', '-c', f'echo {{os.getpid()}} $$ > {pids}; sleep 100'])"
    )
    notebook = make("10-first", "print('so far')", sleep)
    child = subprocess.Popen(
        rfe_run(notebook, "--lab", lab.directory, "--junit", tmp_path / "junit.xml"),
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
    error = ElementTree.parse(tmp_path / "junit.xml").find("testsuite/testcase/error")
    assert error.get("message") == "interrupted"


AGE = """\
import os, time
ticks = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
up = float(open("/proc/uptime").read().split()[0])
print("age", round(up - ticks / os.sysconf("SC_CLK_TCK"), 1), os.getpid())
"""
IMPORTED = "import sys; print('wave' in sys.modules, 'wave' in globals())"


def test_the_kernel_of_the_next_notebook_starts_ahead(lab, make):
    first = make("10-first", "import os, time; print(os.getpid()); time.sleep(5)")
    second = make("20-second", AGE, IMPORTED, "import wave", "1 / 0")
    last = make("30-last", "print('never')")
    summary = run_notebooks([first, second, last], lab)
    assert [result.status for result in summary.notebooks] == ["passed", "failed", "not run"]
    aged, imported = code_cells(summary.notebooks[1].executed)[2:4]
    assert imported.outputs[0].text == "True False\n", "the module is there, its name is not"
    _, age, pid = aged.outputs[0].text.split()
    assert float(age) > 3, "it started while the first one slept"
    pids = {code_cells(summary.notebooks[0].executed)[2].outputs[0].text.strip(), pid}
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    logs = sorted(path.name for path in summary.directory.glob("*.log"))
    assert logs == ["10-first.log", "20-second.log"], "the last one's kernel left nothing"
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_text() for child in children]
    assert not [command for command in commands if "ipykernel" in command]


def test_a_second_run_in_a_lab_is_refused_until_the_first_one_is_gone(lab, make, tmp_path):
    pid = tmp_path / "pid"
    sleep = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text('x'); time.sleep(100)"
    child = subprocess.Popen(
        rfe_run(make("10-first", sleep), "--lab", lab.directory), stdout=subprocess.PIPE
    )
    with child:
        wait_for(pid.exists, Deadline(60), "the cell runs")
        with pytest.raises(
            LabError, match=f"another run is in progress in .*: process {child.pid}, since"
        ):
            run_notebooks([make("50-other", "1")], lab)
        assert len(list((lab.directory / "runs").glob("2*"))) == 1
        child.kill()
    assert run_notebooks([make("10-again", "1")], lab).status == "passed"


def test_what_does_not_need_the_failed_notebook_is_run_and_ci_gets_its_files(lab, make, tmp_path):
    """`--keep-going`, `--junit`, `--out`, and what a CI log ends with."""
    builder = lab.log("builder")
    builder.write_text("\n".join(f"\x1b[31mline {number}\x1b[0m" for number in range(100)))
    fails = (
        "from pathlib import Path; from rfe_helpers.errors import RfeError\n"
        f"raise RfeError('it broke', log=Path({str(builder)!r}), remedy='try <again>')"
    )
    check = "from rfe_helpers.workbook import check\ncheck(True, 'one & all')"
    notebooks = [make("20-second", "1", fails), make("30-third", "1"), make("80-eighth", check)]
    junit, out = tmp_path / "new" / "junit.xml", tmp_path / "out"
    options = ["--keep-going", "--junit", junit, "--out", out, "--lab", lab.directory]
    result = subprocess.run(rfe_run(*notebooks, *options), capture_output=True, text=True)

    assert result.returncode == 1
    assert "not run: 30-third (it needs 20-second, which failed)" in result.stdout.splitlines()
    lines = result.stderr.splitlines()
    assert lines[0] == "✘ 20-second, cell [3]: RfeError"
    assert lines[1:4] == ["  it broke", f"  log: {builder}", "  to do: try <again>"]
    assert lines[-1] == "  | \x1b[31mline 99\x1b[0m"
    assert len(lines) < 25
    results = json.loads((out / "summary.json").read_text())["notebooks"]
    assert [each["status"] for each in results] == ["failed", "not run", "passed"]
    assert {path.suffix for path in out.iterdir()} == {".ipynb", ".log", ".json", ".html"}

    suites = {suite.get("name"): suite for suite in ElementTree.parse(junit).getroot()}
    assert list(suites) == [path.stem for path in notebooks]
    cases = [case.get("name") for case in suites["80-eighth"]]
    assert cases == ["one & all", "runs to its end"]
    assert suites["20-second"].get("failures") == "1"
    failure = suites["20-second"].find("testcase/failure")
    assert failure.get("message") == "cell [3]: it broke (to do: try <again>)"
    assert "raise RfeError" in failure.text
    assert "line 99" in failure.text
    skipped = suites["30-third"].find("testcase/skipped")
    assert skipped.get("message") == "it needs 20-second, which failed"


def test_two_runs_in_one_second_have_directories_of_their_own(lab, make):
    notebook = make("10-first", "1")
    first, second = (run_notebooks([notebook], lab).directory for _ in range(2))
    assert first != second


def test_notebooks_are_found_by_number_name_step_and_path(make):
    names = [path.name for path in find_notebooks()]
    assert names[0] == "00-start-here.ipynb"
    assert names == sorted(names)
    assert {number_of(name) for name in names}.isdisjoint(FURTHER)
    all_notebooks = notebooks.all_notebooks()
    assert set(find_notebooks()) <= set(all_notebooks)
    numbers = [int(number_of(path.name)) for path in all_notebooks]
    assert numbers == sorted(numbers)
    build = notebooks.NOTEBOOKS / "20-build-a-commit.ipynb"
    for name in ("20", "20-build-a-commit", "commit", str(build)):
        assert find_notebooks([name]) == [build]
    own = make("own")
    assert find_notebooks([str(own), "20"]) == [own, build]


@pytest.mark.parametrize("name", ["99", "nothing.ipynb", ""])
def test_an_unknown_notebook_is_refused_with_the_known_ones(name):
    with pytest.raises(ParameterError, match="20-build-a-commit"):
        find_notebooks([name])
