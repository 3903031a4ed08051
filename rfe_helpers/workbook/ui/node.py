"""The node panel: deployments, update, reboot and rollback, timers and containers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from rfe_helpers.core.progress import Say
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import RfeError
from rfe_helpers.machine.node import Node
from rfe_helpers.workbook.drawings import deployments
from rfe_helpers.workbook.show import Markup, Table
from rfe_helpers.workbook.ui import lines
from rfe_helpers.workbook.ui.parts import ROW, Panel, code, note, region, scrolling, shown

REBOOT_SECONDS = 900
TIMERS = "systemctl list-timers --all --no-pager --no-legend"
CONTAINERS = "command -v podman >/dev/null && podman ps --all || echo 'no podman on this system'"


class NodePanel(Panel):
    """An edge system, over SSH.

    For example:

    >>> from rfe_helpers.workbook import NodePanel
    >>> NodePanel(node)
    System on edge-1
    <BLANKLINE>
    13.2... ● booted; boot menu: ...
    """

    every = 30.0

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.node = node
        self.title = f"System on {node.name}"
        self._teach("edge.status()", "rpm-ostree status")

    # actions, without widgets ------------------------------------------------------------

    def timers(self) -> str:
        """The output of `systemctl list-timers`. Raises NodeError."""
        return self.node.run(TIMERS, seconds=60).stdout

    def containers(self) -> str:
        """The output of `podman ps --all`, or that there is no podman. Raises NodeError."""
        return self.node.sudo(CONTAINERS, seconds=60).stdout

    def boxes(self) -> Markup:
        """The deployments as boxes. Raises NodeError."""
        return deployments(self.node.status().deployments)

    # display ----------------------------------------------------------------------------------

    def twin_parts(self) -> Sequence[Markup | Table]:
        try:
            return [self.boxes(), code(self.timers())]
        except RfeError as error:
            return [note(error.message)]

    def build(self) -> Sequence[Any]:
        self._boxes = region("deployments", "… connecting")
        self._timers = region("timers")
        self._containers = region("containers")
        buttons = [
            self.button("Look", self._look, "query the state of the system"),
            self.button(
                "Update", self._update, "download and stage what the remote offers", "primary"
            ),
            self.button("Reboot", self._reboot, "into the first deployment"),
            self.button("Roll back", self._roll_back, "make the other deployment boot next"),
        ]
        pages = [scrolling(self._timers), scrolling(self._containers)]
        more = widgets.Accordion(pages, titles=["Timers", "Containers"])
        return [widgets.HBox(buttons, layout=ROW), self._boxes, more]

    def refresh(self) -> None:
        try:
            status = self.node.status()
        except RfeError as error:
            self._boxes.value = shown(note(f"○ {error.message}"))
            self.now_shows(error.message)
            raise
        self._boxes.value = shown(deployments(status.deployments))
        self.now_shows(status)

    # buttons ----------------------------------------------------------------------------------

    def _teach(self, python: str, command: str, names: str = "Lab, Node") -> None:
        self.teach(lines.node(self.node, python, names), f"{self.node.ssh_line} {command}")

    def _look(self) -> None:
        self._teach("edge.status()", "rpm-ostree status")

        def job(on_progress: Say) -> str:
            self._timers.value = code(self.timers()).html
            self._containers.value = code(self.containers()).html
            return "as it is now"

        self.work("Querying", job)

    def _update(self) -> None:
        self._teach("print(edge.upgrade())", "sudo rpm-ostree upgrade")

        def job(on_progress: Say) -> str:
            return self.node.upgrade().strip().rpartition("\n")[2]

        self.work("Downloading and staging", job)

    def _reboot(self) -> None:
        line = f"edge.reboot(Deadline({REBOOT_SECONDS}))"
        self._teach(line, "sudo systemctl reboot", "Deadline, Lab, Node")

        def job(on_progress: Say) -> str:
            self.node.reboot(Deadline(REBOOT_SECONDS), on_progress)
            return "it is up again"

        self.work("Rebooting", job)

    def _roll_back(self) -> None:
        self._teach("print(edge.rollback())", "sudo rpm-ostree rollback")

        def job(on_progress: Say) -> str:
            self.node.rollback()
            return "the other deployment boots next: press Reboot"

        self.work("Rolling back", job)
