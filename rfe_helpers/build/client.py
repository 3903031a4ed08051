"""A client of Image Builder's API, of osbuild-composer (2021 to 2026) and lorax-composer (f33).

One method for each task of a user. Answers become frozen structs; lists that an older server
leaves out are empty. Every method raises ApiError (with the server's id and message) or
BuilderError (no server, no permission).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from rfe_helpers.build import answers
from rfe_helpers.build import blueprint as blueprints
from rfe_helpers.build.answers import (
    BlueprintChange,
    Compose,
    ComposeInfo,
    PackageInfo,
    ServerStatus,
    Source,
    Started,
)
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.build.transport import Transport, errors_in, errors_of, file_name, raise_for
from rfe_helpers.commit.ostree import Package
from rfe_helpers.core import files
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.run import tail_of
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import (
    ApiError,
    BlueprintError,
    BuilderError,
    ComposeFailedError,
    ConnectionLostError,
    DeadlineExceededError,
    RfeError,
)

# The server resolves packages before it answers, for a compose containers and the parent, too. On a
# busy one, such as that of a room where all do so at once, it takes minutes.
RESOLVE_SECONDS = 300
_DOWNLOAD_ATTEMPTS = 3
_FREE_SPACE = "free some disk space, or download to another directory"
_STAGE = re.compile(r"^Stage: *(.+?) *$", re.MULTILINE)


class Client:
    """An Image Builder behind a unix socket.

    >>> from rfe_helpers import connect
    >>> client = connect(lab)  # or Client("/run/weldr/api.socket")
    >>> client.search("tmux*")
    ('tmux',...)
    >>> started = client.start_compose("edge", "edge-commit", test=2)  # only pretends to compose
    >>> client.wait(started.id, 60).status
    'FINISHED'
    >>> client.delete_compose(started.id)

    `logs` is the directory for logs of failed composes, `timeout` the seconds that an answer may
    take, `patience` the seconds that the service may be unreachable while it is restarted.
    """

    def __init__(
        self,
        socket: str | Path,
        *,
        logs: Path | None = None,
        timeout: float = 60,
        patience: float = 30,
    ) -> None:
        self.socket = Path(socket)
        self.logs = logs
        self.patience = patience
        self._http = Transport(self.socket, timeout)

    def __repr__(self) -> str:
        return f"Client({str(self.socket)!r})"

    # the server ---------------------------------------------------------------------------------

    def status(self) -> ServerStatus:
        """The server's name, version and messages."""
        return answers.status(self._http.get("status"))

    def distros(self) -> tuple[str, ...]:
        """The distributions that it builds; () from lorax-composer, which knows only its own."""
        try:
            return tuple(self._http.get("v1/distros/list").get("distros") or ())
        except ApiError as error:
            if error.status == 404:
                return ()
            raise

    def types(self, distro: str = "") -> tuple[str, ...]:
        """The image types that it builds (canonical names), of `distro` or its own distribution."""
        query: dict[str, Any] = {"distro": distro} if distro else {}
        listed = self._http.get("v1/compose/types", **query).get("types") or []
        return tuple(entry["name"] for entry in listed if entry.get("enabled", True))

    # blueprints ---------------------------------------------------------------------------------

    def blueprints(self) -> tuple[str, ...]:
        """The names of all blueprints."""
        return tuple(self._all("v1/blueprints/list", "blueprints"))

    def blueprint(self, name: str) -> Blueprint:
        """A blueprint of the server; an uncommitted copy in the workspace takes precedence."""
        answer = self._http.get(f"v1/blueprints/info/{_segment(name)}")
        return blueprints.parse_json(_only(answer, "blueprints", name))

    def has_draft(self, name: str) -> bool:
        """Whether the workspace has an uncommitted copy of a blueprint, which composes ignore."""
        answer = self._http.get(f"v1/blueprints/info/{_segment(name)}")
        return any(entry.get("changed") for entry in answer.get("changes") or ())

    def push(self, blueprint: Blueprint | str | Path) -> Blueprint:
        """Store a blueprint (an object, TOML text or a TOML file) and return it as stored.

        The server raises the patch number of a version that it has already. Raises BlueprintError
        for a blueprint that cannot be read.
        """
        body, name = _sendable(blueprint)
        self._http.post("v1/blueprints/new", body)
        return self.blueprint(name)

    def push_to_workspace(self, blueprint: Blueprint | str | Path) -> None:
        """Store an uncommitted copy, which depsolve uses but composes do not."""
        self._http.post("v1/blueprints/workspace", _sendable(blueprint)[0])

    def delete_from_workspace(self, name: str) -> None:
        self._http.delete(f"v1/blueprints/workspace/{_segment(name)}")

    def delete_blueprint(self, name: str) -> None:
        """Remove a blueprint; its history stays, and `undo` restores it."""
        self._http.delete(f"v1/blueprints/delete/{_segment(name)}")

    def depsolve(self, name: str) -> tuple[Package, ...]:
        """Every package that a compose of the blueprint would install."""
        answer = self._http.get(f"v1/blueprints/depsolve/{_segment(name)}", timeout=RESOLVE_SECONDS)
        entry = _only(answer, "blueprints", name)
        return tuple(map(answers.package, entry.get("dependencies") or ()))

    def freeze(self, name: str) -> Blueprint:
        """The blueprint with the exact package versions that it resolves to now."""
        answer = self._http.get(f"v1/blueprints/freeze/{_segment(name)}", timeout=RESOLVE_SECONDS)
        return blueprints.parse_json(_only(answer, "blueprints", name).get("blueprint") or {})

    def changes(self, name: str) -> tuple[BlueprintChange, ...]:
        """The history of a blueprint, newest first."""
        path = f"v1/blueprints/changes/{_segment(name)}"
        total = int(_only(self._http.get(path, limit=0), "blueprints", name).get("total") or 0)
        entry = _only(self._http.get(path, limit=total), "blueprints", name)
        return tuple(map(answers.change, entry.get("changes") or ()))

    def blueprint_at(self, name: str, commit: str) -> Blueprint:
        """A blueprint as it was at a change."""
        path = f"v1/blueprints/change/{_segment(name)}/{_segment(commit)}"
        return blueprints.parse_json(self._http.get(path))

    def undo(self, name: str, commit: str) -> None:
        """Restore the blueprint as it was at a change, as a new change."""
        self._http.post(f"v1/blueprints/undo/{_segment(name)}/{_segment(commit)}")

    def tag(self, name: str) -> None:
        """Give the newest change the next revision number."""
        self._http.post(f"v1/blueprints/tag/{_segment(name)}")

    def workspace_diff(self, name: str) -> tuple[tuple[str | None, str | None], ...]:
        """Packages that differ between the newest change and the workspace, as (old, new)."""
        path = f"v1/blueprints/diff/{_segment(name)}/NEWEST/WORKSPACE"
        entries = self._http.get(path).get("diff") or []
        return tuple(
            (answers.spec(entry.get("old")), answers.spec(entry.get("new"))) for entry in entries
        )

    # packages and sources -----------------------------------------------------------------------

    def search(self, pattern: str) -> tuple[str, ...]:
        """The sorted names of packages that match a glob such as "*tmux*"; () if none does."""
        try:
            listed = self._all(f"v1/modules/list/{_segment(pattern)}", "modules")
        except ApiError as error:
            if error.id == "UnknownModule":
                return ()
            raise
        return tuple(sorted({entry["name"] for entry in listed}))

    def package_info(self, *names: str) -> tuple[PackageInfo, ...]:
        """Descriptions and versions of packages. Raises ApiError if none of them exists."""
        answer = self._http.get(f"v1/projects/info/{_segment(*names)}")
        return tuple(map(answers.package_info, answer.get("projects") or ()))

    def sources(self) -> tuple[Source, ...]:
        """All package repositories, including those of the system."""
        entries = self._http.get("v1/projects/source/info/*").get("sources") or {}
        return tuple(answers.source(key, entry) for key, entry in sorted(entries.items()))

    def add_source(self, source: Source) -> None:
        """Add a repository, or replace the one with the same id."""
        body: dict[str, Any] = {
            "id": source.id,
            "name": source.name or source.id,
            "type": source.type,
            "url": source.url,
            "check_gpg": source.check_gpg,
            "check_ssl": source.check_ssl,
        }
        optional = {"gpgkeys": list(source.gpgkeys), "distros": list(source.distros)}
        body.update({key: value for key, value in optional.items() if value})
        self._http.post("v1/projects/source/new", body)

    def delete_source(self, source: str) -> None:
        self._http.delete(f"v1/projects/source/delete/{_segment(source)}")

    # composes -----------------------------------------------------------------------------------

    def start_compose(
        self,
        blueprint: str,
        image_type: str,
        *,
        ref: str = "",
        parent: str = "",
        url: str = "",
        size: int | None = None,
        test: int | None = None,
        seconds: float = RESOLVE_SECONDS,
    ) -> Started:
        """Put a compose in the queue; `size` is in bytes, `test` 1 or 2 only pretends to compose.

        `url` is a repository with the parent, the ref or commit `parent`; if that is "", the
        parent is the ref of the new commit itself. The request is sent once: if there is no answer
        within `seconds`, or the connection breaks, the compose is looked up in the queue. Raises
        DeadlineExceededError if it is not there either.
        """
        before = {compose.id for compose in self.composes()}
        ostree = {key: v for key, v in (("ref", ref), ("parent", parent), ("url", url)) if v}
        body = {
            "blueprint_name": blueprint,
            "compose_type": image_type,
            "branch": "master",
            **({"size": size} if size else {}),
            **({"ostree": ostree} if ostree else {}),
        }
        query = {"test": test} if test else {}
        try:
            answer = self._http.post("v1/compose", body, timeout=seconds, **query)
        except (DeadlineExceededError, ConnectionLostError) as error:
            return Started(self._accepted(blueprint, image_type, before, error), ())
        if not answer.get("build_id"):
            raise ApiError(200, [("HTTPError", "the server accepted a compose without an id")])
        return Started(str(answer["build_id"]), tuple(answer.get("warnings") or ()))

    def composes(self) -> tuple[Compose, ...]:
        """All composes, sorted by id."""
        return self._status("*")

    def queue(self) -> tuple[Compose, ...]:
        """Composes that run or wait, in the order of the queue."""
        queue = self._http.get("v1/compose/queue")
        return tuple(answers.compose(e) for key in ("run", "new") for e in queue.get(key) or ())

    def compose(self, compose: str) -> Compose:
        """One compose. Raises ApiError UnknownUUID."""
        composes = self._status(_segment(compose))
        if not composes:
            raise_for([("UnknownUUID", f"{compose} is not a valid build uuid")])
        return composes[0]

    def compose_info(self, compose: str) -> ComposeInfo:
        """The blueprint and the packages of a compose."""
        return answers.compose_info(self._http.get(f"v1/compose/info/{_segment(compose)}"))

    def log(self, compose: str, kilobytes: int | None = None) -> str:
        """The log of a compose, "" while it waits.

        osbuild-composer has the log only of a finished compose; of a running one, lorax-composer
        and the sandbox return the last `kilobytes`.
        """
        query = {} if kilobytes is None else {"size": kilobytes}
        text = self._http.get_text(f"v1/compose/log/{_segment(compose)}", **query)
        # A waiting compose has an error body with status 200.
        return "" if text.startswith("{") and errors_of(text.encode()) else text

    def wait(
        self,
        compose: str,
        deadline: Deadline | float,
        on_progress: OnProgress = None,
        *,
        every: float = 0.5,
    ) -> Compose:
        """Wait until a compose has finished and return it; report its stage and elapsed time.

        The service may be restarted meanwhile. Raises ComposeFailedError with the failing stage,
        DeadlineExceededError.
        """
        limit, outage = Deadline.of(deadline), Deadline(self.patience)
        while True:
            try:
                current = self.compose(compose)
                outage = Deadline(self.patience)
                if current.status == "FINISHED":
                    return current
                if current.status == "FAILED":
                    raise self._failure(current)
                if on_progress is not None:
                    on_progress(self._describe(current))
            except (ApiError, ComposeFailedError):
                raise
            except (BuilderError, DeadlineExceededError):  # it is being restarted, or it is busy
                if outage.expired:
                    raise
            remedy = "it keeps running; wait again with more time, or cancel it"
            limit.check(f"compose {compose} has not finished", remedy=remedy)
            time.sleep(min(every, limit.left))

    def cancel(self, compose: str) -> None:
        """End a compose that waits or runs; its status becomes FAILED."""
        self._http.delete(f"v1/compose/cancel/{_segment(compose)}")

    def delete_compose(self, *composes: str) -> None:
        """Remove composes that have ended, and their artifacts."""
        raise_for(errors_in(self._http.delete(f"v1/compose/delete/{_segment(*composes)}")))

    # downloads ----------------------------------------------------------------------------------

    def download(self, compose: str, directory: Path, on_progress: OnProgress = None) -> Path:
        """Download the artifact of a compose, as <id>-commit.tar or the like; return its path.

        The file gets its name only when it is complete; an existing one of the right size is kept.
        Raises BuilderError if the download stays incomplete, DiskFullError.
        """
        return self._fetch("image", compose, directory, on_progress)

    def download_results(
        self, compose: str, directory: Path, on_progress: OnProgress = None
    ) -> Path:
        """Download all files of a compose that has ended as one tar: manifest, log, artifact."""
        return self._fetch("results", compose, directory, on_progress)

    def download_logs(self, compose: str, directory: Path, on_progress: OnProgress = None) -> Path:
        """Download the logs of a compose that has ended as a tar."""
        return self._fetch("logs", compose, directory, on_progress)

    def download_metadata(
        self, compose: str, directory: Path, on_progress: OnProgress = None
    ) -> Path:
        """Download the manifest of a compose that has ended as a tar."""
        return self._fetch("metadata", compose, directory, on_progress)

    def artifact_size(self, compose: str) -> int:
        """The size of the artifact in bytes; -1 if the server does not say it."""
        path = f"v1/compose/image/{_segment(compose)}"
        with self._http.open("GET", path, recorded=False) as answer:  # its headers are enough
            return int(answer.headers.get("Content-Length", -1))

    # details ------------------------------------------------------------------------------------

    def _all(self, path: str, key: str) -> list[Any]:
        """A whole list: the first request asks for its length, the second for that many."""
        total = int(self._http.get(path, limit=0).get("total") or 0)
        return list(self._http.get(path, limit=total).get(key) or ()) if total else []

    def _status(self, which: str) -> tuple[Compose, ...]:
        answer = self._http.get(f"v1/compose/status/{which}")
        return tuple(map(answers.compose, answer.get("uuids") or ()))

    def _accepted(
        self, blueprint: str, image_type: str, before: Iterable[str], reason: RfeError
    ) -> str:
        """The compose that was started by a request without an answer."""
        limit = Deadline(self.patience)
        while not limit.expired:
            try:
                new = [c for c in self.composes() if c.id not in before]
            except (BuilderError, DeadlineExceededError):
                new = []
            matching = [c for c in new if c.blueprint == blueprint]
            # An alias is listed under its canonical name, so the type only serves to choose.
            matching = [c for c in matching if c.type == image_type] or matching
            if matching:
                return max(matching, key=lambda c: c.created or datetime.min.replace(tzinfo=UTC)).id
            time.sleep(0.5)
        raise DeadlineExceededError(
            f"it is not known whether the compose of {blueprint} was started: {reason.message}",
            remedy="look at composes() before starting it again",
        )

    def _describe(self, compose: Compose) -> str:
        if compose.status == "WAITING":
            return "waiting in the queue"
        try:
            stages = _STAGE.findall(self.log(compose.id, 16))
        except ApiError:  # lorax-composer has no log in the first seconds
            stages = []
        stage = stages[-1] if stages else "building"
        return f"{stage}, {compose.seconds:.0f} s"

    def _failure(self, compose: Compose) -> ComposeFailedError:
        text = self.log(compose.id)
        saved = None
        if self.logs is not None:
            saved = self.logs / f"compose-{compose.id}.log"
            files.write(saved, text, mode=0o600)
        stages = _STAGE.findall(text)
        if "\nto do: " in text:  # the sandbox's own errors
            remedy = "do what is said there, then start a new compose; the log has every stage"
        elif files.is_full(text):
            remedy = "free some space where Image Builder runs, on the disk that the log names; "
            remedy += "`rfe compose delete ID` removes what earlier composes made"
        else:
            remedy = "fix the blueprint and start a new compose; the log has every stage"
        stage = stages[-1] if stages else ""
        return ComposeFailedError(compose.id, stage, tail_of(text), log=saved, remedy=remedy)

    def _fetch(self, kind: str, compose: str, directory: Path, on_progress: OnProgress) -> Path:
        for attempt in range(1, _DOWNLOAD_ATTEMPTS + 1):
            try:
                return self._fetch_once(kind, compose, directory, on_progress)
            except ConnectionLostError:
                if attempt == _DOWNLOAD_ATTEMPTS:
                    raise
                time.sleep(attempt)
        raise AssertionError("not reached")

    def _fetch_once(
        self, kind: str, compose: str, directory: Path, on_progress: OnProgress
    ) -> Path:
        path = f"v1/compose/{kind}/{_segment(compose)}"
        with self._http.open("GET", path, saved_in=directory) as answer:
            target = directory / file_name(answer.headers, f"{compose}-{kind}")
            length = int(answer.headers.get("Content-Length", -1))
            if length >= 0 and target.is_file() and target.stat().st_size == length:
                return target
            try:
                with files.replacing(target) as temporary:
                    files.check_room(
                        directory, length, "the download", BuilderError, remedy=_FREE_SPACE
                    )
                    done = _copy(answer, temporary, length, on_progress)
                    if length >= 0 and done != length:
                        raise ConnectionLostError(
                            f"the download of {target.name} ended after {done} of {length} bytes",
                            remedy="`rfe sandbox status` shows whether the service still runs",
                        )
            except requests.RequestException:
                raise
            except OSError as error:
                reason = error.strerror or error
                raise BuilderError(f"cannot write {target}: {reason}", remedy=_FREE_SPACE) from None
        return target


