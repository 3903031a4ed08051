"""`rfe run --matrix` with real clusters of Dask, real kernels and a small notebook."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.command_line import RFE

from rfe_helpers.core.run import ProcessId
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.lab.lab import Lab

pytestmark = pytest.mark.timeout(300)

# Each run leaves its word, number and kernel in a file, and a process in its lab, as a machine is.
BEGIN = """\
import os, pathlib, time
from rfe_helpers import Lab
from rfe_helpers.core import run
place = pathlib.Path("PLACE")
my_lab = Lab(lab)
server = run.start(["sleep", "1000"], log=my_lab.log("server"), on_start=lambda server:
    my_lab.add_process("server", server))
with (place / "runs").open("a") as file:
    print(word, number, os.getpid(), server.pid, file=file)
"""
WORK = """\
if (word, number) == ("quick", 2) and (place / "broken").exists():
    raise ValueError("it is broken")
while word == "slow" and not (place / "go").exists():
    time.sleep(0.1)
"""
CLUSTER = """\
import sys
from distributed import LocalCluster
with LocalCluster(
    n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://", host="127.0.0.1",
    resources={"MEMORY": float(sys.argv[2])}, memory_limit=0, dashboard_address="127.0.0.1:0",
    local_directory=sys.argv[1],
) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@contextmanager
def cluster(directory: Path, memory: str) -> Iterator[str]:
    """A cluster in a process of its own, by its address; its worker reserves so many bytes."""
    command = [sys.executable, "-c", CLUSTER, str(directory), memory]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()


class Place:
    """A directory with a notebook, and what its runs leave there."""

    def __init__(self, directory: Path, notebook: Path) -> None:
        self.directory = directory
        self.lab = directory / "lab"
        self.command = [*RFE, "run", str(notebook), "--lab", str(self.lab)]

    def matrix(self, *options: object) -> list[str]:
        return [*self.command, *map(str, options)]

    def runs(self) -> Counter[str]:
        """How often each combination has begun."""
        return Counter(" ".join(line.split()[:2]) for line in self._lines())

    def alive(self) -> list[int]:
        """The kernels and servers of all runs that are still there."""
        pids = [int(pid) for line in self._lines() for pid in line.split()[2:]]
        return [pid for pid in pids if ProcessId.of(pid) is not None]

    def _lines(self) -> list[str]:
        path = self.directory / "runs"
        return path.read_text().splitlines() if path.exists() else []

    def statuses(self) -> list[str]:
        state = json.loads((self.lab / "matrix/latest/matrix.json").read_text())
        return [each["status"] for each in state["combinations"]]

    def kernels_end(self) -> None:
        """Wait until only servers are left, which the next run of their labs ends."""
        kernels = [int(line.split()[2]) for line in self._lines()]
        wait_for(
            lambda: all(ProcessId.of(pid) is None for pid in kernels), Deadline(40), "kernels end"
        )


@pytest.fixture
def place(tmp_path, make):
    place = Place(tmp_path, make("10-work", BEGIN.replace("PLACE", str(tmp_path)), WORK))
    yield place
    Lab(place.lab).clean()
    assert place.alive() == []
    assert not place.lab.exists()


AXES = ("--matrix", "word=quick,slow,number=1,2")


def test_a_failure_ends_nothing_else_and_kill_9_loses_only_what_runs(place, tmp_path):
    (tmp_path / "broken").touch()
    command = subprocess.Popen(
        place.matrix(*AXES), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(
        lambda: place.runs()["slow 1"] and place.statuses()[:2] == ["passed", "failed"],
        Deadline(120),
        "two combinations end, and the third runs",
    )
    command.kill()
    out, err = command.communicate()
    assert "word=quick, number=2: 10-work, cell [3]: ValueError: it is broken" in out
    assert err == ""
    place.kernels_end()
    before = place.runs()

    (tmp_path / "broken").unlink()
    (tmp_path / "go").touch()
    junit, copy = tmp_path / "junit.xml", tmp_path / "out"
    again = subprocess.run(
        place.matrix(*AXES, "--junit", junit, "--out", copy),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stderr == ""
    assert "3 of 4 are left" in again.stdout
    expected = before + Counter(["quick 2", "slow 1", "slow 2"])
    assert place.runs() == expected
    assert place.runs()["quick 1"] == 1
    assert place.statuses() == ["passed"] * 4
    assert place.alive() == []
    assert again.stdout.count("✔ passed") == 4

    suites = [suite.get("name") for suite in ElementTree.parse(junit).getroot()]
    assert suites[0] == "word=quick, number=1 / 10-work"
    assert len(suites) == 4
    page = (copy / "report.html").read_text()
    for number in range(1, 5):
        assert f'href="{number}/report.html"' in page
        assert "10-work" in (copy / str(number) / "report.html").read_text()
    assert json.loads((copy / "matrix.json").read_text())["status"] == "passed"


def test_ctrl_c_ends_what_runs_and_shows_the_table_whatever_signals_follow(place):
    command = subprocess.Popen(
        place.matrix("--matrix", "word=slow,quick", "--workers", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: place.runs()["slow 3"], Deadline(120), "the first combination runs")
    os.killpg(command.pid, signal.SIGINT)
    for line in command.stdout:
        if line == "interrupted: ending what runs\n":
            break
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(command.pid, number)
        time.sleep(0.2)  # so that each is delivered by itself
    out, err = command.communicate(timeout=100)
    assert command.returncode == 130, err
    assert err == ""
    assert place.alive() == []
    assert place.statuses() == ["interrupted", "not run"]
    assert "■ interrupted" in out
    assert out.splitlines()[-1].startswith("interrupted: ")
    assert (place.lab / "matrix/latest/report.html").exists()


def test_the_workers_of_another_scheduler_end_runs_that_nobody_waits_for(place, tmp_path):
    with cluster(tmp_path, memory="8e9") as address:
        options = ("--matrix", "word=slow", "--scheduler", address)
        command = subprocess.Popen(place.matrix(*options), stdout=subprocess.DEVNULL)
        wait_for(lambda: place.runs()["slow 3"], Deadline(120), "the combination runs")
        command.kill()
        command.wait()
        place.kernels_end()
        (tmp_path / "go").touch()
        again = subprocess.run(place.matrix(*options), capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "word=slow: begins" in again.stdout
    assert place.runs()["slow 3"] == 2
    assert place.alive() == []


def test_workers_without_memory_to_reserve_are_refused_with_the_way_to_start_them(place, tmp_path):
    with cluster(tmp_path, memory="1e9") as address:
        result = subprocess.run(
            place.matrix("--matrix", "word=slow", "--scheduler", address),
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert result.returncode == 1
    assert "has 3 GiB of the resource MEMORY" in result.stderr
    assert f"dask worker {address} --resources" in result.stderr
    assert place.runs() == Counter()


def test_too_little_memory_for_one_combination_is_said(place):
    """Linux does not enforce this limit, but Dask takes it for the memory that there is."""
    limit = ["prlimit", "--rss=2000000000"]
    command = [*limit, *place.matrix("--matrix", "word=quick,slow")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "GiB of memory are free, a combination needs 3 GiB" in result.stderr
    assert place.runs() == Counter()
