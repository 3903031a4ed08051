"""Containerfiles as podman reads them, and what the tests of translations share."""

from __future__ import annotations

import re

from rfe_helpers.imagemode import Translation
from rfe_helpers.lab import profile

SANDBOX, RHEL = profile.load("sandbox"), profile.load("rhel-9.6")
TMPFILES = "rootfs/usr/lib/tmpfiles.d/10-blueprint.conf"
SYSUSERS = "rootfs/usr/lib/sysusers.d/10-blueprint.conf"
# Customizations that become a part of the image; every other one has a remark.
TRANSLATED = {
    "cacerts", "directories", "files", "firewall", "group", "hostname", "kernel", "locale",
    "services", "sshkey", "timezone", "user",
}  # fmt: skip


def instructions(translation: Translation) -> list[tuple[str, str]]:
    """What podman reads: comments left out, continued lines joined, the first word apart."""
    text = re.sub(r"^#.*\n", "", translation.containerfile, flags=re.MULTILINE)
    lines = re.sub(r"\\\n", "", text).splitlines()
    pairs = [tuple(line.split(" ", 1)) for line in lines]
    assert all(len(pair) == 2 for pair in pairs)
    return [(name, " ".join(rest.split())) for name, rest in pairs]


def runs(translation: Translation) -> list[str]:
    return [text for name, text in instructions(translation) if name == "RUN"]
