"""A notebook in a file as the rules see it: its cells with their places and syntax trees."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat.validator import better_validation_error, get_validator

from rfe_helpers.errors import InputError

_LARGEST = 10_000_000  # bytes
_SHOWN = 40  # characters of a cell, to recognise it by


@dataclass(frozen=True)
class Violation:
    """What breaks a rule, and what to do. `cell` is its place in the notebook, counted from 1, with
    `source`, its first line; 0 is the notebook as a whole."""

    message: str
    remedy: str
    cell: int = 0
    source: str = ""

    def __str__(self) -> str:
        place = f"cell {self.cell} ({self.source}): " if self.cell else ""
        message, remedy = (" ".join(text.split()) for text in (self.message, self.remedy))
        return f"{place}{message}\n    to do: {remedy}"


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook with its place, counted from 1, and its syntax tree, None of a text or
    of what is not Python."""

    number: int
    node: Any
    tree: ast.Module | None

    @property
    def source(self) -> str:
        return str(self.node.source)

    @property
    def is_code(self) -> bool:
        return bool(self.node.cell_type == "code")

    @property
    def is_text(self) -> bool:
        return bool(self.node.cell_type == "markdown")

    @property
    def tags(self) -> set[str]:
        return set(self.node.metadata.get("tags", ()))

    def breaks(self, message: str, remedy: str) -> Violation:
        first = next(iter(self.source.strip().splitlines()), "empty")
        shown = first if len(first) <= _SHOWN else first[: _SHOWN - 1] + "…"
        return Violation(message, remedy, self.number, shown)


@dataclass(frozen=True)
class Notebook:
    """A notebook as the rules see it."""

    path: Path
    book: Any
    cells: tuple[Cell, ...]

    @property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.is_code]

    @property
    def texts(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.is_text]

    @property
    def setup(self) -> Cell | None:
        """The third cell, which imports; None if it is not one with code."""
        return self.cells[2] if len(self.cells) > 2 and self.cells[2].is_code else None


def read(path: Path) -> Notebook:
    """The notebook in a file. Raises InputError if that cannot be read, or is not a notebook."""
    remedy = "name a notebook that JupyterLab opens, or make one with `rfe new`"
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"cannot read {path}: it is not a file", remedy=remedy)
        if path.stat().st_size > _LARGEST:
            raise InputError(
                f"cannot read {path}: it is larger than {_LARGEST // 1_000_000} MB",
                remedy="clear its outputs (Edit → Clear Outputs of All Cells)",
            )
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", remedy=remedy) from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not a notebook: it is not JSON", remedy=remedy) from None
    if not isinstance(document, dict) or document.get("nbformat") != nbformat.current_nbformat:
        raise InputError(
            f"{path} is not a notebook of format {nbformat.current_nbformat}",
            remedy=f"{remedy}; `jupyter nbconvert --to notebook` converts old ones",
        )
    try:
        if remark := _malformed(document):
            raise InputError(f"{path} is not a valid notebook: {remark}", remedy=remedy)
        return _notebook(path, nbformat.from_dict(document))
    except RecursionError:
        raise InputError(f"cannot read {path}: it is nested too deeply", remedy=remedy) from None


def _notebook(path: Path, book: Any) -> Notebook:
    for cell in book.cells:
        cell.source = cell.source if isinstance(cell.source, str) else "".join(cell.source)
    cells = (Cell(number, node, _tree(node)) for number, node in enumerate(book.cells, 1))
    return Notebook(path, book, tuple(cells))


def _malformed(document: Mapping[str, Any]) -> str:
    """What nbformat's schema says against a notebook, "" if nothing; nbformat.validate would add
    what is missing."""
    minor = document.get("nbformat_minor")
    if type(minor) is not int or minor < 0:  # True is an int, too
        return "it has no nbformat_minor"
    errors = get_validator(nbformat.current_nbformat, minor).iter_errors(document)
    return next((better_validation_error(error, 4, minor).message for error in errors), "")[:200]


def _tree(node: Any) -> ast.Module | None:
    return parsed(str(node.source)) if node.cell_type == "code" else None


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a text, None if it is not Python or is nested too deeply."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes such as "\\d"
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
