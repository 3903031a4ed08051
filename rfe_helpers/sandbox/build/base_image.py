"""The base image for bootable containers: the sandbox's tree as a container image.

It stands in for Red Hat's `rhel-bootc`. Its one layer is the tree of a compose without packages, in
the layout of a bootable container: /etc where a commit has /usr/etc, the kernel and its initramfs
in /usr/lib/modules, the label containers.bootc. /var has the link to dpkg's database that a machine
has, so that `RUN apt-get install` works in a Containerfile.

In the cache: `edge-base-<key>/edge-base.tar`, an OCI archive, which gets its name once it is
complete; the key changes with the commit and with what is added to it here.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit import oci
from rfe_helpers.core import files, journal, run
from rfe_helpers.sandbox.build import tree
from rfe_helpers.sandbox.build.base import Base, is_fresh
from rfe_helpers.sandbox.build.image_types import DEFAULT_REF

LABELS = {
    "containers.bootc": "1",
    "ostree.bootable": "true",
    "org.opencontainers.image.title": "Debian Edge",
    "org.opencontainers.image.description": "The sandbox's base for bootable containers",
}
_FORM = 3  # to be raised when the layer is written in another way
# Of a machine's /var what tools need while an image is built.
_LINKS = {"var/lib/dpkg": "../../usr/lib/sysimage/dpkg"}
_DIRECTORIES = {"var/lib": 0o755, "var/cache": 0o755, "var/log": 0o755, "var/tmp": 0o1777}
# As Debian's own images have it: a layer has what is installed, and no copy of what came for it.
_APT = """\
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };
APT::Install-Recommends "false";
"""
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base_image(work: tree.Work) -> Path:
    """The archive of the image, from the cache or made now (half a minute with the base there)."""
    shared = tree.base(work)
    blueprint = Blueprint(name="edge-base", version="13.0.0")
    request = tree.Request("edge-base", "edge-commit", DEFAULT_REF, blueprint)
    commit = _cached(shared) or tree.check_in(request, work, shared, {})
    recipe = repr((_FORM, commit, LABELS, _LINKS, _DIRECTORIES, _APT))
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    target = work.cache / f"edge-base-{key}" / "edge-base.tar"
    with tree.locked(work, target.parent):
        if not target.exists():
            work.on_stage("base-image", "pack the tree")
            _write(work, shared, commit, target)
        journal.write(shared.directory / "image", commit, mode=0o644)
    for other in work.cache.glob("edge-base-*/"):
        # Another lab may be pushing it at this moment.
        if other != target.parent and not is_fresh(other / target.name):
            shutil.rmtree(other, ignore_errors=True)
    return target


def _cached(shared: Base) -> str:
    """The commit of the image that was made of this base before, or ""."""
    try:
        commit = (shared.directory / "image").read_text()
    except FileNotFoundError:
        return ""
    return commit if shared.build_repository.has_commit(commit) else ""


def _write(work: tree.Work, shared: Base, commit: str, target: Path) -> None:
    repository = shared.build_repository
    info = repository.show(commit)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="work-") as directory:
        exported, layer = Path(directory, "commit.tar"), Path(directory, "layer.tar")
        argv = ["ostree", "export", f"--repo={repository.path}", f"--output={exported}", commit]
        run.run(argv, log=work.log, deadline=work.deadline, on_start=work.on_process)
        write_layer(exported, layer)
        labels = {
            **LABELS,
            "org.opencontainers.image.version": info.version,
            "ostree.linux": _kernel(layer),
        }
        environment = [_PATH, "DEBIAN_FRONTEND=noninteractive"]
        config = {"Env": environment, "Cmd": ["/sbin/init"], "Labels": labels}
        config["StopSignal"] = "SIGRTMIN+3"
        with files.replacing(target) as temporary:
            oci.write_archive(
                temporary, [oci.Layer.of_tar(layer)], config, created_by="rfe_helpers.sandbox"
            )


def write_layer(exported: Path, target: Path) -> None:
    """Write the layer of a commit that `ostree export` has written as a tar. All times are 0, as in
    a commit, so that the same tree gives the same layer."""
    with (
        tarfile.open(exported) as source,
        tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as layer,
    ):
        for entry in source:
            entry.name, entry.mtime = _in_image(entry.name), 0
            if entry.islnk():  # ostree 2025 writes equal files so
                entry.linkname = _in_image(entry.linkname)
            layer.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
        for path, mode in _DIRECTORIES.items():
            oci.add_directory(layer, path, mode)
        oci.add_file(layer, "etc/apt/apt.conf.d/70-image", _APT.encode())
        for path, link in _LINKS.items():
            oci.add_link(layer, path, link)


def _in_image(path: str) -> str:
    """Where a file of a commit is in an image."""
    name = PurePosixPath(path)
    return str("etc" / name.relative_to("usr/etc") if name.is_relative_to("usr/etc") else name)


def _kernel(layer: Path) -> str:
    """The release of the kernel in a layer."""
    with tarfile.open(layer) as tar:
        return next(
            PurePosixPath(entry.name).parent.name
            for entry in tar
            if PurePosixPath(entry.name).match("usr/lib/modules/*/vmlinuz")
        )
