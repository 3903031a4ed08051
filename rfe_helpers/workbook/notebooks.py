"""The notebooks of the workbook, and the copies that a lab works on.

The originals are shipped with the package and never opened in JupyterLab, so that one installation
serves many labs and users. `copies` makes a lab's own in `<lab>/notebooks`: without outputs, and
with that lab and its profile as parameters.

    notebooks/*.ipynb             what the reader works on
    notebooks/.originals/*.ipynb  each as the package had it when it was copied or merged last: a
                                  copy that is the same was not changed, and follows the package;
                                  for one that was changed it is the base of a merge
    notebooks/.originals.json     name -> SHA-256 of the original, in labs of earlier versions,
                                  until the originals themselves are there
    notebooks/replaced/<time>/    changed copies that `restore` or `upgrade` has replaced

A copy is written before its original. One that `upgrade` has merged names the SHA-256 of its
original in its metadata, so that a merge whose original was not written any more is not done twice.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rfe_helpers
from rfe_helpers.core import files
from rfe_helpers.lab.lab import DEFAULT, Lab
from rfe_helpers.workbook.chapters import number_of

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTEBOOKS = (Path(rfe_helpers.__file__).parent / "notebooks").resolve()
_ORIGINALS = ".originals"
_DIGESTS = ".originals.json"
_REVERT = "where JupyterLab has it open, choose Revert there"


def all_notebooks() -> list[Path]:
    """Every notebook of the workbook, in order."""
    paths = NOTEBOOKS.glob("[0-9][0-9]*-*.ipynb")
    return sorted(paths, key=lambda path: int(number_of(path.name)))


def copies(lab: Lab) -> Path:
    """The directory of a lab's notebooks. Missing ones are copied, and those that the reader has
    not changed are brought up to date.

        print(copies(Lab("~/rfe-lab")))  # /home/anna/rfe-lab/notebooks
    """
    root = lab.folder("notebooks")
    shutil.copytree(NOTEBOOKS / "pictures", root / "pictures", dirs_exist_ok=True)
    known = True
    for entry in _copies(lab):
        if not entry.changed:
            entry.renew()
        elif entry.original is not None:
            entry.keep_original(entry.original)
        known = known and entry.original_path.exists()
    if known:
        (root / _DIGESTS).unlink(missing_ok=True)
    return root


def restore(lab: Lab) -> list[str]:
    """Replace the copies that the reader has changed; they are kept in `notebooks/replaced/`.

    Returns what was done, one line each.
    """
    done = []
    directory = _replaced(lab)
    for entry in _copies(lab):
        if entry.changed:
            entry.set_aside(directory)
            entry.renew()
            done.append(f"restored {entry.path.name}; the changed one is in {directory}")
    copies(lab)
    return [*done, _REVERT] if done else []


def upgrade(lab: Lab) -> list[str]:
    """Bring all copies up to date, with what the reader has changed in them; those are kept as
    they were in `notebooks/replaced/`, too.

    Returns what was done, one line each.
    """
    entries = list(_copies(lab))
    copies(lab)
    done = []
    directory = _replaced(lab)
    for before in entries:
        what = _upgraded(lab, before.path.name, directory)
        if not what and not before.changed and before.present != before.newest:
            what = "copied" if before.present is None else "replaced; you had not changed it"
        if what:
            done.append(f"{before.path.name}: {what}")
    return [*done, _REVERT] if done else []


def outdated_copies(lab: Lab) -> list[Path]:
    """The copies that the reader has changed and of which the package has a newer version."""
    return [entry.path for entry in _copies(lab) if entry.outdated]


def changed_copies(lab: Lab) -> list[Path]:
    """The copies that the reader has changed, by running them, for instance."""
    return [entry.path for entry in _copies(lab) if entry.changed]


def own_notebooks(lab: Lab) -> list[Path]:
    """What only this lab has: notebooks of the reader, changed copies, and replaced ones."""
    root = lab.folder("notebooks")
    originals = {root / path.name for path in all_notebooks()}
    hidden = (_ORIGINALS, ".ipynb_checkpoints")
    added = {
        path
        for path in root.rglob("*.ipynb")
        if path not in originals and not any(name in path.parts for name in hidden)
    }
    return sorted({*changed_copies(lab), *added})


@dataclass(frozen=True)
class NotebookCopy:
    """A lab's copy of a notebook: as it is (None if it is missing), as it was made (None if that is
    not known), and as the package would make it now."""

    path: Path
    present: bytes | None
    original: bytes | None
    newest: bytes

    @property
    def changed(self) -> bool:
        """Whether the reader has changed it."""
        return self.present not in (None, self.original, self.newest)

    @property
    def outdated(self) -> bool:
        """Whether it is changed, and the package has a newer version."""
        return self.changed and self.original != self.newest

    @property
    def original_path(self) -> Path:
        return self.path.parent / _ORIGINALS / self.path.name

    def renew(self) -> None:
        """Make it what the package has now."""
        if self.present != self.newest:
            files.write(self.path, self.newest)
        self.keep_original(self.newest)

    def keep_original(self, content: bytes) -> None:
        if _content(self.original_path) != content:
            files.write(self.original_path, content)

    def set_aside(self, directory: Path) -> None:
        """Keep it as it is, in a directory."""
        files.write(directory / self.path.name, self.present or b"")


def _copies(lab: Lab) -> Iterator[NotebookCopy]:
    for path in all_notebooks():
        yield _copy(lab, path.name)


def _copy(lab: Lab, name: str) -> NotebookCopy:
    newest = with_lab(NOTEBOOKS / name, lab).encode()
    copy = lab.folder("notebooks") / name
    present = _content(copy)
    entry = NotebookCopy(copy, present, None, newest)
    entry = replace(entry, original=_content(entry.original_path))
    if entry.original is None and (digest := _digests(lab).get(name)) is not None:
        same = (content for content in (present, newest) if _digest(content) == digest)
        entry = replace(entry, original=next(same, None))
    if entry.outdated and _merged_with(present or b"") == _digest(newest):
        entry = replace(entry, original=newest)
    return entry


def _upgraded(lab: Lab, name: str, directory: Path) -> str:
    """Merge a copy with its newest version if it is outdated; says what was done. JupyterLab may
    save it meanwhile: then what it has saved is merged."""
    while (entry := _copy(lab, name)).outdated:
        if done := _merge(lab, entry, directory):
            return done
    return ""


def _merge(lab: Lab, entry: NotebookCopy, directory: Path) -> str:
    """Merge a changed copy with its newest version; says what was done, "" for nothing if it has
    been saved since it was read."""
    from rfe_helpers.workbook import merging

    leave = f"left alone; `{lab.command('lab reset --notebooks')}` replaces it and keeps yours"
    if entry.original is None:
        return f"an earlier version of the workbook made it, and did not keep the original; {leave}"
    try:
        sides = [_read(side) for side in (entry.original, entry.present or b"", entry.newest)]
    except ValueError as error:
        return f"cannot be read ({error}); {leave}"
    result = merging.merge(*sides)
    result.notebook.metadata["rfe"] = {"original": _digest(entry.newest)}
    entry.set_aside(directory)
    text = json.dumps(result.notebook, indent=1, ensure_ascii=False)
    if _content(entry.path) != entry.present:
        return ""
    files.write(entry.path, text + "\n")
    entry.keep_original(entry.newest)
    done = f"merged with your changes; yours as it was is in {directory}"
    if not result.notes:
        return done
    cells = "a cell" if result.notes == 1 else f"{result.notes} cells"
    return f"{done}; both have changed {cells}: look for “The new version” in it"


def _replaced(lab: Lab) -> Path:
    """A directory for copies that are replaced now; it is made when there is one."""
    now = datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S-%f")
    return lab.directory / "notebooks" / "replaced" / now


def _read(content: bytes) -> NotebookNode:
    """A notebook whose cells have ids. Raises ValueError if it is not one of format 4."""
    import nbformat

    try:
        notebook: NotebookNode = nbformat.v4.reads(content.decode())
        if notebook.nbformat != 4:
            raise ValueError(f"format {notebook.nbformat}")
        ids: set[str] = set()
        for cell in notebook.cells:
            if cell.get("id") in {None, *ids}:
                cell["id"] = uuid.uuid4().hex[:8]
            ids.add(cell.id)
        notebook.nbformat_minor = max(notebook.nbformat_minor, 5)
        nbformat.validate(notebook)
    except (AttributeError, TypeError, nbformat.ValidationError):
        raise ValueError("it is not a notebook") from None
    return notebook


def _merged_with(content: bytes) -> str:
    """The SHA-256 of the original that a copy was merged with last, "" if it never was."""
    try:
        return str(json.loads(content)["metadata"]["rfe"]["original"])
    except (ValueError, TypeError, KeyError):
        return ""


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


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _digest(content: bytes | None) -> str:
    return hashlib.sha256(content or b"").hexdigest()
