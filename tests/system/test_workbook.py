"""The whole life of an edge system, as a reader runs it: `rfe run`, with a real machine."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from rfe_helpers.core.run import ProcessId
from rfe_helpers.workbook.headless import find_notebooks
from rfe_helpers.workbook.notebooks import NOTEBOOKS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
BIN = Path(sys.executable).parent
STEPS = {"image-builder", "commit", "inspect", "serve", "install", "update"}


def rfe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "rfe", *arguments], capture_output=True, text=True, timeout=2400)


def lab_state(lab: Path) -> dict:
    result = rfe("lab", "show", "--json", "--lab", str(lab))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def lab(workbook_lab):
    return workbook_lab


@pytest.fixture(scope="module")
def summary(workbook_summary):
    return workbook_summary


def test_every_notebook_passes(summary):
    assert summary["status"] == "passed"
    names = [path.stem for path in find_notebooks()]
    assert [(n["name"], n["status"]) for n in summary["notebooks"]] == [
        (n, "passed") for n in names
    ]


def test_the_lab_knows_what_was_done(summary, lab):
    state = lab_state(lab)
    assert set(state["steps"]) == STEPS
    results = state["results"]
    assert results["update"]["parent"] == results["commit"]["commit"]
    assert results["update"]["booted"] == results["install"]["commit"]
    assert "image-builder" in state["processes"]
    assert "machine-edge-1" in state["processes"]


def test_the_report_shows_the_machine_the_deployments_and_the_rollback(summary):
    report = Path(summary["report"]).read_text()
    pictures = re.findall(r'<img[^>]+src="data:image/png;base64,', report)
    assert len(pictures) >= 4  # two of the installation, one after the update, the sizes
    for words in (
        "● booted",
        "staged: boots next",
        "kept for rollback",
        "rolled back",
        "as measured now",
    ):
        assert words in report
    assert not re.search(r'<(img|script|link)[^>]+(src|href)="(?!data:)', report)


def test_no_executed_copy_has_an_error(summary):
    directory = Path(summary["report"]).parent
    for path in directory.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", ()):
                assert output.output_type != "error"
                assert output.get("name") != "stderr", output


def test_notebooks_can_be_run_again_and_alone(summary, lab):
    result = rfe("run", "10", "20", "40", "--lab", str(lab), "-p", "packages", "tmux nano")
    assert result.returncode == 0, result.stderr[-4000:]
    assert {"tmux", "nano"} <= set(packages_of(lab))


def packages_of(lab: Path) -> list[str]:
    artifact = lab_state(lab)["results"]["commit"]["artifact"]
    listed = json.loads(rfe("commit", "packages", "--json", artifact).stdout)
    return [package["name"] for package in listed]


def test_plain_papermill_runs_a_notebook(summary, lab, tmp_path):
    source = NOTEBOOKS / "10-install-image-builder.ipynb"
    command = [BIN / "papermill", source, tmp_path / "out.ipynb", "-p", "lab", lab, "-k", "python3"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert "✔ Image Builder answers" in (tmp_path / "out.ipynb").read_text()


@pytest.mark.full
def test_the_update_can_be_done_again(summary, lab):
    result = rfe("run", "40", "50", "60", "--lab", str(lab))
    assert result.returncode == 0, result.stderr[-4000:]
    assert rfe("run", "60", "--lab", str(lab)).returncode == 0


def test_clean_leaves_nothing(summary, lab):
    pids = lab_state(lab)["processes"].values()
    assert pids
    before = [ProcessId.of(pid) for pid in pids]
    assert rfe("lab", "clean", "--yes", "--lab", str(lab)).returncode == 0
    assert not any(process.alive for process in before if process)
    assert not lab.exists()
