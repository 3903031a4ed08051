"""Keys at URLs: what is fetched, kept and refused."""

import os
from pathlib import Path

import pytest
from support.sandbox_service import silent_server, web_server

from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build import keys

BODY = "mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhl\n=XYZ1\n"
KEY = f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{BODY}-----END PGP PUBLIC KEY BLOCK-----\n"
SOURCE = "Types: deb\nURIs: http://h.example/debian\nSuites: ./\nSigned-By:\n"
SIGNED = SOURCE + keys.indented(KEY) + "\n"


def test_a_url_becomes_the_keys_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "key.asc"
    file.write_text(f"pub ed25519 2026\r\nTrusted: yes\n{KEY}\n{KEY}")
    with web_server({"/key.asc": KEY.replace("\n", "\r\n").encode()}) as address:
        text = keys.with_keys(f"{SOURCE} {address}/key.asc\n", tmp_path / "keys")
        both = keys.with_keys(f"{SOURCE} file://{file}\n", tmp_path / "keys")
    assert text == SIGNED
    assert both == SOURCE + "\n".join([keys.indented(KEY)] * 2) + "\n"


def test_a_source_without_urls_stays_as_it_is(tmp_path: Path) -> None:
    assert keys.with_keys(SIGNED, tmp_path) == SIGNED
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_kept_and_fetched_again_with_the_index(tmp_path: Path) -> None:
    served = {"/key.asc": KEY.encode()}
    with web_server(served) as address:
        source = f"{SOURCE} {address}/key.asc\n"
        assert keys.with_keys(source, tmp_path) == SIGNED
        served["/key.asc"] = KEY.replace("XYZ1", "XYZ2").encode()
        assert keys.with_keys(source, tmp_path) == SIGNED
        assert "=XYZ2" in keys.with_keys(source, tmp_path, again=True)
    assert "=XYZ2" in keys.with_keys(source, tmp_path, again=True), "its server is gone"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("gone.asc", "404"),
        ("page.html", "no public key in ASCII armour"),
        ("large.asc", "more than 128 KiB"),
    ],
)
def test_what_is_not_a_key_is_refused_with_its_url(path: str, words: str, tmp_path: Path) -> None:
    served = {"/page.html": b"<p>Sign in", "/large.asc": b"x" * (keys.LARGEST + 1)}
    with web_server(served) as address, pytest.raises(BuilderError) as failure:
        keys.with_keys(f"{SOURCE} {address}/{path}\n", tmp_path)
    assert f"{address}/{path}" in failure.value.message
    assert words in failure.value.message


def test_what_is_not_a_file_and_who_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for url, words in (
        (f"file://{tmp_path}/pipe", "not a file"),
        (f"file://{tmp_path}/gone", "No such file"),
    ):
        with pytest.raises(BuilderError, match=words):
            keys.with_keys(f"{SOURCE} {url}\n", tmp_path)
    monkeypatch.setattr(keys, "CONNECT_SECONDS", 0.1)
    with silent_server() as address, pytest.raises(BuilderError, match="timed out"):
        keys.with_keys(f"{SOURCE} {address}/key.asc\n", tmp_path)
