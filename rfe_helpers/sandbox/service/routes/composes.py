"""Routes of sections 6 and 7: starting composes, their states, logs and results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.errors import BlueprintError, BuilderError, RfeError
from rfe_helpers.sandbox.build import (
    containers,
    customizations,
    disk_image,
    image_types,
    offline,
    ostree_options,
)
from rfe_helpers.sandbox.build.image_types import ImageType
from rfe_helpers.sandbox.build.ostree_options import OstreeOptions
from rfe_helpers.sandbox.service import depsolve
from rfe_helpers.sandbox.service.store import (
    FAILED,
    FINISHED,
    RUNNING,
    WAITING,
    ComposePlan,
    StoredCompose,
    UnknownError,
    WrongStateError,
)
from rfe_helpers.sandbox.service.wire import (
    JSON,
    STARTING,
    Call,
    Refusal,
    Route,
    Service,
    check_names,
    distinct,
    load_json,
    lowered,
    not_found,
    problem,
)

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
EMPTY_LOG = "The compose result is empty.\n"
_TESTS = {"1": FAILED, "2": FINISHED}
_PROVIDERS = (
    "aws",
    "aws.s3",
    "generic.s3",
    "azure",
    "gcp",
    "vmware",
    "oci",
    "container",
    "pulp.ostree",
)
# The parent of a test compose: by the contract, its url is never fetched.
_FAKE_CHECKSUM = "02604b2da6e954bd34b8b82a835e5a77d2b60ffa" + 24 * "0"


# starting -----------------------------------------------------------------------------------------


def start(service: Service, call: Call) -> dict[str, Any]:
    if call.content_type != JSON:
        raise Refusal("MissingPost", "blueprint must be json")
    data = _read(call)
    name = data.get("blueprint_name", "")
    check_names(name)
    try:
        blueprint = service.store.committed(name)
    except UnknownError:
        raise Refusal("UnknownBlueprint", f"Unknown blueprint name: {name}") from None
    kind = _kind(blueprint, data.get("compose_type", ""))
    plan = _plan(service, blueprint, kind, data, test=_TESTS.get(call.query.get("test", ""), ""))
    identity = service.store.add_compose(plan)
    service.queue.wake()
    warnings = customizations.warnings(blueprint, kind) or None
    return {"build_id": identity, "status": True, "warnings": warnings}


def _read(call: Call) -> dict[str, Any]:
    """The request, the types of its values checked; a wrong one is 404, as in osbuild-composer."""
    try:
        data = load_json(call.body)
        if not isinstance(data, dict):
            raise ValueError("not an object")
        data = lowered(data, ("blueprint_name", "compose_type", "size", "ostree", "upload"))
        _check_types(data, {"blueprint_name": str, "compose_type": str, "size": int})
        if not 0 <= data.get("size", 0) < 2**63:
            raise ValueError("size")
        data["ostree"] = _ostree(data.get("ostree", {}))
    except ValueError:
        raise not_found() from None
    upload = data.pop("upload", None) if call.version == 1 else None
    if upload is not None:
        provider = upload.get("provider") if isinstance(upload, dict) else None
        if provider not in _PROVIDERS:
            raise not_found()
        raise Refusal("UploadError", f'uploads to "{provider}" are not supported by the sandbox')
    return data


def _ostree(value: Any) -> OstreeOptions:
    if not isinstance(value, dict):
        raise ValueError("ostree")
    keys = {"ref": str, "parent": str, "url": str, "contenturl": str, "rhsm": bool}
    options = lowered(value, keys)
    _check_types(options, keys)
    return OstreeOptions(**options)


def _check_types(data: Mapping[str, Any], keys: Mapping[str, type]) -> None:
    for key, kind in keys.items():
        if key in data and type(data[key]) is not kind:
            raise ValueError(key)


def _kind(blueprint: Blueprint, name: str) -> ImageType:
    distro = blueprint.distro or image_types.DISTRO
    architecture = blueprint.architecture or image_types.ARCHITECTURE
    if (distro, architecture) != (image_types.DISTRO, image_types.ARCHITECTURE):
        msg = f"Unknown distribution: {distro} for arch {architecture}"
        raise Refusal("DistroError", msg)
    kind = image_types.find(name)
    if kind is None:
        msg = f'Failed to get compose type "{name}": invalid image type: {name}'
        raise Refusal("ComposeError", msg)
    return kind


def _plan(
    service: Service, blueprint: Blueprint, kind: ImageType, data: dict[str, Any], *, test: str
) -> ComposePlan:
    """Check, depsolve and resolve, in the order of the contract's answers."""
    options: OstreeOptions = data["ostree"]
    try:
        customizations.check(blueprint, kind)
        ostree_options.check(options, kind)
        if "installer" in kind.customizations:
            offline.check(blueprint.customizations)
        size = data.get("size", 0) or kind.size
    except (BlueprintError, BuilderError) as error:
        msg = f"failed to initialize osbuild manifest: {error.message}"
        raise Refusal("ManifestCreationFailed", msg) from None
    sources = service.extra_sources()
    requested: list[str] = []
    dependencies: list[dict[str, Any]] = []
    if not kind.deploys:
        try:
            also = kind.adds if kind.ostree else (*kind.adds, *disk_image.PACKAGES)
            requested, packages = depsolve.solve(service, blueprint, sources, also)
            dependencies = depsolve.dependencies(service, packages)
        except RfeError as error:
            raise Refusal("DepsolveError", error.message, status=500) from None
    try:
        if not test:
            containers.resolve(blueprint.containers)
    except RfeError as error:
        raise Refusal("ContainerResolveError", error.message, status=500) from None
    try:
        parent = None
        if options.url:
            parent = _FAKE_CHECKSUM if test else ostree_options.resolve(options, kind)
    except BuilderError as error:
        raise Refusal("OSTreeOptionsError", error.message) from None
    return ComposePlan(
        blueprint=blueprint,
        kind=kind.name,
        ref=options.ref or image_types.DEFAULT_REF,
        size=size,
        parent=parent,
        url=options.url,
        kernel=customizations.kernel(blueprint),
        packages=tuple(requested),
        sources=sources,
        dependencies=dependencies,
        test=test,
    )


