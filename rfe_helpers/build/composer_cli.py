"""What a person types in place of a request to Image Builder: `composer-cli`, or `curl`.

Both are for reading and pasting; this package itself sends requests (transport.py). The commands
are those of weldr-client 35 and later.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import PurePath
from typing import Any
from urllib.parse import parse_qs, unquote

from rfe_helpers.core.journal import ApiRequest

# Method, path below /api/ with its variable parts, and the command of composer-cli.
_COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("GET", "status", "status show"),
    ("GET", "v1/distros/list", "distros list"),
    ("GET", "v1/compose/types", "compose types"),
    ("GET", "v1/blueprints/list", "blueprints list"),
    ("GET", "v1/blueprints/info/{names}", "blueprints show {names}"),
    ("GET", "v1/blueprints/changes/{names}", "blueprints changes {names}"),
    ("GET", "v1/blueprints/depsolve/{names}", "blueprints depsolve {names}"),
    ("GET", "v1/blueprints/freeze/{names}", "blueprints freeze show {names}"),
    ("GET", "v1/blueprints/diff/{name}/{from}/{to}", "blueprints diff {name} {from} {to}"),
    ("GET", "v1/blueprints/change/{name}/{commit}", "blueprints show --commit {commit} {name}"),
    ("POST", "v1/blueprints/undo/{name}/{commit}", "blueprints undo {name} {commit}"),
    ("POST", "v1/blueprints/tag/{name}", "blueprints tag {name}"),
    ("POST", "v1/blueprints/new", "blueprints push {file}"),
    ("POST", "v1/blueprints/workspace", "blueprints workspace {file}"),
    ("DELETE", "v1/blueprints/delete/{name}", "blueprints delete {name}"),
    ("GET", "v1/modules/list", "modules list"),
    ("GET", "v1/modules/list/{names}", "modules list {names}"),
    ("GET", "v1/projects/info/{names}", "projects info {names}"),
    ("GET", "v1/projects/depsolve/{names}", "projects depsolve {names}"),
    ("GET", "v1/projects/source/list", "sources list"),
    ("GET", "v1/projects/source/info/{names}", "sources info {names}"),
    ("POST", "v1/projects/source/new", "sources add {file}"),
    ("DELETE", "v1/projects/source/delete/{name}", "sources delete {name}"),
    ("GET", "v1/compose/status/*", "compose status"),
    ("GET", "v1/compose/status/{id}", "compose status {id}"),
    ("GET", "v1/compose/queue", "compose list waiting running"),
    ("GET", "v1/compose/finished", "compose list finished"),
    ("GET", "v1/compose/failed", "compose list failed"),
    ("GET", "v1/compose/info/{id}", "compose info {id}"),
    ("GET", "v1/compose/log/{id}", "compose log {id}"),
    ("GET", "v1/compose/image/{id}", "compose image {id}"),
    ("GET", "v1/compose/logs/{id}", "compose logs {id}"),
    ("GET", "v1/compose/metadata/{id}", "compose metadata {id}"),
    ("GET", "v1/compose/results/{id}", "compose results {id}"),
    ("DELETE", "v1/compose/cancel/{id}", "compose cancel {id}"),
    ("DELETE", "v1/compose/delete/{id}", "compose delete {id}"),
)


def composer_cli(request: ApiRequest) -> str:
    """The command of composer-cli that sends the request, "" if it has none.

    composer_cli(ApiRequest("…", "GET", "/api/v1/blueprints/list"))  # composer-cli blueprints list
    """
    path, _, query = request.path.partition("?")
    inner = path.removeprefix("/api/")
    if (request.method, inner) == ("POST", "v1/compose"):
        try:
            return _start(json.loads(request.body), query)
        except ValueError:
            return ""  # a body that was cut in the journal
    for method, pattern, command in _COMMANDS:
        if method == request.method and (words := _match(pattern, inner)) is not None:
            words["file"] = shlex.quote(document_name(request))
            return f"composer-cli {command.format(**words)}"
    return ""


def curl(request: ApiRequest) -> str:
    """The command of curl that sends the request; the body, if it is a document, is read from the
    file `document_name`.

        curl(ApiRequest("/run/weldr/api.socket", "GET", "/api/status"))
        # curl --silent --fail --unix-socket /run/weldr/api.socket http://localhost/api/status
    """
    words = ["curl", "--silent", "--fail", "--unix-socket", request.socket]
    if request.method != "GET" and not (request.method == "POST" and request.body):
        words += ["--request", request.method]
    if request.body:
        name = document_name(request)
        words += ["--header", f"Content-Type: {request.type}"]
        words += ["--data-binary", f"@{name}"] if name else ["--data", request.body]
    if request.saved_in:
        words += ["--remote-name", "--remote-header-name"]
    line = shlex.join([*words, f"http://localhost{request.path}"])
    if not request.saved_in:
        return line
    directory = shlex.quote(request.saved_in)
    return f"(mkdir -p {directory} && cd {directory} && {line})"


def document_name(request: ApiRequest) -> str:
    """The name of the file that a person would have the body of the request in: that of the
    blueprint or source in it; "" for a request without such a body."""
    kind = request.path.partition("?")[0].removeprefix("/api/v1/")
    if kind not in ("blueprints/new", "blueprints/workspace", "projects/source/new"):
        return ""
    suffix = "toml" if "toml" in request.type else "json"
    pattern = r'"name":\s*"([^"]*)"' if suffix == "json" else r"""(?m)^name\s*=\s*["']([^"']*)"""
    match = re.search(pattern, request.body)
    name = PurePath(match[1]).name if match else ""
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', name) or 'document'}.{suffix}"


def _start(body: dict[str, Any], query: str) -> str:
    """compose start, or start-ostree for a commit."""
    ostree = body.get("ostree") or {}
    edge = bool(ostree) or re.search(r"edge|iot|ostree", str(body.get("compose_type")))
    words = ["composer-cli", "compose", "start-ostree" if edge else "start"]
    for option in ("ref", "parent", "url"):
        words += [f"--{option}", str(ostree[option])] if ostree.get(option) else []
    if body.get("size"):
        words += ["--size", str(int(body["size"]) >> 20)]  # composer-cli takes MiB
    if test := parse_qs(query).get("test"):
        words += ["--test", test[0]]
    return shlex.join([*words, str(body["blueprint_name"]), str(body["compose_type"])])


def _match(pattern: str, path: str) -> dict[str, str] | None:
    """The variable parts of a path, as words of a shell; None if it is another path."""
    parts = pattern.split("/"), path.split("/")
    if len(parts[0]) != len(parts[1]):
        return None
    words = {}
    for expected, actual in zip(*parts, strict=True):
        if expected.startswith("{"):
            values = [unquote(value) for value in actual.split(",")]
            words[expected[1:-1]] = shlex.join(values)
        elif expected != actual:
            return None
    return words
