"""`rfe check`: for each rule, what breaks it is found, and nothing else is."""

import json
from pathlib import Path

import nbformat
import pytest
from support.command_line import rfe

from rfe_helpers.errors import InputError
from rfe_helpers.workbook import own, rules
from rfe_helpers.workbook.notebook_file import Violation

SETUP, STEP, CHECK, EXERCISE, SOLVED, END = 2, 4, 5, 6, 7, 8
TEXT, CODE = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell


def source(index, old, new):
    """Replaces a part of a cell."""

    def change(book):
        assert old in book.cells[index].source
        book.cells[index].source = book.cells[index].source.replace(old, new)

    return change


def before(index, *cells):
    """Puts cells in front of another one."""
    return lambda book: book.cells.__setitem__(slice(index, index), list(cells))


def metadata(index, **values):
    return lambda book: book.cells[index].update(values)


def tagged(index, *tags):
    return lambda book: book.cells[index].metadata.update(tags=list(tags))


def step(line):
    """Puts a line into the step."""
    return source(STEP, "print(to_toml", f"{line}\nprint(to_toml")


def parameter(line):
    return source(1, "packages: str", f"{line}\npackages: str")


def without_ids(book):
    book.nbformat_minor = 4
    for cell in book.cells:
        del cell["id"]


OUTPUT = nbformat.v4.new_output("stream", text="tmux")
# By rule: what breaks it, the place of the cell that is named (0: the notebook), and words of it.
BROKEN = [
    ("format_and_kernel", lambda b: b.metadata.kernelspec.update(name="ir"), 0, "kernel is ir"),
    ("format_and_kernel", without_ids, 0, "format 4.4"),
    ("format_and_kernel", metadata(STEP, id="own-01"), STEP + 1, "same id"),
    ("title", source(0, "# ", ""), 0, "does not begin with a title"),
    ("title", source(0, "It takes", "Takes"), 1, 'lacks "It takes"'),
    ("links", before(END, TEXT("[next](next.ipynb#a)")), END + 1, "there is no next.ipynb"),
    ("parameters", tagged(1), 0, "second cell does not have the tag parameters"),
    ("parameters", tagged(STEP, "parameters"), STEP + 1, "tagged parameters"),
    ("parameters", parameter("print(1)"), 2, "more than parameters"),
    ("parameters", parameter("n: int = 1 + 1  # n"), 2, "n is computed"),
    ("parameters", parameter("n: int  # n"), 2, "n has no value"),
    ("parameters", parameter("n: int = 'one'  # n"), 2, "n is annotated as int"),
    ("parameters", parameter("n: int = 1"), 2, "n has no comment"),
    ("parameters", parameter("api_key: str = ''  # k"), 2, "api_key looks like a secret"),
    ("parameters", source(1, '"sandbox"', '"windows-95"'), 2, "no profile windows-95"),
    ("parameters", source(1, "lab:", "labor:"), 2, "no parameter lab"),
    ("setup", before(2, TEXT("Hello.")), 0, "third cell is not the one that opens the lab"),
    ("setup", source(SETUP, "begin(my_lab)", ""), 3, "does not look for the tools"),
    ("setup", source(SETUP, "my_lab = Lab(lab, profile)", "my_lab = Lab(lab)"), 3, "open the lab"),
    ("setup", step("import os"), STEP + 1, "it imports"),
    ("faces", source(SETUP, "rfe_helpers.build", "rfe_helpers.build.blueprint"), 3, "not a face"),
    ("faces", source(SETUP, "to_toml", "to_toml, to_yaml"), 3, "has no to_yaml"),
    ("faces", source(SETUP, "\n\n", "\n" + "import json\n" * 4 + "\n"), 3, "7 imports"),
    ("attributes", source(STEP, "packages=", "package="), STEP + 1, "no argument package"),
    ("attributes", source(STEP, "Blueprint(", "Blueprint.read("), STEP + 1, "no Blueprint.read"),
    ("python", step("!ls"), STEP + 1, "not plain Python"),
    ("length", step("\n" * 14), STEP + 1, "17 lines, more than 15"),
    ("handlers", step("class A: pass"), STEP + 1, "a class"),
    ("handlers", step("try: 1\nexcept: 2"), STEP + 1, "everything"),
    ("handlers", step("try: 1\nexcept Exception: 2"), STEP + 1, "catches"),
    ("handlers", step("exit()"), STEP + 1, "ends the kernel"),
    ("prose", before(STEP, *(CODE("1") for _ in range(3))), STEP + 5, "more than 4 cells in a row"),
    ("checks", source(CHECK, "check(names", "print(names"), 0, "0 checks for 3 steps"),
    ("exercise", source(EXERCISE, "```python", "```"), 0, "0 exercises with a solution"),
    ("exercise", source(EXERCISE, "blueprint =", "blueprint = ="), 0, "is not Python"),
    ("exercise", before(STEP - 1, TEXT("<details>x</details>")), STEP, "has a folded part"),
    ("ending", before(END + 1, CODE("1")), 0, "does not end with a text"),
    ("outputs", metadata(STEP, outputs=[OUTPUT]), STEP + 1, "has outputs"),
    ("outputs", metadata(STEP, execution_count=3), STEP + 1, "has outputs or a number"),
    ("outputs", tagged(STEP, "keep_output"), STEP + 1, "only the tag keep_output"),
    ("outputs", tagged(STEP, "keep_output", "nbval-check-output"), STEP + 1, "lacks its output"),
    ("machines", step("'/home/anna/x'"), STEP + 1, "names /home/"),
    ("pictures", before(END, TEXT("![x](attachment:x.png)")), END + 1, "no description"),
]


