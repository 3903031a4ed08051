"""The rules that every notebook of the workbook keeps: those of rfe_helpers.workbook.rules, which
`rfe check` holds others to, and some that only the workbook's own have."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from rfe_helpers.workbook import notebook_file
from rfe_helpers.workbook.chapters import number_of
from rfe_helpers.workbook.notebooks import NOTEBOOKS, all_notebooks
from rfe_helpers.workbook.rules import RULES

ROOT = Path(__file__).parents[2]
PATHS = all_notebooks()


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def book(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_keeps_the_rule(path, rule):
    assert list(map(str, rule(notebook_file.read(path)))) == []


def test_it_is_valid(book):
    nbformat.validate(book)


def test_the_workbook_has_its_notebooks():
    numbers = [number_of(path.name) for path in PATHS]
    assert numbers[:8] == ["00", "10", "15", "20", "30", "40", "50", "60"]
    assert len(set(numbers)) == len(numbers)


def test_the_first_cells_name_its_number(path, book):
    number = number_of(path.name)
    assert f"`rfe run {number}`" in book.cells[0].source
    if number != "00":  # which looks for everything, with its remedies
        assert f'\nbegin(my_lab, "{number}")' in book.cells[2].source


def test_neighbours_are_linked(path, book):
    index = PATHS.index(path)
    for neighbour in PATHS[max(0, index - 1) : index] + PATHS[index + 1 : index + 2]:
        assert f"]({neighbour.name})" in book.cells[0].source


def test_its_lab_is_the_usual_one_and_each_parameter_says_what_it_is(path):
    known = papermill.inspect_notebook(path)
    assert known["lab"]["default"] == '"~/rfe-lab"'
    assert all(parameter["help"] for parameter in known.values())


@pytest.mark.timeout(600)
def test_attributes_and_arguments_that_cells_use_exist(tmp_path):
    """As mypy sees them; a name may have two types in two cells, so other remarks do not count."""
    for path in PATHS:
        cells = code_cells(nbformat.read(path, as_version=nbformat.NO_CONVERT))
        script = tmp_path / f"notebook_{number_of(path.name)}.py"
        script.write_text("\n".join(cell.source for cell in cells) + "\n")
    command = [sys.executable, "-m", "mypy", *sorted(tmp_path.glob("*.py"))]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert f"{len(PATHS)} source files" in result.stdout, result.stdout + result.stderr
    codes = ("[attr-defined]", "[call-arg]")
    assert [line for line in result.stdout.splitlines() if line.endswith(codes)] == []


def test_no_machine_is_named(path):
    text = path.read_text()
    for pattern in (
        r"/root/",
        r"/home/",
        r"/tmp/",
        r"https?://(?!10\.0\.2\.2|127\.0\.0\.1|localhost)",
    ):
        assert not re.search(pattern, text), pattern


def test_nothing_else_lies_there():
    allowed = {path.name for path in PATHS} | {"pictures", ".ipynb_checkpoints"}
    assert {item.name for item in Path(NOTEBOOKS).iterdir()} <= allowed
