"""The panels with real widgets, over a real service with small packages and builds."""

from __future__ import annotations

import ast
import html
import os

import ipywidgets as widgets
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from support import panels, sandbox_service
from support.panels import buttons, field, message, press, text

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.build.client import Client
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import ApiError, LabError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.show import Markup
from rfe_helpers.workbook.ui import BlueprintEditor, ComposePanel
from rfe_helpers.workbook.ui.form import changed
from rfe_helpers.workbook.ui.parts import BRING_BACK, VIEW, Panel


@pytest.fixture
def editor(lab: Lab, client: Client):
    editor = BlueprintEditor(lab, client, "edge")
    editor.every = 3600
    assert editor.box.children
    editor.wait(60)
    yield editor
    editor.wait(60)


def packages(editor: BlueprintEditor) -> list[str]:
    """The packages in the list of the editor."""
    return panels.only(editor, widgets.TagsInput).value


def test_a_panel_without_widgets_is_its_twin(lab, client):
    created = []
    widgets.Widget.on_widget_constructed(created.append)
    try:
        bundle = BlueprintEditor(lab, client, "edge")._repr_mimebundle_()
    finally:
        widgets.Widget.on_widget_constructed(None)
    assert set(bundle) == {"text/plain", "text/html"}
    assert 'name = "tmux"' in bundle["text/plain"]
    assert "blueprints push edge.toml" in bundle["text/plain"]
    assert created == [], "a run without a browser creates no widgets"


def test_the_editor_shows_the_blueprint_and_its_dependencies(editor):
    assert packages(editor) == ["tmux"]
    assert "<b>3 packages</b>" in text(editor, "solution")
    assert "libevent" in text(editor, "solution")


def test_a_found_package_can_be_added_pushed_and_undone(editor, client):
    field(editor, "search packages: python3-*").value = "vim"  # as Enter does
    assert "compact version" in text(editor, "result")
    press(editor, "+")
    assert [spec.name for spec in editor.draft.packages] == ["tmux", "vim-tiny"]
    assert "vim-tiny" in text(editor, "toml")
    assert len(client.changes("edge")) == 1, "a draft is not pushed"
    press(editor, "Push")
    assert "edge is at version 0.0.2" in message(editor)
    assert text(editor, "standing") == "✔ composes use this, version 0.0.2"
    history = field(editor, "History")
    assert len(history.options) == 2
    assert "version 0.0.2" in history.options[0][0], "it begins with what was pushed"
    history.value = history.options[1][1]
    assert "+name = &quot;vim-tiny&quot;" in text(editor, "difference")
    press(editor, "Undo to this")
    assert [spec.name for spec in client.blueprint("edge").packages] == ["tmux"]
    assert packages(editor) == ["tmux"]


def test_the_form_changes_customizations_and_keeps_the_others(editor, client):
    kept = [{"path": "/etc/edge"}]
    client.push_to_workspace(
        Blueprint("edge", version="0.0.1", customizations={"directories": kept, "hostname": "a"})
    )
    editor.refresh()
    assert field(editor, "Host name").value == "a"
    field(editor, "Host name").value = ""
    field(editor, "Services on").value = "sshd.service chronyd.service"
    assert "✔ no problems are known" in text(editor, "remarks")
    field(editor, "User").value = "core"
    assert "! customizations.user" in text(editor, "remarks")
    assert editor.draft.customizations == {
        "directories": kept,
        "services": {"enabled": ["sshd.service", "chronyd.service"]},
        "user": [{"name": "core"}],
    }
    press(editor, "Discard draft")
    assert client.blueprint("edge").customizations == {}
    assert field(editor, "User").value == ""


def test_a_second_window_sees_the_same_draft(editor, lab, client):
    other = BlueprintEditor(lab, client, "edge")
    other.change(packages=())
    editor.refresh()
    assert packages(editor) == []
    assert other.twin().text.count("tmux") == 0


def test_a_package_that_does_not_exist_is_red_until_it_is_gone(editor, client):
    tags = panels.only(editor, widgets.TagsInput)
    tags.value = ["tmux", "nothing-of-this-name"]
    editor.wait(60)
    for _ in range(2):
        assert "✘ nothing-of-this-name: no repository has it" in text(editor, "problem")
        assert ":nth-child(2 of .jupyter-widget-tag) { background" in text(editor, "problem")
        assert ":nth-child(1 " not in text(editor, "problem")
        assert "✔" not in text(editor, "remarks")
        editor.refresh()
    press(editor, "Push")
    assert "✘ not pushed: no repository has nothing-of-this-name<br>to do:" in message(editor)
    assert len(client.changes("edge")) == 1
    assert not any(button.disabled for button in buttons(editor))
    tags.value = ["tmux"]
    editor.wait(60)
    assert text(editor, "problem") == ""
    assert "✔ no problems are known" in text(editor, "remarks")
    assert "not pushed" not in message(editor)
    press(editor, "Push")
    assert "✔ pushed: edge is at version 0.0.2" in message(editor)


