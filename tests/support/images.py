"""Container images for tests, entry by entry, made without the package's own code."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
BOOTABLE = {"containers.bootc": "1", "ostree.bootable": "true"}
BASE = {
    "usr/lib/modules/6.12/vmlinuz": "kernel",
    "usr/lib/modules/6.12/initramfs.img": "initramfs",
    "etc/hosts": "127.0.0.1 localhost",
    "etc/hostname": "",
    "usr/bin/tool": "one",
    "usr/share/doc/a": "a",
    "usr/share/doc/b": "b",
    "sysroot/.keep": "",
    "run/leftover": "x",
    "tmp/leftover": "x",
    "var/lib/app/state": "x",
}


def entry(
    name: str, content: str = "", *, kind: bytes = tarfile.REGTYPE, link: str = "",
    mode: int = 0o644, uid: int = 0,
) -> tuple[tarfile.TarInfo, bytes]:  # fmt: skip
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.uid = kind, link, uid
    info.mode = 0o777 if kind == tarfile.SYMTYPE else mode
    info.size = len(content.encode()) if kind == tarfile.REGTYPE else 0
    return info, content.encode()


def layer(*entries: tuple[tarfile.TarInfo, bytes] | Mapping[str, str]) -> bytes:
    """A gzipped tar of entries; a mapping has plain files with their content."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for each in entries:
            pairs = [each] if isinstance(each, tuple) else [entry(*pair) for pair in each.items()]
            for info, content in pairs:
                tar.addfile(info, BytesIO(content))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


@dataclass
class ImageServer:
    """A registry on loopback: blobs by digest, manifests by tag, all of the repository `os`.
    `change` may replace what is sent for a path."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    change: Callable[[str, bytes], bytes | None] = lambda path, body: body
    port: int = 0

    def name(self, tag: str) -> str:
        return f"127.0.0.1:{self.port}/os:{tag}"

    def push(
        self,
        tag: str,
        layers: Sequence[bytes],
        *,
        labels: Mapping[str, str] = BOOTABLE,
        architecture: str = "amd64",
        change: Mapping[str, object] | None = None,
    ) -> str:
        """Put an image there, with parts of its configuration changed; returns its digest."""
        config: dict[str, object] = {
            "architecture": architecture,
            "os": "linux",
            "created": "2026-11-27T00:31:18.488971757Z",
            "config": {"Labels": {"org.opencontainers.image.version": tag, **labels}},
            "rootfs": {
                "type": "layers",
                "diff_ids": [_digest(gzip.decompress(each)) for each in layers],
            },
        }
        config.update(change or {})
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._add(json.dumps(config).encode(), CONFIG),
            "layers": [self._add(each, LAYER) for each in layers],
        }
        return self.add_manifest(tag, json.dumps(manifest).encode())

    def add_manifest(self, tag: str, manifest: bytes) -> str:
        self.tags[tag] = str(self._add(manifest, MANIFEST)["digest"])
        return self.tags[tag]

    def _add(self, content: bytes, kind: str) -> dict[str, object]:
        digest = _digest(content)
        self.blobs[digest] = content
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    @property
    def fetched(self) -> list[str]:
        """The digests of the blobs that were asked for since the last look, and forgets them."""
        seen = [path.rpartition("/")[2] for path in self.requests if "/blobs/" in path]
        self.requests.clear()
        return seen


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def image_server() -> Iterator[ImageServer]:
    registry = ImageServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.requests.append(self.path)
            _, _, reference = self.path.rpartition("/")
            digest = registry.tags.get(reference, reference)
            body = registry.blobs.get(digest)
            if self.path == "/v2/":
                body = b"{}"
            self.send_response(200 if body is not None else 404)
            body = body if body is not None else b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'
            if "/manifests/" in self.path:
                self.send_header("Content-Type", MANIFEST)
                self.send_header("Docker-Content-Digest", digest)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            sent = registry.change(self.path, body)
            if self.command == "GET" and sent is not None:
                self.wfile.write(sent)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def trust(home: Path, registry: ImageServer) -> None:
    """Let skopeo with this HOME use the registry without TLS."""
    directory = home / ".config/containers"
    directory.mkdir(parents=True)
    (directory / "registries.conf").write_text(
        f'[[registry]]\nlocation = "127.0.0.1:{registry.port}"\ninsecure = true\n'
    )
    (directory / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
