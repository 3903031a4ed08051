"""What was run: below cells, and as a script that runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from rfe_helpers.core import journal, run
from rfe_helpers.core.journal import ApiRequest, Place, Record
from rfe_helpers.workbook import commands
from rfe_helpers.workbook.commands import Script, Variable, below, last_runs, steps

ID = "0f3a1b7c-1111-2222-3333-444455556666"
COMMIT = "0123456789abcdef" * 4
STATUS = ApiRequest("/lab/s.sock", "GET", f"/api/v1/compose/status/{ID}")


def command(*argv, at=1.0, status=0, **more):
    return Record(at, 0.0, status, argv=argv, **more)


def test_questions_for_a_version_are_left_out():
    assert steps([command("qemu-img", "--version"), command("qemu-img", "create", "-V")]) == [
        commands.ShownRecord(command("qemu-img", "create", "-V"))
    ]


def test_what_waits_is_shown_once_and_what_acts_every_time():
    log = ApiRequest("/lab/s.sock", "GET", f"/api/v1/compose/log/{ID}")
    waiting = [Record(1.0, request=each, status=200) for each in (STATUS, log) * 4]
    failing = [command("ssh", "core@localhost", "true", status=255)] * 3
    acting = [command("systemctl", "reboot")] * 2
    counts = [step.times for step in steps([*waiting, *failing, *acting])]
    assert counts == [4, 4, 3, 1, 1]


def test_the_list_below_a_cell_can_be_pasted(tmp_path):
    target = tmp_path / "a b.txt"
    shown = below([command("sh", "-c", f'echo "it\'s" > "{target}"')])
    subprocess.run(["bash", "-c", shown.text.partition("\n")[2]], check=True)
    assert target.read_text() == "it's\n"
    assert shown.html.startswith("<details")
    assert "<pre" in shown.html


def test_it_escapes_what_a_page_would_obey():
    assert "<script>" not in below([command("echo", "<script>alert(1)</script>")]).html


def test_a_request_is_shown_as_composer_cli_and_as_curl():
    text = below([Record(1.0, 2.0, 200, request=STATUS)]).text
    assert f"# 2.0 s: composer-cli compose status {ID}\ncurl --silent" in text


def test_image_builder_is_named_beside_composer_cli_where_a_release_has_it():
    types = ApiRequest("/run/weldr/api.socket", "GET", "/api/v1/compose/types?distro=rhel-9.7")
    text = below([Record(1.0, 2.0, 200, request=types)], "rhel-9.7").text
    assert (
        "# 2.0 s: composer-cli compose types\n"
        "# without the service: image-builder list --filter distro:rhel-9.7\ncurl" in text
    )
    assert "image-builder" not in below([Record(1.0, 2.0, 200, request=types)]).text


def test_a_command_on_a_device_is_named_without_the_options_of_ssh():
    entry = command("ssh", "-F", "none", "-p", "2222", "core@127.0.0.1", "rpm-ostree status")
    assert "# on 127.0.0.1, rpm-ostree status\nssh -F none" in below([entry]).text


def test_no_text_becomes_a_command(tmp_path):
    name = Record(1.0, request=ApiRequest("s", "GET", "/api/v1/blueprints/info/a%0Atouch%20x"))
    file = Record(2.0, file="file", text="one\nEOF\ntouch y\n")
    on_device = command("ssh", "core@localhost", "true\ntouch z", status=255)
    script = Script([Variable("LAB", "/lab", "$PWD/lab")]).text([file, name, on_device])
    for text in (script, below([file, name, on_device]).text.partition("\n")[2]):
        subprocess.run(["bash", "-c", text], cwd=tmp_path, capture_output=True)
        assert (tmp_path / "file").read_text() == "one\nEOF\ntouch y\n"
        assert not any((tmp_path / name).exists() for name in "xyz")


def test_what_was_ended_is_told_from_what_keeps_running():
    ended = Record(1.0, 30.1, None, argv=("ssh", "x"))
    started = Record(2.0, 0.0, None, argv=("nginx",))
    lines = below([ended, started]).text.splitlines()[1:]
    assert lines == ["# 30.1 s, ended by force", "ssh x", "# keeps running", "nginx &"]
    assert "ssh x || true\n" in Script([]).text([ended])


def test_nothing_run_is_nothing_shown():
    assert below([command("podman", "--version")]).text == ""


def test_the_last_run_of_each_notebook_is_taken():
    places = [Place("20", 1.0), Place("20", 5.0), Place("30", 2.0), None]
    entries = [command("true", at=i, place=place) for i, place in enumerate(places)]
    assert [e.at for e in last_runs(entries)] == [1, 2]
    assert [e.at for e in last_runs(entries, ["20"])] == [1]
    assert last_runs(entries, ["40"]) == []


def run_script(script, directory, **variables):
    result = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_script_works_in_another_directory_and_asks_for_ids_again(tmp_path):
    lab = Variable("LAB", "/home/anna/my lab", "$PWD/lab")
    entries = [
        Record(1.0, shell="echo 'fresh'", value=COMMIT),
        command("cp", "/etc/hostname", "/home/anna/my lab/www/name"),
        Record(2.0, file="/home/anna/my lab/edge.ks", text=f"$1 `x` \\ {COMMIT}\nport 8000\n"),
        command("false", status=1),
        command("sh", "-c", f"echo {COMMIT} it\\'s > '/home/anna/my lab/out'"),
        command("cat", stdin=True),
        command(sys.executable, "-m", "rfe_helpers.sandbox", status=None),
    ]
    text = Script([lab, Variable("PORT", "8000", "8000")]).text(entries)
    run_script(text, tmp_path, PORT="8081")
    assert (tmp_path / "lab/edge.ks").read_text() == "$1 `x` \\ fresh\nport 8081\n"
    assert (tmp_path / "lab/www/name").is_file()
    assert (tmp_path / "lab/out").read_text() == "fresh it's\n"


@pytest.mark.parametrize("place", ["/var/tmp", "/dev/shm"])
def test_a_script_has_a_temporary_directory_of_its_own(place, tmp_path, monkeypatch):
    monkeypatch.delenv("TMPDIR", raising=False)
    entries = [
        Record(1.0, shell=f"mkdir -p {place}/rfe-commit-1-x/refs"),
        Record(2.0, shell=f'ls {place}/rfe-commit-1-x; echo "$SCRATCH"'),
    ]
    text = Script([Variable("LAB", "/lab", "$PWD/lab")]).text(entries)
    listed, scratch = run_script(text, tmp_path).split()
    assert listed == "refs"
    assert not Path(scratch).exists(), "it is removed at the end"


def test_a_script_says_which_section_a_command_is_from():
    entry = command("true", place=Place("40", 1.0, "Run the container"))
    assert "\n# 40: Run the container\ntrue\n" in Script([]).text([entry])


@pytest.fixture
def shell(monkeypatch):
    shell = InteractiveShell()
    shell.kernel = object()
    shown = []
    monkeypatch.setattr(commands, "display", shown.append)
    monkeypatch.setattr(commands, "get_ipython", lambda: shell)
    monkeypatch.setattr(commands, "in_notebook", lambda: True)
    shell.user_ns["run"] = run.run
    yield shell, shown
    journal.set_place(None)


def test_each_cell_shows_what_it_has_run_and_only_that(shell):
    ipython, shown = shell
    ipython.user_ns["watch"] = commands.watch
    ipython.run_cell("watch('40'); run(['echo', 'first'])")
    ipython.run_cell("1 + 1")
    ipython.run_cell("run(['echo', 'second']); 1 / 0")
    ipython.run_cell("watch('40'); watch('40'); run(['echo', 'third'])")
    texts = [each.text.splitlines()[-1] for each in shown]
    assert texts == ["echo first", "echo second", "echo third"]


def test_a_cell_has_the_heading_above_it(shell, tmp_path):
    ipython, _ = shell
    journal.open_journal(tmp_path / "commands.jsonl")
    source = next(
        text for text, title in commands.sections("40").items() if title == "Run the container"
    )
    commands.watch("40")
    for callback in ipython.events.callbacks["pre_run_cell"]:
        if type(callback.__self__).__name__ == "_Watcher":
            callback(type("Info", (), {"raw_cell": source})())
    run.run(["true"])
    journal.open_journal(None)
    (entry,) = journal.read(tmp_path / "commands.jsonl")
    assert (entry.place.notebook, entry.place.section) == ("40", "Run the container")
