from __future__ import annotations

import http.server
import socket
import threading

import pytest
from support.sandbox_service import web_server

from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build import ostree_options
from rfe_helpers.sandbox.build.image_types import DEFAULT_REF, IMAGE_TYPES, ImageType
from rfe_helpers.sandbox.build.ostree_options import OstreeOptions, check, reachable, resolve

COMMIT = IMAGE_TYPES[0]
DEPLOYS = ImageType("edge-installer", "installer.iso", "application/x-iso9660-image", deploys=True)
ID = "ab" * 32
HEAD = f"/repo/refs/heads/{DEFAULT_REF}"


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        (OstreeOptions(ref="a//b"), COMMIT, "invalid ostree image ref"),
        (OstreeOptions(ref="../x"), COMMIT, "invalid ostree image ref"),
        (OstreeOptions(ref="a\n"), COMMIT, "invalid ostree image ref"),
        (OstreeOptions(ref=ID), COMMIT, "looks like a checksum"),
        (OstreeOptions(parent="x y", url="http://h/"), COMMIT, "invalid ostree parent ref"),
        (OstreeOptions(parent="x"), COMMIT, "but no URL to retrieve it"),
        (OstreeOptions(url="/repo"), COMMIT, 'ostree URL "/repo" is invalid'),
        (OstreeOptions(url="file:///etc"), COMMIT, "is invalid"),
        (OstreeOptions(url="http://[::1"), COMMIT, "is invalid"),
        (OstreeOptions(contenturl="x"), COMMIT, 'ostree URL "x" is invalid'),
        (OstreeOptions(rhsm=True), COMMIT, '"ostree.rhsm" is not supported'),
        (OstreeOptions(), DEPLOYS, "ostree.url: required"),
    ],
)
def test_invalid_options_are_refused(options: OstreeOptions, kind: ImageType, words: str) -> None:
    with pytest.raises(BuilderError) as failure:
        check(options, kind)
    assert words in failure.value.message


def test_without_url_there_is_no_parent() -> None:
    check(OstreeOptions(ref="debian/13/x86_64/other"), COMMIT)
    assert resolve(OstreeOptions(ref="debian/13/x86_64/other"), COMMIT) is None


def test_the_parent_is_the_commit_that_the_ref_names_at_the_url() -> None:
    other = "/repo/refs/heads/other"
    with web_server({HEAD: f"{ID}\n".encode(), other: b"cd" * 32}) as address:
        assert resolve(OstreeOptions(url=f"{address}/repo"), COMMIT) == ID
        assert resolve(OstreeOptions(url=f"{address}/repo/"), COMMIT) == ID
        options = OstreeOptions(ref="new", parent="other", url=f"{address}/repo")
        assert resolve(options, COMMIT) == "cd" * 32
        # What is deployed is the ref; the parent has no say.
        deployed = OstreeOptions(ref="other", parent=DEFAULT_REF, url=f"{address}/repo")
        assert resolve(deployed, DEPLOYS) == "cd" * 32


def test_a_commit_id_needs_no_request() -> None:
    assert resolve(OstreeOptions(parent=ID, url="http://127.0.0.1:9/"), COMMIT) == ID


def test_a_mirror_list_names_the_repository() -> None:
    files = {HEAD: ID.encode(), "/list": b""}
    with web_server(files) as address:
        files["/list"] = f"# mirrors\n\n{address}/repo\nhttp://h/\n".encode()
        assert resolve(OstreeOptions(url=f"mirrorlist={address}/list"), COMMIT) == ID
        files["/list"] = b"# none\n"
        with pytest.raises(BuilderError, match="names no repository"):
            resolve(OstreeOptions(url=f"mirrorlist={address}/list"), COMMIT)


def test_a_reference_that_is_not_a_commit_id_is_refused() -> None:
    with (
        web_server({HEAD: b"<html>" * 100_000}) as address,
        pytest.raises(BuilderError, match="returned invalid reference"),
    ):
        resolve(OstreeOptions(url=f"{address}/repo"), COMMIT)


def test_a_missing_ref_and_a_silent_host_have_messages_of_their_own() -> None:
    with (
        web_server({}) as address,
        pytest.raises(BuilderError, match=rf'"{address}{HEAD}" returned status: 404 Not Found'),
    ):
        resolve(OstreeOptions(url=f"{address}/repo"), COMMIT)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        message = f'error sending request to ostree repository "{url}{HEAD}": Connection refused'
        with pytest.raises(BuilderError, match=f"^{message}$"):
            resolve(OstreeOptions(url=f"{url}/repo"), COMMIT)


def test_the_address_of_the_host_in_guests_is_this_machine() -> None:
    with web_server({HEAD: ID.encode()}) as address:
        seen = address.replace("127.0.0.1", "10.0.2.2")
        assert reachable(f"{seen}/repo/") == f"{address}/repo/"
        assert resolve(OstreeOptions(url=f"{seen}/repo/"), DEPLOYS) == ID
    for url in ("http://10.0.2.20/repo", "https://repo.example/10.0.2.2", "file:///10.0.2.2"):
        assert reachable(url) == url


def test_in_a_network_like_that_of_guests_this_machine_comes_before_the_one_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ostree_options, "_is_guest", lambda: True)
    with web_server({HEAD: ID.encode()}) as address:
        inside = address.replace("127.0.0.1", "10.0.2.2")
        assert reachable(f"{inside}/repo/") == f"{address}/repo/"
        assert resolve(OstreeOptions(url=f"{inside}/repo/"), DEPLOYS) == ID
    assert reachable(f"{inside}/repo/") == f"{inside}/repo/"
    for url in ("http://10.0.2.20/repo", "http://10.0.2.2:99999/repo"):
        assert reachable(url) == url


def test_an_answer_may_come_in_pieces() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (ID[:10], ID[10:] + "\n", ""):
                self.wfile.write(f"{len(piece):x}\r\n{piece}\r\n".encode())
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/repo"
        assert resolve(OstreeOptions(url=url), COMMIT) == ID
        server.shutdown()
