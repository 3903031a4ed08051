"""The model of a rollout against real `ostree pull` clients and the real web server."""

import shutil
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.trees import make_commit_tar, make_tree

from rfe_helpers import run, serve
from rfe_helpers.fleet import Fleet, Pull, plan
from rfe_helpers.fleet_measure import RECORDED, RECORDED_AS, measure, of_lab
from rfe_helpers.lab import Lab
from rfe_helpers.ostree import Repo
from rfe_helpers.systemd_timer import parse_timer
from rfe_helpers.wait import Deadline, wait_for

pytestmark = pytest.mark.slow
REF = "debian/13/x86_64/edge"
CLIENTS = 50
SPLAY = 40.0
WINDOW = 10.0


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "lab")
    yield lab
    lab.clean()


@pytest.fixture
def update(tmp_path: Path) -> tuple[Path, Path]:
    """A repository with what devices have, and the commit.tar of an update of 60 files."""
    composed = tmp_path / "composed"
    old = Repo(tmp_path / "old").init()
    new = Repo(composed / "repo").init()
    for repo, version in ((old, "1"), (new, "2")):
        files = {f"usr/share/d{n % 6}/f{n}": f"{version} {n} " * 500 for n in range(60)}
        tree = make_tree(tmp_path / f"{version}.tar", files)
        with tarfile.open(tree, "a") as tar:  # every operating system has such files
            sudo = tarfile.TarInfo("usr/sudo")
            sudo.mode = 0o4755
            tar.addfile(sudo)
        repo.commit_tar(tree, REF, subject=version, version=version, packages=[])
    (composed / "compose.json").write_text("{}")
    return old.path, make_commit_tar(tmp_path / "commit.tar", composed)


def test_fifty_devices_pull_as_predicted(
    lab: Lab, tmp_path: Path, update: tuple[Path, Path]
) -> None:
    old, artifact = update
    site = serve.publish(lab, artifact)
    log = lab.path("logs", "nginx-access.log")

    cost = measure(site.repo_url, REF, installed=(old, REF))
    # 60 files, their directories and the commit; the rest is asking what there is.
    assert 68 <= cost.requests <= 85
    assert cost.check_requests < 10
    time.sleep(1.5)  # nginx writes its log every second
    before = len(log.read_text().splitlines())

    done = _pull_everywhere(site.repo_url, old, tmp_path)
    wanted = before + CLIENTS * int(cost.requests)
    wait_for(lambda: len(log.read_text().splitlines()) >= wanted, Deadline(10), "the log is whole")
    lines = log.read_text().splitlines()[before:]
    assert len(lines) == CLIENTS * cost.requests
    assert sum(int(line.split()[2]) for line in lines) == pytest.approx(
        CLIENTS * cost.bytes, rel=0.005
    )

    # A thousand devices for each client, each with a thousandth of the cost: no chance in it.
    timer = parse_timer(f"OnCalendar=minutely\nRandomizedDelaySec={SPLAY}\nAccuracySec=1us")
    small = Pull(cost.requests / 1000, cost.bytes / 1000, cost.seconds, 0, 0)
    predicted = plan(Fleet(1000 * CLIENTS, timer), small, horizon=120, step=WINDOW / 100)
    asked = predicted.curves["asked"][: int(1.5 * SPLAY / predicted.step)]
    per_window = np.convolve(asked, np.ones(100) / 100, mode="valid")

    moments = np.sort([float(line.split()[0]) for line in lines]) - done[0]
    edges = np.arange(0, SPLAY + WINDOW, WINDOW)
    measured = np.histogram(moments, edges)[0] / WINDOW
    assert measured.max() == pytest.approx(per_window.max(), rel=0.15)
    ends = np.sort(done[1])
    assert np.median(ends) == pytest.approx(predicted.half_staged, rel=0.15)
    assert ends[-1] == pytest.approx(predicted.all_staged, rel=0.15)


def test_the_cost_of_the_update_that_a_lab_serves(
    lab: Lab, tmp_path: Path, update: tuple[Path, Path]
) -> None:
    old, new = Repo(update[0]), update[1]
    first = tmp_path / "first"
    shutil.copytree(old.path, first / "repo")
    (first / "compose.json").write_text("{}")
    artifact = make_commit_tar(tmp_path / "first.tar", first)
    assert of_lab(lab) == (RECORDED, RECORDED_AS)
    lab.record("commit", artifact=artifact, ref=REF, commit=old.resolve(REF))
    serve.publish(lab, artifact)
    assert of_lab(lab) == (RECORDED, RECORDED_AS)  # nothing new is served
    serve.publish(lab, new)
    cost, source = of_lab(lab)
    assert 68 <= cost.requests <= 85
    assert source.startswith(f"as measured now, from {old.resolve(REF)[:12]} to ")
    serve.stop(lab)
    assert of_lab(lab) == (RECORDED, RECORDED_AS)


def _pull_everywhere(url: str, old: Path, directory: Path) -> tuple[float, list[float]]:
    """Let every device pull after its delay: when it began (Unix s), and when each was ready.

    The delays are spread evenly and not at random, so that fifty devices are no lottery.
    """
    first = Repo(directory / "device-0").init("bare-user")
    first.pull_local(old, REF)
    first.add_remote("mirror", url)
    for number in range(1, CLIENTS):
        shutil.copytree(first.path, directory / f"device-{number}")
    ends: list[float] = []
    began = time.time()

    def device(number: int) -> None:
        time.sleep(max(0.0, began + (number + 0.5) * SPLAY / CLIENTS - time.time()))
        repo = directory / f"device-{number}"
        run.run(["ostree", "pull", f"--repo={repo}", "mirror", REF])
        ends.append(time.time() - began)

    threads = [threading.Thread(target=device, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == CLIENTS
    return began, ends
