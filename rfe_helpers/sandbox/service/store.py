"""The service's state in SQLite: blueprints and their history, sources, composes.

On disk, in the state directory, which only its owner may read:

    lock               held (flock) by the service that uses the directory
    store.sqlite       the database of this module, with its write-ahead log beside it
    composes/<id>/     the output of a build: artifact, manifest.json, osbuild.log (queue.py)

Tables:

    blueprints   name -> the blueprint as stored (JSON of the API)
    changes      one row per push, in order of `number`: commit id, message, revision, time and
                 the blueprint as it was pushed; they outlive the blueprint
    workspace    name -> an uncommitted copy
    sources      id -> an additional package source (JSON of the API, version 1)
    composes     one row per compose, in the order of the queue

Invariants: when a method returns, its change is on the disk (write-ahead log with
synchronous=FULL), so what was acknowledged survives `kill -9` and power loss; each method is one
transaction; a compose changes its state only here, and only from WAITING to RUNNING to FINISHED
or FAILED, from RUNNING back to WAITING when its service ends, or from WAITING to FAILED. A
directory in composes/ without a row is a leftover.

Any thread may call any method: each has a connection of its own.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rfe_helpers.build import blueprint as blueprints
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.core.run import ProcessId
from rfe_helpers.errors import BuilderError

WAITING, RUNNING, FINISHED, FAILED = "WAITING", "RUNNING", "FINISHED", "FAILED"
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE blueprints (name TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, id TEXT NOT NULL UNIQUE,
    message TEXT NOT NULL, revision INTEGER, timestamp TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX changes_by_name ON changes (name, number);
CREATE TABLE workspace (name TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE sources (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE composes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
    plan TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL,
    attempts INTEGER NOT NULL DEFAULT 0, process TEXT, artifact TEXT NOT NULL DEFAULT ''
);
CREATE INDEX composes_by_status ON composes (status, number);
"""


class UnknownError(Exception):
    """A blueprint, commit, source or compose does not exist; `what` says which of these."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"unknown {what}")


class WrongStateError(Exception):
    """The state of a compose does not allow the operation; `status` is that state."""

    def __init__(self, status: str) -> None:
        self.status = status
        super().__init__(status)


@dataclass(frozen=True)
class StoredChange:
    """A push in the history of a blueprint. `timestamp` is local time, as the API wants it."""

    id: str
    message: str
    revision: int | None
    timestamp: str


@dataclass(frozen=True)
class ComposePlan:
    """What a compose builds; fixed when it is queued.

    `kind` is the canonical image type, `size` is in bytes (0: the type has none), `packages` are
    arguments of apt, `sources` deb822 texts, `dependencies` the depsolved packages in the API's
    JSON (none if the type deploys a commit), `test` "" or the state that a test compose gets at
    once.
    """

    blueprint: Blueprint
    kind: str
    ref: str
    size: int = 0
    parent: str | None = None
    url: str = ""
    kernel: str = ""
    packages: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    dependencies: list[dict[str, Any]] = field(default_factory=list)
    test: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "blueprint": self.blueprint.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ComposePlan:
        lists: dict[str, Any] = {key: tuple(data[key]) for key in ("packages", "sources")}
        lists["dependencies"] = data["dependencies"] or []  # null in older states
        return cls(**{**data, **lists, "blueprint": blueprints.parse_json(data["blueprint"])})


@dataclass(frozen=True)
class StoredCompose:
    """A compose and its state. Times are Unix seconds; `attempts` counts starts of its build.

    In lists `plan` is an outline: type, ref and size, and of the blueprint name and version.
    """

    id: str
    status: str
    plan: ComposePlan
    process: ProcessId | None
    created: float
    started: float | None
    finished: float | None
    attempts: int
    artifact: str

    @property
    def ended(self) -> bool:
        return self.status in (FINISHED, FAILED)


class _Connection:
    """A thread's connection; closed when the thread has ended, since nothing else refers to it."""

    def __init__(self, path: Path) -> None:
        # close() may run in another thread than the one that opened it
        self.db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.busy = threading.RLock()  # SQLite crashes if it is closed under a running statement

    def __del__(self) -> None:
        self.db.close()


