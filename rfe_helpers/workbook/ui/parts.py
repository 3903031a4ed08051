"""What the panels share: the frame, work in the background, messages, static twins."""

from __future__ import annotations

import html
import os
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from rfe_helpers.core import journal
from rfe_helpers.core.progress import Say
from rfe_helpers.errors import RfeError
from rfe_helpers.workbook.commands import below
from rfe_helpers.workbook.show import Markup, Table, in_notebook

VIEW = "application/vnd.jupyter.widget-view+json"
# The boxes of ipywidgets scroll at the slightest overflow; these wrap instead.
ROW = {"flex_flow": "row wrap", "align_items": "center", "overflow": "visible"}
_CODE = "margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9em"
_FRAME = "1px solid var(--jp-border-color1, #9995)"
BAD = "var(--jp-error-color0, #b3261e)"
_GOOD = "var(--jp-success-color0, #1b7f3b)"
BRING_BACK = "The buttons have gone with their kernel or page: run this cell to bring them back."
# JupyterLab's widget manager gives this class to widgets whose kernel has gone.
_LOST = ".jupyter-widgets-disconnected"
# The last rule is for its pictures of a broken chain, one for each widget.
_STYLE = f"""<style>.rfe-lost {{ display: none; font-weight: bold }}
.rfe-panel{_LOST} .rfe-lost {{ display: block }}
.rfe-panel{_LOST} button {{ pointer-events: none; opacity: .4 }}
.rfe-panel{_LOST}::before, .rfe-panel {_LOST}::before {{ content: none !important }}</style>"""


def live_front_end() -> bool:
    """Whether a user can click: the kernel was started by a Jupyter server, not by papermill.

    The server sets JPY_SESSION_NAME in the kernel's environment (jupyter_server's session
    manager); set RFE_WIDGETS=1 for another front end that shows widgets.
    """
    return in_notebook() and bool(
        os.environ.get("JPY_SESSION_NAME") or os.environ.get("RFE_WIDGETS")
    )


