import json
import stat
from pathlib import Path

import pytest

from rfe_helpers.core import files


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
