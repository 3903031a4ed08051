"""The client against the examples of the wire: a server that answers exactly as they say."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import examples
import pytest
from examples import Example
from support.canned import Reply, Request, json_reply, serving

from rfe_helpers.build.answers import Source
from rfe_helpers.build.blueprint import Blueprint, parse_json
from rfe_helpers.build.client import Client
from rfe_helpers.errors import ApiError

# What other requests of the same method get, when the example is about one of them.
OTHERWISE = {
    "GET /api/v1/compose/status/*": {"uuids": []},
    "GET /api/v1/blueprints/info/Edge": {"blueprints": [{"name": "Edge"}], "errors": []},
}
# A refusal that is not an error to a person: no match, or the server is too old to know.
EMPTY_INSTEAD = {("GET modules/list", "UnknownModule"), ("GET distros/list", "HTTPError")}
# The client asks for all sources at once, so names that are none of them do not matter.
IGNORED_ERRORS = {"GET projects/source/info"}

WITHOUT_ARGUMENTS = {
    "GET distros/list",
    "GET blueprints/list",
    "POST blueprints/new",
    "POST blueprints/workspace",
    "POST projects/source/new",
    "POST compose",
    "POST compose, ostree",
    "GET compose/types",
    "GET compose/queue",
}
NEWEST = ["NEWEST", "WORKSPACE"]

Body = dict[str, Any]


def _compose(client: Client, sent: str) -> Any:
    try:
        body = json.loads(sent)
    except ValueError:
        body = {}
    options = body.get("ostree") or {}
    return client.start_compose(
        body.get("blueprint_name", "Edge"),
        body.get("compose_type", "edge-commit"),
        ref=options.get("ref", ""),
        parent=options.get("parent", ""),
        url=options.get("url", ""),
    )


def _listed(body: Body, *keys: str) -> list[Body]:
    return [entry for key in keys for entry in body.get(key) or []]


def _composes(result: Any, entries: list[Body]) -> bool:
    """The same composes; times that are not set are None, whatever the server says instead."""
    plain = [(c.id, c.blueprint, c.version, c.type, c.status, c.size) for c in result]
    keys = ("id", "blueprint", "version", "compose_type", "queue_status", "image_size")
    created = [c.created and c.created.timestamp() for c in result]
    started = [c.started and c.started.timestamp() for c in result]
    return (
        plain == [tuple(entry[key] for key in keys) for entry in entries]
        and created == [entry["job_created"] for entry in entries]
        and started == [entry.get("job_started") for entry in entries]
    )


def _packages(result: Any, entries: list[Body]) -> bool:
    texts = [(p.name, int(p.epoch), p.version, p.release, p.arch) for p in result]
    keys = ("version", "release", "arch")
    return texts == [(e["name"], e["epoch"], *(e.get(k, "") for k in keys)) for e in entries]


def _changes(result: Any, body: Body) -> bool:
    keys = ("commit", "message", "timestamp", "revision")
    plain = [(c.commit, c.message, c.timestamp, c.revision) for c in result]
    return plain == [tuple(e[k] for k in keys) for e in body["blueprints"][0]["changes"]]


def _infos(result: Any, body: Body) -> bool:
    """Packages with each of their builds as a version."""
    same_names = [p.name for p in result] == [e["name"] for e in body["projects"]]
    return same_names and all(
        (p.summary, p.homepage) == (e["summary"], e["homepage"])
        and [v.version for v in p.versions] == [b["source"]["version"] for b in e["builds"]]
        and [v.release for v in p.versions] == [b["release"] for b in e["builds"]]
        for p, e in zip(result, body["projects"], strict=True)
    )


def _sources(result: Any, body: Body) -> bool:
    plain = {s.id: (s.name, s.type, s.url, s.system) for s in result}
    return plain == {
        key: tuple(entry[k] for k in ("name", "type", "url", "system"))
        for key, entry in body["sources"].items()
    }


def _diff(result: Any, body: Body) -> bool:
    def text(entry: Body | None) -> str | None:
        return None if entry is None else "{name} {version}".format(**entry["Package"]).strip()

    return list(result) == [(text(e["old"]), text(e["new"])) for e in body["diff"]]


def _info(result: Any, body: Body) -> bool:
    return (
        (result.id, result.type, result.status)
        == (body["id"], body["compose_type"], body["queue_status"])
        and result.blueprint == parse_json(body["blueprint"])
        and _packages(result.packages, body["deps"]["packages"] or [])
    )


def _log(result: str, example: Example) -> bool:
    return result == (example.text if example.text is not None else "")


# route -> what is called with the last parts of the path, and whether its result has the body.
Drive = Callable[[Client, list[str], Example, Path], Any]
Judge = Callable[[Any, Any, Example], bool]
SOURCE = Source(id="extra", url="http://repo.example:8080/debian", name="Extra packages")
DRIVES: dict[str, tuple[Drive, Judge]] = {
    "GET /api/status": (
        lambda c, a, e, d: c.status(),
        lambda r, b, e: (r.backend, r.build, r.api) == (b["backend"], b["build"], b["api"]),
    ),
    "GET distros/list": (
        lambda c, a, e, d: c.distros(),
        lambda r, b, e: list(r) == b["distros"],
    ),
    "GET compose/types": (
        lambda c, a, e, d: c.types(),
        lambda r, b, e: list(r) == [t["name"] for t in b["types"] if t["enabled"]],
    ),
    "GET blueprints/list": (
        lambda c, a, e, d: c.blueprints(),
        lambda r, b, e: list(r) == b["blueprints"],
    ),
    "GET blueprints/info": (
        lambda c, a, e, d: c.blueprint(a[0]),
        lambda r, b, e: r == parse_json(b["blueprints"][0]),
    ),
    "POST blueprints/new": (
        lambda c, a, e, d: c.push(Blueprint("Edge")),
        lambda r, b, e: r.name == "Edge",
    ),
    "POST blueprints/workspace": (
        lambda c, a, e, d: c.push_to_workspace(Blueprint("Edge")),
        lambda r, b, e: r is None,
    ),
    "DELETE blueprints/workspace": (
        lambda c, a, e, d: c.delete_from_workspace(a[0]),
        lambda r, b, e: r is None,
    ),
    "DELETE blueprints/delete": (
        lambda c, a, e, d: c.delete_blueprint(a[0]),
        lambda r, b, e: r is None,
    ),
    "GET blueprints/depsolve": (
        lambda c, a, e, d: c.depsolve(a[0]),
        lambda r, b, e: _packages(r, b["blueprints"][0]["dependencies"]),
    ),
    "GET blueprints/freeze": (
        lambda c, a, e, d: c.freeze(a[0]),
        lambda r, b, e: r == parse_json(b["blueprints"][0]["blueprint"]),
    ),
    "GET blueprints/changes": (
        lambda c, a, e, d: c.changes(a[0]),
        lambda r, b, e: _changes(r, b),
    ),
    "GET blueprints/change": (
        lambda c, a, e, d: c.blueprint_at(a[0], a[1]),
        lambda r, b, e: r == parse_json(b),
    ),
    "POST blueprints/undo": (
        lambda c, a, e, d: c.undo(a[0], a[1]),
        lambda r, b, e: r is None,
    ),
    "POST blueprints/tag": (
        lambda c, a, e, d: c.tag(a[0]),
        lambda r, b, e: r is None,
    ),
    "GET blueprints/diff": (
        lambda c, a, e, d: c.workspace_diff(a[0]),
        lambda r, b, e: _diff(r, b),
    ),
    "GET modules/list": (
        lambda c, a, e, d: c.search(a[0] if a else "*"),
        lambda r, b, e: list(r) == [entry["name"] for entry in b["modules"]],
    ),
    "GET projects/info": (
        lambda c, a, e, d: c.package_info(*a),
        lambda r, b, e: _infos(r, b),
    ),
    "GET projects/source/info": (
        lambda c, a, e, d: c.sources(),
        lambda r, b, e: _sources(r, b),
    ),
    "POST projects/source/new": (
        lambda c, a, e, d: c.add_source(SOURCE),
        lambda r, b, e: r is None,
    ),
    "DELETE projects/source/delete": (
        lambda c, a, e, d: c.delete_source(a[0]),
        lambda r, b, e: r is None,
    ),
    "POST compose": (
        lambda c, a, e, d: _compose(c, e.sent),
        lambda r, b, e: (r.id, list(r.warnings)) == (b["build_id"], b.get("warnings") or []),
    ),
    "POST compose, ostree": (
        lambda c, a, e, d: _compose(c, e.sent),
        lambda r, b, e: r.id == b["build_id"],
    ),
    "GET compose/queue": (
        lambda c, a, e, d: c.queue(),
        lambda r, b, e: _composes(r, _listed(b, "run", "new")),
    ),
    "GET compose/status": (
        lambda c, a, e, d: c.composes() if a[0] == "*" else c.compose(a[0]),
        lambda r, b, e: _composes(r if isinstance(r, tuple) else [r], b["uuids"]),
    ),
    "GET compose/info": (
        lambda c, a, e, d: c.compose_info(a[0]),
        lambda r, b, e: _info(r, b),
    ),
    "GET compose/log": (
        lambda c, a, e, d: c.log(a[0]),
        lambda r, b, e: _log(r, e),
    ),
    "DELETE compose/cancel": (
        lambda c, a, e, d: c.cancel(a[0]),
        lambda r, b, e: r is None,
    ),
    "DELETE compose/delete": (
        lambda c, a, e, d: c.delete_compose(*a),
        lambda r, b, e: r is None,
    ),
    "GET compose/image": (
        lambda c, a, e, d: c.download(a[0], d),
        lambda r, b, e: _downloaded(r, e),
    ),
    "GET compose/metadata": (
        lambda c, a, e, d: c.download_metadata(a[0], d),
        lambda r, b, e: _downloaded(r, e),
    ),
    "GET compose/results": (
        lambda c, a, e, d: c.download_results(a[0], d),
        lambda r, b, e: _downloaded(r, e),
    ),
    "GET compose/logs": (
        lambda c, a, e, d: c.download_logs(a[0], d),
        lambda r, b, e: _downloaded(r, e),
    ),
}


def _downloaded(path: Path, example: Example) -> bool:
    named = example.headers["Content-Disposition"].partition("filename=")[2].rstrip(";")
    return path.name == named and path.read_bytes() == _content(example)


def _content(example: Example) -> bytes:
    """The body of the example's answer."""
    if example.json is not None:
        return example.json.encode()
    if example.members is None:
        return (example.text or "").encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in example.members:
            tar.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def _arguments(example: Example) -> list[str]:
    """What follows the route in the path: names, ids."""
    path = example.request.partition(" ")[2]
    route = example.route.partition(" ")[2].partition(",")[0]
    rest = path.partition("?")[0].partition(f"/api/v1/{route}")[2].strip("/")
    return [unquote(part) for part in rest.replace(",", "/").split("/") if part]


