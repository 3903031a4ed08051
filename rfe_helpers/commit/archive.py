"""The archives in which Image Builder delivers a commit, read without unpacking them.

Their layout is osbuild's (osbuild/images, June 2026): commit.tar holds ./repo and
./compose.json; container.tar is an OCI archive with the repository in one of its layers, in
usr/share/nginx/html (RHEL 8.5 and later) or var/www/html (RHEL 8.4). `contents` reads headers up
to the commit object and no further, so it is fast where that comes first.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rfe_helpers.core import files, journal
from rfe_helpers.errors import CommitError

_REPOSITORIES = ("usr/share/nginx/html/repo", "var/www/html/repo")
_COMMIT_OBJECT = re.compile(r"objects/([0-9a-f]{2})/([0-9a-f]{62})\.commit")
# Directories that ostree expects, but that are not archived because they are empty.
_SKELETON = ("refs/heads", "refs/remotes", "refs/mirrors", "tmp", "state", "extensions")
_EXTRACT = "tar -xf {} -C {} --wildcards --transform='s,^.*repo/,,' '*repo/*'"
_END = 1024  # bytes of the two empty blocks
_REMEDY = "give a commit.tar or a container.tar"

# A tar file that may hold the repository, and the paths in it where the repository may be.
_Layer = tuple[tarfile.TarFile, tuple[str, ...]]


@dataclass
class Contents:
    """The contents of an archive: refs with their commits, commit objects, and compose.json.

    `commits` are the raw objects by commit id; their checksums are not verified.
    """

    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, bytes] = field(default_factory=dict)
    compose: dict[str, Any] | None = None

    def complete(self, wants_compose: bool) -> bool:
        known = any(commit in self.commits for commit in self.refs.values())
        return known and (self.compose is not None or not wants_compose)


def is_container(path: Path) -> bool:
    """Whether an archive is a container.tar, not a commit.tar. Raises CommitError for others."""
    try:
        with _layers(path) as layers:
            return any(prefixes == _REPOSITORIES for _, prefixes in layers)
    except OSError as error:
        raise CommitError(
            f"cannot read {path}: {error.strerror or error}", remedy=again(path)
        ) from None


def again(path: Path) -> str:
    """How to get an archive again that is missing or cut off."""
    compose = re.match(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=-)", path.name)
    lab = path.absolute().parent.parent
    if compose is None or path.absolute().parent.name != "composes":
        return "see whether the path is right; if the file was copied or downloaded, do it again"
    composes, where = shlex.quote(f"{lab}/composes"), f"--lab {shlex.quote(str(lab))}"
    return (
        f"`rfe compose download {compose[0]} --to {composes} {where}` fetches it again; if that "
        f"compose has been deleted, remove the file and run `rfe solve 20 {where}`"
    )


def contents(path: Path) -> Contents:
    """The contents of a commit.tar or container.tar. Raises CommitError for others."""
    archived = Contents()
    with _layers(path) as layers:
        for tar, prefixes in layers:
            _read_contents(tar, prefixes, archived)
            if archived.commits:
                break
    return archived


def unpack(path: Path, destination: Path) -> Path:
    """Write the repository inside a commit.tar or container.tar to the directory `destination`.

    Only regular files with paths inside the repository are accepted, so that no archive can write
    anywhere else. Returns `destination`. Raises CommitError.
    """
    try:
        journal.record_shell(unpacking(path, destination))
        with _layers(path) as layers, files.writing(destination.parent):
            if any(_unpack(tar, prefixes, destination) for tar, prefixes in layers):
                return destination
    except OSError as error:
        raise CommitError(
            f"cannot unpack {path}: {error.strerror or error}",
            remedy=f"check that {destination.parent} is writable",
        ) from None
    raise CommitError(f"there is no OSTree repository in {path}")


def unpacking(path: Path, destination: Path) -> str:
    """The shell commands that do what `unpack` does."""
    archive, directory = shlex.quote(str(path)), shlex.quote(str(destination))
    # The repository is in a layer of an image, among blobs that are not archives.
    image = f"{directory}-image"
    from_layers = (
        f"mkdir -p {image} && tar -xf {archive} -C {image}\n"
        f"for layer in {image}/blobs/sha256/*; do\n"
        f"    {_EXTRACT.format('$layer', directory)} 2>/dev/null || true\n"
        "done"
    )
    extract = from_layers if is_container(path) else _EXTRACT.format(archive, directory)
    return f"mkdir -p {directory}/{{{','.join(_SKELETON)}}}\n{extract}"


def parse_object(content: bytes, where: object) -> dict[str, Any]:
    """A JSON object from an archive. Raises CommitError with its name, `where`."""
    try:
        value = json.loads(content)
    except ValueError as error:
        raise CommitError(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CommitError(f"{where} is not a JSON object")
    return value


@contextmanager
def _layers(path: Path) -> Iterator[Iterator[_Layer]]:
    """The layers of an archive, topmost first. Raises CommitError if it cannot be read."""
    try:
        with tarfile.open(path, "r:") as outer:
            _check_end(path)
            yield _layers_of(outer, path)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        remedy = again(path) if "unexpected end" in str(error) else _REMEDY
        raise CommitError(f"{path} is not a readable tar file: {error}", remedy=remedy) from None


def _check_end(path: Path) -> None:
    """Raise CommitError for an archive that was cut off, wherever: a tar ends with two empty
    blocks. Reading would not notice, as it stops at the commit."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(-min(size, _END), os.SEEK_END)
        if file.read() != bytes(_END):
            raise CommitError(
                f"{path} is cut off: its {size} bytes do not end as a tar file does",
                remedy=again(path),
            )