class Panel:
    """A frame with a message, the equivalent commands, and work that runs in a thread.

    Subclasses create their widgets in `build`, which is called when the panel is shown to a user
    who can click, fill them in `refresh`, and give the same without widgets in `twin_parts`.
    """

    title = ""
    every = 2.0  # seconds between refreshes, for changes by other windows and programs

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._box: Any = None
        self._message: Any = None
        self._lesson: Any = None
        self._commands: Any = None
        self._lines = ("", "")  # Python and shell
        self._buttons: weakref.WeakSet[Any] = weakref.WeakSet()
        self._worker: threading.Thread | None = None
        self._loud = False  # whether the worker has a label
        self._state: object = None

    # for subclasses to define -----------------------------------------------------------------

    def build(self) -> Sequence[Any]:
        """The widgets from top to bottom."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Fill the widgets with the present state, and name it with `now_shows`."""
        raise NotImplementedError

    def twin_parts(self) -> Sequence[Markup | Table]:
        """The content of the panel without widgets."""
        raise NotImplementedError

    # showing --------------------------------------------------------------------------------

    @property
    def box(self) -> Any:
        """The whole panel as one widget, created at the first use."""
        if self._box is None:
            self._message = region("message")
            self._lesson = region("lesson")
            heading = widgets.HTML(f"{_STYLE}<b>{html.escape(self.title)}</b>")
            lost = region("lost", note(BRING_BACK).html)
            self._commands = region("commands")
            lines = scrolling(self._lesson, "22em")
            children = [heading, lost, *self.build(), self._message, lines, self._commands]
            layout = {"border": _FRAME, "padding": "8px 12px", "overflow": "visible"}
            self._box = widgets.VBox(children, layout=layout)
            self._box.add_class("rfe-panel")
            self.teach(*self._lines)
            self.attempt(self.refresh)
            name = f"refresh-{self.title}"
            threading.Thread(target=self._keep_fresh, name=name, daemon=True).start()
        return self._box

    def twin(self) -> Markup:
        """The static twin of the present state."""
        return stacked(self.title, [*self.twin_parts(), lesson(*self._lines)])

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        twin = self.twin()
        bundle: dict[str, Any] = {"text/plain": twin.text, "text/html": twin.html}
        if live_front_end():
            identity = self.box.model_id
            bundle[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": identity}
            # JupyterLab shows the twin only where there is no live widget: in a saved notebook.
            bundle["text/html"] = note(BRING_BACK).html + twin.html
        return bundle

    def __repr__(self) -> str:
        return self.twin().text

    # acting ---------------------------------------------------------------------------------

    def button(self, text: str, action: Callable[[], None], tip: str, style: str = "") -> Any:
        """A button; it is disabled while the panel is busy."""
        button = widgets.Button(description=text, tooltip=tip, button_style=style)
        button.layout.width = "auto"
        button.on_click(lambda _: self.attempt(action))
        self._buttons.add(button)
        return button

    def attempt(self, action: Callable[[], None]) -> None:
        """Do something short; an error is shown in the panel."""
        try:
            with self._guard:
                action()
        except Exception as error:
            self.say_error(error)

    def _keep_fresh(self) -> None:
        """Refresh regularly until the panel is closed. An error of that is shown until a refresh
        succeeds."""
        while self._box is not None and self._box.comm is not None:
            threading.Event().wait(self.every)
            if self.busy:
                continue
            try:
                with self._guard, journal.section(f"refresh-{self.title}"):
                    self.refresh()
            except Exception as error:
                self._state = None
                self.say_error(error)

    def now_shows(self, state: object) -> None:
        """What the widgets show now: a message that was about another state is removed."""
        if state != self._state and not self._loud:
            self.say("")
        self._state = state

    def work(self, label: str, job: Callable[[Say], str]) -> None:
        """Do something long in a thread, one at a time; `job` returns the message at its end.

        Without a label it works in silence: the buttons stay enabled, only an error is shown, and
        the next work waits for it.
        """
        if self._loud:
            self.say("Wait until the present work has ended.")
            return
        if label:
            self._loud = True
            self._switch(off=True)
            self.say(f"… {label}")
        self._worker = threading.Thread(
            target=self._work,
            args=(label, job, self._worker),
            name=f"panel-{self.title}",
            daemon=True,
        )
        self._worker.start()

    @property
    def busy(self) -> bool:
        """Whether work is running in the background."""
        return self._worker is not None and self._worker.is_alive()

    def wait(self, seconds: float = 600) -> None:
        """Wait until the work in the background has ended."""
        if self._worker is not None:
            self._worker.join(seconds)

    def _work(self, label: str, job: Callable[[Say], str], before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        message: str | Exception
        began = time.time()
        try:
            with journal.section(self.title):
                message = job(lambda line: self.say(f"… {label}: {line}"))
        except Exception as error:
            message = error
        if label and self._commands is not None:
            self._commands.value = below(journal.since(began, self.title)).html
        try:
            # First, so that the message is about the state after the work.
            with self._guard:
                self.refresh()
        except Exception as error:
            message = message if isinstance(message, Exception) else error
        if isinstance(message, Exception):
            self.say_error(message)
        elif message:
            self.say(f"✔ {message}", _GOOD)
        if label:
            self._loud = False
            self._switch(off=False)

    def _switch(self, *, off: bool) -> None:
        for button in list(self._buttons):
            button.disabled = off

    # messages ---------------------------------------------------------------------------------

    def say(self, text: str, colour: str = "inherit") -> None:
        """Show a message below the widgets in place of the last one."""
        if self._message is not None:
            lines = html.escape(text).replace("\n", "<br>")
            self._message.value = f'<div style="color: {colour}; line-height: 1.4">{lines}</div>'

    def say_error(self, error: Exception) -> None:
        """Show an error with its log and remedy; an unforeseen one in one line, with its place."""
        if isinstance(error, RfeError):
            self.say(f"✘ {error}", BAD)
            return
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.filename.rpartition('/')[2]}, line {frame.lineno}"
        self.say(f"✘ unexpected {type(error).__name__}: {error} ({place})", BAD)

    @property
    def taught(self) -> bool:
        """Whether lines have been shown."""
        return any(self._lines)

    def teach(self, python: str, shell: str) -> None:
        """Show the Python and the shell lines that do the same, "" for none (see lines.py)."""
        self._lines = (python, shell)
        if self._lesson is not None:
            self._lesson.value = lesson(python, shell).html


def region(name: str, value: str = "") -> Any:
    """An HTML widget with the class `rfe-<name>`, by which style sheets and tests find it."""
    widget = widgets.HTML(value)
    widget.add_class(f"rfe-{name}")
    return widget


def lesson(python: str, shell: str) -> Markup:
    """The equivalent in Python and in a terminal; "" for none."""
    parts = [(name, text) for name, text in (("Python", python), ("Terminal", shell)) if text]
    columns = "".join(
        f'<div style="flex: 1 1 24em; min-width: 0"><span style="opacity: .8">{name}</span>'
        f"{code(text).html}</div>"
        for name, text in parts
    )
    plain = "\n".join(f"{name + ':':<10}{text}" for name, text in parts)
    style = "display: flex; flex-wrap: wrap; gap: .2em 1.5em; margin-top: .4em; line-height: 1.5"
    return Markup(f'<div style="{style}">{columns}</div>', plain)


def code(text: str) -> Markup:
    """Preformatted text whose lines wrap."""
    return Markup(f'<pre style="{_CODE}">{html.escape(text)}</pre>', text)


def note(text: str) -> Markup:
    """A line of prose."""
    return Markup(f"<div>{html.escape(text)}</div>", text)


def stacked(title: str, parts: Sequence[Markup | Table]) -> Markup:
    """Parts below each other in a frame, under a title."""
    inner = "".join(
        f'<div style="margin: .4em 0; overflow-x: auto">{part._repr_html_()}</div>'
        for part in parts
    )
    frame = f"border: {_FRAME}; padding: .5em 1em"
    whole = f'<div class="rfe-twin" style="{frame}"><b>{html.escape(title)}</b>{inner}</div>'
    return Markup(whole, "\n\n".join([title, *map(repr, parts)]))


def shown(part: Markup | Table) -> str:
    """A part as the value of a widget, with the styles that widgets do not take from the page."""
    cells = 'style="padding: .15em 1em .15em 0; text-align'
    text = part._repr_html_().replace('style="text-align', cells)
    return f'<div style="line-height: 1.4">{text}</div>'


def scrolling(child: Any, height: str = "16em") -> Any:
    """A widget that may be long, in a box with a scroll bar. Text takes the focus, so that it is
    moved by the arrow keys."""
    if isinstance(child, widgets.HTML):
        child.tabbable = True
    return widgets.VBox([child], layout={"max_height": height, "overflow": "auto"})


def refill(box: Any, children: Sequence[Any]) -> None:
    """Replace the children of a box, and close those that it had."""
    old = box.children
    box.children = children
    for child in old:
        close(child)


def close(widget: Any) -> None:
    """Close a widget with everything in it."""
    for child in getattr(widget, "children", ()):
        close(child)
    widget.close()
