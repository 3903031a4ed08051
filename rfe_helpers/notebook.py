"""What a notebook shows: checks, progress, tables and pictures.

Everything has two faces, one for a notebook (HTML or PNG) and one for plain text, so that a
script, a terminal and a log can use it too. HTML takes its colours from the page around it, and
says with words and signs what it says with colour.

Progress travels to a headless run in a MIME type of its own, `PROGRESS`, beside the HTML.
"""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from IPython.core.getipython import get_ipython
from IPython.display import display as _untyped_display

from rfe_helpers.errors import CheckFailed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

display: Any = _untyped_display

PROGRESS = "application/x-rfe-progress"
_GREEN = "var(--jp-success-color0, #1b7f3b)"
_BORDER = "1px solid var(--jp-border-color1, #9995)"

# The steps of the life cycle, in order: notebook, what the reader calls it, what the lab calls it.
LIFE_CYCLE = (
    ("10", "Image Builder", "image-builder"),
    ("20", "commit", "commit"),
    ("30", "look inside", "inspect"),
    ("40", "serve", "serve"),
    ("50", "install", "install"),
    ("60", "update, roll back", "update"),
)

# Notebooks beside the way of all readers, and their steps: a run leaves them out unless they are
# named.
FURTHER = {"65": "trust", "70": "offline", "80": "fleet"}

# What must never stand in an output: each is looked for by `secrets_in` and hidden by `mask`.
_SECRETS = {
    "a private key": re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    "a password hash": re.compile(r"\$(?:5|6|y|2[aby])\$[./A-Za-z0-9$=,-]{20,}"),
    "an authorization header": re.compile(r"(?i)\bauthorization: *(?:basic|bearer) +\S{8,}"),
}


