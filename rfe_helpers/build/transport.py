"""HTTP over Image Builder's unix socket: one request, one answer, one clear error.

`requests` over urllib3, whose connections go to the socket. An answer is judged by its route and
status, never by its Content-Type: the servers label empty bodies, TOML and logs as JSON.
"""

from __future__ import annotations

import grp
import json
import os
import re
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from rfe_helpers.core import journal
from rfe_helpers.errors import ApiError, BuilderError, ConnectionLostError, DeadlineExceededError

_GROUP = "weldr"
_START = (
    "start it: `rfe sandbox start`, or for osbuild-composer "
    "`sudo systemctl enable --now osbuild-composer.socket`"
)
_LOG = (
    "see whether it runs, and its log: `rfe sandbox status`, or for osbuild-composer "
    "`journalctl --unit osbuild-composer`"
)
# What to do next, by the server's error id; only where there is something to do.
_REMEDIES = {
    "UnknownBlueprint": "push the blueprint first; `rfe blueprint list` lists those that exist",
    "UnknownUUID": "`rfe compose list` lists those that exist; one that has been deleted must be "
    "composed again",
    "BuildInWrongState": "`rfe compose list` shows its status: only a finished compose has an "
    "artifact, and only one that waits or runs can be canceled",
    "UnknownCommit": "`rfe blueprint history NAME` lists the commits",
    "ComposeError": "types() lists the image types that this server builds",
    "BadComposeType": "types() lists the image types that this server builds",
    "BlueprintsError": 'correct the blueprint: client.search("*name*") finds names of packages',
    "DepsolveError": "look at the names and versions in the blueprint: depsolve() tries them",
    "BuildFailed": "look at the names and versions in the blueprint: depsolve() tries them",
    "OSTreeOptionsError": "see that `url` answers and has the parent's ref; the first commit of a "
    "new ref is built without url and parent",
    "ManifestCreationFailed": "see which customizations the image type has; `parent` needs `url`",
    "UnknownSource": "`rfe sources list` lists those that exist",
    "SystemSource": "add a source of your own instead",
    "DistroError": "distros() lists what this server builds",
}


class _Adapter(HTTPAdapter):
    """Sends every request to the unix socket at `path`, whatever host its URL names."""

    def __init__(self, path: Path) -> None:
        super().__init__()

        class Connection(HTTPConnection):
            def connect(self) -> None:
                # Set before it is connected: if that fails, the pool closes it.
                self.sock = socket.socket(socket.AF_UNIX)
                self.sock.settimeout(self.timeout)
                self.sock.connect(str(path))

        self._pool = HTTPConnectionPool("localhost", maxsize=10)
        self._pool.ConnectionCls = Connection

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._pool


class Transport:
    """Requests to the server behind the socket at `path`; an answer may take `timeout` seconds."""

    def __init__(self, path: Path, timeout: float = 60) -> None:
        self.socket = path
        self.timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False
        # Of a URL with "http" as its scheme, requests would resolve "..": a name stays as it is.
        self._session.mount("http+unix://", _Adapter(path))
        # A connection of its own for every request: none is ever stale, and lengths are
        # those of the wire.
        self._session.headers.update({"Connection": "close", "Accept-Encoding": "identity"})

    def get(self, path: str, *, timeout: float | None = None, **query: object) -> dict[str, Any]:
        """The JSON that a GET answers with. Raises ApiError, BuilderError."""
        with self.open("GET", path, query=query, timeout=timeout) as answer:
            return _decoded(answer)

    def get_text(self, path: str, **query: object) -> str:
        """The text that a GET answers with; what is not UTF-8 is replaced."""
        with self.open("GET", path, query=query) as answer:
            return answer.content.decode(errors="replace")

    def post(
        self, path: str, body: Any = None, *, timeout: float | None = None, **query: object
    ) -> dict[str, Any]:
        """Send JSON, or TOML if `body` is a string."""
        sent = body if isinstance(body, str) else json.dumps(body)
        kind = "text/x-toml" if isinstance(body, str) else "application/json"
        headers = {} if body is None else {"Content-Type": kind}
        with self.open(
            "POST",
            path,
            query=query,
            data=None if body is None else sent.encode(),
            headers=headers,
            timeout=timeout,
        ) as answer:
            return _decoded(answer)

    def delete(self, path: str) -> dict[str, Any]:
        with self.open("DELETE", path) as answer:
            return _decoded(answer)

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        saved_in: Path | None = None,
        recorded: bool = True,
    ) -> Iterator[requests.Response]:
        """One request; the body of the answer is read by the caller, who may save it in a file in
        the directory `saved_in`. It is `recorded` in the journal.

        Raises ApiError for an answer that is an error, ConnectionLostError if there is none,
        DeadlineExceededError after `timeout` seconds of silence, BuilderError if the socket cannot
        be used.
        """
        self._check_socket()
        seconds = timeout or self.timeout
        at, began = time.time(), time.monotonic()
        try:
            with self._session.request(
                method,
                f"http+unix://localhost/api/{path}",
                params={key: str(value) for key, value in (query or {}).items()},
                data=data,
                headers=headers,
                timeout=seconds,
                stream=True,
                allow_redirects=False,
            ) as answer:
                try:
                    _check(answer, f"{method} /api/{path}")
                    yield answer
                finally:
                    if recorded:
                        self._record(answer, data, saved_in, at, time.monotonic() - began)
        except requests.Timeout:
            raise DeadlineExceededError(
                f"Image Builder at {self.socket} did not answer {method} /api/{path} "
                f"within {seconds:.0f} s",
                remedy=f"{_LOG}; a restart loses no blueprint or compose",
            ) from None
        except requests.RequestException as error:
            raise self._gone(error) from None

    def _record(
        self,
        answer: requests.Response,
        data: bytes | None,
        saved_in: Path | None,
        at: float,
        seconds: float,
    ) -> None:
        """Write the request to the journal, with the id of the compose that it started."""
        sent = answer.request
        request = journal.ApiRequest(
            str(self.socket),
            str(sent.method),
            str(sent.path_url),
            body=(data or b"").decode(),
            type=str(sent.headers.get("Content-Type", "")),
            saved_in=str(saved_in or ""),
        )
        value = ""
        if sent.path_url.partition("?")[0].endswith("/compose") and answer.ok:
            with suppress(ValueError, AttributeError):
                value = str(json.loads(answer.content).get("build_id", ""))
        journal.record_request(request, at, seconds, answer.status_code, value=value)

    def _check_socket(self) -> None:
        try:
            status = self.socket.stat()
        except PermissionError:
            raise BuilderError(
                f"no access to {self.socket.parent}", remedy=self._remedy_access("")
            ) from None
        except OSError:
            raise BuilderError(
                f"there is no Image Builder at {self.socket}", remedy=_START
            ) from None
        if not stat.S_ISSOCK(status.st_mode):
            raise BuilderError(
                f"{self.socket} is not a socket", remedy="give the path of Image Builder's socket"
            )
        if not os.access(self.socket, os.R_OK | os.W_OK):
            raise BuilderError(
                f"no permission to use {self.socket}",
                remedy=self._remedy_access(_group_name(status.st_gid)),
            )

    def _remedy_access(self, group: str) -> str:
        return (
            f"join its group and log in again: sudo usermod -aG {group or _GROUP} "
            f"{os.environ.get('USER', '$USER')}"
        )

    def _gone(self, error: requests.RequestException) -> BuilderError:
        reason = _innermost(error)
        if isinstance(reason, ConnectionRefusedError):
            return BuilderError(
                f"{self.socket} is left over from a service that has ended", remedy=_START
            )
        if isinstance(reason, OSError) and "too long" in str(reason):
            return BuilderError(
                f"the path of the socket is too long: {self.socket}",
                remedy="use one of at most 107 bytes",
            )
        return ConnectionLostError(
            f"Image Builder at {self.socket} closed the connection: {reason}",
            remedy=_LOG,
        )


