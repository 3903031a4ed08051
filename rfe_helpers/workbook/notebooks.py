"""The notebooks of the workbook, and the copies that a lab works on.

The originals are shipped with the package and never opened in JupyterLab, so that one installation
serves many labs and users. `copies` makes a lab's own in `<lab>/notebooks`: without outputs, and
with that lab and its profile as parameters.

    notebooks/*.ipynb           what the reader works on
    notebooks/.originals.json   name -> SHA-256 of the copy as it was made: one that still has it
                                was not changed, and follows the package when that is updated
    notebooks/replaced/<time>/  changed copies that `restore` has replaced
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import rfe_helpers
from rfe_helpers.core import files
from rfe_helpers.lab.lab import DEFAULT, Lab

NOTEBOOKS = (Path(rfe_helpers.__file__).parent / "notebooks").resolve()
_DIGESTS = ".originals.json"


def all_notebooks() -> list[Path]:
    """Every notebook of the workbook, in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]-*.ipynb"))


def copies(lab: Lab) -> Path:
    """The directory of a lab's notebooks. Missing ones are copied, and those that the reader has
    not changed are brought up to date.

        print(copies(Lab("~/rfe-lab")))  # /home/anna/rfe-lab/notebooks
    """
    root = lab.folder("notebooks")
    shutil.copytree(NOTEBOOKS / "pictures", root / "pictures", dirs_exist_ok=True)
    changed = {path.name for path in changed_copies(lab)}
    _copy(lab, [path for path in all_notebooks() if path.name not in changed])
    return root


def restore(lab: Lab) -> list[str]:
    """Replace the copies that the reader has changed; they are kept in `notebooks/replaced/`.

    Returns what was done, one line each.
    """
    changed = changed_copies(lab)
    if changed:
        now = datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S")
        kept = lab.folder("notebooks", "replaced", now)
        for path in changed:
            path.rename(kept / path.name)
    copies(lab)
    done = [f"restored {path.name}; the changed one is in {kept}" for path in changed]
    return [*done, "where JupyterLab has it open, choose Revert there"] if done else []


def changed_copies(lab: Lab) -> list[Path]:
    """The copies that the reader has changed, by running them, for instance."""
    root, digests = lab.folder("notebooks"), _digests(lab)
    return [
        path
        for path in (root / original.name for original in all_notebooks())
        if path.is_file() and _digest(path.read_bytes()) != digests.get(path.name)
    ]


def own_notebooks(lab: Lab) -> list[Path]:
    """What only this lab has: notebooks of the reader, changed copies, and replaced ones."""
    root = lab.folder("notebooks")
    originals = {root / path.name for path in all_notebooks()}
    added = {
        path
        for path in root.rglob("*.ipynb")
        if path not in originals and ".ipynb_checkpoints" not in path.parts
    }
    return sorted({*changed_copies(lab), *added})


def _copy(lab: Lab, originals: Sequence[Path]) -> None:
    root, digests = lab.folder("notebooks"), _digests(lab)
    for path in originals:
        content = with_lab(path, lab).encode()
        if digests.get(path.name) != _digest(content) or not (root / path.name).exists():
            files.write(root / path.name, content)
            digests[path.name] = _digest(content)
    files.write_json(root / _DIGESTS, digests)


def with_lab(path: Path, lab: Lab) -> str:
    """The JSON of a notebook without outputs, with a lab and its profile as its parameters."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    values = {
        "lab": DEFAULT if lab.is_usual else str(lab.directory),
        "profile": lab.profile.name,
    }
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        if "parameters" in cell["metadata"].get("tags", ()):
            source = "".join(cell["source"])
            for name, value in values.items():
                line = re.compile(rf'^({name}: str) = "[^"]*"', re.MULTILINE)
                text = json.dumps(value, ensure_ascii=False).replace("\\", r"\\")
                source = line.sub(rf"\1 = {text}", source)
            cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _digests(lab: Lab) -> dict[str, str]:
    try:
        return dict(json.loads((lab.folder("notebooks") / _DIGESTS).read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
