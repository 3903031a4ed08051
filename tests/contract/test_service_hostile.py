"""Requests that cost much: each is refused or waits apart, and the service answers all others."""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import sandbox_service
from support.sandbox_service import (
    Answer,
    GateBuilder,
    Process,
    Running,
    gated,
    processes_of,
    silent_server,
)

from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.sandbox.service.packages import Index

JSON, TOML = "application/json", "text/x-toml"
NEW, SOURCE = "POST /api/v1/blueprints/new", "POST /api/v1/projects/source/new"
# What must be answered while something else takes long.
READING = (
    "/api/status",
    "/api/v1/blueprints/list",
    "/api/v1/blueprints/info/Edge",
    "/api/v1/blueprints/info/Edge?format=toml",
    "/api/v1/compose/status/*",
    "/api/v1/projects/source/list",
    "/api/v1/projects/source/info/*",
)


class Asking:
    """A request in a thread of its own."""

    def __init__(self, service: Running, request: str, body: str = "", kind: str = "") -> None:
        self.answer: Answer | None = None
        self.thread = threading.Thread(target=self._ask, args=(service, request, body, kind))
        self.thread.start()

    def _ask(self, service: Running, request: str, body: str, kind: str) -> None:
        self.answer = service.ask(request, body, kind)

    def end(self) -> Answer:
        self.thread.join(60)
        assert self.answer is not None
        return self.answer


def read_all(service: Running, *more: str) -> None:
    """Read what must never wait; each answer comes within two seconds, on a busy machine too."""
    for path in (*READING, *more):
        began = time.monotonic()
        answer = service.ask(f"GET {path}")
        assert answer.status == 200, (path, answer.body)
        assert time.monotonic() - began < 2, path


# documents ----------------------------------------------------------------------------------------

