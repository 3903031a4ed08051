"""kill -9 of the service at random moments of pushes, composes and deletions: what it had
acknowledged is there afterwards, and the queue goes on."""

from __future__ import annotations

import http.client
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.sandbox_service import ARTIFACT, Answer, Process, processes_of

from rfe_helpers.core.wait import Deadline, wait_for

KILLS = 50
SEED = int(os.environ.get("RFE_SEED", "20261123"))
SENDING = (OSError, http.client.HTTPException)


class Memory:
    """What the service has acknowledged. Each blueprint and compose belongs to one thread, so
    there is at most one request for each that may or may not have been carried out."""

    def __init__(self) -> None:
        self.pushes: dict[str, int] = {}
        self.descriptions: dict[str, set[str | None]] = {}
        self.composes: set[str] = set()
        self.finished: set[str] = set()
        self.deleting: set[str] = set()
        self.deleted: set[str] = set()
        self.acknowledged = 0


class Client(threading.Thread):
    """Sends one kind of requests after the other until the service is gone."""

    def __init__(self, process: Process, memory: Memory, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.process, self.memory, self.chance = process, memory, chance
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while True:
                self.step()
        except SENDING:
            return  # the service was killed
        except BaseException as error:
            self.failure = error

    def step(self) -> None:
        raise NotImplementedError

    def acknowledged(self, answer: Answer) -> Answer:
        assert answer.status == 200, answer.body
        self.memory.acknowledged += 1
        return answer


class Pusher(Client):
    """Pushes and deletes blueprints."""

    def step(self) -> None:
        name = f"b{self.chance.randrange(4)}"
        known = self.memory.descriptions.setdefault(name, {None})
        if self.chance.random() < 0.8:
            text = f"{self.chance.getrandbits(64):x}"
            known.add(text)  # from now on it may be there
            self.acknowledged(
                self.process.post("/api/v1/blueprints/new", name=name, description=text)
            )
            self.memory.pushes[name] = self.memory.pushes.get(name, 0) + 1
            self.memory.descriptions[name] = {text}
        elif None not in known:
            known.add(None)
            self.acknowledged(self.process.ask(f"DELETE /api/v1/blueprints/delete/{name}"))
            self.memory.descriptions[name] = {None}


class Composer(Client):
    """Starts composes, sees them finish, deletes some."""

    def step(self) -> None:
        choice = self.chance.random()
        alive = sorted(self.memory.finished - self.memory.deleting)
        if choice < 0.3:
            answer = self.process.post(
                "/api/v1/compose", blueprint_name="Edge", compose_type="edge-commit"
            )
            self.memory.composes.add(self.acknowledged(answer).json["build_id"])
        elif choice < 0.8:
            entries = self.process.ask("GET /api/v1/compose/finished").json["finished"]
            self.memory.finished |= {entry["id"] for entry in entries}
            time.sleep(0.02)
        elif alive:
            identity = self.chance.choice(alive)
            self.memory.deleting.add(identity)
            self.acknowledged(self.process.ask(f"DELETE /api/v1/compose/delete/{identity}"))
            self.memory.deleted.add(identity)


def check(process: Process, memory: Memory) -> None:
    """All that was acknowledged is there; what was under way is there or not, as a whole."""
    names = process.ask("GET /api/v1/blueprints/list?limit=100").json["blueprints"]
    for name, possible in memory.descriptions.items():
        found = process.ask(f"GET /api/v1/blueprints/info/{name}").json["blueprints"]
        assert (name in names) == bool(found)
        description = found[0]["description"] if found else None
        assert description in possible, name
        memory.descriptions[name] = {description}
        history = process.ask(f"GET /api/v1/blueprints/changes/{name}").json["blueprints"]
        total = history[0]["total"] if history else 0
        assert memory.pushes.get(name, 0) <= total <= memory.pushes.get(name, 0) + 1
        memory.pushes[name] = total
    entries = process.ask("GET /api/v1/compose/status/*").json["uuids"]
    status = {entry["id"]: entry["queue_status"] for entry in entries}
    assert memory.composes - memory.deleting <= set(status)
    assert not memory.deleted & set(status)
    memory.composes |= set(status)
    for identity in memory.finished - memory.deleting:
        assert status[identity] == "FINISHED"
    for identity in sorted(memory.finished - memory.deleting)[:2]:
        assert process.ask(f"GET /api/v1/compose/image/{identity}").body == ARTIFACT
    # A deletion that was under way has happened, or can be asked for again.
    memory.deleting = set(memory.deleted) | (memory.deleting - set(status))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    memory = Memory()
    process = Process(tmp_path)
    process.post("/api/v1/blueprints/new", name="Edge")
    # The first depsolve makes the package index; it shall not eat the first moments.
    process.ask("GET /api/v1/blueprints/depsolve/Edge")
    for _ in range(KILLS):
        # With a closed gate the kill hits a build, with an open one the end of builds.
        if chance.random() < 0.5:
            process.builder.close()
        else:
            process.builder.open()
        clients: list[Client] = [
            kind(process, memory, random.Random(chance.random())) for kind in (Pusher, Composer)
        ]
        for client in clients:
            client.start()
        time.sleep(chance.uniform(0.0, 0.6))
        process.kill()
        for client in clients:
            client.join(30)
            assert not client.is_alive()
            if client.failure is not None:
                raise client.failure
        process = Process(tmp_path)
        check(process, memory)
    assert memory.acknowledged > 10 * KILLS
    process.builder.open()
    drained(process)
    check(process, memory)
    every = process.ask("GET /api/v1/compose/status/*").json["uuids"]
    for entry in every:
        if entry["queue_status"] == "FAILED":
            text = process.ask(f"GET /api/v1/compose/log/{entry['id']}").body.decode()
            assert "the service was ended 2 times while this was building" in text
    left = {path.name for path in (process.state / "composes").iterdir()}
    assert left == {entry["id"] for entry in every}
    assert processes_of(process.state / "composes") == {}
    process.terminate()
    assert "Traceback" not in process.log.read_text()


def drained(process: Process) -> None:
    empty: Callable[[], bool] = lambda: (  # noqa: E731
        process.ask("GET /api/v1/compose/queue").json == {"new": [], "run": []}
    )
    wait_for(empty, Deadline(120), "the queue is empty", every=0.1)


@pytest.mark.timeout(120)
def test_a_compose_that_was_running_is_built_again_once_and_its_processes_are_ended(
    tmp_path: Path,
) -> None:
    process = Process(tmp_path)
    process.post("/api/v1/blueprints/new", name="Edge")
    first, second = (
        process.post("/api/v1/compose", blueprint_name="Edge", compose_type="edge-commit").json[
            "build_id"
        ]
        for _ in range(2)
    )

    def left() -> set[int]:
        return set(processes_of(process.state / "composes" / first))

    for _ in range(2):
        wait_for(left, Deadline(20), "the build has a process", every=0.02)
        before = left()
        process.kill()
        process = Process(tmp_path)
        assert not before & left(), "the old build was ended"
    process.builder.open()
    drained(process)
    assert left() == set()
    states = {
        entry["id"]: entry["queue_status"]
        for entry in process.ask("GET /api/v1/compose/status/*").json["uuids"]
    }
    assert states == {first: "FAILED", second: "FINISHED"}
    log = process.ask(f"GET /api/v1/compose/log/{first}").body.decode()
    assert "it starts again" in log
    assert log.rstrip().endswith(
        "Error: the service was ended 2 times while this was building; it is not tried again."
    )
    process.terminate()
