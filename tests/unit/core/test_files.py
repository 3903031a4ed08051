import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.trees import make_commit_tar, make_tree

from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import files
from rfe_helpers.errors import RfeError


def test_write_replaces_the_whole_file_with_its_mode(tmp_path):
    path = tmp_path / "deep" / "file"
    files.write(path, "a longer text")
    files.write(path, b"short", mode=0o600)
    assert path.read_bytes() == b"short"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "file"
    files.write(path, "old")

    def fail_half_way():
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_is_sorted_and_ends_with_a_newline(tmp_path):
    files.write_json(tmp_path / "x.json", {"b": 1, "a": [None]})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == {"a": [None], "b": 1}
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")


# locks --------------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one_at_a_time_and_made_where_its_folder_is(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with files.locked(lock), pytest.raises(BlockingIOError), files.locked(lock, wait=False):
        pass
    with files.locked(lock, wait=False):
        assert lock.is_file()
    with pytest.raises(FileNotFoundError), files.locked(tmp_path / "gone" / "lock"):
        pass


def test_a_directory_is_locked_but_never_made_and_links_are_not_followed(tmp_path: Path) -> None:
    again = files.locked(tmp_path, directory=True, wait=False)
    with files.locked(tmp_path, directory=True), pytest.raises(BlockingIOError), again:
        pass
    with pytest.raises(FileNotFoundError), files.locked(tmp_path / "gone", directory=True):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="Too many levels"), files.locked(tmp_path / "link"):
        pass
    assert not (tmp_path / "target").exists()


# a full disk --------------------------------------------------------------------------------------

FULL = """
import os
from pathlib import Path
from rfe_helpers.cli import main
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import files, run
from rfe_helpers.errors import RfeError

full = Path("disk").absolute()

def attempt(name, action):
    try:
        action()
        print(name, "has room")
    except RfeError as error:
        print(name, str(error).replace("\\n", " "))

files.write(full / "kept", "old")
attempt("write", lambda: files.write(full / "kept", bytes(200_000)))
assert (full / "kept").read_text() == "old"
attempt("cp", lambda: run.run(["cp", "/proc/self/exe", full / "x"]))
create = ["qemu-img", "create", "-q", "-o", "preallocation=full", full / "disk", "1M"]
attempt("qemu-img", lambda: run.run(create))
attempt("ostree", lambda: Repo(full / "repo").init())
assert main.main(["sandbox", "start", "--lab", str(full / "lab")]) == 1
os.environ["TMPDIR"] = str(full)
assert main.main(["commit", "show", "commit.tar"]) == 1
"""


def test_a_full_disk_is_named_wherever_it_is_noticed(tmp_path: Path) -> None:
    """On a file system of 100 kB: in the package's own files, and by commands."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "script.py").write_text(FULL)
    repo = Repo(tmp_path / "whole" / "repo").init()
    repo.commit_tar(make_tree(tmp_path / "tree.tar", {}), "a/b", subject="s")
    make_commit_tar(tmp_path / "commit.tar", tmp_path / "whole")
    mounted = f"mount -t tmpfs -o size=100k tmpfs disk && exec {sys.executable} script.py"
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted]
    result = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["write", "cp", "qemu-img", "ostree"]
    for text in (*lines, *result.stderr.split("rfe: ")[1:]):
        assert f"the disk of {tmp_path}/disk" in text
        assert f"`du -xhd1 {tmp_path}/disk" in text
    assert result.stderr.count("rfe: ") == 2


def test_too_little_room_says_how_to_get_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files.check_room(Path(), 1, "it", RfeError)
    for directory in (tmp_path, Path()):
        with pytest.raises(RfeError, match=r"GB free, a compose needs 1000000000\.0 GB") as caught:
            files.check_room(directory, 10**18, "a compose", RfeError)
        assert "`du -xhd1 /" in caught.value.remedy
        with pytest.raises(RfeError) as caught:
            files.check_room(directory, 10**18, "a compose", RfeError, remedy="ask for less")
        assert caught.value.remedy == "ask for less"
    assert f"the disk of {tmp_path} is full" in files.disk_full([Path("x/y")]).message
