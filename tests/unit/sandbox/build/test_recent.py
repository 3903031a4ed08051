"""Trees of recent composes, with real OSTree repositories."""

import os
import time
from pathlib import Path

import pytest

from rfe_helpers.core import run
from rfe_helpers.errors import CommitError
from rfe_helpers.sandbox.build import inside, recent
from rfe_helpers.sandbox.build.base import Base

REF = "debian/13/x86_64/edge"
INPUTS = {"packages": ["tmux"], "customizations": {"hostname": "edge"}}
REPORT = {"kernel": "6.12", "packages": [["tmux", "3.5", "amd64"]]}


@pytest.fixture
def shared(tmp_path: Path) -> Base:
    base = Base(tmp_path / "base-0")
    base.directory.mkdir()
    base.tar.write_bytes(b"")
    return base


def committed(shared: Base, directory: Path, os_release: str) -> str:
    """The commit of a small tree."""
    (directory / "usr/lib").mkdir(parents=True)
    (directory / recent.OS_RELEASE).write_text(os_release)
    (directory / "usr/program").write_text("of the first compose")
    tar = directory.with_suffix(".tar")
    run.run(["tar", "-cf", tar, "--owner=root:0", "--group=root:0", "-C", directory, "."])
    return shared.build_repository.commit_tar(tar, REF, subject="first", bootable=False)


def test_a_tree_is_committed_again_with_another_version(shared: Base, tmp_path: Path) -> None:
    first = committed(shared, tmp_path / "tree", inside.with_version("ID=debian\n", "13.1"))
    name = recent.key(shared, INPUTS)
    recent.keep(shared, name, recent.RecentTree(first, REPORT))
    tree = recent.find(shared, recent.key(shared, dict(reversed(INPUTS.items()))))
    assert tree == recent.RecentTree(first, REPORT)
    recent.write_difference(shared, tree, "13.2", tmp_path / "difference.tar")
    repository = shared.build_repository
    second = repository.commit_tar(
        tmp_path / "difference.tar", REF, below=first, subject="second", bootable=False
    )
    text = repository.read(second, f"/{recent.OS_RELEASE}")
    assert text == inside.with_version("ID=debian\n", "13.2")
    assert repository.read(second, "/usr/program") == "of the first compose"
    listing = run.run(["ostree", f"--repo={repository.path}", "ls", "-R", second, "/"]).stdout
    before = run.run(["ostree", f"--repo={repository.path}", "ls", "-R", first, "/"]).stdout
    assert [line.split()[:3] + line.split()[4:] for line in listing.splitlines()] == [
        line.split()[:3] + line.split()[4:] for line in before.splitlines()
    ], "modes, owners and names are those of the tree"
    repository.fsck()


def test_another_input_or_base_has_another_tree(shared: Base) -> None:
    name = recent.key(shared, INPUTS)
    assert recent.key(shared, {**INPUTS, "packages": ["tmux", "jq"]}) != name
    os.utime(shared.tar, (1, 1))
    assert recent.key(shared, INPUTS) != name


def test_a_tree_is_recent_for_half_an_hour_and_while_its_commit_is_there(
    shared: Base, tmp_path: Path
) -> None:
    first = committed(shared, tmp_path / "tree", inside.with_version("", "13.1"))
    name = recent.key(shared, INPUTS)
    recent.keep(shared, name, recent.RecentTree(first, REPORT))
    path = shared.directory / "recent" / f"{name}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    old = time.time() - recent.SECONDS - 1
    os.utime(path, (old, old))
    assert recent.find(shared, name) is None
    assert not path.exists()
    recent.keep(shared, name, recent.RecentTree("0" * 64, REPORT))
    assert recent.find(shared, name) is None
    path.write_text("{")
    assert recent.find(shared, name) is None


def test_a_tree_without_added_packages_lasts_as_long_as_its_base(
    shared: Base, tmp_path: Path
) -> None:
    first = committed(shared, tmp_path / "tree", inside.with_version("", "13.1"))
    day_ago = time.time() - 86400
    os.utime(shared.tar, (day_ago, day_ago))
    name = recent.key(shared, INPUTS, lasting=True)
    assert name != recent.key(shared, INPUTS)
    recent.keep(shared, name, recent.RecentTree(first, REPORT))
    path = shared.directory / "recent" / f"{name}.json"
    os.utime(path, (day_ago + 60, day_ago + 60))
    assert recent.find(shared, name) == recent.RecentTree(first, REPORT)
    os.utime(shared.tar)
    assert recent.find(shared, name) is None
    assert not path.exists()


def test_a_tree_without_a_version_is_refused(shared: Base, tmp_path: Path) -> None:
    first = committed(shared, tmp_path / "tree", "ID=debian\n")
    tree = recent.RecentTree(first, REPORT)
    with pytest.raises(CommitError, match="names no version"):
        recent.write_difference(shared, tree, "13.2", tmp_path / "difference.tar")