KEYS = 3000
DOCUMENTS = {
    "a dotted key": "a" + ".a" * KEYS + " = 1",
    "a table": "[a" + ".a" * KEYS + "]",
    "an array of tables": "[[a" + ".a" * KEYS + "]]",
    "quoted parts": '"=".' * KEYS + "a = 1",
    "after a string": 'x = {y = """a"b""", ' + '"=".' * KEYS + 'b = "1"}',
    "inline tables": "a = " + "{a = " * KEYS + "1" + "}" * KEYS,
    "arrays": "a = " + "[" * KEYS + "]" * KEYS,
    "many keys": "\n".join(f"k{number} = 1" for number in range(300_001)),
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.parametrize("request_line", [NEW, SOURCE])
def test_documents_that_cost_a_parser_gigabytes_are_refused(
    service: Running, request_line: str, document: str
) -> None:
    answer = service.ask(request_line, f'name = "Edge"\n{document}\n', TOML)
    assert answer.status == 400
    text = answer.json["errors"][0]["msg"]
    assert "nested too deeply" in text or "more than 300000 parts" in text


def test_json_of_too_many_parts_is_refused(service: Running) -> None:
    body = '{"name": "Edge", "customizations": {"disk": [' + "{}," * 300_000 + "{}]}}"
    for request_line in (NEW, SOURCE):
        answer = service.ask(request_line, body, JSON)
        assert answer.status == 400
        assert "more than 300000 parts" in answer.json["errors"][0]["msg"]


def test_dots_in_texts_are_not_parts_of_a_key(service: Running) -> None:
    data = "\n".join(["." * 500, "a.b" * 500, 'say "a".b. ' * 100, "# " + "x.y." * 100])
    texts = (
        f'"{json.dumps(data)[1:-1]}"',
        f"'''\n{data}'''",
        f'"""\n{data}"""',
    )
    for text in texts:
        document = f'name = "Edge"\n[[customizations.files]]\npath = "/etc/x"\ndata = {text}\n'
        assert service.ask(NEW, document, TOML).status == 200
        blueprint = service.ask("GET /api/v1/blueprints/info/Edge").json["blueprints"][0]
        assert blueprint["customizations"]["files"][0]["data"] == data


# memory -------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path, memory=128 << 20)
    yield process
    run.stop(process.id)


def test_an_answer_that_does_not_fit_into_the_memory_is_an_error_of_that_request(
    small: Process,
) -> None:
    for number in range(12):
        path = "/api/v1/blueprints/workspace"
        answer = small.post(path, name=f"B{number}", description="x" * 2_000_000)
        assert answer.status == 200
    names = ",".join(f"B{number}" for number in range(12))
    answer = small.ask(f"GET /api/v1/blueprints/info/{names}")
    assert answer.status == 500
    assert answer.json["errors"][0]["id"] == "InternalServerError"
    assert "needs more memory than the service may use" in answer.json["errors"][0]["msg"]
    assert small.ask("GET /api/status").status == 200
    assert len(small.ask("GET /api/v1/blueprints/info/B7").json["blueprints"]) == 1


def test_the_service_has_a_limit_and_its_builds_have_not(tmp_path: Path) -> None:
    process = Process(tmp_path)
    try:
        process.post("/api/v1/blueprints/new", name="Edge")
        process.post("/api/v1/compose", blueprint_name="Edge", compose_type="edge-commit")
        composes = process.state / "composes"
        wait_for(lambda: processes_of(composes), Deadline(10), "the build runs", every=0.02)
        assert int(limit(process.id.pid)) < 1 << 30
        assert {limit(pid) for pid in processes_of(composes)} == {"unlimited"}
    finally:
        run.stop(process.id)


def limit(pid: int) -> str:
    """The soft limit of a process's data, from /proc/PID/limits."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[3] for line in lines if line.startswith("Max data size"))


# waiting ------------------------------------------------------------------------------------------


def test_a_source_that_does_not_answer_keeps_nobody_else_waiting(service: Running) -> None:
    service.push()
    service.ask("GET /api/v1/modules/list")
    with silent_server() as url:
        source = {"id": "dead", "name": "Dead", "type": "yum-baseurl", "url": f"{url} s main"}
        assert service.ask(SOURCE, json.dumps(source), JSON).status == 200
        asking = [
            Asking(service, f"GET /api/v1/{path}")
            for path in ("modules/list", "projects/list", "blueprints/depsolve/Edge")
        ]
        time.sleep(0.3)
        read_all(service)
        began = time.monotonic()
        assert service.ask("DELETE /api/v1/projects/source/delete/dead").status == 200
        read_all(service, "/api/v1/modules/list", "/api/v1/blueprints/depsolve/Edge")
        assert time.monotonic() - began < 4
        assert [one.answer for one in asking] == [None] * 3, "they still wait for the source"
    answers = [one.end() for one in asking]
    assert [answer.status for answer in answers] == [200] * 3, "that source is deleted"
    assert answers[2].json["errors"] == []


def test_repositories_that_do_not_answer_keep_nobody_from_solving(service: Running) -> None:
    service.push(packages=[{"name": "tmux"}])
    service.ask("GET /api/v1/blueprints/depsolve/Edge")
    body = {"blueprint_name": "Edge", "compose_type": "edge-commit"}
    with silent_server() as url:
        text = json.dumps({**body, "ostree": {"url": url}})
        asking = [Asking(service, "POST /api/v1/compose", text, JSON) for _ in range(4)]
        time.sleep(0.5)
        read_all(service, "/api/v1/blueprints/depsolve/Edge", "/api/v1/modules/info/tmux")
        assert [one.answer for one in asking] == [None] * 4
    for one in asking:
        assert one.end().json["errors"][0]["id"] == "OSTreeOptionsError"


def test_solving_keeps_nobody_from_reading_and_too_much_of_it_is_refused(
    service: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.push(packages=[{"name": "tmux"}])
    service.ask("GET /api/v1/modules/list")
    request = "GET /api/v1/projects/depsolve/tmux,libevent-core-2.1-7t64"
    with gated("apt-get", tmp_path, monkeypatch):
        asking = [Asking(service, request) for _ in range(28)]
        calls = tmp_path / "calls"
        wait_for(calls.exists, Deadline(10), "apt solves", every=0.02)
        read_all(service, "/api/v1/modules/list", "/api/v1/projects/info/tmux")
        wait_for(lambda: service.ask(request).status == 500, Deadline(10), "it is busy")
        refused = service.ask(request)
        assert refused.json["errors"][0]["id"] == "InternalServerError"
        assert "try again" in refused.json["errors"][0]["msg"]
    statuses = [one.end().status for one in asking]
    assert statuses.count(200) >= 27
    assert service.ask(request).status == 200


def test_many_passwords_are_crypted_by_one_openssl_and_keep_nobody_waiting(
    service: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.push()
    users = [{"name": f"u{number}", "password": f"secret {number}"} for number in range(200)]
    body = json.dumps({"name": "Users", "customizations": {"user": users}})
    with gated("openssl", tmp_path, monkeypatch):
        asking = [Asking(service, NEW, body, JSON) for _ in range(2)]
        wait_for((tmp_path / "calls").exists, Deadline(10), "openssl runs", every=0.02)
        read_all(service)
    assert [one.end().status for one in asking] == [200, 200]
    assert (tmp_path / "calls").read_text().splitlines() == ["call"] * 2
    stored = service.ask("GET /api/v1/blueprints/info/Users").json["blueprints"][0]
    hashes = {user["password"] for user in stored["customizations"]["user"]}
    assert len(hashes) == 200
    assert all(text.startswith("$6$") for text in hashes)


def test_reading_waits_a_second_at_most_for_large_pushes(
    service: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.push()
    user = [{"name": "core", "password": "secret"}]
    large = {"name": "Large", "description": "x" * 100_000, "customizations": {"user": user}}
    with gated("openssl", tmp_path, monkeypatch):
        push = Asking(service, NEW, json.dumps(large), JSON)
        wait_for((tmp_path / "calls").exists, Deadline(10), "openssl runs", every=0.02)
        read_all(service)
        assert push.answer is None
    assert push.end().status == 200


def test_full_collections_of_garbage_are_made_between_requests(service: Running) -> None:
    class Loop:
        """What only the garbage collector frees."""

        def __init__(self) -> None:
            self.itself = self

    large = json.dumps({"name": "Large", "packages": [{"name": f"p{n}"} for n in range(20_000)]})
    usual = gc.get_threshold()
    gc.set_threshold(700, 10, 100_000)  # as in the service's process
    try:
        old = Loop()
        loop = weakref.ref(old)
        gc.collect()  # now it is in the oldest generation
        del old
        for _ in range(20):
            if loop() is None:
                break
            assert service.ask(NEW, large, JSON).status == 200
        assert loop() is None
    finally:
        gc.set_threshold(*usual)


@pytest.mark.parametrize("route", ["info", "depsolve", "freeze", "changes"])
def test_a_request_that_follows_a_push_sees_what_was_pushed(
    service: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """The web console sends both without waiting for the answer to the first."""
    user: list[Any] = [{"name": "core", "password": "secret"}]
    body = json.dumps({"name": "Edge", "customizations": {"user": user}})
    with gated("openssl", tmp_path, monkeypatch):
        push = Asking(service, NEW, body, JSON)
        wait_for((tmp_path / "calls").exists, Deadline(10), "openssl runs", every=0.02)
        reading = Asking(service, f"GET /api/v0/blueprints/{route}/Edge")
        other = service.ask(f"GET /api/v0/blueprints/{route}/Other")
        assert other.json["blueprints"] == []
        assert reading.answer is None
    assert push.end().status == 200
    answer = reading.end().json
    assert answer["errors"] == []
    assert len(answer["blueprints"]) == 1


# composes -----------------------------------------------------------------------------------------


@pytest.fixture
def lingering(tmp_path: Path, index: Index) -> Iterator[Running]:
    builder = GateBuilder(tmp_path / "gate", ending=1.5)
    with sandbox_service.running(tmp_path, index, builder) as service:
        yield service


def test_cancelling_is_answered_at_once_and_the_build_ends_after(lingering: Running) -> None:
    lingering.push()
    first, second = lingering.compose(), lingering.compose()
    composes = lingering.state / "composes"
    wait_for(lambda: processes_of(composes), Deadline(10), "the build runs", every=0.02)
    began = time.monotonic()
    assert lingering.ask(f"DELETE /api/v1/compose/cancel/{first}").status == 200
    assert lingering.status(first) == "FAILED"
    assert "cancelled" in lingering.ask(f"GET /api/v1/compose/log/{first}").body.decode()
    assert lingering.ask(f"DELETE /api/v1/compose/delete/{first}").json["errors"] == []
    assert time.monotonic() - began < 1
    assert lingering.status(second) == "WAITING"
    lingering.wait(second, "RUNNING")
    assert not (composes / first).exists()


def test_a_list_of_large_composes_takes_no_memory_for_their_blueprints(service: Running) -> None:
    service.push(description="x" * 1_000_000)
    for _ in range(3):
        service.compose(query="?test=2")
    entries = service.ask("GET /api/v1/compose/status/*").json["uuids"]
    assert [entry["blueprint"] for entry in entries] == ["Edge"] * 3
    for compose in service.service.store.composes():
        assert compose.plan.blueprint.description == ""
        assert len(service.service.store.compose(compose.id).plan.blueprint.description) > 999_999


def test_the_log_of_a_test_compose_says_that_it_is_empty(service: Running) -> None:
    service.push()
    identity = service.compose(query="?test=2")
    log = service.ask(f"GET /api/v1/compose/log/{identity}").body
    assert log in service.ask(f"GET /api/v1/compose/logs/{identity}").body
