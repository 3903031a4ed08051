"""The whole life of an edge system, as a reader runs it: `rfe run`, with a real machine."""

import html
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest

from rfe_helpers import Deadline, Lab, Node, imagemode, serve
from rfe_helpers.commit import open_commit
from rfe_helpers.core.network import free_port
from rfe_helpers.core.run import ProcessId
from rfe_helpers.core.wait import wait_for
from rfe_helpers.install import kickstart
from rfe_helpers.lab.cache import cache_directory
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


@pytest.fixture
def fresh_service(tmp_path):
    """The socket of an Image Builder that knows nothing yet."""
    socket = tmp_path / "service" / "api.sock"
    command = [sys.executable, "-m", "rfe_helpers.sandbox", "--cache", cache_directory()]
    command += ["--socket", socket, "--state", socket.parent / "state"]
    socket.parent.mkdir()
    with (tmp_path / "service.log").open("w") as log:
        service = subprocess.Popen(command, stdout=log, stderr=log)
    wait_for(socket.exists, Deadline(60), "the service listens")
    yield socket
    service.terminate()
    service.wait(60)


def test_what_was_run_can_be_run_again_as_a_script(summary, lab, fresh_service, tmp_path):
    script = rfe("lab", "commands", "20", "30", "40", "--lab", str(lab))
    assert script.returncode == 0, script.stderr
    directory, port = tmp_path / "empty", free_port()
    directory.mkdir()
    variables = {"SOCKET": str(fresh_service), "PORT": str(port), "ID": f"test-{port}"}
    try:
        result = subprocess.run(
            ["bash"],
            input=script.stdout,
            cwd=directory,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert result.returncode == 0, f"{script.stdout}\n{result.stderr[-4000:]}"
        ref = lab_state(lab)["results"]["commit"]["ref"]
        served = open_commit(f"http://127.0.0.1:{port}/repo/", ref)
        assert sorted(package.name for package in served.packages()) == sorted(packages_of(lab))
        assert served.id != lab_state(lab)["results"]["commit"]["commit"]
    finally:
        subprocess.run(["podman", "rm", "--force", "--ignore", f"rfe-mirror-test-{port}"])
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((directory / "lab/www/nginx.pid").read_text()), signal.SIGTERM)


def test_the_report_names_the_commands_of_the_seed_text(summary):
    report = html.unescape(Path(summary["report"]).read_text())
    for command in (
        "composer-cli blueprints push edge.toml",
        "composer-cli compose start-ostree edge edge-container",
        "composer-cli compose image",
        "qemu-img create",
        "qemu-system-x86_64",
        "rpm-ostree",
        "systemctl reboot",
    ):
        assert command in report, command


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


def test_the_machine_goes_to_an_image_and_back(summary, lab, tmp_path):
    """What notebook 100 begins with; all of it is in make test-full."""
    here = Lab(lab)
    installed = here.step("install")
    edge = Node(here, "edge-1", port=installed["ssh_port"], user=installed["user"])
    commit = edge.status().booted.checksum
    base = imagemode.push_base(here)
    text = f"FROM {base.reference}\nRUN echo one > /usr/share/edition && bootc container lint\n"
    (tmp_path / "Containerfile").write_text(text)
    image = imagemode.build_image(here, tmp_path, "1")
    registry = serve.registry.find(here).guest_address
    edge.sudo(kickstart.registry_script(registry))
    edge.sudo(f"bootc switch {registry}/{image.name}", seconds=900)
    edge.reboot(Deadline(900))
    assert imagemode.read_host(edge).digest == image.digest
    assert edge.read("/usr/share/edition") == "one\n"
    assert edge.read("/etc/where-i-am").strip() == "shop 17"  # of notebook 60
    edge.rollback()
    edge.reboot(Deadline(900))
    assert edge.status().booted.checksum == commit


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
