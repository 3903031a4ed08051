import os
from pathlib import Path

import pytest

from rfe_helpers.lab import cache
from rfe_helpers.lab.cache import cache_directory


def test_the_cache_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("RFE_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "new"))
    assert cache_directory() == tmp_path / "new"
    monkeypatch.delenv("RFE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert str(cache_directory()) == "/c/rfe"


@pytest.fixture
def shared(tmp_path):
    """A cache that somebody has filled."""
    directory = tmp_path / "shared"
    for name in (
        "base-1/base.tar",
        "base-1/lock",
        "base-1/build/config",
        "boot-1/boot.iso",
        "apt/system.list",
        "apt/abc/index.sqlite",
        "apt/abc/apt.conf",
        "apt/lists/mirror_Packages",
        "media/guest.qcow2",
    ):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return directory


def test_another_cache_has_links_to_large_files_and_copies_of_small_ones(shared, tmp_path):
    own = tmp_path / "own"
    cache.adopt(shared, own)
    files = {str(p.relative_to(own)): p.is_symlink() for p in own.rglob("*") if p.is_file()}
    assert files == {
        "base-1/base.tar": True,
        "boot-1/boot.iso": True,
        "media/guest.qcow2": True,
        "apt/lists/mirror_Packages": True,
        "apt/system.list": False,
        "apt/abc/index.sqlite": False,
    }


def test_what_the_other_cache_has_stays_and_a_dead_link_does_not(shared, tmp_path):
    own = tmp_path / "own"
    (own / "base-1").mkdir(parents=True)
    (own / "base-1" / "base.tar").write_text("mine")
    (own / "boot-1").mkdir()
    (own / "boot-1" / "boot.iso").symlink_to(tmp_path / "gone")
    cache.adopt(shared, own)
    assert (own / "base-1" / "base.tar").read_text() == "mine"
    assert (own / "boot-1" / "boot.iso").read_text() == "boot-1/boot.iso"


def test_a_cache_with_a_directory_that_somebody_else_keeps_closed_is_not_writable(tmp_path):
    assert cache.is_writable(tmp_path / "a" / "b")
    assert cache.is_writable(tmp_path)
    assert not cache.is_writable(Path("/proc/self"))  # for root, too


def test_who_may_not_write_to_the_shared_cache_has_one_of_their_own(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)  # root may everything
    monkeypatch.setenv("RFE_CACHE", str(shared))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    own = cache_directory()
    assert own == tmp_path / "home" / "rfe"
    assert (own / "base-1" / "base.tar").read_text() == "base-1/base.tar"
