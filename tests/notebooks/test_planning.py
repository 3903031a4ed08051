"""Notebooks 90 and 105 need no machine: they run here whole."""

import json

import pytest

from rfe_helpers.commit import oci
from rfe_helpers.fleet import layers
from rfe_helpers.serve import registry
from rfe_helpers.workbook.headless import find_notebooks, run_notebooks

pytestmark = pytest.mark.timeout(300)
SMALL = {"devices": "20000", "mirror_requests": "100"}
SMALL_REGISTRY = {"fleet_size": "20000", "registry_requests": "100", "registry_mbit": "200"}


def test_planning_passes_without_anything_made_before(lab):
    summary = run_notebooks(find_notebooks(["90"]), lab, SMALL)
    assert summary.status == "passed", summary.notebooks[0].failure
    executed = summary.notebooks[0].executed.read_text()
    assert executed.count("data:image/png;base64,") == 5
    assert "as recorded for" in executed
    assert "✔ all devices are ready when the window opens" in executed
    assert summary.seconds < 120


@pytest.mark.parametrize(
    ("change", "promise", "remedy"),
    [
        ({"splay": "1h"}, "the mirror can bear it", "smallest splay: 2h"),
        ({"splay": "1d"}, "all devices are ready when the window opens", "a shorter splay"),
    ],
)
def test_a_plan_that_does_not_hold_ends_with_what_to_change(lab, change, promise, remedy):
    summary = run_notebooks(find_notebooks(["90"]), lab, SMALL | change)
    assert summary.status == "failed"
    failure = json.loads((summary.directory / "summary.json").read_text())["notebooks"][0][
        "failure"
    ]
    assert failure["error"] == "CheckFailedError"
    assert f"this does not hold: {promise}" in failure["message"]
    assert remedy in failure["remedy"]


def test_layers_for_a_fleet_passes_without_a_registry(lab):
    summary = run_notebooks(find_notebooks(["105"]), lab, SMALL_REGISTRY, solve=True)
    assert summary.status == "passed", summary.notebooks[0].failure
    executed = summary.notebooks[0].executed.read_text()
    assert executed.count("data:image/png;base64,") == 3
    assert layers.RECORDED.source in executed
    assert "✔ no device waits for the registry in vain" in executed
    assert lab.step("layers")["source"] == layers.RECORDED.source
    assert summary.seconds < 120


def test_layers_for_a_fleet_measures_what_the_lab_has(lab, tmp_path):
    running = registry.start(lab)
    parts = [
        oci.write_layer(tmp_path / name, lambda tar, name=name: oci.add_file(tar, name, b"x" * 999))
        for name in ("base", "first", "second")
    ]
    for tag, image in (("1", parts[:2]), ("2", parts[::2])):
        oci.write_archive(tmp_path / "image.tar", image, {}, created_by="a test")
        running.push(tmp_path / "image.tar", f"{layers.REPOSITORY}:{tag}")
    summary = run_notebooks(find_notebooks(["105"]), lab, SMALL_REGISTRY)
    registry.stop(lab)
    assert summary.status == "passed", summary.notebooks[0].failure
    executed = summary.notebooks[0].executed.read_text()
    assert "as measured now, from edge/os:1 to edge/os:2" in executed
    assert "skopeo copy" in executed  # what was run
    assert lab.step("layers")["requests"] == 4


def test_a_base_that_is_one_layer_ends_with_what_to_change(lab):
    summary = run_notebooks(find_notebooks(["105"]), lab, SMALL_REGISTRY | {"base_layers": "2"})
    assert summary.status == "failed"
    failure = summary.notebooks[0].failure
    assert failure.error == "CheckFailedError"
    assert "set base_layers to more than four" in failure.remedy
