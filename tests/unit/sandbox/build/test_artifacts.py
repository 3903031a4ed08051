"""The archives of a compose, made from a small real repository."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import threading
from pathlib import Path

import pytest

from rfe_helpers.commit import archive
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run
from rfe_helpers.sandbox.build import artifacts

REF = "debian/13/x86_64/edge"


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A directory with `repo/`, as in a compose."""
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/tool").write_text("tool")
    tar = tmp_path / "tree.tar"
    run.run(["tar", "-cf", tar, "-C", tree, "."])
    path = tmp_path / "content"
    Repo(path / "repo").init().commit_tar(tar, REF, subject="test", bootable=False)
    return path


@pytest.fixture
def nginx(tmp_path: Path) -> Path:
    """A root file system that stands in for Debian's nginx."""
    root = tmp_path / "nginx"
    (root / "usr/sbin").mkdir(parents=True)
    (root / "var/log/nginx").mkdir(parents=True)
    (root / "usr/sbin/nginx").write_text("binary")
    tar = tmp_path / "nginx.tar"
    run.run(["tar", "-cf", tar, "-C", root, "usr", "var"])
    return tar


def test_commit_tar_begins_with_what_readers_need(content: Path, tmp_path: Path) -> None:
    commit = Repo(content / "repo").resolve(REF)
    (content / "compose.json").write_text("{}")
    target = tmp_path / "commit.tar"
    artifacts.write_commit_tar(content, commit, target)
    with tarfile.open(target) as tar:
        names = tar.getnames()
        owners = {(entry.uid, entry.gid) for entry in tar}
    assert names[0] == "./compose.json"
    assert names.index(f"./repo/objects/{commit[:2]}/{commit[2:]}.commit") < 15
    assert len(names) == len(set(names))
    assert owners == {(0, 0)}
    run.run(["tar", "-xf", target, "-C", tmp_path / "tree"])
    Repo(tmp_path / "tree/repo").fsck()


def test_another_compose_may_link_the_objects_meanwhile(content: Path, tmp_path: Path) -> None:
    """A link more changes a file's ctime, for which tar ends with status 1."""
    commit = Repo(content / "repo").resolve(REF)
    (content / "compose.json").write_text("{}")
    large = content / "repo/objects/large"
    large.write_bytes(os.urandom(80_000_000))
    ended = threading.Event()

    def link() -> None:
        while not ended.is_set():
            os.link(large, tmp_path / "link")
            (tmp_path / "link").unlink()

    other = threading.Thread(target=link)
    other.start()
    try:
        artifacts.write_commit_tar(content, commit, tmp_path / "commit.tar")
    finally:
        ended.set()
        other.join()
    with tarfile.open(tmp_path / "commit.tar") as tar:
        packed = tar.extractfile("./repo/objects/large")
        assert packed is not None
        assert packed.read() == large.read_bytes()


def test_container_tar_is_an_oci_archive_with_one_layer(
    content: Path, nginx: Path, tmp_path: Path
) -> None:
    target = tmp_path / "container.tar"
    commit = Repo(content / "repo").resolve(REF)
    artifacts.write_container(content, commit, nginx, target)
    with tarfile.open(target) as image:
        blobs = {
            entry.name: file.read()
            for entry in image
            if (file := image.extractfile(entry)) is not None
        }
    for name, blob in blobs.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}"
    (descriptor,) = json.loads(blobs["index.json"])["manifests"]
    assert "annotations" not in descriptor
    assert "platform" not in descriptor
    manifest = json.loads(blobs[_path(descriptor["digest"])])
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar"
    configuration = json.loads(blobs[_path(manifest["config"]["digest"])])
    assert configuration["config"]["Cmd"] == ["nginx", "-c", "/etc/nginx.conf"]
    assert configuration["config"]["ExposedPorts"] == {"8080": {}}
    layer_file = tmp_path / "layer.tar"
    layer_file.write_bytes(blobs[_path(layer["digest"])])
    with tarfile.open(layer_file) as tar:
        entries = {entry.name: entry for entry in tar}
        count = len(tar.getnames())
    assert len(entries) == count, "podman refuses a layer with a path twice"
    assert f"usr/share/nginx/html/repo/refs/heads/{REF}" in entries
    assert entries["var/www/html"].linkname == "/usr/share/nginx/html"
    assert entries["var/log/nginx"].mode == 0o777
    assert {(entry.uid, entry.gid) for entry in entries.values()} == {(0, 0)}
    names = list(entries)
    repository = names.index("usr/share/nginx/html/repo")
    first = f"usr/share/nginx/html/repo/objects/{commit[:2]}/{commit[2:]}.commit"
    assert names.index(first) < repository + 15
    archived = archive.contents(target)
    assert list(archived.commits) == [commit]
    again = tmp_path / "again.tar"
    artifacts.write_container(content, commit, nginx, again)
    with tarfile.open(again) as second:
        assert _path(layer["digest"]) in second.getnames(), "same content, same digest"


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")
