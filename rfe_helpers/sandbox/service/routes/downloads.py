"""Routes of section 7 that send files: image, metadata, results, logs."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, Response, StreamingResponse

from rfe_helpers.sandbox.build import image_types
from rfe_helpers.sandbox.service.routes.composes import EMPTY_LOG, compose_of
from rfe_helpers.sandbox.service.store import FINISHED, StoredCompose
from rfe_helpers.sandbox.service.wire import Call, Refusal, Route, Service

_BLOCK = 1 << 20
_TAR = "application/x-tar"


def image(service: Service, call: Call) -> Response:
    compose = compose_of(service, call)
    if compose.status != FINISHED:
        raise _wrong_state(compose)
    path = _artifact(service, compose)
    if path is None:
        raise Refusal(
            "InternalServerError",
            f"Error accessing image file for compose {compose.id}: no such file",
        )
    kind = image_types.find(compose.plan.kind)
    assert kind is not None
    return _File(path, headers=_headers(f"{compose.id}-{kind.filename}", kind.mime))


def metadata(service: Service, call: Call) -> Response:
    compose = compose_of(service, call)
    if not compose.ended:
        raise _wrong_state(compose)
    return _archive(f"{compose.id}-metadata.tar", [_manifest(service, compose)])


def results(service: Service, call: Call) -> Response:
    compose = compose_of(service, call)
    if not compose.ended:
        raise _wrong_state(compose)
    members = [_manifest(service, compose), _log(service, compose)]
    path = _artifact(service, compose)
    if path is not None:
        kind = image_types.find(compose.plan.kind)
        assert kind is not None
        members.append((f"{compose.id}-{kind.filename}", path))
    return _archive(f"{compose.id}.tar", members)


def logs(service: Service, call: Call) -> Response:
    compose = compose_of(service, call)
    if not compose.ended:
        msg = f"Build {compose.id} not in FINISHED or FAILED state."
        raise Refusal("BuildInWrongState", msg)
    return _archive(f"{compose.id}-logs.tar", [_log(service, compose)])


class _File(FileResponse):
    chunk_size = _BLOCK  # Starlette's 64 KiB take four times the processor time


# A member of an archive: its name in it, and its content or the file with the content.
Member = tuple[str, bytes | Path]


def _wrong_state(compose: StoredCompose) -> Refusal:
    msg = f"Build {compose.id} is in wrong state: {compose.status}"
    return Refusal("BuildInWrongState", msg)


def _artifact(service: Service, compose: StoredCompose) -> Path | None:
    path = service.queue.path(compose.id, compose.artifact)
    return path if compose.artifact and path.is_file() else None


def _manifest(service: Service, compose: StoredCompose) -> Member:
    """The manifest that the build wrote; the plan, if the build ended before it wrote one."""
    path = service.queue.path(compose.id, "manifest.json")
    if path.is_file():
        return f"{compose.id}.json", path
    plan = compose.plan
    manifest: dict[str, Any] = {
        "image_type": plan.kind,
        "ref": plan.ref,
        "parent": plan.parent,
        "url": plan.url,
        "blueprint": plan.blueprint.name,
        "blueprint_version": plan.blueprint.version,
        "requested_packages": list(plan.packages),
        "kernel": plan.kernel,
    }
    return f"{compose.id}.json", json.dumps(manifest, indent=2).encode()


def _log(service: Service, compose: StoredCompose) -> Member:
    path = service.queue.log(compose.id)
    return "logs/osbuild.log", path if path.is_file() else EMPTY_LOG.encode()


def _headers(filename: str, mime: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename={filename}", "Content-Type": mime}


def _archive(filename: str, members: Iterable[Member]) -> Response:
    return StreamingResponse(tar(members), headers=_headers(filename, _TAR))


def tar(members: Iterable[Member]) -> Iterator[bytes]:
    """A tar archive in pieces. The size of a file is read when it is opened: a log may grow."""
    for name, content in members:
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
            else:
                file_status = os.fstat(file.fileno())
                entry.size, entry.mtime = file_status.st_size, int(file_status.st_mtime)
            entry.mode = 0o600
            yield entry.tobuf(tarfile.GNU_FORMAT)
            left = entry.size
            while left:
                piece = file.read(min(left, _BLOCK)).ljust(min(left, _BLOCK), b"\0")
                left -= len(piece)
                yield piece
            yield b"\0" * (-entry.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


ROUTES = (
    Route("GET", "/compose/image/{id}", image),
    Route("GET", "/compose/metadata/{id}", metadata),
    Route("GET", "/compose/results/{id}", results),
    Route("GET", "/compose/logs/{id}", logs),
)
