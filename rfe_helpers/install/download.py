"""Fetch guest images and boot ISOs that are public: resumed, checked, and kept in the cache.

    <cache>/media/<name>              whole and checked: a file with its name is never a part of it
    <cache>/media/<name>.part         what has come so far
    <cache>/media/<name>.part.json    where from, and the server's mark of that version (ETag)

What is behind a login is not fetched: `advice` says where a person gets it.

requests and not curl: `curl --retry --continue-at -` starts over after each break (7.88), sends no
If-Range of its own, and with one it ends with an error when the file has changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import requests
import urllib3

from rfe_helpers.core import files
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.errors import MediaError
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.lab.profile import Profile

KINDS = {"guest": "guest image", "iso": "boot ISO"}
ATTEMPTS = 5  # that bring nothing new
_SECONDS = 60
_CHUNK = 1 << 16  # what a broken connection loses at most
_MOST_CHECKSUMS = 1 << 20
_BSD = re.compile(r"^SHA256 \(([^)]+)\) = ([0-9a-f]{64})$", re.MULTILINE)
_GNU = re.compile(r"^([0-9a-f]{64}) [ *](\S+)$", re.MULTILINE)


def kept(name: str) -> Path:
    """Where a fetched file is, or is to be put by a person who got it by hand.

    >>> from rfe_helpers.install import download
    >>> download.kept("rhel-9.6-x86_64-boot.iso")
    PosixPath('.../media/rhel-9.6-x86_64-boot.iso')
    """
    return cache_directory() / "media" / name


def facts(profile: Profile, kind: str) -> tuple[str, str, str]:
    """File name, URL and URL of the checksums of a profile's "guest" image or boot "iso".

    >>> from rfe_helpers.install import download
    >>> from rfe_helpers.lab import profile
    >>> name, url, checksums = download.facts(profile.load("rhel-9.6"), "iso")
    >>> name
    'rhel-9.6-x86_64-boot.iso'
    """
    media = profile.media
    if kind == "guest":
        return media.guest_image, media.guest_url, media.guest_checksums
    return media.boot_iso, media.iso_url, media.iso_checksums


_PARAMETERS = {"guest": "`image` of notebook 10", "iso": "`boot_iso` of notebook 50"}


def advice(profile: Profile, kind: str) -> str:
    """How a person gets it, as one sentence.

    >>> from rfe_helpers.install import download
    >>> from rfe_helpers.lab import profile
    >>> print(download.advice(profile.load("rhel-9.6"), "iso"))
    log in at https://access.redhat.com/..., get rhel-9.6-x86_64-boot.iso there and put it at ...
    """
    name, url, _ = facts(profile, kind)
    if url:
        return f"fetch it: `rfe fetch {kind} --profile {profile.name}`"
    if not profile.media.portal:
        return (
            f"name one with the parameter {_PARAMETERS[kind]}: there is no {KINDS[kind]} of "
            f"{profile.title} to fetch"
        )
    return (
        f"log in at {profile.media.portal}, get {name} there and put it at {kept(name)}, "
        f"or name its place with the parameter {_PARAMETERS[kind]}"
    )


def fetch_media(profile: Profile, kind: str, on_progress: OnProgress = None) -> Path:
    """The profile's guest image or boot ISO, fetched unless it is kept already.

    Raises MediaError: with the place to go to for what is behind a login.

    >>> from rfe_helpers.install import download
    >>> from rfe_helpers.lab import profile
    >>> release = profile.load("centos-stream-9")
    >>> download.fetch_media(release, "guest", print)  # doctest: +SKIP
    PosixPath('/home/anna/.cache/rfe/media/CentOS-Stream-GenericCloud-9-latest.x86_64.qcow2')
    """
    name, url, checksums = facts(profile, kind)
    target = kept(name)
    if target.exists():
        return target
    if not url:
        raise MediaError(
            f"the {KINDS[kind]} of {profile.title} is not public", remedy=advice(profile, kind)
        )
    sha256 = checksum_of(_get_text(checksums), name)
    return fetch(url, target, sha256, on_progress)


def checksum_of(text: str, name: str) -> str:
    """The SHA-256 of a file in a list of checksums, in BSD's or GNU's form.

    A list of one is of that file, whatever it calls it: "latest" is a link to another name. Raises
    MediaError if there is none. The signature that such a list may have is not checked.

    >>> from rfe_helpers.install import download
    >>> digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    >>> download.checksum_of(f"{digest}  boot.iso", "boot.iso") == digest
    True
    """
    digests = dict(_BSD.findall(text)) | {file: digest for digest, file in _GNU.findall(text)}
    if len(digests) == 1:
        return str(next(iter(digests.values())))
    if name not in digests:
        raise MediaError(
            f"the list of checksums does not name {name}",
            remedy="another version is published now: `rfe profiles NAME` shows the address",
        )
    return str(digests[name])


def fetch(url: str, target: Path, sha256: str, on_progress: OnProgress = None) -> Path:
    """Fetch a URL to `target`, resuming where an earlier call stopped.

    Raises MediaError if it is not there, does not come, or has another checksum; then what has
    come is kept in the first two cases and removed in the last.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Labs share this directory: one of them fetches, the others wait and find the file.
    with files.locked(target.with_name(f"{target.name}.lock")):
        return target if target.exists() else _fetch(url, target, sha256, on_progress)


