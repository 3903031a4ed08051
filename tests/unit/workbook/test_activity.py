"""What a lab says of its person to a trainer, also when the person would rather have it say
something else."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import activity
from rfe_helpers.workbook.activity import IDLE_SECONDS, Activity


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path / "lab")


@pytest.fixture
def clock(monkeypatch):
    """Seconds since 1970 that a test sets."""
    now = [1000.0]
    monkeypatch.setattr(activity.time, "time", lambda: now[0])
    return now


def test_a_notebook_is_begun_fails_and_is_done(lab):
    activity.record(lab.directory, "20-build", "running", cell="a")
    seen = activity.of(lab.directory)
    assert (seen.notebook, seen.running, seen.notebooks["20"].status) == ("20", True, "begun")
    activity.record(lab.directory, "20", "failed", cell="a", error="no repository has hotp")
    seen = activity.of(lab.directory)
    assert (seen.running, seen.notebooks["20"].status) == (False, "failing")
    assert seen.notebooks["20"].error == seen.failures[0].error == "no repository has hotp"
    activity.record(lab.directory, "20", "ran", cell="a")
    assert activity.of(lab.directory).notebooks["20"].status == "begun"
    activity.record(lab.directory, "20", "done", cell="z")
    seen = activity.of(lab.directory)
    assert (seen.notebooks["20"].status, seen.notebooks["20"].error) == ("done", "")
    assert len(seen.failures) == 1


def test_numbers_of_three_digits_come_after_those_of_two(lab):
    for name in ("100-a.ipynb", "95-b.ipynb", "10-c.ipynb"):
        activity.record(lab.directory, name, "done")
    assert list(activity.of(lab.directory).notebooks) == ["10", "95", "100"]


def test_pauses_count_as_work_and_a_lunch_does_not(lab, clock):
    for after, event in [(0, "running"), (900, "ran"), (60, "running"), (5, "ran"),
                         (IDLE_SECONDS + 1, "running"), (1, "ran")]:  # fmt: skip
        clock[0] += after
        activity.record(lab.directory, "50", event)
    assert activity.of(lab.directory).notebooks["50"].seconds == pytest.approx(966)


def test_a_recorded_step_is_done_without_a_log(lab):
    lab.record("commit", commit="0" * 64)
    assert activity.of(lab.directory).notebooks["20"].status == "done"
    activity.record(lab.directory, "20", "failed", error="since then")
    assert activity.of(lab.directory).notebooks["20"].status == "failing"


def test_a_hand_goes_up_and_down(lab):
    assert activity.of(lab.directory).hand is None
    activity.raise_hand(lab.directory, "it does not boot")
    assert activity.of(lab.directory).hand == "it does not boot"
    activity.lower_hand(lab.directory)
    activity.lower_hand(lab.directory)
    assert activity.of(lab.directory).hand is None


def test_secrets_are_hidden_and_texts_are_cut(lab):
    hashed = "$6$" + "a" * 40
    activity.record(lab.directory, "20", "failed", error=f"bad {hashed} " + "x" * 5000)
    text = (lab.directory / "logs/activity.jsonl").read_text()
    assert hashed not in text
    assert len(text) < 500


def test_its_log_does_not_grow_for_ever(lab):
    path = lab.directory / "logs/activity.jsonl"
    path.write_text(json.dumps({"at": 1, "notebook": "00", "event": "ran"}) + "\n")
    with path.open("a") as file:
        file.write((json.dumps({"at": 2, "notebook": "10", "event": "ran"}) + "\n") * 25000)
    activity.record(lab.directory, "20", "ran")
    assert path.stat().st_size < 600_000
    assert set(activity.of(lab.directory).notebooks) == {"10", "20"}


@pytest.mark.parametrize("name", ["logs/activity.jsonl", "hand.json", "lab.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "large", "binary", "deep"])
def test_what_is_not_a_plain_file_is_not_read(lab, tmp_path, name, kind):
    path = lab.directory / name
    path.unlink(missing_ok=True)
    other = tmp_path / "other"
    other.write_text('{"at": 1, "notebook": "20", "event": "failed", "words": "stolen"}\n')
    if kind == "link":
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "large":
        path.touch()
        os.truncate(path, 50_000_000_000)
    else:
        path.write_bytes(b"\xff\xfe\x00" * 99 if kind == "binary" else b"[" * 9000)
    seen = activity.of(lab.directory)
    assert (seen.hand, dict(seen.notebooks), seen.failures) == (None, {}, ())


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["at", "notebook", "event", "cell", "error"]),
            st.one_of(
                st.none(), st.floats(), st.integers(), st.text(max_size=20), st.just("20"),
                st.sampled_from(["running", "failed"]), st.lists(st.integers(), max_size=2),
            ),
        ),
        max_size=6,
    )
)  # fmt: skip
def test_any_log_is_read(tmp_path_factory, entries):
    directory = tmp_path_factory.mktemp("lab")
    (directory / "logs").mkdir()
    (directory / "logs/activity.jsonl").write_text("\n".join(map(json.dumps, entries)))
    seen = activity.of(directory)
    assert activity.decode(json.dumps(seen.to_json()).encode()) == seen


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"notebooks": 3}', b"[" * 5000])
def test_what_a_seat_answers_may_be_anything(data):
    assert activity.decode(data) == Activity()


def test_a_directory_that_is_gone_says_nothing(tmp_path):
    assert activity.of(tmp_path / "gone") == Activity()
