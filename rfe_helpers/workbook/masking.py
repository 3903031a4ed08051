"""Secrets that must never stand in an output: how they are found and hidden."""

from __future__ import annotations

import re

# What must never stand in an output: each is looked for by `secrets_in` and hidden by `mask`.
_SECRETS = {
    "a private key": re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    "a password hash": re.compile(r"\$(?:5|6|y|2[aby])\$[./A-Za-z0-9$=,-]{20,}"),
    "an authorization header": re.compile(r"(?i)\bauthorization: *(?:basic|bearer) +\S{8,}"),
}


def mask(text: str) -> str:
    """The text with everything that looks like a secret replaced by what it was."""
    for kind, pattern in _SECRETS.items():
        text = pattern.sub(f"({kind}, hidden)", text)
    return text


def secrets_in(text: str) -> list[str]:
    """What kinds of secrets a text seems to hold."""
    return [kind for kind, pattern in _SECRETS.items() if pattern.search(text)]
