"""Ignition in a simplified installer: the blueprint's configuration, and Debian's program for it.

In RHEL the program is in the initramfs of the commit and runs at the first boot. The sandbox's
commits do not have it there, so the installer runs it, on the disk that it has written
(installer/edge_installer/ignition.py). Of a configuration that leaves what belongs to a running
system: files, directories, links, users, groups and units; those that partition disks or change
the kernel's arguments are refused.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfe_helpers.core import run
from rfe_helpers.errors import BuilderError, CommandFailedError
from rfe_helpers.sandbox.build import mmdebstrap
from rfe_helpers.sandbox.installer.edge_installer import ignition as installer

if TYPE_CHECKING:  # tree.py imports the module that imports this one
    from rfe_helpers.sandbox.build.tree import Work

PACKAGE = "ignition"
# Where Debian's package has its programs; the second checks a configuration.
_PROGRAMS = ("usr/lib/dracut/modules.d/30ignition/ignition", "usr/bin/ignition-validate")
VERSIONS = ("3.0.0", "3.1.0", "3.2.0", "3.3.0")  # that Ignition 2.14 reads


def problem(value: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong with customizations.ignition: the key below it, and the reason; ("", "") if
    nothing is. What a `firstboot.url` gives is checked by the installer."""
    if value.get("firstboot") and value.get("embedded"):
        return "", "embedded and firstboot exclude each other"
    if url := (value.get("firstboot") or {}).get("url"):
        fits = url.startswith(("http://", "https://")) and url.isprintable() and " " not in url
        return ("", "") if fits else ("firstboot.url", "it is not an http or https URL")
    encoded = (value.get("embedded") or {}).get("config")
    if not encoded:
        return "", "it has neither embedded.config nor firstboot.url"
    try:
        config = json.loads(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return "embedded.config", "it is not a configuration of Ignition in base64"
    version = config.get("ignition") if isinstance(config, dict) else None
    version = version.get("version") if isinstance(version, dict) else None
    if version not in VERSIONS:
        return "embedded.config", f"its ignition.version is not one of {', '.join(VERSIONS)}"
    if beyond := installer.beyond(config):
        return "embedded.config", f"{beyond}: {installer.WHY}"
    return "", ""


@contextlib.contextmanager
def for_medium(customizations: Mapping[str, Any], work: Work) -> Iterator[dict[str, Path]]:
    """What the boot medium needs to run Ignition, by its path there; nothing without a
    configuration. Raises BuilderError if Ignition does not take the configuration."""
    value = customizations.get("ignition") or {}
    if not value:
        yield {}
        return
    with tempfile.TemporaryDirectory(dir=work.directory, prefix="ignition-") as name:
        directory = Path(name)
        config = directory / installer.CONFIG
        config.write_bytes(_config(value))
        config.chmod(0o600)
        program, validate = _programs(work, directory)
        work.on_stage("artifact", "check the Ignition configuration")
        try:
            run.run([validate, config], log=work.log, deadline=work.deadline)
        except CommandFailedError as error:
            raise BuilderError(
                f"customizations.ignition.embedded.config: {error.tail}", log=work.log
            ) from None
        yield {
            f"{installer.DIRECTORY}/{installer.CONFIG}": config,
            f"{installer.DIRECTORY}/{installer.PROGRAM}": program,
        }


def _config(value: Mapping[str, Any]) -> bytes:
    """The configuration; that of a URL is one which is replaced by what is there."""
    if url := (value.get("firstboot") or {}).get("url"):
        source = {"replace": {"source": url}}
        return json.dumps({"ignition": {"version": VERSIONS[-1], "config": source}}).encode()
    return base64.b64decode(value["embedded"]["config"])


def _programs(work: Work, directory: Path) -> list[Path]:
    """Debian's Ignition and its checker, from their package."""
    packed = directory / "package.tar"
    mmdebstrap.extract(work, [PACKAGE], packed)
    names = [f"./{name}" for name in _PROGRAMS]
    unpack: list[str | Path] = ["tar", "-xf", packed, "-C", directory, "--no-same-owner", *names]
    run.run(unpack, deadline=work.deadline)
    packed.unlink()
    return [directory / name for name in _PROGRAMS]
