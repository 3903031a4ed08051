"""What runs in the chroot of a compose: the parts that need no chroot."""

import py_compile
from pathlib import Path

import pytest

from rfe_helpers.sandbox.build import inside


@pytest.mark.parametrize(
    ("mode", "hash_based"),
    [
        (py_compile.PycInvalidationMode.TIMESTAMP, False),
        (py_compile.PycInvalidationMode.UNCHECKED_HASH, True),
    ],
)
def test_bytecode_that_goes_by_the_time_of_its_source_is_told_from_the_other(
    tmp_path: Path, mode: py_compile.PycInvalidationMode, hash_based: bool
) -> None:
    (tmp_path / "x.py").write_text("x = 1\n")
    py_compile.compile(str(tmp_path / "x.py"), str(tmp_path / "x.pyc"), invalidation_mode=mode)
    assert inside.is_hash_based(tmp_path / "x.pyc") is hash_based


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("ends in \\", "ends in \\\\"),
        ("50 %h", "50 %%h"),
        ('a "quoted" word', 'a \\"quoted\\" word'),
        ("John Smith, IT\u2028\u0085", "John Smith, IT\u2028\u0085"),
    ],
)
def test_texts_in_sysusers_and_tmpfiles_are_taken_literally(text: str, escaped: str) -> None:
    assert inside.escaped(text) == escaped


def test_a_file_with_a_backslash_in_its_name_is_described_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a\\b").symlink_to("c\\%d")
    (line,) = inside.describe(tmp_path / "a\\b", "var/usrlocal/bin/a\\b")
    assert line == 'L "/var/usrlocal/bin/a\\\\b" - - - - c\\\\%%d'
