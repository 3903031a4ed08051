"""How an answer's JSON becomes a struct when keys are missing, null or of another shape."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from rfe_helpers.build import answers
from rfe_helpers.build.answers import (
    BlueprintChange,
    Compose,
    ComposeInfo,
    PackageInfo,
    ServerStatus,
    Source,
)
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.ostree import Package
from rfe_helpers.errors import ApiError

EMPTY: list[tuple[Callable[[Any], object], str, object]] = [
    (answers.status, "backend build api msgs messages", ServerStatus("", "", "", ())),
    (answers.change, "commit message timestamp revision", BlueprintChange("", "", "", None)),
    (answers.package, "name epoch version release arch", Package("", "0", "", "", "")),
    (answers.package_info, "name summary description homepage builds", PackageInfo()),
    (
        lambda entry: answers.source("extra", entry),
        "id name type url gpgkeys distros",
        Source(id="extra", name="extra", type="", url=""),
    ),
    (
        answers.compose,
        "id blueprint version compose_type queue_status image_size job_created job_finished",
        Compose("", "", "", "", "", 0, None, None, None),
    ),
    (
        lambda entry: answers.compose_info({"blueprint": {"name": "Edge"}, **entry}),
        "id compose_type queue_status deps",
        ComposeInfo(Blueprint("Edge"), (), "", "", ""),
    ),
]


@pytest.mark.parametrize(("read", "keys", "empty"), EMPTY)
def test_what_is_missing_or_null_is_empty(
    read: Callable[[Any], object], keys: str, empty: object
) -> None:
    assert read({}) == empty
    assert read(dict.fromkeys(keys.split())) == empty


def test_nested_keys_that_are_missing_or_null_are_empty() -> None:
    builds = [{}, {"source": None, "release": None}, {"source": {"version": "3"}, "epoch": 1}]
    info = answers.package_info({"name": "tmux", "builds": builds})
    nothing = Package("tmux", "0", "", "", "")
    assert info.versions == (nothing, nothing, Package("tmux", "1", "3", "", ""))


def test_times_are_aware_and_never_is_none() -> None:
    entry = {"job_created": 1590085199.25, "job_started": -62135596800, "job_finished": 0}
    compose = answers.compose(entry)
    assert compose.created == datetime(2020, 5, 21, 18, 19, 59, 250_000, UTC)
    assert (compose.started, compose.finished) == (None, None)
    assert answers.compose({"job_created": "yesterday"}).created is None


def test_the_messages_of_a_server_have_two_names() -> None:
    assert answers.status({"msgs": ["a"]}).messages == ("a",)
    assert answers.status({"messages": ["b"], "msgs": []}).messages == ("b",)


def test_an_answer_of_another_shape_is_an_error_that_names_the_key() -> None:
    with pytest.raises(ApiError, match=r"does not fit Compose: .*image_size"):
        answers.compose({"image_size": []})
    with pytest.raises(ApiError, match=r"does not fit BlueprintChange: .*commit"):
        answers.change({"commit": 1})
