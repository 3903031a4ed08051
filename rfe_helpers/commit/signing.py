"""The GPG key with which a lab signs what it publishes.

The key is made for the lab, without a passphrase, in a GnuPG directory of its own (0700, its
files 0600), by gpg in batch mode. It never leaves that directory; what devices get is `public`.
Where both sides have an ostree with ed25519 (`ostree --version` lists sign-ed25519; that of
Debian 12 does not), `ostree sign` is the other way. It is not used here.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core import files, run
from rfe_helpers.errors import CommandFailedError, CommitError

# gpg-agent's socket lies in its directory, and a socket's path has at most 107 bytes.
_LONGEST_HOME = 80
_KIND = ("rsa3072", "sign", "never")  # the last: it does not expire


@dataclass(frozen=True)
class SigningKey:
    """A secret key in the GnuPG directory `home`; `id` is its fingerprint, `public` the public
    key as armoured text."""

    home: Path
    id: str
    public: str


def signing_key(home: Path, name: str = "RFE lab") -> SigningKey:
    """The key in `home`, made at the first call (a few seconds). Raises CommitError."""
    run.require("gpg", "gpgconf")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    home.chmod(0o700)
    with reachable(home) as short:
        if not (found := _fingerprint(short)):
            _gpg(short, *("--passphrase", ""), *("--quick-generate-key", name, *_KIND))
            found = _fingerprint(short)
        return SigningKey(home, found, _gpg(short, "--armor", "--export", found))


@contextmanager
def reachable(home: Path) -> Iterator[Path]:
    """A name of a GnuPG directory that is short enough for its agent, which is ended afterwards:
    so one user of it at a time."""
    with (
        files.locked(home / ".lock"),
        tempfile.TemporaryDirectory(prefix="rfe-gpg-") as directory,
    ):
        short = home
        if len(os.fsencode(home)) > _LONGEST_HOME:
            short = Path(directory, "home")
            short.symlink_to(home.absolute())
        try:
            yield short
        finally:
            run.run(["gpgconf", "--homedir", short, "--kill", "gpg-agent"], check=False, seconds=30)


def _fingerprint(home: Path) -> str:
    listed = _gpg(home, "--with-colons", "--list-secret-keys")
    match = re.search(r"^fpr:+([0-9A-F]{40}):", listed, re.MULTILINE)
    return match[1] if match else ""


def _gpg(home: Path, *arguments: str) -> str:
    try:
        return run.run(["gpg", "--homedir", home, "--batch", "--quiet", *arguments]).stdout
    except CommandFailedError as error:
        raise CommitError(f"gpg in {home}: {error.tail}") from error
