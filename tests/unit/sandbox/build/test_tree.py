"""How a tree is built: command lines and small pure parts. The builds are system tests."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from pathlib import Path

import pytest

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.ostree import Package
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build import tree
from rfe_helpers.sandbox.build.base import Base

BLUEPRINT = Blueprint(name="Edge", version="0.0.1")


@pytest.fixture
def work(tmp_path: Path) -> tree.Work:
    directory = tmp_path / "a compose"
    directory.mkdir()
    return tree.Work(directory, tmp_path / "cache", tmp_path / "log", Deadline(5))


def request(**values: object) -> tree.Request:
    known = {"id": "1", "image_type": "edge-commit", "ref": "r", "blueprint": BLUEPRINT}
    return tree.Request(**{**known, **values})  # type: ignore[arg-type]


def test_the_mirror_is_mmdebstraps_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RFE_DEBIAN_MIRROR", raising=False)
    argv = tree.mmdebstrap_argv([], Path("/out.tar"), variant="apt", include=["htop", "nano=8*"])
    assert argv[-2:] == ["trixie", "/out.tar"]
    assert "--include=htop,nano=8*" in argv


def test_a_setting_overrides_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFE_DEBIAN_MIRROR", "http://127.0.0.1:3142/debian")
    argv = tree.mmdebstrap_argv([], Path("/out.tar"), variant="apt", include=[])
    assert argv[-2:] == ["/out.tar", "http://127.0.0.1:3142/debian"]


def test_hooks_quote_paths_and_read_files_only_outside_the_chroot(work: tree.Work) -> None:
    shared = Base(work.cache / "base-0")
    for hook in tree.tree_hooks(work, shared, request()):
        words = hook.partition("=")[2]
        if str(work.directory) in words:
            assert f"'{work.directory}" in words
            assert words.split()[0] in ("tar-in", "upload", "download")


def test_additional_sources_are_gone_before_the_tree_is_finished(work: tree.Work) -> None:
    shared = Base(work.cache / "base-0")
    hooks = tree.tree_hooks(work, shared, request(sources=("Types: deb\n",)))
    added = next(i for i, hook in enumerate(hooks) if "blueprint-0.sources" in hook)
    removed = next(i for i, hook in enumerate(hooks) if "blueprint-*" in hook)
    finished = next(i for i, hook in enumerate(hooks) if "inside.py compose" in hook)
    assert added < removed < finished
    assert (work.directory / "source-0.sources").read_text() == "Types: deb\n"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3.4.1-5", ("0", "3.4.1", "5")),
        ("1:9.7p1-7+deb13u1", ("1", "9.7p1", "7+deb13u1")),
        ("3.152", ("0", "3.152", "")),
        ("2:1.2-rc1-3", ("2", "1.2-rc1", "3")),
    ],
)
def test_debian_versions_become_rpms_three_fields(
    version: str, expected: tuple[str, str, str]
) -> None:
    package = tree._package("name", version, "amd64")
    assert package == Package("name", *expected, "amd64")
    assert package.evr == version


def test_the_manifest_has_no_password_and_its_digest_follows_the_input() -> None:
    def manifest(hashed: str) -> dict[str, object]:
        user = {"user": [{"name": "core", "password": hashed}]}
        blueprint = Blueprint(name="Edge", version="0.0.1", customizations=user)
        return tree._manifest(request(blueprint=blueprint), [], "6.12")

    one, other = manifest("$6$one"), manifest("$6$other")
    assert "$6$" not in json.dumps(one)
    assert one["inputhash"] != other["inputhash"]
    assert manifest("$6$one")["inputhash"] == one["inputhash"]


def test_versions_of_later_requests_sort_later() -> None:
    assert request().version.startswith("13.")
    assert len(request().version.split(".")) == 3


def test_a_full_disk_is_reported_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match="GB free, a compose needs"):
        tree.check_space(tmp_path, 10**18)


def test_stages_have_names_that_people_understand() -> None:
    assert tree._stage_of("RFE-STAGE: layout") == "layout"
    assert tree._stage_of("I: downloading packages with apt...") == "download packages"
    assert tree._stage_of("I: removing tempdir /var/tmp/x...") == ""
    assert tree._stage_of("Setting up htop (3.4.1-5) ...") == ""


def test_without_a_network_lists_and_packages_come_from_the_cache(tmp_path: Path) -> None:
    kept = tree.kept_packages(tmp_path / "a cache")
    argv = tree.mmdebstrap_argv([], Path("/t"), variant="custom", include=["tmux"], kept=kept)
    assert "--skip=update,download/empty" in argv
    packages = tmp_path / "a cache" / "packages"
    assert f"--setup-hook=tar-in '{packages}/lists.tar' /var/lib/apt" in argv
    assert f"--setup-hook=tar-in '{packages}/archives.tar' /var/cache/apt" in argv
    with_network = tree.mmdebstrap_argv([], Path("/t"), variant="custom", include=["tmux"])
    assert set(with_network) < set(argv)


@pytest.mark.parametrize(
    ("message", "no_network"),
    [
        ("E: Failed to fetch http://x/InRelease  Temporary failure resolving 'x'", True),
        ("E: Could not connect to 10.0.0.1:80 (10.0.0.1), connection timed out", True),
        ("E: Unable to locate package nothing", False),
        ("E: Could not get lock", False),
    ],
)
def test_the_messages_of_apt_without_a_network_are_recognised(
    message: str, no_network: bool
) -> None:
    assert bool(tree._NO_NETWORK.search(message)) is no_network


def test_the_tree_of_a_killed_build_is_removed_and_that_of_a_running_one_is_not() -> None:
    abandoned = Path(tempfile.mkdtemp(prefix="rfe-tree-", dir="/var/tmp"))
    (abandoned / "usr").mkdir()
    used = Path(tempfile.mkdtemp(prefix="rfe-tree-", dir="/var/tmp"))
    descriptor = os.open(used, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        tree.remove_abandoned()
        assert not abandoned.exists()
        assert used.is_dir()
    finally:
        os.close(descriptor)
    tree.remove_abandoned()
    assert not used.exists()


def test_the_files_of_a_killed_builder_in_the_cache_are_removed(
    work: tree.Work, tmp_path: Path
) -> None:
    directory = tmp_path / "base-x"
    directory.mkdir()
    (directory / ".base.tar.0a1b2c3d.tmp").write_text("half")
    with tree.locked(work, directory):
        assert [path.name for path in directory.iterdir()] == ["lock"]
