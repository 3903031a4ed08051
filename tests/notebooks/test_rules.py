"""The rules that every notebook of the workbook keeps."""

import ast
import copy
import importlib
import inspect
import itertools
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from rfe_helpers.lab import profile
from rfe_helpers.workbook.exercises import insert_solutions, is_solution
from rfe_helpers.workbook.notebooks import NOTEBOOKS, all_notebooks

ROOT = Path(__file__).parents[2]
PATHS = all_notebooks()
SECRET_NAMES = re.compile(r"password|passwd|secret|token|api_?key|credential", re.IGNORECASE)


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def book(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_the_workbook_has_its_notebooks():
    numbers = [path.name[:2] for path in PATHS]
    assert numbers[:8] == ["00", "10", "15", "20", "30", "40", "50", "60"]
    assert len(set(numbers)) == len(numbers)


def test_it_is_valid_and_of_format_4_5_for_the_kernel_python3(book):
    nbformat.validate(book)
    assert (book.nbformat, book.nbformat_minor) == (4, 5)
    assert book.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in book.cells}) == len(book.cells)


def test_the_first_cell_says_what_one_gets_needs_and_types(path, book):
    first = book.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    for part in ("At the end you have", "It needs", "It takes", f"`rfe run {path.name[:2]}`"):
        assert part in first.source


def test_neighbours_are_linked(path, book):
    index = PATHS.index(path)
    for neighbour in PATHS[max(0, index - 1) : index] + PATHS[index + 1 : index + 2]:
        assert f"]({neighbour.name})" in book.cells[0].source


def test_every_link_to_a_file_leads_somewhere(path, book):
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    targets = [t for t in re.findall(r"\]\(([^)#]+)", text) if "://" not in t]
    assert targets
    for target in targets:
        assert (path.parent / target).exists(), target


def test_parameters_are_annotated_literals_with_comments(path, book):
    cell = book.cells[1]
    assert cell.metadata.tags == ["parameters"]
    lines = cell.source.splitlines()
    for line, statement in zip(lines, ast.parse(cell.source).body, strict=True):
        assert isinstance(statement, ast.AnnAssign)
        assert type(ast.literal_eval(statement.value)).__name__ == statement.annotation.id
        assert "  # " in line
        assert not SECRET_NAMES.search(statement.target.id), "secrets are never parameters"
    found = papermill.inspect_notebook(path)
    assert {"lab", "profile"} <= set(found)
    assert all(each["help"] for each in found.values())
    assert found["profile"]["default"].strip('"') in profile.names()


def test_only_one_cell_is_tagged_parameters(book):
    tagged = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ())]
    assert len(tagged) == 1


def test_the_third_cell_imports_opens_the_lab_and_checks_the_tools(path, book):
    assert book.cells[2].cell_type == "code"
    assert "my_lab = Lab(lab, profile)" in book.cells[2].source
    if path.name[:2] != "00":  # which looks for everything, with its remedies
        assert f'\nbegin(my_lab, "{path.name[:2]}")' in book.cells[2].source
    imports = [
        cell.id
        for cell in code_cells(book)
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree(cell)))
    ]
    assert imports == [book.cells[2].id]