# states -------------------------------------------------------------------------------------------


def types(service: Service, call: Call) -> dict[str, Any]:
    call.check_distro()
    return {"types": [{"name": kind.name, "enabled": True} for kind in image_types.IMAGE_TYPES]}


def queue(service: Service, call: Call) -> dict[str, Any]:
    composes = service.store.composes(WAITING, RUNNING)
    return {
        "new": [_entry(compose) for compose in composes if compose.status == WAITING],
        "run": [_entry(compose) for compose in composes if compose.status == RUNNING],
    }


def finished(service: Service, call: Call) -> dict[str, Any]:
    return {"finished": _entries(service.store.composes(FINISHED))}


def failed(service: Service, call: Call) -> dict[str, Any]:
    return {"failed": _entries(service.store.composes(FAILED))}


def status(service: Service, call: Call) -> dict[str, Any]:
    if not call.path["ids"]:
        raise not_found()
    composes = service.store.composes()
    if call.path["ids"] != "*":
        identities = {_identity(text) for text in distinct(call.path["ids"])}
        composes = [compose for compose in composes if compose.id in identities]
    name, state, kind = (call.query.get(key) for key in ("blueprint", "status", "type"))
    if name:
        check_names(name)
    composes = [
        compose
        for compose in composes
        if (not name or compose.plan.blueprint.name == name)
        and (not state or compose.status == state)
        and (not kind or compose.plan.kind == kind)
    ]
    return {"uuids": _entries(composes)}


def info(service: Service, call: Call) -> dict[str, Any]:
    text = call.path["id"]
    try:
        compose = service.store.compose(_identity(text))
    except UnknownError:
        raise _invalid(text) from None
    return {
        "id": compose.id,
        "config": "",
        "blueprint": compose.plan.blueprint.to_json(),
        "commit": "",
        "deps": {"packages": compose.plan.dependencies},
        "compose_type": compose.plan.kind,
        "queue_status": compose.status,
        "image_size": compose.plan.size,
    }


