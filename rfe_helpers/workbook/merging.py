"""A notebook that its reader has changed, merged with a newer version of the workbook's.

The base is the notebook as the reader got it. Cells are known by their ids; nbdime merges the
order of the cells, and the lines of a cell that both sides have changed. Where both have changed
the same line, the reader's cell stays, and a note below it shows the new one. Outputs, and what
JupyterLab records of a cell, are the reader's alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nbformat

if TYPE_CHECKING:
    from nbformat import NotebookNode

# The id of a note is that of its cell and this.
_SUFFIX = "-new"
_CHANGED = "**The new version of the cell above**, which you have changed and which stays yours:"
_DELETED = "**The new version of a cell that you have deleted:**"


@dataclass(frozen=True)
class Merge:
    """A merged notebook, and how many notes in it the reader's did not have."""

    notebook: NotebookNode
    notes: int


def merge(base: NotebookNode, local: NotebookNode, remote: NotebookNode) -> Merge:
    """What the reader has changed from `base` to `local`, and the workbook from `base` to `remote`.

    Every cell needs an id.
    """
    old, own, new = _by_id(base.cells), _by_id(local.cells), _by_id(remote.cells)
    cells, noted = [], []
    for name in _order(old, own, new):
        cell, conflict = _merge_cell(old.get(name), own.get(name), new.get(name))
        cells.append(cell)
        noted += [name] if conflict else []
    noted += [n for n in new if n in old and n not in own and _differ(new[n], old[n])]
    notebook = copy.deepcopy(remote)
    notebook.cells = cells
    notebook.metadata = nbformat.from_dict({**local.metadata, **remote.metadata})
    notes = sum(_add_note(new[name], cells, list(new)) for name in noted)
    return Merge(notebook, notes)


def _by_id(cells: Iterable[NotebookNode]) -> dict[str, NotebookNode]:
    return {cell.id: cell for cell in cells}


def _differ(one: NotebookNode, other: NotebookNode) -> bool:
    return (one.cell_type, one.source) != (other.cell_type, other.source)


def _order(
    old: dict[str, NotebookNode], own: dict[str, NotebookNode], new: dict[str, NotebookNode]
) -> list[str]:
    """The ids of the merged cells. What one side has deleted goes, unless the reader has changed
    it."""
    kept = {n for n in old if n in own and n not in new and _differ(own[n], old[n])}
    ids, _ = _merge_lists([n for n in old if n not in kept], list(own), list(new))
    deleted = {n for n in old if n not in kept and (n not in own or n not in new)}
    ids = [n for n in dict.fromkeys(ids) if n not in deleted]
    for side in (list(new), list(own)):
        for name in side:
            if name not in deleted and name not in ids:
                ids.insert(_place_after(name, side, ids), name)
    return ids


def _place_after(name: str, side: list[str], ids: list[str]) -> int:
    """Where an id belongs in `ids`: below the one that it follows in `side`."""
    above = [each for each in side[: side.index(name)] if each in ids]
    return ids.index(above[-1]) + 1 if above else 0


def _merge_lists(base: list[str], local: list[str], remote: list[str]) -> tuple[list[str], bool]:
    """Two changed lists as one, and whether they conflict: then the result is the local side's,
    where only one of them has inserted something."""
    if local == base or remote in (base, local):
        return (remote if local == base else local), False
    import nbdime

    decisions = nbdime.decide_merge(base, local, remote)
    conflicts = [each for each in decisions if each.conflict and each.action == "base"]
    for decision in conflicts:
        entries = [*decision.local_diff, *decision.remote_diff]
        added = all(entry.op == "addrange" for entry in entries)
        decision.action = "local_then_remote" if added else "local"
    return nbdime.apply_decisions(base, decisions), any(each.conflict for each in decisions)


def _merge_cell(
    old: NotebookNode | None, own: NotebookNode | None, new: NotebookNode | None
) -> tuple[NotebookNode, bool]:
    """A merged cell, and whether its new version conflicts with the reader's."""
    if own is None or new is None:
        only = own if new is None else new
        assert only is not None
        return copy.deepcopy(only), False
    old = old or new
    conflict = False
    cell = copy.deepcopy(own if _differ(own, old) else new)
    if _differ(own, old) and _differ(new, old) and _differ(own, new):
        sides = [each.source.split("\n") for each in (old, own, new)]
        lines, conflict = _merge_lists(*sides)
        conflict |= old.cell_type != own.cell_type or old.cell_type != new.cell_type
        cell.source = own.source if conflict else "\n".join(lines)
    added = {key: value for key, value in own.metadata.items() if key not in old.metadata}
    cell.metadata = nbformat.from_dict({**added, **new.metadata})
    if cell.cell_type == own.cell_type == "code":
        cell.outputs, cell.execution_count = own.outputs, own.execution_count
    return cell, conflict


def _add_note(cell: NotebookNode, merged: list[NotebookNode], remote: list[str]) -> bool:
    """Show the new version of a cell in a note below the reader's; False if it is there already."""
    ids = [each.id for each in merged]
    note = nbformat.v4.new_markdown_cell(_text(cell, deleted=cell.id not in ids))
    note.id = cell.id[: 64 - len(_SUFFIX)] + _SUFFIX
    if note.id in ids:
        present = merged[ids.index(note.id)]
        same: bool = present.source == note.source
        present.source = note.source
        return not same
    below = ids.index(cell.id) + 1 if cell.id in ids else _place_after(cell.id, remote, ids)
    merged.insert(below, note)
    return True


def _text(cell: NotebookNode, *, deleted: bool) -> str:
    fence = "~~~"
    while fence in cell.source:
        fence += "~"
    language = "python" if cell.cell_type == "code" else cell.cell_type
    return f"{_DELETED if deleted else _CHANGED}\n\n{fence}{language}\n{cell.source}\n{fence}"