def _check(answer: requests.Response, what: str) -> None:
    """Raise ApiError for an answer that is an error."""
    if answer.status_code < 400:
        return
    errors = errors_of(answer.content)
    if answer.status_code in (405, 501) and not errors:
        raise ApiError(
            answer.status_code,
            [("HTTPError", f"this Image Builder cannot do {what}")],
            remedy="another release of Image Builder may be able to: see its documentation",
        )
    if not errors:
        beginning = answer.content[:200].decode(errors="replace").strip()
        raise ApiError(
            answer.status_code,
            [("HTTPError", f"{what} answered {answer.status_code} {beginning!r}")],
            remedy="see that the socket is Image Builder's",
        )
    raise_for(errors, answer.status_code)


def _decoded(answer: requests.Response) -> dict[str, Any]:
    try:
        value = json.loads(answer.content)
    except ValueError:
        beginning = answer.content[:80].decode(errors="replace")
        raise ApiError(
            answer.status_code,
            [("HTTPError", f"the answer is not JSON: {beginning!r}")],
            remedy="see that the socket is Image Builder's",
        ) from None
    if not isinstance(value, dict):
        raise ApiError(answer.status_code, [("HTTPError", "the answer is not a JSON object")])
    # lorax-composer refuses some requests with status 200.
    if value.get("status") is False:
        raise_for(errors_of(answer.content), answer.status_code)
    return value


def file_name(headers: Mapping[str, str], otherwise: str) -> str:
    """The name in Content-Disposition, which has no quotes and may end with a semicolon."""
    match = re.search(r'filename="?([^";]+)', headers.get("Content-Disposition", ""))
    name = match[1].strip() if match else ""
    return name if re.fullmatch(r"[A-Za-z0-9_][\w.+-]*", name) else otherwise


def raise_for(errors: list[tuple[str, str]], status: int = 200) -> None:
    """Raise ApiError if there are errors, with the remedy for the first."""
    if errors:
        raise ApiError(status, errors, remedy=_REMEDIES.get(errors[0][0], ""))


def errors_of(content: bytes) -> list[tuple[str, str]]:
    """The (id, msg) entries of an answer that may not be JSON."""
    try:
        value = json.loads(content)
    except ValueError:
        return []
    return errors_in(value)


def errors_in(value: Any) -> list[tuple[str, str]]:
    """The (id, msg) entries of an answer."""
    entries = value.get("errors") if isinstance(value, dict) else None
    return [
        (str(entry.get("id", "HTTPError")), str(entry.get("msg", "")).strip())
        for entry in entries or []
        if isinstance(entry, dict)
    ]


def _innermost(error: BaseException) -> BaseException:
    """The first cause: the OSError below the layers of urllib3 and requests."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        inner = inner or next((a for a in error.args if isinstance(a, BaseException)), None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