def log(service: Service, call: Call) -> dict[str, Any] | Response:
    compose = compose_of(service, call)
    if compose.status == WAITING:
        msg = f"Build {compose.id} has not started yet. No logs to view."
        raise Refusal("BuildInWrongState", msg, status=200)
    path = service.queue.log(compose.id)
    text = path.read_text(errors="replace") if path.exists() else ""
    if compose.status == RUNNING:
        size = call.query.get("size", "")
        if not (size.isascii() and size.isdigit() and len(size) < 10):
            return Response(f"Build {compose.id} is still running.\n")
        return Response(_tail(text, int(size) * 1024))
    return Response(text or EMPTY_LOG)


def _tail(text: str, size: int) -> str:
    """About the last `size` characters, from the start of a line, under their stage's header."""
    if len(text) <= size:
        return text
    cut = text.find("\n", len(text) - size - 1) + 1 or len(text)
    rest = text[cut:]
    start = text.rfind("Pipeline: ", 0, cut)
    if start < 0 or rest.startswith("Pipeline: "):
        return rest
    header = text[start:].split("Output:\n", 1)[0]
    return f"{header}Output:\n{rest}" if start + len(header) < cut else rest


def cancel(service: Service, call: Call) -> dict[str, Any]:
    compose = compose_of(service, call)
    try:
        service.queue.cancel(compose.id)
    except UnknownError:
        raise _unknown(compose.id) from None
    except WrongStateError:
        msg = f"Build {compose.id} is not in WAITING or RUNNING."
        raise Refusal("BuildInWrongState", msg) from None
    return {"uuid": compose.id, "status": True}


def delete(service: Service, call: Call) -> dict[str, Any]:
    deleted, errors = [], []
    if not call.path["ids"]:
        raise not_found()
    for text in distinct(call.path["ids"]):
        if not _UUID.fullmatch(text):
            errors.append(problem("UnknownUUID", f"{text} is not a valid uuid"))
            continue
        try:
            service.queue.delete(text.lower())
            deleted.append({"uuid": text.lower(), "status": True})
        except UnknownError:
            errors.append(problem("UnknownUUID", f"compose {text} doesn't exist"))
        except WrongStateError:
            msg = f"Compose {text} is not in FINISHED or FAILED."
            errors.append(problem("BuildInWrongState", msg))
    return {"uuids": deleted, "errors": errors}


def compose_of(service: Service, call: Call) -> StoredCompose:
    """The compose whose id is in the path. Raises Refusal."""
    text = call.path["id"]
    try:
        return service.store.compose(_identity(text))
    except UnknownError:
        raise _unknown(text) from None


def _identity(text: str) -> str:
    """The id of a compose as the store has it. Raises Refusal if the text is not a UUID."""
    if not _UUID.fullmatch(text):
        raise _invalid(text)
    return text.lower()


def _invalid(text: str) -> Refusal:
    return Refusal("UnknownUUID", f"{text} is not a valid build uuid")


def _unknown(text: str) -> Refusal:
    return Refusal("UnknownUUID", f"Compose {text} doesn't exist")


def _entries(composes: list[StoredCompose]) -> list[dict[str, Any]]:
    return [_entry(compose) for compose in sorted(composes, key=lambda compose: compose.id)]


def _entry(compose: StoredCompose) -> dict[str, Any]:
    times = {"job_started": compose.started, "job_finished": compose.finished}
    return {
        "id": compose.id,
        "blueprint": compose.plan.blueprint.name,
        "version": compose.plan.blueprint.version,
        "compose_type": compose.plan.kind,
        "image_size": compose.plan.size if compose.status == FINISHED else 0,
        "queue_status": compose.status,
        "job_created": compose.created,
        **{key: value for key, value in times.items() if value is not None},
    }


ROUTES = (
    Route("POST", "/compose", start, lane=STARTING, follows=True),
    Route("GET", "/compose/types", types),
    Route("GET", "/compose/queue", queue),
    Route("GET", "/compose/finished", finished),
    Route("GET", "/compose/failed", failed),
    Route("GET", "/compose/status/{ids:path}", status),
    Route("GET", "/compose/info/{id}", info),
    Route("GET", "/compose/log/{id}", log),
    Route("DELETE", "/compose/cancel/{id}", cancel),
    Route("DELETE", "/compose/delete/{ids:path}", delete),
)
