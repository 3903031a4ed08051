"""cloud-init's NoCloud data: what a guest image is told at its first boot, as text and as a CD.

The CD has the label `cidata` and at least `user-data` and `meta-data` (cloud-init's documentation
of the NoCloud data source). Pure but for `seed`, which asks xorriso.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rfe_helpers.core import files, run
from rfe_helpers.errors import CommandFailedError, InputError, MediaError

LABEL = "cidata"
# What cloud-init looks for on the CD; the first two must be there.
FILES = ("user-data", "meta-data", "network-config", "vendor-data")


def user_data(*, password_hash: str, ssh_key: str) -> str:
    """User data that let root log in: with a password, and with the key of a public key file.

    A JSON document, which is YAML too. `hashed_passwd` is the way that works for a user who
    exists already, in every release (cloud-init, module users-groups).
    """
    for value in (password_hash, ssh_key.strip()):
        if not value or "\n" in value:
            raise InputError(f"{value!r} must be one line of text")
    root = {
        "name": "root",
        "lock_passwd": False,
        "hashed_passwd": password_hash,
        "ssh_authorized_keys": [ssh_key.strip()],
    }
    data = {"disable_root": False, "ssh_pwauth": True, "users": [root]}
    return "#cloud-config\n" + json.dumps(data, indent=2) + "\n"


def meta_data(instance: str, hostname: str) -> str:
    """Meta data; with another `instance` than before, cloud-init does all of its work again."""
    return json.dumps({"instance-id": instance, "local-hostname": hostname}, indent=2) + "\n"


def read_directory(directory: Path) -> dict[str, str]:
    """The files of FILES in a directory. Raises InputError if one that is needed is not there."""
    found = {}
    for name in FILES:
        try:
            found[name] = (directory / name).read_text()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "this is no text"
            raise InputError(f"{directory / name}: {reason}") from None
    if missing := [name for name in FILES[:2] if name not in found]:
        raise InputError(
            f"{directory} has no {' and no '.join(missing)}",
            remedy="cloud-init needs both; meta-data may be empty",
        )
    return found


def seed(target: Path, documents: Mapping[str, str]) -> Path:
    """Write the CD with the documents, readable by its owner only. Raises MediaError."""
    with (
        tempfile.TemporaryDirectory(prefix="rfe-seed-") as directory,
        files.replacing(target, mode=0o600) as unfinished,
    ):
        for name, text in documents.items():
            Path(directory, name).write_text(text)
        try:
            run.run(seed_argv(Path(directory), unfinished))
        except CommandFailedError as error:
            raise MediaError(f"the CD for cloud-init could not be made: {error.tail}") from None
    return target


def seed_argv(directory: Path, target: Path) -> list[str]:
    """The command that makes the CD."""
    options = ["-quiet", "-o", str(target), "-V", LABEL, "-J", "-R"]
    return ["xorriso", "-as", "mkisofs", *options, str(directory)]
