"""The rules that notebooks keep (CONTRIBUTING.md, "Notebooks"): `rfe check NOTEBOOK`.

Each rule is a function of a notebook that yields what breaks it. A rule says nothing about what
another one asks for: of a notebook without an exercise there is one violation, not four.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from IPython.core.inputtransformer2 import TransformerManager

import rfe_helpers
from rfe_helpers.errors import InputError
from rfe_helpers.lab import profile
from rfe_helpers.workbook.exercises import insert_solutions, is_solution
from rfe_helpers.workbook.notebook_file import Cell, Notebook, Violation, parsed, read

LONGEST_CELL = 15  # lines
MOST_IMPORTS = 6
MOST_CELLS_IN_A_ROW = 4
_TITLE_PARTS = ("At the end you have", "It needs", "It takes", "`rfe run ")
_SECRET = re.compile(r"password|passwd|secret|token|api_?key|credential", re.IGNORECASE)
_MACHINE = re.compile(r"/(?:root|home|tmp)/")
_EXITS = ("exit", "quit", "sys.exit", "os._exit")
_KEPT = {"nbval-check-output", "keep_output"}


def violations(path: Path) -> list[Violation]:
    """What in a notebook breaks the rules, in the order of its cells.

        for violation in violations(Path("mine.ipynb")):
            print(violation)

    Raises InputError for what is not a notebook.
    """
    notebook = read(path)
    try:
        broken = [violation for rule in RULES for violation in rule(notebook)]
    except RecursionError:
        raise InputError(f"cannot check {path}: something in it is nested too deeply") from None
    return sorted(broken, key=lambda violation: violation.cell)


def format_and_kernel(notebook: Notebook) -> Iterator[Violation]:
    """Format 4.5, whose cells have ids, and the kernel that every Jupyter has."""
    book = notebook.book
    if (book.nbformat, book.nbformat_minor) != (4, 5):
        form = f"{book.nbformat}.{book.nbformat_minor}"
        yield Violation(f"it has format {form}, not 4.5", "save it with JupyterLab")
    kernel = book.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield Violation(f"its kernel is {kernel}, not python3", "choose Python 3 (ipykernel)")
    ids: set[str] = set()
    for cell in notebook.cells:
        if cell.node.get("id") in ids:
            yield cell.breaks("another cell has the same id", "copy it into a new cell")
        if "id" in cell.node:
            ids.add(cell.node.id)


def title(notebook: Notebook) -> Iterator[Violation]:
    """The first cell says what the reader gets, needs and types."""
    first = notebook.cells[0] if notebook.cells else None
    if first is None or not first.is_text or not first.source.startswith("# "):
        yield Violation("it does not begin with a title", "put a text that begins with # first")
        return
    for part in _TITLE_PARTS:
        if part not in first.source:
            yield first.breaks(f'it lacks "{part.strip("` ")}"', "add it as `rfe new` has it")


def links(notebook: Notebook) -> Iterator[Violation]:
    """Every link to a file leads somewhere."""
    for cell in notebook.texts:
        for target in re.findall(r"\]\(([^)#\s]+)", cell.source):
            if ":" in target.partition("/")[0]:  # https://…, attachment:…
                continue
            try:
                there = (notebook.path.parent / unquote(target)).exists()
            except (OSError, ValueError):  # a name that is too long, or has a null byte
                there = False
            if not there:
                yield cell.breaks(f"there is no {target[:80]}", "correct the link or its file")


def parameters(notebook: Notebook) -> Iterator[Violation]:
    """The second cell, and no other, has the parameters: annotated literals with comments."""
    for cell in notebook.cells:
        if "parameters" in cell.tags and cell.number != 2:
            yield cell.breaks("it is tagged parameters", "keep that for the second cell")
    second = notebook.cells[1] if len(notebook.cells) > 1 else None
    if second is None or not second.is_code or second.tags != {"parameters"}:
        remedy = "put lab and profile there as `rfe new` has them"
        yield Violation("its second cell does not have the tag parameters", remedy)
        return
    if second.tree is None:
        return
    names = set()
    for statement in second.tree.body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            yield second.breaks("it has more than parameters", "put it into the third cell")
            continue
        names.add(statement.target.id)
        yield from _parameter(second, statement, statement.target.id)
    for name in sorted({"lab", "profile"} - names):
        yield second.breaks(f"it has no parameter {name}", "add it as `rfe new` has it")


def _parameter(cell: Cell, statement: ast.AnnAssign, name: str) -> Iterator[Violation]:
    if statement.value is None:
        yield cell.breaks(f"{name} has no value", "give it a default")
        return
    try:
        value = ast.literal_eval(statement.value)
    except (ValueError, TypeError):
        yield cell.breaks(f"{name} is computed", "give it a literal, and compute further below")
        return
    if type(value).__name__ != ast.unparse(statement.annotation):
        yield cell.breaks(
            f"{name} is annotated as {ast.unparse(statement.annotation)}",
            f"write {name}: {type(value).__name__}",
        )
    line = cell.source.splitlines()[(statement.end_lineno or statement.lineno) - 1]
    if "  # " not in line:
        yield cell.breaks(f"{name} has no comment", "say in its line what it is")
    if _SECRET.search(name):
        yield cell.breaks(
            f"{name} looks like a secret, which papermill would store", "read it from a file"
        )
    if name == "profile" and value not in profile.names():
        yield cell.breaks(f"there is no profile {value}", "choose one of `rfe profiles`")


def setup(notebook: Notebook) -> Iterator[Violation]:
    """The third cell imports, opens the lab and begins; no other imports."""
    cell = notebook.setup
    if cell is None:
        remedy = "import there, as `rfe new` has it"
        yield Violation("its third cell is not the one that opens the lab", remedy)
        return
    if "my_lab = Lab(lab, profile)" not in cell.source:
        yield cell.breaks("it does not open the lab", "add my_lab = Lab(lab, profile)")
    if not re.search(r"^begin\(my_lab\b|\bdoctor\b", cell.source, re.MULTILINE):
        yield cell.breaks("it does not look for the tools that it needs", "add begin(my_lab)")
    for other in notebook.code:
        if other.tree is not None and other is not cell and any(_imports(other.tree)):
            yield other.breaks("it imports", "move the import to the third cell")


def faces(notebook: Notebook) -> Iterator[Violation]:
    """Imports from this package name its faces, and there are few."""
    cell = notebook.setup
    if cell is None or cell.tree is None:
        return
    statements = list(_imports(cell.tree))
    if len(statements) > MOST_IMPORTS:
        remedy = "import what belongs together from its face"
        yield cell.breaks(f"it has {len(statements)} imports, more than {MOST_IMPORTS}", remedy)
    for statement in statements:
        names = [alias.name for alias in statement.names]
        modules = [statement.module or ""] if isinstance(statement, ast.ImportFrom) else names
        for module in modules:
            if not _is_ours(module):
                continue
            if not _is_face(module):
                yield cell.breaks(
                    f"{module} is not a face", "import from a wing, such as rfe.build"
                )
            elif isinstance(statement, ast.ImportFrom):
                for name in sorted(set(names) - set(importlib.import_module(module).__all__)):
                    yield cell.breaks(f"{module} has no {name}", f"see help({module})")


def attributes(notebook: Notebook) -> Iterator[Violation]:
    """What a notebook takes from the faces is there, and takes the keywords that it is given."""
    if notebook.setup is None or notebook.setup.tree is None:
        return
    names: dict[str, Any] = {}
    for statement in _imports(notebook.setup.tree):
        names |= _imported(statement)
    for cell in notebook.code:
        for node in ast.walk(cell.tree) if cell.tree is not None else ():
            if isinstance(node, ast.Attribute):
                owner = _object(node.value, names)
                if _has_attributes(owner) and not hasattr(owner, node.attr):
                    yield cell.breaks(f"there is no {ast.unparse(node)}", "correct the name")
            elif isinstance(node, ast.Call):
                yield from _keywords(cell, node, _object(node.func, names))


def _keywords(cell: Cell, node: ast.Call, function: Any) -> Iterator[Violation]:
    if function is None:
        return
    if not callable(function):
        yield cell.breaks(f"{ast.unparse(node.func)} cannot be called", "correct the name")
        return
    try:
        known = inspect.signature(function).parameters.values()
    except ValueError:  # some functions in C
        return
    if any(each.kind is each.VAR_KEYWORD for each in known):
        return
    for keyword in node.keywords:
        if keyword.arg and keyword.arg not in {each.name for each in known}:
            name = ast.unparse(node.func)
            yield cell.breaks(f"{name} has no argument {keyword.arg}", f"see help({name})")


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    return (each for each in ast.walk(tree) if isinstance(each, ast.Import | ast.ImportFrom))


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == rfe_helpers.__name__


def _is_face(module: str) -> bool:
    _, _, wing = module.partition(".")
    return (Path(rfe_helpers.__file__).parent / wing / "__init__.pyi").is_file()


def _module(name: str) -> Any:
    """A module to look names up in: a face, or one that is loaded already. Others are not imported:
    who checks a notebook does not want to run what it imports."""
    if _is_ours(name):
        return importlib.import_module(name) if _is_face(name) else None
    return sys.modules.get(name)


def _imported(statement: ast.Import | ast.ImportFrom) -> dict[str, Any]:
    if isinstance(statement, ast.Import):
        simple = [alias for alias in statement.names if alias.asname or "." not in alias.name]
        return {alias.asname or alias.name: _module(alias.name) for alias in simple}
    module = _module(statement.module or "")
    return {
        alias.asname or alias.name: getattr(module, alias.name, None) for alias in statement.names
    }


def _object(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """What an expression of dotted names stands for, None if that is not known."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = _object(node.value, names)
    return getattr(owner, node.attr, None) if _has_attributes(owner) else None


