"""The output of notebooks: checks, tables and pictures.

Everything has two forms, one for a notebook (HTML or PNG) and one in plain text for scripts,
terminals and logs. HTML takes its colours from the page, and no information is given by colour
alone.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.getipython import get_ipython
from IPython.display import display as _untyped_display

from rfe_helpers.core.masking import mask as mask
from rfe_helpers.core.units import size as size
from rfe_helpers.errors import CheckFailedError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


display: Any = _untyped_display

_GREEN = "var(--jp-success-color0, #1b7f3b)"


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    return get_ipython() is not None and hasattr(get_ipython(), "kernel")


def check(condition: object, promise: str, remedy: str = "") -> None:
    """Show `promise` with a green tick if the condition is true; otherwise raise CheckFailedError
    with the promise and the remedy.

    >>> from rfe_helpers.workbook import check
    >>> check(2 + 2 == 4, "the sum is right", "add again")
    ✔ the sum is right
    """
    if not condition:
        raise CheckFailedError(f"this does not hold: {promise}", remedy=remedy)
    show(Markup(f'<b style="color: {_GREEN}">✔</b> {html.escape(promise)}', f"✔ {promise}"))


def show(thing: object) -> None:
    """Display an object in a notebook, print it elsewhere."""
    if in_notebook():
        display(thing)
    else:
        print(thing)


@dataclass(frozen=True, repr=False)
class Markup:
    """HTML with its equivalent in plain text.

    >>> from rfe_helpers.workbook import Markup
    >>> Markup("<b>staged</b>", "staged")
    staged
    """

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, repr=False)
class Table:
    """A table. Columns of numbers are aligned to the right; other values are shown as text.

    For example:

    >>> from rfe_helpers.workbook import Table
    >>> Table(("package", "bytes"), [("curl", 512_000), ("jq", 89_000)], "Largest packages")
    Largest packages
    package  bytes
    -------  -------
    curl     512,000
    jq       89,000
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""

    def _repr_html_(self) -> str:
        numeric = [all(isinstance(row[i], int | float) for row in self.rows) for i in self._range]
        align = ["right" if number else "left" for number in numeric]
        parts = ['<table style="border-collapse: collapse">']
        if self.caption:
            parts.append(f'<caption style="text-align: left">{html.escape(self.caption)}</caption>')
        if any(self.columns):
            heads = zip(self.columns, align, strict=True)
            cells = "".join(f'<th style="text-align: {a}">{html.escape(c)}</th>' for c, a in heads)
            parts.append(f"<thead><tr>{cells}</tr></thead>")
        parts.append("<tbody>")
        for row in self.rows:
            pairs = zip(row, align, strict=True)
            cells = "".join(
                f'<td style="text-align: {a}; white-space: pre-line">'
                f"{html.escape(_cell(value))}</td>"
                for value, a in pairs
            )
            parts.append(f"<tr>{cells}</tr>")
        return "".join([*parts, "</tbody></table>"])

    def __repr__(self) -> str:
        rows = [[_cell(value) for value in row] for row in self.rows]
        heads = [list(self.columns)] if any(self.columns) else []
        widths = [max((len(row[i]) for row in heads + rows), default=0) for i in self._range]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in heads + rows
        ]
        if heads:
            lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.caption, *lines] if self.caption else lines)

    @property
    def _range(self) -> range:
        return range(len(self.columns))


def facts(values: Mapping[str, object], caption: str = "") -> Table:
    """A table of names and values, without column heads.

    >>> from rfe_helpers.workbook import facts
    >>> facts({"Engine": "nginx", "Port": 8000})
    Engine  nginx
    Port    8000
    """
    return Table(("", ""), [(name, value) for name, value in values.items()], caption)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    # Digits in groups of three, but not in years and ports.
    grouped = isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000
    return f"{value:,}" if grouped else str(value)


class Picture:
    """A PNG with a text for where pictures cannot be shown; `width` is in CSS pixels.

    >>> from pathlib import Path
    >>> from rfe_helpers.workbook import Picture
    >>> Picture.open(machine.screenshot(Path("screen.png")), "The screen of edge-1")
    The screen of edge-1
    """

    def __init__(self, png: bytes, text: str, width: int = 800) -> None:
        self.png = png
        self.text = text
        self.width = width

    @classmethod
    def open(cls, path: Path, text: str, width: int = 640) -> Picture:
        """A picture from a file, such as the screen of a machine."""
        return cls(path.read_bytes(), text, width)

    @classmethod
    def drawn(cls, figure: Figure, text: str, width: int = 800) -> Picture:
        """A picture of a matplotlib figure."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, facecolor="white")
        return cls(buffer.getvalue(), text, width)

    def _repr_html_(self) -> str:
        # JupyterLab gives an image/png no text for those who do not see it.
        source = f"data:image/png;base64,{base64.b64encode(self.png).decode()}"
        style = "max-width: 100%; height: auto"
        alt = html.escape(self.text)
        return f'<img src="{source}" alt="{alt}" width="{self.width}" style="{style}">'

    def __repr__(self) -> str:
        return self.text


def bars(panels: Mapping[str, Mapping[str, float]], unit: str, *, most: int = 12) -> Picture:
    """Horizontal bar charts, one per title, of the `most` largest values and the sum of the others.

    Drawn on white, so that they look the same in a light and a dark theme.

    >>> from rfe_helpers.workbook import bars
    >>> bars({"by directory": {"/usr": 371.4, "/var": 0.2}}, "MB")
    by directory: /usr 371.4 MB, /var 0.2 MB
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(panels), 0.28 * (most + 1) + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, values) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        top = _largest(values, most)
        rectangles = axes.barh(range(len(top)), list(top.values()), color="#3a6ea5")
        axes.bar_label(rectangles, fmt="%.1f", padding=3, fontsize=8)
        axes.set_yticks(range(len(top)), list(top))
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel(unit)
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
    texts = (
        f"{title}: {', '.join(f'{name} {value:.1f} {unit}' for name, value in top.items())}"
        for title, top in ((t, _largest(v, 3)) for t, v in panels.items())
    )
    return Picture.drawn(figure, "; ".join(texts), width=480 * len(panels))


def _largest(values: Mapping[str, float], most: int) -> dict[str, float]:
    """The `most` largest values in order, and the sum of the others as "N others"."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    rest = ordered[most:]
    top = dict(ordered[:most])
    if rest:
        top[f"{len(rest)} others"] = sum(value for _, value in rest)
    return top