def test_what_the_sandbox_does_not_compose_is_said_at_once(editor, client):
    field(editor, "Kernel arguments").value = "quiet"
    remark = html.unescape(text(editor, "remarks"))
    refusal = '"customizations.kernel.append" is not supported for image type'
    assert f"✘ the sandbox refuses to compose it: {refusal}" in remark
    editor.wait(60)
    press(editor, "Push")
    assert "✔ pushed: edge is at version 0.0.2<br>✘ but the sandbox refuses" in message(editor)
    with pytest.raises(ApiError) as refused:
        client.start_compose("edge", editor.lab.profile.types.served)
    reason = refused.value.message.partition("osbuild manifest: ")[2]
    assert "kernel.append" in reason
    assert reason in remark
    assert reason in editor.twin().text


def test_pushed_is_not_said_of_a_later_draft(editor):
    field(editor, "Host name").value = "a"
    assert text(editor, "standing").startswith("● a draft")
    press(editor, "Push")
    assert "✔ pushed" in message(editor)
    field(editor, "Host name").value = "b"
    assert message(editor).count("pushed") == 0
    assert text(editor, "standing").startswith("● a draft")
    press(editor, "Discard draft")
    assert text(editor, "standing") == "✔ composes use this, version 0.0.2"
    press(editor, "Push")
    assert "✔ nothing to push" in message(editor)


def test_the_history_names_the_versions_that_composes_have(editor, client):
    client.push(Blueprint("edge", version="0.0.1"))  # stored as 0.0.2, but the history says 0.0.1
    editor.refresh()
    for version in ("0.0.3", "0.0.4"):
        editor.change(description=version)
        press(editor, "Push")
        assert f"version {version} saved" in field(editor, "History").options[0][0]
        assert client.blueprint("edge").version == version
    client.push_to_workspace(Blueprint("edge", version="2.0.0"))
    press(editor, "Push")
    assert client.blueprint("edge").version == "2.0.0", "a version of one's own is kept"


def test_what_the_server_refuses_is_not_left_in_a_field(editor):
    tags = panels.only(editor, widgets.TagsInput)
    tags.value = ["tmux", "=1.0"]
    assert "All package entries need to contain the name" in message(editor)
    assert packages(editor) == ["tmux"]


def test_an_error_of_a_refresh_goes_when_the_service_is_back(lab, client, service):
    editor = BlueprintEditor(lab, client, "edge")
    editor.every = 0.02
    assert editor.box.children
    editor.wait(60)
    away = service.socket.with_name("away")
    service.socket.rename(away)
    wait_for(
        lambda: "✘ there is no Image Builder" in message(editor),
        Deadline(20),
        "it is said",
        every=0.02,
    )
    away.rename(service.socket)
    wait_for(lambda: "✘" not in message(editor), Deadline(20), "it goes", every=0.02)
    panels.close(editor)


@pytest.mark.parametrize(
    ("before", "path", "value", "after"),
    [
        ({}, ("hostname",), "x", {"hostname": "x"}),
        ({"hostname": "x"}, ("hostname",), "", {}),
        (
            {"timezone": {"timezone": "UTC", "ntpservers": ["a"]}},
            ("timezone", "timezone"),
            "",
            {"timezone": {"ntpservers": ["a"]}},
        ),
        (
            {"user": [{"name": "a"}, {"name": "b"}]},
            ("user", 0, "key"),
            "k",
            {"user": [{"name": "a", "key": "k"}, {"name": "b"}]},
        ),
        ({"user": [{"name": "a"}]}, ("user", 0, "name"), "", {}),
    ],
)
def test_one_customization_is_changed_and_no_empty_one_left(before, path, value, after):
    assert changed(before, path, value) == after


@pytest.fixture
def composes(lab: Lab, client: Client):
    panel = ComposePanel(lab, client, "edge")
    panel.every = 3600
    assert panel.box.children
    yield panel
    panel.wait(60)


def test_a_compose_is_started_watched_and_downloaded(composes, client, service, lab):
    assert "debian/13/x86_64/edge (the release" in text(composes, "defaults")
    field(composes, "Type").value = "edge-commit"
    field(composes, "URL").value = ""
    press(composes, "Start")
    assert "of edge 0.0.1 is accepted" in message(composes)
    assert "start-ostree edge edge-commit" in text(composes, "lesson")
    service.builder.open()
    client.wait(field(composes, "Compose").value, Deadline(60))
    composes.refresh()
    assert "✔ FINISHED" in text(composes, "stage")
    assert "committed" in text(composes, "log")
    assert f">{len(sandbox_service.ARTIFACT)} B</td>" in text(composes, "composes")
    press(composes, "Download")
    (path,) = lab.path("composes", "").iterdir()
    assert path.read_bytes() == sandbox_service.ARTIFACT
    assert path.name in message(composes)
    assert "✔ FINISHED" in composes.twin().text
    press(composes, "Delete")
    assert client.composes() == ()


