"""Routes of section 5: blueprints, their history, workspace, depsolve and freeze."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.responses import Response

from rfe_helpers.build import blueprint as blueprint_format
from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.core import run
from rfe_helpers.errors import BlueprintError, RfeError
from rfe_helpers.sandbox.build.image_types import ARCHITECTURE, DISTRO
from rfe_helpers.sandbox.service.depsolve import dependencies, solve
from rfe_helpers.sandbox.service.packages import AptPackage
from rfe_helpers.sandbox.service.store import UnknownError
from rfe_helpers.sandbox.service.wire import (
    DONE,
    LARGE,
    ONLY_V1,
    SOLVING,
    Call,
    Refusal,
    Route,
    Service,
    check_names,
    load_json,
    page,
    problem,
)

_NOT_UNDERSTOOD = (
    "400 Bad Request: The browser (or proxy) sent a request that this server could not understand: "
)
_HASH_PREFIXES = ("$2b$", "$5$", "$6$", "$y$")
# `openssl passwd` reads no more of a line.
_LONGEST_PASSWORD = 256
_MOST_PASSWORDS = 2000


def list_names(service: Service, call: Call) -> dict[str, Any]:
    names = service.store.blueprint_names()
    offset, limit = call.paging()
    offset = min(offset, len(names))
    limit = min(limit, len(names) - offset)
    shown = page(names, offset, limit)
    return {"total": len(names), "offset": offset, "limit": limit, "blueprints": shown}


def info(service: Service, call: Call) -> dict[str, Any] | Response:
    blueprints, changes, errors = [], [], []
    output = call.format()
    for name in call.names("names"):
        try:
            blueprint, changed = service.store.newest(name)
        except UnknownError:
            errors.append(problem("UnknownBlueprint", f"{name}: "))
            continue
        blueprints.append(blueprint)
        changes.append({"changed": changed, "name": name})
    if output == "toml":
        if errors:
            refusal = Refusal(errors[0]["id"], errors[0]["msg"])
            refusal.errors = list(errors)
            raise refusal
        return _one_as_toml(blueprints)
    entries = [blueprint.to_json() for blueprint in blueprints]
    return {"blueprints": entries, "changes": changes, "errors": errors}


def changes(service: Service, call: Call) -> dict[str, Any]:
    histories, errors = [], []
    offset, limit = call.paging()
    for name in call.names("names"):
        try:
            history = service.store.changes(name)
        except UnknownError:
            errors.append(problem("UnknownBlueprint", name))
            continue
        rows = [
            {
                "commit": change.id,
                "message": change.message,
                "revision": change.revision,
                "timestamp": change.timestamp,
            }
            for change in history
        ]
        histories.append({"changes": rows, "name": name, "total": len(rows)})
    return {"blueprints": histories, "errors": errors, "limit": limit, "offset": offset}


def change(service: Service, call: Call) -> dict[str, Any] | Response:
    blueprint = _commit(service, call)
    if call.format() == "toml":
        return _toml(blueprint)
    return blueprint.to_json()


def push(service: Service, call: Call) -> dict[str, Any]:
    blueprint = _read(call)
    distro, architecture = blueprint.distro, blueprint.architecture or ARCHITECTURE
    # As osbuild-composer, which looks at the architecture only when a distribution is named.
    if distro and (distro, architecture) != (DISTRO, ARCHITECTURE):
        raise Refusal(
            "BlueprintsError",
            f"'{distro}' is not a valid distribution (architecture '{architecture}')",
        )
    service.store.push(blueprint)
    return DONE


def set_workspace(service: Service, call: Call) -> dict[str, Any]:
    service.store.set_workspace(_read(call))
    return DONE


def delete_workspace(service: Service, call: Call) -> dict[str, Any]:
    name = call.name("name")
    try:
        service.store.delete_workspace(name)
    except UnknownError:
        raise Refusal("BlueprintsError", f"Unknown blueprint: {name}") from None
    return DONE


def undo(service: Service, call: Call) -> dict[str, Any]:
    blueprint = _commit(service, call)
    commit = call.path["commit"]
    service.store.push(blueprint, f"{blueprint.name}.toml reverted to commit {commit}")
    return DONE


def tag(service: Service, call: Call) -> dict[str, Any]:
    try:
        service.store.tag(call.name("name"))
    except UnknownError:
        raise Refusal("BlueprintsError", "Unknown blueprint") from None
    return DONE


def delete(service: Service, call: Call) -> dict[str, Any]:
    name = call.name("name")
    try:
        service.store.delete_blueprint(name)
    except UnknownError:
        raise Refusal("BlueprintsError", f"Unknown blueprint: {name}") from None
    return DONE


def diff(service: Service, call: Call) -> dict[str, Any]:
    name = call.name("name")
    for key, known in (("old", "NEWEST"), ("new", "WORKSPACE")):
        revision = call.name(key)
        if revision != known:
            raise Refusal("UnknownCommit", f"ggit-error: revspec '{revision}' not found (-3)")
    try:
        new, _ = service.store.newest(name)
        old = service.store.committed(name)
    except UnknownError:
        msg = f"Unknown blueprint name: {name}"
        raise Refusal("UnknownBlueprint", msg, status=404) from None
    before = {spec.name: spec.version for spec in old.packages}
    after = {spec.name: spec.version for spec in new.packages}
    # As osbuild-composer sorts them: what was added or changed, then what was removed.
    names = {**after, **before}

    def entry(versions: dict[str, str], package: str) -> dict[str, Any] | None:
        if package not in versions:
            return None
        return {"Package": {"name": package, "version": versions[package]}}

    return {
        "diff": [
            {"new": entry(after, package), "old": entry(before, package)}
            for package in names
            if before.get(package) != after.get(package)
        ]
    }


def depsolve(service: Service, call: Call) -> dict[str, Any]:
    solutions, errors = [], []
    for name in call.names("names"):
        try:
            blueprint, _ = service.store.newest(name)
        except UnknownError:
            errors.append(problem("UnknownBlueprint", f"{name}: blueprint not found"))
            continue
        packages: list[AptPackage] = []
        try:
            _, packages = solve(service, blueprint, service.extra_sources())
        except RfeError as error:
            errors.append(problem("BlueprintsError", f"{name}: {error.message}"))
        solved = dependencies(service, packages)
        solutions.append({"blueprint": blueprint.to_json(), "dependencies": solved})
    return {"blueprints": solutions, "errors": errors}


def freeze(service: Service, call: Call) -> dict[str, Any] | Response:
    frozen_blueprints, errors = [], []
    output = call.format()
    for name in call.names("names"):
        try:
            blueprint, _ = service.store.newest(name)
            frozen_blueprints.append(frozen(service, blueprint))
        except UnknownError:
            errors.append(problem("UnknownBlueprint", f"{name}: blueprint not found"))
            break
        except RfeError as error:
            errors.append(problem("BlueprintsError", f"{name}: {error.message}"))
            break
    if output == "toml":
        return _one_as_toml(frozen_blueprints) if frozen_blueprints else Response()
    entries = [{"blueprint": blueprint.to_json()} for blueprint in frozen_blueprints]
    return {"blueprints": entries, "errors": errors}


def frozen(service: Service, blueprint: Blueprint) -> Blueprint:
    """The blueprint with its globs expanded and exact versions. Raises RfeError."""
    _, packages = solve(service, blueprint, service.extra_sources())
    exact = {package.name: package.evra for package in packages}

    def freeze_specs(specs: tuple[PackageSpec, ...]) -> tuple[PackageSpec, ...]:
        words = service.index.resolve(specs, service.extra_sources())
        names = sorted({word.partition("=")[0] for word in words})
        # A virtual package is not in the solution under its own name; any version of it will do.
        return tuple(PackageSpec(name, exact.get(name, "*")) for name in names)

    return replace(
        blueprint,
        packages=freeze_specs(blueprint.packages),
        modules=freeze_specs(blueprint.modules),
    )


# details ------------------------------------------------------------------------------------------


def _commit(service: Service, call: Call) -> Blueprint:
    name, commit = call.name("name"), call.name("commit")
    try:
        return service.store.change(name, commit)
    except UnknownError as error:
        raise Refusal("UnknownCommit", f"Unknown {error.what}") from None


def _one_as_toml(blueprints: list[Blueprint]) -> Response:
    if len(blueprints) > 1:
        raise Refusal("HTTPError", "toml format only supported when requesting one blueprint")
    return _toml(blueprints[0])


def _toml(blueprint: Blueprint) -> Response:
    try:
        return Response(blueprint_format.to_toml(blueprint))
    except BlueprintError as error:
        raise Refusal("BlueprintsError", error.message) from None


def _read(call: Call) -> Blueprint:
    """The blueprint in the body, its passwords hashed. Raises Refusal."""
    if not call.content_type:
        raise Refusal("BlueprintsError", "missing Content-Type header")
    if not call.body:
        raise Refusal("BlueprintsError", "Missing blueprint")
    try:
        blueprint = call.parse(
            lambda body: blueprint_format.parse_json(load_json(body)), blueprint_format.parse_toml
        )
    except BlueprintError as error:
        # osbuild-composer answers two checks of the content in words of their own.
        own = error.message.startswith(("Invalid 'version'", "All package entries"))
        raise Refusal(
            "BlueprintsError", error.message if own else _NOT_UNDERSTOOD + error.message
        ) from None
    except ValueError as error:
        raise Refusal("BlueprintsError", f"{_NOT_UNDERSTOOD}{error}") from None
    check_names(blueprint.name)
    return _with_hashed_passwords(blueprint)


def _with_hashed_passwords(blueprint: Blueprint) -> Blueprint:
    users = blueprint.customizations.get("user", [])
    if not any("password" in user for user in users):
        return blueprint
    plain = {user.get("password", "") for user in users}
    hashes = _hashes([password for password in plain if not _is_hash(password)])
    with_hashes = []
    for user in users:
        entry = {key: value for key, value in user.items() if key != "password"}
        if password := user.get("password"):
            entry["password"] = hashes.get(password, password)
        with_hashes.append(entry)
    return replace(blueprint, customizations={**blueprint.customizations, "user": with_hashes})


def _is_hash(password: str) -> bool:
    return not password or password.startswith(_HASH_PREFIXES)


def _hashes(passwords: list[str]) -> dict[str, str]:
    """SHA-512 crypt of each password, by one openssl, which gets them on stdin."""
    for password in passwords:
        if len(password.encode()) > _LONGEST_PASSWORD or not password.isprintable():
            raise Refusal(
                "BlueprintsError",
                f"a password must be printable and have at most {_LONGEST_PASSWORD} bytes",
            )
    if len(passwords) > _MOST_PASSWORDS:
        msg = f"more than {_MOST_PASSWORDS} passwords are not crypted at once"
        raise Refusal("BlueprintsError", msg)
    if not passwords:
        return {}
    argv = ["openssl", "passwd", "-6", "-stdin"]
    lines = "".join(f"{password}\n" for password in passwords)
    return dict(zip(passwords, run.run(argv, input=lines, seconds=60).stdout.split(), strict=True))


ROUTES = (
    Route("GET", "/blueprints/list", list_names),
    Route("GET", "/blueprints/info/{names:path}", info, follows=True),
    Route("GET", "/blueprints/changes/{names:path}", changes, follows=True),
    Route("GET", "/blueprints/change/{name}/{commit}", change, ONLY_V1, follows=True),
    Route("POST", "/blueprints/new", push, lane=LARGE, stores=True),
    Route("POST", "/blueprints/workspace", set_workspace, lane=LARGE, stores=True),
    Route("DELETE", "/blueprints/workspace/{name}", delete_workspace, follows=True),
    Route("POST", "/blueprints/undo/{name}/{commit}", undo, follows=True),
    Route("POST", "/blueprints/tag/{name}", tag, follows=True),
    Route("DELETE", "/blueprints/delete/{name}", delete, follows=True),
    Route("GET", "/blueprints/diff/{name}/{old}/{new}", diff, follows=True),
    Route("GET", "/blueprints/depsolve/{names:path}", depsolve, lane=SOLVING, follows=True),
    Route("GET", "/blueprints/freeze/{names:path}", freeze, lane=SOLVING, follows=True),
)
