"""The journal: what it keeps, and what must not be in it."""

import threading
import time

import pytest

from rfe_helpers.core import journal, run
from rfe_helpers.core.journal import ApiRequest, Place

ID = "0123456789abcdef" * 4


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "logs" / "commands.jsonl"
    journal.open_journal(path)
    yield path
    journal.open_journal(None)
    journal.set_place(None)


def test_a_command_is_kept_with_its_status_directory_and_variables(path, tmp_path):
    env = {"GNUPGHOME": "/keys", "LETTERS": "not needed again"}
    run.run(["sh", "-c", "exit 3"], check=False, cwd=tmp_path, env=env)
    (entry,) = journal.read(path)
    assert (entry.argv, entry.status) == (("sh", "-c", "exit 3"), 3)
    assert (entry.cwd, entry.env) == (str(tmp_path), {"GNUPGHOME": "/keys"})


def test_what_came_by_stdin_is_not_kept_but_that_it_came(path):
    run.run(["cat"], input="edge-password")
    (entry,) = journal.read(path)
    assert entry.stdin
    assert "edge-password" not in path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        'name = "edge"\n[[customizations.user]]\npassword = "edge-password"',
        '{"name": "edge", "password": "edge-password"}',
        "password: 'edge-password'",
        "rootpw --iscrypted $6$abcdefgh$edge-passwordedge-passwordedge-password",
    ],
)
def test_passwords_and_hashes_are_hidden(path, tmp_path, text):
    journal.write(tmp_path / "file", text)
    journal.record_request(ApiRequest("s", "POST", "/api/v1/blueprints/new", body=text), 1, 0, 200)
    assert (tmp_path / "file").read_text() == text
    assert "edge-password" not in path.read_text()
    assert "hidden" in "".join(path.read_text().splitlines()[:1])


def test_the_id_of_a_commit_is_kept_as_the_value_of_ostree_alone(path):
    journal.record_command(["ostree", "rev-parse", "edge"], 1, 0, 0, output=f"{ID}\n")
    journal.record_command(["podman", "run", "edge"], 2, 0, 0, output=ID)
    journal.record_command(["ostree", "refs"], 3, 0, 0, output="edge\n")
    assert [entry.value for entry in journal.read(path)] == [ID, "", ""]


def test_entries_belong_to_the_section_that_is_current(path):
    journal.set_place(Place("40", 1.0, "Serve"))
    began = time.time()
    run.run(["true"])
    with journal.section("panel"):
        run.run(["false"], check=False)
        with journal.section("inner"):
            run.run(["true"])
        run.run(["false"], check=False)
    thread = threading.Thread(target=lambda: run.run(["true"]))
    thread.start()
    thread.join()
    assert [e.argv for e in journal.since(began, "Serve")] == [("true",), ("true",)]
    assert [e.argv for e in journal.since(began, "panel")] == [("false",), ("false",)]
    assert {entry.place.notebook for entry in journal.read(path)} == {"40"}
    assert journal.since(time.time() + 1, "Serve") == []


def test_lines_that_are_not_entries_are_passed_over(path):
    run.run(["true"])
    with path.open("ab") as file:
        file.write(b'{"at": 1, "argv": "no list"}\nnonsense\n\xff\xfe\n{"at": 2, "ar')
    assert [entry.argv for entry in journal.read(path)] == [("true",)]
    assert journal.read(path.with_name("none")) == []


def test_a_long_body_is_cut(path):
    journal.record_request(ApiRequest("s", "POST", "/api", body="x" * 1_000_000), 1, 0, 200)
    assert path.stat().st_size < 70_000
    assert "cut off here" in journal.read(path)[0].request.body
