import errno
import json
import shutil
from hashlib import sha256
from pathlib import Path

import nbformat
import pytest

from rfe_helpers.core import journal
from rfe_helpers.errors import DiskFullError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import notebooks
from rfe_helpers.workbook.notebooks import all_notebooks, copies

ROOT = Path(__file__).parents[3]


@pytest.fixture
def lab(tmp_path):
    yield Lab(tmp_path / "lab")
    journal.open_journal(None)


def test_the_notebooks_are_part_of_the_package():
    assert notebooks.NOTEBOOKS == ROOT / "notebooks"
    assert all_notebooks()[0].name == "00-start-here.ipynb"


def test_a_lab_has_copies_with_its_own_parameters(lab):
    root = copies(lab)
    assert root.parent == lab.directory
    assert (root / "pictures" / "life-cycle.svg").is_file()
    for path in all_notebooks():
        copy = nbformat.read(root / path.name, as_version=4)
        nbformat.validate(copy)
        lines = copy.cells[1].source.splitlines()
        assert lines[0].startswith(f'lab: str = "{lab.directory}"  # ')
        assert lines[1].startswith('profile: str = "sandbox"  # ')
        original = nbformat.read(path, as_version=4)
        for ours, theirs in zip(copy.cells[2:], original.cells[2:], strict=True):
            assert (ours.id, ours.source, ours.metadata) == (
                theirs.id,
                theirs.source,
                theirs.metadata,
            )


def test_the_usual_lab_has_copies_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    lab = Lab()
    first = copies(lab) / "00-start-here.ipynb"
    assert first.is_relative_to(lab.directory)
    assert 'lab: str = "~/rfe-lab"  # ' in nbformat.read(first, as_version=4).cells[1].source
    journal.open_journal(None)


