"""The lines below the panels, run as they stand: in a fresh interpreter and in a shell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import sandbox_service
from support.lessons import python_of, run_python, run_shell, shells_of
from support.panels import field, press, text
from support.sandbox_service import Running

from rfe_helpers.build import connect
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.build.client import Client
from rfe_helpers.core import journal, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.node import Node
from rfe_helpers.workbook.ui import BlueprintEditor, ComposePanel, NodePanel, lines
from rfe_helpers.workbook.ui.parts import Panel

HASH = "$6$abcdefgh$" + "x" * 86


@pytest.fixture
def client(lab: Lab, service: Running, client: Client) -> Iterator[Client]:
    """The client of a lab whose Image Builder is the service in this process."""
    lab.socket("image-builder.sock").symlink_to(service.socket)
    process = run.ProcessId.of(os.getpid())
    assert process is not None
    lab.add_process("image-builder", process)
    yield connect(lab)
    lab.remove_process("image-builder")


def shown(panel: Panel) -> Panel:
    panel.every = 3600
    assert panel.box.children
    panel.wait(60)
    return panel


def test_the_lines_of_the_editor(lab: Lab, client: Client, tmp_path: Path):
    editor = BlueprintEditor(lab, client, "edge")
    shown(editor)
    key = 'ssh-ed25519 AAAA "me" \\ ü'
    editor.change(customizations={"hostname": "station-9", "user": [{"name": "a", "key": key}]})
    editor.refresh()
    editor.wait(60)
    draft = editor.candidate
    python = [python_of(editor)]
    for number, line in enumerate(shells_of(editor), 1):
        run_shell(line, tmp_path)
        assert client.blueprint("edge").customizations == draft.customizations
        assert "version 0.0.2 saved" in client.changes("edge")[0].message
        assert len(client.changes("edge")) == 1 + number

    field(editor, "search packages: python3-*").value = "vim*"
    python.append(python_of(editor))
    for line in shells_of(editor):
        assert "vim-tiny" in run_shell(line, tmp_path)

    editor.refresh()
    field(editor, "History").value = client.changes("edge")[-1].commit
    press(editor, "Undo to this")
    python.append(python_of(editor))
    for line in shells_of(editor):
        client.push(Blueprint("edge", version="0.0.9"))
        run_shell(line, tmp_path)
        assert [spec.name for spec in client.blueprint("edge").packages] == ["tmux"]

    press(editor, "Discard draft")
    editor.change(description="a draft")
    (line,) = shells_of(editor)
    run_shell(line, tmp_path)
    assert not client.has_draft("edge")

    before = len(client.changes("edge"))
    draft_again = "client.push_to_workspace('name = \"edge\"')"
    run_python([*python, lines.client(lab, draft_again), python_of(editor)])
    undone, pushed, *_ = client.changes("edge")
    assert len(client.changes("edge")) == before + 2
    assert "version 0.0.2 saved" in pushed.message
    assert "reverted" in undone.message
    assert not client.has_draft("edge")


def test_a_hash_is_not_in_the_lines(lab: Lab, client: Client, tmp_path: Path):
    editor = BlueprintEditor(lab, client, "edge")
    shown(editor)
    users = [{"name": "a", "password": HASH}]
    for way in ("python", "shell"):
        editor.change(customizations={"user": users})
        editor.refresh()
        assert HASH not in text(editor, "lesson")
        if way == "python":
            run_python([python_of(editor)])
        else:
            run_shell(shells_of(editor)[0], tmp_path)
        assert client.blueprint("edge").customizations == {"user": users}
        assert not client.has_draft("edge")
    editor.change(customizations={"user": users})
    assert HASH not in repr(BlueprintEditor(lab, client, "edge")).partition("Python:")[2]


def test_the_lines_of_the_compose_panel(lab: Lab, client: Client, service: Running, tmp_path: Path):
    panel = ComposePanel(lab, client, "edge")
    shown(panel)
    field(panel, "Ref").value = "it's/mine"
    press(panel, "Start")
    assert len(client.composes()) == 0, "such a ref is refused"
    field(panel, "Ref").value = "mine/edge"
    with sandbox_service.web_server({"/refs/heads/mine/edge": b"a" * 64}) as url:
        field(panel, "URL").value = url
        press(panel, "Start")
        start, shells = python_of(panel), shells_of(panel)
        for line in shells:
            run_shell(line, tmp_path)
        run_python([start])
    service.builder.open()
    composes = [c.id for c in client.composes()]
    assert len(composes) == 4
    for compose in composes:
        client.wait(compose, Deadline(60))
    assert [(r.ref, r.parent) for r in service.builder.requests] == [("mine/edge", "a" * 64)] * 4

    panel.refresh()
    press(panel, "Download")
    (path,) = lab.folder("composes").iterdir()
    python = python_of(panel)
    for line in shells_of(panel):
        path.unlink()
        run_shell(line, tmp_path)
        assert path.read_bytes() == sandbox_service.ARTIFACT
    path.unlink()
    run_python([python])
    assert path.read_bytes() == sandbox_service.ARTIFACT

    press(panel, "Delete")
    (deleted,) = {*composes} - {compose.id for compose in client.composes()}
    python, shells = python_of(panel), shells_of(panel)
    for line in shells:
        run_shell(line.replace(deleted, client.composes()[0].id), tmp_path)
    assert len(client.composes()) == 1
    run_python([python.replace(deleted, client.composes()[0].id)])
    assert client.composes() == ()


def test_the_lines_of_a_system(lab: Lab, ssh: Path, sshd: int, tmp_path: Path):
    panel = NodePanel(Node(lab, "edge-1", port=sshd))
    shown(panel)
    python = []
    for button in ("Look", "Update", "Reboot", "Roll back"):
        press(panel, button)
        python.append(python_of(panel))
        (shell,) = shells_of(panel)
        ssh.write_text("")
        run_shell(shell, tmp_path)
        assert ssh.read_text().split() == [shell.split()[-1]]
    ssh.write_text("")
    assert "Staged deployment" in run_python(python)
    for command in ("rpm-ostree upgrade", "systemctl reboot", "rpm-ostree rollback"):
        assert command in ssh.read_text()


@pytest.mark.parametrize("content", ['a = "b"\n', 'a = """\nb"""\n', "a = '\\\\'", "END\n", "é"])
def test_texts_survive_python_and_the_shell(content: str, tmp_path: Path):
    assert eval(lines.literal(content)).strip() == content.strip()
    run_shell(lines.file("a file.toml", content), tmp_path)
    assert (tmp_path / "a file.toml").read_text().strip() == content.strip()


def test_the_usual_lab_and_socket_need_no_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    lab = Lab()
    journal.open_journal(None)
    assert lines.opened(lab) == "Lab('~/rfe-lab')"
    local = Path("/run/weldr/api.socket")
    assert lines.composer(local, "compose", "list") == "composer-cli compose list"
