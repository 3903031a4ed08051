"""From a commit to the artifact of a compose.

commit.tar      `./compose.json` and `./repo/`, an archive repository with the one new commit
container.tar   an OCI archive whose only layer is nginx and that repository; it serves
                http://HOST:8080/repo. With no parent, the repository has a static delta, too
installer.iso   made in offline.py
disk.qcow2      made in guest_image.py
image.raw.xz    made in raw.py
simplified-installer.iso   made in simplified.py

The first two follow section 13 of the weldr API contract. What a reader of the commit needs first
(compose.json, configuration, ref, commit object) comes first in commit.tar.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rfe_helpers.commit import oci
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import files, run
from rfe_helpers.errors import BuilderError, CommandFailedError
from rfe_helpers.sandbox.build import (
    base,
    guest_image,
    image_types,
    mmdebstrap,
    offline,
    raw,
    simplified,
    static_delta,
    tree,
)

WEB_ROOT = "usr/share/nginx/html"
SPACE = 4_000_000_000
_NGINX_CONF = """\
worker_processes auto;
pid /tmp/nginx.pid;
daemon off;
events { worker_connections 1024; }
http {
    access_log /dev/stdout;
    error_log /dev/stderr;
    sendfile on;
    # An OSTree client requests thousands of small files.
    keepalive_requests 100000;
    server {
        listen 8080;
        root /usr/share/nginx/html;
    }
}
"""
# Debian's nginx runs its workers as nobody:nogroup.
_USERS = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
_GROUPS = "root:x:0:\nnogroup:x:65534:\n"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Writable for any user that the container runs as.
_DIRECTORIES = {
    "usr": 0o755,
    "usr/share": 0o755,
    "usr/share/nginx": 0o755,
    WEB_ROOT: 0o755,
    "tmp": 0o1777,
    "var": 0o755,
    "var/log": 0o755,
    "var/log/nginx": 0o777,
    "var/lib": 0o755,
    "var/lib/nginx": 0o777,
    "var/www": 0o755,
}
# The links of Debian's base-files, and the web root of RHEL 8.4's container, which documents of
# that time use.
_LINKS = {
    **{name: f"usr/{name}" for name in ("bin", "lib", "lib64", "sbin")},
    "var/www/html": f"/{WEB_ROOT}",
}
# The types that are not a repository with the commit.
_MAKERS = {
    "edge-installer": offline.build,
    "edge-raw-image": raw.build,
    "edge-simplified-installer": simplified.build,
    "guest-image": guest_image.build,
}


def build(request: tree.Request, work: tree.Work) -> Path:
    """Make the artifact of a compose in `work.directory` and return its path.

    Raises BuilderError, CommandFailedError or CommitError. It can be killed at any moment and run
    again: the artifact gets its name once it is complete.
    """
    tree.check_space(work.directory, SPACE)
    kind = image_types.find(request.image_type)
    if kind is None:
        raise BuilderError(f"the sandbox cannot make {request.image_type}")
    target = work.directory / kind.filename
    if make := _MAKERS.get(kind.name):
        return make(request, work, target)
    content = work.directory / "content"
    shutil.rmtree(content, ignore_errors=True)
    repository = Repo(content / "repo").init("archive")
    try:
        commit = tree.commit(request, work, repository)
        if request.image_type == "edge-container" and not request.parent:
            # Machines that have the parent fetch only what is new.
            work.on_stage("commit", "static delta for installations")
            static_delta.write(repository, commit)
            repository.update_summary()
        for leftover in ("tmp", "state", "extensions", ".lock"):
            _remove(repository.path / leftover)
        work.on_stage("artifact", target.name)
        if request.image_type == "edge-commit":
            report = compose_json(repository, request, commit)
            files.write_json(content / "compose.json", report)
            write_commit_tar(content, commit, target)
        else:
            write_container(content, commit, nginx(work), target)
    finally:
        shutil.rmtree(content, ignore_errors=True)
    return target


def _remove(path: Path) -> None:
    """Remove a working file of ostree, which ostree creates again when it needs it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def compose_json(repository: Repo, request: tree.Request, commit: str) -> dict[str, Any]:
    """What rpm-ostree writes into compose.json; in this repository every object is new."""
    sizes = list(_sizes(repository.path / "objects"))
    content = [size for suffix, size in sizes if suffix == "filez"]
    info = repository.show(commit)
    return {
        "ref": request.ref,
        "ostree-commit": commit,
        "ostree-content-checksum": repository.content_checksum(commit),
        "ostree-version": info.version,
        "ostree-timestamp": f"{info.timestamp:%Y-%m-%dT%H:%M:%SZ}",
        "ostree-n-metadata-total": len(sizes) - len(content),
        "ostree-n-metadata-written": len(sizes) - len(content),
        "ostree-n-content-total": len(content),
        "ostree-n-content-written": len(content),
        "ostree-n-cache-hits": 0,
        "ostree-content-bytes-written": sum(content),
        "rpm-ostree-inputhash": str(info.metadata["rpmostree.inputhash"]),
        **({"ostree-parent": info.parent} if info.parent else {}),
    }


