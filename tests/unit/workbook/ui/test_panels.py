"""The panels, with real widgets over a real service whose packages and builds are small."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import sandbox_service
from support.sandbox_service import Running

from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.build.client import Client
from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import LabError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.sandbox.service.packages import Index
from rfe_helpers.workbook.show import Markup
from rfe_helpers.workbook.ui import BlueprintEditor, ComposePanel
from rfe_helpers.workbook.ui import blueprint as blueprint_ui
from rfe_helpers.workbook.ui.parts import VIEW, Panel


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    directory = tmp_path_factory.mktemp("debian")
    sources = sandbox_service.debian_repository(directory / "repository")
    return Index(directory / "cache", sources)


@pytest.fixture
def service(tmp_path, index):
    with sandbox_service.running(tmp_path, index) as service:
        yield service


@pytest.fixture
def client(service: Running) -> Client:
    client = Client(service.socket)
    client.push(Blueprint("edge", version="0.0.1", packages=(PackageSpec("tmux"),)))
    return client


@pytest.fixture
def lab(tmp_path: Path):
    yield Lab(tmp_path / "lab")
    run.set_journal(None)


def said(panel: Panel) -> str:
    return str(panel._message.value)


def press(panel: Panel, text: str) -> None:
    """Click a button, as the front end does."""
    (button,) = [button for button in panel._buttons if button.description == text]
    button.click()
    panel.wait(60)


@pytest.fixture
def editor(lab: Lab, client: Client):
    editor = BlueprintEditor(lab, client, "edge")
    editor.every = 3600
    assert editor.box.children
    editor.wait(60)
    yield editor
    editor.wait(60)


def test_what_a_panel_says_without_widgets(lab, client):
    panel = BlueprintEditor(lab, client, "edge")
    bundle = panel._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert 'name = "tmux"' in bundle["text/plain"]
    assert "composer-cli blueprints push edge.toml" in bundle["text/plain"]
    assert panel._box is None, "a run without a browser makes no widgets"


def test_the_editor_shows_the_blueprint_and_what_it_brings_in(editor):
    assert editor._tags.value == ["tmux"]
    assert "<b>3 packages</b>" in editor._brought.value
    assert "libevent" in editor._brought.value


def test_a_found_package_can_be_added_pushed_and_undone(editor, client):
    editor._search.value = "vim"
    press(editor, "Search")
    assert "compact version" in editor._found.children[0].children[1].value
    press(editor, "+")
    assert [spec.name for spec in editor.draft.packages] == ["tmux", "vim-tiny"]
    assert "vim-tiny" in editor._toml.value
    assert len(client.changes("edge")) == 1, "a draft is not pushed"
    press(editor, "Push")
    assert "edge is at version 0.0.2" in said(editor)
    assert len(editor._choice.options) == 2
    editor._choice.value = editor._choice.options[1][1]
    assert "+name = &quot;vim-tiny&quot;" in editor._compared.value
    press(editor, "Undo to this")
    assert [spec.name for spec in client.blueprint("edge").packages] == ["tmux"]
    assert editor._tags.value == ["tmux"]


def test_the_form_changes_customizations_and_keeps_the_others(editor, client):
    client.push_to_workspace(
        Blueprint("edge", version="0.0.1", customizations={"fips": True, "hostname": "a"})
    )
    editor.refresh()
    by_label = {field.label: text for field, text in editor._fields.items()}
    assert by_label["Host name"].value == "a"
    by_label["Host name"].value = ""
    by_label["Services on"].value = "sshd.service chronyd.service"
    assert "✔ nothing is known to go wrong" in editor._remarks.value
    by_label["User"].value = "core"
    assert "! customizations.user" in editor._remarks.value
    assert editor.draft.customizations == {
        "fips": True,
        "services": {"enabled": ["sshd.service", "chronyd.service"]},
        "user": [{"name": "core"}],
    }
    press(editor, "Discard draft")
    assert client.blueprint("edge").customizations == {}
    assert by_label["User"].value == ""


def test_a_second_window_sees_the_same_draft(editor, lab, client):
    other = BlueprintEditor(lab, client, "edge")
    other.change(packages=())
    editor.refresh()
    assert editor._tags.value == []
    assert other.twin().text.count("tmux") == 0


def test_a_package_that_is_not_there_is_said_in_the_panel(editor):
    editor._tags.value = ["nothing-of-this-name"]
    editor.wait(60)
    assert "✘" in said(editor)
    assert "nothing-of-this-name" in said(editor)
    assert not any(button.disabled for button in editor._buttons)


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
def test_one_customization_is_changed_and_nothing_empty_left(before, path, value, after):
    assert blueprint_ui.changed(before, path, value) == after


@pytest.fixture
def composes(lab: Lab, client: Client):
    panel = ComposePanel(lab, client, "edge")
    panel.every = 3600
    assert panel.box.children
    yield panel
    panel.wait(60)


def test_a_compose_is_started_watched_and_downloaded(composes, client, service, lab):
    assert "debian/13/x86_64/edge (the release" in composes._effective.value
    composes._type.value = "edge-commit"
    composes._url.value = ""
    press(composes, "Start")
    assert "is in the queue" in said(composes)
    assert "start-ostree edge edge-commit" in composes._lesson.value
    service.builder.open()
    client.wait(composes._choice.value, Deadline(60))
    composes.refresh()
    assert "✔ FINISHED" in composes._stage.value
    assert "committed" in composes._log.value
    press(composes, "Download")
    (path,) = lab.path("composes", "").iterdir()
    assert path.read_bytes() == sandbox_service.ARTIFACT
    assert path.name in said(composes)
    assert "✔ FINISHED" in composes.twin().text
    press(composes, "Delete")
    assert client.composes() == ()


def test_a_compose_is_cancelled_and_a_failure_says_why(composes, client, service):
    press(composes, "Start")
    first = composes._choice.value
    press(composes, "Cancel")
    wait_for(lambda: client.compose(first).status == "FAILED", Deadline(60), "it is cancelled")
    service.builder.open("fail")
    press(composes, "Start")
    second = composes._choice.value
    assert second != first
    wait_for(lambda: client.compose(second).status == "FAILED", Deadline(60), "it fails")
    composes.refresh()
    assert "✘ FAILED" in composes._stage.value
    assert "no package in this tree" in composes._log.value


def test_a_parent_that_the_release_would_refuse_is_not_sent(composes, client):
    composes._parent.value = "a" * 64
    press(composes, "Start")
    assert "to do: give the repository&#x27;s url too" in said(composes)
    assert client.composes() == ()


def test_pressing_a_button_without_a_compose_says_what_to_do(composes):
    press(composes, "Download")
    assert "there is no compose yet<br>to do: start one" in said(composes)


@pytest.mark.parametrize(
    ("ref", "parent", "url", "words"),
    [
        ("", "", "", "ref debian/13/x86_64/edge (the release's own); parent none: a first commit"),
        ("x/y", "", "", "ref x/y; parent none"),
        ("x/y", "", "http://a/repo/", "parent what this ref is at http://a/repo/"),
    ],
)
def test_the_effective_defaults_are_said(lab, client, ref, parent, url, words):
    assert words in ComposePanel(lab, client).defaults(ref, parent, url)


class Failing(Panel):
    title = "Failing"

    def _build(self):
        return [self.button("Known", self.known, ""), self.button("Unknown", self.unknown, "")]

    def refresh(self):
        pass

    def twin_parts(self):
        return [Markup("<p>x</p>", "x")]

    def known(self):
        raise LabError("there is no room <here>", remedy="make some")

    def unknown(self):
        self.work("Trying", lambda progress: {}["nothing"])


def test_errors_are_said_with_their_remedy_and_never_as_a_traceback():
    panel = Failing()
    assert panel.box.children
    press(panel, "Known")
    assert "✘ there is no room &lt;here&gt;<br>to do: make some" in said(panel)
    press(panel, "Unknown")
    assert "unexpected KeyError: &#x27;nothing&#x27; (test_panels.py, line" in said(panel)
    assert "Traceback" not in said(panel)
    assert not any(button.disabled for button in panel._buttons)


def test_somebody_who_can_click_gets_widget_and_twin(monkeypatch):
    monkeypatch.setattr("rfe_helpers.workbook.ui.parts.live_front_end", lambda: True)
    panel = Failing()
    bundle = panel._repr_mimebundle_()
    assert bundle[VIEW]["model_id"] == panel.box.model_id
    assert "<p>x</p>" in bundle["text/html"]
