"""Progress of something long, in a notebook, a terminal or a log.

It travels to a headless run in a MIME type of its own, `PROGRESS`, beside the HTML. Not tqdm: in a
notebook that is a widget, whose saved text stays that of its beginning, "0%".
"""

from __future__ import annotations

import html
import re
import shutil
import sys
import time
from types import TracebackType
from typing import Any

from rfe_helpers.core.units import elapsed
from rfe_helpers.workbook.show import display, in_notebook

PROGRESS = "application/x-rfe-progress"


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
    if percent := re.search(r"(\d+(?:\.\d+)?) ?%", line):
        return min(1.0, float(percent[1]) / 100)
    parts = re.search(r"(\d+(?:\.\d+)?)(?: of |/)(\d+(?:\.\d+)?)", line)
    if parts is None or float(parts[2]) == 0:
        return None
    return min(1.0, float(parts[1]) / float(parts[2]))


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

    >>> from rfe_helpers.workbook import Progress
    >>> with Progress("Building the commit") as progress:
    ...     progress("installing packages")
    … Building the commit · 0:00
    ...
    ✔ Building the commit · 0:00 · done

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
        self._ended = 0.0
        self._last_shown = 0.0
        self._line = ""
        self._handle: Any = None

    def __enter__(self) -> Progress:
        self._began, self._ended = time.monotonic(), 0.0
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
        self._ended = time.monotonic()
        self._show("✔", "done") if kind is None else self._show("✘", self._line or "stopped")

    @property
    def seconds(self) -> float:
        """Seconds since it began, until now or its end."""
        return (self._ended or time.monotonic()) - self._began

    def _show(self, sign: str, line: str) -> None:
        took = elapsed(self.seconds)
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

    >>> from rfe_helpers.workbook import Live, facts
    >>> live = Live()
    >>> live(facts({"Devices": 2}))
    Devices 2
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
