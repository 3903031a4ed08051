"""The machine panel: screen, console, and buttons to start, stop and reset.

Under `rfe lab open` screen and console are live: the page of the machine (workbook/machine_page.py)
in a frame. Elsewhere they are a picture and the last lines.
"""

from __future__ import annotations

import html
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from rfe_helpers.core.progress import Say
from rfe_helpers.core.run import tail_of
from rfe_helpers.errors import MachineError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.qemu import VmSpec
from rfe_helpers.machine.vm import Machine
from rfe_helpers.workbook import jupyter
from rfe_helpers.workbook.show import Markup, Table, facts
from rfe_helpers.workbook.ui import lines
from rfe_helpers.workbook.ui.parts import ROW, Panel, code, note, region, scrolling, shown

# What a terminal obeys and does not show (ECMA-48: control sequences, operating system commands,
# other escapes and control characters), except line ends and tabs.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]"
    r"|[\x00-\x08\x0b-\x1f]"
)


class MachinePanel(Panel):
    """A machine that notebook 50 has installed in the lab, or one that starts as `spec` says.

    For example:

    >>> from rfe_helpers.workbook import MachinePanel
    >>> panel = MachinePanel(lab, "edge-1")
    >>> panel.machine.alive, panel.node.name
    (True, 'edge-1')
    """

    every = 2.0

    def __init__(self, lab: Lab, name: str, spec: VmSpec | None = None) -> None:
        super().__init__()
        self.lab = lab
        self.name = name
        self._given = spec
        self.title = f"Machine {name}"
        self.teach(self._python(""), lab.command("lab show"))

    # actions, without widgets ------------------------------------------------------------

    @property
    def machine(self) -> Machine | None:
        """The machine if it is running."""
        return Machine.find(self.lab, self.name)

    @property
    def node(self) -> Node:
        """The system on it. Raises StepMissingError before notebook 50."""
        installed = self.lab.step("install")
        return Node(self.lab, self.name, port=installed["ssh_port"], user=installed["user"])

    @property
    def spec(self) -> VmSpec:
        """How it starts. Raises StepMissingError before notebook 50 unless it was given."""
        if self._given is not None:
            return self._given
        installed = self.lab.step("install")
        return VmSpec(
            self.name,
            disk=Path(installed["disk"]),
            memory_mib=installed["memory_mib"],
            firmware=installed["firmware"],
            forwards=((installed["ssh_port"], 22),),
        )

    def start(self) -> Machine:
        """Start it unless it is running."""
        return Machine.ensure(self.lab, self.spec)

    def screen(self) -> bytes:
        """The screen as PNG, b"" if the machine is off."""
        machine = self.machine
        if machine is None:
            return b""
        with tempfile.TemporaryDirectory(prefix="rfe-screen-") as directory:
            return machine.screenshot(Path(directory, "screen.png")).read_bytes()

    def console(self) -> str:
        """The last lines of its serial console."""
        path = self.lab.path("machines", self.name, "console.log")
        text = path.read_text(errors="replace") if path.exists() else ""
        return tail_of(_CONTROL.sub("", text), 14)

    # display ----------------------------------------------------------------------------------

    def state(self) -> Table:
        """Whether it is running, and how to log in."""
        machine = self.machine
        values = {"Machine": self.name, "State": "● running" if machine else "○ off"}
        if self._given is None and self.lab.has("install"):
            values["To log in"] = self.node.ssh_line
        return facts(values)

    def twin_parts(self) -> Sequence[Markup | Table]:
        return [self.state(), code(self.console()), self._where_live()]

    def build(self) -> Sequence[Any]:
        self._facts = region("state")
        self._page = jupyter.machine_page(self.lab, self.name)
        buttons = [
            self.button("Start", self._start, "switch it on", "primary"),
            self.button("Stop", self._stop, "shut down; end it after a minute"),
            self.button("Reset", self._reset, "press the reset button: unsaved data is lost"),
        ]
        view = region("live", _framed(self._page)) if self._page else self._still()
        return [widgets.HBox(buttons, layout=ROW), self._facts, view]

    def _still(self) -> Any:
        """A picture, and the last lines of the console."""
        self._screen = widgets.Image(format="png", layout={"width": "48%", "min_width": "22em"})
        self._screen.layout.object_fit = "contain"
        self._screen.tooltip = "the machine's screen"
        self._console = region("console")
        console = scrolling(self._console, "24em")
        console.layout.width = "50%"
        side = widgets.HBox([self._screen, console], layout={**ROW, "align_items": "flex-start"})
        return widgets.VBox([side, region("where", self._where_live().html)])

    def _where_live(self) -> Markup:
        return note(f"With keyboard and mouse, live: {self.lab.command('lab open')}")

    def refresh(self) -> None:
        self._facts.value = shown(self.state())
        self.now_shows(self.machine is not None)
        if self._page:
            return
        self._console.value = code(self.console()).html
        try:
            picture = self.screen()
        except MachineError:  # it may be ending at this moment
            return
        self._screen.layout.display = None if picture else "none"
        if picture and picture != self._screen.value:
            self._screen.value = picture

    # buttons ----------------------------------------------------------------------------------

    def _start(self) -> None:
        start = f"Machine.ensure({lines.opened(self.lab)}, {lines.spec(self.spec)})"
        python = lines.python("Lab, Machine, VmSpec", start)
        self.teach(f"from pathlib import Path\n{python}", "")

        def job(on_progress: Say) -> str:
            self.start()
            return f"{self.name} is on; it is booting"

        self.work("Switching on", job)

    def _stop(self) -> None:
        machine = self._running()
        shell = "" if self._given is not None else f"{self.node.ssh_line} sudo poweroff"
        self.teach(self._python(".stop()"), shell)

        def job(on_progress: Say) -> str:
            machine.stop()
            return f"{self.name} is off"

        self.work("Shutting down", job)

    def _reset(self) -> None:
        self._running().reset()
        self.teach(self._python(".reset()"), "")
        self.say("✔ reset: it is booting again")

    def _python(self, action: str) -> str:
        machine = f"Machine.find({lines.opened(self.lab)}, {self.name!r})"
        return lines.python("Lab, Machine", machine + action)

    def _running(self) -> Machine:
        machine = self.machine
        if machine is None:
            raise MachineError(f"{self.name} is off", remedy="start it first")
        return machine


def _framed(page: str) -> str:
    """A page of a machine in a frame, which the page makes as high as it is."""
    address = html.escape(page)
    style = "display: block; width: 100%; height: 30em; border: 0"
    frame = f'<iframe src="{address}" title="Screen and console" allow="fullscreen"'
    colour = "color: var(--jp-content-link-color, LinkText); text-decoration: underline"
    text = "Screen and console in a tab of their own"
    link = f'<a href="{address}" target="_blank" style="{colour}">{text}</a>'
    return f'{link}{frame} style="{style}"></iframe>'
