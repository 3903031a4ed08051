"""Keys of additional sources that are given by URL: fetched when apt is to read the source.

A source in deb822 form has such a URL as a line of its Signed-By, in the place of the key. What was
fetched is kept in a directory of the cache, one file for each URL, named by the URL's digest.
"""

from __future__ import annotations

import hashlib
import re
import stat
from pathlib import Path
from urllib.parse import urlsplit

import requests

from rfe_helpers.core import files
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build import ostree_options

LARGEST = 128 * 1024
SECONDS = 20  # for one key; and, of these, to connect or between two parts of an answer
CONNECT_SECONDS = 5
ARMOR = re.compile(
    # headers such as "Version: GnuPG v1.4.10 (GNU/Linux)", then the key
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[A-Za-z]+: [ -~]*\n)*[A-Za-z0-9+/=:. \n]+"
    r"-----END PGP PUBLIC KEY BLOCK-----\n*"
)
_TOO_LARGE = f"it has more than {LARGEST // 1024} KiB"
_LINE = re.compile(r"^ ((?:https?|file)://[!-~]+)$", re.MULTILINE)


def is_url(text: str) -> bool:
    """Whether a text is the http, https or file URL of a key."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    local = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
    return bool(_LINE.fullmatch(f" {text}")) and (local or ostree_options.is_absolute(text))


def indented(key: str) -> str:
    """A key in ASCII armour as lines of a Signed-By."""
    lines = key.replace("\r\n", "\n").strip().split("\n")
    return "\n".join(f" {line}" if line.strip() else " ." for line in lines)


def with_keys(source: str, directory: Path, *, again: bool = False) -> str:
    """A source in deb822 form with the keys in the place of their URLs.

    `directory` keeps them; with `again` they are fetched although they are there, and the kept one
    is used if that fails. Raises BuilderError for a key that can neither be fetched nor is kept.
    """
    return _LINE.sub(lambda line: indented(_key(line[1], directory, again=again)), source)


def _key(url: str, directory: Path, *, again: bool) -> str:
    kept = directory / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.asc"
    if kept.exists() and not again:
        return kept.read_text()
    try:
        content = _local(url) if url.startswith("file:") else _remote(url)
        blocks = ARMOR.findall(content.decode(errors="replace").replace("\r\n", "\n"))
        if not blocks:
            raise ValueError("it has no public key in ASCII armour")
    except (OSError, ValueError) as error:
        if kept.exists():
            return kept.read_text()
        raise BuilderError(
            f"the key at {url} cannot be used: {error}",
            remedy="correct gpgkeys of the source, or paste the key itself there",
        ) from None
    key = "\n".join(block.strip() for block in blocks) + "\n"
    files.write(kept, key)
    return key


def _local(url: str) -> bytes:
    path = Path(urlsplit(url).path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a file")
    if path.stat().st_size > LARGEST:
        raise ValueError(_TOO_LARGE)
    return path.read_bytes()


def _remote(url: str) -> bytes:
    limit, content = Deadline(SECONDS), bytearray()
    address = ostree_options.reachable(url)
    with requests.get(address, stream=True, timeout=CONNECT_SECONDS) as answer:
        answer.raise_for_status()
        # A larger piece would be waited for, however slowly it comes.
        for piece in answer.iter_content(1):
            content += piece
            if len(content) > LARGEST:
                raise ValueError(_TOO_LARGE)
            if limit.expired:
                raise ValueError(f"it takes more than {SECONDS} s")
    return bytes(content)