def test_a_compose_is_cancelled_and_a_failure_says_why(composes, client, service):
    press(composes, "Start")
    first = field(composes, "Compose").value
    press(composes, "Cancel")
    wait_for(lambda: client.compose(first).status == "FAILED", Deadline(60), "it is cancelled")
    service.builder.open("fail")
    press(composes, "Start")
    second = field(composes, "Compose").value
    assert second != first
    wait_for(lambda: client.compose(second).status == "FAILED", Deadline(60), "it fails")
    composes.refresh()
    assert "✘ FAILED" in text(composes, "stage")
    assert "no package in this tree" in text(composes, "log")


def test_a_draft_that_a_compose_does_not_use_is_named(composes, editor, client):
    assert text(composes, "warning") == ""
    field(editor, "Host name").value = "a"
    composes.refresh()
    assert "edge has a draft: Start builds the version that was" in text(composes, "warning")
    assert "edge has a draft" in composes.twin().text
    press(composes, "Start")
    assert "of edge 0.0.1 is accepted" in message(composes)
    press(editor, "Push")
    composes.refresh()
    assert text(composes, "warning") == ""
    press(composes, "Start")
    assert "of edge 0.0.2 is accepted" in message(composes)


def test_a_parent_that_the_release_would_refuse_is_not_sent(composes, client):
    field(composes, "Parent").value = "a" * 64
    press(composes, "Start")
    assert "to do: give the repository&#x27;s url too" in message(composes)
    assert client.composes() == ()


def test_pressing_a_button_without_a_compose_says_what_to_do(composes):
    press(composes, "Download")
    assert "there is no compose yet<br>to do: start one" in message(composes)


@pytest.mark.parametrize(
    ("ref", "parent", "url", "words"),
    [
        ("", "", "", "ref debian/13/x86_64/edge (the release's own); parent none: a first commit"),
        ("x/y", "", "", "ref x/y; parent none"),
        ("x/y", "", "http://a/repo/", "parent the commit of this ref at http://a/repo/"),
    ],
)
def test_the_defaults_of_empty_fields_are_shown(lab, client, ref, parent, url, words):
    assert words in ComposePanel(lab, client).defaults(ref, parent, url)


class Failing(Panel):
    title = "Failing"

    def build(self):
        return [self.button("Known", self.known, ""), self.button("Unknown", self.unknown, "")]

    def refresh(self):
        pass

    def twin_parts(self):
        return [Markup("<p>x</p>", "x")]

    def known(self):
        raise LabError("there is no room <here>", remedy="make some")

    def unknown(self):
        self.work("Trying", lambda progress: {}["nothing"])


def test_errors_are_shown_with_their_remedy_and_never_as_a_traceback():
    panel = Failing()
    assert panel.box.children
    press(panel, "Known")
    assert "✘ there is no room &lt;here&gt;<br>to do: make some" in message(panel)
    press(panel, "Unknown")
    assert "unexpected KeyError: &#x27;nothing&#x27; (test_panels.py, line" in message(panel)
    assert "Traceback" not in message(panel)
    assert not any(button.disabled for button in buttons(panel))


def in_a_kernel(lab: Lab, **variables: str) -> tuple[dict, str]:
    """What a Jupyter kernel displays for a panel, and the id of the panel's widget."""
    source = f"""\
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.ui import MachinePanel
panel = MachinePanel(Lab({str(lab.directory)!r}), "edge-1")
panel"""
    cells = [new_code_cell(source), new_code_cell("panel.box.model_id")]
    client = NotebookClient(new_notebook(cells=cells), kernel_name="python3", timeout=60)
    environment = {k: v for k, v in os.environ.items() if k != "JPY_SESSION_NAME"}
    shown, identity = client.execute(env={**environment, **variables}).cells
    return shown.outputs[0].data, ast.literal_eval(identity.outputs[0].data["text/plain"])


@pytest.mark.parametrize("variable", ["RFE_WIDGETS", "JPY_SESSION_NAME"])
def test_a_user_who_can_click_gets_widget_and_twin(lab, variable):
    data, identity = in_a_kernel(lab, **{variable: "1"})
    assert data[VIEW]["model_id"] == identity
    assert "○ off" in data["text/html"]
    # What is saved, and shown where the widget is not there any more.
    assert BRING_BACK in data["text/html"]


def test_a_kernel_that_nobody_watches_shows_the_twin_only(lab):
    data, _ = in_a_kernel(lab)
    assert set(data) == {"text/plain", "text/html"}
    assert "○ off" in data["text/html"]
    assert BRING_BACK not in "".join(data.values())
