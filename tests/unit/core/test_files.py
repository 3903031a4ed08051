import json
import stat

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
