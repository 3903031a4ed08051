"""mmdebstrap's command lines, what its output says, and what killed builds leave."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from rfe_helpers.sandbox.build import mmdebstrap


def test_the_mirror_is_mmdebstraps_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RFE_DEBIAN_MIRROR", raising=False)
    argv = mmdebstrap.argv([], Path("/out.tar"), variant="apt", include=["htop", "nano=8*"])
    assert argv[-2:] == ["trixie", "/out.tar"]
    assert "--include=htop,nano=8*" in argv


def test_a_setting_overrides_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFE_DEBIAN_MIRROR", "http://127.0.0.1:3142/debian")
    argv = mmdebstrap.argv([], Path("/out.tar"), variant="apt", include=[])
    assert argv[-2:] == ["/out.tar", "http://127.0.0.1:3142/debian"]


def test_the_packages_of_a_base_are_unpacked_without_a_program_for_each() -> None:
    base, added, extracted = (
        mmdebstrap.argv([], Path("/t"), variant=variant, include=["htop"])
        for variant in ("apt", "custom", "extract")
    )
    for argv in (base, added, extracted):
        assert "--dpkgopt=path-exclude=/usr/share/man/*" in argv
    hooks = [option for option in base if "99mmdebstrap" in option]
    assert [hook.partition("=")[0] for hook in hooks] == ["--setup-hook", "--customize-hook"]
    assert not [option for option in (*added, *extracted) if "99mmdebstrap" in option]


def test_stages_have_names_that_people_understand() -> None:
    assert mmdebstrap._stage_of("RFE-STAGE: layout") == "layout"
    assert mmdebstrap._stage_of("I: downloading packages with apt...") == "download packages"
    assert mmdebstrap._stage_of("I: removing tempdir /var/tmp/x...") == ""
    assert mmdebstrap._stage_of("Setting up htop (3.4.1-5) ...") == ""


def test_without_a_network_lists_and_packages_come_from_the_cache(tmp_path: Path) -> None:
    kept = mmdebstrap.kept_packages(tmp_path / "a cache")
    argv = mmdebstrap.argv([], Path("/t"), variant="custom", include=["tmux"], kept=kept)
    assert "--skip=update,download/empty" in argv
    packages = tmp_path / "a cache" / "packages"
    assert f"--setup-hook=tar-in '{packages}/lists.tar' /var/lib/apt" in argv
    assert f"--setup-hook=tar-in '{packages}/archives.tar' /var/cache/apt" in argv
    with_network = mmdebstrap.argv([], Path("/t"), variant="custom", include=["tmux"])
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
    assert bool(mmdebstrap._NO_NETWORK.search(message)) is no_network


def test_the_tree_of_a_killed_build_is_removed_and_that_of_a_running_one_is_not() -> None:
    abandoned = Path(tempfile.mkdtemp(prefix="rfe-tree-", dir="/var/tmp"))
    (abandoned / "usr").mkdir()
    used = Path(tempfile.mkdtemp(prefix="rfe-tree-", dir="/var/tmp"))
    descriptor = os.open(used, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        mmdebstrap.remove_abandoned()
        assert not abandoned.exists()
        assert used.is_dir()
    finally:
        os.close(descriptor)
    mmdebstrap.remove_abandoned()
    assert not used.exists()


def test_the_lists_of_a_base_are_those_of_the_trees_over_it(tmp_path: Path) -> None:
    fetched, lists = tmp_path / "work" / "lists", tmp_path / "base" / "lists"
    for directory, text in ((fetched, "new"), (lists, "old")):
        directory.mkdir(parents=True)
        (directory / "Packages").write_text(text)
    os.utime(fetched, (0, 0))
    mmdebstrap.keep_lists(fetched, lists)
    assert (lists / "Packages").read_text() == "new"
    assert not fetched.exists()
    assert mmdebstrap._apt_lists(lists, ["tmux"])[0] == "--skip=update", "fetched a moment ago"


def test_lists_are_kept_for_half_an_hour(tmp_path: Path) -> None:
    lists = tmp_path / "the lists"
    keep = mmdebstrap._apt_lists(lists, ["tmux"])
    assert [option.partition("=")[0] for option in keep] == ["--customize-hook"]
    lists.mkdir()
    use = mmdebstrap._apt_lists(lists, ["tmux"])
    assert use[0] == "--skip=update"
    assert f"cp -a '{lists}'/." in use[1]
    os.utime(lists, (0, 0))
    assert mmdebstrap._apt_lists(lists, ["tmux"]) == keep
    assert mmdebstrap._apt_lists(None, ["tmux"]) == [], "sources of a blueprint have other lists"
    assert mmdebstrap._apt_lists(lists, []) == ["--skip=update"], "nothing is looked for"


def test_a_tree_over_the_base_is_a_directory_with_something_in_it(tmp_path: Path) -> None:
    argv = mmdebstrap.argv([], tmp_path, variant="custom", include=["tmux"], over=True)
    assert {"--mode=root", "--format=directory", "--skip=output/dev,check/empty"} <= set(argv)
