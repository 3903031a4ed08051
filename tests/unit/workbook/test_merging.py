"""Merges of what readers and the workbook have changed, a few by hand and many at random."""

from collections.abc import Sequence
from itertools import pairwise

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat import NotebookNode

from rfe_helpers.workbook.merging import merge

Cells = Sequence[tuple[str, str]]
BASE = (("a", "x = 1\ny = 2\nz = 3"), ("b", "print(x)"), ("c", "print(y)"))


def book(cells: Cells, *, ran: bool = False) -> NotebookNode:
    notebook = nbformat.v4.new_notebook()
    for name, source in cells:
        cell = nbformat.v4.new_code_cell(source, id=name)
        if ran:
            cell.outputs = [nbformat.v4.new_output("stream", text=f"of {name}")]
            cell.execution_count = 1
        notebook.cells.append(cell)
    return notebook


def merged(base: Cells, local: Cells, remote: Cells) -> list[tuple[str, str]]:
    notebook = merge(book(base), book(local), book(remote)).notebook
    nbformat.validate(notebook)
    return [(cell.id, cell.source) for cell in notebook.cells]


def test_changes_of_different_lines_are_both_taken() -> None:
    local = (("a", "x = 5\ny = 2\nz = 3"), *BASE[1:])
    remote = (("a", "x = 1\ny = 2\nz = 3\nw = 4"), *BASE[1:])
    assert merged(BASE, local, remote) == [("a", "x = 5\ny = 2\nz = 3\nw = 4"), *BASE[1:]]


@pytest.mark.parametrize("line", ["x = 9", "xx = 1", "x = 12"])
def test_where_both_have_changed_a_line_the_readers_stays_above_a_note(line: str) -> None:
    local = (("a", "x = 5\ny = 2\nz = 3"), *BASE[1:])
    remote = (("a", f"{line}\ny = 2\nz = 8"), *BASE[1:])
    result = merge(book(BASE), book(local), book(remote))
    first, note, *rest = result.notebook.cells
    assert (first.source, [cell.id for cell in rest]) == ("x = 5\ny = 2\nz = 3", ["b", "c"])
    assert note.cell_type == "markdown"
    assert f"~~~python\n{line}\ny = 2\nz = 8\n~~~" in note.source
    assert result.notes == 1


def test_a_note_is_renewed_by_the_next_version_and_there_only_once() -> None:
    versions = [(("a", f"x = {number}"), *BASE[1:]) for number in (1, 2, 3)]
    local = book((("a", "x = mine"), *BASE[1:]))
    for old, new in pairwise(versions):
        local = merge(book(old), local, book(new)).notebook
        again = merge(book(old), local, book(new))
        assert (again.notebook, again.notes) == (local, 0)
    assert [cell.id for cell in local.cells] == ["a", "a-new", "b", "c"]
    assert "x = 3" in local.cells[1].source


def test_cells_that_both_have_inserted_at_one_place_are_both_there() -> None:
    local, remote = [*BASE[:1], ("l", "mine"), *BASE[1:]], [*BASE[:1], ("r", "new"), *BASE[1:]]
    assert merged(BASE, local, remote) == [BASE[0], ("l", "mine"), ("r", "new"), *BASE[1:]]


def test_a_cell_that_the_reader_has_only_run_follows_the_workbook() -> None:
    remote = [("a", "x = 2"), BASE[2]]
    result = merge(book(BASE), book(BASE, ran=True), book(remote)).notebook
    assert [(cell.id, cell.source) for cell in result.cells] == remote
    assert [cell.outputs[0].text for cell in result.cells] == ["of a", "of c"]


def test_what_jupyterlab_notes_of_a_cell_stays_and_tags_are_the_workbooks() -> None:
    base, local, remote = book(BASE), book(BASE), book(BASE)
    base.cells[0].metadata.tags = local.cells[0].metadata.tags = ["old"]
    remote.cells[0].metadata.tags = ["new"]
    local.cells[0].metadata.scrolled = True
    local.metadata.language_info = {"name": "python", "version": "3.13"}
    result = merge(base, local, remote).notebook
    assert result.cells[0].metadata == {"tags": ["new"], "scrolled": True}
    assert result.metadata.language_info.version == "3.13"


def test_a_cell_that_the_reader_has_deleted_stays_so_and_its_new_version_is_noted() -> None:
    first, note, last = merged(BASE, [BASE[0], BASE[2]], [BASE[0], ("b", "print(8)"), BASE[2]])
    assert (first, last) == (BASE[0], BASE[2])
    assert note[0] == "b-new"
    assert "you have deleted" in note[1]


def test_a_fence_of_a_note_is_longer_than_those_inside() -> None:
    remote = [("a", "~~~\nx\n~~~"), *BASE[1:]]
    assert "\n~~~~" in merged(BASE, [("a", "mine"), *BASE[1:]], remote)[1][1]


LINES = st.lists(st.sampled_from(["x = 1", "y = 2", "z = x + y", "print(z)", ""]), max_size=4)
SOURCES = LINES.map("\n".join)


@st.composite
def edits(draw: st.DrawFn, base: Cells, prefix: str) -> Cells:
    """What somebody has made of a notebook: cells changed, deleted, moved and inserted."""
    cells = list(base)
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["change", "write", "delete", "move", "insert"]))
        place = draw(st.integers(0, len(cells)))
        if kind == "insert" or not cells:
            cells.insert(place, (f"{prefix}{number}", draw(SOURCES)))
            continue
        name, source = cells.pop(min(place, len(cells) - 1))
        if kind == "change":
            cells.insert(place, (name, draw(SOURCES)))
        elif kind == "write":  # a line that is nowhere else
            lines = source.split("\n")
            start = draw(st.integers(0, len(lines)))
            lines[start : start + draw(st.integers(0, 1))] = [f"{prefix} = {number}"]
            cells.insert(place, (name, "\n".join(lines)))
        elif kind == "move":
            cells.insert(draw(st.integers(0, len(cells))), (name, source))
    return cells


@st.composite
def histories(draw: st.DrawFn) -> tuple[Cells, Cells, Cells]:
    base = [(f"c{number}", draw(SOURCES)) for number in range(draw(st.integers(0, 6)))]
    return base, draw(edits(base, "l")), draw(edits(base, "r"))


@settings(max_examples=300)
@given(histories())
def test_nothing_of_the_reader_is_lost_and_nothing_new_missing(
    history: tuple[Cells, Cells, Cells],
) -> None:
    base, local, remote = map(dict, history)
    result = merge(*map(book, history)).notebook
    nbformat.validate(result)
    cells = {cell.id: cell.source for cell in result.cells}
    assert len(cells) == len(result.cells)
    for name, source in local.items():
        if name not in base or remote.get(name) == base[name]:
            assert cells[name] == source
        elif source == base[name]:
            assert cells.get(name) == remote.get(name)
        elif name in remote:
            lines = {"", *source.split("\n"), *remote[name].split("\n")}
            if f"{name}-new" in cells:
                assert cells[name] == source
                assert remote[name] in cells[f"{name}-new"]
            else:
                there = {*cells[name].split("\n")}
                assert there <= lines
                for side in (source, remote[name]):
                    assert {*side.split("\n")} - {*base[name].split("\n")} <= there
        else:
            assert cells[name] == source
    for name, source in remote.items():
        if name not in base:
            assert cells[name] == source
        elif name not in local:
            assert name not in cells
            assert (f"{name}-new" in cells) == (source != base[name])
    again = merge(book(history[2]), result, book(history[2]))
    assert (again.notebook, again.notes) == (result, 0)
