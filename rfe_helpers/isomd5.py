"""The checksum that an ISO carries inside itself, as isomd5sum puts it there and Anaconda reads it.

It stands in the "application use" field of the primary volume descriptor, which counts as spaces
while it is computed, and covers all but the last sectors. It finds damage by chance, a bad copy or
a worn stick; against somebody who changes an ISO on purpose it does not help. Facts: isomd5sum's
libimplantisomd5.c and libcheckisomd5.c. Standard library only: the sandbox's installer has it too.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SECTOR = 2048
_DESCRIPTOR = 16 * SECTOR  # ECMA-119: where the primary volume descriptor is
_FIELD = _DESCRIPTOR + 883
_FIELD_SIZE = 512
_SKIPPED = 15  # sectors at the end, which drives that burn at once may have trouble to read
_CHUNK = 32768  # isomd5sum's: it notices the end of a fragment only after a whole chunk
_FRAGMENTS, _DIGITS = 20, 3
_FOUND = re.compile(r"ISO MD5SUM = ([0-9a-f]{32});SKIPSECTORS = (\d+);")


class DamagedError(Exception):
    """The content is not what the checksum was computed from."""


def implant(path: Path) -> str:
    """Write the checksum of an ISO into it and return it; a former one is replaced."""
    with path.open("r+b") as file:
        found, fragments = _digest(file, _SKIPPED)
        text = f"ISO MD5SUM = {found};SKIPSECTORS = {_SKIPPED};RHLISOSTATUS=1;"
        text += f"FRAGMENT SUMS = {fragments};FRAGMENT COUNT = {_FRAGMENTS};"
        text += "THIS IS NOT THE SAME AS RUNNING MD5SUM ON THIS ISO!!"
        file.seek(_FIELD)
        file.write(text.encode().ljust(_FIELD_SIZE))
    return found


def check(path: Path) -> bool:
    """Whether an ISO, or a device that one was written to, carries a checksum that fits.

    False if it carries none. Raises DamagedError if it does not fit, OSError.
    """
    with path.open("rb") as file:
        file.seek(_FIELD)
        found = _FOUND.search(file.read(_FIELD_SIZE).decode("ascii", errors="replace"))
        if found is None:
            return False
        if _digest(file, int(found[2]))[0] != found[1]:
            raise DamagedError(f"the content of {path} does not match the checksum in it")
    return True


def _digest(file: BinaryIO, skipped: int) -> tuple[str, str]:
    """The checksum, and the first digits of what it is at the end of each fragment."""
    file.seek(_DESCRIPTOR + 80)
    blocks: int = struct.unpack("<I", file.read(4))[0]
    total = (blocks - skipped) * SECTOR
    digest = hashlib.md5(usedforsecurity=False)
    done, fragments = 0, ""
    fragment = max(total // (_FRAGMENTS + 1), 1)
    for chunk in _chunks(file, total):
        digest.update(chunk)
        if done // fragment != max(done - _CHUNK, 0) // fragment:
            fragments += "".join(f"{byte:x}"[0] for byte in digest.digest()[:_DIGITS])
        done += len(chunk)
    return digest.hexdigest(), fragments


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The first `size` bytes, or what is there of them, with the field blank."""
    file.seek(0)
    done = 0
    while done < size and (chunk := file.read(min(_CHUNK, size - done))):
        if done <= _FIELD < done + len(chunk):
            place = _FIELD - done
            chunk = chunk[:place] + b" " * _FIELD_SIZE + chunk[place + _FIELD_SIZE :]
        yield chunk
        done += len(chunk)
