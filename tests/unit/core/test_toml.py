"""Documents as TOML: what is written reads the same, in the layout of Image Builder."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfe_helpers.core import toml


def test_each_table_of_a_list_has_lines_of_its_own() -> None:
    packages = [{"name": "tmux", "version": "*"}, {"name": "vim-tiny"}]
    document = {"name": "Edge", "groups": [], "packages": packages}
    assert toml.dumps(document) == (
        'name = "Edge"\ngroups = []\n\n[[packages]]\nname = "tmux"\nversion = "*"\n'
        '\n[[packages]]\nname = "vim-tiny"\n'
    )


VALUES = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3).filter(str.isprintable), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "b c", "\x7f", "d.e", ""]), VALUES))
def test_any_document_is_written_so_that_it_reads_the_same(document: dict[str, object]) -> None:
    assert tomllib.loads(toml.dumps(document)) == document


@pytest.mark.parametrize("value", [None, float("inf"), [{"a": None}]])
def test_what_toml_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"not a value of TOML|not JSON compliant"):
        toml.dumps({"a": value})
