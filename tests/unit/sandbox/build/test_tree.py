"""How a tree is built: command lines and small pure parts. The builds are system tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.ostree import Package
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build import tree

BLUEPRINT = Blueprint(name="Edge", version="0.0.1")


@pytest.fixture
def work(tmp_path: Path) -> tree.Work:
    directory = tmp_path / "a compose"
    directory.mkdir()
    return tree.Work(directory, tmp_path / "cache", tmp_path / "log", Deadline(5))


def request(**values: object) -> tree.Request:
    known = {"id": "1", "image_type": "edge-commit", "ref": "r", "blueprint": BLUEPRINT}
    return tree.Request(**{**known, **values})  # type: ignore[arg-type]


def test_hooks_quote_paths_and_read_files_only_outside_the_chroot(work: tree.Work) -> None:
    for hook in tree.tree_hooks(work, request()):
        words = hook.partition("=")[2]
        if str(work.directory) in words:
            assert f"'{work.directory}" in words
            assert words.split()[0] in ("tar-in", "upload", "download")


def test_additional_sources_are_gone_before_the_tree_is_finished(work: tree.Work) -> None:
    hooks = tree.tree_hooks(work, request(sources=("Types: deb\n",)))
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


def test_the_files_of_a_killed_builder_in_the_cache_are_removed(
    work: tree.Work, tmp_path: Path
) -> None:
    directory = tmp_path / "base-x"
    directory.mkdir()
    (directory / ".base.tar.0a1b2c3d.tmp").write_text("half")
    with tree.locked(work, directory):
        assert [path.name for path in directory.iterdir()] == ["lock"]
