"""The layer of the base image: a commit in the layout of a bootable container."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from rfe_helpers.sandbox.build import base_image


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """What `ostree export` writes of a commit."""
    tree = tmp_path / "tree"
    for name, text in {
        "usr/etc/hosts": "127.0.0.1",
        "usr/etcetera/x": "x",
        "usr/lib/modules/6.12/vmlinuz": "kernel",
        "usr/bin/su": "su",
    }.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tree / "usr/bin/su").chmod(0o4755)
    (tree / "ostree").symlink_to("sysroot/ostree")
    (tree / "var").mkdir()
    repository = tmp_path / "repo"
    subprocess.run(["ostree", "init", f"--repo={repository}", "--mode=bare-user"], check=True)
    commit = ["ostree", "commit", f"--repo={repository}", "--branch=a", f"--tree=dir={tree}"]
    # No attributes: some file systems of tests have none.
    subprocess.run([*commit, "--owner-uid=0", "--owner-gid=7", "--no-xattrs"], check=True)
    tar = tmp_path / "commit.tar"
    subprocess.run(["ostree", "export", f"--repo={repository}", f"--output={tar}", "a"], check=True)
    return tar


def test_etc_is_where_a_container_has_it_and_dpkg_is_reached(
    exported: Path, tmp_path: Path
) -> None:
    base_image.write_layer(exported, tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as layer:
        members = {member.name: member for member in layer}
    assert "etc/hosts" in members
    assert "usr/etcetera/x" in members
    assert not [name for name in members if name == "usr/etc" or name.startswith("usr/etc/")]
    assert members["ostree"].linkname == "sysroot/ostree"
    assert members["var/lib/dpkg"].linkname == "../../usr/lib/sysimage/dpkg"
    assert os.path.normpath("var/lib/../../usr/lib/sysimage/dpkg") == "usr/lib/sysimage/dpkg"
    links = [member for member in members.values() if member.issym()]
    assert {member.mode & 0o777 for member in links} == {0o777}
    su = members["usr/bin/su"]
    assert (su.mode & 0o7777, su.uid, su.gid) == (0o4755, 0, 7)
    assert {member.mtime for member in members.values()} == {0}
    assert len(members) == len({*members})


def test_the_same_commit_gives_the_same_layer(exported: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        base_image.write_layer(exported, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_hard_links_lead_to_files_in_etc_too(tmp_path: Path) -> None:
    """ostree 2025, in Debian 13, exports equal files as links to the first of them."""
    with tarfile.open(tmp_path / "commit.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("usr/etc/environment"))
        for name in ("usr/etc/fstab", "usr/share/empty"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.LNKTYPE, "usr/etc/environment"
            tar.addfile(link)
    base_image.write_layer(tmp_path / "commit.tar", tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as layer:
        links = {member.name: member.linkname for member in layer if member.islnk()}
    assert links == {"etc/fstab": "etc/environment", "usr/share/empty": "etc/environment"}
