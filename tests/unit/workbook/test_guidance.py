import base64
import json
import os
import platform
import time
import xml.etree.ElementTree as ET

import pytest

from rfe_helpers.core import journal
from rfe_helpers.errors import StepMissingError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import guidance, speed
from rfe_helpers.workbook.notebooks import all_notebooks


def be_slow(tmp_path, factor: float) -> None:
    """A recorded benchmark of a machine that is `factor` times as slow as the one of reference."""
    record = tmp_path / "cache" / "speed.json"
    record.parent.mkdir(exist_ok=True)
    machine = [platform.node(), os.cpu_count()]
    seconds = factor * speed.REFERENCE_SECONDS
    record.write_text(
        json.dumps({"machine": machine, "seconds": seconds, "until": time.time() + 99})
    )


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RFE_ACCEL", "tcg")
    be_slow(tmp_path, 1)
    yield Lab(tmp_path / "lab")
    journal.open_journal(None)


def svg_of(drawing) -> ET.Element:
    """The picture, which has the whole text as its alternative."""
    picture = ET.fromstring(drawing.html.replace(">", "/>"))
    assert picture.get("alt") == drawing.text
    return ET.fromstring(base64.b64decode(picture.attrib["src"].partition(",")[2]))


def texts(drawing) -> list[str]:
    root = svg_of(drawing)
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_new_lab_begins_with_image_builder(lab):
    drawing = guidance.life_cycle(lab)
    assert repr(drawing).startswith("Image Builder ● (about 5 s) → commit ○ (about 2 min, 4.3 GB)")
    assert texts(drawing).count("○ to do") == 5


def test_a_finished_step_shows_its_result(lab):
    lab.record("image-builder", backend="osbuild-composer")
    lab.record("commit", commit="0123456789abcdef" * 4)
    lab.record("inspect", packages=226)
    lab.record("serve", url="http://127.0.0.1:8001/")
    lab.record("install", machine="edge-1")
    drawing = guidance.life_cycle(lab)
    words = texts(drawing)
    for text in ("0123456789abcdef", "226 packages", "port 8001", "edge-1", "● next"):
        assert text in words
    assert words.count("✔ done") == 5
    assert "update, roll back ●" in repr(drawing)


def test_boxes_lie_within_the_picture_and_their_words_fit(lab):
    root = svg_of(guidance.life_cycle(lab))
    width = int(root.attrib["width"])
    boxes = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if "class" in e.attrib]
    right = [int(box.attrib["x"]) + int(box.attrib["width"]) for box in boxes]
    assert max(right) < width
    # The monospaced line is the widest, with 6.7 pixels per letter at 11 pixels.
    longest = max(len(text) for text in texts(guidance.life_cycle(lab)))
    assert longest * 6.7 < 146 - 10


@pytest.mark.parametrize(("accelerator", "minutes"), [("kvm", (1, 5)), ("tcg", (5, 10))])
def test_a_machine_takes_longer_without_kvm_and_without_a_boot_iso(
    lab, tmp_path, monkeypatch, accelerator, minutes
):
    monkeypatch.setenv("RFE_ACCEL", accelerator)
    without, more_bytes = guidance.estimate(lab, "50")
    assert minutes[0] <= without / 60 <= minutes[1]
    iso = tmp_path / "cache" / "boot-1" / "x.iso"
    iso.parent.mkdir(parents=True)
    iso.write_text("x")
    with_iso, fewer_bytes = guidance.estimate(lab, "50")
    assert with_iso < without
    assert fewer_bytes < more_bytes


def test_the_time_of_the_last_run_in_the_lab_is_used(lab):
    for name, seconds in (("2026-01-01", 11.0), ("2026-01-02", 12.0)):
        results = [{"name": "20-build-a-commit", "status": "passed", "seconds": seconds}]
        path = lab.path("runs", name, "summary.json")
        path.write_text(json.dumps({"notebooks": results}))
    (lab.path("runs", "latest")).symlink_to("2026-01-02")
    assert guidance.estimate(lab, "20")[0] == 12.0
    assert ("20-build-a-commit", "about 10 s", "last run") in guidance.times(lab).rows


def test_a_slow_machine_takes_longer(lab, tmp_path):
    before = guidance.estimate(lab, "70")[0]
    be_slow(tmp_path, 3)
    assert guidance.estimate(lab, "70")[0] == pytest.approx(3 * before)


def test_the_time_of_every_notebook_is_shown_and_of_one_in_it(lab, capsys):
    table = guidance.times(lab)
    assert [name for name, _, _ in table.rows] == [path.stem for path in all_notebooks()]
    lab.record("serve")
    guidance.begin(lab, "70")
    expected = "This notebook takes about 15 min on this machine (an estimate).\n"
    assert capsys.readouterr().out == expected


def test_a_notebook_names_the_last_one_that_it_needs_and_that_was_not_run(lab):
    with pytest.raises(StepMissingError, match="notebook 50 has not been run") as caught:
        guidance.begin(lab, "60")
    assert f"`rfe solve 50 --lab {lab.directory}`" in caught.value.remedy


def test_the_speed_of_this_machine_is_measured_once_an_hour(tmp_path, monkeypatch):
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "cache"))
    first = speed.slowness()
    assert first > 0
    assert speed.slowness() == first
    be_slow(tmp_path, 7)
    assert speed.slowness() == pytest.approx(7)
    record = tmp_path / "cache" / "speed.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "until": time.time() - 1}))
    assert speed.slowness() != pytest.approx(7)
    record.write_text("{")
    assert speed.slowness() > 0


def test_a_cache_of_somebody_else_is_only_read(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "cache"))
    assert speed.slowness() > 0


def test_a_real_image_builder_takes_longer(tmp_path, monkeypatch):
    monkeypatch.setenv("RFE_ACCEL", "kvm")
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "cache"))
    be_slow(tmp_path, 1)
    lab = Lab(tmp_path / "lab", "rhel-9.6")
    assert guidance.estimate(lab, "20")[0] > 300
    journal.open_journal(None)