def _sizes(objects: Path) -> Iterator[tuple[str, int]]:
    """The suffix and the bytes of each object."""
    for parent, _, filenames in os.walk(objects):
        for filename in filenames:
            yield filename.rpartition(".")[2], os.lstat(f"{parent}/{filename}").st_size


def write_commit_tar(content: Path, commit: str, target: Path) -> None:
    """Pack `content` (compose.json and repo/), with the parts in front that readers need first."""
    with files.replacing(target) as temporary:
        _tar("--create", temporary, content, ["./compose.json", *_repository(content, commit)])


def _repository(content: Path, commit: str) -> list[str]:
    """The files of the repository in `content`, as names for tar, with those in front that a reader
    of the commit needs first: its configuration, refs, and the commit object."""
    head = [
        "./repo",
        "./repo/config",
        *_below(content, "./repo/refs"),
        "./repo/objects",
        f"./repo/objects/{commit[:2]}",
        f"./repo/objects/{commit[:2]}/{commit[2:]}.commit",
    ]
    seen = set(head)
    return head + [name for name in _below(content, "./repo") if name not in seen]


def _tar(mode: str, archive: Path, directory: Path, names: Sequence[str], *options: str) -> None:
    """Create a tar of files in `directory`, owned by root, or append them to one.

    Objects are hard links to those of the cache. When another compose makes one more link to an
    object, tar says that the file has changed, and ends with status 1; its content never changes.
    """
    command = ["tar", mode, "--format=gnu", "--owner=root:0", "--group=root:0", *options]
    command += [f"--file={archive}", f"--directory={directory}", "--no-recursion", "--files-from=-"]
    try:
        run.run(command, input="\n".join(names) + "\n")
    except CommandFailedError as error:
        if error.status != 1:
            raise


def _below(directory: Path, name: str) -> list[str]:
    """`name` and everything below it, as names for tar: each directory before its content. There
    are ten thousand: no Path for each of them."""
    below = []
    for parent, directories, filenames in os.walk(directory / name):
        place = parent.removeprefix(str(directory)).lstrip("/")
        below += [f"./{place}/{each}" for each in (*directories, *filenames)]
    return [name, *sorted(below, key=lambda path: path.split("/"))]


# container ----------------------------------------------------------------------------------------


def nginx(work: tree.Work) -> Path:
    """A root file system with Debian's nginx and its dependencies, as a tar in the cache."""
    target = work.cache / f"nginx-{base.SUITE}.tar"
    if not base.is_fresh(target):
        work.on_stage("container", "extract nginx")
        extracted = work.directory / "nginx.tar"
        try:
            mmdebstrap.extract(work, ["nginx"], extracted)
            with files.replacing(target) as temporary:
                _repack(extracted, temporary)
        finally:
            extracted.unlink(missing_ok=True)
    return target


def _repack(extracted: Path, target: Path) -> None:
    """Keep what nginx needs at run time, owned by root."""
    dropped = ("dev", "etc/nginx", "usr/share", "var/cache", "var/lib/apt", "var/www")
    with tarfile.open(extracted) as source, tarfile.open(target, "w") as tar:
        for entry in source:
            entry.name = entry.name.removeprefix("./")
            if not entry.name.startswith(dropped):
                tar.addfile(
                    oci.anonymous(entry), source.extractfile(entry) if entry.isreg() else None
                )


def write_container(content: Path, commit: str, nginx_tar: Path, target: Path) -> None:
    """Write an OCI archive whose only layer is nginx and the repository in `content`."""
    path = content.parent / "layer.tar"
    try:
        with tarfile.open(path, "w") as tar:
            _add_nginx(tar, nginx_tar)
        # GNU tar packs ten thousand files in a second. They are compressed already.
        place = f"--transform=s,^\\./repo,{WEB_ROOT}/repo,"
        _tar("--append", path, content, _repository(content, commit), place, "--mtime=@0")
        config = {
            "Env": [_PATH],
            "Cmd": ["nginx", "-c", "/etc/nginx.conf"],
            "ExposedPorts": {"8080": {}},
        }
        layer = oci.Layer.of_tar(path)
        oci.write_archive(target, [layer], config, created_by="rfe_helpers.sandbox")
    finally:
        path.unlink(missing_ok=True)


def _add_nginx(tar: tarfile.TarFile, nginx_tar: Path) -> None:
    for name, mode in _DIRECTORIES.items():
        oci.add_directory(tar, name, mode)
    with tarfile.open(nginx_tar) as source:
        for entry in source:
            # Container tools refuse a layer that contains a path twice.
            if entry.name not in (*_DIRECTORIES, *_LINKS):
                tar.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
    for name, target in _LINKS.items():
        oci.add_link(tar, name, target)
    oci.add_file(tar, "etc/nginx.conf", _NGINX_CONF.encode())
    oci.add_file(tar, "etc/passwd", _USERS.encode())
    oci.add_file(tar, "etc/group", _GROUPS.encode())