def _layers_of(outer: tarfile.TarFile, path: Path) -> Iterator[_Layer]:
    for member in outer:
        name = _normal(member.name)
        if name in ("oci-layout", "index.json") or name.startswith("blobs/"):
            break
        if name == "compose.json" or name.startswith("repo/"):
            yield outer, ("repo",)
            return
    else:
        raise CommitError(f"{path} holds neither a repository nor an OCI image", remedy=_REMEDY)
    blobs = {_normal(member.name): member for member in outer}
    for digest in reversed(_layer_digests(outer, blobs, path)):
        with _content(outer, _blob(blobs, digest, path)) as stream:
            head = stream.read(4)
            stream.seek(0)
            if head == b"\x28\xb5\x2f\xfd":
                raise CommitError(
                    f"{path} has a layer compressed with zstd, which is not supported",
                    remedy="convert it with `skopeo copy --dest-compress-format gzip`",
                )
            compressed = head[:2] == b"\x1f\x8b"
            with tarfile.open(fileobj=stream, mode="r|gz" if compressed else "r:") as layer:
                yield layer, _REPOSITORIES


def _layer_digests(
    outer: tarfile.TarFile, blobs: Mapping[str, tarfile.TarInfo], path: Path
) -> list[str]:
    """The layers of the image's manifest, lowest first (OCI image-spec: index, manifest)."""
    if "index.json" not in blobs:
        raise CommitError(f"{path} is not an OCI archive: it has no index.json", remedy=_REMEDY)
    document = parse_object(_read(outer, blobs["index.json"]), "index.json")
    try:
        for _ in range(2):  # an index may name another index, but not a third
            if "manifests" not in document:
                break
            if len(document["manifests"]) != 1:
                raise CommitError(f"{path} holds {len(document['manifests'])} images, not one")
            digest = str(document["manifests"][0]["digest"])
            document = parse_object(_read(outer, _blob(blobs, digest, path)), digest)
        return [str(layer["digest"]) for layer in document["layers"]]
    except (KeyError, TypeError) as error:
        raise CommitError(f"{path} is not an OCI archive: its manifest lacks {error}") from None


def _blob(blobs: Mapping[str, tarfile.TarInfo], digest: str, path: Path) -> tarfile.TarInfo:
    member = blobs.get("blobs/" + digest.replace(":", "/", 1))
    if member is None:
        raise CommitError(f"{path} is not an OCI archive: it has no blob {digest}", remedy=_REMEDY)
    return member


def _read_contents(tar: tarfile.TarFile, prefixes: tuple[str, ...], archived: Contents) -> None:
    """Read headers up to the ref, its commit object and, in a commit.tar, compose.json."""
    wants_compose = prefixes == ("repo",)
    for member in tar:
        name = _normal(member.name)
        if wants_compose and name == "compose.json":
            archived.compose = parse_object(_read(tar, member), name)
        elif (inner := _below(name, prefixes)) is None or not _keep(tar, member, inner, archived):
            continue
        if archived.complete(wants_compose):
            return


def _keep(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, archived: Contents) -> bool:
    """Keep a ref or a commit object; return whether the member is one."""
    if name.startswith("refs/heads/") and member.isreg():
        archived.refs[name.removeprefix("refs/heads/")] = (
            _read(tar, member).decode(errors="replace").strip()
        )
        return True
    match = _COMMIT_OBJECT.fullmatch(name) if name.endswith(".commit") else None
    if match is not None:
        archived.commits[match[1] + match[2]] = _read(tar, member)
    return match is not None


def _unpack(tar: tarfile.TarFile, prefixes: tuple[str, ...], destination: Path) -> bool:
    """Write the files below one of `prefixes`; return whether there are any."""
    directories: set[str] = set()
    for member in tar:
        inner = _below(_normal(member.name), prefixes)
        if inner is None or member.isdir():
            continue
        parts = inner.split("/")
        if not member.isreg() or any(part in ("", ".", "..") for part in parts):
            raise CommitError(
                f"the archive holds {member.name!r}, which does not belong in a repository"
            )
        # There are ten thousand files: no Path and no reader for each of them.
        directory, _, _ = inner.rpartition("/")
        if directory not in directories:
            (destination / directory).mkdir(parents=True, exist_ok=True)
            directories.add(directory)
        tar.makefile(member, f"{destination}/{inner}")
    if directories:
        for directory in _SKELETON:
            (destination / directory).mkdir(parents=True, exist_ok=True)
    return bool(directories)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member) if member.isreg() else None
    if stream is None:
        raise CommitError(f"{member.name!r} in the archive is not a regular file")
    return stream


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    # The largest members, commit objects with the sizes of all files, have a few megabytes.
    if member.size > 64 << 20:
        raise CommitError(f"{member.name!r} in the archive is too large: {member.size} bytes")
    with _content(tar, member) as stream:
        return stream.read()


def _below(name: str, prefixes: tuple[str, ...]) -> str | None:
    """`name` relative to the repository; None if it is not inside it."""
    for prefix in prefixes:
        if name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] == "/":
            return name[len(prefix) + 1 :]
    return None


def _normal(name: str) -> str:
    return name.removeprefix("./")