def _copy(answer: requests.Response, target: Path, length: int, on_progress: OnProgress) -> int:
    done = 0
    with target.open("xb") as file:
        for chunk in answer.iter_content(1 << 20):
            file.write(chunk)
            done += len(chunk)
            if on_progress is not None:
                share = f" of {length / 1e6:.0f}" if length > 0 else ""
                on_progress(f"{done / 1e6:.0f}{share} MB")
    return done


def _segment(*names: str) -> str:
    """Names as the last segment of a path: joined by commas, globs not quoted."""
    return ",".join(quote(name, safe="*") for name in names)


def _sendable(blueprint: Blueprint | str | Path) -> tuple[str, str]:
    """A blueprint as TOML, as composer-cli sends it, and its name."""
    if isinstance(blueprint, Blueprint):
        return blueprints.to_toml(blueprint), blueprint.name
    if isinstance(blueprint, Path):
        try:
            blueprint = blueprint.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise BlueprintError(f"cannot read {blueprint}: {error}") from None
    return blueprint, blueprints.parse_toml(blueprint).name


def _only(answer: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    """The entry of one name in an answer. Raises the errors in it, or UnknownBlueprint."""
    raise_for(errors_in(answer))
    entries = answer.get(key) or []
    if not entries:
        raise_for([("UnknownBlueprint", f"{name}: the server has no such blueprint")])
    return dict(entries[0])