class Deployment(Protocol):
    """A deployment as `node.Status` has it; only these are drawn."""

    @property
    def checksum(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def booted(self) -> bool: ...
    @property
    def staged(self) -> bool: ...


def in_notebook() -> bool:
    """Whether a Jupyter kernel shows what is displayed."""
    return get_ipython() is not None and hasattr(get_ipython(), "kernel")


def elapsed(seconds: float) -> str:
    """Seconds as people read them: 0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(number: float) -> str:
    """Bytes as people read them: 312 B, 4.2 kB, 158.0 MB (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def check(condition: object, promise: str, remedy: str = "") -> None:
    """Show a green line with `promise`, or raise CheckFailed with it and what to do."""
    if not condition:
        raise CheckFailed(f"this does not hold: {promise}", remedy=remedy)
    show(Markup(f'<b style="color: {_GREEN}">✔</b> {html.escape(promise)}', f"✔ {promise}"))


def mask(text: str) -> str:
    """The text with everything that looks like a secret replaced by what it was."""
    for kind, pattern in _SECRETS.items():
        text = pattern.sub(f"({kind}, hidden)", text)
    return text


def secrets_in(text: str) -> list[str]:
    """What kinds of secrets a text seems to hold."""
    return [kind for kind, pattern in _SECRETS.items() if pattern.search(text)]


def show(thing: object) -> None:
    """Display in a notebook, print elsewhere."""
    if in_notebook():
        display(thing)
    else:
        print(thing)


@dataclass(frozen=True, repr=False)
class Markup:
    """HTML with its twin in plain text."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, repr=False)
class Table:
    """Rows under column names. Numbers stand to the right; other values are shown as str."""

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
                f'<td style="text-align: {a}">{html.escape(_cell(value))}</td>'
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
    """A table of two columns, names and values, without a head."""
    return Table(("", ""), [(name, value) for name, value in values.items()], caption)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    # Large numbers in groups of three, but neither years nor ports.
    grouped = isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000
    return f"{value:,}" if grouped else str(value)


class Sparing:
    """Decides which status lines are worth a line of a log: new words at most every `every`
    seconds, the same words with other numbers (bytes, objects, seconds) eight times as rarely."""

    def __init__(self, every: float = 2.0) -> None:
        self._every = every
        self._line = self._words = ""
        self._at = -float("inf")

    def __call__(self, line: str) -> bool:
        words = re.sub(r"[\d.]+", "", line)
        pause = self._every * (8 if words == self._words else 1)
        if line == self._line or time.monotonic() - self._at < pause:
            return False
        self._line, self._words, self._at = line, words, time.monotonic()
        return True


def share_of(line: str) -> float | None:
    """How much is done, from 0 to 1, if a status line says so."""
    if found := re.search(r"(\d+(?:\.\d+)?) ?%", line):
        return min(1.0, float(found[1]) / 100)
    found = re.search(r"(\d+(?:\.\d+)?)(?: of |/)(\d+(?:\.\d+)?)", line)
    if found is None or float(found[2]) == 0:
        return None
    return min(1.0, float(found[1]) / float(found[2]))


def _bar(share: float) -> str:
    outer = "width: 24em; height: .7em; border: 1px solid currentColor; margin: .2em 0"
    inner = f"width: {100 * share:.0f}%; height: 100%; background: currentColor"
    return f'<div style="{outer}"><div style="{inner}"></div></div>'


def _columns() -> int:
    """What fits into one line of the terminal."""
    return shutil.get_terminal_size().columns - 1


class Progress:
    """Progress of something long: what it is, the time since it began, the last status line.

    Give it to functions as `on_progress`, best inside `with`, which adds the final line:

        with Progress("Building the commit") as progress:
            client.wait(compose, deadline, on_progress=progress)

    In a notebook and in a terminal one line is updated in place, at most every `every` seconds,
    with a bar if the status line says how much is done ("40 of 182 MB", "45%", "3/12"); into a
    log, lines are printed, sparingly.
    """

    def __init__(self, label: str, *, every: float | None = None) -> None:
        self.label = label
        self._notebook = in_notebook()
        self._terminal = not self._notebook and sys.stdout.isatty()
        self._every = 0.5 if every is None else every
        self._worth_printing = Sparing(2.0 if every is None else every)
        self._began = time.monotonic()
        self._last_shown = 0.0
        self._line = ""
        self._handle: Any = None

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        self._line, self._handle = "", None
        self._show("…", "")
        return self

    def __call__(self, line: str) -> None:
        self._line = line
        if self._notebook or self._terminal:
            if time.monotonic() - self._last_shown >= self._every:
                self._last_shown = time.monotonic()
                self._show("…", line)
        elif self._worth_printing(line):
            self._show("…", line)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._show("✔", "done") if kind is None else self._show("✘", self._line or "stopped")

    def _show(self, sign: str, line: str) -> None:
        took = elapsed(time.monotonic() - self._began)
        text = " · ".join(part for part in (f"{sign} {self.label}", took, line) if part)
        share = share_of(line)
        if self._terminal:
            drawn = "" if share is None else f" [{'#' * round(20 * share):20}]"
            line = text + drawn if sign != "…" else (text + drawn)[: _columns()]
            print(f"\r\x1b[K{line}", end="" if sign == "…" else "\n", flush=True)
            return
        if not self._notebook:
            print(text, flush=True)
            return
        bundle = {
            "text/plain": text,
            "text/html": f'<div style="font-family: monospace">{html.escape(text)}</div>'
            + ("" if share is None else _bar(share)),
            PROGRESS: text,
        }
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


class Live:
    """Shows one thing in the place of the one before, such as a table that refreshes.

    Outside a notebook it is printed, when it is another than before.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._text = ""

    def __call__(self, thing: object) -> None:
        before, self._text = self._text, repr(thing)
        if self._text == before:
            return
        if not in_notebook():
            print(thing, flush=True)
        elif self._handle is None:
            self._handle = display(thing, display_id=True)
        else:
            self._handle.update(thing)


class Picture:
    """A PNG with the text that stands for it where pictures cannot be shown.

    `width` is the width on the page in CSS pixels.
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
        """What matplotlib has drawn."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, facecolor="white")
        return cls(buffer.getvalue(), text, width)

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.text}
        return data, {"image/png": {"width": self.width, "alt": self.text}}

    def __repr__(self) -> str:
        return self.text


def bars(panels: Mapping[str, Mapping[str, float]], unit: str, *, most: int = 12) -> Picture:
    """Horizontal bars, largest first, one panel per title, with the rest summed up in one bar.

    Drawn on white, so that it reads the same in a light and in a dark theme.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(panels), 0.28 * (most + 1) + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, values) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        top = _largest(values, most)
        drawn = axes.barh(range(len(top)), list(top.values()), color="#3a6ea5")
        axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=8)
        axes.set_yticks(range(len(top)), list(top))
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel(unit)
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
    words = (
        f"{title}: {', '.join(f'{name} {value:.1f} {unit}' for name, value in top.items())}"
        for title, top in ((t, _largest(v, 3)) for t, v in panels.items())
    )
    return Picture.drawn(figure, "; ".join(words), width=480 * len(panels))


def _largest(values: Mapping[str, float], most: int) -> dict[str, float]:
    """The `most` largest values in order, and the sum of the others under a name that says so."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    rest = ordered[most:]
    top = dict(ordered[:most])
    if rest:
        top[f"{len(rest)} others"] = sum(value for _, value in rest)
    return top


def deployments(found: Iterable[Deployment]) -> Markup:
    """The deployments of a system as boxes, in the order of its boot menu."""
    boxes, lines = [], []
    for index, deployment in enumerate(found):
        words = [
            word
            for word, holds in (
                ("● booted", deployment.booted),
                ("staged: boots next", deployment.staged),
                ("boots next", index == 0 and not deployment.booted and not deployment.staged),
                ("kept for rollback", index > 0 and not deployment.booted),
            )
            if holds
        ]
        edge = "3px solid currentColor" if deployment.booted else _BORDER
        boxes.append(
            f'<div style="border: {edge}; border-radius: 6px; padding: .6em 1em">'
            f"<b>{html.escape(deployment.version or 'no version')}</b><br>"
            f"<code>{html.escape(deployment.checksum[:12])}</code><br>{' · '.join(words)}</div>"
        )
        lines.append(f"{deployment.version}  {deployment.checksum[:12]}  {' · '.join(words)}")
    return Markup(_row(boxes), "\n".join(lines))


def _row(boxes: Sequence[str], between: str = "") -> str:
    style = "display: flex; flex-wrap: wrap; gap: .7em; align-items: center; margin: .5em 0"
    return f'<div style="{style}">{between.join(boxes)}</div>'