def test_it_imports_from_the_faces_in_six_lines_at_most(book):
    statements = [
        node for node in tree(book.cells[2]).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert len(statements) <= 6
    ours = [node for node in statements if (getattr(node, "module", "") or "").startswith("rfe_")]
    assert ours
    for node in ours:
        face = importlib.import_module(node.module)
        assert node.module.count(".") <= 1
        assert {alias.name for alias in node.names} <= set(face.__all__), node.module


def tree(cell):
    return ast.parse(cell.source)  # fails for magics and `!`, which are not wanted


def named(node, names):
    """What an expression of dotted names stands for, None if it starts with none of `names`."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = named(node.value, names)
    return getattr(owner, node.attr) if inspect.ismodule(owner) or inspect.isclass(owner) else None


def test_names_and_keywords_that_it_takes_from_the_faces_exist(book):
    names = {}
    for node in tree(book.cells[2]).body:
        if isinstance(node, ast.Import):
            names |= {each.name: importlib.import_module(each.name) for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            face = importlib.import_module(node.module)
            names |= {each.name: getattr(face, each.name) for each in node.names}
    for cell in code_cells(book):
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.Attribute):
                named(node, names)  # fails for what is not there
            elif isinstance(node, ast.Call):
                function = named(node.func, names)
                if function is not None:
                    assert callable(function), ast.unparse(node.func)
                    parameters = inspect.signature(function).parameters.values()
                    if not any(each.kind is each.VAR_KEYWORD for each in parameters):
                        keywords = {each.arg for each in node.keywords if each.arg}
                        assert keywords <= {each.name for each in parameters}, ast.unparse(node)


@pytest.mark.timeout(600)
def test_attributes_and_arguments_that_cells_use_exist(tmp_path):
    """As mypy sees them; a name may have two types in two cells, so other remarks do not count."""
    for path in PATHS:
        cells = code_cells(nbformat.read(path, as_version=nbformat.NO_CONVERT))
        script = tmp_path / f"notebook_{path.name[:2]}.py"
        script.write_text("\n".join(cell.source for cell in cells) + "\n")
    command = [sys.executable, "-m", "mypy", *sorted(tmp_path.glob("*.py"))]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert f"{len(PATHS)} source files" in result.stdout, result.stdout + result.stderr
    codes = ("[attr-defined]", "[call-arg]")
    assert [line for line in result.stdout.splitlines() if line.endswith(codes)] == []


def test_cells_are_short(book):
    for cell in code_cells(book)[2:]:
        assert len(cell.source.splitlines()) <= 15, cell.source


def test_cells_hold_no_classes_and_catch_nothing_broadly(book):
    for cell in code_cells(book):
        for node in ast.walk(tree(cell)):
            assert not isinstance(node, ast.ClassDef), cell.source
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, cell.source
                assert ast.unparse(node.type) not in ("Exception", "BaseException"), cell.source
        assert "sys.exit" not in cell.source
        assert "exit(" not in cell.source


def test_prose_comes_before_every_step(book):
    """Two code cells in a row are a step and its check, or what a step shows; never more than 4."""
    row = 0
    for cell in book.cells[3:]:
        row = row + 1 if cell.cell_type == "code" else 0
        assert row <= 4, cell.source


def test_its_exercise_has_a_solution_and_a_check(book):
    notebook = copy.deepcopy(book)
    insert_solutions(notebook)
    (index,) = [index for index, cell in enumerate(notebook.cells) if is_solution(cell)]
    assert "exercise(" in notebook.cells[index + 1].source
    code = TransformerManager().transform_cell(notebook.cells[index].source)
    assert ast.parse(code).body
    headings = [cell.source.splitlines()[0] for cell in book.cells if "<details>" in cell.source]
    assert headings == ["## Exercise"]


def test_steps_are_followed_by_checks(book):
    """At least every second section that does something holds its prose to its promise."""
    sections, checks = 0, 0
    for before, cell in itertools.pairwise(book.cells):
        if cell.cell_type == "code":
            sections += before.cell_type == "markdown"
            checks += cell.source.count("check(")
    assert checks >= max(1, sections // 2 - 1)


def test_it_ends_with_text(book):
    assert book.cells[-1].cell_type == "markdown"


def test_only_cells_that_always_show_the_same_keep_their_outputs(book):
    for cell in code_cells(book):
        tags = set(cell.metadata.get("tags", ()))
        stored = {"nbval-check-output", "keep_output"}
        assert tags & stored in (set(), stored)
        assert bool(cell.outputs) == bool(tags & stored)
        assert cell.execution_count == (1 if cell.outputs else None)


def test_no_machine_is_named(path):
    text = path.read_text()
    for pattern in (
        r"/root/",
        r"/home/",
        r"/tmp/",
        r"https?://(?!10\.0\.2\.2|127\.0\.0\.1|localhost)",
    ):
        assert not re.search(pattern, text), pattern


def test_pictures_have_words(book):
    for cell in book.cells:
        if cell.cell_type == "markdown":
            for words in re.findall(r"!\[([^\]]*)\]", cell.source):
                assert len(words) > 10


def test_nothing_else_lies_there():
    allowed = {path.name for path in PATHS} | {"pictures", ".ipynb_checkpoints"}
    assert {item.name for item in Path(NOTEBOOKS).iterdir()} <= allowed
