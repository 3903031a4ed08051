"""Against real repositories and archives of a few files, and a real web server for URLs."""

import gc
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.trees import make_commit_tar, make_container, make_tree, write_tar

from rfe_helpers.cli import main
from rfe_helpers.commit import archive
from rfe_helpers.commit.commit import UNOWNED, PackageChange, diff, open_commit
from rfe_helpers.commit.ostree import Package, Repo
from rfe_helpers.errors import CommitError

REF = "debian/13/x86_64/edge"
BASH = Package("bash", "0", "5.2.37", "2", "amd64")
HTOP = Package("htop", "0", "3.4", "1", "amd64")
FILES = {
    "usr/bin/bash": "#" * 100,
    "usr/bin/htop": "#" * 10,
    "usr/etc/bash.bashrc": "#" * 5,
    "usr/lib/sysimage/dpkg/info/bash.list": "/.\n/bin\n/bin/bash\n/etc\n/etc/bash.bashrc\n",
    "usr/lib/sysimage/dpkg/info/htop:amd64.list": "/usr/bin/htop\n",
}


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies in a commit.tar: repo and compose.json."""
    directory = tmp_path_factory.mktemp("composed")
    repo = Repo(directory / "repo").init()
    tree = make_tree(directory.parent / "tree.tar", FILES)
    commit = repo.commit_tar(tree, REF, subject="s", version="13.1", packages=[BASH, HTOP])
    (directory / "compose.json").write_text(json.dumps({"ref": REF, "ostree-commit": commit}))
    return directory


@pytest.fixture(scope="module")
def commit_tar(composed: Path) -> Path:
    return make_commit_tar(composed.parent / "commit.tar", composed)


@pytest.fixture(scope="module")
def container(composed: Path) -> Path:
    other = composed.parent / "other"
    other.mkdir()
    (other / "nginx.conf").write_text("daemon off;")
    web = {"usr/share/nginx/html/repo": composed / "repo"}
    return make_container(composed.parent / "container.tar", [{"etc": other}, web])


@pytest.fixture
def server(composed: Path) -> Iterator[str]:
    handler = partial(_Quiet, directory=str(composed))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = Thread(target=running.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/repo/"
        running.shutdown()
        thread.join()


class _Failing(SimpleHTTPRequestHandler):
    """Answers every request as its path says: /404/…, /500/…, or /cut/…, which breaks off."""

    def do_GET(self) -> None:
        how = self.path.split("/")[1]
        if how != "cut":
            self.send_error(int(how))
            return
        content = b"[core]\nrepo_version=1\nmode=archive-z2\n" if "config" in self.path else b"x"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + (content == b"x")))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def failing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Failing) as running:
        thread = Thread(target=running.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_all_sources_show_the_same_commit(
    composed: Path, commit_tar: Path, container: Path, server: str
) -> None:
    expected = Repo(composed / "repo").show(REF)
    for source in (composed, composed / "repo", commit_tar, str(container)):
        commit = open_commit(source)
        assert (commit.ref, commit.info) == (REF, expected), source
        assert commit.packages() == (BASH, HTOP)
        assert {f.path for f in commit.files()} >= {"/usr/bin/bash", "/usr/etc/bash.bashrc"}
    commit = open_commit(server, REF)
    assert (commit.ref, commit.info) == (REF, expected)
    assert len(commit.files()) == len(open_commit(composed).files())


def test_compose_json_is_there_where_the_source_has_one(
    composed: Path, commit_tar: Path, container: Path
) -> None:
    commit = Repo(composed / "repo").resolve(REF)
    for source in (composed, commit_tar):
        assert open_commit(source).compose == {"ref": REF, "ostree-commit": commit}
    assert open_commit(container).compose is None


@pytest.mark.parametrize("compress", [True, False])
def test_the_web_root_of_rhel_8_4_and_other_layers(
    composed: Path, tmp_path: Path, compress: bool
) -> None:
    web = {"var/www/html/repo": composed / "repo"}
    layers = [web, {"etc": composed / "repo" / "refs"}]
    container = make_container(tmp_path / "c.tar", layers, compress=compress)
    assert open_commit(container).ref == REF
    assert Repo(archive.unpack(container, tmp_path / "out")).refs().keys() == {REF}


def test_reading_stops_at_the_commit(composed: Path, tmp_path: Path) -> None:
    """With the order of our own commit.tar, what follows the commit object is never read."""
    commit = Repo(composed / "repo").resolve(REF)
    first = [
        "compose.json",
        "repo/config",
        f"repo/refs/heads/{REF}",
        f"repo/objects/{commit[:2]}/{commit[2:]}.commit",
    ]
    tar = make_commit_tar(tmp_path / "commit.tar", composed, first)
    with tarfile.open(tar) as opened:
        rest = opened.getmembers()[len(first)].offset
    with tar.open("r+b") as file:
        file.seek(rest)
        file.write(b"\xff" * (tar.stat().st_size - rest - 1024))  # all but the tar's end
    assert open_commit(tar).packages() == (BASH, HTOP)


def test_sizes(commit_tar: Path) -> None:
    commit = open_commit(commit_tar)
    assert commit.size_by_directory()["/usr/bin"] == 110
    assert sum(commit.size_by_directory(1).values()) == sum(
        file.size for file in commit.files() if file.kind == "file"
    )
    packages = commit.size_by_package()
    assert (packages["bash"], packages["htop"]) == (105, 10)
    assert sum(packages.values()) == sum(commit.size_by_directory().values())
    assert UNOWNED in packages


def test_a_tree_without_dpkg_says_so(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo").init()
    repo.commit_tar(make_tree(tmp_path / "t.tar", {}), REF, subject="s")
    with pytest.raises(CommitError, match="no dpkg database"):
        open_commit(repo.path).size_by_package()


def test_differences(composed: Path, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo").init()
    tree = make_tree(tmp_path / "t.tar", {**FILES, "usr/bin/bash": "new", "usr/bin/jq": "jq"})
    newer = Package("bash", "0", "5.3", "1", "amd64")
    kernels = [Package("linux", "0", v, "1", "amd64") for v in ("6.1", "6.12")]
    repo.commit_tar(tree, REF, subject="s", packages=[newer, *kernels])
    changes = diff(open_commit(composed), open_commit(repo.path))
    assert changes.added == tuple(kernels)
    assert changes.removed == (HTOP,)
    assert changes.changed == (PackageChange("bash", "amd64", "5.2.37-2", "5.3-1"),)
    assert str(changes.changed[0]) == "bash 5.2.37-2 -> 5.3-1"
    assert changes.files is not None
    assert (changes.files.added, changes.files.modified) == (("/usr/bin/jq",), ("/usr/bin/bash",))
    assert diff(open_commit(composed), open_commit(repo.path), files=False).files is None


def test_a_ref_is_asked_for_only_where_there_are_several(composed: Path, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo").init()
    repo.pull_local(composed / "repo")
    commit = repo.resolve(REF)
    repo.set_ref("other/ref", commit)
    with pytest.raises(CommitError, match="2 refs") as caught:
        open_commit(repo.path)
    assert caught.value.remedy == f"pass one of its refs: {REF}, other/ref"
    assert open_commit(repo.path, "other/ref").id == commit
    assert open_commit(repo.path, commit).id == commit
    with pytest.raises(CommitError, match="has no ref nope"):
        open_commit(repo.path, "nope")


def test_urls_that_do_not_answer_as_they_should(composed: Path, server: str) -> None:
    with pytest.raises(CommitError, match="does not say which refs") as caught:
        open_commit(server)
    assert "ostree summary -u" in caught.value.remedy
    with pytest.raises(CommitError, match="404"):
        open_commit(server, "no/such/ref")
    with pytest.raises(CommitError, match=r"127\.0\.0\.1:9"):
        open_commit("http://127.0.0.1:9/repo", REF)
    Repo(composed / "repo").update_summary()
    assert open_commit(server).ref == REF


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("{failing}/404/repo/", "`curl -I {failing}/404/repo/refs/heads/a/b` finds no such ref"),
        ("{failing}/403/repo", "ask for access"),
        ("{failing}/500/repo", "the log of the web server says why"),
        ("{failing}/cut/repo", "the connection broke off: try again"),
        ("http://127.0.0.1:9/repo", "see that its web server runs"),
        ("http://no-such-host.invalid/repo", "see that the host's name is right"),
    ],
)
def test_each_failure_of_a_server_has_its_own_remedy(failing: str, url: str, remedy: str) -> None:
    with pytest.raises(CommitError) as caught:
        open_commit(url.format(failing=failing), "a/b")
    assert remedy.format(failing=failing) in caught.value.remedy


def test_what_is_not_a_commit(tmp_path: Path, commit_tar: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "text.tar"
    text.write_text("no tar" * 1000)
    with pytest.raises(CommitError, match="there is no"):
        open_commit(tmp_path / "missing.tar")
    with pytest.raises(CommitError, match="not an OSTree repository"):
        open_commit(empty)
    with pytest.raises(CommitError, match="not a readable tar"):
        open_commit(text)
    with pytest.raises(CommitError, match="neither a repository"):
        open_commit(write_tar(tmp_path / "odd.tar", {"hello": b"x"}))
    with pytest.raises(CommitError, match=r"no index\.json"):
        open_commit(write_tar(tmp_path / "half.tar", {"oci-layout": b"{}"}))
    with pytest.raises(CommitError, match="not JSON"):
        open_commit(write_tar(tmp_path / "bad.tar", {"index.json": b"{"}))
    with pytest.raises(CommitError, match="lacks"):
        open_commit(write_tar(tmp_path / "bare.tar", {"index.json": b"{}"}))
    with pytest.raises(CommitError, match="0 refs"):
        open_commit(write_tar(tmp_path / "norefs.tar", {"repo/config": b"x"}))


def test_a_damaged_commit_object_is_noticed(composed: Path, tmp_path: Path) -> None:
    commit = Repo(composed / "repo").resolve(REF)
    name = f"repo/objects/{commit[:2]}/{commit[2:]}.commit"
    content = (composed / name).read_bytes().replace(b"bash", b"dash")
    files = {f"repo/refs/heads/{REF}": commit.encode(), name: content, "compose.json": b"{}"}
    with pytest.raises(CommitError, match="another checksum"):
        open_commit(write_tar(tmp_path / "damaged.tar", files))


@pytest.mark.parametrize("name", ["repo/../../evil", "repo/objects/../../../evil", "repo//evil"])
def test_no_archive_writes_outside(tmp_path: Path, name: str) -> None:
    tar = write_tar(tmp_path / "evil.tar", {"compose.json": b"{}", name: b"evil"})
    with pytest.raises(CommitError, match="which does not belong in a repository"):
        archive.unpack(tar, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_no_archive_brings_links(tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("repo/objects")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
    with pytest.raises(CommitError, match="which does not belong in a repository"):
        archive.unpack(path, tmp_path / "out")


def test_a_truncated_archive(commit_tar: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tar"
    cut.write_bytes(commit_tar.read_bytes()[: commit_tar.stat().st_size // 2])
    with pytest.raises(CommitError):
        Repo(archive.unpack(cut, tmp_path / "out")).fsck()


PARTS = [0, 1, 100, 511, 512, 1024, 1 / 10, 1 / 3, 1 / 2, 9 / 10]


@pytest.mark.parametrize("part", PARTS)
def test_an_archive_that_was_cut_off_is_never_read(
    commit_tar: Path,
    container: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    part: float,
) -> None:
    """Whether the commit is before the cut or after it, and on a boundary of blocks or not."""
    for whole in (commit_tar, container):
        content = whole.read_bytes().rstrip(b"\0")
        end = part if isinstance(part, int) else int(len(content) * part)
        for size in {end, -(-end // 512) * 512, len(content) - 1}:
            (tmp_path / "cut.tar").write_bytes(content[:size])
            cut = str(tmp_path / "cut.tar")
            with pytest.raises(CommitError):
                archive.is_container(Path(cut))
            for words in (["show", cut], ["packages", cut], ["files", cut]):
                assert main.main(["commit", *words]) == 1
                told = capsys.readouterr()
                assert told.out == ""
                assert "cut off" in told.err or "not a readable tar file" in told.err
                assert "\nto do: " in told.err
            assert main.main(["commit", "diff", str(whole), cut]) == 1
            assert main.main(["commit", "diff", cut, str(whole)]) == 1
            capsys.readouterr()


def test_an_artifact_that_is_missing_or_cut_off_leads_to_its_compose(
    commit_tar: Path, tmp_path: Path
) -> None:
    lab, compose = tmp_path / "my lab", "30000000-0000-0000-0000-000000000002"
    artifact = lab / "composes" / f"{compose}-commit.tar"
    artifact.parent.mkdir(parents=True)
    for content in (None, commit_tar.read_bytes()[:5000]):
        if content is not None:
            artifact.write_bytes(content)
        for read in (open_commit, archive.is_container):
            with pytest.raises(CommitError) as caught:
                read(artifact)
            for command in (
                f"`rfe compose download {compose} --to '{lab}/composes' --lab '{lab}'`",
                f"`rfe solve 20 --lab '{lab}'`",
            ):
                assert command in caught.value.remedy
    with pytest.raises(CommitError) as caught:
        open_commit(tmp_path / "other.tar")
    assert "see whether the path is right" in caught.value.remedy


def test_a_summary_as_json(commit_tar: Path) -> None:
    shown = json.loads(json.dumps(open_commit(commit_tar).to_dict()))
    assert (shown["ref"], shown["packages"], shown["version"]) == (REF, 2, "13.1")
    assert REF in repr(open_commit(commit_tar))


def test_no_source_leaves_a_repository_behind(
    container: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    killed = tmp_path / "rfe-commit-4194305-killed"  # beyond the largest pid of Linux
    killed.mkdir()
    opened = open_commit(container)
    assert not killed.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(CommitError, match="does not say which refs"):
        open_commit("http://127.0.0.1:1/repo")
    del opened
    gc.collect()
    assert list(tmp_path.iterdir()) == []
