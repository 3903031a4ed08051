"""The panels under random clicks: whatever is pressed and typed, no error is unforeseen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support import panels
from support.sandbox_service import Running
from support.trees import make_commit_tar, make_tree

from rfe_helpers.build.client import Client
from rfe_helpers.commit.ostree import Package, Repo
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.node import Node
from rfe_helpers.workbook.ui import (
    BlueprintEditor,
    CommitBrowser,
    ComposePanel,
    MachinePanel,
    NodePanel,
)
from rfe_helpers.workbook.ui.parts import Panel

TEXTS = ("", "tmux", "*", "/usr", "a b", "http://[", "ü'\"\\", "=1", "$6$", "<b>", "../x", "-x")
TAGS = (["tmux"], [], ["tmux", "nothing"], ["=1"], ["vim-tiny=9*", "tmux"], ["a b"], ["é/%"])


@dataclass(frozen=True)
class Step:
    """Something that a user does: `widget` and `value` choose among what there is, modulo their
    number. `waits` is whether the user waits for the work that it starts."""

    widget: int
    value: int
    waits: bool


STEPS = st.lists(
    st.builds(Step, st.integers(0, 60), st.integers(0, 20), st.booleans()), min_size=1, max_size=12
)


def take(panel: Panel, step: Step) -> None:
    """Click a button, or change a field, if it is not disabled."""
    usable = [widget for widget in panels.all_widgets(panel) if acting(widget)]
    if not usable:  # all is disabled while it works
        panel.wait(60)
        return
    widget = usable[step.widget % len(usable)]
    if isinstance(widget, widgets.Button):
        widget.click()
    elif isinstance(widget, widgets.TagsInput):
        widget.value = TAGS[step.value % len(TAGS)]
    elif isinstance(widget, widgets.Text):
        widget.value = TEXTS[step.value % len(TEXTS)]
    elif widget.options:
        widget.index = [*range(len(widget.options)), None][step.value % (len(widget.options) + 1)]
    if step.waits:
        panel.wait(60)


def acting(widget: Any) -> bool:
    kinds = (widgets.Button, widgets.TagsInput, widgets.Text, widgets.Dropdown, widgets.Select)
    return isinstance(widget, kinds) and not getattr(widget, "disabled", False)


def click(make: Callable[[], Panel], steps: Sequence[Step]) -> None:
    """Take the steps in a new panel; no message may be about an unforeseen error."""
    panel = make()
    panel.every = 3600
    said: list[str] = []
    assert panel.box.children
    (message,) = [w for w in panels.all_widgets(panel) if "rfe-message" in w._dom_classes]
    said.append(message.value)
    message.observe(lambda change: said.append(change["new"]), "value")
    for step in steps:
        take(panel, step)
    panel.wait(60)
    panel.attempt(panel.refresh)
    panel.wait(60)
    panels.close(panel)
    assert [text for text in said if "unexpected" in text] == []


Make = Callable[[], Panel]


@pytest.fixture
def makers(lab: Lab, service: Running, client: Client, ssh: Path, sshd: int) -> dict[str, Make]:
    """Each panel, in a lab with two commits, an installed machine and an Image Builder."""
    service.builder.open()
    archive = ""
    for name in ("aaaaaaaa", "bbbbbbbb"):
        work = lab.path("work", name, "x").parent
        repo = Repo(work / "repo").init()
        tree = make_tree(work / "tree.tar", {"usr/etc/motd": name, "usr/bin/sh": "-> bash"})
        repo.commit_tar(
            tree, "x", subject="x", version="1", packages=[Package(name, "0", "1", "1", "x86_64")]
        )
        tree.unlink()
        (work / "compose.json").write_text("{}")
        archive = str(make_commit_tar(lab.path("composes", f"{name}-commit.tar"), work))
    # Its disk is missing, so QEMU ends at once.
    lab.record(
        "install",
        machine="m",
        disk=lab.path("machines", "m", "disk.qcow2"),
        ssh_port=22,
        user="core",
        firmware="bios",
        memory_mib=64,
    )
    return {
        "editor": lambda: BlueprintEditor(lab, client, "edge"),
        "new": lambda: BlueprintEditor(lab, client, "new"),
        "composes": lambda: ComposePanel(lab, client, "edge"),
        "commits": lambda: CommitBrowser(lab, archive),
        "missing commit": lambda: CommitBrowser(lab, lab.directory / "nothing.tar"),
        "machine": lambda: MachinePanel(lab, "m"),
        "no machine": lambda: MachinePanel(lab, "other"),
        "system": lambda: NodePanel(Node(lab, "m", port=sshd)),
    }


@pytest.mark.parametrize("examples", [3, pytest.param(100, marks=pytest.mark.full)])
def test_no_click_gives_an_unforeseen_error(makers: dict[str, Make], examples: int):
    # Not shrunk: that takes minutes, and the steps of a failure are few.
    phases = [Phase.explicit, Phase.generate]
    profile = settings(max_examples=examples, deadline=None, derandomize=True, phases=phases)
    for make in makers.values():
        profile(given(st.just(make), STEPS)(click))()
