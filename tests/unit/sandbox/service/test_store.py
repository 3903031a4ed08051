from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.core.run import ProcessId
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.service.store import (
    FAILED,
    FINISHED,
    RUNNING,
    WAITING,
    ComposePlan,
    Store,
    UnknownError,
    WrongStateError,
)

EDGE = Blueprint("Edge", version="0.0.1", packages=(PackageSpec("tmux", "*"),))
PLAN = ComposePlan(
    EDGE, "edge-commit", "debian/13/x86_64/edge", packages=("tmux",), dependencies=[]
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_pushing_the_stored_version_raises_it_and_keeps_the_history_as_pushed(store: Store) -> None:
    store.push(EDGE)
    store.push(EDGE)
    assert store.committed("Edge").version == "0.0.2"
    messages = [change.message for change in store.changes("Edge")]
    assert messages == ["Recipe Edge, version 0.0.1 saved."] * 2
    newest = store.changes("Edge")[0].id
    assert store.change("Edge", newest).version == "0.0.1"


def test_another_version_is_stored_as_it_is(store: Store) -> None:
    store.push(Blueprint("Edge", version="1.0.0"))
    store.push(Blueprint("Edge", version="0.5.0"))
    assert store.committed("Edge").version == "0.5.0"


def test_history_outlives_the_blueprint(store: Store) -> None:
    store.push(EDGE)
    store.delete_blueprint("Edge")
    with pytest.raises(UnknownError):
        store.committed("Edge")
    store.push(EDGE)
    assert len(store.changes("Edge")) == 2


def test_a_push_removes_the_copy_in_the_workspace(store: Store) -> None:
    store.set_workspace(EDGE)
    assert store.newest("Edge") == (EDGE, True)
    store.push(EDGE)
    assert store.newest("Edge") == (EDGE, False)


def test_tags_count_up_and_only_once_per_change(store: Store) -> None:
    store.push(EDGE)
    store.tag("Edge")
    store.tag("Edge")
    store.push(EDGE)
    store.tag("Edge")
    assert [change.revision for change in store.changes("Edge")] == [2, 1]


def test_the_state_survives_closing_and_opening(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.push(EDGE)
    identity = first.add_compose(PLAN)
    first.set_source({"id": "x", "url": "http://x.example"})
    first.close()
    second = Store(tmp_path)
    assert second.committed("Edge") == EDGE
    assert second.compose(identity).plan == PLAN
    assert second.sources() == [{"id": "x", "url": "http://x.example"}]


def test_the_queue_is_first_in_first_out(store: Store) -> None:
    ids = [store.add_compose(PLAN) for _ in range(3)]
    started = [compose.id for _ in range(3) if (compose := store.start_next())]
    assert started == ids
    assert store.start_next() is None


def test_a_compose_that_is_queued_again_keeps_its_place(store: Store) -> None:
    first, second = store.add_compose(PLAN), store.add_compose(PLAN)
    store.start_next()
    store.requeue(first, forgive=False)
    again = store.start_next()
    assert again is not None
    assert (again.id, again.attempts) == (first, 2)
    assert store.compose(second).status == WAITING


def test_a_compose_changes_its_state_only_as_allowed(store: Store) -> None:
    identity = store.add_compose(PLAN)
    with pytest.raises(WrongStateError):
        store.finish(identity, artifact="commit.tar")
    with pytest.raises(WrongStateError):
        store.delete_compose(identity)
    store.start_next()
    store.set_process(identity, ProcessId(1, 2, "boot"))
    assert store.compose(identity).process == ProcessId(1, 2, "boot")
    assert store.compose(identity).status == RUNNING
    store.finish(identity, artifact="commit.tar")
    with pytest.raises(WrongStateError) as wrong:
        store.fail(identity)
    assert wrong.value.status == FINISHED
    store.delete_compose(identity)
    with pytest.raises(UnknownError):
        store.compose(identity)


def test_a_test_compose_has_its_final_state_at_once(store: Store) -> None:
    identity = store.add_compose(ComposePlan(EDGE, "edge-commit", "ref", test=FAILED))
    compose = store.compose(identity)
    assert compose.status == FAILED
    assert compose.finished == compose.created


def test_a_damaged_database_is_reported_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(BuilderError, match=r"store\.sqlite cannot be used"):
        Store(tmp_path)


def test_many_threads_may_push_at_once(store: Store) -> None:
    def push() -> None:
        for _ in range(10):
            store.push(EDGE)

    threads = [threading.Thread(target=push) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.changes("Edge")) == 80
    store.close()


def test_threads_that_have_ended_hold_no_connection(store: Store) -> None:
    for _ in range(20):
        thread = threading.Thread(target=store.blueprint_names)
        thread.start()
        thread.join()
    held = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert sum(str(target).startswith(str(store.path)) for target in held) < 10


# In a process of its own: what is tested for has ended the program.
CLOSED_WHILE_READ = """
import sqlite3, sys, threading, time
from pathlib import Path
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.sandbox.service.store import Store

def read(store, reading):
    try:
        while True:
            store.changes("Edge")
            reading.set()
    except sqlite3.ProgrammingError:
        pass

for number in range(60):
    store = Store(Path(sys.argv[1], str(number)))
    store.push(Blueprint("Edge"))
    events = [threading.Event() for _ in range(4)]
    threads = [threading.Thread(target=read, args=(store, event)) for event in events]
    for thread, event in zip(threads, events):
        thread.start()
        event.wait(10)
    store.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
"""


def test_a_store_can_be_closed_while_others_read(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / str(number)).mkdir()
    command = [sys.executable, "-c", CLOSED_WHILE_READ, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