def _refusal(example: Example) -> list[tuple[str, str]]:
    """The errors that the client must raise, [] if none."""
    body = json.loads(example.json) if example.json else {}
    if example.status < 400 and example.route in IGNORED_ERRORS:
        return []
    errors = [(e["id"], e["msg"].strip()) for e in body.get("errors") or []]
    if errors and (example.route, errors[0][0]) in EMPTY_INSTEAD:
        return []
    if example.route == "GET compose/log" and example.status == 200:
        return []
    return errors


def _asked_by_client() -> list[Example]:
    """The examples whose request the client can send: it uses v1 and one way of asking."""
    known = [e for e in examples.read() if e.route in DRIVES and "format=" not in e.request]
    return [e for e in known if e.request == "GET /api/status" or _is_usual(e)]


def _is_usual(example: Example) -> bool:
    arguments = _arguments(example)
    takes_arguments = example.route not in WITHOUT_ARGUMENTS
    return (
        "/api/v1/" in example.request
        and bool(arguments) == takes_arguments
        and not (example.route == "GET blueprints/diff" and arguments[1:] != NEWEST)
        and not (example.route == "GET compose/status" and len(arguments) > 1)
        and not (example.route == "POST blueprints/tag" and "/changes/" in example.request)
        and example.route != "GET /api/status"
    )