@pytest.fixture
def book():
    return nbformat.read(own.TEMPLATE, as_version=nbformat.NO_CONVERT)


def written(directory: Path, book) -> Path:
    path = directory / "mine.ipynb"
    path.write_text(json.dumps(book))
    return path


def test_the_template_keeps_the_rules():
    assert rules.violations(own.TEMPLATE) == []


@pytest.mark.parametrize(("rule", "change", "cell", "words"), BROKEN)
def test_what_breaks_a_rule_is_named_with_its_cell_and_what_to_do(
    book, tmp_path, rule, change, cell, words
):
    change(book)
    (violation,) = rules.violations(written(tmp_path, book))
    assert words in violation.message
    assert violation.cell == cell
    assert violation.remedy
    (named,) = [each for each in rules.RULES if list(each(rules.read(tmp_path / "mine.ipynb")))]
    assert named.__name__ == rule


def test_every_rule_is_broken_above():
    assert [rule.__name__ for rule in rules.RULES] == list(dict.fromkeys(row[0] for row in BROKEN))


def test_what_a_notebook_imports_is_not_run(book, tmp_path):
    module = tmp_path / "harmful.py"
    module.write_text("raise SystemExit(7)")
    source(SETUP, "from rfe_helpers import Lab", "import harmful\nfrom rfe_helpers import Lab")(
        book
    )
    result = rfe("check", str(written(tmp_path, book)))
    assert (result.returncode, result.stderr) == (0, "")


VALID = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"{}", "is not a notebook of format 4"),
        (json.dumps(VALID | {"nbformat": 3}).encode(), "is not a notebook of format 4"),
        (json.dumps(VALID | {"nbformat_minor": "5"}).encode(), "it has no nbformat_minor"),
        (json.dumps(VALID | {"nbformat_minor": -1}).encode(), "it has no nbformat_minor"),
        (json.dumps(VALID | {"nbformat_minor": True}).encode(), "it has no nbformat_minor"),
        (json.dumps(VALID | {"cells": [{}]}).encode(), "is not a valid notebook"),
        (json.dumps(VALID | {"metadata": []}).encode(), "is not a valid notebook"),
        (b'{"nbformat":' + b" " * 10_000_001, "larger than 10 MB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_not_a_notebook_is_refused_in_one_message(tmp_path, content, words):
    path = tmp_path / "mine.ipynb"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        rules.violations(path)
    assert caught.value.remedy


def test_neither_a_directory_nor_a_missing_file_is_one(tmp_path):
    with pytest.raises(InputError, match="it is not a file"):
        rules.violations(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        rules.violations(tmp_path / "mine.ipynb")


def test_nesting_and_unfinished_markup_end_soon(tmp_path, book):
    deep = json.dumps(VALID).replace(
        '"metadata": {}', f'"metadata": {{"a": {"[" * 600 + "]" * 600}}}'
    )
    (tmp_path / "deep.ipynb").write_text(deep)
    with pytest.raises(InputError, match="nested too deeply"):
        rules.violations(tmp_path / "deep.ipynb")
    book.cells[END].source = "![" * 100_000 + "](" * 100_000
    (violation,) = rules.violations(written(tmp_path, book))
    assert violation.message.startswith("there is no ](")
    assert len(str(violation)) < 300


def test_a_solution_that_is_nested_too_deeply_is_not_python(book, tmp_path):
    solved = next(cell for cell in book.cells if "<details>" in cell.source)
    fence = f"```python\n{'-' * 100_000}1\n```\n"
    solved.source = solved.source.partition("<details>")[0] + f"<details>\n{fence}</details>"
    (violation,) = rules.violations(written(tmp_path, book))
    assert violation.message == "the solution of its exercise is not Python"


def test_texts_of_a_notebook_stay_in_the_line_of_a_message(book, tmp_path):
    """GitHub Actions takes lines that begin with :: for commands."""
    book.cells.insert(END, TEXT("[x](<a\n::add-mask::e>)"))
    for violation in rules.violations(written(tmp_path, book)):
        assert len(str(violation).splitlines()) == 2
    multiline = Violation("there is no a\n::add-mask::e", "write\nit", 1, "x")
    assert str(multiline) == "cell 1 (x): there is no a ::add-mask::e\n    to do: write it"


def test_the_command_lists_what_is_broken_and_ends_with_1(book, tmp_path):
    path = written(tmp_path, book)
    kept = rfe("check", str(path), "20")
    assert (kept.returncode, kept.stderr) == (0, "")
    assert kept.stdout.splitlines()[0] == f"✔ {path}"
    step("!ls")(book)
    broken = rfe("check", str(written(tmp_path, book)))
    assert broken.returncode == 1
    first, remedy = broken.stdout.splitlines()
    assert first.startswith(f"✘ {path}, cell 5 (blueprint = Blueprint(")
    assert first.endswith("it is not plain Python")
    assert remedy.startswith("    to do: ")
    (violation,) = json.loads(rfe("check", "--json", str(path)).stdout)[str(path)]
    assert violation["cell"] == 5
    unknown = rfe("check", "nothing")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("rfe: there is no notebook 'nothing'")
