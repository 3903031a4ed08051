"""Generated and mutated requests: every answer of the service is one of the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.hostile import REQUESTS, Request, check, deep_documents, deletable, large_blueprints
from support.sandbox_service import Process

from rfe_helpers.core import run

MEMORY = 1 << 30


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(tmp_path_factory.mktemp("service"))
    process.builder.open()
    process.post("/api/v1/blueprints/new", name="Edge", packages=[{"name": "tmux"}])
    yield process
    run.stop(process.id)


def feed(process: Process, requests: list[Request]) -> None:
    for request in requests:
        check(request, process.ask(request.line, request.body, request.content_type))


def cases(number: int) -> Callable[[Any], Any]:
    healthy = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(
        max_examples=number, deadline=None, suppress_health_check=healthy, derandomize=False
    )


def aftermath(process: Process) -> None:
    """The service still answers, has logged no traceback and has left no stray files."""
    assert process.ask("GET /api/status").status == 200
    assert "Traceback" not in process.log.read_text()
    known = {"lock", "store.sqlite", "store.sqlite-wal", "store.sqlite-shm", "composes"}
    assert {path.name for path in process.state.iterdir()} <= known
    ids = {entry["id"] for entry in process.ask("GET /api/v1/compose/status/*").json["uuids"]}
    assert {path.name for path in (process.state / "composes").iterdir()} <= ids


@cases(300)
@given(requests=REQUESTS)
def test_only_answers_of_the_contract(process: Process, requests: list[Request]) -> None:
    feed(process, requests)


def test_nothing_was_left_behind(process: Process) -> None:
    aftermath(process)


@pytest.mark.parametrize("strategy", [deep_documents, large_blueprints], ids=lambda s: s.__name__)
def test_what_costs_much_is_answered_too(
    process: Process, strategy: Callable[[], st.SearchStrategy[list[Request]]]
) -> None:
    @cases(12)
    @given(requests=strategy())
    def feed_all(requests: list[Request]) -> None:
        feed(process, requests)

    feed_all()
    aftermath(process)
    assert hostile.peak_memory(process) < MEMORY


def test_what_can_be_pushed_can_be_deleted(process: Process) -> None:
    @cases(60)
    @given(requests=deletable())
    def push_and_delete(requests: list[Request]) -> None:
        pushed, deleted = (
            process.ask(request.line, request.body, request.content_type) for request in requests
        )
        assert pushed.status == deleted.status or pushed.status == 400, requests

    push_and_delete()


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_the_service_answers_50_000_hostile_inputs_within_its_memory(tmp_path: Path) -> None:
    figures = hostile.trial(tmp_path, 50_000)
    assert figures.failures == []
    assert figures.inputs == 50_000
    assert figures.statuses_asked > 100
    assert figures.peak_memory < MEMORY
