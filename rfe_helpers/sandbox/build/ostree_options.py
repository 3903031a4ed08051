"""The `ostree` part of a compose request: its validation, and the parent commit at its url.

Rules and messages are those of osbuild (osbuild/images, pkg/ostree, 2025).
"""

from __future__ import annotations

import contextlib
import re
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

import requests

from rfe_helpers.core.network import HOST_FROM_GUEST, LOOPBACK
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build.image_types import DEFAULT_REF, ImageType

CONNECT_SECONDS, RESOLVE_SECONDS = 30, 300
_REF = re.compile(r"(?:\w[-.\w]*/)*\w[-.\w]*", re.ASCII)
_CHECKSUM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class OstreeOptions:
    """The options of the request; "" is unset."""

    ref: str = ""
    parent: str = ""
    url: str = ""
    contenturl: str = ""
    rhsm: bool = False


def check(options: OstreeOptions, kind: ImageType) -> None:
    """Raise BuilderError unless the options are valid for the type."""
    if not kind.ostree and options != OstreeOptions():
        raise BuilderError(f'OSTree is not supported for "{kind.name}"')
    if options.ref and _CHECKSUM.fullmatch(options.ref):
        raise BuilderError(f'ostree image ref looks like a checksum "{options.ref}"')
    if options.ref and not _REF.fullmatch(options.ref):
        raise BuilderError(f'invalid ostree image ref "{options.ref}"')
    if options.parent and not _REF.fullmatch(options.parent):
        raise BuilderError(f'invalid ostree parent ref or commit "{options.parent}"')
    if options.parent and not options.url:
        raise BuilderError("ostree parent ref specified, but no URL to retrieve it")
    for url in (options.url.removeprefix("mirrorlist="), options.contenturl):
        if url and not is_absolute(url):
            raise BuilderError(f'ostree URL "{url}" is invalid')
    if options.rhsm:
        raise BuilderError('"ostree.rhsm" is not supported: this system has no subscription')
    if kind.deploys and not options.url:
        raise BuilderError(
            f'options validation failed for image type "{kind.name}": '
            "ostree.url: required, there is no default available"
        )


def is_absolute(url: str) -> bool:
    """Whether a text is an http or https URL with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()
    except ValueError:
        return False


def resolve(options: OstreeOptions, kind: ImageType) -> str | None:
    """The id of the commit that the request builds on or deploys; None if it names no url.

    For a type that makes a commit, that is the parent: `parent`, or else the commit that the ref
    names at `url`. For a type that deploys one, it is the commit that the ref names there. Raises
    BuilderError if it cannot be resolved.
    """
    if not options.url:
        return None
    ref = options.ref or DEFAULT_REF
    revision = ref if kind.deploys else options.parent or ref
    if _CHECKSUM.fullmatch(revision):
        return revision
    base = options.url
    if base.startswith("mirrorlist="):
        base = _first_mirror(base.removeprefix("mirrorlist="))
    location = f"{base.rstrip('/')}/refs/heads/{revision}"
    checksum = _get(location, limit=1024).strip()
    if not _CHECKSUM.fullmatch(checksum):
        raise BuilderError(f'ostree repository "{location}" returned invalid reference')
    return checksum


def reachable(url: str) -> str:
    """The URL at which this service reaches what an image will look for at `url`.

    A virtual machine with QEMU's user networking reaches its host at 10.0.2.2; that host is this
    machine. So one URL works for the compose and for the systems installed from it, as it does with
    an Image Builder in a virtual machine. Where the service itself runs in such a network, of a
    machine or a rootless container, the host may be the one outside: what listens here comes first.
    """
    parts = urlsplit(url)
    if parts.hostname != HOST_FROM_GUEST:
        return url
    here = parts._replace(netloc=parts.netloc.replace(HOST_FROM_GUEST, LOOPBACK))
    return url if _is_guest() and not _answers(here) else urlunsplit(here)


def _answers(place: SplitResult) -> bool:
    """Whether a server listens where a URL points."""
    try:
        port = place.port or {"http": 80, "https": 443}.get(place.scheme, 0)
        socket.create_connection((place.hostname, port), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError):  # no port has that number
        return False
    return True


def _is_guest() -> bool:
    """Whether this machine has an address in a network like QEMU's user network; sends nothing."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect((HOST_FROM_GUEST, 9))
        except OSError:
            return False
        return str(probe.getsockname()[0]).startswith(HOST_FROM_GUEST.rpartition(".")[0] + ".")


def _first_mirror(location: str) -> str:
    for line in _get(location, limit=65536).splitlines():
        if line.strip() and not line.startswith("#"):
            return line.strip()
    raise BuilderError(f'ostree mirrorlist "{location}" names no repository')


def _get(location: str, limit: int) -> str:
    """The first `limit` bytes at a URL."""
    deadline = Deadline(RESOLVE_SECONDS)
    try:
        timeout = (CONNECT_SECONDS, RESOLVE_SECONDS)
        with requests.get(
            reachable(location), stream=True, timeout=timeout, allow_redirects=False
        ) as answer:
            if answer.status_code != 200:
                raise BuilderError(
                    f'ostree repository "{location}" returned status: '
                    f"{answer.status_code} {answer.reason}"
                )
            content = b""
            for piece in answer.iter_content(limit):  # a piece may be shorter
                content += piece
                if len(content) >= limit or deadline.expired:
                    break
            return content[:limit].decode(errors="replace")
    except (requests.RequestException, ValueError) as error:
        raise BuilderError(
            f'error sending request to ostree repository "{location}": {_reason(error)}'
        ) from None


def _reason(error: BaseException) -> str:
    """What the system said, without the layers of urllib3 and requests around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error)
