"""A lab's own certificate authority and the certificate of its web server, made with openssl.

In the directory of `certificates` (0700), keys with mode 0600:

    ca.pem, ca.key            the authority; devices get ca.pem
    server.pem, server.key    the server's, for the addresses of loopback here and in guests
"""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core import run
from rfe_helpers.core.network import HOST_FROM_GUEST, LOOPBACK
from rfe_helpers.errors import CommandFailedError, ServeError

DAYS = "825"  # the longest validity of a server's certificate that clients accept
_ADDRESSES = f"subjectAltName=IP:{LOOPBACK},IP:{HOST_FROM_GUEST},DNS:localhost"
_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Certificates:
    """The files of a server's certificate and key, and of the authority (`ca`) that signed it."""

    ca: Path
    certificate: Path
    key: Path


def certificates(
    directory: Path, name: str = "RFE lab CA", hosts: Iterable[str] = ()
) -> Certificates:
    """The certificates in a directory, created at the first call, for loopback and for `hosts`
    (addresses and names). Raises ServeError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    paths = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    if not paths.certificate.exists():
        try:
            _make(directory, name, hosts)
        except CommandFailedError as error:
            raise ServeError(f"openssl cannot make a certificate:\n{error.tail}") from error
    return paths


def _kind(host: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "DNS"
    return "IP"


def _make(directory: Path, name: str, hosts: Iterable[str]) -> None:
    """Make all four files and put them in place one by one, the server's certificate last."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        new = {n: Path(scratch, n) for n in ("ca.key", "ca.pem", "server.key", "server.pem")}
        request = Path(scratch, "server.csr")
        extensions = Path(scratch, "extensions")
        more = "".join(f",{_kind(host)}:{host}" for host in hosts)
        extensions.write_text(f"{_ADDRESSES}{more}\nextendedKeyUsage=serverAuth\n")
        # fmt: off
        _openssl(
            "req", "-x509", *_NEW_KEY,
            "-subj", f"/CN={name}",
            "-days", DAYS,
            "-keyout", new["ca.key"],
            "-out", new["ca.pem"],
        )
        _openssl(
            "req", "-new", *_NEW_KEY,
            "-subj", "/CN=RFE lab mirror",
            "-keyout", new["server.key"],
            "-out", request,
        )
        _openssl(
            "x509", "-req",
            "-in", request,
            "-extfile", extensions,
            "-days", DAYS,
            "-CA", new["ca.pem"],
            "-CAkey", new["ca.key"],
            "-set_serial", str(_serial()),
            "-out", new["server.pem"],
        )
        # fmt: on
        for file, path in new.items():
            path.chmod(0o600 if file.endswith(".key") else 0o644)
            path.replace(directory / file)


def _openssl(*arguments: str | Path) -> None:
    run.run(["openssl", *arguments], seconds=60)


def _serial() -> int:
    return int.from_bytes(os.urandom(15), "big")
