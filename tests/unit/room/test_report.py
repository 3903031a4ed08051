"""The report of a room, from what its seats had done."""

import json

from rfe_helpers.room import read_report
from rfe_helpers.workbook.activity import Activity, NotebookActivity, NotebookError


def keep(directory, name, seconds, status="done", errors=()):
    seen = Activity(
        notebooks={"20": NotebookActivity(status=status, seconds=seconds)},
        failures=tuple(NotebookError("20", "a", error, 1.0) for error in errors),
    )
    (directory / f"{name}.json").write_text(json.dumps(seen.to_json()))


def test_times_of_those_who_finished_and_errors_by_people(tmp_path):
    keep(tmp_path, "anna", 100.0, errors=["no hotp", "no hotp"])
    keep(tmp_path, "ben", 300.0, errors=["no hotp", "a | b `c`\nd"])
    keep(tmp_path, "carla", 900.0, status="failing")
    (tmp_path / "dora.json").write_text("not JSON")
    report = read_report(tmp_path)
    (notebook,) = report.notebooks
    assert (report.people, notebook.begun, notebook.done) == (4, 3, 2)
    assert (notebook.median, notebook.longest) == (200.0, 300.0)
    assert report.errors[0] == ("20", "no hotp", 2)
    text = report.markdown()
    assert "| 20 | 3 | 2 | 3:20 | 5:00 |" in text
    assert "| 20 | 1 | `a / b 'c' d` |" in text


def test_a_room_where_nobody_was(tmp_path):
    text = read_report(tmp_path).markdown()
    assert text.startswith("# A room of 0\n")
    assert text.endswith("Nobody did.\n")
