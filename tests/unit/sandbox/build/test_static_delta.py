"""The static delta from nothing, as ostree takes it."""

from __future__ import annotations

import functools
import lzma
import os
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run
from rfe_helpers.errors import CommitError
from rfe_helpers.sandbox.build import static_delta

REF = "debian/13/x86_64/edge"


@pytest.fixture
def repository(tmp_path: Path) -> Repo:
    """A repository with files of all sizes and kinds, and the delta of its commit."""
    tree = tmp_path / "tree"
    for number in range(300):
        path = tree / f"usr/share/many/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * number)
        path.chmod(0o600 + number % 64)
    (tree / "usr/empty").write_bytes(b"")
    (tree / "usr/largest").write_bytes(os.urandom(static_delta.LARGEST))
    (tree / "usr/larger").write_bytes(b"x" * (static_delta.LARGEST + 1))
    (tree / "usr/link").symlink_to("share/many/7")
    (tree / "usr/nowhere").symlink_to("n" * 300)  # whose header needs longer offsets
    os.setxattr(tree / "usr/empty", "user.colour", b"green")
    tar = tmp_path / "tree.tar"
    run.run(["tar", "-cf", tar, "-C", tree, "--xattrs", "."])
    repo = Repo(tmp_path / "repo").init()
    commit = repo.commit_tar(tar, REF, subject="test", bootable=False)
    static_delta.write(repo, commit)
    repo.update_summary()
    return repo


@pytest.fixture
def url(repository: Repo) -> Iterator[str]:
    """Where it is served."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(repository.path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("part_size", [static_delta.PART_SIZE, 4096])
def test_a_client_pulls_the_same_commit_with_it(
    tmp_path: Path, repository: Repo, url: str, part_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.resolve(REF)
    if part_size != static_delta.PART_SIZE:
        monkeypatch.setattr(static_delta, "PART_SIZE", part_size)
        repository.remove_delta(None, commit)
        static_delta.write(repository, commit)
        repository.update_summary()
    client = Repo(tmp_path / "client").init("bare-user")
    client.add_remote("edge", url)
    client.pull_seconds("edge", REF, deltas=True)
    client.fsck()
    assert client.resolve(f"edge:{REF}") == commit
    assert client.objects(commit) == repository.objects(commit)


def test_it_has_all_but_the_large_objects(repository: Repo) -> None:
    """A superblock, which names all objects, one part, and the only file that is too large."""
    commit = repository.resolve(REF)
    superblock = (repository.delta_directory(None, commit) / "superblock").read_bytes()
    kinds = {"file": b"\1", "dirtree": b"\2", "dirmeta": b"\3"}
    for name in repository.objects(commit):
        checksum, _, kind = name.partition(".")
        # OSTree 2022.7 would fetch what is missing one by one.
        assert kind == "commit" or kinds[kind] + bytes.fromhex(checksum) in superblock
    load = repository.delta(None, commit)
    assert load.requests == 3
    assert load.size > static_delta.LARGEST


def test_the_parts_are_checked(tmp_path: Path, repository: Repo, url: str) -> None:
    commit = repository.resolve(REF)
    part = repository.delta_directory(None, commit) / "0"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    client = Repo(tmp_path / "client").init("bare-user")
    client.add_remote("edge", url)
    assert "checksum mismatch" in client.refusal("edge", REF).lower()


@pytest.mark.parametrize("length", [0, 20, -1])
def test_a_damaged_object_is_named(repository: Repo, length: int) -> None:
    (file,) = repository.ls(REF, "/usr/share/many/7")
    path = repository.path / "objects" / file.checksum[:2] / f"{file.checksum[2:]}.filez"
    path.write_bytes(path.read_bytes()[:length])
    commit = repository.resolve(REF)
    repository.remove_delta(None, commit)
    with pytest.raises(CommitError, match=f"{path.parent.name}{path.name} is damaged") as error:
        static_delta.write(repository, commit)
    assert "cache" in error.value.remedy


@given(st.binary(max_size=100), st.integers(0, 3000))
def test_any_content_is_stored(content: bytes, times: int) -> None:
    assert lzma.decompress(static_delta.stored_xz(content * times)) == content * times


def test_chunks_of_every_size_are_stored() -> None:
    for size in (0, 1, 65535, 65536, 65537, 131072):
        content = os.urandom(size)
        assert lzma.decompress(static_delta.stored_xz(content)) == content
