"""Against the real `ostree` command, on trees of a few files."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.trees import make_tree

from rfe_helpers.commit import gvariant
from rfe_helpers.commit.listing import compare
from rfe_helpers.commit.ostree import Package, Repo
from rfe_helpers.errors import CommitError

REF = "debian/13/x86_64/edge"
BASH = Package("bash", "0", "5.2.37", "2+b5", "amd64")
SUDO = Package("sudo", "1", "1.9.16p2", "3", "amd64")
NATIVE = Package("base-files", "0", "13.8", "", "amd64")
WHEN = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "repo").init()


def test_a_commit_reads_back_as_it_was_written(repo: Repo, tmp_path: Path) -> None:
    tar = make_tree(tmp_path / "tree.tar", {"usr/bin/hello": "hi"})
    commit = repo.commit_tar(
        tar,
        REF,
        subject="A subject with 'quotes'",
        version="13.1",
        packages=[SUDO, BASH, NATIVE],
        metadata={"rfe.note": gvariant.string("it's")},
        timestamp=WHEN,
    )
    info = repo.show(REF)
    assert info.id == commit == repo.resolve(REF) == repo.refs()[REF]
    assert info.parent is None
    assert info.refs == (REF,)
    assert info.subject == "A subject with 'quotes'"
    assert info.timestamp == WHEN
    assert info.version == "13.1"
    assert info.metadata["rfe.note"] == "it's"
    assert info.metadata["ostree.bootable"] is True
    assert repo.show(REF).packages == (NATIVE, BASH, SUDO)


def test_a_parent_is_the_one_given_and_need_not_be_here(repo: Repo, tmp_path: Path) -> None:
    tar = make_tree(tmp_path / "tree.tar", {})
    far = "ab" * 32
    assert repo.show(repo.commit_tar(tar, REF, subject="s", parent=far)).parent == far
    # Without a parent there is none, even though the ref points at a commit.
    assert repo.show(repo.commit_tar(tar, REF, subject="s")).parent is None


def test_a_parent_is_read_whatever_its_bytes(repo: Repo, tmp_path: Path) -> None:
    """ostree writes one that ends with 00, and has no other, as text with escapes."""
    tar = make_tree(tmp_path / "tree.tar", {})
    every = [bytes((start + i) % 256 or 1 for i in range(31)) for start in range(1, 256, 31)]
    parents = [*(part.hex() + "00" for part in every), "ab" * 31 + "00", "00" * 32, "ff" * 32]
    commits = [repo.commit_tar(tar, REF, subject="s", parent=parent) for parent in parents]
    assert [repo.show(commit).parent for commit in commits] == parents


def test_texts_and_names_may_have_any_line_separator(repo: Repo, tmp_path: Path) -> None:
    odd = "a\u2028b\x0bc\rd"
    tar = make_tree(tmp_path / "tree.tar", {f"usr/{odd}": "x"})
    commit = repo.commit_tar(tar, REF, subject=odd, version="1\u20282")
    assert repo.show(commit).subject == odd
    assert repo.show(commit).version == "1\u20282"
    assert f"/usr/{odd}" in {file.path for file in repo.ls(commit)}


def test_same_input_same_commit(tmp_path: Path) -> None:
    tar = make_tree(tmp_path / "tree.tar", {"usr/a": "a"})
    ids = {
        Repo(tmp_path / name)
        .init()
        .commit_tar(tar, REF, subject="s", version="1", packages=[BASH], timestamp=WHEN)
        for name in "xy"
    }
    assert len(ids) == 1


def test_an_empty_package_list_is_not_a_missing_one(repo: Repo, tmp_path: Path) -> None:
    tar = make_tree(tmp_path / "tree.tar", {})
    empty = repo.commit_tar(tar, REF, subject="s", packages=[])
    missing = repo.commit_tar(tar, REF, subject="s")
    assert repo.show(empty).packages == ()
    with pytest.raises(CommitError, match="has no package list"):
        _ = repo.show(missing).packages


def test_listing(repo: Repo, tmp_path: Path) -> None:
    files = {"usr/with space": "four", "usr/two\nlines": "x", "usr/link": "-> ../etc/x"}
    repo.commit_tar(
        make_tree(tmp_path / "t.tar", {**files, "usr/z -> y": "12345"}), REF, subject=""
    )
    listed = {file.path: file for file in repo.ls(REF)}
    assert listed["/"].kind == "directory"
    assert (listed["/usr/with space"].kind, listed["/usr/with space"].size) == ("file", 4)
    assert listed["/usr/with space"].mode == 0o644
    assert listed["/usr/two\nlines"].size == 1
    assert (listed["/usr/link"].kind, listed["/usr/link"].target) == ("link", "../etc/x")
    assert listed["/usr/z -> y"].size == 5
    assert repo.read(REF, "/usr/with space") == "four"
    assert [file.path for file in repo.ls(REF, "/usr/lib", recursive=False)] == [
        "/usr/lib",
        "/usr/lib/modules",
    ]


def test_differences(repo: Repo, tmp_path: Path) -> None:
    one = repo.commit_tar(
        make_tree(tmp_path / "1.tar", {"usr/same": "s", "usr/old": "o", "usr/d/mod": "1"}),
        REF,
        subject="",
    )
    two = repo.commit_tar(
        make_tree(tmp_path / "2.tar", {"usr/same": "s", "usr/new": "n", "usr/d/mod": "2"}),
        REF,
        subject="",
    )
    changes = compare(repo.ls(one), repo.ls(two))
    assert (changes.added, changes.removed, changes.modified) == (
        ("/usr/new",),
        ("/usr/old",),
        ("/usr/d/mod",),
    )


def test_copying_between_repositories_and_the_summary(repo: Repo, tmp_path: Path) -> None:
    commit = repo.commit_tar(make_tree(tmp_path / "t.tar", {}), REF, subject="")
    other = Repo(tmp_path / "other").init()
    assert other.refs() == {}
    other.pull_local(repo.path, REF)
    other.set_ref("another/name", commit)
    assert other.refs() == {REF: commit, "another/name": commit}
    other.update_summary()
    assert REF.encode() in (other.path / "summary").read_bytes()
    other.fsck()


def test_a_device_accepts_or_refuses_a_commit_without_its_files(repo: Repo, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree.tar", {"usr/bin/hello": "hi"})
    commit = repo.commit_tar(tree, REF, subject="x", bootable=False)
    repo.update_summary()
    device = Repo(tmp_path / "device").init("bare-user")
    device.add_remote("edge", repo.path.as_uri())
    assert device.refusal("edge", REF, commit_only=True) == ""
    assert device.refs() == {f"edge:{REF}": commit}
    assert list(device.path.glob("objects/*/*.file")) == []
    assert device.refusal("edge", REF) == ""
    assert list(device.path.glob("objects/*/*.file")) != []
    assert "No such branch" in device.refusal("edge", "other", commit_only=True)


def test_errors_have_ostrees_own_words(repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(CommitError, match="no/such/ref"):
        repo.resolve("no/such/ref")
    with pytest.raises(CommitError, match="opendir"):
        Repo(tmp_path / "nowhere").refs()
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"no tar at all")
    log = tmp_path / "log"
    with pytest.raises(CommitError, match="rchive") as caught:
        repo.commit_tar(broken, REF, subject="", log=log)
    assert caught.value.log == log
    assert "rchive" in log.read_text()


def test_a_damaged_object_is_found(repo: Repo, tmp_path: Path) -> None:
    repo.commit_tar(make_tree(tmp_path / "t.tar", {"usr/a": "abc"}), REF, subject="")
    victim = next(repo.path.glob("objects/*/*.filez"))
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-3] + b"xyz")
    with pytest.raises(CommitError):
        repo.fsck()


def test_a_package_as_text() -> None:
    assert str(SUDO) == "sudo-1:1.9.16p2-3.amd64"
    assert str(BASH) == "bash-5.2.37-2+b5.amd64"
    assert str(NATIVE) == "base-files-13.8.amd64"
