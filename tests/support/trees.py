"""Small trees, commits and archives for tests, made without the package's own code."""

import gzip
import hashlib
import json
import tarfile
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path


def make_tree(path: Path, files: Mapping[str, str]) -> Path:
    """A tar with a bootable tree: a kernel, and `files` (name -> content, "-> x" for a link)."""
    everything = {
        "usr/lib/modules/6.12/vmlinuz": "kernel",
        "usr/lib/modules/6.12/initramfs.img": "initramfs",
        **files,
    }
    with tarfile.open(path, "w") as tar:
        made: set[str] = set()
        for name, content in everything.items():
            for parent in [str(p) for p in reversed(Path(name).parents)]:
                if parent not in made:
                    made.add(parent)
                    directory = tarfile.TarInfo(parent)
                    directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(directory)
            member = tarfile.TarInfo(name)
            member.mode = 0o644
            if content.startswith("-> "):
                member.type, member.linkname = tarfile.SYMTYPE, content[3:]
            member.size = 0 if member.issym() else len(content)
            tar.addfile(member, BytesIO(content.encode()))
    return path


def make_commit_tar(path: Path, directory: Path, first: Iterable[str] = ()) -> Path:
    """A commit.tar of `directory` (with repo and compose.json): `first`, then all the rest."""
    names = [str(p.relative_to(directory)) for p in sorted(directory.rglob("*")) if p.is_file()]
    ahead = list(first)
    with tarfile.open(path, "w") as tar:
        for name in [*ahead, *(name for name in names if name not in ahead)]:
            tar.add(directory / name, arcname=f"./{name}")
    return path


def make_container(
    path: Path, layers: Iterable[Mapping[str, Path]], *, compress: bool = True
) -> Path:
    """An OCI archive whose layers hold directories: name in the image -> directory here."""
    blobs: dict[str, bytes] = {}

    def keep(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    described, unpacked = [], []
    for layer in layers:
        buffer = BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, directory in layer.items():
                tar.add(directory, arcname=name)
        unpacked.append("sha256:" + hashlib.sha256(buffer.getvalue()).hexdigest())
        packed = gzip.compress(buffer.getvalue(), 1) if compress else buffer.getvalue()
        suffix = "+gzip" if compress else ""
        described.append(keep(packed, f"application/vnd.oci.image.layer.v1.tar{suffix}"))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Cmd": ["nginx", "-c", "/etc/nginx.conf"],
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "ExposedPorts": {"8080": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": unpacked},
    }
    manifest = {
        "schemaVersion": 2,
        "config": keep(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": described,
    }
    kind = "application/vnd.oci.image.manifest.v1+json"
    index = {"schemaVersion": 2, "manifests": [keep(json.dumps(manifest).encode(), kind)]}
    whole = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **blobs,
    }
    write_tar(path, whole)
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar with plain files of the given names, however odd."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return path
