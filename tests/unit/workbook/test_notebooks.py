import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from rfe_helpers.core import journal
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


def test_a_copy_that_nobody_has_changed_follows_the_package(lab, tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "pictures").mkdir(parents=True)
    cell = nbformat.v4.new_code_cell('lab: str = "x"  # of this run')
    cell.metadata.tags = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), package / "00-first.ipynb")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", package)
    copy = copies(lab) / "00-first.ipynb"
    added = nbformat.v4.new_markdown_cell("Of the next version")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, added]), package / "00-first.ipynb")
    copies(lab)
    assert "Of the next version" in copy.read_text()
    copy.write_text("mine")
    copies(lab)
    assert copy.read_text() == "mine"


@pytest.mark.slow
def test_a_wheel_has_the_notebooks_and_a_lab_of_its_user_gets_copies(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    program = """import sys
from rfe_helpers import Lab
from rfe_helpers.workbook.notebooks import copies
print(copies(Lab(sys.argv[1])))"""
    shown = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "lab"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    copied = sorted(path.name for path in Path(shown.stdout.strip()).glob("*.ipynb"))
    assert copied == [path.name for path in all_notebooks()]
