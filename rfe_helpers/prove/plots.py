"""Plots of proofs: the moments at which updates were interrupted, and the outcomes.

Drawn on white; outcomes differ in marker as well as in colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfe_helpers.core import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision.
_MARKS: dict[str, dict[str, Any]] = {
    "old": {"color": "#0072b2", "marker": "o"},
    "new": {"color": "#009e73", "marker": "^"},
    "broken": {"color": "#d55e00", "marker": "X"},
}
# (moment, kind of interruption, outcome)
Point = tuple[float, str, str]


def plot(points: Sequence[Point], title: str, moments: str) -> Figure:
    """One mark per interruption, a row per kind; `moments` is the label of the horizontal axis."""
    from matplotlib.figure import Figure

    kinds = sorted({kind for _, kind, _ in points})
    figure = Figure(figsize=(8, 1.6 + 0.7 * len(kinds)), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for outcome, marks in _MARKS.items():
        rows = [(moment, kinds.index(kind)) for moment, kind, what in points if what == outcome]
        shift = list(_MARKS).index(outcome) * 0.22 - 0.22
        label = f"{outcome}: {len(rows)}"
        x = [moment for moment, _ in rows]
        y = [row + shift for _, row in rows]
        axes.scatter(x, y, label=label, s=28, alpha=0.6, linewidths=0, **marks)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_ylim(-0.6, len(kinds) - 0.4)
    axes.set_xlabel(moments)
    axes.set_title(title, loc="left")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(_MARKS), frameon=False)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, completely or not at all; returns the path."""
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path
