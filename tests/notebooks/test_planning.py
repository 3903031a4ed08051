"""Notebook 90 needs no machine: it runs here whole."""

import json

import pytest

from rfe_helpers.workbook.headless import find_notebooks, run_notebooks

pytestmark = pytest.mark.timeout(300)
SMALL = {"devices": "20000", "mirror_requests": "100"}


def test_planning_passes_without_anything_made_before(lab):
    summary = run_notebooks(find_notebooks(["90"]), lab, SMALL)
    assert summary.status == "passed", summary.notebooks[0].failure
    executed = summary.notebooks[0].executed.read_text()
    assert executed.count('"image/png": "') == 5
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
    assert remedy in failure["message"]