def _has_attributes(owner: Any) -> bool:
    """Whether all attributes of an object are known: those of modules and classes are."""
    return inspect.ismodule(owner) or inspect.isclass(owner)


def python(notebook: Notebook) -> Iterator[Violation]:
    """Cells are plain Python, without magics and `!`."""
    for cell in notebook.code:
        if cell.tree is None:
            remedy = "write Python; for commands there is rfe_helpers.core.run"
            yield cell.breaks("it is not plain Python", remedy)


def length(notebook: Notebook) -> Iterator[Violation]:
    """Cells are short, parameters and imports aside."""
    for cell in notebook.code:
        lines = len(cell.source.splitlines())
        if cell.number > 3 and lines > LONGEST_CELL:
            message = f"it has {lines} lines, more than {LONGEST_CELL}"
            yield cell.breaks(message, "split it, with a sentence before each part")


def handlers(notebook: Notebook) -> Iterator[Violation]:
    """No classes, nothing that catches every error, nothing that ends the kernel."""
    for cell in notebook.code:
        for node in ast.walk(cell.tree) if cell.tree is not None else ():
            if isinstance(node, ast.ClassDef):
                yield cell.breaks("it defines a class", "put it into a module")
            elif isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                if caught in ("everything", "Exception", "BaseException"):
                    yield cell.breaks(f"it catches {caught}", "name the errors that you expect")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in _EXITS:
                yield cell.breaks("it ends the kernel", "use check(), or raise an error")


