"""Names and passwords of a room: made for it, printed as cards, and kept as hashes only.

A card is the only place with a password in clear; `cards.html` has mode 0600.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import re
import secrets
from collections.abc import Mapping

# Without letters and digits that look alike.
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP = 3, 4  # 12 letters of 31: 59 bits
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "maxmem": 64 << 20}  # 16 MiB and some 40 ms each
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Cards of the room</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 11pt sans-serif; margin: 8mm; display: flex; flex-wrap: wrap; gap: 4mm }}
section {{ border: 1px dashed #555; padding: 5mm; width: 82mm; box-sizing: border-box;
           break-inside: avoid }}
h1 {{ font-size: 15pt; margin: 0 0 3mm }}
code {{ font: 14pt monospace }}
dt {{ color: #555; font-size: 9pt }} dd {{ margin: 0 0 2mm }}
@media print {{ body {{ margin: 0 }} }}
</style></head><body>
{cards}
</body></html>
"""
_CARD = """<section id="{name}"><h1>RHEL for Edge workbook</h1><dl>
<dt>Address</dt><dd><code>{address}</code></dd>
<dt>Name</dt><dd><code>{name}</code></dd>
<dt>Password, for this room only</dt><dd><code>{password}</code></dd></dl></section>"""

_SECTION = re.compile(r'<section id="([^"]*)">.*?</section>', re.DOTALL)


def new_password() -> str:
    """Twelve letters and digits in groups, such as k7mp-x2ha-9rtd."""
    groups = ["".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS)]
    return "-".join(groups)


def hash_of(password: str) -> str:
    """The salted scrypt hash of a password, as `matches` takes it."""
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}:{_scrypt(password, salt).hex()}"


def matches(password: str, known: str) -> bool:
    """Whether it is the password of a hash."""
    salt, _, expected = known.partition(":")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)).hex(), expected)


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.strip().lower().encode()[:200], salt=salt, **_SCRYPT)


def cards(address: str, passwords: Mapping[str, str], page: str = "") -> str:
    """A page of cards to print and cut out, one for each name; those of an earlier page stay,
    unless there is a new one for the name."""
    earlier = {match[1]: match[0] for match in _SECTION.finditer(page)}
    new = {
        html.escape(name): _CARD.format(
            address=html.escape(address), name=html.escape(name), password=html.escape(password)
        )
        for name, password in passwords.items()
    }
    return _PAGE.format(cards="\n".join({**earlier, **new}.values()))
