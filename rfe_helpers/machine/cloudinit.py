"""cloud-init's NoCloud data: what a guest image is told at its first boot, as text and as a CD.

The CD has the label `cidata` and at least `user-data` and `meta-data` (cloud-init's documentation
of the NoCloud data source). Only `seed` runs a command, xorriso.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rfe_helpers.core import files, run
from rfe_helpers.errors import CommandFailedError, InputError, MediaError

LABEL = "cidata"
# What cloud-init looks for on the CD; the first two are required.
FILES = ("user-data", "meta-data", "network-config", "vendor-data")


def user_data(*, password_hash: str, ssh_key: str) -> str:
    """User data that let root log in with a password and with an SSH key.

    `password_hash` is in the form of crypt(3), `ssh_key` the line of a public key file. The
    result is JSON, which is also YAML. `hashed_passwd` is the field that works in every release
    for a user who exists already (cloud-init, module users-groups). Raises InputError if either
    is empty or more than one line.
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
    """Meta data; if `instance` differs from that of the last boot, cloud-init runs everything
    again."""
    return json.dumps({"instance-id": instance, "local-hostname": hostname}, indent=2) + "\n"


def read_directory(directory: Path) -> dict[str, str]:
    """The text of those FILES that a directory has. Raises InputError if a required one is
    missing or not text."""
    documents = {}
    for name in FILES:
        try:
            documents[name] = (directory / name).read_text()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise InputError(f"{directory / name}: {reason}") from None
    if missing := [name for name in FILES[:2] if name not in documents]:
        raise InputError(
            f"{directory} has no {' and no '.join(missing)}",
            remedy="cloud-init needs both; meta-data may be empty",
        )
    return documents


def seed(target: Path, documents: Mapping[str, str]) -> Path:
    """Write a CD with `documents` (text by file name) to `target`, readable by its owner only.
    Raises MediaError."""
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