class Store:
    """The database in a state directory. Raises BuilderError if it cannot be used."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "store.sqlite"
        self._local = threading.local()
        # Weak references: a connection is closed with its thread, and threads come and go.
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._guard = threading.Lock()
        self._outlines: dict[str, ComposePlan] = {}
        try:
            self._create()
        except sqlite3.Error as error:
            raise BuilderError(
                f"the state in {self.path} cannot be used: {error}",
                remedy="check the disk; a damaged file can be moved away to start empty",
            ) from None

    def close(self) -> None:
        """Close all connections, each when its statement has ended; what uses the store later gets
        sqlite3.ProgrammingError."""
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            with connection.busy:
                connection.db.close()

    # blueprints -----------------------------------------------------------------------------------

    def blueprint_names(self) -> list[str]:
        """All committed blueprints, sorted."""
        return [row[0] for row in self._read("SELECT name FROM blueprints ORDER BY name")]

    def committed(self, name: str) -> Blueprint:
        """The committed blueprint, which composes use. Raises UnknownError."""
        return self._blueprint("SELECT body FROM blueprints WHERE name = ?", name)

    def newest(self, name: str) -> tuple[Blueprint, bool]:
        """The copy in the workspace (True) or the committed blueprint (False)."""
        try:
            return self._blueprint("SELECT body FROM workspace WHERE name = ?", name), True
        except UnknownError:
            return self.committed(name), False

    def push(self, pushed: Blueprint, message: str = "") -> None:
        """Commit a blueprint: add a change to its history, remove its copy in the workspace.

        If the pushed version equals the stored one, the stored patch number goes up by one; the
        history keeps the version as pushed.
        """
        with self._change() as db:
            stored = pushed
            row = db.execute("SELECT body FROM blueprints WHERE name = ?", [pushed.name]).fetchone()
            if row and json.loads(row[0])["version"] == pushed.version:
                stored = replace(pushed, version=blueprints.bumped(pushed.version))
            db.execute(
                "INSERT OR REPLACE INTO blueprints VALUES (?, ?)",
                [pushed.name, json.dumps(stored.to_json())],
            )
            db.execute(
                "INSERT INTO changes (name, id, message, timestamp, body) VALUES (?, ?, ?, ?, ?)",
                [
                    pushed.name,
                    secrets.token_hex(20),
                    message or f"Recipe {pushed.name}, version {pushed.version} saved.",
                    # Local time with a literal Z: that is what osbuild-composer sends.
                    f"{datetime.now():%Y-%m-%dT%H:%M:%SZ}",
                    json.dumps(pushed.to_json()),
                ],
            )
            db.execute("DELETE FROM workspace WHERE name = ?", [pushed.name])

    def delete_blueprint(self, name: str) -> None:
        """Delete a blueprint and its copy in the workspace; the history stays."""
        with self._change() as db:
            if not db.execute("DELETE FROM blueprints WHERE name = ?", [name]).rowcount:
                raise UnknownError("blueprint")
            db.execute("DELETE FROM workspace WHERE name = ?", [name])

    def changes(self, name: str) -> list[StoredChange]:
        """The history, newest first. Raises UnknownError for a name that was never pushed."""
        rows = self._read(
            "SELECT id, message, revision, timestamp FROM changes WHERE name = ?"
            " ORDER BY number DESC",
            name,
        )
        if not rows:
            raise UnknownError("blueprint")
        return [StoredChange(*row) for row in rows]

    def change(self, name: str, commit: str) -> Blueprint:
        """The blueprint as of a commit. Raises UnknownError for the blueprint or the commit."""
        self.changes(name)
        try:
            return self._blueprint(
                "SELECT body FROM changes WHERE name = ? AND id = ?", name, commit
            )
        except UnknownError:
            raise UnknownError("commit") from None

    def tag(self, name: str) -> None:
        """Give the newest change the next revision, if it has none. Raises UnknownError."""
        with self._change() as db:
            if not db.execute("SELECT 1 FROM blueprints WHERE name = ?", [name]).fetchone():
                raise UnknownError("blueprint")
            db.execute(
                "UPDATE changes SET revision ="
                " (SELECT coalesce(max(revision), 0) + 1 FROM changes WHERE name = :name)"
                " WHERE revision IS NULL"
                " AND number = (SELECT max(number) FROM changes WHERE name = :name)",
                {"name": name},
            )

    def set_workspace(self, copy: Blueprint) -> None:
        with self._change() as db:
            db.execute(
                "INSERT OR REPLACE INTO workspace VALUES (?, ?)",
                [copy.name, json.dumps(copy.to_json())],
            )

    def delete_workspace(self, name: str) -> None:
        """Raises UnknownError if the workspace has no copy."""
        with self._change() as db:
            if not db.execute("DELETE FROM workspace WHERE name = ?", [name]).rowcount:
                raise UnknownError("blueprint")

    # sources --------------------------------------------------------------------------------------

    def sources(self) -> list[dict[str, Any]]:
        """All additional sources, sorted by id."""
        return [json.loads(row[0]) for row in self._read("SELECT body FROM sources ORDER BY id")]

    def set_source(self, source: Mapping[str, Any]) -> None:
        with self._change() as db:
            db.execute(
                "INSERT OR REPLACE INTO sources VALUES (?, ?)",
                [source["id"], json.dumps(source)],
            )

    def delete_source(self, key: str) -> None:
        """Raises UnknownError."""
        with self._change() as db:
            if not db.execute("DELETE FROM sources WHERE id = ?", [key]).rowcount:
                raise UnknownError("source")

    # composes -------------------------------------------------------------------------------------

    def add_compose(self, plan: ComposePlan) -> str:
        """Queue a compose, or record a test compose in its final state; returns its id."""
        identity, now = str(uuid.uuid4()), time.time()
        ended = now if plan.test else None
        with self._change() as db:
            db.execute(
                "INSERT INTO composes (id, status, plan, created, started, finished)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [identity, plan.test or WAITING, json.dumps(plan.to_json()), now, ended, ended],
            )
        return identity

    def compose(self, identity: str) -> StoredCompose:
        """Raises UnknownError."""
        for compose in self._composes("WHERE id = ?", identity):
            rows = self._read("SELECT plan FROM composes WHERE id = ?", identity)
            if rows:  # not deleted meanwhile
                return replace(compose, plan=ComposePlan.from_json(json.loads(rows[0][0])))
        raise UnknownError("compose")

    def composes(self, *statuses: str) -> list[StoredCompose]:
        """The composes in one of these states, or all of them, in the order of the queue."""
        if not statuses:
            return self._composes("")
        marks = ", ".join("?" * len(statuses))
        return self._composes(f"WHERE status IN ({marks})", *statuses)

    def start_next(self) -> StoredCompose | None:
        """Move the oldest waiting compose to RUNNING; None if none is waiting."""
        with self._change() as db:
            row = db.execute(
                "UPDATE composes SET status = ?, started = ?, attempts = attempts + 1"
                " WHERE number = (SELECT min(number) FROM composes WHERE status = ?)"
                " RETURNING id",
                [RUNNING, time.time(), WAITING],
            ).fetchone()
        return self.compose(row[0]) if row else None

    def set_process(self, identity: str, process: ProcessId) -> None:
        """Remember the process that builds; a later service ends it if this one is killed."""
        with self._change() as db:
            db.execute(
                "UPDATE composes SET process = ? WHERE id = ? AND status = ?",
                [json.dumps(vars(process)), identity, RUNNING],
            )

    def finish(self, identity: str, *, artifact: str) -> None:
        """RUNNING -> FINISHED; `artifact` is the name of the file in the compose's directory."""
        self._end(identity, FINISHED, (RUNNING,), artifact)

    def fail(self, identity: str) -> None:
        """WAITING or RUNNING -> FAILED. Raises UnknownError, WrongStateError."""
        self._end(identity, FAILED, (WAITING, RUNNING), "")

    def requeue(self, identity: str, *, forgive: bool) -> None:
        """RUNNING -> WAITING, in its old place; `forgive`: this start does not count."""
        with self._change() as db:
            db.execute(
                "UPDATE composes SET status = ?, started = NULL, process = NULL,"
                " attempts = attempts - ? WHERE id = ? AND status = ?",
                [WAITING, int(forgive), identity, RUNNING],
            )

    def delete_compose(self, identity: str) -> None:
        """Forget a compose that has ended. Raises UnknownError, WrongStateError."""
        with self._change() as db:
            self._status(db, identity, (FINISHED, FAILED))
            db.execute("DELETE FROM composes WHERE id = ?", [identity])
        self._outlines.pop(identity, None)

    def _end(self, identity: str, status: str, allowed: Iterable[str], artifact: str) -> None:
        with self._change() as db:
            self._status(db, identity, allowed)
            now = time.time()
            db.execute(
                "UPDATE composes SET status = ?, finished = ?, process = NULL, artifact = ?,"
                " started = coalesce(started, ?) WHERE id = ?",
                [status, now, artifact, now, identity],
            )

    @staticmethod
    def _status(db: sqlite3.Connection, identity: str, allowed: Iterable[str]) -> None:
        row = db.execute("SELECT status FROM composes WHERE id = ?", [identity]).fetchone()
        if row is None:
            raise UnknownError("compose")
        if row[0] not in allowed:
            raise WrongStateError(row[0])

    def _composes(self, where: str, *values: str) -> list[StoredCompose]:
        columns = "created, started, finished, attempts, artifact"
        query = f"SELECT id, status, process, {columns} FROM composes {where} ORDER BY number"  # noqa: S608 - `where` is ours
        composes = []
        for identity, status, process_json, *rest in self._read(query, *values):
            if (outline := self._outline(identity)) is not None:
                process = ProcessId(**json.loads(process_json)) if process_json else None
                composes.append(StoredCompose(identity, status, outline, process, *rest))
        return composes

    def _outline(self, identity: str) -> ComposePlan | None:
        """The plan of a compose without its lists, which may have megabytes; cached, as it never
        changes and every status request reads it."""
        outline = self._outlines.get(identity)
        if outline is None:
            paths = ("blueprint.name", "blueprint.version", "kind", "ref", "size")
            columns = ", ".join(f"json_extract(plan, '$.{path}')" for path in paths)
            rows = self._read(f"SELECT {columns} FROM composes WHERE id = ?", identity)  # noqa: S608 - the columns are ours
            if not rows:
                return None  # deleted since its row was read
            name, version, kind, ref, size = rows[0]
            plan = ComposePlan(Blueprint(name, version=version), kind, ref, size)
            outline = self._outlines[identity] = plan
        return outline

    # the database ---------------------------------------------------------------------------------

    def _blueprint(self, query: str, *values: str) -> Blueprint:
        rows = self._read(query, *values)
        if not rows:
            raise UnknownError("blueprint")
        return blueprints.parse_json(json.loads(rows[0][0]))

    def _create(self) -> None:
        with self._change() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _SCHEMA_VERSION):
                raise BuilderError(
                    f"{self.path} was written by another version of the sandbox",
                    remedy="use another state directory",
                )
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def _read(self, query: str, *values: str) -> list[Any]:
        connection = self._connection()
        with connection.busy:
            return connection.db.execute(query, values).fetchall()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction: on the disk when the block ends, undone if it raises."""
        connection = self._connection()
        with connection.busy:
            db = connection.db
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _connection(self) -> _Connection:
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _Connection(self.path)
            with self._guard:
                self._connections.add(connection)
        return connection