def test_a_copy_has_no_outputs_of_another_lab(lab, tmp_path):
    book = nbformat.read(all_notebooks()[0], as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.execution_count = 7
            cell.outputs = [nbformat.v4.new_output("stream", text="of another lab")]
    nbformat.write(book, tmp_path / "00-run.ipynb")
    copy = json.loads(notebooks.with_lab(tmp_path / "00-run.ipynb", lab))
    cells = [cell for cell in copy["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_what_a_reader_changes_stays_until_it_is_restored(lab):
    first = copies(lab) / "00-start-here.ipynb"
    original = first.read_text()
    first.write_text("mine")
    own = first.with_name("own.ipynb")
    own.write_text("{}")
    copies(lab)
    assert first.read_text() == "mine"
    assert notebooks.own_notebooks(lab) == [first, own]
    line, hint = notebooks.restore(lab)
    assert line.startswith("restored 00-start-here.ipynb")
    assert "choose Revert" in hint
    assert first.read_text() == original
    (kept,) = lab.directory.glob("notebooks/replaced/*/00-start-here.ipynb")
    assert kept.read_text() == "mine"
    assert notebooks.restore(lab) == []
    assert notebooks.own_notebooks(lab) == [own, kept]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with one notebook, and how its next versions are published: cells by their ids."""
    root = tmp_path / "package"
    (root / "pictures").mkdir(parents=True)

    def publish(**cells):
        parameters = nbformat.v4.new_code_cell('lab: str = "x"  # of this run', id="parameters")
        parameters.metadata.tags = ["parameters"]
        others = [nbformat.v4.new_code_cell(source, id=name) for name, source in cells.items()]
        notebook = nbformat.v4.new_notebook(cells=[parameters, *others])
        nbformat.write(notebook, root / "00-first.ipynb")

    publish(one="x = 1", two="print(x)")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", root)
    return publish


def change(path: Path, **sources: str) -> None:
    """What a reader does in JupyterLab: change some cells, and run all."""
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(notebook.cells, 1):
        cell.source = sources.get(cell.id, cell.source)
        cell.outputs = [nbformat.v4.new_output("stream", text=f"of {cell.id}")]
        cell.execution_count = number
    nbformat.write(notebook, path)


def sources(path: Path) -> dict[str, str]:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return {cell.id: cell.source for cell in notebook.cells[1:]}


def test_a_copy_that_nobody_has_changed_follows_the_package(lab, package):
    copy = copies(lab) / "00-first.ipynb"
    package(one="x = 2")
    assert notebooks.upgrade(lab)[0].endswith("replaced; you had not changed it")
    assert sources(copy) == {"one": "x = 2"}
    copy.write_text("mine")
    copies(lab)
    assert copy.read_text() == "mine"
    assert notebooks.upgrade(lab) == [], "there is nothing newer"
    package(one="x = 3")
    assert "cannot be read" in notebooks.upgrade(lab)[0]
    assert copy.read_text() == "mine"


def test_an_upgrade_keeps_what_the_reader_has_changed_and_run(lab, package):
    copy = copies(lab) / "00-first.ipynb"
    change(copy, two="print(x, 'mine')")
    before = copy.read_text()
    package(one="x = 2", two="print(x)", three="print('new')")
    copies(lab)
    assert copy.read_text() == before, "only an upgrade changes it"
    assert notebooks.outdated_copies(lab) == [copy]
    line, hint = notebooks.upgrade(lab)
    assert line.startswith("00-first.ipynb: merged with your changes; yours as it was is in ")
    assert "choose Revert" in hint
    assert sources(copy) == {"one": "x = 2", "two": "print(x, 'mine')", "three": "print('new')"}
    outputs = [cell.outputs for cell in nbformat.read(copy, as_version=4).cells]
    assert [each[0].text for each in outputs[:3]] == ["of parameters", "of one", "of two"]
    (kept,) = lab.directory.glob("notebooks/replaced/*/00-first.ipynb")
    assert kept.read_text() == before
    merged = copy.read_text()
    assert notebooks.upgrade(lab) == []
    assert (copy.read_text(), notebooks.outdated_copies(lab)) == (merged, [])
    assert notebooks.own_notebooks(lab) == [copy, kept]


def test_an_upgrade_says_where_both_have_changed_a_cell(lab, package):
    copy = copies(lab) / "00-first.ipynb"
    change(copy, one="x = 'mine'")
    package(one="x = 2", two="print(x)")
    assert "both have changed a cell" in notebooks.upgrade(lab)[0]
    assert sources(copy)["one"] == "x = 'mine'"
    assert "x = 2" in sources(copy)["one-new"]
    notebooks.restore(lab)
    assert sources(copy) == {"one": "x = 2", "two": "print(x)"}


@pytest.mark.parametrize("write", [1, 2, 3])
def test_an_upgrade_that_is_interrupted_is_finished_by_the_next(lab, package, monkeypatch, write):
    """The disk is full at its first, second or third file: the kept copy, the merged one, the
    original."""
    copy = copies(lab) / "00-first.ipynb"
    change(copy, one="x = 1\nmine = 1")
    before = copy.read_text()
    package(one="x = 1\nnew = 1", two="print(x)")
    count, rename = iter(range(1, 9)), Path.replace

    def failing(path, target):
        if next(count) == write:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(DiskFullError):
            notebooks.upgrade(lab)
    assert write == 3 or copy.read_text() == before
    notebooks.upgrade(lab)
    assert sources(copy)["one"] == "x = 1\nmine = 1"
    assert sources(copy)["one-new"].count("new = 1") == 1
    assert before in [path.read_text() for path in lab.directory.glob("notebooks/replaced/*/*")]
    assert notebooks.upgrade(lab) == []


def test_what_jupyterlab_saves_during_an_upgrade_is_merged_too(lab, package, monkeypatch):
    copy = copies(lab) / "00-first.ipynb"
    change(copy, one="x = 'early'")
    package(one="x = 1", two="print(x)", three="print('new')")
    rename, saved = Path.replace, []

    def saving(path, target):
        if not saved:
            change(copy, one="x = 'late'")
            saved.append(copy.read_text())
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", saving)
        notebooks.upgrade(lab)
    expected = {"one": "x = 'late'", "two": "print(x)", "three": "print('new')"}
    assert sources(copy) == expected
    assert saved == [path.read_text() for path in lab.directory.glob("notebooks/replaced/*/*")]


def digests(lab: Lab) -> Path:
    """Make a lab as it was when only digests of originals were kept."""
    root = lab.directory / "notebooks"
    originals = root / ".originals"
    values = {path.name: sha256(path.read_bytes()).hexdigest() for path in originals.iterdir()}
    shutil.rmtree(originals)
    (root / ".originals.json").write_text(json.dumps(values))
    return root / ".originals.json"


def test_a_lab_with_digests_gets_originals(lab, package):
    copy = copies(lab) / "00-first.ipynb"
    change(copy, two="print('mine')")
    old = digests(lab)
    assert notebooks.changed_copies(lab) == [copy]
    copies(lab)
    assert not old.exists()
    package(one="x = 2", two="print(x)")
    notebooks.upgrade(lab)
    assert sources(copy) == {"one": "x = 2", "two": "print('mine')"}


def test_where_the_original_is_not_known_a_changed_copy_is_left_alone(lab, package):
    copy = copies(lab) / "00-first.ipynb"
    change(copy, two="print('mine')")
    before = copy.read_text()
    digests(lab)
    package(one="x = 2", two="print(x)")
    line = notebooks.upgrade(lab)[0]
    assert f"`rfe lab reset --notebooks --lab {lab.directory}` replaces it and keeps yours" in line
    assert copy.read_text() == before
    notebooks.restore(lab)
    assert sources(copy) == {"one": "x = 2", "two": "print(x)"}
    assert notebooks.upgrade(lab) == []


def test_a_lab_with_digests_follows_the_package_where_nothing_was_changed(lab, package):
    copy = copies(lab) / "00-first.ipynb"
    old = digests(lab)
    package(one="x = 2")
    copies(lab)
    assert sources(copy) == {"one": "x = 2"}
    assert not old.exists()
