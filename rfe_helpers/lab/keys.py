"""The lab's SSH key, and the machines that are reached with it.

keys/id_ed25519, id_ed25519.pub    made at the first call (0600 in a 0700 directory)
keys/known_hosts-<name>            the host key of a machine, from the first connection on
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rfe_helpers.core import files, run
from rfe_helpers.core.network import LOOPBACK
from rfe_helpers.core.ssh import Host

if TYPE_CHECKING:
    from rfe_helpers.lab.lab import Lab


def host(lab: Lab, name: str, port: int, *, user: str = "root", address: str = LOOPBACK) -> Host:
    """The lab's machine `name` at a port of `address`, reached with the lab's key."""
    public_key(lab)
    return Host(
        address,
        user,
        port,
        key=lab.path("keys", "id_ed25519"),
        known_hosts=known_hosts(lab, name),
        control=lab.socket(f"{name}.ssh"),
    )


def known_hosts(lab: Lab, name: str) -> Path:
    """The file with the host key of a machine."""
    return lab.path("keys", f"known_hosts-{name}")


def forget(lab: Lab, name: str) -> None:
    """Accept the next host key of a machine, which has been installed again."""
    known_hosts(lab, name).unlink(missing_ok=True)


def public_key(lab: Lab) -> str:
    """The lab's public SSH key, one line; the key pair is made at the first call."""
    key = lab.path("keys", "id_ed25519")
    key.parent.chmod(0o700)
    # Several machines may be started at the same moment.
    with files.locked(lab.path("keys", ".lock")):
        if not key.exists():
            with tempfile.TemporaryDirectory(dir=key.parent, prefix=".new-") as directory:
                new = Path(directory, key.name)
                comment = f"rfe-lab-{lab.id}"
                run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", new])
                # Half a pair is useless: the secret key comes last.
                new.with_suffix(".pub").replace(key.with_suffix(".pub"))
                new.replace(key)
                files.sync_directory(key.parent)
    return key.with_suffix(".pub").read_text().strip()
