"""Files of a blueprint whose content is at a URI."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build import customize, downloads, tree

BINARY = bytes(range(256))


@pytest.fixture
def url() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/logo" else 404)
            self.end_headers()
            self.wfile.write(BINARY)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def work(tmp_path: Path) -> tree.Work:
    return tree.Work(tmp_path, tmp_path, tmp_path / "log", Deadline(30))


def test_the_content_at_a_uri_is_written(
    url: str, work: tree.Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = {
        "hostname": "edge",
        "files": [
            {"path": "/etc/logo", "uri": f"{url}/logo"},
            {"path": "/etc/note", "data": "ü\n", "base64": base64.b64encode(b"other").decode()},
        ],
    }
    fetched = downloads.with_content(requested, work)
    assert fetched["hostname"] == "edge"
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(customize, "ROOT", tmp_path)
    customize.files(fetched["files"])
    assert (tmp_path / "etc/logo").read_bytes() == BINARY
    assert (tmp_path / "etc/note").read_text() == "ü\n"


def test_what_cannot_be_fetched_is_named(
    url: str, work: tree.Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"files": [{"path": "/etc/x", "uri": f"{url}/nothing"}]}
    with pytest.raises(BuilderError, match=r"files\[0\]\.uri: .*404"):
        downloads.with_content(missing, work)
    monkeypatch.setattr(downloads, "LARGEST", 100)
    with pytest.raises(BuilderError, match="has more than"):
        downloads.with_content({"files": [{"path": "/etc/x", "uri": f"{url}/logo"}]}, work)
