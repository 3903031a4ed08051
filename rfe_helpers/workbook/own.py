"""Notebooks of the user's own: `rfe new NAME`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from rfe_helpers.core import files
from rfe_helpers.errors import InputError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.notebooks import with_lab

TEMPLATE = Path(__file__).with_name("template.ipynb")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")


def create(lab: Lab, name: str) -> Path:
    """Make a notebook that keeps the rules of the workbook, with parameters, a check and an
    exercise, for that lab. `name` is a path, or the name of one among the notebooks of the lab.

        print(create(Lab("~/rfe-lab"), "our-image"))  # /home/anna/rfe-lab/notebooks/our-image.ipynb

    Raises InputError if it cannot be made, or is there already.
    """
    path = _path(lab, name)
    notebook = json.loads(with_lab(TEMPLATE, lab))
    title = " ".join(re.sub(r"[-_\s]+", " ", path.stem).split()) or path.stem
    first = notebook["cells"][0]
    texts = {"TITLE": title[:1].upper() + title[1:], "NAME": shlex.quote(path.name)}
    first["source"] = [
        re.sub("TITLE|NAME", lambda match: texts[match[0]], line) for line in first["source"]
    ]
    _write(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return path


def _path(lab: Lab, name: str) -> Path:
    if "/" in name or name.endswith(".ipynb"):
        path = Path(name).expanduser().absolute()
        return path if path.suffix == ".ipynb" else path.with_name(f"{path.name}.ipynb")
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is not the name of a notebook of your own",
            remedy="begin with a letter (the workbook's have numbers); then letters, digits, . _ -",
        )
    return lab.folder("notebooks") / f"{name}.ipynb"


def _write(path: Path, text: str) -> None:
    """Write a new file; one that is there stays as it is, and nothing half written stays."""
    try:
        with files.writing(path.parent), path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except BaseException:
                path.unlink()
                raise
    except FileExistsError:
        raise InputError(f"{path} is there already", remedy="choose another name") from None
    except OSError as error:
        remedy = "name a file in a directory that you may write to"
        raise InputError(f"cannot make {path}: {error.strerror}", remedy=remedy) from None
