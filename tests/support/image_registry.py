"""A registry that serves one image, for what pulls from registries."""

from __future__ import annotations

import http.server
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@contextmanager
def serving(archive: Path) -> Iterator[str]:
    """Serve the image of an OCI archive at HOST:PORT/app, under any tag; yields that name."""
    with tarfile.open(archive) as tar:
        content = {
            member.name.removeprefix("./"): tar.extractfile(member).read()  # type: ignore[union-attr]
            for member in tar
            if member.isfile()
        }
    manifest = json.loads(content["index.json"])["manifests"][0]["digest"]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, _, reference = self.path.rpartition("/")
            digest = reference if reference.startswith("sha256:") else manifest
            body = content.get(f"blobs/sha256/{digest.removeprefix('sha256:')}", b"")
            known = self.path == "/v2/" or (self.path.startswith("/v2/app/") and bool(body))
            self.send_response(200 if known else 404)
            if "/manifests/" in self.path:
                self.send_header("Content-Type", MANIFEST)
                self.send_header("Docker-Content-Digest", digest)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}/app"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
