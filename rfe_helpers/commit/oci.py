"""Write container images as OCI archives, layer by layer, with the standard library alone.

The format is that of the OCI image specification: a layout, an index, a manifest, a configuration,
and layers that are tars, gzipped or not. The index has no reference name and no platform, so an
archive loads as an untagged image.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rfe_helpers.core import files

_OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Layer:
    """A tar, gzipped or not: digest and size of the file, and the digest of the tar in it."""

    path: Path
    digest: str
    size: int
    content_digest: str

    @property
    def media_type(self) -> str:
        """The type that a manifest gives it."""
        return f"{_OCI}.layer.v1.tar" + ("+gzip" if self.digest != self.content_digest else "")

    @classmethod
    def of_tar(cls, path: Path) -> Layer:
        """A layer that is an existing tar, not gzipped: for content that is compressed already."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path, digest, path.stat().st_size, digest)


def write_layer(
    target: Path, fill: Callable[[tarfile.TarFile], None], *, compression: int = 6
) -> Layer:
    """Write a layer with the entries that `fill` adds; the same entries give the same digests."""
    with target.open("wb") as file:
        outer = _Hashing(file)
        with gzip.GzipFile("", "wb", compression, outer, mtime=0) as zipped:
            inner = _Hashing(zipped)
            with _stream(inner) as tar:
                fill(tar)
    return Layer(target, outer.digest.hexdigest(), outer.size, inner.digest.hexdigest())


def write_archive(
    target: Path, layers: Sequence[Layer], config: Mapping[str, Any], *, created_by: str
) -> None:
    """Write an image of `layers`, lowest first; `config` is the container's: Cmd, Env, …"""
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    configuration = {
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config),
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{layer.content_digest}" for layer in layers],
        },
        "history": [{"created": created, "created_by": created_by} for _ in layers],
    }
    config_blob = _json(configuration)
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _described(f"{_OCI}.config.v1+json", config_blob),
        "layers": [_descriptor(layer.media_type, layer.digest, layer.size) for layer in layers],
    }
    manifest_blob = _json(manifest)
    index = {
        "schemaVersion": 2,
        "manifests": [_described(f"{_OCI}.manifest.v1+json", manifest_blob)],
    }
    with files.replacing(target) as temporary, tarfile.open(temporary, "w") as archive:
        add_file(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        add_file(archive, "index.json", _json(index))
        for blob in (manifest_blob, config_blob):
            add_file(archive, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
        for layer in layers:
            entry = tarfile.TarInfo(f"blobs/sha256/{layer.digest}")
            entry.size, entry.mode = layer.size, 0o644
            with layer.path.open("rb") as file:
                archive.addfile(entry, file)


def add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def add_directory(archive: tarfile.TarFile, name: str, mode: int = 0o755) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    archive.addfile(entry)


def add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    """A symbolic link."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    entry.mode = 0o777  # as on a disk: with another one OSTree's object is not what it is named by
    archive.addfile(entry)


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry without owner and time, in place; also a filter for `TarFile.add`."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


@dataclass
class _Hashing:
    """A file that counts and digests what is written to it."""

    file: IO[bytes] | gzip.GzipFile
    size: int = 0

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _stream(file: _Hashing) -> tarfile.TarFile:
    """A tar that is written sequentially: a digest cannot follow seeks."""
    return tarfile.open(fileobj=file, mode="w|", bufsize=1 << 20)  # type: ignore[call-overload,no-any-return]


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _described(kind: str, blob: bytes) -> dict[str, Any]:
    return _descriptor(kind, hashlib.sha256(blob).hexdigest(), len(blob))


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}
