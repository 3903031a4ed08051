"""Which matrix a command continues, and what matrix.json has."""

import json

from rfe_helpers.workbook.matrix import state

AXES = ("packages=tmux,jq", "image_type=edge-commit,edge-container")


def test_what_has_passed_stays_and_the_rest_is_run_again(lab, plan_of):
    plan = plan_of(*AXES)
    assert state.unfinished(lab, plan) is None
    matrix = state.new_matrix(lab, plan)
    for number in (1, 2, 3):
        matrix.begun(number)
    matrix.changed(1, status="passed", seconds=62.5, facts={"packages": 228})
    matrix.changed(2, status="failed", message="it broke")

    again = state.unfinished(lab, plan)
    assert again.directory == matrix.directory
    assert [each.status for each in again.results] == ["passed", *["not run"] * 3]
    assert again.results[0].seconds == 62.5
    assert again.results[0].facts == {"packages": 228}
    assert again.results[0].started == matrix.results[0].started
    assert again.results[1].message == ""
    assert [each.name for each in again.results] == [each.name for each in matrix.results]


def test_another_plan_and_one_that_has_passed_begin_again(lab, plan_of):
    plan = plan_of(*AXES)
    matrix = state.new_matrix(lab, plan)
    assert state.unfinished(lab, plan_of(*AXES, minutes="20")) is None
    assert state.unfinished(lab, plan_of(AXES[0])) is None
    for number in range(1, 5):
        matrix.changed(number, status="passed")
    assert matrix.status == "passed"
    assert state.unfinished(lab, plan) is None
    assert state.new_matrix(lab, plan).directory != matrix.directory


def test_a_file_of_another_version_is_not_continued(lab, plan_of):
    plan = plan_of(*AXES)
    matrix = state.new_matrix(lab, plan)
    path = matrix.directory / "matrix.json"
    for content in ("{}", "[", json.dumps({**matrix.to_json(), "combinations": 1})):
        path.write_text(content)
        assert state.unfinished(lab, plan) is None


def test_a_late_message_of_a_begin_changes_nothing(lab, plan_of):
    matrix = state.new_matrix(lab, plan_of(*AXES))
    matrix.changed(1, status="failed")
    matrix.begun(1)
    assert matrix.results[0].status == "failed"


def test_matrix_json_says_how_far_it_is(lab, plan_of):
    matrix = state.new_matrix(lab, plan_of(*AXES))
    matrix.is_running = True
    matrix.begun(2)
    content = json.loads((matrix.directory / "matrix.json").read_text())
    assert content["status"] == "running"
    assert [each["status"] for each in content["combinations"][:2]] == ["not run", "running"]
    assert content["combinations"][1]["name"] == "packages=tmux, image_type=edge-container"
    assert content["combinations"][1]["report"] is None
    matrix.is_running = False
    assert matrix.status == "interrupted"
    for number in range(1, 5):
        matrix.changed(number, status="failed" if number == 2 else "passed")
    assert matrix.status == "failed"
