"""The GPG key with which a lab signs its commits.

gpg makes the key for the lab in batch mode, without a passphrase, in a GnuPG directory of its own
(0700, its files 0600). The secret key never leaves that directory; devices get `public`. Where both
sides have an ostree with ed25519 (`ostree --version` lists sign-ed25519; Debian 12 lacks it),
`ostree sign` is the alternative. It is not used here.
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

# gpg-agent's socket is in that directory, and a socket's path has at most 107 bytes.
_LONGEST_HOME = 80
_KIND = ["rsa3072", "sign", "never"]  # algorithm, usage, expiry


@dataclass(frozen=True)
class SigningKey:
    """A secret key in the GnuPG directory `home`; `id` is its fingerprint, `public` the public
    key as armoured text.

    >>> from rfe_helpers import serve
    >>> key = serve.Publication.of(lab).key
    >>> key.public.splitlines()[0]
    '-----BEGIN PGP PUBLIC KEY BLOCK-----'
    """

    home: Path
    id: str
    public: str


def signing_key(home: Path, name: str = "RFE lab") -> SigningKey:
    """The key in `home`, made at the first call, which takes seconds. Raises CommitError.

    >>> from pathlib import Path
    >>> from rfe_helpers.commit import signing_key
    >>> key = signing_key(Path("gnupg"), "Shops")
    >>> len(key.id)
    40
    """
    run.require("gpg", "gpgconf")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    home.chmod(0o700)
    with reachable(home) as short:
        fingerprint = _fingerprint(short)
        if not fingerprint:
            _gpg(short, "--passphrase", "", "--quick-generate-key", name, *_KIND)
            fingerprint = _fingerprint(short)
        return SigningKey(home, fingerprint, _gpg(short, "--armor", "--export", fingerprint))


@contextmanager
def reachable(home: Path) -> Iterator[Path]:
    """A path of a GnuPG directory that is short enough for its agent. The agent is ended
    afterwards, so the directory is locked: one user at a time."""
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
