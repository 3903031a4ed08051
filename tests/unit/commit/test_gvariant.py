import pytest

from rfe_helpers.commit import gvariant
from rfe_helpers.errors import CommitError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'plain'", "plain"),
        ('"it\'s"', "it's"),
        (r"'a\'b\\c\n\u00e9\t'", "a'b\\c\né\t"),
        ("true", True),
        ("nothing", None),
        ("just 'x'", "x"),
        ("uint64 1700000000", 1700000000),
        ("byte 0x2a", 42),
        ("-7", -7),
        ("010", 10),
        ("2.5", 2.5),
        ("1e3", 1000.0),
        ("@ay []", []),
        ("[byte 0x08, 0x6b]", b"\x08k"),
        ("[[byte 0x08], [0xff, 0x00]]", [b"\x08", b"\xff\x00"]),
        # A byte string has a zero at its end that is not written.
        ("b'ab'", b"ab\0"),
        ("b''", b"\0"),
        (r"b'\001\n\'\"\\\3779'", b"\x01\n'\"\\\xff9\0"),
        ("<'in a variant'>", "in a variant"),
        ("<<true>>", True),
        ("('one',)", ("one",)),
        ("()", ()),
        ("@a{sv} {}", {}),
        ("{'a': <[1, 2]>, 'b': <@as []>}", {"a": [1, 2], "b": []}),
        ("{'key', 'value'}", {"key": "value"}),
        ("@a(sssss) [('a', '0', '1', '2', 'all')]", [("a", "0", "1", "2", "all")]),
    ],
)
def test_values(text: str, value: object) -> None:
    assert gvariant.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        "'open",
        "[1, 2",
        "{'a' 1}",
        "{[1]: 2}",
        "<1, 2>",
        "1 2",
        "1.2.3",
        "<>",
        "}",
        "((" * 500,
    ],
)
def test_what_is_not_a_variant_is_refused(text: str) -> None:
    with pytest.raises(CommitError, match="not a GVariant"):
        gvariant.parse(text)


@pytest.mark.parametrize("text", ["", "x", "it's", 'a "quote"', "back\\slash", "two\nlines", "é☃"])
def test_a_printed_string_reads_back(text: str) -> None:
    assert gvariant.parse(gvariant.string(text)) == text


def test_printed_rows_read_back_and_an_empty_list_keeps_its_type() -> None:
    rows = [("libc6", "0", "2.41", "12", "amd64"), ("it's", "1", "2~rc1", "", "all")]
    assert gvariant.parse(gvariant.strings(rows, 5)) == rows
    assert gvariant.strings([], 5) == "@a(sssss) []"
