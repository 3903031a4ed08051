from __future__ import annotations

from typing import Any

import pytest

from rfe_helpers.sandbox.service import sources

KEY = (
    "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhl\n=XYZ1\n"
    "-----END PGP PUBLIC KEY BLOCK-----\n"
)
SOURCE = {"id": "x", "name": "X", "type": "yum-baseurl", "url": "http://h.example/debian s main"}


def test_a_source_becomes_deb822() -> None:
    parsed = sources.parse({**SOURCE, "check_gpg": True, "gpgkeys": [KEY]}, 1)
    assert sources.deb822(parsed) == (
        "Types: deb\nURIs: http://h.example/debian\nSuites: s\nComponents: main\nSigned-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhl\n"
        " =XYZ1\n -----END PGP PUBLIC KEY BLOCK-----\n"
    )


def test_a_key_may_be_at_a_url_which_a_push_does_not_fetch() -> None:
    urls = ["https://h.example/key.asc", "file:///etc/pki/key.asc"]
    text = sources.deb822(sources.parse({**SOURCE, "check_gpg": True, "gpgkeys": [*urls, KEY]}, 1))
    lines = text.splitlines()
    assert lines[4:7] == ["Signed-By:", f" {urls[0]}", f" {urls[1]}"]
    assert lines[7] == " -----BEGIN PGP PUBLIC KEY BLOCK-----"


def test_an_armoured_key_may_have_ordinary_headers() -> None:
    header = "Version: GnuPG v1.4.10 (GNU/Linux)\nComment: It's <ours>; 100 %\n"
    first, _, rest = KEY.partition("\n")
    key = f"{first}\n{header}{rest}"
    text = sources.deb822(sources.parse({**SOURCE, "check_gpg": True, "gpgkeys": [key]}, 1))
    assert " Version: GnuPG v1.4.10 (GNU/Linux)\n Comment: It's <ours>; 100 %\n .\n" in text
    injected = key.replace("Comment: ", "Comment:\rTrusted: ")
    with pytest.raises(ValueError, match="gpgkeys"):
        sources.parse({**SOURCE, "check_gpg": True, "gpgkeys": [injected]}, 1)


def test_a_flat_repository_without_signature() -> None:
    parsed = sources.parse({**SOURCE, "url": "https://h.example/flat/"}, 1)
    assert sources.deb822(parsed) == (
        "Types: deb\nURIs: https://h.example/flat/\nSuites: ./\nTrusted: yes\n"
    )


def test_a_mirror_list_signed_by_debian() -> None:
    parsed = sources.parse({**SOURCE, "type": "yum-mirrorlist", "check_gpg": True}, 1)
    text = sources.deb822(parsed)
    assert "URIs: mirror+http://h.example/debian\n" in text
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "http://h.example/ s\nTrusted: yes"}, "suite"),
        ({"url": "http://h.example/\nTrusted:"}, "URL"),
        ({"url": "file:///etc main"}, "URL"),
        ({"url": "http:///x s main"}, "URL"),
        ({"url": "http://h.example/ s"}, "needs components"),
        ({"url": "http://h.example/ ./ main"}, "needs components"),
        ({"url": "http://h.example/ s [trusted=yes]"}, "suite and components"),
        ({"url": "copy:/etc s main"}, "URL"),
        ({"type": "yum-metalink"}, "yum-metalink"),
        ({"check_gpg": True, "gpgkeys": ["ftp://h.example/key"]}, "http, https or file URLs"),
        ({"check_gpg": True, "gpgkeys": ["http:///key"]}, "http, https or file URLs"),
        ({"check_gpg": True, "gpgkeys": ["https://h.example/a b"]}, "http, https or file URLs"),
        ({"check_gpg": True, "gpgkeys": ["file://host/etc/key"]}, "http, https or file URLs"),
        ({"check_gpg": True, "gpgkeys": ["http://h.example/key\nTrusted: yes"]}, "ASCII-armoured"),
        ({"check_gpg": True, "gpgkeys": [KEY + "Trusted: yes\n"]}, "ASCII-armoured"),
        ({"check_gpg": True, "gpgkeys": "x"}, "list of texts"),
        ({"check_gpg": "yes"}, "must be bool"),
        ({"name": 7}, "must be str"),
        ({"proxy": "http://p.example"}, "'proxy' is not supported"),
        ({"rhsm": True}, "'rhsm' is not supported"),
        ({"module_hotfixes": True}, "'module_hotfixes' is not supported"),
        ({"distros": ["debian-12"]}, "Invalid distributions: debian-12"),
        ({"id": ""}, "'id' field is missing"),
    ],
    ids=str,
)
def test_a_source_that_apt_could_not_use_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as failure:
        sources.parse({**SOURCE, **change}, 1)
    assert words in str(failure.value)


def test_version_0_has_names_for_ids_and_fewer_keys() -> None:
    parsed = sources.parse({key: value for key, value in SOURCE.items() if key != "id"}, 0)
    assert parsed["id"] == "X"
    keys = {"name", "type", "url", "check_gpg", "check_ssl", "system"}
    assert set(sources.for_version(parsed, 0)) == keys


def test_the_systems_sources() -> None:
    system = sources.system(
        "deb [signed-by=/k] http://h.example/debian trixie main\n"
        "deb [signed-by=/k] http://h.example/debian trixie-updates main\n"
        "deb [signed-by=/k] http://s.example/debian-security trixie-security main"
    )
    assert [(source["id"], source["url"]) for source in system] == [
        ("debian-13", "http://h.example/debian"),
        ("debian-13-security", "http://s.example/debian-security"),
    ]
    assert all(source["system"] for source in system)