def prose(notebook: Notebook) -> Iterator[Violation]:
    """Text comes before every step: a step, what it shows and its check stand in a row."""
    row = 0
    for cell in notebook.cells[3:]:
        row = row + 1 if cell.is_code else 0
        if row == MOST_CELLS_IN_A_ROW + 1:
            message = f"more than {MOST_CELLS_IN_A_ROW} cells in a row have code"
            yield cell.breaks(message, "say before it why, and what to look for")


def checks(notebook: Notebook) -> Iterator[Violation]:
    """At least every second section that does something holds its prose to its promise."""
    pairs = itertools.pairwise(notebook.cells)
    sections = sum(before.is_text for before, cell in pairs if cell.is_code)
    held = sum(cell.source.count("check(") for cell in notebook.code)
    needed = max(1, sections // 2 - 1)
    if held < needed:
        remedy = "after a step, check() what its text promises, and say what to do if it fails"
        yield Violation(f"it has {held} checks for {sections} steps, fewer than {needed}", remedy)


def exercise(notebook: Notebook) -> Iterator[Violation]:
    """There is one exercise, with a folded solution and a check after it."""
    solved = copy.copy(notebook.book)
    insert_solutions(solved)
    solutions = [index for index, cell in enumerate(solved.cells) if is_solution(cell)]
    if len(solutions) != 1:
        remedy = "end with `## Exercise`, a solution in <details> and exercise(), as `rfe new` does"
        yield Violation(f"it has {len(solutions)} exercises with a solution, not one", remedy)
        return
    (index,) = solutions
    source = TransformerManager().transform_cell(solved.cells[index].source)
    tree = parsed(source)
    if tree is None or not tree.body:
        yield Violation("the solution of its exercise is not Python", "correct its ```python fence")
    for cell in notebook.texts:
        if "<details>" in cell.source and not cell.source.startswith("## Exercise\n"):
            remedy = "fold the solution of the exercise only, below ## Exercise"
            yield cell.breaks("it has a folded part", remedy)


def ending(notebook: Notebook) -> Iterator[Violation]:
    """The last cell is a text."""
    if not notebook.cells or not notebook.cells[-1].is_text:
        yield Violation("it does not end with a text", "end with one line of summary")


def outputs(notebook: Notebook) -> Iterator[Violation]:
    """Only cells that always show the same keep their outputs."""
    for cell in notebook.code:
        kept = cell.tags & _KEPT
        if kept and kept != _KEPT:
            remedy = f"add {', '.join(sorted(_KEPT - kept))}, too"
            yield cell.breaks(f"it has only the tag {kept.pop()}", remedy)
        elif bool(cell.node.outputs) != bool(kept) or cell.node.execution_count != (
            1 if kept else None
        ):
            message = "it lacks its output" if kept else "it has outputs or a number"
            remedy = (
                "run it" if kept else "clear them (Edit → Clear Outputs of All Cells), and save"
            )
            yield cell.breaks(message, remedy)


def machines(notebook: Notebook) -> Iterator[Violation]:
    """No path of one machine, but for the lab among the parameters."""
    for cell in notebook.cells:
        path = _MACHINE.search(cell.source)
        if path and cell.number != 2:
            remedy = "use my_lab.path(…), or make it a parameter"
            yield cell.breaks(f"it names {path[0]}, a path of one machine", remedy)


def pictures(notebook: Notebook) -> Iterator[Violation]:
    """Pictures have words for those who do not see them."""
    for cell in notebook.texts:
        for words in re.findall(r"!\[([^\]]{0,500})\]\(", cell.source):
            if len(words) <= 10:
                remedy = "say between the brackets what it shows"
                yield cell.breaks("a picture has no description", remedy)


RULES: tuple[Callable[[Notebook], Iterator[Violation]], ...] = (
    format_and_kernel,
    title,
    links,
    parameters,
    setup,
    faces,
    attributes,
    python,
    length,
    handlers,
    prose,
    checks,
    exercise,
    ending,
    outputs,
    machines,
    pictures,
)
