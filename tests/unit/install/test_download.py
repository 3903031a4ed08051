"""Fetching from a local server that breaks off, changes its mind, or has something else."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from msgspec.structs import replace

from rfe_helpers.cli import main
from rfe_helpers.errors import MediaError
from rfe_helpers.install import download
from rfe_helpers.lab import profile
from rfe_helpers.lab.profile import MediaFacts, Profile

CONTENT = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PIECE = 1 << 16
NAME = "CentOS-Stream-9-latest-x86_64-boot.iso"


@dataclass
class Mirror:
    """What the server has and how it behaves. `breaks` are the bytes after which it breaks off,
    one for each request; `asked` collects the Range of each."""

    url: str = ""
    content: bytes = CONTENT
    etag: str = '"one"'
    breaks: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    status: int = 200
    claims: int = 0  # a length that it says in place of the real one


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    state = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("SUM"):
                text = f"# a comment\n{DIGEST}  other.iso\nSHA256 ({NAME}) = {DIGEST}\n"
                self.answer(200, text.encode(), {}, whole=True)
                return
            wanted = self.headers.get("Range", "")
            state.asked.append(wanted)
            begin = 0
            fresh = self.headers.get("If-Range") == state.etag
            if wanted and fresh:
                begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(state.content) and wanted:
                self.answer(416, b"", {"Content-Range": f"bytes */{len(state.content)}"})
                return
            status = 206 if begin else state.status
            self.answer(status, state.content[begin:], {"ETag": state.etag})

        def answer(
            self, status: int, body: bytes, headers: dict[str, str], *, whole: bool = False
        ) -> None:
            self.send_response(status)
            length = len(body) if whole else state.claims or len(body)
            for name, value in {**headers, "Content-Length": str(length)}.items():
                self.send_header(name, value)
            self.end_headers()
            breaks = state.breaks and not whole
            self.wfile.write(body[: state.breaks.pop(0)] if breaks else body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()


@pytest.fixture
def public(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """CentOS Stream with the addresses of the local server."""
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "cache"))
    facts = MediaFacts(
        boot_iso=NAME, iso_url=f"{mirror.url}/{NAME}", iso_checksums=f"{mirror.url}/SHA256SUM"
    )
    return replace(profile.load("centos-stream-9"), media=facts)


def test_a_file_comes_whole_with_progress_and_only_once(public: Profile, mirror: Mirror) -> None:
    said: list[str] = []
    target = download.fetch_media(public, "iso", said.append)
    assert target == download.kept(NAME)
    assert target.read_bytes() == CONTENT
    assert said[-2:] == ["5.1 of 5.1 MB", "checking"]
    assert download.fetch_media(public, "iso") == target
    assert mirror.asked == [""]
    assert sorted(path.name for path in target.parent.iterdir()) == [NAME, f"{NAME}.lock"]


def test_a_connection_that_breaks_is_resumed(public: Profile, mirror: Mirror) -> None:
    mirror.breaks = [20 * PIECE, 30 * PIECE]
    assert download.fetch_media(public, "iso").read_bytes() == CONTENT
    assert mirror.asked == ["", f"bytes={20 * PIECE}-", f"bytes={50 * PIECE}-"]


def test_another_call_resumes_where_the_first_stopped(public: Profile, mirror: Mirror) -> None:
    mirror.breaks = [10 * PIECE, *[0] * (download.ATTEMPTS)]
    with pytest.raises(MediaError, match="cannot be fetched") as caught:
        download.fetch_media(public, "iso")
    assert f"{10 * PIECE} bytes are here" in caught.value.remedy
    assert not download.kept(NAME).exists()
    mirror.breaks, mirror.asked = [], []
    assert download.fetch_media(public, "iso").read_bytes() == CONTENT
    assert mirror.asked == [f"bytes={10 * PIECE}-"]


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(
    public: Profile, mirror: Mirror
) -> None:
    mirror.content, mirror.etag = b"old" * 500_000, '"old"'
    mirror.breaks = [900_000, *[0] * download.ATTEMPTS]
    with pytest.raises(MediaError):
        download.fetch_media(public, "iso")
    mirror.content, mirror.etag, mirror.breaks = CONTENT, '"one"', []
    assert download.fetch_media(public, "iso").read_bytes() == CONTENT


def test_a_part_that_is_the_whole_is_only_checked(public: Profile, mirror: Mirror) -> None:
    target = download.kept(NAME)
    target.parent.mkdir(parents=True)
    part = target.with_name(f"{NAME}.part")
    part.write_bytes(CONTENT)
    note = f'{{"url": "{public.media.iso_url}", "mark": "\\"one\\""}}'
    part.with_name(f"{part.name}.json").write_text(note.replace('\\"', '\\"'))
    assert download.fetch_media(public, "iso").read_bytes() == CONTENT
    assert mirror.asked == [f"bytes={len(CONTENT)}-"]


def test_a_wrong_checksum_keeps_nothing(public: Profile, mirror: Mirror) -> None:
    mirror.content = b"something else"
    with pytest.raises(MediaError, match=f"published is {DIGEST}"):
        download.fetch_media(public, "iso")
    assert [path.name for path in download.kept(NAME).parent.iterdir()] == [f"{NAME}.lock"]


def test_what_is_not_there_is_said_at_once(public: Profile, mirror: Mirror) -> None:
    mirror.status = 404
    with pytest.raises(MediaError, match="is not there: 404"):
        download.fetch_media(public, "iso")
    assert len(mirror.asked) == 1


@pytest.mark.parametrize(
    ("url", "status", "reason", "remedy"),
    [
        ("http://no-such-host.invalid/x", 0, "the name of its host is not known", "name server"),
        ("http://127.0.0.1:9/x", 0, "cannot be reached", "`curl -I http://127.0.0.1:9/x`"),
        ("{mirror}/x", 404, "is not there", "`rfe profiles NAME`"),
        ("{mirror}/x", 503, "its server has a problem", "try again later"),
        ("{mirror}/x", 0, "breaks off again and again", "65536 bytes are here"),
    ],
)
def test_each_cause_has_its_own_remedy(
    mirror: Mirror, tmp_path: Path, url: str, status: int, reason: str, remedy: str
) -> None:
    mirror.breaks = [] if status else [PIECE, *[0] * download.ATTEMPTS]
    mirror.status = status or 200
    with pytest.raises(MediaError, match=reason) as caught:
        download.fetch(url.format(mirror=mirror.url), tmp_path / "media" / "x", DIGEST)
    assert remedy in caught.value.remedy


def test_a_list_of_checksums_that_is_not_there(public: Profile, mirror: Mirror) -> None:
    media = replace(public.media, iso_checksums="http://127.0.0.1:9/SHA256SUM")
    with pytest.raises(MediaError, match="its server cannot be reached"):
        download.fetch_media(replace(public, media=media), "iso")


def test_what_does_not_fit_is_not_begun(public: Profile, mirror: Mirror) -> None:
    mirror.claims = 10**15
    with pytest.raises(MediaError, match=r"needs 1000000\.0 GB"):
        download.fetch_media(public, "iso")


@pytest.mark.parametrize("kind", ["guest", "iso"])
def test_what_is_behind_a_login_says_where(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFE_CACHE", str(tmp_path))
    release = profile.load("rhel-9.4")
    with pytest.raises(MediaError, match="not public") as caught:
        download.fetch_media(release, kind)
    name = download.facts(release, kind)[0]
    assert str(tmp_path / "media" / name) in caught.value.remedy
    assert "access.redhat.com" in caught.value.remedy
    assert "rfe fetch iso --profile fedora-iot" in download.advice(
        profile.load("fedora-iot"), "iso"
    )
    # What a person put there is taken.
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / name).write_text("by hand")
    assert download.fetch_media(release, kind).read_text() == "by hand"


def test_every_public_medium_has_a_list_of_checksums() -> None:
    for name in profile.names():
        media = profile.load(name).media
        assert bool(media.guest_url) == bool(media.guest_checksums), name
        assert bool(media.iso_url) == bool(media.iso_checksums), name
        for url in (media.guest_url, media.iso_url):
            assert not url or url.startswith("https://")


def test_checksums_are_found_in_both_forms() -> None:
    one, two = "a" * 64, "b" * 64
    text = f"-----BEGIN PGP SIGNED MESSAGE-----\nSHA256 (x.iso) = {one}\n{two} *y.iso\n"
    assert download.checksum_of(text, "x.iso") == one
    assert download.checksum_of(text, "y.iso") == two
    assert download.checksum_of(f"SHA256 (x-20261101.0.iso) = {one}\n", "x-latest.iso") == one
    with pytest.raises(MediaError, match=r"does not name z\.iso"):
        download.checksum_of(text, "z.iso")
    with pytest.raises(MediaError):
        download.checksum_of("", "z.iso")


def test_the_command_says_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RFE_CACHE", str(tmp_path))
    assert main.main(["fetch", "guest", "--profile", "rhel-8.10"]) == 1
    assert "rhel-8.10-x86_64-kvm.qcow2" in capsys.readouterr().err


def test_several_at_once_fetch_it_once(mirror: Mirror, tmp_path: Path) -> None:
    target = tmp_path / "media" / "boot.iso"
    found: list[Path] = []

    def fetch() -> None:
        found.append(download.fetch(f"{mirror.url}/x", target, DIGEST))

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [target] * 3
    assert len(mirror.asked) == 1
    assert target.read_bytes() == CONTENT


def test_a_server_that_starts_over_each_time_is_given_up(mirror: Mirror, tmp_path: Path) -> None:
    mirror.etag = ""
    mirror.breaks = [3 * PIECE, 2 * PIECE, 3 * PIECE, *([PIECE, 2 * PIECE] * 20)]
    with pytest.raises(MediaError, match="cannot be fetched"):
        download.fetch(f"{mirror.url}/x", tmp_path / "boot.iso", DIGEST)
    assert len(mirror.asked) == download.ATTEMPTS
