"""A certificate authority of a lab's own, and the certificate of its web server, with openssl.

In the directory given (0700), each key 0600:

    ca.pem, ca.key            the authority; devices get ca.pem
    server.pem, server.key    the server's, for loopback, as this machine and its guests see it
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core import run
from rfe_helpers.core.network import HOST_FROM_GUEST, LOOPBACK
from rfe_helpers.errors import CommandFailedError, ServeError

DAYS = "825"  # what clients accept of a server's certificate at most
_ADDRESSES = f"subjectAltName=IP:{LOOPBACK},IP:{HOST_FROM_GUEST},DNS:localhost"
_ELLIPTIC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificates:
    """Files of a server and of the authority (`ca`) that vouches for it."""

    ca: Path
    certificate: Path
    key: Path


def certificates(directory: Path, name: str = "RFE lab CA") -> Certificates:
    """The certificates in a directory, made at the first call. Raises ServeError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    found = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    if not found.certificate.exists():
        try:
            _make(directory, name)
        except CommandFailedError as error:
            raise ServeError(f"openssl makes no certificate:\n{error.tail}") from error
    return found


def _make(directory: Path, name: str) -> None:
    """All four, put in place one by one, the server's certificate last."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        new = {n: Path(scratch, n) for n in ("ca.key", "ca.pem", "server.key", "server.pem")}
        request = Path(scratch, "server.csr")
        extensions = Path(scratch, "extensions")
        extensions.write_text(f"{_ADDRESSES}\nextendedKeyUsage=serverAuth\n")
        subject = ["-subj", f"/CN={name}", "-days", DAYS]
        words: tuple[str | Path, ...]
        words = (*subject, "-keyout", new["ca.key"], "-out", new["ca.pem"])
        _openssl("req", "-x509", *_ELLIPTIC, *words)
        words = ("-subj", "/CN=RFE lab mirror", "-keyout", new["server.key"], "-out", request)
        _openssl("req", "-new", *_ELLIPTIC, *words)
        _openssl(
            *("x509", "-req", "-in", request, "-extfile", extensions, "-days", DAYS),
            *("-CA", new["ca.pem"], "-CAkey", new["ca.key"], "-set_serial", str(_serial())),
            *("-out", new["server.pem"]),
        )
        for file, path in new.items():
            path.chmod(0o600 if file.endswith(".key") else 0o644)
            path.replace(directory / file)


def _openssl(*arguments: str | Path) -> None:
    run.run(["openssl", *arguments], seconds=60)


def _serial() -> int:
    return int.from_bytes(os.urandom(15), "big")
