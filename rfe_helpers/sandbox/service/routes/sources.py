"""Routes of section 4: sources. Version 0 addresses them by name, version 1 by id."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from rfe_helpers.build import blueprint as blueprint_format
from rfe_helpers.core import toml
from rfe_helpers.errors import BlueprintError, RfeError
from rfe_helpers.sandbox.service import sources
from rfe_helpers.sandbox.service.store import UnknownError
from rfe_helpers.sandbox.service.wire import (
    DONE,
    LARGE,
    Call,
    Refusal,
    Route,
    Service,
    distinct,
    load_json,
    lowered,
    not_found,
    problem,
)

_KEYS = (
    "id",
    "name",
    "type",
    "url",
    "check_gpg",
    "check_ssl",
    "system",
    "rhsm",
    "check_repogpg",
    "proxy",
    "gpgkeys",
    "distros",
    "module_hotfixes",
)


def list_sources(service: Service, call: Call) -> dict[str, Any]:
    key = "id" if call.version == 1 else "name"
    user = sorted(source[key] for source in service.store.sources())
    return {"sources": user + [source[key] for source in _system(service)]}


def info(service: Service, call: Call) -> dict[str, Any] | Response:
    if not call.path["names"]:
        raise not_found()
    output = call.format()
    key = "id" if call.version == 1 else "name"
    known = {source[key]: source for source in [*service.store.sources(), *_system(service)]}
    names = list(known) if call.path["names"] == "*" else distinct(call.path["names"])
    entries = {
        name: sources.for_version(known[name], call.version) for name in names if name in known
    }
    errors = [
        problem("UnknownSource", f"{name} is not a valid source")
        for name in names
        if name not in known
    ]
    if output == "toml":
        return Response(toml.dumps(entries))
    return {"sources": entries, "errors": errors}


def add(service: Service, call: Call) -> dict[str, Any]:
    if not call.content_type:
        raise Refusal("HTTPError", "malformed Content-Type header")
    if not call.body:
        raise Refusal("ProjectsError", "Missing source")
    try:
        source = sources.parse(_read(call), call.version)
    except sources.DistributionsError as error:
        raise Refusal("ProjectsError", str(error)) from None
    except ValueError as error:
        raise Refusal("ProjectsError", f"Problem parsing POST body: {error}") from None
    if source["id"] in [known["id"] for known in _system(service)]:
        msg = f"{source['id']} is a system source, it cannot be changed."
        raise Refusal("SystemSource", msg)
    service.store.set_source(source)
    return DONE


def delete(service: Service, call: Call) -> dict[str, Any]:
    name = call.path["names"].partition(",")[0]
    if not name:
        raise not_found()
    key = "id" if call.version == 1 else "name"
    if name in [source[key] for source in _system(service)]:
        raise Refusal("SystemSource", f"{name} is a system source, it cannot be deleted.")
    ids = [source["id"] for source in service.store.sources() if source[key] == name]
    try:
        service.store.delete_source(ids[0] if ids else "")
    except UnknownError:
        raise Refusal("UnknownSource", f"{name} is not a valid source.") from None
    return DONE


def _system(service: Service) -> list[dict[str, Any]]:
    try:
        return sources.system(service.index.system_sources())
    except RfeError as error:
        raise Refusal("ProjectsError", f"msg: {error.message}") from None


def _read(call: Call) -> dict[str, Any]:
    """The source in the body. Raises ValueError."""
    data = call.parse(load_json, _load_toml)
    if not isinstance(data, dict):
        raise ValueError("a source is an object")
    return lowered(data, _KEYS)


def _load_toml(body: bytes) -> dict[str, Any]:
    """A source in TOML, which may stand in a table named by its id."""
    try:
        data = blueprint_format.load_toml(body)
    except BlueprintError as error:
        raise ValueError(error.message) from None
    if len(data) == 1 and isinstance(inner := next(iter(data.values())), dict):
        data = {"id": next(iter(data)), **inner}
    return data


ROUTES = (
    Route("GET", "/projects/source/list", list_sources),
    Route("GET", "/projects/source/info/{names:path}", info),
    Route("POST", "/projects/source/new", add, lane=LARGE),
    Route("DELETE", "/projects/source/delete/{names:path}", delete),
)