def _is_about(request: Request, example: Example) -> bool:
    method, _, route = example.route.partition(",")[0].partition(" ")
    path = request.path.partition("?")[0]
    if example.route == "GET /api/status":
        return path == "/api/status"
    prefix = f"/api/v1/{route}"
    exact = example.route.startswith("POST compose")
    return request.method == method and (path == prefix if exact else path.startswith(prefix))


@pytest.mark.parametrize("example", _asked_by_client(), ids=str)
def test_example(example: Example, tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        if _is_about(request, example) and (
            example.route != "GET compose/status" or request.method == "GET"
        ):
            headers = {k: v for k, v in example.headers.items() if k != "Content-Length"}
            length = None if "Content-Length" in example.headers or example.json else -1
            return Reply(_content(example), example.status, headers, length)
        return json_reply(OTHERWISE[request.route])

    drive, judge = DRIVES[example.route]
    with serving(tmp_path / "api.socket", answer) as asked:
        client = Client(tmp_path / "api.socket")
        refusal = _refusal(example)
        if refusal or example.status in (405, 501):
            with pytest.raises(ApiError) as caught:
                drive(client, _arguments(example), example, tmp_path / "down")
            assert caught.value.status == example.status
            if refusal:
                assert list(caught.value.errors) == refusal
        else:
            result = drive(client, _arguments(example), example, tmp_path / "down")
            empty_instead = example.status >= 400
            body = json.loads(example.json) if example.json else None
            assert result == () if empty_instead else judge(result, body, example)
    assert any(_is_about(request, example) for request in asked)
    if example.request.startswith(("GET", "DELETE")) and "," not in example.request:
        expected = unquote(example.request.partition("?")[0])
        routes = [unquote(request.route) for request in asked]
        assert expected in routes or example.route in IGNORED_ERRORS


def test_every_route_that_the_client_uses_has_examples() -> None:
    assert {example.route for example in _asked_by_client()} == set(DRIVES)


def test_a_route_that_a_server_does_not_have(tmp_path: Path) -> None:
    for example in examples.read():
        if example.status not in (405, 501):
            continue
        with serving(tmp_path / "s", lambda request: Reply(status=example.status)):  # noqa: B023
            with pytest.raises(ApiError, match="cannot do") as caught:
                Client(tmp_path / "s").types()
            assert caught.value.remedy
