"""The model of a rollout against real `ostree pull` clients and the real web server."""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_trial import compare, plot_trial
from support.trees import make_commit_tar, make_tree

from rfe_helpers import serve
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.fleet.cost import RECORDED, RECORDED_AS, of_lab
from rfe_helpers.lab.lab import Lab

pytestmark = pytest.mark.slow
REF = "debian/13/x86_64/edge"


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
    trial = compare(lab, serve.publish(lab, artifact), REF, old)
    # 60 files, their directories and the commit; the rest is asking what there is.
    assert 68 <= trial.cost.requests <= 85
    assert trial.cost.check_requests < 10
    assert trial.requests == trial.clients * trial.cost.requests
    assert trial.sent == pytest.approx(trial.clients * trial.cost.bytes, rel=0.005)
    assert trial.clients == len(trial.ends) == 50
    for what, difference in trial.differences.items():
        assert abs(difference) < 0.15, what
    figure = plot_trial(trial)
    figure.savefig(tmp_path / "trial.png")
    assert (tmp_path / "trial.png").stat().st_size > 10_000


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
