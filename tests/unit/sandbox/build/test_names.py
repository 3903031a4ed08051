"""Groups and units that nobody brings are refused before a tree is built."""

from pathlib import Path
from typing import Any

import pytest
from support.trees import make_tree

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build import base, names, raw, tree

GROUP = "root:x:0:\nwheel:x:989:\n"
REF = "debian/13/x86_64/edge"
UNITS = {
    "usr/lib/systemd/system/ssh.service": "[Unit]\n",
    "usr/lib/systemd/system/getty@.service": "[Unit]\n",
    "usr/lib/systemd/system/ssh.service.d/more.conf": "[Unit]\n",
    "usr/lib/systemd/system/sshd.service": "-> ssh.service",
}
BASE = {**UNITS, "etc/group": GROUP, "etc/init.d/old": "#!/bin/sh\n"}
COMMIT = {**UNITS, "usr/etc/group": GROUP, "usr/etc/init.d/old": "#!/bin/sh\n"}


@pytest.fixture(params=["base", "commit"])
def known(request: pytest.FixtureRequest, tmp_path: Path) -> names.Names:
    if request.param == "base":
        return names.in_base(make_tree(tmp_path / "base.tar", BASE))
    repository = Repo(tmp_path / "repo").init("archive")
    repository.commit_tar(make_tree(tmp_path / "tree.tar", COMMIT), REF, subject="x")
    return names.in_commit(repository, REF)


def test_what_the_tree_or_the_blueprint_has_is_taken(known: names.Names) -> None:
    names.check(
        {
            "group": [{"name": "ops"}],
            "user": [{"name": "core", "groups": ["wheel", "ops", "other"]}, {"name": "other"}],
            "files": [{"path": "/etc/systemd/system/own.service"}],
            "services": {
                "enabled": ["ssh", "sshd.service", "getty@tty2.service", "old", "own"],
                "masked": ["nothing.service"],
            },
        },
        known,
    )
    names.check({}, known)


def test_all_that_nobody_has_is_said_at_once(known: names.Names) -> None:
    with pytest.raises(BuilderError) as failure:
        names.check(
            {
                "user": [{"name": "core", "groups": ["docker"]}],
                "files": [{"path": "/etc/app"}],
                "services": {"enabled": ["more.conf", "app"], "disabled": ["gone.timer"]},
            },
            known,
        )
    for words in (
        "customizations.user[0].groups: there is no group docker: add it to customizations.group",
        "the tree has no unit more.conf.service",
        "the tree has no unit app.service",
        "the tree has no unit gone.timer: add the package that has it",
    ):
        assert words in failure.value.message


def work_in(directory: Path) -> tree.Work:
    for name in ("work", "cache"):
        (directory / name).mkdir()
    return tree.Work(directory / "work", directory / "cache", directory / "log", Deadline(60))


def request(kind: str, **values: Any) -> tree.Request:
    wanted = {"user": [{"name": "core", "groups": ["docker"]}]}
    return tree.Request("1", kind, REF, Blueprint("x", customizations=wanted), **values)


def test_a_commit_without_packages_of_its_own_is_refused_at_once(tmp_path: Path) -> None:
    work = work_in(tmp_path)
    shared = base.in_cache(work.cache).tar
    shared.parent.mkdir()
    make_tree(shared, BASE)
    repository = Repo(tmp_path / "repo").init("archive")
    with pytest.raises(BuilderError, match="there is no group docker"):
        tree.commit(request("edge-commit"), work, repository)
    assert not work.log.exists(), "mmdebstrap has not begun"


def test_a_raw_image_is_refused_once_its_commit_is_there(tmp_path: Path) -> None:
    work = work_in(tmp_path)
    source = Repo(tmp_path / "repo").init("archive")
    source.commit_tar(make_tree(tmp_path / "tree.tar", COMMIT), REF, subject="x")
    stages: list[str] = []
    work = tree.Work(
        work.directory, work.cache, work.log, work.deadline, lambda _, stage: stages.append(stage)
    )
    deploying = request("edge-raw-image", url=f"file://{source.path}")
    with pytest.raises(BuilderError, match="there is no group docker"):
        raw.build(deploying, work, tmp_path / "image.raw.xz")
    assert stages == ["ostree pull"]
