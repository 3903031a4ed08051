"""Secrets that must not appear in an output: `secrets_in` finds them, `mask` hides them."""

from __future__ import annotations

import re

_SECRETS = {
    "a private key": re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    "a password hash": re.compile(r"\$(?:5|6|y|2[aby])\$[./A-Za-z0-9$=,-]{20,}"),
    "an authorization header": re.compile(r"(?i)\bauthorization: *(?:basic|bearer) +\S{8,}"),
}


def mask(text: str) -> str:
    """The text with everything that looks like a secret replaced by the kind of the secret.

    >>> from rfe_helpers.workbook import mask
    >>> mask("rootpw --iscrypted $6$saltsaltsalt$0123456789abcdefghij")
    'rootpw --iscrypted (a password hash, hidden)'
    """
    for kind, pattern in _SECRETS.items():
        text = pattern.sub(f"({kind}, hidden)", text)
    return text


def secrets_in(text: str) -> list[str]:
    """The kinds of secrets that a text seems to contain."""
    return [kind for kind, pattern in _SECRETS.items() if pattern.search(text)]