def _fetch(url: str, target: Path, sha256: str, on_progress: OnProgress) -> Path:
    part = target.with_name(f"{target.name}.part")
    failures, most = 0, _size(part)
    while True:
        try:
            _resume(url, part, on_progress)
            break
        except requests.RequestException as error:
            # A server that cannot resume starts over each time: only more than ever is a gain.
            failures = failures + 1 if _size(part) <= most else 1
            most = max(most, _size(part))
            if failures >= ATTEMPTS:
                raise _failure(url, error, _size(part)) from None
    if on_progress is not None:
        on_progress("checking")
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _forget(part, keep=digest == sha256)
    if digest != sha256:
        raise MediaError(
            f"{url} is damaged: its SHA-256 is {digest}, published is {sha256}",
            remedy="fetch it again; if it happens again, the mirror has another version",
        )
    part.replace(target)
    files.sync_directory(target.parent)
    return target


def _resume(url: str, part: Path, on_progress: OnProgress) -> None:
    """One request for what is not here yet. Raises RequestException when it breaks off."""
    mark = _mark(part, url)
    have = _size(part) if mark else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        # If the server has another version now, it sends all of it.
        headers |= {"Range": f"bytes={have}-", "If-Range": mark}
    with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as answer:
        if answer.status_code == 416:  # nothing is missing, or it is shorter now
            if answer.headers.get("Content-Range", "") == f"bytes */{have}":
                return
            _forget(part)
            raise requests.ConnectionError("it has become shorter")
        if answer.status_code in (401, 403, 404, 410):
            raise MediaError(
                f"{url} is not there: {answer.status_code} {answer.reason}",
                remedy="see where the profile has its address from: `rfe profiles NAME`",
            )
        answer.raise_for_status()
        if answer.status_code != 206:
            have = 0
        length = have + int(answer.headers.get("Content-Length") or 0)
        files.check_room(
            part.parent,
            length - have,
            "what is left of the download",
            MediaError,
            remedy="free some space, or set RFE_CACHE to another directory",
        )
        mark = answer.headers.get("ETag", "")
        if mark.startswith("W/"):  # good for a page, not for a piece of a file
            mark = ""
        mark = mark or answer.headers.get("Last-Modified", "")
        files.write_json(_note(part), {"url": url, "mark": mark})
        with files.writing(part.parent), part.open("ab" if have else "wb") as file:
            for chunk in answer.iter_content(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if on_progress is not None:
                    on_progress(f"{have / 1e6:.1f} of {length / 1e6:.1f} MB")
        if have < length:
            raise requests.ConnectionError(f"{have} of {length} bytes came")


def _mark(part: Path, url: str) -> str:
    """What the server called the version that the part is of, "" if it cannot be resumed."""
    try:
        note: dict[str, Any] = json.loads(_note(part).read_text())
    except (OSError, ValueError):
        return ""
    return str(note.get("mark", "")) if note.get("url") == url else ""


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path, *, keep: bool = False) -> None:
    _note(part).unlink(missing_ok=True)
    if not keep:
        part.unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _get_text(url: str) -> str:
    try:
        with requests.get(url, timeout=_SECONDS, stream=True) as answer:
            answer.raise_for_status()
            return answer.raw.read(_MOST_CHECKSUMS, decode_content=True).decode(errors="replace")
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _failure(url, error) from None


# Words in the errors of requests and urllib3, what has happened, and what to do then.
_CAUSES = (
    (
        r"resolve|Name or service",
        "the name of its host is not known here",
        "see that this machine has a network and a name server; behind a proxy set https_proxy",
    ),
    (
        r"Max retries|refused|timed out|unreachable",
        "its server cannot be reached",
        "see why not: `curl -I {url}`; behind a proxy set https_proxy",
    ),
    (
        r"40[134] Client Error|410 Client Error",
        "it is not there",
        "see where the profile has its address from: `rfe profiles NAME`",
    ),
    (r"50\d Server Error", "its server has a problem", "try again later, or see `curl -I {url}`"),
)


def _failure(url: str, error: Exception, have: int = 0) -> MediaError:
    """Why a URL cannot be fetched, and what to do: each cause has its own remedy. `have` bytes have
    come."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    known = ((reason, remedy) for words, reason, remedy in _CAUSES if re.search(words, text))
    cut = f"run it again, it continues where it stopped: {have} bytes are here"
    reason, remedy = next(known, ("the connection breaks off again and again", cut))
    return MediaError(f"{url} cannot be fetched: {reason} ({text})", remedy=remedy.format(url=url))
